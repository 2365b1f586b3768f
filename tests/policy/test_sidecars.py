"""Sidecar: which services a workload knows, and what becomes of the others."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

import pytest

from fairlead.policy.compile import compile_tables
from fairlead.policy.decide import decide
from fairlead.policy.explain import Explainer
from fairlead.policy.tables import Arrival, Cluster, Decision, SimpleRequest, Tables, Viewpoint
from fairlead.policy.validate import validate
from fairlead.policy.world import World
from fairlead.registry.documents import load
from fairlead.registry.model import Workload


def service(name: str, namespace: str, ports: str = "[{name: http, port: 80}, {name: http-more, port: 81}]") -> str:
    return f"---\nkind: Service\napiVersion: v1\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{ports: {ports}}}\n"


SERVICES = service("web", "shop") + service("api", "shop") + service("bank", "money") + service("mail", "office")
REGISTRY_ONLY = "outboundTrafficPolicy: {mode: REGISTRY_ONLY}"


def sidecar(spec: str, name: str = "default", namespace: str = "shop", created: int = 1) -> str:
    return f"""---
kind: Sidecar
apiVersion: networking.istio.io/v1
metadata: {{name: {name}, namespace: {namespace}, creationTimestamp: "2026-01-01T00:00:{created:02d}Z"}}
spec: {{{spec}}}
"""


def rule(spec: str, namespace: str = "shop") -> str:
    return f"---\nkind: VirtualService\napiVersion: networking.istio.io/v1\nmetadata: {{name: r, namespace: {namespace}}}\nspec: {spec}\n"


def tables(text: str, labels: dict[str, str] | None = None, namespace: str = "shop") -> Tables:
    documents, problems = load(SERVICES + text, "x.yaml")
    assert not problems
    world, reports = World.load(documents)
    assert all(report.valid for report in reports), [report.errors for report in reports]
    return compile_tables(world.resources, world.snapshot, Viewpoint(Workload(namespace, "w", labels=labels or {})))


def ask(own: Tables, host: str, port: int = 80) -> Decision:
    return decide(own, SimpleRequest(Arrival("outbound", port=port), "GET", host, "/"))


def known(own: Tables, port: int = 80) -> set[str]:
    return {
        host
        for host in ("web.shop", "api.shop", "bank.money", "mail.office")
        if ask(own, host, port).verdict == "route"
    }


ALL = {"web.shop", "api.shop", "bank.money", "mail.office"}


@pytest.mark.parametrize(
    ("hosts", "expected"),
    [
        ("['./*']", {"web.shop", "api.shop"}),
        ("['*/*']", ALL),
        ("['money/*']", {"bank.money"}),
        ("['./*', 'money/bank.money.svc.cluster.local']", {"web.shop", "api.shop", "bank.money"}),
        ("['*/*.office.svc.cluster.local']", {"mail.office"}),
        ("['~/*']", set()),
        ("['shop/web.shop.svc.cluster.local']", {"web.shop"}),
        ("['money/web.shop.svc.cluster.local']", set()),
    ],
)
def test_a_workload_knows_what_its_egress_hosts_cover(hosts: str, expected: set[str]) -> None:
    assert known(tables(sidecar(f"egress: [{{hosts: {hosts}}}], {REGISTRY_ONLY}"))) == expected


def test_what_is_not_known_is_passed_through_or_refused_as_the_sidecar_says() -> None:
    egress = "egress: [{hosts: ['./*']}]"
    assert ask(tables(sidecar(egress)), "bank.money").verdict == "passthrough"
    assert ask(tables(sidecar(f"{egress}, {REGISTRY_ONLY}")), "bank.money").status == 502
    strict = "---\nkind: MeshConfig\napiVersion: fairlead.dev/v1\nmetadata: {name: default}\nspec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n"
    assert (
        ask(tables(strict + sidecar(f"{egress}, outboundTrafficPolicy: {{mode: ALLOW_ANY}}")), "bank.money").verdict
        == "passthrough"
    )
    assert known(tables(sidecar(REGISTRY_ONLY))) == ALL, "without egress everything is known"


def test_a_listener_with_a_port_is_for_that_port_alone() -> None:
    own = tables(
        sidecar(
            f"egress: [{{port: {{number: 81, name: h, protocol: HTTP}}, hosts: ['money/*']}}, {{hosts: ['./*']}}], {REGISTRY_ONLY}"
        )
    )
    assert known(own) == {"web.shop", "api.shop"}
    assert known(own, 81) == {"web.shop", "api.shop", "bank.money"}


def test_what_a_known_rule_sends_traffic_to_is_known_and_rules_for_hidden_hosts_are_not() -> None:
    text = sidecar(f"egress: [{{hosts: ['./*']}}], {REGISTRY_ONLY}")
    to_bank = "{hosts: [web], http: [{route: [{destination: {host: bank.money.svc.cluster.local}}]}]}"
    assert [one.host for one in ask(tables(text + rule(to_bank)), "web.shop").destinations] == [
        "bank.money.svc.cluster.local"
    ]
    hidden = "{hosts: [bank.money.svc.cluster.local], http: [{directResponse: {status: 299}}]}"
    assert ask(tables(text + rule(hidden, "money")), "bank.money.svc.cluster.local").status == 502


def test_the_selector_comes_before_the_namespace_and_the_namespace_before_the_mesh() -> None:
    text = sidecar(f"egress: [{{hosts: ['office/*']}}], {REGISTRY_ONLY}", "mesh", "istio-system")
    assert known(tables(text)) == {"mail.office"}
    text += sidecar(f"egress: [{{hosts: ['./*']}}], {REGISTRY_ONLY}", "whole")
    assert known(tables(text)) == {"web.shop", "api.shop"}
    text += sidecar(
        f"workloadSelector: {{labels: {{app: a}}}}, egress: [{{hosts: ['money/*']}}], {REGISTRY_ONLY}", "a", created=9
    )
    assert known(tables(text, {"app": "a"})) == {"bank.money"}
    assert known(tables(text, {"app": "b"})) == {"web.shop", "api.shop"}
    assert known(tables(text, namespace="money")) == {"mail.office"}


def test_explain_says_which_is_in_force_and_what_it_leaves() -> None:
    documents, _ = load(SERVICES + sidecar(f"egress: [{{hosts: ['./*']}}], {REGISTRY_ONLY}"), "x.yaml")
    answer = Explainer(World.load(documents)[0]).explain({"url": "http://bank.money/", "from_namespace": "shop"})
    (step,) = [one for one in answer["trace"] if one["step"] == "sidecar"]
    assert step["resource"] == step["object"] == "Sidecar shop/default"
    assert step["why"] == "2 of 4 services are known, others are REGISTRY_ONLY"
    assert answer["status"] == 502


def test_a_gateway_knows_everything() -> None:
    text = sidecar(f"egress: [{{hosts: ['~/*']}}], {REGISTRY_ONLY}")
    documents, _ = load(SERVICES + text, "x.yaml")
    world, _ = World.load(documents)
    own = compile_tables(world.resources, world.snapshot, Viewpoint(Workload("shop", "w"), "*"))
    assert "outbound|80||bank.money.svc.cluster.local" in own.clusters


@pytest.mark.parametrize(
    ("spec", "path", "says"),
    [
        ("egress: [{hosts: [web]}]", "spec.egress[0].hosts[0]", "NAMESPACE/HOST"),
        ("egress: [{hosts: [A_b/*]}]", "spec.egress[0].hosts[0]", "a namespace"),
        ("egress: [{hosts: [~/a.b]}]", "spec.egress[0].hosts[0]", "'~'"),
        ("egress: [{hosts: [./a*b]}]", "spec.egress[0].hosts[0]", ""),
        ("egress: [{hosts: [./*]}, {port: {number: 80}, hosts: [./*]}]", "spec.egress[0]", "must be the last"),
        (
            "egress: [{hosts: [./*], port: {number: 80}}, {port: {number: 80}, hosts: [./*]}]",
            "spec.egress[1].port",
            "already",
        ),
    ],
)
def test_what_istio_refuses(spec: str, path: str, says: str) -> None:
    documents, _ = load(sidecar(spec), "x.yaml")
    told = {one.path: one.message for one in validate(documents)[0].errors}
    assert path in told and says in told[path], told


@pytest.mark.parametrize(
    ("listener", "path"),
    [
        ("{port: {number: 0, name: a, protocol: HTTP}}", "spec.ingress[0].port.number"),
        ("{port: {number: 80, name: a, protocol: X}}", "spec.ingress[0].port.protocol"),
        ("{port: {number: 80}, defaultEndpoint: '10.0.0.1:80'}", "spec.ingress[0].defaultEndpoint"),
        ("{port: {number: 80}, defaultEndpoint: '127.0.0.1'}", "spec.ingress[0].defaultEndpoint"),
        ("{port: {number: 80}, defaultEndpoint: '127.0.0.1:0'}", "spec.ingress[0].defaultEndpoint"),
        ("{port: {number: 80}, defaultEndpoint: 'unix://a'}", "spec.ingress[0].defaultEndpoint"),
        ("{port: {number: 80}, tls: {mode: SIMPLE}}", "spec.ingress[0].tls"),
        ("{port: {number: 80}}, {port: {number: 80}}", "spec.ingress[1].port"),
    ],
)
def test_an_ingress_listener_that_istio_refuses_or_we_do_not_carry_out(listener: str, path: str) -> None:
    documents, _ = load(sidecar(f"ingress: [{listener}]"), "x.yaml")
    assert path in {one.path for one in validate(documents)[0].errors}


APP = """---
kind: Pod
apiVersion: v1
metadata: {name: app-1, namespace: shop, labels: {app: app}, annotations: {fairlead.dev/address: 10.0.0.7}}
spec: {containers: [{name: c, ports: [{containerPort: 8080, name: http}, {containerPort: 9000, name: tcp}]}]}
---
kind: Service
apiVersion: v1
metadata: {name: app, namespace: shop}
spec: {selector: {app: app}, ports: [{name: http, port: 80, targetPort: 8080}, {name: grpc, port: 81, targetPort: 7000}]}
"""


def inbound(spec: str) -> dict[str, Cluster]:
    documents, problems = load(APP + sidecar(spec), "x.yaml")
    world, reports = World.load(documents)
    assert not problems and all(report.valid for report in reports), [report.errors for report in reports]
    own = compile_tables(world.resources, world.snapshot, Viewpoint(world.snapshot.workloads["shop/app-1"]))
    return {name: cluster for name, cluster in own.clusters.items() if name.startswith("inbound|")}


@pytest.mark.parametrize(
    ("endpoint", "expected"),
    [
        ("127.0.0.1:1234", ("127.0.0.1", 1234)),
        ("[::1]:1234", ("::1", 1234)),
        ("0.0.0.0:1234", ("10.0.0.7", 1234)),
        ("[::]:1234", ("10.0.0.7", 1234)),
        ("unix:///run/app.sock", ("unix:///run/app.sock", 0)),
        ("", ("10.0.0.7", 8080)),
    ],
)
def test_what_comes_in_on_a_listeners_port_goes_to_its_default_endpoint(
    endpoint: str, expected: tuple[str, int]
) -> None:
    found = inbound(
        f"ingress: [{{port: {{number: 8080, name: a, protocol: GRPC}}, defaultEndpoint: '{endpoint}'}}]"
        if endpoint
        else "ingress: [{port: {number: 8080, name: a, protocol: GRPC}}]"
    )
    own = found["inbound|8080||"]
    assert [(one.address, one.port) for one in own.endpoints] == [expected]
    assert own.protocol == "grpc", "the listener's, not the service's"
    assert [(one.address, one.port) for one in found["inbound|9000||"].endpoints] == [("10.0.0.7", 9000)]


def test_limits_between_sidecar_and_app_are_the_listeners_else_those_of_all() -> None:
    found = inbound(
        "inboundConnectionPool: {tcp: {maxConnections: 7}}, ingress: [{port: {number: 9000, name: a, protocol: TCP}, "
        "connectionPool: {http: {http2MaxRequests: 3}}}]"
    )
    assert [(found[f"inbound|{port}||"].limits.max_connections, found[f"inbound|{port}||"].limits.max_requests)
            for port in (8080, 9000)] == [(7, 0), (0, 3)]  # fmt: skip
    assert inbound("egress: []")["inbound|8080||"].limits.max_connections == 0


def test_what_has_no_effect_is_told() -> None:
    documents, _ = load(
        sidecar("ingress: [{port: {number: 80, name: a, protocol: HTTP}, bind: 127.0.0.1, captureMode: NONE}]"),
        "x.yaml",
    )
    assert {one.path for one in validate(documents)[0].warnings} >= {
        "spec.ingress[0].bind", "spec.ingress[0].captureMode"
    }  # fmt: skip
