"""What would happen to a request, and why: the sidecar's own decision, the endpoints, and the policies at both ends.

The destination's policies are judged as if its sidecar enforced them, for a client with its mesh identity unless the
question says `plaintext` or gives only an address, or the client's DestinationRule switches TLS off.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from ..registry import reasons
from ..registry.model import Endpoint, Service, Workload
from ..registry.snapshot import Snapshot
from .authorize import Subject
from .compile import compile_tables
from .compile_clusters import PASSTHROUGH, member_host, named_only, service_endpoints, usable
from .compile_inbound import Inbound, inbound_of
from .compile_view import View
from .decide import Trace, decide, egress_verdict, peer_verdict, service_of
from .destination_rules import settings
from .explain_gateway import at_gateway
from .explain_limits import trace_inbound, trace_limits
from .explain_query import Query, QueryError
from .explain_text import render
from .locality import standing
from .path_normalization import PathError, normalize_path
from .peer import Peer, as_peer, identify
from .resources import Resources
from .tables import Arrival, Cluster, Decision, Destination, Fault, HeaderOps, SimpleRequest, Tables, Verdict, Viewpoint
from .visibility import labels_hold

VIEWPOINTS_MAX = 64
"""Compiled viewpoints kept by one Explainer."""

__all__ = ["Explainer", "QueryError", "explain", "render"]


class World(Protocol):
    @property
    def snapshot(self) -> Snapshot: ...
    @property
    def resources(self) -> Resources: ...


def explain(world: World, query: Mapping[str, Any]) -> dict[str, Any]:
    """One answer with all keys of the contract. For many questions make one Explainer. Raises QueryError."""
    return Explainer(world).explain(query)


class Explainer:
    """Answers questions about one world; each viewpoint is compiled once."""

    def __init__(self, world: World) -> None:
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
            named = f"Sidecar {view.sidecar.meta.key} ({view.sidecar.meta.source})"
            mode = tables.mesh.spec.outbound_traffic_policy.mode
            known = f"{len(view.services)} of {len(self._snapshot.services)} services are known, others are {mode}"
            _step(trace, "sidecar", named, "in force", known)
        request = self._request(asked, tables, workload)
        decision = decide(tables, request, trace)
        trace_limits(tables.rate_limits, request, decision, trace)
        answer = _Answer(self, tables, view, asked, request, decision, workload, trace).build()
        return {"id": asked.id, **answer} if "id" in query else answer

    def _source(self, asked: Query, trace: Trace) -> Workload:
        """The workload that asks: known, imagined by namespace and labels, or anybody in namespace `default`."""
        if asked.gateway:
            namespace, name = asked.gateway.split("/")
            _step(trace, "source", f"Gateway {asked.gateway}", "gateway", "the request enters by this gateway")
            return Workload(namespace, name)
        if asked.from_workload:
            found = self._snapshot.workloads.get(asked.from_workload)
            if found is None:
                known = sorted(self._snapshot.workloads)
                hint = f"known: {', '.join(known[:20])}" if known else "no workload is known at all"
                raise QueryError(f"from: there is no workload {asked.from_workload}; {hint}")
            source = found.source or "the registry"
            why = f"labels {_pairs(found.labels)}, service account {found.service_account}, from {source}"
            _step(trace, "source", found.key, "workload", why)
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
        known = asked.from_workload or asked.from_namespace or asked.from_labels
        if asked.plaintext or (asked.source_ip and not known):
            ip = asked.source_ip or (workload.addresses[0] if workload.addresses else "")
            return identify(self._snapshot, self._mesh, "", ip), False
        return as_peer(self._snapshot, self._mesh, workload, asked.source_ip), True


class _Reached:
    """One endpoint with what both ends' policies say about it."""

    __slots__ = ("endpoint", "ready", "verdict", "why")

    def __init__(self, endpoint: Endpoint, ready: bool, verdict: Verdict, why: str) -> None:
        self.endpoint = endpoint
        self.ready = ready
        self.verdict = verdict
        self.why = why


class _Answer:
    """Composes one answer from the outbound decision and what lies behind it."""

    def __init__(
        self,
        explainer: Explainer,
        tables: Tables,
        view: View,
        asked: Query,
        request: SimpleRequest,
        decision: Decision,
        workload: Workload,
        trace: Trace,
    ) -> None:
        self._explainer = explainer
        self._tables = tables
        self._view = view
        self._asked = asked
        self._request = request
        self._decision = decision
        self._trace = trace
        self._peer, self._mutual = explainer.peer(asked, workload)
        self._policy_traced = False

    def build(self) -> dict[str, Any]:
        decision = self._decision
        verdict, status, reason = decision.verdict, decision.status or None, decision.reason or None
        policy = Verdict(True, "", "answered by the source's own sidecar: no policy is asked")
        reached: list[_Reached] = []
        if verdict == "route":
            reached = [one for destination in decision.destinations for one in self._reach(destination)]
            verdict, status, reason, policy = self._conclude(reached)
        elif verdict == "passthrough":
            verdict, status, reason, policy = self._passthrough()
        if not self._request.method:
            status = None
        return {
            "verdict": verdict,
            "status": status,
            "reason": reason,
            "virtualService": decision.virtual_service or None,
            "route": _route_name(decision),
            "destinations": self._destinations(),
            "request": self._request_part(),
            "response": {"headers": _operations(self._common("response_headers"))},
            "redirect": {"location": decision.location, "status": decision.status}
            if decision.verdict == "redirect"
            else None,
            "directResponse": {"status": decision.status, "body": decision.body.decode("utf-8", "replace")}
            if decision.verdict == "direct-response"
            else None,
            "timeout_s": decision.timeout_s,
            "retries": _retries(decision),
            "fault": _fault(decision.fault),
            "mirrors": [
                {"host": one.host, "subset": one.subset or None, "port": one.port, "percentage": one.percentage}
                for one in decision.mirrors
            ],
            "endpoints": [
                {"address": one.endpoint.address, "port": one.endpoint.port, "ready": one.ready, "why": one.why}
                for one in reached
            ],
            "policy": {"allowed": policy.allowed, "by": policy.by or None, "why": policy.why},
            "trace": self._trace,
        }

    # --- the destination's side ---------------------------------------------------------------------------------------

    def _reach(self, destination: Destination) -> list[_Reached]:
        """All endpoints of a destination, ready or not, each with the verdict of both sides."""
        name = destination.cluster
        cluster = self._tables.clusters.get(name)
        if cluster is None:
            _step(self._trace, "destination", name, "no-cluster", self._why_no_cluster(destination))
            return []
        self._trace_rule(cluster)
        service = self._view.services.get(cluster.host)
        port = next((one for one in service.ports if one.number == destination.port), None) if service else None
        if service is None or port is None:
            return []
        rule = self._view.rule_for(service)
        wanted = rule.subsets[destination.subset].labels if rule is not None and destination.subset else {}
        mine = [one for one in service_endpoints(self._view, service, port) if labels_hold(wanted, one.labels)]
        if destination.host != cluster.host:  # one endpoint of a headless service, by its own name
            mine = [one for one in mine if member_host(one.hostname, cluster.host) == destination.host]
        reached = [self._judge(one, service, cluster) for one in mine]
        ready = sum(one.ready for one in reached)
        why = f"{len(reached)} endpoints, {ready} ready"
        if cluster.load_balancer.kind == "passthrough":
            why = "the dialled address"
        _step(self._trace, "destination", name, "endpoints", why)
        return reached

    def _why_no_cluster(self, destination: Destination) -> str:
        service = self._view.services.get(destination.host)
        if service is None:
            return f"no service {destination.host} is known to this client"
        ports = [port.number for port in service.ports]
        if destination.port not in ports:
            return f"service {destination.host} has no port {destination.port}; it has {', '.join(map(str, ports))}"
        rule = self._view.rule_for(service)
        if rule is None:
            return f"no DestinationRule defines subset {destination.subset} for this client"
        return f"DestinationRule {rule.key} has no subset {destination.subset}; it has {', '.join(rule.subsets)}"

    def _trace_rule(self, cluster: Cluster) -> None:
        if cluster.rule:
            source = next(
                (one.meta.source for one in self._view.resources.destination_rules if one.meta.key == cluster.rule), ""
            )
            name = f"DestinationRule {cluster.rule}" + (f" ({source})" if source else "")
            why = f"load balancer {cluster.load_balancer.kind}, " + (
                "outlier detection on" if cluster.outlier is not None else "no outlier detection"
            )
            _step(self._trace, "destination-rule", name, "chosen", f"for {cluster.name}: {why}")

    def _judge(self, endpoint: Endpoint, service: Service, cluster: Cluster) -> _Reached:
        ready = usable(endpoint, service)
        trace: Trace | None = self._trace if ready and not self._policy_traced else None
        if trace is not None:
            self._policy_traced = True
            _step(trace, "policy", f"{endpoint.address}:{endpoint.port}", "asked", "the policies at both ends, for it")
        verdict = self._verdict(endpoint, cluster, trace)
        why = endpoint.why or ("terminating" if endpoint.terminating else "not ready")
        if ready:
            why = ("ready" if verdict.allowed else f"ready, but denied: {verdict.why}") + standing(endpoint, cluster)
        return _Reached(endpoint, ready, verdict, why)

    def _verdict(self, endpoint: Endpoint, cluster: Cluster, trace: Trace | None) -> Verdict:
        """Egress of the source, then PeerAuthentication, NetworkPolicy and AuthorizationPolicy of the destination."""
        reached = next((one for one in cluster.endpoints if one.endpoint is endpoint), None)
        egress = reached.egress if reached is not None else None
        if egress is not None and trace is not None:
            result = "allow" if egress.allowed else "deny"
            _step(trace, "network-policy-egress", egress.by or self._view.workload.key, result, egress.why)
        if egress is not None and not egress.allowed:
            return egress
        workload = self._explainer.workload_behind(endpoint)
        if workload is None and self._view.egress is not None and named_only(self._view, endpoint):
            why = f"egress NetworkPolicy is asked about each address that {endpoint.address} turns out to have"
            return Verdict(True, "", why)
        if workload is None:
            why = f"no workload is known behind {endpoint.address}:{endpoint.port}: only the source's egress counts"
            return egress if egress is not None and egress.by else Verdict(True, "", why)
        verdict = self._at_destination(workload, endpoint, cluster, trace)
        return verdict if verdict.by or egress is None or not egress.by else egress

    def _at_destination(
        self, workload: Workload, endpoint: Endpoint, cluster: Cluster | None, trace: Trace | None
    ) -> Verdict:
        """What the destination's own sidecar says; without a cluster the client dialled the address itself."""
        mutual = cluster is not None and self._comes_mutual(endpoint, cluster)
        peer = self._peer
        if not mutual and peer.identity:  # the same client, but all that is seen of it is its address
            peer = Peer(ip=peer.ip, workloads=peer.workloads)
        inbound = self._explainer.inbound(workload)
        verdict = peer_verdict(inbound, peer, endpoint.port, mutual, trace)
        if verdict.allowed and not inbound.authorizer.empty:
            sent = self._as_sent(cluster) if self._request.method else None
            subject = Subject(peer, endpoint.port, sent, "", endpoint.address)
            ask = inbound.authorizer.request if sent is not None else inbound.authorizer.connection
            authorization = ask(subject, trace)
            if trace is not None and not authorization.allowed:
                _step(trace, "authorization", authorization.by, "deny", authorization.why)
            if not authorization.allowed or authorization.by or not verdict.by:
                verdict = authorization
        if trace is not None and verdict.allowed:
            came = self._as_sent(cluster) if self._request.method else None
            trace_inbound(self._view.resources, workload, came, endpoint.port, peer, trace)
        if trace is not None and not workload.mesh_port:
            why = "it has no sidecar that we know of (no mesh port): nothing but the source's side enforces this"
            _step(trace, "enforcement", workload.key, "note", why)
        return verdict

    def _comes_mutual(self, endpoint: Endpoint, cluster: Cluster) -> bool:
        if not self._mutual:
            return False
        service = self._view.services.get(cluster.host)
        chosen = settings(self._view.rule_for(service) if service is not None else None, cluster.port, cluster.subset)
        if chosen.tls is not None:
            return chosen.tls.mode == "ISTIO_MUTUAL"
        return not self._view.refuses_mtls(endpoint)

    def _as_sent(self, cluster: Cluster | None) -> SimpleRequest:
        """The request as the destination sees it: rewritten, with its headers changed."""
        decision, request = self._decision, self._request
        name = cluster.name if cluster is not None else PASSTHROUGH
        destination = next((one for one in decision.destinations if one.cluster == name), None)
        operations = destination.request_headers if destination is not None else None
        headers = list(request.headers)
        if operations is not None:
            gone = {*operations.remove, *(name for name, _ in operations.set)}
            headers = [pair for pair in headers if pair[0] not in gone] + [*operations.set, *operations.add]
        authority = (destination.authority if destination else None) or decision.authority or request.authority
        path = decision.path or request.path
        return SimpleRequest(request.arrival, request.method, authority, path, headers, "http", request.claims)

    # --- the conclusion -----------------------------------------------------------------------------------------------

    def _conclude(self, reached: Sequence[_Reached]) -> tuple[str, int | None, str | None, Verdict]:
        clusters = [self._tables.clusters.get(one.cluster) for one in self._decision.destinations]
        if all(cluster is None for cluster in clusters):
            why = "no destination exists: no policy is asked"
            return "unavailable", reasons.NO_CLUSTER.status, reasons.NO_CLUSTER.code, Verdict(True, "", why)
        if any(cluster is not None and cluster.load_balancer.kind == "passthrough" for cluster in clusters):
            if not reached:
                return "route", None, None, self._dialled_verdict()
        ready = [one for one in reached if one.ready]
        denied = [one for one in ready if not one.verdict.allowed]
        if ready and len(denied) == len(ready):
            verdict = denied[0].verdict
            reason = _refusal(verdict)
            return "denied", reason.status or None, reason.code, verdict
        if not ready:
            why = "no endpoint is ready: no policy is asked"
            policy = reached[0].verdict if reached else Verdict(True, "", why)
            return "unavailable", reasons.NO_HEALTHY.status, reasons.NO_HEALTHY.code, policy
        allowed = next(one.verdict for one in ready if one.verdict.allowed)
        if denied:
            why = f"{len(denied)} of {len(ready)} ready endpoints would refuse: {denied[0].verdict.why}"
            allowed = Verdict(True, allowed.by, why)
        return "route", None, None, allowed

    def _passthrough(self) -> tuple[str, int | None, str | None, Verdict]:
        verdict = self._dialled_verdict()
        if verdict.allowed:
            return "passthrough", None, None, verdict
        reason = _refusal(verdict)
        return "denied", reason.status or None, reason.code, verdict

    def _dialled_verdict(self) -> Verdict:
        """For an address that no service stands for; a name that we do not resolve is no workload's address."""
        destination = self._decision.destinations[0]
        verdict = egress_verdict(self._tables, destination.host, destination.port)
        if verdict is not None:
            result = "allow" if verdict.allowed else "deny"
            _step(self._trace, "network-policy-egress", verdict.by or self._view.workload.key, result, verdict.why)
            if not verdict.allowed:
                return verdict
        there = self._view.snapshot.workloads_at(destination.host)
        if len(there) == 1:
            why = f"{destination.host} is the address of {there[0].key}, dialled past its services, in plain text"
            _step(self._trace, "policy", f"{destination.host}:{destination.port}", "asked", why)
            endpoint = Endpoint(destination.host, destination.port)
            found = self._at_destination(there[0], endpoint, None, self._trace)
            return found if found.by or verdict is None else verdict
        outside = "no egress NetworkPolicy selects the source, and the destination is outside"
        return verdict if verdict is not None else Verdict(True, "", outside)

    # --- parts of the answer ------------------------------------------------------------------------------------------

    def _destinations(self) -> list[dict[str, Any]]:
        several = len(self._decision.destinations) > 1
        found = []
        for one in self._decision.destinations:
            entry: dict[str, Any] = {
                "host": one.host, "subset": one.subset or None, "port": one.port, "weight": one.weight,
            }  # fmt: skip
            if several and (one.request_headers is not None or one.response_headers is not None):
                entry["headers"] = {
                    "request": _operations(one.request_headers), "response": _operations(one.response_headers),
                }  # fmt: skip
            if one.cluster == PASSTHROUGH:
                entry["subset"] = None
            found.append(entry)
        return found

    def _common(self, name: str) -> HeaderOps | None:
        """Header changes that hold whichever destination is drawn: theirs where all agree, else the route's own."""
        own: HeaderOps | None = getattr(self._decision, name)
        each = [getattr(one, name) for one in self._decision.destinations]
        if each and all(_operations(one) == _operations(each[0]) for one in each):
            first: HeaderOps | None = each[0]
            return first
        return own

    def _request_part(self) -> dict[str, Any]:
        decision = self._decision
        return {
            "method": self._request.method or None,
            "authority": decision.authority or self._request.authority,
            "path": (decision.path or self._request.path) if self._request.method else None,
            "headers": _operations(self._common("request_headers")),
        }


def _refusal(verdict: Verdict) -> reasons.Reason:
    """PeerAuthentication closes the connection; other policies answer 403."""
    return reasons.PLAINTEXT if verdict.by.startswith("PeerAuthentication") else reasons.DENIED


def _is_address(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def _step(trace: Trace, step: str, object_: str, result: str, why: str) -> None:
    trace.append({"step": step, "object": object_, "result": result, "why": why})


def _pairs(labels: Mapping[str, str]) -> str:
    return ",".join(f"{key}={value}" for key, value in sorted(labels.items())) or "(none)"


def _route_name(decision: Decision) -> str | int | None:
    if not decision.virtual_service or not decision.route:
        return None
    return int(decision.route) if decision.route.isdigit() else decision.route


def _operations(operations: HeaderOps | None) -> dict[str, Any]:
    if operations is None:
        return {"set": {}, "add": {}, "remove": []}
    added: dict[str, str] = {}
    for name, value in operations.add:
        added[name] = f"{added[name]},{value}" if name in added else value
    return {"set": dict(operations.set), "add": added, "remove": list(operations.remove)}


def _retries(decision: Decision) -> dict[str, Any] | None:
    retries = decision.retries
    if retries is None:
        return None
    return {
        "attempts": retries.attempts,
        "perTryTimeout_s": retries.per_try_timeout_s,
        "retryOn": list(retries.retry_on or sorted(retries.conditions)),
    }


def _fault(fault: Fault | None) -> dict[str, Any] | None:
    if fault is None:
        return None
    abort: dict[str, Any] | None = None
    if fault.abort_status or fault.abort_grpc_status:
        abort = {"percentage": fault.abort_percentage, "status": fault.abort_status or 200}
        if fault.abort_grpc_status:
            abort["grpcStatus"] = fault.abort_grpc_status
    delay = {"percentage": fault.delay_percentage, "fixedDelay_s": fault.delay_s} if fault.delay_s else None
    return {"delay": delay, "abort": abort}
