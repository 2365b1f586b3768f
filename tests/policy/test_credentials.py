"""Which Secrets a proxy needs: those that the rules for it name, and no other."""

from __future__ import annotations

from typing import Any

import pytest
import yaml

from fairlead.policy.credentials import place_of, secrets_of_gateway, secrets_of_sidecar
from fairlead.policy.resources import Resources
from fairlead.policy.world import World
from fairlead.registry.documents import Document
from fairlead.registry.model import Workload

EDGE = Workload("edge", "gw-1", labels={"istio": "ingressgateway"})
APP = Workload("shop", "app-1", labels={"app": "web"})


def rules(text: str) -> Resources:
    documents = [Document.of(body, "test") for body in yaml.safe_load_all(text)]
    world, reports = World.load(documents)
    assert all(report.valid for report in reports), reports
    return world.resources


def gateway(tls: str, selector: str = "istio: ingressgateway", namespace: str = "shop", protocol: str = "HTTPS") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {{name: edge, namespace: {namespace}}}
spec:
  selector: {{{selector}}}
  servers: [{{port: {{number: 443, name: a, protocol: {protocol}}}, hosts: ["*"], tls: {tls}}}]
"""


@pytest.mark.parametrize(
    ("tls", "names"),
    [
        ("{mode: SIMPLE, credentialName: a}", {"a"}),
        ("{mode: SIMPLE, credentialName: 'kubernetes://a'}", {"a"}),
        ("{mode: SIMPLE, credentialNames: [a, b]}", {"a", "b"}),
        ("{mode: MUTUAL, credentialName: a}", {"a", "a-cacert"}),
        ("{mode: OPTIONAL_MUTUAL, credentialName: a, caCertCredentialName: c}", {"a", "c"}),
        ("{mode: PASSTHROUGH, credentialName: a}", set()),
        ("{mode: SIMPLE, serverCertificate: /a, privateKey: /b}", set()),
        ("{mode: ISTIO_MUTUAL}", set()),
    ],
)
def test_of_a_server_those_of_the_gateways_own_namespace_that_its_mode_has_use_for(tls: str, names: set[str]) -> None:
    found = secrets_of_gateway(rules(gateway(tls)), EDGE, True)
    assert found == {("edge", name) for name in names}


def test_gateways_that_select_others_name_nothing_for_us() -> None:
    resources = rules(gateway("{mode: SIMPLE, credentialName: a}", "istio: other"))
    assert not secrets_of_gateway(resources, EDGE, True)
    assert secrets_of_gateway(rules(gateway("{mode: SIMPLE, credentialName: a}", "")), EDGE, True) == {("edge", "a")}
    assert not secrets_of_sidecar(resources, APP)


INGRESS = """
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {{name: {name}, namespace: {namespace}}}
spec:
  ingressClassName: {cls}
  tls: [{{hosts: [a.example], secretName: cert}}]
  defaultBackend: {{service: {{name: web, port: {{number: 80}}}}}}
"""


def test_of_an_ingress_the_secret_of_its_own_namespace_where_it_is_ours_and_we_are_the_gateway() -> None:
    ours = rules(INGRESS.format(name="a", namespace="shop", cls="istio"))
    assert secrets_of_gateway(ours, EDGE, True) == {("shop", "cert")}
    assert not secrets_of_gateway(ours, EDGE, False), "not beyond the own namespace"
    own = rules(INGRESS.format(name="a", namespace="edge", cls="istio"))
    assert secrets_of_gateway(own, EDGE, False) == {("edge", "cert")}
    assert not secrets_of_gateway(rules(INGRESS.format(name="a", namespace="shop", cls="nginx")), EDGE, True)
    assert not secrets_of_gateway(ours, Workload("edge", "gw", labels={"istio": "egress"}), True)


def destination_rule(namespace: str, more: str = "", tls: str = "{mode: MUTUAL, credentialName: c}") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: r, namespace: {namespace}}}
spec: {{host: api.example, trafficPolicy: {{tls: {tls}}}{more}}}
"""


SELECTOR = ", workloadSelector: {matchLabels: {app: web}}"


@pytest.mark.parametrize(
    ("rule", "gateways", "sidecars"),
    [
        (destination_rule("edge"), True, False),
        (destination_rule("shop"), True, False),
        (destination_rule("shop", ", exportTo: ['.']"), False, False),
        (destination_rule("shop", SELECTOR), False, True),
        (destination_rule("edge", SELECTOR), False, False),
        (destination_rule("shop", ", workloadSelector: {matchLabels: {app: other}}"), False, False),
        (destination_rule("edge", ", workloadSelector: {matchLabels: {istio: ingressgateway}}"), True, False),
        (destination_rule("edge", tls="{mode: ISTIO_MUTUAL}"), False, False),
    ],
)
def test_of_a_destination_rule_that_of_the_clients_namespace_for_gateways_and_selected_sidecars(
    rule: str, gateways: bool, sidecars: bool
) -> None:
    resources = rules(rule)
    expected: Any = {("edge", "c"), ("edge", "c-cacert")} if gateways else set()
    assert secrets_of_gateway(resources, EDGE, False) == expected
    expected = {("shop", "c"), ("shop", "c-cacert")} if sidecars else set()
    assert secrets_of_sidecar(resources, APP) == expected


def test_subsets_and_ports_of_a_rule_count_too() -> None:
    tls = "{tls: {mode: SIMPLE, credentialName: NAME}}"
    resources = rules(f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: r, namespace: edge}}
spec:
  host: api.example
  trafficPolicy: {{portLevelSettings: [{{port: {{number: 443}}, {tls.replace("NAME", "p")[1:-1]}}}]}}
  subsets: [{{name: s, trafficPolicy: {tls.replace("NAME", "s")}}}]
""")
    assert {name for _, name in secrets_of_gateway(resources, EDGE, False)} == {"p", "p-cacert", "s", "s-cacert"}


def test_what_only_looks_like_an_ingress_of_another_namespace_is_none() -> None:
    """A Gateway's own credentialName never reaches beyond the gateway's namespace."""
    assert place_of("kubernetes-gateway://shop/cert", "edge") is None
    assert place_of("kubernetes-gateway://shop/cert", "edge", generated=True) == ("shop", "cert")
    resources = rules(gateway("{mode: SIMPLE, credentialName: 'kubernetes-gateway://shop/cert'}"))
    assert not secrets_of_gateway(resources, EDGE, True)
