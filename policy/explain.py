"""What would happen to a request, and why: the sidecar's own decision, the endpoints, and the policies at both ends.

The destination's policies are judged as if its sidecar enforced them, for a client with its mesh identity unless the
question says `plaintext` or gives only an address, or the client's DestinationRule switches TLS off.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..registry.model import Endpoint, Workload
from ..registry.snapshot import Snapshot
from .compile import compile_tables
from .compile_hosts import HostIndex, visible_rules
from .compile_inbound import Inbound, inbound_of
from .compile_view import View, speaks_http
from .decide import decide, service_of
from .explain_answer import Answer
from .explain_gateway import at_gateway
from .explain_limits import trace_limits
from .explain_places import Places
from .explain_query import Query, QueryError
from .explain_rules import describe_port, opaque_rules, origin, other_rules
from .explain_text import render
from .host_names import split_authority
from .path_normalization import PathError, normalize_path
from .peer import Peer, as_peer, identify
from .resources import Resources
from .tables import Arrival, SimpleRequest, Tables, Viewpoint
from .trace import Trace, place
from .trace import note as _step

VIEWPOINTS_MAX = 64
"""Compiled viewpoints kept by one Explainer."""

__all__ = ["Explainer", "QueryError", "explain", "render"]


class Names(Protocol):
    """What names mean in the mesh's DNS; `mesh/explain_names.py`."""

    def resolve(self, name: str, namespace: str) -> dict[str, Any]: ...
    def loopback(self, host: str) -> str: ...


class World(Protocol):
    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def resources(self) -> Resources: ...


def explain(world: World, query: Mapping[str, Any]) -> dict[str, Any]:
    """One answer with all keys of the contract. For many questions make one Explainer. Raises QueryError."""
    return Explainer(world).explain(query)


class Explainer:
    """Answers questions about one world; each viewpoint is compiled once.

    `places`: where objects stand, for `file` and `line` (or `revision`) of the steps. `names`: adds the steps that lie
    before the sidecar, DNS and how a connection gets there, and the key `dns`.
    """

    def __init__(self, world: World, places: Places | None = None, names: Names | None = None) -> None:
        self.places = places or Places()
        self._names = names
        self._snapshot = world.snapshot
        self._resources = world.resources
        self._mesh = world.resources.mesh.spec
        self._compiled: dict[tuple[Any, ...], tuple[Tables, View]] = {}
        self._inbound: dict[str, Inbound] = {}

    def explain(self, query: Mapping[str, Any]) -> dict[str, Any]:
        """The contract's object; with `id` where the question has one. Raises QueryError for a bad question."""
        asked = Query(query)
        trace: Trace = []
        workload = self._source(asked, trace)
        tables, view = self._compile(workload, asked.gateway)
        if view.sidecar is not None:
            named = f"Sidecar {view.sidecar.meta.key}"
            mode = tables.mesh.spec.outbound_traffic_policy.mode
            known = f"{len(view.services)} of {len(self._snapshot.services)} services are known, others are {mode}"
            _step(trace, "sidecar", named, "in force", known, named)
        request = self._request(asked, tables, workload)
        resolved = self._before(asked, tables, workload, request, trace)
        decided: Trace = []
        decision = decide(tables, request, decided)
        self._others(view, tables, request, decided, trace)
        trace += decided
        trace_limits(tables.rate_limits, request, decision, trace)
        answer = Answer(self, tables, view, asked, request, decision, workload, trace).build()
        if resolved is not None:
            answer["dns"] = resolved
        for entry in trace:
            self._locate(view, entry)
        return {"id": asked.id, **answer} if "id" in query else answer

    def _locate(self, view: View, entry: dict[str, Any]) -> None:
        """Add where the object of a step stands."""
        resource, path = place(entry)
        if resource:
            resource, path, delegate = origin(view, resource, path)
            entry["resource"] = resource
            if delegate:
                entry["delegate"] = delegate
            if path:
                entry["path"] = path
            entry.update(self.places.at(resource, path))

    def service_resource(self, host: str) -> str:
        service = self._snapshot.services.get(host)
        return self.places.service(service, self._mesh.cluster_domain) if service is not None else ""

    def _before(
        self, asked: Query, tables: Tables, workload: Workload, request: SimpleRequest, trace: Trace
    ) -> dict[str, Any] | None:
        """The steps between the client and its sidecar's decision: the name, and how the connection comes."""
        arrival = request.arrival
        if asked.gateway:
            name = f" for server name {arrival.sni}" if arrival.sni else ""
            why = f"the gateway takes {'TLS' if arrival.tls else 'the connection'} on port {arrival.port}{name}"
            _step(trace, "listener", f"Gateway {asked.gateway}", "gateway", why, f"Gateway {asked.gateway}")
            return None
        if self._names is None:
            return None
        resolved = None
        named, port = split_authority(asked.authority)
        host = service_of(tables, named)
        if not _is_address(asked.host):
            resolved = self._names.resolve(asked.host, workload.namespace)
            asked_for = resolved["questions"] if resolved["answer"] else resolved["questions"][:1]
            for question in asked_for:  # that no form of a stranger's name is ours need not be said of each
                answered = question["name"] == resolved["answer"]
                resource = self.service_resource(service_of(tables, question["name"])) if answered else ""
                _step(
                    trace, "dns", question["name"], "answer" if answered else "no answer", question["result"], resource
                )
        self._listener(host, arrival, port, tables, bool(request.method), trace)
        return resolved

    def _listener(self, host: str, arrival: Arrival, port: int, tables: Tables, http: bool, trace: Trace) -> None:
        assert self._names is not None
        if not host:
            why = "no service is known by this name: the sidecar's outbound port (by Host), HTTP proxy or redirection"
            _step(trace, "listener", arrival.host or arrival.sni or "outbound", "outbound", why)
            return
        address = self._names.loopback(host)
        ways = [f"{address}, where a sidecar with --dns listens for it"] if address else []
        ways += ["the outbound port by Host, as HTTP proxy"] if http else []
        why = f"reached by {', '.join([*ways, 'a named port (--listen) or redirection'])}"
        _step(trace, "listener", host, "outbound", why, self.service_resource(host))
        number = self._port(host, arrival, tables, port)
        if number:
            protocol = tables.ports[(host, number)]
            fits = http == speaks_http(protocol) or not protocol
            why = describe_port(protocol)
            if not fits and http:
                why += "; ask with --tcp for what becomes of a connection to it"
            _step(trace, "listener", f"{host}:{number}", "port" if fits else "note", why, self.service_resource(host))

    @staticmethod
    def _port(host: str, arrival: Arrival, tables: Tables, named: int) -> int:
        """The port of the service that is meant; 0: it has none such."""
        number = arrival.port or named or 80
        if (host, number) in tables.ports:
            return number
        sole = tables.http.names.get(host, 0) if not arrival.port and not named else 0
        return sole if (host, sole) in tables.ports else 0

    def _others(self, view: View, tables: Tables, request: SimpleRequest, decided: Trace, trace: Trace) -> None:
        """Rules that name the host, and why they do not count; routes of TCP and TLS one by one."""
        arrival = request.arrival
        named, _ = split_authority(request.authority)
        name = arrival.host or (named if request.method else arrival.sni or named)
        host = service_of(tables, name) or tables.tcp.addresses.get(arrival.destination_ip, "") or name.lower()
        if not host:
            return
        chosen = next((one["object"] for one in decided if one["result"] == "chosen"), "").removeprefix(
            "VirtualService "
        )
        other_rules(view, host, chosen, bool(request.method), trace)
        if not request.method:
            rules = visible_rules(view)
            index = HostIndex(rules, view.cluster_domain)
            opaque_rules(view, host, arrival, rules if view.gateway else index.rules_for(host), trace)

    def _source(self, asked: Query, trace: Trace) -> Workload:
        """The workload that asks: known, imagined by namespace and labels, or anybody in namespace `default`."""
        if asked.gateway:
            namespace, name = asked.gateway.split("/")
            named = f"Gateway {asked.gateway}"
            _step(trace, "source", named, "gateway", "the request enters by this gateway", named)
            return Workload(namespace, name)
        if asked.from_workload:
            found = self._snapshot.workloads.get(asked.from_workload)
            if found is None:
                known = sorted(self._snapshot.workloads)
                hint = f"known: {', '.join(known[:20])}" if known else "no workload is known at all"
                raise QueryError(f"from: there is no workload {asked.from_workload}; {hint}")
            source = found.source or "the registry"
            why = f"labels {_pairs(found.labels)}, service account {found.service_account}, from {source}"
            _step(trace, "source", found.key, "workload", why, self.places.workload(found.key))
            return found
        namespace = asked.from_namespace or "default"
        imagined = bool(asked.from_namespace or asked.from_labels)
        what = "imagined" if imagined else "anonymous"
        why = f"any workload in namespace {namespace}, labels {_pairs(asked.from_labels)}, service account default"
        _step(trace, "source", f"{namespace}/(any)", what, why)
        return Workload(namespace, "", labels=asked.from_labels)

    def _compile(self, workload: Workload, gateway: str) -> tuple[Tables, View]:
        key = (workload.key, tuple(sorted(workload.labels.items())), gateway)
        found = self._compiled.get(key)
        if found is None:
            viewpoint = Viewpoint(workload, gateway)
            if len(self._compiled) >= VIEWPOINTS_MAX:
                self._compiled.clear()
            tables = compile_tables(self._resources, self._snapshot, viewpoint)
            found = self._compiled[key] = tables, View(self._resources, self._snapshot, viewpoint)
        return found

    def _request(self, asked: Query, tables: Tables, workload: Workload) -> SimpleRequest:
        source_ip = asked.source_ip or (workload.addresses[0] if workload.addresses else "")
        port = asked.port or (asked.url_port if any(name == "host" for name, _ in asked.headers) else 0)
        listener = "gateway" if asked.gateway else "outbound"
        if tables.gateway is not None and tables.gateway.names:
            return at_gateway(asked, tables.gateway, source_ip, self._mesh.path_normalization.normalization)
        if asked.tcp or self._is_opaque(asked, tables):
            number = asked.port or asked.url_port or 443
            host = asked.host if service_of(tables, asked.host) else ""
            arrival = Arrival(
                listener,
                source_ip=source_ip,
                port=number,
                host=host or ("" if _is_address(asked.host) else asked.host),
                destination_ip=asked.host if _is_address(asked.host) else "",
                sni=asked.sni or (asked.host if asked.scheme == "https" else ""),
            )
            return SimpleRequest(arrival, "", asked.authority, "/", asked.headers, asked.scheme)
        try:
            path = normalize_path(asked.path, self._mesh.path_normalization.normalization)
        except PathError as error:
            raise QueryError(f"url: {error}; a proxy answers 400 (FL-MALFORMED)") from error
        arrival = Arrival(listener, source_ip=source_ip, port=port, sni=asked.sni, tls=asked.scheme == "https")
        scheme = asked.scheme if asked.gateway else "http"
        return SimpleRequest(arrival, asked.method, asked.authority, path, asked.headers, scheme, asked.claims)

    def _is_opaque(self, asked: Query, tables: Tables) -> bool:
        """https from an app is TLS that the sidecar does not open, unless the port is declared as HTTP."""
        if asked.scheme != "https" or asked.gateway:
            return False
        host, port = service_of(tables, asked.host), asked.port or asked.url_port or 443
        declared = tables.ports.get((host, port), "")
        return declared != "http" and not declared.startswith(("http2", "grpc"))

    def inbound(self, workload: Workload) -> Inbound:
        found = self._inbound.get(workload.key)
        if found is None:
            found = self._inbound[workload.key] = inbound_of(self._resources, self._snapshot, workload)
        return found

    def workload_behind(self, endpoint: Endpoint) -> Workload | None:
        """The workload that serves an endpoint: as the registry says, else the only one at its address."""
        known = self._snapshot.workloads.get(endpoint.workload)
        if known is not None:
            return known
        there = self._snapshot.workloads_at(endpoint.address)
        return there[0] if len(there) == 1 else None

    def peer(self, asked: Query, workload: Workload) -> tuple[Peer, bool]:
        """Whom the destination sees, and whether it comes with a mesh identity."""
        if asked.plaintext or (asked.source_ip and not _has_source(asked)):
            ip = asked.source_ip or (workload.addresses[0] if workload.addresses else "")
            return identify(self._snapshot, self._mesh, "", ip), False
        return as_peer(self._snapshot, self._mesh, workload, asked.source_ip), True


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _pairs(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "(none)"


def _has_source(asked: Query) -> bool:
    return bool(asked.from_workload or asked.from_namespace or asked.from_labels)
