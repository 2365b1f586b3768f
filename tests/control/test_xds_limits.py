"""Local rate limits as Envoy's filters, and what is told of those that it cannot have."""

# ruff: noqa: E501 - manifests
from __future__ import annotations

from typing import Any

from fairlead.control.xds_limits import connection_limits, request_limits
from fairlead.control.xds_node import Notes
from fairlead.control.xds_wire import encode_any
from tests.control.xds_worlds import tables_of, world

WORLD = """
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}, annotations: {fairlead.dev/address: 10.0.0.1}}
spec: {containers: [{name: m, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: fairlead.dev/v1
kind: LocalRateLimit
metadata: {name: l}
spec:
  context: SIDECAR_%s
  limits:
  - {name: all, tokenBucket: {maxTokens: 5, fillInterval: 50ms}, enforce: false}
  - {name: some, match: {port: 8080, methods: [GET], hosts: [web, '*.x.example'], uri: {exact: /a}, headers: {x: {prefix: b}}},
     tokenBucket: {maxTokens: 5, fillInterval: 1s}, per: CONNECTION, percentage: {value: 2.5}}
  - {name: each, tokenBucket: {maxTokens: 5, fillInterval: 1s}, per: CLIENT}
%s
  connections:
  - {name: new, port: 8080, tokenBucket: {maxTokens: 5, fillInterval: 1s}}
  - {name: shadow, enforce: false, tokenBucket: {maxTokens: 5, fillInterval: 1s}}
"""


def made(listener: str, port: int, *services: str) -> tuple[list[Any], list[Any], list[str]]:
    by_route = "  - {name: route, match: {route: {virtualService: v}}, tokenBucket: {maxTokens: 5, fillInterval: 1s}}"
    found, note = world(WORLD % (listener.upper(), by_route if listener == "outbound" else "")), Notes()
    tables = tables_of(found, "default/web-1")
    limits = request_limits(tables, found.resources, listener, port, note, services)
    connections = connection_limits(tables, listener, port, note)
    for one in (*limits, *connections):
        encode_any(one["typed_config"])
    return [one["typed_config"] for one in limits], [one["typed_config"] for one in connections], note.listed()


def headers(config: Any) -> dict[str, Any]:
    [action] = config["rate_limits"][0]["actions"]
    return {one["name"]: one for one in action["header_value_match"]["headers"]}


def test_each_limit_is_a_filter_with_a_bucket_and_a_match_of_its_own() -> None:
    (everything, some), [new], _ = made("inbound", 8080)
    assert everything["descriptors"][0]["token_bucket"] == {
        "max_tokens": 5, "tokens_per_fill": 1, "fill_interval": "0.05s"}  # fmt: skip
    assert everything["filter_enforced"]["default_value"]["numerator"] == 0
    assert some["filter_enforced"]["default_value"] == {"numerator": 25_000, "denominator": "MILLION"}
    assert some["local_rate_limit_per_downstream_connection"] is True
    assert set(headers(some)) == {":method", ":authority", ":path", "x"}
    assert headers(some)[":path"]["string_match"]["safe_regex"]["regex"] == r"/a(?:\?.*)?"
    assert (new["share_key"], new["token_bucket"]["max_tokens"]) == ("default_l_new", 5)


def test_where_the_server_name_says_the_service_no_host_is_asked_for() -> None:
    (_, some), _, _ = made("inbound", 8080, "web.default.svc.cluster.local")
    assert ":authority" not in headers(some)
    (_, some), _, _ = made("inbound", 8080, "web.default.svc.cluster.local", "other.default.svc.cluster.local")
    assert ":authority" in headers(some)


def test_what_envoy_cannot_is_told() -> None:
    limits, _, told = made("inbound", 8080)
    assert len(limits) == 2
    assert told == [
        "LocalRateLimit default/l limit each: a bucket of each client (per: CLIENT) is not carried out by xDS; nothing is limited",
        "LocalRateLimit default/l limit shadow: counting alone of connections is not carried out by xDS",
    ]
    limits, connections, told = made("outbound", 0)
    assert (len(limits), connections) == (1, [])
    assert "`match.port` of what goes out" in told[0] and "`match.route`" in told[2] and "`port` of" in told[3]


def test_of_another_port_nothing_counts() -> None:
    limits, connections, _ = made("inbound", 9000)
    assert (len(limits), connections) == (1, [])
