"""What a change of policies would cut that nobody wants cut: the control API, DNS, and the author's own way to control.

The verdicts before and after are those of the sidecars (NetworkPolicy of both sides, AuthorizationPolicy as far as a
connection alone can tell, PeerAuthentication, Sidecar). Only what was open and would not be is told: who had it closed
may keep it so. Control and DNS are the workloads that declare one of their ports; traffic past the sidecars is not
judged, and neither is UDP but for NetworkPolicy.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from msgspec import Struct

from ..registry.model import Workload
from .authorize import Authorizer
from .authorize_values import Subject
from .network_policy import isolation_of
from .peer import Peer, as_peer, identify
from .peer_authentication import peer_mode
from .sidecars import known_services, sidecar_of, with_policy
from .tables import Verdict
from .world import World

PORTS: Mapping[int, str] = {15010: "the control API", 15012: "the control API", 53: "DNS", 15053: "DNS"}
SOURCES_MAX = 2000
"""So many kinds of workloads (those with the same namespace, account, labels and address family) are judged."""
FOUND_MAX = 10
OPEN = Verdict(True)


class Cut(Struct, frozen=True):
    """One way that would be closed."""

    source: str
    what: str
    destination: str
    port: int
    by: str
    why: str

    def __str__(self) -> str:
        why = f" ({self.why})" if self.why and self.why != self.by else ""
        return (
            f"{self.source} would be cut off from {self.what} ({self.destination} port {self.port}) by "
            f"{self.by or 'a policy'}{why}"
        )


def cuts(before: World, after: World, author: str = "") -> list[Cut]:
    """The first of them. `author`: the address that the change comes from; loopback is not judged, as no sidecar
    stands in its way."""
    found: list[Cut] = []
    snapshot = after.snapshot
    targets = [(one, port.number, port.protocol) for one in snapshot.workloads.values() for port in one.ports
               if port.number in PORTS]  # fmt: skip
    if not targets:
        return found
    sides = _Side(before), _Side(after)
    sources = list(_kinds(snapshot.workloads.values()))
    for target, port, protocol in targets:
        for source in sources:
            if source.key == target.key:
                continue
            verdict = _closed(sides, source, target, port, protocol)
            if verdict is not None:
                found.append(Cut(source.key, PORTS[port], target.key, port, verdict.by, verdict.why))
        if author and not author.startswith("127.") and author != "::1" and PORTS[port] == "the control API":
            was, now = (side.from_address(author, target, port, protocol) for side in sides)
            if was.allowed and not now.allowed:
                found.append(Cut(f"you, at {author},", PORTS[port], target.key, port, now.by, now.why))
        if len(found) >= FOUND_MAX:
            break
    return found[:FOUND_MAX]


def _kinds(workloads: Iterable[Workload]) -> Iterator[Workload]:
    """One workload of each kind that policies can tell apart but by address."""
    seen: set[tuple[object, ...]] = set()
    for one in workloads:
        kind = (one.namespace, one.service_account, one.host_network, bool(one.mesh_port), *sorted(one.labels.items()))
        if kind not in seen and len(seen) < SOURCES_MAX:
            seen.add(kind)
            yield one


def _closed(sides: tuple[_Side, _Side], source: Workload, target: Workload, port: int, protocol: str) -> Verdict | None:
    was, now = sides
    after = now.from_workload(source, target, port, protocol)
    return after if not after.allowed and was.from_workload(source, target, port, protocol).allowed else None


class _Side:
    """Verdicts of one world, with what was compiled of its policies for each workload."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._authorizers: dict[str, Authorizer] = {}

    def from_workload(self, source: Workload, target: Workload, port: int, protocol: str) -> Verdict:
        world = self._world
        mesh = world.resources.mesh.spec
        out = isolation_of(world.resources.network_policies, world.snapshot, source, "Egress")
        if out is not None:
            verdict = out.verdict(as_peer(world.snapshot, mesh, target), port, protocol)
            if not verdict.allowed:
                return verdict
        if protocol == "TCP":
            verdict = self._hidden(source, target, port)
            if not verdict.allowed:
                return verdict
        peer = as_peer(world.snapshot, mesh, source)
        return self._into(peer, target, port, protocol, bool(source.mesh_port))

    def from_address(self, address: str, target: Workload, port: int, protocol: str) -> Verdict:
        world = self._world
        peer = identify(world.snapshot, world.resources.mesh.spec, "", address)
        return self._into(peer, target, port, protocol, False)

    def _into(self, peer: Peer, target: Workload, port: int, protocol: str, has_identity: bool) -> Verdict:
        resources, snapshot = self._world.resources, self._world.snapshot
        into = isolation_of(resources.network_policies, snapshot, target, "Ingress")
        if into is not None:
            verdict = into.verdict(peer, port, protocol)
            if not verdict.allowed:
                return verdict
        if protocol != "TCP":
            return OPEN
        if not has_identity:
            root = resources.mesh.spec.root_namespace
            mode = peer_mode(resources.peer_authentications, root, target, port)
            if mode.mode == "STRICT":
                return Verdict(False, mode.by, "mutual TLS is demanded of who has no sidecar")
        authorizer = self._authorizers.get(target.key)
        if authorizer is None:
            authorizer = Authorizer(resources.authorization_policies, target, resources.mesh.spec)
            self._authorizers[target.key] = authorizer
        return OPEN if authorizer.empty else authorizer.unread(Subject(peer, port, None, "", _address(target)))

    def _hidden(self, source: Workload, target: Workload, port: int) -> Verdict:
        """Where a Sidecar hides all services of the target, and what is not known is not let out."""
        world = self._world
        sidecar = sidecar_of(world.resources, source)
        if sidecar is None or not sidecar.spec.egress:
            return OPEN
        if with_policy(world.resources.mesh, sidecar).spec.outbound_traffic_policy.mode != "REGISTRY_ONLY":
            return OPEN
        snapshot = world.snapshot
        services = {
            host: service
            for host, service in snapshot.services.items()
            if any(one.address in target.addresses and one.port == port for one in snapshot.endpoints.get(host, ()))
        }
        domain = world.resources.mesh.spec.cluster_domain
        if not services or known_services(sidecar, services, world.resources.virtual_services, source, domain):
            return OPEN
        return Verdict(False, f"Sidecar {sidecar.meta.key}", "it knows none of its services, with REGISTRY_ONLY")


def _address(workload: Workload) -> str:
    return workload.addresses[0] if workload.addresses else ""
