"""Whose proxy has which limits, and which requests they count."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.policy.rate_limits import Limit, RateLimits, port_of
from fairlead.policy.tables import Arrival, Decision, SimpleRequest
from tests.policy.worlds import World, get

PODS = """
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {containers: [{ports: [{name: http, containerPort: 8080}]}]}
---
kind: Pod
metadata: {name: api-1, namespace: shop, labels: {app: api}}
---
kind: Pod
metadata: {name: other-1, namespace: other, labels: {app: web}}
---
"""
BUCKET = "tokenBucket: {maxTokens: 10, fillInterval: 1s}"


def limits(spec: str, namespace: str = "shop", name: str = "it") -> str:
    return f"kind: LocalRateLimit\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"


def of(text: str, source: str = "shop/web-1", **more: Any) -> RateLimits | None:
    found: RateLimits | None = World(PODS + text).client(source, **more).rate_limits
    return found


def one(match: str, context: str = "SIDECAR_OUTBOUND", source: str = "shop/web-1") -> Limit:
    made = of(limits(f"{{context: {context}, limits: [{{name: a, match: {match}, {BUCKET}}}]}}"), source)
    assert made is not None
    (found,) = made.all()
    return found


def agrees(limit: Limit, request: SimpleRequest, decision: Decision | None = None) -> bool:
    """Whether it counts, which words and deed must agree about."""
    decision = decision or Decision("route")
    assert limit.counts(request, decision) is (limit.failure(request, decision) == "")
    return limit.counts(request, decision)


def test_without_limits_a_proxy_has_none() -> None:
    assert of("") is None
    assert of(limits(f"{{limits: [{{name: a, {BUCKET}}}]}}", "other")) is None


def test_a_selector_chooses_among_the_namespace_and_in_the_root_namespace_among_the_mesh() -> None:
    for namespace, selector, whose in (
        ("shop", "", ["shop/api-1", "shop/web-1"]),
        ("shop", "selector: {matchLabels: {app: web}}, ", ["shop/web-1"]),
        ("istio-system", "selector: {matchLabels: {app: web}}, ", ["other/other-1", "shop/web-1"]),
        ("istio-system", "", ["other/other-1", "shop/api-1", "shop/web-1"]),
    ):
        text = limits(f"{{{selector}limits: [{{name: a, {BUCKET}}}]}}", namespace)
        found = [key for key in ("other/other-1", "shop/api-1", "shop/web-1") if of(text, key) is not None]
        assert found == whose


def test_contexts_are_listeners_and_gateways_have_only_their_own() -> None:
    text = "".join(
        limits(
            f"{{context: {context}, limits: [{{name: a, {BUCKET}}}], connections: [{{name: b, {BUCKET}}}]}}", name=name
        )
        for context, name in (("SIDECAR_INBOUND", "in"), ("SIDECAR_OUTBOUND", "out"), ("GATEWAY", "edge"))
    )
    sidecar, gateway = of(text), of(text, gateway="*")
    assert sidecar is not None
    assert gateway is not None
    assert {at: [limit.label for limit in found] for at, found in sidecar.requests.items()} == {
        "inbound": ["shop/in/a"], "outbound": ["shop/out/a"],
    }  # fmt: skip
    assert [limit.label for limit in sidecar.connections["inbound"]] == ["shop/in/b"]
    assert {at: [limit.label for limit in found] for at, found in gateway.requests.items()} == {
        "gateway": ["shop/edge/a"]
    }


@pytest.mark.parametrize("authority", ["web", "web.shop", "WEB.shop.svc:80", "web.shop.svc.cluster.local."])
def test_a_service_is_meant_by_each_of_its_names(authority: str) -> None:
    assert agrees(one("{hosts: [web]}"), get(authority))
    assert not agrees(one("{hosts: [web]}"), get("api.shop"))


def test_the_bare_name_of_another_namespace_is_another_service() -> None:
    assert not agrees(one("{hosts: [web.other.svc.cluster.local]}"), get("web"))
    inbound = one("{hosts: [web]}", "SIDECAR_INBOUND")
    assert agrees(inbound, get("web", listener="inbound"))  # whoever calls it so reached us


def test_a_named_port_stands_for_its_service_whatever_the_host_header_says() -> None:
    assert agrees(one("{hosts: [web]}"), get("127.0.0.1:9001", host="web.shop.svc.cluster.local", port=80))


def test_hosts_may_begin_with_a_star() -> None:
    limit = one("{hosts: ['*.example.com']}")
    assert agrees(limit, get("a.example.com"))
    assert not agrees(limit, get("example.com"))


def test_all_conditions_must_hold() -> None:
    limit = one("{methods: [POST], uri: {prefix: /api}, headers: {x-plan: {exact: free}}, port: 8080}")
    good = get("web:8080", "/api/x?y=1", "POST", x_plan="free")
    assert agrees(limit, good)
    for bad in (
        get("web:8080", "/api/x", "GET", x_plan="free"),
        get("web:8080", "/other", "POST", x_plan="free"),
        get("web:8080", "/api/x", "POST", x_plan="paid"),
        get("web:80", "/api/x", "POST", x_plan="free"),
    ):
        assert not agrees(limit, bad)


def test_the_port_is_the_dialled_one_or_what_the_authority_or_scheme_says() -> None:
    assert port_of(get("web:9")) == 9
    assert port_of(get("web:9", port=7)) == 7
    assert port_of(get("web")) == 80
    secure = get("web")
    secure.scheme = "https"
    assert port_of(secure) == 443


def test_a_route_is_meant_by_its_rule_and_name() -> None:
    request = get("web")
    limit = one("{route: {virtualService: web, name: api}}")
    for rule, route, counts in (
        ("shop/web", "api", True),
        ("shop/web", "api.first", True),  # with the name of a match block
        ("shop/web", "apix", False),
        ("shop/web", "1", False),
        ("other/web", "api", False),
        ("", "", False),
    ):
        assert agrees(limit, request, Decision("route", virtual_service=rule, route=route)) is counts
    whole = one("{route: {virtualService: other/web}}")
    assert agrees(whole, request, Decision("route", virtual_service="other/web", route="7"))


def test_a_limit_says_its_numbers() -> None:
    text = limits(
        "{limits: [{name: a, per: CLIENT, tokenBucket: {maxTokens: 5, tokensPerFill: 2, fillInterval: 500ms}}]}"
    )
    made = of(text)
    assert made is not None
    says = "LocalRateLimit shop/it limit a lets 5 requests of each client at once, then 2 every 0.5 s through"
    assert [str(limit) for limit in made.all()] == [says]


def test_an_arrival_begins_without_buckets() -> None:
    assert Arrival("inbound").buckets is None
