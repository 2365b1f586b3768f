"""Routes: what the differential test with a real Envoy (tests/e2e/test_xds_oracle.py) does not reach."""

# ruff: noqa: E501 - manifests
from __future__ import annotations

from typing import Any

from tests.control.xds_worlds import Got, node

SERVICES = "".join(
    f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{name: http, port: {port}}}]}}
---
"""
    for name, port in (("web", 80), ("alt", 8080))
)


def routes(
    http: str, agent: str = "envoy", more: str = "", host: str = "web"
) -> tuple[list[dict[str, Any]], list[str]]:
    rule = f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: web}}
spec: {{hosts: [{host}], http: {http}}}
---
"""
    got = Got(SERVICES + rule + more, node(agent=agent))
    name = "outbound" if agent == "envoy" else "web.default.svc.cluster.local:80"
    domain = "web:80" if agent == "envoy" else "*"
    return got.hosts(name)[domain]["routes"], got.notes


def test_retries_timeouts_and_mirrors() -> None:
    [made], notes = routes(
        "[{route: [{destination: {host: web}}], timeout: 3s, mirrors: [{destination: {host: alt, port: {number: 8080}}, "
        "percentage: {value: 12.5}}], retries: {attempts: 4, perTryTimeout: 2s, retryOn: '5xx,418', backoff: 1s, "
        "retryIgnorePreviousHosts: false}}]"
    )
    action = made["route"]
    assert (action["timeout"], action["max_grpc_timeout"]) == ("3s", "3s")
    assert action["retry_policy"] == {
        "retry_on": "5xx,retriable-status-codes", "num_retries": 4, "retriable_status_codes": [418],
        "per_try_timeout": "2s", "retry_back_off": {"base_interval": "1s"},
    }  # fmt: skip
    [mirror] = action["request_mirror_policies"]
    assert mirror["runtime_fraction"]["default_value"] == {"numerator": 125000, "denominator": "MILLION"}
    assert notes == []


def test_without_retries_there_are_none_and_by_default_two() -> None:
    [none], _ = routes("[{route: [{destination: {host: web}}], retries: {attempts: 0}}]")
    assert "retry_policy" not in none["route"]
    [usual], _ = routes("[{route: [{destination: {host: web}}]}]")
    policy = usual["route"]["retry_policy"]
    assert (policy["retry_on"], policy["num_retries"]) == ("connect-failure,refused-stream,unavailable,cancelled", 2)
    assert policy["retry_host_predicate"][0]["name"] == "envoy.retry_host_predicates.previous_hosts"


def test_a_hash_of_the_destination_is_a_policy_of_the_route() -> None:
    rule = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web, trafficPolicy: {loadBalancer: {consistentHash: {httpCookie: {name: c, ttl: 5s, path: /p}}}}}
"""
    http = "[{route: [{destination: {host: web}}]}]"
    [made], _ = routes(http, more=rule)
    assert made["route"]["hash_policy"] == [{"cookie": {"name": "c", "ttl": "5s", "path": "/p"}}]
    _, notes = routes(http, "gRPC", rule)
    assert notes == ["a hash of the cookie is not carried out by gRPC; each channel draws its own"]


def test_a_host_is_found_with_its_port_and_without_where_that_is_meant() -> None:
    got = Got(SERVICES)
    hosts = got.hosts()
    for name in ("web", "web:80", "web.default", "web.default.svc.cluster.local:80", "alt", "alt:8080"):
        assert name in hosts, name
    assert "alt:80" not in hosts
    [unknown] = hosts["*"]["routes"]
    assert unknown["route"]["cluster"] == "PassthroughCluster"
    closed = "apiVersion: fairlead.dev/v1\nkind: MeshConfig\nmetadata: {name: m}\nspec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}"
    [unknown] = Got(SERVICES + closed).hosts()["*"]["routes"]
    assert unknown["direct_response"] == {"status": 502}


def test_no_domain_stands_twice() -> None:
    """Envoy would refuse all routes for it."""
    more = "".join(
        f"""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {{name: {name}}}
spec: {{hosts: ['{host}'], http: [{{route: [{{destination: {{host: web}}}}]}}]}}
---
"""
        for name, host in (("one", "*.example"), ("two", "web.default"), ("three", "cart.shop"), ("four", "*.shop"))
    )
    got = Got(SERVICES + more)
    domains = [domain for one in got.routes["outbound"]["virtual_hosts"] for domain in one["domains"]]
    assert len(domains) == len(set(domains))
    names = [one["name"] for one in got.routes["outbound"]["virtual_hosts"]]
    assert len(names) == len(set(names))
    assert {"*.example", "*.example:80", "cart.shop", "*.shop"} <= set(domains)


def test_what_grpc_cannot_do_is_told() -> None:
    http = """[
      {match: [{uri: {prefix: /a}}], redirect: {uri: /b}},
      {match: [{queryParams: {a: {exact: b}}}], route: [{destination: {host: web}}]},
      {headers: {request: {set: {a: b}}}, corsPolicy: {allowMethods: [GET]}, route: [{destination: {host: web}}]}]"""
    made, notes = routes(http, "gRPC")
    assert len(made) == 2
    assert [one.partition("route ")[2] for one in notes] == [
        "0: `redirect` is not carried out by gRPC",
        "1: queryParams have no meaning for gRPC; the route is left out",
        "2: `corsPolicy` is not carried out by gRPC",
        "2: `headers` is not carried out by gRPC",
    ]
    assert made[1]["match"] == {"prefix": ""}
