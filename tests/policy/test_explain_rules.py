"""The rules around a decision: those that do not count and why, and each tcp and tls route with what it saw."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

from typing import Any

from fairlead.policy.explain import Explainer
from tests.policy.test_decide import CALLER, SHOP, rule
from tests.policy.worlds import World


def trace(text: str, url: str = "http://web.shop/", source: str = "shop/front-1", **more: Any) -> list[dict[str, Any]]:
    answer = Explainer(World(SHOP + CALLER + text)).explain({"url": url, "from": source, **more})
    found: list[dict[str, Any]] = answer["trace"]
    return found


def passed_over(steps: list[dict[str, Any]], kind: str) -> list[tuple[str, str]]:
    return [
        (one["object"].partition("/")[2], one["why"])
        for one in steps
        if one["result"] == "not in force" and one["object"].startswith(kind)
    ]


ROUTE = "http: [{route: [{destination: {host: web}}]}]"


def named(name: str, spec: str, namespace: str = "shop") -> str:
    return (
        rule(f"{{{spec}}}")
        .replace("name: web", f"name: {name}", 1)
        .replace("namespace: shop", f"namespace: {namespace}", 1)
    )


def test_virtual_services_that_do_not_count_say_why() -> None:
    text = (
        named("a", f"hosts: [web], {ROUTE}") + named("b", f"hosts: [web], {ROUTE}")
        + named("c", f"hosts: ['*.shop.svc.cluster.local'], {ROUTE}") + named("d", f"hosts: [web], gateways: [edge], {ROUTE}")
        + named("e", f"hosts: [web.shop.svc.cluster.local], exportTo: ['.'], {ROUTE}", "other")
        + named("f", "hosts: [web], tcp: [{route: [{destination: {host: web}}]}]")
    )  # fmt: skip
    found = dict(passed_over(trace(text), "VirtualService"))
    assert set(found) == {"b", "c", "d", "e"}, "the one in force, and one for another protocol, are not passed over"
    assert found["b"].startswith("VirtualService shop/a is older")
    assert "more exactly" in found["c"]
    assert found["d"] == "gateways is edge, the request comes by mesh"
    assert found["e"] == "exportTo is ., the client's namespace is shop"


def test_destination_rules_that_do_not_count_say_why() -> None:
    def one(name: str, spec: str, namespace: str = "shop") -> str:
        return f"kind: DestinationRule\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{host: web.shop.svc.cluster.local{spec}}}\n---\n"

    text = (
        one("a", "")
        + one("b", ", workloadSelector: {matchLabels: {app: other}}")
        + one("c", "", "far")
        + one("d", ", subsets: [{name: v1}]")
    )
    steps = trace(text)
    found = dict(passed_over(steps, "DestinationRule"))
    assert found["b"] == "its workloadSelector wants clients of shop with app=other"
    assert found["c"].startswith("it is of namespace far; those of shop (client), shop (service)")
    (merged,) = [step for step in steps if step["result"] == "merged"]
    assert merged["object"] == "DestinationRule shop/d" and "added to those of shop/a" in merged["why"]


def test_each_tls_and_tcp_route_says_what_it_saw() -> None:
    text = rule(
        "{hosts: [api], tls: [{match: [{sniHosts: [api.shop.svc.cluster.local], port: 5432}], route: [{destination: {host: api}}]}],"
        " tcp: [{match: [{port: 1}, {sourceLabels: {app: x}}, {destinationSubnets: [10.0.0.0/8]}, {sourceNamespace: y}, {gateways: [g]}, {sourceSubnet: 9.0.0.0/8}], route: [{destination: {host: api}}]},"
        " {route: [{destination: {host: api}}]}]}"
    )
    steps = [
        (one["path"], one["result"], one["why"]) for one in trace(text, "tcp://api.shop:5432") if one["step"] == "route"
    ]
    assert steps == [
        ("spec.tls[0].match[0].sniHosts", "no match", "server name is absent, wanted api.shop.svc.cluster.local"),
        ("spec.tcp[0].match[0].port", "no match", "port is 5432, wanted 1"),
        ("spec.tcp[0].match[1].sourceLabels", "no match", "the client has app=front, wanted app=x"),
        ("spec.tcp[0].match[2].destinationSubnets", "no match", "the dialled address is not known, wanted 10.0.0.0/8"),
        ("spec.tcp[0].match[3].sourceNamespace", "no match", "the client's namespace is shop, wanted y"),
        ("spec.tcp[0].match[4].gateways", "no match", "the connection comes by mesh, wanted g"),
        ("spec.tcp[0].match[5].sourceSubnet", "no match", steps[6][2]),
        ("spec.tcp[1]", "match", "every condition holds"),
    ]
    assert steps[6][2].startswith("source address is ") and steps[6][2].endswith("wanted 9.0.0.0/8")


def test_egress_is_told_rule_by_rule() -> None:
    text = "kind: NetworkPolicy\nmetadata: {name: out, namespace: shop}\nspec: {podSelector: {}, policyTypes: [Egress], egress: [{ports: [{port: 1}]}, {to: [{ipBlock: {cidr: 9.0.0.0/8}}]}]}\n---\n"
    steps = [(one["result"], one.get("path", "")) for one in trace(text) if one["step"] == "network-policy-egress"]
    assert steps == [("no match", "spec.egress[0].ports"), ("no match", "spec.egress[1].to"), ("deny", "spec.egress")]
