"""Which DestinationRule a client uses, and the policy for a port and subset."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

import pytest

from fairlead.policy.destination_rules import DestinationRules, settings
from fairlead.registry.model import Workload
from tests.policy.worlds import World

HOST = "web.shop.svc.cluster.local"


def rule(name: str, namespace: str, spec: str, created: int = 0) -> str:
    return f"kind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}, created: {created}}}\nspec: {spec}\n---\n"


def rules(text: str, namespace: str = "client", labels: dict[str, str] | None = None) -> DestinationRules:
    world = World(text)
    client = Workload(namespace, "c", labels=labels or {})
    return DestinationRules(world.resources.destination_rules, client, "istio-system", "cluster.local")


def found(text: str, namespace: str = "client", labels: dict[str, str] | None = None) -> str:
    rule_ = rules(text, namespace, labels).find(HOST, "shop")
    return rule_.key if rule_ is not None else ""


OWN = rule("own", "client", f"{{host: {HOST}}}")
OWNER = rule("owner", "shop", "{host: web, subsets: [{name: v1}]}")
ROOT = rule("root", "istio-system", "{host: '*.cluster.local'}")
THIRD = rule("third", "third", f"{{host: {HOST}}}")


@pytest.mark.parametrize(
    ("text", "key"),
    [
        (OWN + OWNER + ROOT, "client/own"),
        (OWNER + ROOT, "shop/owner"),
        (ROOT, "istio-system/root"),
        (THIRD, ""),
        (rule("hidden", "shop", "{host: web, exportTo: ['.']}") + ROOT, "istio-system/root"),
        (rule("wide", "client", "{host: '*'}") + OWNER, "client/wide"),
        (
            rule("wide", "client", "{host: '*.shop.svc.cluster.local'}") + rule("wider", "client", "{host: '*.local'}"),
            "client/wide",
        ),
        (rule("private", "client", f"{{host: {HOST}, exportTo: ['.']}}"), "client/private"),
        (rule("short", "client", "{host: web}") + OWNER, "shop/owner"),
    ],
)
def test_lookup(text: str, key: str) -> None:
    assert found(text) == key


def test_a_local_rule_hides_the_owners_subsets() -> None:
    local = rules(OWN + OWNER).find(HOST, "shop")
    assert local is not None and not local.subsets


def test_a_rule_with_workload_selector_is_for_those_clients_and_comes_first() -> None:
    text = OWN + rule("special", "client", f"{{host: {HOST}, workloadSelector: {{matchLabels: {{app: x}}}}}}", 9)
    assert found(text) == "client/own"
    assert found(text, labels={"app": "x"}) == "client/special"
    exported = rule("theirs", "shop", "{host: web, workloadSelector: {matchLabels: {app: x}}}")
    assert found(exported, labels={"app": "x"}) == ""


def test_rules_of_one_host_add_up_with_the_policy_of_the_oldest_that_has_one() -> None:
    text = (
        rule("a", "shop", "{host: web, subsets: [{name: v1, labels: {v: '1'}}]}", 1)
        + rule("b", "shop", "{host: web.shop.svc.cluster.local, trafficPolicy: {loadBalancer: {simple: RANDOM}}, subsets: [{name: v1, labels: {v: x}}, {name: v2}]}", 2)
        + rule("c", "shop", "{host: web, trafficPolicy: {loadBalancer: {simple: ROUND_ROBIN}}}", 3)
        + rule("d", "shop", "{host: web, exportTo: ['.'], subsets: [{name: v9}]}", 4)
    )  # fmt: skip
    merged = rules(text).find(HOST, "shop")
    assert merged is not None
    assert (merged.key, list(merged.subsets), merged.subsets["v1"].labels) == ("shop/a", ["v1", "v2"], {"v": "1"})
    balancer = settings(merged, 80).load_balancer
    assert balancer is not None and balancer.simple == "RANDOM"


POLICY = (
    "{host: web, trafficPolicy: {loadBalancer: {simple: RANDOM}, outlierDetection: {},"
    " portLevelSettings: [{port: {number: 81}, loadBalancer: {simple: ROUND_ROBIN}}]},"
    " subsets: [{name: plain}, {name: own, trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}}},"
    " {name: ported, trafficPolicy: {outlierDetection: {}, portLevelSettings: [{port: {number: 81}, tls: {mode: DISABLE}}]}}]}"
)


@pytest.mark.parametrize(
    ("port", "subset", "balancer", "outlier", "tls"),
    [
        (80, "", "RANDOM", True, False),
        (81, "", "ROUND_ROBIN", False, False),  # the port entry replaces the top level entirely
        (80, "plain", "RANDOM", True, False),
        (80, "own", "PASSTHROUGH", True, False),
        (81, "own", "PASSTHROUGH", False, False),
        (80, "ported", "RANDOM", True, False),
        (81, "ported", None, False, True),  # the subset's own port entry alone counts
        (80, "unknown", "RANDOM", True, False),
    ],
)
def test_policy_resolution(port: int, subset: str, balancer: str | None, outlier: bool, tls: bool) -> None:
    chosen = settings(rules(rule("r", "shop", POLICY)).find(HOST, "shop"), port, subset)
    assert (chosen.load_balancer.simple if chosen.load_balancer else None) == balancer
    assert (chosen.outlier_detection is not None, chosen.tls is not None) == (outlier, tls)


def test_without_a_rule_everything_is_the_default() -> None:
    chosen = settings(None, 80)
    assert (chosen.load_balancer, chosen.connection_pool, chosen.outlier_detection, chosen.tls) == (None,) * 4
