"""What a proxyless gRPC application gets."""

# ruff: noqa: E501 - manifests
from __future__ import annotations

from fairlead.control.xds_grpc import SERVER
from tests.control.xds_worlds import Got, node

TEXT = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: grpc, port: 80, targetPort: 50051}, {name: tcp, port: 90, targetPort: 9000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}, annotations: {fairlead.dev/address: 10.0.0.1}}
spec: {serviceAccountName: web, containers: [{name: m, ports: [{name: grpc, containerPort: 50051}]}]}
---
"""


def server(mode: str, port: int = 50051, more: str = "") -> tuple[Got, str]:
    policy = f"""
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: istio-system}}
spec: {{mtls: {{mode: {mode}}}}}
---
"""
    name = f"{SERVER}0.0.0.0:{port}"
    return Got(TEXT + policy + more, node("default/web-1", "gRPC C-core", PORTS=["50051"]), name), name


def test_each_spelling_of_a_service_that_speaks_http_is_a_listener() -> None:
    got = Got(TEXT, node(agent="gRPC C-core"))
    assert set(got.listeners) == {
        f"{name}:80" for name in ("web", "web.default", "web.default.svc", "web.default.svc.cluster.local")
    }
    manager = got.listeners["web:80"]["api_listener"]["api_listener"]
    assert manager["rds"]["route_config_name"] == "web.default.svc.cluster.local:80"
    assert [one["name"] for one in manager["http_filters"]] == ["envoy.filters.http.fault", "envoy.filters.http.router"]
    assert "outbound" not in got.routes


def test_a_server_takes_mutual_tls_and_asks_policies() -> None:
    policy = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [other]}}]}]}
"""
    got, name = server("STRICT", more=policy)
    [chain] = got.listeners[name]["filter_chains"]
    tls = chain["transport_socket"]["typed_config"]
    assert tls["require_client_certificate"] is True
    assert tls["common_tls_context"]["tls_certificate_provider_instance"] == {"instance_name": "default"}
    manager = chain["filters"][0]["typed_config"]
    assert [one["name"] for one in manager["http_filters"]] == [
        "fairlead.authorization-policy-deny", "envoy.filters.http.router",
    ]  # fmt: skip
    assert manager["route_config"]["virtual_hosts"][0]["routes"][0]["non_forwarding_action"] == {}
    assert got.notes == []


def test_permissive_is_strict_and_that_is_told_and_disable_is_plain() -> None:
    got, name = server("PERMISSIVE")
    assert "transport_socket" in got.listeners[name]["filter_chains"][0]
    assert got.notes == [
        "port 50051: gRPC cannot take mutual TLS and plaintext on one port; it takes mutual TLS (STRICT) alone"
    ]
    got, name = server("DISABLE")
    assert "transport_socket" not in got.listeners[name]["filter_chains"][0]


def test_a_port_that_is_not_the_workloads_is_not_served() -> None:
    got, name = server("STRICT", 1234)
    assert name not in got.listeners
