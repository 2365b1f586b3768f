"""Local rate limits in `explain`: which of them count a request. Whether there is a token, only the proxy knows."""

from __future__ import annotations

from ..registry.model import Workload
from .peer import Peer
from .rate_limits import Limit, RateLimits, rate_limits
from .resources import Resources
from .tables import Arrival, Decision, Request, SimpleRequest
from .trace import Trace, note


def trace_limits(limits: RateLimits | None, request: Request, decision: Decision, trace: Trace) -> None:
    """A step for each limit of the listener that a request (or, without a method, a connection) comes by."""
    if limits is None or decision.verdict == "denied":
        return
    arrival = request.arrival
    for limit in limits.connections.get(arrival.listener, ()):
        why = f"it is for port {limit.port}" if limit.port and limit.port != arrival.port else ""
        _step(trace, limit, why, f"{limit}; what is over it is closed at once")
    for limit in limits.requests.get(arrival.listener, ()) if request.method else ():
        _step(trace, limit, limit.failure(request, decision), str(limit))


def trace_inbound(
    resources: Resources, workload: Workload, sent: SimpleRequest | None, port: int, peer: Peer, trace: Trace
) -> None:
    """The same at the destination's sidecar, for a request as it comes there; None: an opaque connection."""
    limits = rate_limits(resources, workload, False)
    if limits is None:
        return
    arrival = Arrival("inbound", source_ip=peer.ip, port=port, identity=peer.identity, tls=bool(peer.identity))
    if sent is None:
        request = SimpleRequest(arrival)
    else:
        request = SimpleRequest(arrival, sent.method, sent.authority, sent.path, sent.headers, sent.scheme)
    trace_limits(limits, request, Decision("route"), trace)


def _step(trace: Trace, limit: Limit, failure: str, why: str) -> None:
    resource = f"LocalRateLimit {limit.key}"
    if not failure and limit.enforced_percentage == 0:
        why += "; it is not enforced, only counted"
    elif not failure and limit.enforced_percentage < 100:
        why += f"; of what is over it {limit.enforced_percentage:g}% is refused"
    result = "no match" if failure else "counts"
    note(trace, "rate-limit", f"{resource} limit {limit.name}", result, failure or why, resource, "spec.limits")
