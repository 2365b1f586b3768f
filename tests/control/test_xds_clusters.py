"""Clusters and endpoints: what a DestinationRule, the registry and policies say of them."""

# ruff: noqa: E501 - manifests
from __future__ import annotations

from typing import Any

from tests.control.xds_worlds import FOLDER, Got, node

HOST = "web.default.svc.cluster.local"
NAME = f"outbound|80||{HOST}"
WEB = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
"""


def pod(name: str, ip: str, mesh: int = 0, account: str = "web", **labels: str) -> str:
    told = ", ".join(f"{key}: {value}" for key, value in {"app": "web", **labels}.items())
    port = f', fairlead.dev/mesh-port: "{mesh}"' if mesh else ""
    return f"""
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{{told}}}, annotations: {{fairlead.dev/address: {ip}{port}}}}}
spec: {{serviceAccountName: {account}, containers: [{{name: m, ports: [{{containerPort: 8080}}]}}]}}
---
"""


def rule(policy: str, subsets: str = "[]") -> str:
    return f"""
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {{name: web}}
spec: {{host: web, trafficPolicy: {policy}, subsets: {subsets}}}
---
"""


def ends(got: Got, name: str = NAME) -> list[tuple[str, int]]:
    found = [
        one["endpoint"]["address"]["socket_address"]
        for place in got.endpoints[name].get("endpoints", ())
        for one in place["lb_endpoints"]
    ]
    return [(one["address"], one["port_value"]) for one in found]


def test_endpoints_with_a_sidecar_are_gone_to_by_mutual_tls_and_must_be_who_they_should() -> None:
    got = Got(WEB + pod("a", "10.0.0.1", 15006) + pod("b", "10.0.0.2") + pod("c", "10.0.0.3", 15006, "other"))
    assert ends(got) == [("10.0.0.1", 15006), ("10.0.0.2", 8080), ("10.0.0.3", 15006)]
    matches = got.clusters[NAME]["transport_socket_matches"]
    assert [one["name"].split("/")[-1] for one in matches] == ["other", "web", "plain"]
    tls = matches[1]["transport_socket"]["typed_config"]
    assert tls["sni"] == f"outbound_.80_._.{HOST}"
    common = tls["common_tls_context"]
    names = common["combined_validation_context"]["default_validation_context"]["match_typed_subject_alt_names"]
    assert names == [{"san_type": "URI", "matcher": {"exact": "spiffe://cluster.local/ns/default/sa/web"}}]
    secret = common["tls_certificate_sds_secret_configs"][0]["sds_config"]["path_config_source"]
    assert secret == {"path": f"{FOLDER}/sds-certificate.json", "watched_directory": {"path": FOLDER}}
    assert common["tls_params"]["tls_minimum_protocol_version"] == "TLSv1_3"
    by_match = [one["metadata"]["filter_metadata"]["envoy.transport_socket_match"]["tls"]
                for place in got.endpoints[NAME]["endpoints"] for one in place["lb_endpoints"] if "metadata" in one]  # fmt: skip
    assert sorted(by_match) == sorted(one["name"] for one in matches[:2])


def test_without_a_certificate_what_wants_mutual_tls_is_left_out_and_that_is_told() -> None:
    got = Got(WEB + pod("a", "10.0.0.1", 15006) + pod("b", "10.0.0.2"), node(FOLDER=""))
    assert ends(got) == [("10.0.0.2", 8080)]
    assert got.notes == ["it has no certificate (FOLDER): endpoints that want mutual TLS are left out"]


def test_grpc_has_one_transport_so_only_endpoints_with_mutual_tls_are_left() -> None:
    text = WEB + pod("a", "10.0.0.1", 15006) + pod("b", "10.0.0.2") + pod("c", "10.0.0.3", 15006, "other")
    got = Got(text, node(agent="gRPC C-core"))
    assert ends(got) == [("10.0.0.1", 15006), ("10.0.0.3", 15006)]
    common = got.clusters[NAME]["transport_socket"]["typed_config"]["common_tls_context"]
    assert common["tls_certificate_provider_instance"] == {"instance_name": "default"}
    assert len(common["validation_context"]["match_typed_subject_alt_names"]) == 2
    assert any("without mutual TLS are left out" in one for one in got.notes)


def test_endpoints_that_egress_policy_refuses_are_left_out() -> None:
    policy = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: out}
spec: {podSelector: {}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {v: one}}}]}]}
---
"""
    client = pod("client-1", "10.0.0.9", app="client").replace("app: web, ", "")
    got = Got(WEB + pod("a", "10.0.0.1", v="one") + pod("b", "10.0.0.2", v="two") + client + policy)
    assert ends(got) == [("10.0.0.1", 8080)]
    assert "PassthroughCluster" not in got.clusters  # of a name nobody can say whether the policy admits it


def test_limits_are_circuit_breakers_and_protocol_options() -> None:
    got = Got(WEB + rule("{connectionPool: {tcp: {maxConnections: 3, connectTimeout: 2s}, http: {http1MaxPendingRequests: 4, "
                         "http2MaxRequests: 5, maxRetries: 6, maxRequestsPerConnection: 7, idleTimeout: 8s}}}"))  # fmt: skip
    made = got.clusters[NAME]
    assert made["connect_timeout"] == "2s"
    assert made["circuit_breakers"]["thresholds"] == [
        {"max_connections": 3, "max_pending_requests": 4, "max_requests": 5, "max_retries": 6}
    ]
    [options] = made["typed_extension_protocol_options"].values()
    assert options["common_http_protocol_options"] == {"idle_timeout": "8s", "max_requests_per_connection": 7}
    unlimited = Got(WEB).clusters[NAME]["circuit_breakers"]["thresholds"][0]
    assert set(unlimited.values()) == {4294967295}


def test_outliers_and_localities() -> None:
    text = WEB + rule(
        "{outlierDetection: {consecutive5xxErrors: 0, consecutiveGatewayErrors: 3, minHealthPercent: 10}}"
    )
    made = Got(text).clusters[NAME]
    assert made["outlier_detection"]["enforcing_consecutive_5xx"] == 0
    assert made["outlier_detection"]["consecutive_gateway_failure"] == 3
    assert made["common_lb_config"]["healthy_panic_threshold"] == {"value": 10.0}


def test_load_balancers() -> None:
    def policy(text: str, **more: Any) -> Any:
        return Got(WEB + rule(f"{{loadBalancer: {text}}}"), node(**more)).clusters[NAME]

    assert policy("{simple: RANDOM}")["lb_policy"] == "RANDOM"
    ring = policy("{consistentHash: {useSourceIp: true, minimumRingSize: 99}}")
    assert (ring["lb_policy"], ring["ring_hash_lb_config"]) == ("RING_HASH", {"minimum_ring_size": 99})
    maglev = policy("{consistentHash: {httpHeaderName: x, maglev: {tableSize: 251}}}")
    assert (maglev["lb_policy"], maglev["maglev_lb_config"]) == ("MAGLEV", {"table_size": 251})
    slow = policy("{simple: ROUND_ROBIN, warmup: {duration: 5s}}")["round_robin_lb_config"]["slow_start_config"]
    assert slow["slow_start_window"] == "5s"
    assert policy("{simple: LEAST_REQUEST}", agent="gRPC")["lb_policy"] == "ROUND_ROBIN"


def test_subsets_are_clusters_and_tls_by_files_names_files_of_the_node() -> None:
    text = WEB + pod("a", "10.0.0.1", v="one") + pod("b", "10.0.0.2", v="two")
    got = Got(
        text
        + rule("{tls: {mode: SIMPLE, caCertificates: /ca.pem, sni: web.example}}", "[{name: one, labels: {v: one}}]")
    )
    name = f"outbound|80|one|{HOST}"
    assert ends(got, name) == [("10.0.0.1", 8080)]
    tls = got.clusters[name]["transport_socket_matches"][0]["transport_socket"]["typed_config"]
    assert tls["sni"] == "web.example"
    validation = tls["common_tls_context"]["validation_context"]
    assert validation["trusted_ca"] == {"filename": "/ca.pem"}
    assert validation["match_typed_subject_alt_names"] == [{"san_type": "DNS", "matcher": {"exact": "web.example"}}]


def test_a_service_known_by_its_name_alone_is_looked_up_by_envoy() -> None:
    entry = """
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: ext}
spec: {hosts: [api.example], ports: [{number: 80, name: http, protocol: HTTP}], resolution: DNS, location: MESH_EXTERNAL}
"""
    made = Got(entry).clusters["outbound|80||api.example"]
    assert made["type"] == "STRICT_DNS"
    [place] = made["load_assignment"]["endpoints"]
    assert place["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]["address"] == "api.example"


def test_what_would_weaken_a_rule_has_no_endpoints_and_is_told() -> None:
    text = WEB + pod("a", "10.0.0.1")
    got = Got(text + rule("{tunnel: {protocol: CONNECT, targetHost: x.example, targetPort: 443}}"))
    assert ends(got) == []
    assert got.notes == [
        "DestinationRule default/web: `tunnel` is not carried out by xDS; the cluster has no endpoints"
    ]
