"""Why one workload may, or may not, reach a port of another: each policy that was asked, rule by rule.

As `matrix`, for a pair; and the source may be an address, which then comes in plaintext.
"""

from __future__ import annotations

from typing import Any

from ..registry.model import Workload
from ..registry.snapshot import Snapshot
from .authorize import Authorizer
from .authorize_values import Subject
from .compile_inbound import Inbound
from .decide import peer_verdict
from .dry_run import shadow_of
from .explain import World
from .network_policy import isolation_of, parse_address
from .peer import Peer, as_peer, identify
from .tables import Verdict
from .trace import Trace, note


class PairError(ValueError):
    """A name or an address that is none of this world; the message says what there is."""


def explain_pair(
    world: World, source: str, destination: str, port: int = 0, plaintext: bool = False
) -> list[dict[str, Any]]:
    """One answer for each declared port of `destination` (NS/NAME), or for `port`. `source`: NS/NAME or an address.
    Raises PairError."""
    snapshot = world.snapshot
    target = _workload(snapshot, destination)
    ports = [(port, "TCP")] if port else [(one.number, one.protocol) for one in target.ports]
    if not ports:
        raise PairError(f"{destination} declares no port; give one: {destination}:PORT")
    return [_answer(world, source, target, number, protocol, plaintext) for number, protocol in ports]


def _answer(world: World, source: str, target: Workload, port: int, protocol: str, plaintext: bool) -> dict[str, Any]:
    trace: Trace = []
    verdict = _verdict(world, source, target, port, protocol, plaintext, trace)
    return {
        "source": source, "destination": target.key, "port": port, "protocol": protocol, "allowed": verdict.allowed,
        "by": verdict.by or None, "why": verdict.why or "no policy applies", "trace": trace,
    }  # fmt: skip


def _verdict(
    world: World, source: str, target: Workload, port: int, protocol: str, plaintext: bool, trace: Trace
) -> Verdict:
    snapshot, resources = world.snapshot, world.resources
    mesh = resources.mesh.spec
    last = Verdict(True)
    if parse_address(source) is not None:
        peer = identify(snapshot, mesh, "", source)
        plaintext = True
    else:
        client = _workload(snapshot, source)
        address = client.addresses[0] if client.addresses else ""
        peer = identify(snapshot, mesh, "", address) if plaintext else as_peer(snapshot, mesh, client)
        egress = isolation_of(resources.network_policies, snapshot, client, "Egress")
        if egress is None:
            note(trace, "network-policy-egress", client.key, "allow", "no egress NetworkPolicy selects this workload")
        else:
            last = egress.verdict(as_peer(snapshot, mesh, target), port, protocol, trace)
            if not last.allowed:
                note(trace, "network-policy-egress", last.by, "deny", last.why)
                return last
    inbound = Inbound(resources, snapshot, target)
    if protocol != "TCP":
        isolation = inbound.isolation
        return isolation.verdict(peer, port, protocol, trace) if isolation is not None else last
    verdict = peer_verdict(inbound, peer, port, not plaintext, trace)
    if not verdict.allowed:
        return verdict
    last = verdict if verdict.by else last
    authorization = _authorization(inbound.authorizer, peer, target, port, trace)
    _tried_out(world, peer, target, port, authorization.allowed, trace)
    return authorization if not authorization.allowed or (authorization.by and not last.by) else last


def _authorization(authorizer: Authorizer, peer: Peer, target: Workload, port: int, trace: Trace) -> Verdict:
    if authorizer.empty:
        note(trace, "authorization", target.key, "allow", "no AuthorizationPolicy selects this workload")
        return Verdict(True)
    subject = Subject(peer, port, None, "", target.addresses[0] if target.addresses else "")
    for action, rule in authorizer.rules():
        failure, path = rule.told(subject, False)
        result, why = ("no match", failure) if failure else (action, "every condition holds")
        if not failure and rule.needs_request:
            result, why = "depends", "as far as a connection shows; it asks about requests, too (fairlead explain)"
        note(trace, "authorization", rule.name, result, why, rule.name.partition(" rule ")[0], path)
    verdict = authorizer.unread(subject)
    if not verdict.allowed:
        note(trace, "authorization", verdict.by, "deny", verdict.why)
    return verdict


def _tried_out(world: World, peer: Peer, target: Workload, port: int, allowed: bool, trace: Trace) -> None:
    shadow = shadow_of(world.resources, world.snapshot, target)
    for found in shadow.came_in(Subject(peer, port), False, allowed) if shadow is not None else ():
        if found.kind == "dry-run":
            note(trace, "authorization", found.by, "dry-run", "it would refuse a connection, were it in force")


def _workload(snapshot: Snapshot, key: str) -> Workload:
    found = snapshot.workloads.get(key)
    if found is None:
        known = ", ".join(sorted(snapshot.workloads)[:20]) or "none"
        raise PairError(f"there is no workload {key!r}; known are {known}")
    return found
