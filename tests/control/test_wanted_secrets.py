"""Which Secrets control gives a proxy: by the rules in force, and by what is known of who asks."""

from __future__ import annotations

from typing import Any

from fairlead.control.wanted_secrets import WantedSecrets
from fairlead.registry.model import Workload

LABELS = {"istio": "ingressgateway"}
SAID = Workload("edge", "gw-1", labels=LABELS, source="sidecars")
DECLARED = Workload("edge", "gw-1", labels=LABELS, source="control")
GATEWAY_KEY = "object/gateways.networking.istio.io/shop/g"
INGRESS_KEY = "object/ingresses.networking.k8s.io/shop/i"
RULE_KEY = "object/destinationrules.networking.istio.io/edge/r"


def gateway(secret: str) -> dict[str, Any]:
    tls = {"mode": "SIMPLE", "credentialName": secret}
    server = {"port": {"number": 443, "name": "a", "protocol": "HTTPS"}, "hosts": ["*"], "tls": tls}
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "Gateway",
        "metadata": {"name": "g", "namespace": "shop"},
        "spec": {"selector": LABELS, "servers": [server]},
    }


INGRESS = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "Ingress",
    "metadata": {"name": "i", "namespace": "shop"},
    "spec": {
        "ingressClassName": "istio",
        "tls": [{"secretName": "cert"}],
        "defaultBackend": {"service": {"name": "web", "port": {"number": 80}}},
    },
}


def rule(selector: dict[str, str] | None, spelling: str = "credentialName") -> dict[str, Any]:
    spec: dict[str, Any] = {"host": "api.example", "trafficPolicy": {"tls": {"mode": "SIMPLE", spelling: "up"}}}
    if selector is not None:
        spec["workloadSelector"] = {"matchLabels": selector}
    metadata = {"name": "r", "namespace": "edge"}
    return {"apiVersion": "networking.istio.io/v1", "kind": "DestinationRule", "metadata": metadata, "spec": spec}


def test_the_set_follows_each_gateway_as_it_is_changed_added_and_removed() -> None:
    wanted = WantedSecrets()
    assert not wanted.of(SAID, True, False)
    wanted.take({GATEWAY_KEY: gateway("a")})
    assert wanted.of(SAID, True, False) == {"object/secrets/edge/a"}
    wanted.take({GATEWAY_KEY: gateway("b")})
    assert wanted.of(SAID, True, False) == {"object/secrets/edge/b"}
    wanted.take({GATEWAY_KEY: None})
    assert not wanted.of(SAID, True, False)


def test_other_rules_change_nothing_and_cost_nothing() -> None:
    wanted = WantedSecrets()
    wanted.take({GATEWAY_KEY: gateway("a")})
    before = wanted.of(SAID, True, False)
    plain = rule(None) | {"spec": {"host": "x.example"}}
    wanted.take({"object/virtualservices.networking.istio.io/shop/v": {}, RULE_KEY: plain, "object/secrets/edge/a": {}})
    assert wanted.of(SAID, True, False) is before


def test_a_secret_of_another_namespace_asks_for_labels_that_somebody_else_has_given() -> None:
    wanted = WantedSecrets()
    wanted.take({INGRESS_KEY: INGRESS})
    expected = {"object/secrets/shop/cert"}
    assert not wanted.of(SAID, True, False), "any workload could say so of itself"
    assert wanted.of(DECLARED, True, False) == expected
    assert wanted.of(SAID, True, True) == expected, "an administrator may see it anyway"
    root = Workload("istio-system", "gw-1", labels=LABELS, source="sidecars")
    assert wanted.of(root, True, False) == expected
    mesh = {"apiVersion": "fairlead.dev/v1", "kind": "MeshConfig", "metadata": {"name": "default"},
            "spec": {"rootNamespace": "mesh"}}  # fmt: skip
    wanted.take({"object/meshconfigs.fairlead.dev//default": mesh})
    assert not wanted.of(root, True, False)


def test_a_sidecar_gets_what_a_rule_that_selects_it_names_if_it_is_declared() -> None:
    wanted = WantedSecrets()
    keys = {"object/secrets/edge/up", "object/secrets/edge/up-cacert"}
    for spelling in ("credentialName", "credential_name"):
        wanted.take({RULE_KEY: rule(LABELS, spelling)})
        assert wanted.of(DECLARED, False, False) == keys
        assert not wanted.of(SAID, False, False)
        assert not wanted.of(Workload("edge", "x", labels={"app": "x"}, source="control"), False, False)
    wanted.take({RULE_KEY: rule(None)})
    assert not wanted.of(DECLARED, False, False), "without a selector it is for gateways"
    assert wanted.of(SAID, True, False) == keys


def test_what_is_invalid_names_nothing() -> None:
    wanted = WantedSecrets()
    broken = gateway("a")
    broken["spec"]["servers"][0]["port"]["protocol"] = "NONSENSE"
    wanted.take({GATEWAY_KEY: broken})
    assert not wanted.of(SAID, True, False)
