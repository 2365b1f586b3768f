"""All that one client of xDS is served, from the mesh's rules and facts: compiled for its workload, then translated.

Work grows with what changed: clusters and routes whose compiled form is the object that it was are not made again.
"""

from __future__ import annotations

from typing import Any

from ..policy.compile import CompileCache, compile_tables
from ..policy.compile_clusters import PASSTHROUGH
from ..policy.compile_inbound import Inbound
from ..policy.compile_view import speaks_http
from ..policy.gateways import EVERY
from ..policy.ingress import with_ingresses
from ..policy.resources import Resources
from ..policy.tables import Cluster, Tables, Viewpoint
from ..registry.digest import blake2b
from ..registry.model import Workload, WorkloadPort
from ..registry.snapshot import Snapshot
from .xds_blame import blamed, origins
from .xds_clusters import dynamic_cluster, make_cluster
from .xds_gateway import Gateway, Secrets
from .xds_grpc import SERVER, client_listeners, server_listener
from .xds_listeners import (
    OUTBOUND,
    forwards,
    host_routes,
    inbound_address,
    inbound_listener,
    outbound_listeners,
    outbound_routes,
    upstream_route,
)
from .xds_node import GRPC, JSON, Node, Notes, socket_address
from .xds_session import CDS, EDS, LDS, RDS, SDS
from .xds_tokens import Keys
from .xds_wire import encode_any

Resource = tuple[str, bytes]
Kept = tuple[Resource, Resource | None]


def resource(url: str, message: JSON) -> Resource:
    """Version and octets of a resource, by its content."""
    octets = encode_any({"@type": url, **message})
    return blake2b(octets, digest_size=8).hexdigest(), octets


def _not_fetched(source: tuple[str, str]) -> str:
    return ""


class Served:
    """For one node. `notes`: what its rules say and it cannot do, as of the last `build`."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.notes: list[str] = []
        self._tables: Tables | None = None
        self._cache = CompileCache()
        self._clusters: dict[str, tuple[Cluster, Kept, list[str]]] = {}
        self._routes: tuple[Any, bool, dict[str, Resource], list[str]] | None = None

    def build(
        self, resources: Resources, snapshot: Snapshot, version: str, servers: frozenset[str] = frozenset(),
        fetched: Keys = _not_fetched, secrets: Secrets | None = None,
    ) -> dict[str, dict[str, Resource]]:  # fmt: skip
        """Resources by type and name. `servers`: names of server listeners that a gRPC application asks for; `fetched`:
        keys of tokens that stand elsewhere; `secrets`: those that a gateway may have."""
        node, note = self.node, Notes()
        workload = snapshot.workloads.get(node.key) or declared(node)
        if not workload.ports and node.ports:
            workload = _with_ports(workload, node)
        tables = compile_tables(
            resources, snapshot, Viewpoint(workload, EVERY if node.gateway else ""), version, self._cache
        )
        self._tables = tables
        found: dict[str, dict[str, Resource]] = {CDS: {}, EDS: {}, SDS: {}, LDS: {}, RDS: {}}
        self._make_clusters(tables, found, note)
        if node.gateway:
            listeners = self._gateway(tables, resources, snapshot, found, note, fetched, secrets or {})
        elif node.kind == GRPC:
            listeners = client_listeners(tables, node)
            for name in sorted(servers):
                made = server_listener(tables, name, node, note)
                if made is not None:
                    listeners.append(made)
        else:
            listeners = outbound_listeners(tables, resources, node, note)
            inbound = inbound_listener(tables, resources, node, note, fetched)
            if inbound is not None:
                listeners.append(inbound)
        for one in listeners:
            found[LDS][one["name"]] = resource(LDS, one)
        if not node.gateway:
            self._make_routes(tables, found, note)
        if tables.rate_limits is not None and node.kind == GRPC:
            note("LocalRateLimit is not carried out by gRPC")
        if tables.inbound.shadow is not None:
            note("dry runs and AUDIT are not counted by xDS")
        self.notes = note.listed()
        return found

    def blame(self, reasons: list[str]) -> list[str]:
        """Refusals with the rules that they are about."""
        return blamed(reasons, origins(self._tables)) if reasons and self._tables is not None else reasons

    def _gateway(
        self, tables: Tables, resources: Resources, snapshot: Snapshot, found: dict[str, dict[str, Resource]],
        note: Notes, fetched: Keys, secrets: Secrets,
    ) -> list[JSON]:  # fmt: skip
        """The listeners; routes and Secrets are put into `found`."""
        rules = with_ingresses(resources, snapshot) if resources.ingresses else resources
        made = Gateway(tables, rules, self.node, note, fetched, secrets)
        listeners = made.listeners()
        for one in made.routes():
            found[RDS][one["name"]] = resource(RDS, one)
        for name, secret in made.served.items():
            found[SDS][name] = resource(SDS, secret)
        return listeners

    def _make_clusters(self, tables: Tables, found: dict[str, dict[str, Resource]], note: Notes) -> None:
        kept = {}
        node = self.node
        for name, cluster in tables.clusters.items():
            if name == PASSTHROUGH or (name.startswith("inbound|") and (node.kind == GRPC or node.gateway)):
                continue
            known = self._clusters.get(name)
            if known is None or known[0] is not cluster:
                known = (cluster, *_translated(tables, cluster, node))
            kept[name] = known
            (made, endpoints), told = known[1], known[2]
            found[CDS][name] = made
            if endpoints is not None:
                found[EDS][name] = endpoints
            for text in told:
                note(text)
        self._clusters = kept
        if node.kind != GRPC and not node.gateway and forwards(tables):
            dynamic = dynamic_cluster()
            found[CDS][dynamic["name"]] = resource(CDS, dynamic)

    def _make_routes(self, tables: Tables, found: dict[str, dict[str, Resource]], note: Notes) -> None:
        may_forward = forwards(tables)
        known = self._routes
        if known is None or known[0] is not tables.http or known[1] != may_forward:
            own, made = Notes(), {}
            for name, one in _routes(tables, self.node, own):
                made[name] = resource(RDS, one)
            known = self._routes = (tables.http, may_forward, made, own.listed())
        found[RDS].update(known[2])
        for text in known[3]:
            note(text)


def declared(node: Node) -> Workload:
    """A workload that no source declares, as its own node describes it."""
    return Workload(
        node.namespace, node.workload, addresses=(node.address,) if node.address else (), labels=node.labels,
        ports=tuple(WorkloadPort(port) for port in node.ports), service_account=node.service_account or "default",
        mesh_port=node.mesh_port,
    )  # fmt: skip


def _with_ports(workload: Workload, node: Node) -> Workload:
    from msgspec.structs import replace

    return replace(workload, ports=tuple(WorkloadPort(port) for port in node.ports))


def _translated(tables: Tables, cluster: Cluster, node: Node) -> tuple[Kept, list[str]]:
    note = Notes()
    if cluster.name.startswith("inbound|"):
        return (resource(CDS, _inbound_cluster(tables.inbound, cluster, node, note)), None), note.listed()
    made = make_cluster(cluster, node, note)
    endpoints = resource(EDS, made.endpoints) if made.endpoints is not None else None
    return (resource(CDS, made.cluster), endpoints), note.listed()


def _inbound_cluster(inbound: Inbound, cluster: Cluster, node: Node, note: Notes) -> JSON:
    made = make_cluster(cluster, node, note).cluster
    made.pop("eds_cluster_config", None)
    made["type"] = "STATIC"
    endpoint = {"endpoint": {"address": socket_address(*inbound_address(inbound, cluster, node))}}
    made["load_assignment"] = {"cluster_name": cluster.name, "endpoints": [{"lb_endpoints": [endpoint]}]}
    return made


def _routes(tables: Tables, node: Node, note: Notes) -> list[tuple[str, JSON]]:
    if node.kind == GRPC:
        wanted = [key for key, protocol in tables.ports.items() if speaks_http(protocol)]
    else:
        wanted = [(one.host, one.service_port) for one in node.upstreams
                  if speaks_http(tables.ports.get((one.host, one.service_port), "tcp"))]  # fmt: skip
    found = []
    for host, port in wanted:
        made = host_routes(tables, host, port, node, note)
        if made is not None:
            found.append((f"{host}:{port}", made))
    if node.kind != GRPC and node.outbound is not None:
        found.append((OUTBOUND, outbound_routes(tables, node, note)))
    return found


__all__ = ["SERVER", "Served", "resource", "upstream_route"]
