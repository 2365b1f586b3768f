"""Worlds and what a client of xDS gets of them, for tests of control/xds_*."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairlead.control.xds_node import Node, read_node
from fairlead.control.xds_served import Served
from fairlead.control.xds_session import CDS, EDS, LDS, RDS
from fairlead.control.xds_wire import PREFIX, decode
from fairlead.policy.compile import compile_tables
from fairlead.policy.tables import Tables, Viewpoint
from fairlead.policy.world import World
from fairlead.registry.documents import Document, load

FOLDER = "/run/fairlead"


def world(text: str | Sequence[dict[str, Any]]) -> World:
    """Documents as YAML, or as they are; all of them must be good."""
    if isinstance(text, str):
        documents, problems = load(text, "f.yaml")
        assert not problems, problems
    else:
        documents = [Document.of(body, "f") for body in text]
    made, reports = World.load(documents)
    told = [f"{one.kind} {one.name}: {error}" for one in reports for error in one.errors]
    assert not told, told
    return made


def node(workload: str = "default/client-1", agent: str = "envoy", **told: Any) -> Node:
    told = {"OUTBOUND": "127.0.0.1:15001", "FOLDER": FOLDER, **told}
    return read_node({"id": workload, "user_agent_name": agent, "metadata": {"FAIRLEAD": told}})


def tables_of(made: World, workload: str) -> Tables:
    return compile_tables(made.resources, made.snapshot, Viewpoint(made.snapshot.workloads[workload]))


class Got:
    """What a node is served, as dictionaries by name."""

    def __init__(self, text: str | Sequence[dict[str, Any]], at: Node | None = None, *servers: str) -> None:
        served = Served(at or node())
        made = world(text)
        found = served.build(made.resources, made.snapshot, "1", frozenset(servers))
        self.notes = served.notes
        self.clusters, self.endpoints, self.listeners, self.routes = (
            {name: _message(octets) for name, (_, octets) in found[url].items()} for url in (CDS, EDS, LDS, RDS)
        )

    def hosts(self, name: str = "outbound") -> dict[str, dict[str, Any]]:
        """The virtual hosts of a route configuration by domain."""
        return {domain: one for one in self.routes[name]["virtual_hosts"] for domain in one["domains"]}


def _message(octets: bytes) -> dict[str, Any]:
    found = decode("service.discovery.v3.DiscoveryResponse", b"\x12" + _length(len(octets)) + octets)
    message: dict[str, Any] = found["resources"][0]
    assert message.pop("@type").startswith(PREFIX)
    return message


def _length(number: int) -> bytes:
    out = bytearray()
    while number > 127:
        out.append(number & 127 | 128)
        number >>= 7
    return bytes([*out, number])
