"""Listeners of an Envoy: which connections it takes and where they go."""

# ruff: noqa: E501 - manifests
from __future__ import annotations

from typing import Any

from tests.control.xds_worlds import Got, node


def world(ports: str = "[{name: http, containerPort: 8080}]", mode: str = "PERMISSIVE", more: str = "") -> str:
    return f"""
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: 8080}}, {{name: tcp, port: 90, targetPort: 9000}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: web-1, labels: {{app: web}}, annotations: {{fairlead.dev/address: 10.0.0.1}}}}
spec: {{serviceAccountName: web, containers: [{{name: m, ports: {ports}}}]}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: default, namespace: istio-system}}
spec: {{mtls: {{mode: {mode}}}}}
---
{more}
"""


ONE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
"""


def web(text: str, **more: Any) -> Got:
    return Got(text, node("default/web-1", INBOUND="0.0.0.0:15006", **more))


def chains(got: Got) -> dict[str, dict[str, Any]]:
    return {one["name"]: one for one in got.listeners["inbound"]["filter_chains"]}


def test_several_ports_are_told_by_the_server_name_of_mutual_tls() -> None:
    got = web(world())
    found = chains(got)
    assert set(found) == {"inbound_8080_tls", "inbound_9000_tls"}
    match = found["inbound_9000_tls"]["filter_chain_match"]
    assert match["transport_protocol"] == "tls"
    assert match["server_names"] == ["outbound_.90_._.web.default.svc.cluster.local"]
    socket = found["inbound_8080_tls"]["transport_socket"]["typed_config"]
    assert socket["require_client_certificate"] is True
    validation = socket["common_tls_context"]["combined_validation_context"]["default_validation_context"]
    assert validation["match_typed_subject_alt_names"][0]["matcher"] == {"prefix": "spiffe://cluster.local/"}
    assert [one["name"] for one in found["inbound_9000_tls"]["filters"]] == ["envoy.filters.network.tcp_proxy"]
    assert any("plaintext to port 8080 is not taken" in one for one in got.notes)


def one_port(mode: str, **more: Any) -> Got:
    return web(ONE + world(mode=mode).partition("---\n")[2], **more)


def test_one_port_takes_plaintext_as_peer_authentication_says() -> None:
    assert set(chains(one_port("PERMISSIVE"))) == {"inbound_8080_tls", "inbound_8080_plain"}
    assert set(chains(one_port("STRICT"))) == {"inbound_8080_tls"}
    assert set(chains(one_port("DISABLE"))) == {"inbound_8080_plain"}
    plain = chains(one_port("PERMISSIVE"))["inbound_8080_plain"]["filters"][0]["typed_config"]
    assert plain["forward_client_cert_details"] == "SANITIZE"  # who came without a certificate says nothing of one


def test_strict_without_a_certificate_takes_nobody() -> None:
    assert "inbound" not in one_port("STRICT", FOLDER="").listeners


def test_an_undeclared_port_is_taken_as_tcp_and_that_is_told() -> None:
    got = web(world("[{name: x, containerPort: 7000}]").partition("---\n")[2])
    [chain] = [one for name, one in chains(got).items() if name == "inbound_7000_tls"]
    assert chain["filters"][-1]["name"] == "envoy.filters.network.tcp_proxy"
    assert got.notes[0].startswith("port 7000 declares no protocol: Envoy takes it as TCP")


def test_the_app_is_where_the_node_says() -> None:
    got = one_port("STRICT", APP_ADDRESS="127.0.0.1")
    [place] = got.clusters["inbound|8080||"]["load_assignment"]["endpoints"]
    address = place["lb_endpoints"][0]["endpoint"]["address"]["socket_address"]
    assert (address["address"], address["port_value"]) == ("127.0.0.1", 8080)
    assert got.clusters["inbound|8080||"]["type"] == "STATIC"


def test_named_ports_lead_to_one_service_whatever_the_client_calls_it() -> None:
    ups = [
        f"127.0.0.1:{local}=web.default.svc.cluster.local:{port}" for local, port in ((9001, 80), (9002, 90), (9003, 1))
    ]
    got = web(world(), UPSTREAMS=ups)
    http = got.listeners["upstream_127.0.0.1_9001"]["filter_chains"][0]["filters"][0]["typed_config"]
    assert http["rds"]["route_config_name"] == "web.default.svc.cluster.local:80"
    assert got.hosts("web.default.svc.cluster.local:80")["*"]
    tcp = got.listeners["upstream_127.0.0.1_9002"]["filter_chains"][0]["filters"][0]["typed_config"]
    assert tcp["cluster"] == "outbound|90||web.default.svc.cluster.local"
    assert "upstream_127.0.0.1_9003" not in got.listeners
    assert any("there is no service web.default.svc.cluster.local with port 1" in one for one in got.notes)


def test_tcp_and_tls_routes_of_a_named_port() -> None:
    rule = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web, a.example]
  tls:
  - {match: [{port: 90, sniHosts: [a.example]}], route: [{destination: {host: web, port: {number: 80}}}]}
  tcp:
  - {match: [{port: 90, sourceSubnet: 10.0.0.0/8}], route: [{destination: {host: web, port: {number: 80}}}]}
  - {match: [{port: 90}], route: [{destination: {host: web, port: {number: 90}}, weight: 30},
                                 {destination: {host: web, port: {number: 80}}, weight: 70}]}
"""
    got = web(world(more=rule), UPSTREAMS=["127.0.0.1:9002=web.default.svc.cluster.local:90"])
    listener = got.listeners["upstream_127.0.0.1_9002"]
    by_name, rest = listener["filter_chains"]
    assert by_name["filter_chain_match"] == {"transport_protocol": "tls", "server_names": ["a.example"]}
    assert listener["listener_filters"][0]["name"] == "envoy.filters.listener.tls_inspector"
    assert [one["weight"] for one in rest["filters"][0]["typed_config"]["weighted_clusters"]["clusters"]] == [30, 70]
    assert any("sourceSubnet are not carried out" in one for one in got.notes)


def test_paths_are_normalised_as_the_mesh_says() -> None:
    mesh = "apiVersion: fairlead.dev/v1\nkind: MeshConfig\nmetadata: {name: m}\nspec: {pathNormalization: {normalization: %s}}"
    for name, wanted in (("NONE", (None, None)), ("BASE", (True, None)), ("MERGE_SLASHES", (True, True))):
        got = Got(mesh % name)
        manager = got.listeners["outbound"]["filter_chains"][0]["filters"][0]["typed_config"]
        assert (manager.get("normalize_path"), manager.get("merge_slashes")) == wanted, name
