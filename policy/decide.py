"""The one decision: where a request or connection goes, by tables and nothing else. Pure and total.

How an outbound request finds its rules: by the service that the arrival names (named port, loopback address), else by
the Host header, on the port that was dialled, else the header's port, else 80 (443 for https). On the listener by host
(no port known from the arrival, none in the header) a service without that port, but with exactly one port that speaks
HTTP, is taken at that port; Istio has no such listener. Runs compiled (with decide.pxd) or as it stands.
"""

from __future__ import annotations

from ..registry import reasons
from .authorize_values import Subject
from .compile_clusters import PASSTHROUGH
from .compile_hosts import HttpTable, VirtualHost
from .compile_http import Dropped
from .compile_inbound import Inbound, inbound_decision, split_mesh_sni
from .compile_l4 import L4Host, L4Table
from .dry_run import Note
from .gateways import table_key
from .host_names import split_authority
from .match import Arm, HttpMatch, query_parameter
from .network_policy import Isolation
from .peer import Peer, identify
from .tables import Arrival, Decision, Destination, LoadBalancer, Request, Tables, Verdict
from .trace import Trace
from .trace import note as _note

MEMO_MAX = 4096
ALLOWED = Verdict(True, "", "no policy applies")
_NO_ROUTE_WHY = "no route of VirtualService %s matches"


def decide(tables: Tables, request: Request, trace: Trace | None = None) -> Decision:
    """What is to be done with a request (or, where its method is empty, with a connection). Never raises.

    With `trace`, a step is added for each rule looked at: object, result, and why.
    """
    arrival = request.arrival
    if arrival.listener == "inbound":
        return _decide_inbound(tables.inbound, request, trace)
    gateway = arrival.listener == "gateway"
    if gateway:
        refusal = _gateway_refusal(tables.inbound, request, trace)
        if refusal is not None:
            return refusal
    if not request.method:
        if gateway and tables.gateway.names:
            return _decide_at_gateway(tables, arrival, trace)
        return _decide_connection(tables, arrival, trace)
    http: HttpTable = tables.http
    authority = request.authority
    key: object = (
        (arrival.host, arrival.port or authority)
        if arrival.host
        else ((authority, arrival.port, arrival.server) if arrival.port or request.scheme == "https" else authority)
    )
    memo = http.memo
    known = memo.get(key)
    if known is None:
        host = _find_host(tables, http, request, arrival)
        if len(memo) >= MEMO_MAX:
            memo.clear()
        known = memo[key] = (host.only, host.arms, host)
    if trace is not None:
        return _traced(tables, known[2], request, trace)
    only = known[0]
    if only is not None:
        return only
    arms = known[1]
    target = request.path
    mark = target.find("?")
    if mark >= 0:
        path, query = target[:mark], target[mark + 1 :]
    else:
        path, query = target, ""
    for arm in arms:
        match = arm.match
        if match.holds(request, path, query):
            change = arm.change
            made: Decision = arm.decision if change is None else change(arm.decision, request, match)
            return made
    return _no_route(known[2])


def _no_route(host: VirtualHost) -> Decision:
    name = host.rule.meta.key if host.rule is not None else ""
    return Decision(
        "not-found",
        status=404,
        reason=reasons.NO_ROUTE.code,
        why=_NO_ROUTE_WHY % name,
        virtual_service=name,
    )


# --- outbound HTTP ----------------------------------------------------------------------------------------------------


def _find_host(tables: Tables, http: HttpTable, request: Request, arrival: Arrival) -> VirtualHost:
    """The virtual host of a request; for an unknown host one that passes it through or refuses it."""
    named, named_port = split_authority(request.authority)
    host = arrival.host.lower() if arrival.host else named
    port = arrival.port or named_port or (443 if request.scheme == "https" else 80)
    domains = http.ports.get(table_key(port, arrival.server))
    found = domains.exact.get(host) if domains is not None else None
    if found is not None:
        return found
    if not arrival.port and not named_port and http.names.get(host):
        sole = http.ports.get(http.names[host])
        found = sole.exact.get(host) if sole is not None else None
        if found is not None:
            return found
    if domains is None and http.gateway and http.ports and not tables.gateway.names:
        domains = http.ports.get(443 if request.scheme == "https" else 80)
        found = domains.exact.get(host) if domains is not None else None
        if found is not None:
            return found
    if domains is not None and host not in http.names:
        found = domains.find_wildcard(host)
        if found is not None:
            return found
    return VirtualHost(host, port, (Arm(HttpMatch(None), _unknown(tables, http.gateway, host, port), None, 0, ""),))


def _unknown(tables: Tables, gateway: bool, host: str, port: int) -> Decision:
    """ALLOW_ANY sends an unknown host to the address that was dialled; REGISTRY_ONLY answers 502; a gateway 404."""
    if gateway:
        return Decision(
            "not-found", status=404, reason=reasons.NO_ROUTE.code, why=f"no rule of this gateway has the host {host}"
        )
    if tables.mesh.spec.outbound_traffic_policy.mode == "REGISTRY_ONLY":
        why = f"{host}:{port} is not in the registry, and outboundTrafficPolicy is REGISTRY_ONLY"
        return Decision("not-found", status=502, reason=reasons.NO_ROUTE.code, why=why)
    return Decision(
        "passthrough",
        destinations=(Destination(PASSTHROUGH, host, port),),
        why=f"{host}:{port} is not in the registry, and outboundTrafficPolicy is ALLOW_ANY",
    )


def _traced(tables: Tables, host: VirtualHost, request: Request, trace: Trace) -> Decision:
    """As the untraced loop, saying for each route what held and what did not."""
    for rule, dropped in host.skipped:
        _note_dropped(trace, dropped)
        why = "no route is left for this client and port: the next rule, else the plain service, applies"
        name = f"VirtualService {rule.meta.key}"
        _note(trace, "virtual-service", name, "skipped", why, name)
    if host.rule is None:
        decision = host.arms[0].decision
        if decision.verdict == "route":
            why = f"no VirtualService applies to {host.host}:{host.port}: the plain service"
            _note(trace, "host", f"{host.host}:{host.port}", "service", why)
        else:
            _note(trace, "host", f"{host.host}:{host.port}", decision.verdict, decision.why)
        return decision
    chosen = f"VirtualService {host.rule.meta.key}"
    why = f"it is the rule in force for {host.host}:{host.port}"
    _note(trace, "virtual-service", chosen, "chosen", why, chosen, "spec.hosts")
    _note_dropped(trace, host.dropped)
    path, _, query = request.path.partition("?")
    for arm in host.arms:
        rule_name = f"VirtualService {arm.decision.virtual_service}"
        name, field = f"{rule_name} route {arm.label}", f"spec.http[{arm.index}]"
        if arm.match.number >= 0:
            field += f".match[{arm.match.number}]"
        below, failure = arm.match.failure(request, path, query)
        if failure:
            _note(trace, "route", name, "no match", failure, rule_name, f"{field}.{below}")
            continue
        _note(trace, "route", name, "match", str(arm.match), rule_name, field)
        return arm.decision if arm.change is None else arm.change(arm.decision, request, arm.match)
    decision = _no_route(host)
    _note(trace, "route", chosen, "not-found", decision.why + "; nothing else is tried", chosen, "spec.http")
    return decision


def _note_dropped(trace: Trace, dropped: tuple[Dropped, ...]) -> None:
    for key, label, why, path in dropped:
        rule = f"VirtualService {key}"
        _note(trace, "route", f"{rule} route {label}", "skipped", why, rule, path)


# --- outbound TCP -----------------------------------------------------------------------------------------------------


def service_of(tables: Tables, name: str) -> str:
    """The full host of the service that a client of these tables calls by `name`; empty where none."""
    l4: L4Table = tables.tcp
    lowered = name.lower()
    lowered = lowered[:-1] if lowered.endswith(".") else lowered
    return l4.names.find(lowered) or l4.at(lowered)


def _decide_connection(tables: Tables, arrival: Arrival, trace: Trace | None) -> Decision:
    l4: L4Table = tables.tcp
    host = service_of(tables, arrival.host) if arrival.host else ""
    if not host and arrival.destination_ip:
        host = l4.at(arrival.destination_ip)
    if not host and arrival.sni:
        host = service_of(tables, arrival.sni)
    found = l4.hosts.get((host, arrival.port))
    if found is None:
        name = arrival.host or arrival.sni or arrival.destination_ip
        decision = _unknown(tables, False, name, arrival.port)
        if decision.status:
            decision = Decision("not-found", reason=decision.reason, why=decision.why)
        if trace is not None:
            _note(trace, "host", f"{name}:{arrival.port}", decision.verdict, decision.why)
        return decision
    decision, why = found.decide(arrival.sni, arrival.destination_ip, arrival.source_ip)
    if trace is not None:
        _note(trace, "connection", f"{found.host}:{found.port}", decision.verdict, why)
    return decision


# --- at a gateway ---------------------------------------------------------------------------------------------------


def _gateway_refusal(inbound: Inbound, request: Request, trace: Trace | None) -> Decision | None:
    """What NetworkPolicy and AuthorizationPolicy of the gateway's workload refuse. Its clients have no identity, but
    those of a server of mode ISTIO_MUTUAL; PeerAuthentication is not asked: servers say themselves what TLS they
    take."""
    if inbound.isolation is None and inbound.authorizer.empty and (trace is None or inbound.tokens is None):
        return None
    arrival = request.arrival
    if trace is not None and request.method and inbound.tokens is not None:
        _trace_tokens(inbound, request, trace)
    peer = identify(inbound.snapshot, inbound.resources.mesh.spec, arrival.identity, arrival.source_ip)
    if inbound.isolation is not None:
        verdict = inbound.isolation.verdict(peer, arrival.port, "TCP", trace)
        if not verdict.allowed:
            if trace is not None:
                _note(trace, "network-policy-ingress", verdict.by, "deny", verdict.why)
            return _denied(verdict)
    if not inbound.authorizer.empty:
        verdict = _authorization(inbound, peer, request, trace)
        if not verdict.allowed:
            return _denied(verdict)
    return None


def _decide_at_gateway(tables: Tables, arrival: Arrival, trace: Trace | None) -> Decision:
    """An opaque connection: by the server of its port and server name."""
    port = tables.gateway.ports.get(arrival.port)
    server = port.server(arrival.sni) if port is not None else None
    if server is None or server.l4 is None:
        whom = arrival.sni or "a connection without server name"
        why = f"no server of this gateway takes {whom} on port {arrival.port}"
        decision = Decision("not-found", reason=reasons.NO_ROUTE.code, why=why)
        if trace is not None:
            _note(trace, "gateway", f"port {arrival.port}", decision.verdict, why)
        return decision
    l4: L4Host = server.l4
    decision, why = l4.decide(arrival.sni, arrival.destination_ip, arrival.source_ip)
    if decision.verdict == "not-found":
        why = decision.why
    if trace is not None:
        name = f"Gateway {server.gateway}"
        _note(trace, "gateway", f"{name} {server.name}", decision.verdict, why, name, server.name)
    return decision


# --- inbound ----------------------------------------------------------------------------------------------------------


def admit(tables: Tables, arrival: Arrival, trace: Trace | None = None) -> Verdict:
    """Whether an inbound connection may go on, before any byte of it is read.

    Refused are: what PeerAuthentication does not take (`by` then begins with `PeerAuthentication`: close it), what
    ingress NetworkPolicy does not admit, and what AuthorizationPolicy would refuse whatever is asked. An HTTP
    connection refused by the latter two may be kept: `decide` answers each of its requests with 403 and the policy's
    name. `decide` asks all policies again, so a connection that is let through here is not yet allowed anything.
    """
    inbound: Inbound = tables.inbound
    if arrival.listener == "gateway":
        return _admit_at_gateway(inbound, arrival)
    if arrival.listener != "inbound":
        return ALLOWED
    verdict, peer, _ = _admission(inbound, arrival, trace)
    if not verdict.allowed or inbound.authorizer.empty:
        return verdict
    authorization = inbound.authorizer.unread(_subject(arrival, peer, None))
    return verdict if authorization.allowed else authorization


def _admit_at_gateway(inbound: Inbound, arrival: Arrival) -> Verdict:
    if inbound.isolation is None and inbound.authorizer.empty:
        return ALLOWED
    peer = identify(inbound.snapshot, inbound.resources.mesh.spec, arrival.identity, arrival.source_ip)
    if inbound.isolation is not None:
        verdict = inbound.isolation.verdict(peer, arrival.port)
        if not verdict.allowed:
            return verdict
    return inbound.authorizer.unread(_subject(arrival, peer, None))


def _admission(inbound: Inbound, arrival: Arrival, trace: Trace | None = None) -> tuple[Verdict, Peer, Decision]:
    """PeerAuthentication and NetworkPolicy for a peer on a port; what follows from it when nothing else objects."""
    key = (arrival.identity, arrival.source_ip, arrival.port, arrival.tls)
    memo = inbound.memo
    found = memo.get(key)
    if found is not None and trace is None:
        return found
    peer = identify(inbound.snapshot, inbound.resources.mesh.spec, arrival.identity, arrival.source_ip)
    verdict = peer_verdict(inbound, peer, arrival.port, arrival.tls and bool(arrival.identity), trace)
    if verdict.allowed:
        decision = inbound_decision(arrival.port, inbound.ports.get(arrival.port, ""), verdict, True)
    else:
        decision = _denied(verdict)
    if len(inbound.memo) >= MEMO_MAX:
        inbound.memo.clear()
    made = inbound.memo[key] = (verdict, peer, decision)
    return made


def peer_verdict(inbound: Inbound, peer: Peer, port: int, mutual: bool, trace: Trace | None = None) -> Verdict:
    """PeerAuthentication, then ingress NetworkPolicy, for a known peer on workload port `port`."""
    mode = inbound.mode(port)
    if mode.mode == "STRICT" and not mutual:
        verdict = Verdict(False, mode.by, f"{mode.by} is STRICT, and the peer shows no mesh identity")
    elif mode.mode == "DISABLE" and mutual:
        verdict = Verdict(False, mode.by, f"{mode.by} is DISABLE, and the peer speaks mutual TLS")
    else:
        verdict = ALLOWED
    if trace is not None:
        why = verdict.why if not verdict.allowed else f"mode {mode.mode}, the peer is {'' if mutual else 'not '}mutual"
        _note(trace, "peer-authentication", mode.by or "(default)", "allow" if verdict.allowed else "deny", why)
    if not verdict.allowed:
        return verdict
    if inbound.isolation is None:
        if trace is not None:
            key = inbound.workload.key
            _note(trace, "network-policy-ingress", key, "allow", "no ingress NetworkPolicy selects this workload")
        return ALLOWED
    verdict = inbound.isolation.verdict(peer, port, "TCP", trace)
    if trace is not None and not verdict.allowed:
        _note(trace, "network-policy-ingress", verdict.by, "deny", verdict.why)
    return verdict


def _subject(arrival: Arrival, peer: Peer, request: Request | None) -> Subject:
    return Subject(peer, arrival.port, request, arrival.sni, arrival.destination_ip)


def _authorization(inbound: Inbound, peer: Peer, request: Request, trace: Trace | None) -> Verdict:
    """AuthorizationPolicy for a request, or a connection."""
    http = bool(request.method)
    subject = _subject(request.arrival, peer, request if http else None)
    authorizer = inbound.authorizer
    verdict = authorizer.request(subject, trace) if http else authorizer.connection(subject, trace)
    if trace is not None and not verdict.allowed:
        _note(trace, "authorization", verdict.by, "deny", verdict.why)
    return verdict


def _trace_tokens(inbound: Inbound, request: Request, trace: Trace) -> None:
    """What RequestAuthentication makes of the request; a token itself is checked by the proxy alone."""
    claims = getattr(request, "claims", None)
    why = "these claims are taken for those of a proved token" if claims else "no token: it passes without claims"
    tokens = inbound.tokens
    assert tokens is not None
    _note(trace, "request-authentication", tokens.by, "allow", why, tokens.by.partition(", ")[0])


def notes_of(inbound: Inbound, request: Request, allowed: bool) -> list[Note]:
    """What policies that are only tried out, and audits, note of what came in; `allowed`: nothing refused it."""
    arrival = request.arrival
    peer = identify(inbound.snapshot, inbound.resources.mesh.spec, arrival.identity, arrival.source_ip)
    http = bool(request.method)
    subject = _subject(arrival, peer, request if http else None)
    return list(inbound.shadow.came_in(subject, http, allowed)) if inbound.shadow is not None else []


def _trace_notes(inbound: Inbound, request: Request, allowed: bool, trace: Trace) -> None:
    for found in notes_of(inbound, request, allowed):
        why = "it notes this request" if found.kind == "audit" else "it would refuse this, were it in force"
        _note(trace, "authorization", found.by, found.kind, why)


def _denied(verdict: Verdict) -> Decision:
    reason = reasons.PLAINTEXT if verdict.by.startswith("PeerAuthentication") else reasons.DENIED
    return Decision("denied", status=403, reason=reason.code, why=verdict.why, policy=verdict)


def _decide_inbound(inbound: Inbound, request: Request, trace: Trace | None) -> Decision:
    arrival = request.arrival
    verdict, peer, decision = _admission(inbound, arrival, trace)
    http = bool(request.method)
    if trace is not None and http and verdict.allowed and inbound.tokens is not None:
        _trace_tokens(inbound, request, trace)
    if not verdict.allowed or (inbound.authorizer.empty and http):
        if trace is not None and inbound.shadow is not None:
            _trace_notes(inbound, request, verdict.allowed, trace)
        return decision
    if not inbound.authorizer.empty:
        authorization = _authorization(inbound, peer, request, trace)
        if trace is not None and inbound.shadow is not None:
            _trace_notes(inbound, request, authorization.allowed, trace)
        if not authorization.allowed:
            return _denied(authorization)
        if authorization.by:
            verdict = authorization
    return inbound_decision(arrival.port, inbound.ports.get(arrival.port, ""), verdict, http)


def inbound_port(tables: Tables, sni: str) -> int:
    """The workload's own port that a mesh server name (`outbound_.PORT_.SUBSET_.HOST`) means; 0: none, refuse it."""
    split = split_mesh_sni(sni)
    inbound: Inbound = tables.inbound
    if split is None:
        return 0
    return inbound.services.get(split, 0)


# --- after the decision -----------------------------------------------------------------------------------------------


def pick(decision: Decision, draw: float) -> Destination:
    """The destination of this request; `draw` in [0, 1). Retries keep it. IndexError where there is none."""
    destinations = decision.destinations
    if len(destinations) == 1 or decision.total_weight <= 0:
        return destinations[0]
    left = draw * decision.total_weight
    for destination in destinations:
        left -= destination.weight
        if left < 0:
            return destination
    return destinations[-1]


def hash_input(load_balancer: LoadBalancer, request: Request) -> str | None:
    """What a hashing load balancer hashes; None where the request lacks it: any endpoint, or a new cookie."""
    kind = load_balancer.hash_on
    if kind == "header":
        return request.header(load_balancer.hash_name)
    if kind == "cookie":
        return _cookie(request.header("cookie"), load_balancer.hash_name)
    if kind == "source-ip":
        return request.arrival.source_ip or None
    if kind == "client":
        source = request.arrival.source_ip
        return load_balancer.hash_name if not source or source.startswith("127.") or source == "::1" else source
    if kind == "query":
        return query_parameter(request.path.partition("?")[2], load_balancer.hash_name)
    return None


def _cookie(header: str | None, name: str) -> str | None:
    for part in (header or "").replace(",", ";").split(";"):
        key, equals, value = part.strip().partition("=")
        if equals and key == name:
            return value.strip('"')
    return None


def egress_verdict(tables: Tables, address: str, port: int) -> Verdict | None:
    """Egress NetworkPolicy for a connection to an address that is no endpoint (passthrough). None: none applies."""
    isolation: Isolation | None = tables.egress
    if isolation is None:
        return None
    return isolation.verdict(identify(tables.snapshot, tables.mesh.spec, "", address), port)
