"""Who may reach whom: every ordered pair of workloads, every port that the destination declares.

NetworkPolicy of both sides decides, and AuthorizationPolicy as far as a connection alone can tell: a pair is refused
only where no request at all would be allowed, so `allowed` may still mean that some requests get 403. Every client is
taken to show its mesh identity, so PeerAuthentication has no say.
"""

from __future__ import annotations

from typing import Any

from .authorize import Authorizer
from .authorize_values import Subject
from .explain import World
from .network_policy import Isolation, isolation_of
from .peer import Peer, as_peer
from .tables import Verdict


def matrix(world: World, namespace: str = "") -> list[dict[str, Any]]:
    """The contract's rows, in order of source, destination and port. `by`: what allowed or refused; None: nothing.

    `namespace`: only pairs in which a workload of it takes part.
    """
    snapshot, resources = world.snapshot, world.resources
    mesh = resources.mesh.spec
    workloads = [snapshot.workloads[key] for key in sorted(snapshot.workloads)]
    peers = [as_peer(snapshot, mesh, workload) for workload in workloads]
    policies = resources.network_policies
    egress = [isolation_of(policies, snapshot, workload, "Egress") for workload in workloads]
    ingress = [isolation_of(policies, snapshot, workload, "Ingress") for workload in workloads]
    authorizers = [Authorizer(resources.authorization_policies, workload, mesh) for workload in workloads]
    rows = []
    for source, source_peer, out in zip(workloads, peers, egress, strict=True):
        for destination, peer, into, authorizer in zip(workloads, peers, ingress, authorizers, strict=True):
            if source is destination or (namespace and namespace not in (source.namespace, destination.namespace)):
                continue
            for port in destination.ports:
                verdict = _verdict(source_peer, peer, out, into, authorizer, port.number, port.protocol)
                rows.append({
                    "source": source.key, "destination": destination.key, "port": port.number,
                    "protocol": port.protocol, "allowed": verdict.allowed, "by": verdict.by or None,
                })  # fmt: skip
    return rows


def _verdict(
    source: Peer,
    destination: Peer,
    egress: Isolation | None,
    ingress: Isolation | None,
    authorizer: Authorizer,
    port: int,
    protocol: str,
) -> Verdict:
    last = Verdict(True)
    for isolation, peer in ((egress, destination), (ingress, source)):
        if isolation is not None:
            verdict = isolation.verdict(peer, port, protocol)
            if not verdict.allowed:
                return verdict
            last = verdict if verdict.by else last
    if protocol == "TCP" and not authorizer.empty:
        verdict = authorizer.unread(Subject(source, port, None, "", destination.ip))
        if not verdict.allowed:
            return verdict
        last = verdict if verdict.by and not last.by else last
    return last
