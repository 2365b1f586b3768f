"""One answer of `explain`: the outbound decision, with what lies behind it at the destination."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..registry import reasons
from ..registry.merge import usable
from ..registry.model import Endpoint, Workload
from .authorize_values import Subject
from .compile_clusters import PASSTHROUGH, member_host, named_only, peer_behind, service_endpoints
from .compile_view import View
from .decide import egress_verdict, peer_verdict
from .destination_rules import settings
from .explain_limits import trace_inbound
from .explain_query import Query
from .explain_rules import describe_cluster, other_destination_rules, rule_resource, subset_place
from .locality import standing
from .peer import Peer
from .tables import Cluster, ClusterEndpoint, Decision, Destination, Fault, HeaderOps, SimpleRequest, Tables, Verdict
from .trace import Trace
from .trace import note as _step
from .visibility import labels_hold

if TYPE_CHECKING:
    from .explain import Explainer


JUDGED_MAX = 4
"""Different verdicts of policy that one explanation shows in full."""


class Reached:
    """One endpoint with what both ends' policies say about it."""

    __slots__ = ("chosen", "endpoint", "ready", "verdict", "why")

    def __init__(
        self, endpoint: Endpoint, ready: bool, verdict: Verdict, why: str, chosen: ClusterEndpoint | None
    ) -> None:
        self.chosen = chosen
        """As the load balancer has it; None: it is not among those it may choose."""
        self.endpoint = endpoint
        self.ready = ready
        self.verdict = verdict
        self.why = why


class Answer:
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
        self._judged: set[tuple[bool, str]] = set()
        self._rules_traced: set[str] = set()

    def build(self) -> dict[str, Any]:
        decision = self._decision
        verdict, status, reason = decision.verdict, decision.status or None, decision.reason or None
        by = "gateway itself" if self._asked.gateway else "source's own sidecar"
        policy = decision.policy or Verdict(True, "", f"answered by the {by}: no policy is asked")
        reached: list[Reached] = []
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
            "endpoints": [self._endpoint(one) for one in reached],
            "policy": {"allowed": policy.allowed, "by": policy.by or None, "why": policy.why},
            "trace": self._trace,
        }

    # --- the destination's side ---------------------------------------------------------------------------------------

    def _reach(self, destination: Destination) -> list[Reached]:
        """All endpoints of a destination, ready or not, each with the verdict of both sides."""
        name = destination.cluster
        cluster = self._tables.clusters.get(name)
        if cluster is None:
            why, resource, field = self._why_no_cluster(destination)
            _step(self._trace, "destination", name, "no-cluster", why, resource, field)
            return []
        self._trace_rule(cluster)
        service = self._view.services.get(cluster.host)
        port = next((one for one in service.ports if one.number == destination.port), None) if service else None
        if service is None or port is None:
            return []
        rule = self._view.rule_for(service)
        wanted = rule.subsets[destination.subset].labels if rule is not None and destination.subset else {}
        of_port = service_endpoints(self._view, service, port)
        used = {id(one) for one in usable(service, of_port)}
        mine = [one for one in of_port if labels_hold(wanted, one.labels)]
        if destination.host != cluster.host:  # one endpoint of a headless service, by its own name
            mine = [one for one in mine if member_host(one.hostname, cluster.host) == destination.host]
        ready = sum(id(one) in used for one in mine)
        why = f"{len(mine)} {'endpoint' if len(mine) == 1 else 'endpoints'}, {ready} ready"
        if wanted:
            labels = ", ".join(f"{key}={value}" for key, value in wanted.items())
            why += f", of the {len(of_port)} of the service, with {labels}"
        if cluster.load_balancer.kind == "passthrough":
            why = "the dialled address"
        resource, field = self._explainer.service_resource(cluster.host), "spec.ports"
        if rule is not None and destination.subset:
            resource, field = subset_place(self._view, rule, destination.subset)
        elif service.selector:
            field = "spec.selector"
        _step(self._trace, "destination", name, "endpoints", why, resource, field)
        return [self._judge(one, id(one) in used, cluster) for one in mine]

    def _why_no_cluster(self, destination: Destination) -> tuple[str, str, str]:
        """(why, resource, field that is to be changed)"""
        service = self._view.services.get(destination.host)
        if service is None:
            return f"no service {destination.host} is known to this client", "", ""
        ports = [port.number for port in service.ports]
        if destination.port not in ports:
            why = f"service {destination.host} has no port {destination.port}; it has {', '.join(map(str, ports))}"
            return why, self._explainer.service_resource(destination.host), "spec.ports"
        rule = self._view.rule_for(service)
        if rule is None:
            return f"no DestinationRule defines subset {destination.subset} for this client", "", ""
        why = (
            f"DestinationRule {rule.key} has no subset {destination.subset}; it has {', '.join(rule.subsets) or 'none'}"
        )
        return why, rule_resource(rule.key), "spec.subsets"

    def _trace_rule(self, cluster: Cluster) -> None:
        service = self._view.services.get(cluster.host)
        rule = self._view.rule_for(service) if service is not None else None
        if cluster.host not in self._rules_traced and service is not None:
            self._rules_traced.add(cluster.host)
            other_destination_rules(self._view, cluster.host, service.namespace, rule, self._trace)
        name = rule_resource(cluster.rule) if cluster.rule else cluster.host
        why = f"for {cluster.name}: {describe_cluster(cluster)}"
        result = "chosen" if cluster.rule else "default"
        field = "spec.trafficPolicy" if rule is not None and rule.policy is not None else "spec.host"
        _step(self._trace, "destination-rule", name, result, why, rule_resource(cluster.rule) if cluster.rule else "",
              field)  # fmt: skip

    def _judge(self, endpoint: Endpoint, ready: bool, cluster: Cluster) -> Reached:
        """The verdict of both ends on one endpoint; traced for the first and for each judged otherwise."""
        verdict = self._verdict(endpoint, cluster, None)
        kind = (verdict.allowed, verdict.by)
        if ready and kind not in self._judged and len(self._judged) < JUDGED_MAX:
            self._judged.add(kind)
            behind = self._explainer.workload_behind(endpoint)
            whom = f" ({behind.key})" if behind is not None else ""
            why = "the policies at both ends, for it" + (
                "" if len(self._judged) == 1 else ", as they judge it otherwise"
            )
            resource = self._explainer.places.workload(behind.key) if behind is not None else ""
            _step(self._trace, "policy", f"{endpoint.address}:{endpoint.port}{whom}", "asked", why, resource)
            self._verdict(endpoint, cluster, self._trace)
        if ready:
            word = "ending, but no endpoint is ready" if endpoint.terminating and not endpoint.ready else "ready"
            why = (word if verdict.allowed else f"{word}, but denied: {verdict.why}") + standing(endpoint, cluster)
        else:
            why = endpoint.why or ("terminating" if endpoint.terminating else "not ready")
        chosen = next((one for one in cluster.endpoints if one.endpoint is endpoint), None)
        return Reached(endpoint, ready, verdict, why, chosen)

    def _verdict(self, endpoint: Endpoint, cluster: Cluster, trace: Trace | None) -> Verdict:
        """Egress of the source, then PeerAuthentication, NetworkPolicy and AuthorizationPolicy of the destination."""
        reached = next((one for one in cluster.endpoints if one.endpoint is endpoint), None)
        egress = reached.egress if reached is not None else None
        if egress is not None and trace is not None and self._view.egress is not None:
            self._view.egress.verdict(peer_behind(self._view, endpoint), endpoint.port, "TCP", trace)
            if not egress.allowed:
                _step(trace, "network-policy-egress", egress.by, "deny", egress.why)
        if egress is not None and not egress.allowed:
            return egress
        workload = self._explainer.workload_behind(endpoint)
        if workload is None and self._view.egress is not None and named_only(self._view, endpoint):
            why = f"egress NetworkPolicy is asked about each address that {endpoint.address} turns out to have"
            return Verdict(True, "", why)
        if workload is None:
            why = f"no workload is known behind {endpoint.address}:{endpoint.port}: only the source's egress counts"
            if trace is not None:
                told = "no workload is known behind it: no policy of the destination's own side is"
                _step(trace, "policy", f"{endpoint.address}:{endpoint.port}", "note", told)
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

    def _conclude(self, reached: Sequence[Reached]) -> tuple[str, int | None, str | None, Verdict]:
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

    def _endpoint(self, reached: Reached) -> dict[str, Any]:
        endpoint, chosen = reached.endpoint, reached.chosen
        entry: dict[str, Any] = {
            "address": endpoint.address, "port": endpoint.port, "ready": reached.ready, "why": reached.why,
        }  # fmt: skip
        behind = self._explainer.workload_behind(endpoint)
        entry["workload"] = behind.key if behind is not None else None
        entry["locality"] = endpoint.locality or None
        entry["weight"] = chosen.weight if chosen is not None else endpoint.weight
        entry["priority"] = chosen.priority if chosen is not None else None
        tls = chosen.tls if chosen is not None else None
        entry["tls"] = tls.mode if tls is not None else None
        entry["source"] = endpoint.source or None
        resource = self._explainer.places.workload(behind.key) if behind is not None else ""
        if resource:
            entry |= {"resource": resource, **self._explainer.places.at(resource)}
        return entry

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
