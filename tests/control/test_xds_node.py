"""A node's own words: read, or refused with the field."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.control.xds_node import GRPC, NodeError, Notes, Upstream, peer_of, read_node, seconds, socket_address


def node(**told: Any) -> Any:
    return {"id": "shop/web-1", "user_agent_name": "envoy", "metadata": {"FAIRLEAD": told}}


def test_a_node_is_read() -> None:
    made = read_node(
        node(
            FOLDER="/run/x",
            ADDRESS="10.0.0.1",
            OUTBOUND="127.0.0.1:15001",
            INBOUND="[::1]:15006",
            PORTS=["80", 81.0],
            LABELS={"app": "web"},
            UPSTREAMS=["127.0.0.1:9001=db.shop.svc.cluster.local:5432"],
            APP_ADDRESS="127.0.0.1",
        )
    )
    assert (made.key, made.kind, made.mesh_port, made.inbound) == ("shop/web-1", "envoy", 15006, ("::1", 15006))
    assert made.outbound == ("127.0.0.1", 15001)
    assert made.ports == (80, 81)
    assert made.upstreams == (Upstream("127.0.0.1", 9001, "db.shop.svc.cluster.local", 5432),)


def test_a_grpc_server_takes_mutual_tls_on_its_own_port() -> None:
    made = read_node({**node(PORTS=["50051"]), "user_agent_name": "gRPC C-core linux"})
    assert (made.kind, made.mesh_port) == (GRPC, 50051)


@pytest.mark.parametrize(
    ("message", "wanted"),
    [
        ({}, "node.id: expected NAMESPACE/WORKLOAD"),
        ({"id": "a/b/c"}, "node.id"),
        (node(OUTBOUND="nowhere"), "expected HOST:PORT, got 'nowhere'"),
        (node(OUTBOUND="host:80"), "does not appear to be an IPv4 or IPv6 address"),
        (node(FOLDER="run"), "FOLDER: expected an absolute path"),
        (node(FOLDER=7), "FOLDER: expected text"),
        (node(PORTS="80"), "PORTS: expected a list"),
        (node(PORTS=["x"]), "invalid literal"),
        (node(LABELS=["a"]), "LABELS: expected an object"),
        (node(UPSTREAMS=["127.0.0.1:1"]), "UPSTREAMS: expected ADDRESS=SERVICE:PORT"),
        ({"id": "a/b", "metadata": {"FAIRLEAD": 1}}, "FAIRLEAD: expected an object"),
    ],
)
def test_what_cannot_be_read_is_named(message: Any, wanted: str) -> None:
    with pytest.raises(NodeError, match=wanted):
        read_node(message)


def test_small_things() -> None:
    notes = Notes()
    notes("a")
    notes("b")
    notes("a")
    assert notes.listed() == ["a", "b"]
    assert (seconds(0.0), seconds(1.5), seconds(10.0), seconds(0.025)) == ("0s", "1.5s", "10s", "0.025s")
    assert socket_address("unix:///run/app", 0) == {"pipe": {"path": "/run/app"}}


@pytest.mark.parametrize(
    ("told", "address"),
    [("ipv4:10.0.0.7:50052", "10.0.0.7"), ("ipv6:%5Bfe80::1%5D:50052", "fe80::1"), ("ipv6:[::1]:5", "::1"),
     ("unix:/run/x", ""), ("", "")],
)  # fmt: skip
def test_where_a_client_comes_from_is_read_from_grpcs_word(told: str, address: str) -> None:
    assert peer_of(told) == address
