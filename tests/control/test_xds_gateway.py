"""An Envoy as a gateway: which servers become listeners, with which certificate, and what is told of the others."""

# ruff: noqa: E501 - manifests
from __future__ import annotations

import base64
from typing import Any

import pytest

from fairlead.control.xds_gateway import parsed
from fairlead.control.xds_node import Node, NodeError, read_node
from fairlead.control.xds_served import Served
from fairlead.control.xds_session import LDS, RDS, SDS
from tests.certificates import Authority
from tests.control.xds_worlds import _message, node, world

WORLD = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: gw-1, labels: {istio: edge}, annotations: {fairlead.dev/address: 10.0.0.1}}
spec: {serviceAccountName: gw, containers: [{name: m}]}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  selector: {istio: edge}
  servers:
  - {port: {number: 80, name: http, protocol: HTTP}, hosts: [shop.example], tls: {httpsRedirect: true}}
  - {port: {number: 443, name: a, protocol: HTTPS}, hosts: [shop.example], tls: {mode: MUTUAL, credentialName: shop, subjectAltNames: [u.example], minProtocolVersion: TLSV1_3}}
  - {port: {number: 443, name: b, protocol: HTTPS}, hosts: [lost.example], tls: {mode: SIMPLE, credentialName: lost}}
  - {port: {number: 443, name: c, protocol: HTTPS}, hosts: ['*.x.example'], tls: {mode: SIMPLE, credentialName: shop}}
  - {port: {number: 443, name: d, protocol: HTTPS}, hosts: [file.example], tls: {mode: SIMPLE, serverCertificate: /a, privateKey: /b}}
  - {port: {number: 81, name: e, protocol: HTTP}, hosts: ['*'], bind: 127.0.0.9}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: one}
spec: {hosts: [shop.example], gateways: [edge], http: [{match: [{uri: {prefix: /one}}], route: [{destination: {host: web}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: two}
spec: {hosts: [shop.example], gateways: [edge], http: [{directResponse: {status: 418}}]}
"""


def secret(name: str = "shop", ca: bool = True) -> dict[str, Any]:
    certificate, key = Authority().issue("shop.example")
    data = {"tls.crt": certificate, "tls.key": key, **({"ca.crt": Authority().pem} if ca else {})}
    encoded = {name: base64.b64encode(text.encode()).decode() for name, text in data.items()}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name}, "data": encoded}


class Edge:
    def __init__(self, *secrets: dict[str, Any], at: Node | None = None) -> None:
        made = world(WORLD)
        served = Served(at or node("default/gw-1", GATEWAY=True, MAP=["80=8080"]))
        found = served.build(made.resources, made.snapshot, "1", secrets=parsed(secrets))
        self.notes = served.notes
        self.listeners, self.routes, self.secrets = (
            {name: _message(octets) for name, (_, octets) in found[url].items()} for url in (LDS, RDS, SDS)
        )

    def chains(self) -> dict[str, dict[str, Any]]:
        chains = self.listeners["gateway__443"]["filter_chains"]
        return {one["filter_chain_match"]["server_names"][0]: one for one in chains}


def test_servers_become_listeners_where_they_may_be_and_only_those_with_a_certificate() -> None:
    got = Edge(secret())
    assert {name: (one["address"]["socket_address"]["address"], one["address"]["socket_address"]["port_value"])
            for name, one in got.listeners.items()} == {
        "gateway__80": ("0.0.0.0", 8080), "gateway_127.0.0.9_81": ("127.0.0.9", 81), "gateway__443": ("0.0.0.0", 443),
    }  # fmt: skip
    assert set(got.chains()) == {"shop.example", "*.x.example", "file.example"}
    assert got.notes == [
        "Gateway default/edge spec.servers[2]: there is no Secret default/lost for it; it takes nobody"
    ]


def test_certificates_come_over_sds_and_clients_are_asked_for_theirs() -> None:
    got = Edge(secret())
    socket = got.chains()["shop.example"]["transport_socket"]["typed_config"]
    assert socket["require_client_certificate"] is True
    common = socket["common_tls_context"]
    assert common["tls_params"]["tls_minimum_protocol_version"] == "TLSv1_3"
    assert [one["name"] for one in common["tls_certificate_sds_secret_configs"]] == ["kubernetes://default/shop"]
    combined = common["combined_validation_context"]
    assert combined["validation_context_sds_secret_config"]["name"] == "kubernetes://default/shop-ca"
    names = combined["default_validation_context"]["match_typed_subject_alt_names"]
    assert {one["matcher"]["exact"] for one in names} == {"u.example"}
    assert set(got.secrets) == {"kubernetes://default/shop", "kubernetes://default/shop-ca"}
    assert (
        "BEGIN CERTIFICATE"
        in got.secrets["kubernetes://default/shop-ca"]["validation_context"]["trusted_ca"]["inline_string"]
    )
    file = got.chains()["file.example"]["transport_socket"]["typed_config"]["common_tls_context"]["tls_certificates"]
    assert file == [{"certificate_chain": {"filename": "/a"}, "private_key": {"filename": "/b"}}]


def test_a_mutual_server_without_authorities_takes_nobody() -> None:
    got = Edge(secret(ca=False))
    assert "shop.example" not in got.chains()
    assert (
        got.notes[0]
        == "Gateway default/edge spec.servers[1]: there is no Secret default/shop-cacert for it; it takes nobody"
    )


def test_rules_of_one_host_are_joined_and_a_redirect_is_before_them() -> None:
    got = Edge(secret())
    [host] = got.routes["gateway_80"]["virtual_hosts"]
    assert host["routes"][0]["redirect"] == {"https_redirect": True, "response_code": "MOVED_PERMANENTLY"}
    [tls] = [
        one for name, one in got.routes.items() if name not in ("gateway_80", "gateway_81") and one.get("virtual_hosts")
    ]
    [host] = tls["virtual_hosts"]
    assert [next(iter(one.keys() & {"route", "direct_response"})) for one in host["routes"]] == [
        "route",
        "direct_response",
    ]
    assert tls["ignore_port_in_host_matching"] is True


def test_who_is_no_gateway_gets_no_secret_and_a_bad_map_is_named() -> None:
    plain = Edge(secret(), at=node("default/gw-1"))
    assert plain.secrets == {} and "gateway__80" not in plain.listeners
    with pytest.raises(NodeError, match="MAP: expected PORT=PORT"):
        read_node({"id": "a/b", "metadata": {"FAIRLEAD": {"MAP": ["80"]}}})
