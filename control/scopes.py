"""Which facts each sidecar is to have: of the services that its Sidecar resource names, else of those in use.

With `egress` in the Sidecar in force, a sidecar gets the services that this lets it know, with their endpoints. Without
one it gets every service (so that names, addresses and routes are all there), and the endpoints

- of the services that it has said to use, or to have been asked for (`uses`);
- of those that its own workload stands behind, which say what comes in where;
- of those whose endpoints are needed before there is a request: headless ones (DNS answers with them, and captured
  connections are told apart by them), those outside of the mesh and those without a TCP port.

Workloads are told where policies look at them: those of its own namespace where a NetworkPolicy stands there, all of
them where one of these has a namespaceSelector or a PeerAuthentication says DISABLE; else its own alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Any

from ..policy.parse import Parsed, parse
from ..policy.resources import NetworkPolicy, Resources, Sidecar
from ..policy.sidecars import known_services, routed_hosts, sidecar_of
from ..policy.validate import resources_of
from ..registry.documents import Document
from ..registry.model import Endpoint, Service, Workload
from ..registry.snapshot import Snapshot
from .push import ALL, NONE, Scope

PARSED = frozenset(
    (
        "sidecars.networking.istio.io",
        "virtualservices.networking.istio.io",
        "networkpolicies.networking.k8s.io",
        "peerauthentications.security.istio.io",
        "meshconfigs.fairlead.dev",
    )
)
AUTO, USED, EVERY = "auto", "used", "all"
MODES = (AUTO, USED, EVERY)
"""What a sidecar may ask for: EVERY is everything, whatever a Sidecar resource says."""
LARGE = 5_000
"""Endpoints of a mesh from which on `auto` is `used`; a sidecar that has all is told otherwise at twice as many."""


class _Known:
    """What a workload knows by one Sidecar."""

    __slots__ = ("hosts", "named", "new", "routed", "rules")

    def __init__(self) -> None:
        self.named: set[str] = set()
        """Hosts that `egress` admits."""
        self.routed: frozenset[str] = NONE
        """Hosts that VirtualServices for those send to."""
        self.rules = -1
        self.new: set[str] | None = None
        """Hosts to be looked at; None: all."""
        self.hosts: frozenset[str] = NONE


class Scopes:
    """Take what changes (`objects`, `facts`); then `of` gives the scope of one sidecar, the same object while nothing
    of it changes. What it needs is indexed when first asked for."""

    def __init__(self) -> None:
        self._parsed: dict[str, Parsed] = {}
        self._resources: Resources | None = Resources()
        self._policies: dict[str, bool | None] = {}
        """By namespace with a NetworkPolicy: whether one of them looks into other namespaces."""
        self._disables = False
        self._rules = 0
        self._snapshot = Snapshot()
        self._counted = (self._snapshot, 0)
        """A snapshot and the number of its endpoints."""
        self._indexed: Snapshot | None = None
        self._always: set[str] = set()
        self._always_now: frozenset[str] | None = None
        self._behind: dict[str, set[str]] = {}
        """Hosts by the workload, or else the address, of their endpoints."""
        self._members: dict[str, set[str]] = {}
        """Workloads by namespace."""
        self._members_now: dict[str, frozenset[str]] = {}
        self._known: dict[tuple[int, str], tuple[Sidecar, _Known]] = {}
        self._last: dict[str, tuple[tuple[Any, ...], Scope]] = {}
        """By reader: what its scope was made of, and the scope."""
        self._unparsed: dict[str, Mapping[str, Any] | None] = {}

    # --- what changes

    def objects(self, changed: Mapping[str, Mapping[str, Any] | None]) -> None:
        """Objects by item key, None for a removed one."""
        for key, body in changed.items():
            if key.split("/", 2)[1] in PARSED:
                self._unparsed[key] = body
                self._resources = None

    def facts(self, snapshot: Snapshot) -> None:
        before, self._snapshot = self._indexed, snapshot
        if before is None:
            return
        told = snapshot.changed if snapshot.version == before.version + 1 else None
        self._index(before, snapshot, told.hosts if told else None, told.workloads if told else None)

    def _read(self) -> Resources:
        if self._resources is None:
            for key, body in self._unparsed.items():
                if body is None:
                    self._parsed.pop(key, None)
                else:
                    self._parsed[key] = parse(Document.of(dict(body), key))
            self._unparsed.clear()
            made = self._resources = resources_of(list(self._parsed.values()))
            self._rules += 1
            self._disables = any(
                (one.spec.mtls is not None and one.spec.mtls.mode == "DISABLE")
                or any(mode.mode == "DISABLE" for mode in one.spec.port_level_mtls.values())
                for one in made.peer_authentications
            )
            self._policies = {}
            for policy in made.network_policies:
                known = self._policies.get(policy.meta.namespace, False)
                self._policies[policy.meta.namespace] = known or _looks_elsewhere(policy)
        return self._resources

    def _index(
        self, before: Snapshot, now: Snapshot, hosts: Iterable[str] | None, workloads: Iterable[str] | None
    ) -> None:
        if hosts is None:
            hosts = dict.fromkeys(chain(before.services, now.services, before.endpoints, now.endpoints))
        for host in hosts:
            old, new = before.services.get(host), now.services.get(host)
            if old is not new:
                for _, known in self._known.values():
                    if known.new is not None:
                        known.new.add(host)
                if (new is not None and _always(new)) != (host in self._always):
                    self._always ^= {host}
                    self._always_now = None
            ends, ended = now.endpoints.get(host, ()), before.endpoints.get(host, ())
            if ends is not ended:
                places = _places(ends)
                for place in _places(ended) - places:
                    left = self._behind[place]
                    left.discard(host)
                    if not left:
                        del self._behind[place]
                for place in places:
                    self._behind.setdefault(place, set()).add(host)
        for key in dict.fromkeys(chain(before.workloads, now.workloads)) if workloads is None else workloads:
            namespace = key.partition("/")[0]
            if (key in now.workloads) != (key in self._members.get(namespace, NONE)):
                self._members.setdefault(namespace, set()).symmetric_difference_update((key,))
                self._members_now.pop(namespace, None)
        self._indexed = now

    # --- who is to have what

    @property
    def name_any(self) -> bool:
        """Whether a Sidecar resource names what somebody is to have, or one may by now."""
        return self._resources is None or bool(self._resources.sidecars)

    def scoped(self, mode: str, has_all: bool = False) -> bool:
        """Whether a sidecar that asks for this mode is to have less than everything; `has_all`: it has that now."""
        if mode != AUTO:
            return mode == USED
        (before, count), now = self._counted, self._snapshot
        if before is not now:
            if now.changed is not None and now.version == before.version + 1:
                for host in now.changed.hosts:
                    count += len(now.endpoints.get(host, ())) - len(before.endpoints.get(host, ()))
            else:
                count = sum(map(len, now.endpoints.values()))
            self._counted = (now, count)
        return self._counted[1] > LARGE * (2 if has_all else 1)

    def of(self, reader: str, workload: Workload, uses: frozenset[str], scoped: bool) -> Scope:
        """The scope of one reader. `scoped`: it is to have endpoints of what it uses alone, where no Sidecar names
        what it knows."""
        resources = self._read()
        sidecar = sidecar_of(resources, workload) if resources.sidecars else None
        named = sidecar is not None and bool(sidecar.spec.egress)
        if not named and not scoped:
            self._last.pop(reader, None)
            return ALL
        if self._indexed is None:
            self._index(Snapshot(), self._snapshot, None, None)
        own = self._own_hosts(workload)
        services: frozenset[str] | None = None
        if named:
            assert sidecar is not None
            services = self._known_hosts(resources, sidecar, workload)
            parts: tuple[Any, ...] = (services, own)
        else:
            if self._always_now is None:
                self._always_now = frozenset(self._always)
            parts = (self._always_now, own, uses)
        workloads = self._workloads(workload)
        made_of = (named, parts, workloads)
        last = self._last.get(reader)
        if last is not None and _same(last[0], made_of):
            return last[1]
        hosts = frozenset().union(*parts)
        scope = Scope(hosts if named else None, hosts, workloads)
        self._last[reader] = (made_of, scope)
        return scope

    def forget(self, reader: str) -> None:
        """It is no longer connected."""
        self._last.pop(reader, None)

    def _own_hosts(self, workload: Workload) -> frozenset[str]:
        found: set[str] = set()
        for place in (workload.key, *workload.addresses):
            found |= self._behind.get(place, NONE)
        return frozenset(found)

    def _known_hosts(self, resources: Resources, sidecar: Sidecar, workload: Workload) -> frozenset[str]:
        key = (id(sidecar), workload.namespace)
        entry = self._known.get(key)
        if entry is None or entry[0] is not sidecar:  # what had this id is no more
            entry = self._known[key] = (sidecar, _Known())
        known = entry[1]
        domain = resources.mesh.spec.cluster_domain
        services = self._snapshot.services
        before = known.named, known.routed
        if known.new is None or known.new:
            looked_at = services if known.new is None else {h: services[h] for h in known.new if h in services}
            admitted = known_services(sidecar, looked_at, (), workload, domain)
            known.named = (known.named - (known.new or set())) | set(admitted)
        if known.rules != self._rules:
            if known.rules >= 0:
                self._forget_known(resources)
            known.routed = frozenset(routed_hosts(sidecar, resources.virtual_services, workload, domain))
            known.rules = self._rules
        if known.new is None or before != (known.named, known.routed):
            known.hosts = frozenset(known.named | known.routed)
        known.new = set()
        return known.hosts

    def _forget_known(self, resources: Resources) -> None:
        there = set(map(id, resources.sidecars))
        self._known = {key: entry for key, entry in self._known.items() if key[0] in there}

    def _workloads(self, workload: Workload) -> frozenset[str] | None:
        elsewhere = self._policies.get(workload.namespace)
        if self._disables or elsewhere:
            return None
        if elsewhere is None:
            return frozenset((workload.key,))
        found = self._members_now.get(workload.namespace)
        if found is None:
            found = self._members_now[workload.namespace] = frozenset(self._members.get(workload.namespace, NONE))
        return found if workload.key in found else found | {workload.key}


def _same(one: tuple[Any, ...], other: tuple[Any, ...]) -> bool:
    """Equal, by identity first where sets are large."""
    return (
        one[0] == other[0]
        and all(a is b or a == b for a, b in zip(one[1], other[1], strict=True))
        and (one[2] is other[2] or one[2] == other[2])
    )


def _always(service: Service) -> bool:
    """Whether its endpoints are needed before there is a request for it."""
    return (
        service.headless
        or service.external
        or bool(service.external_name)
        or "*" in service.host
        or not any(port.protocol == "TCP" for port in service.ports)
    )


def _places(endpoints: Iterable[Endpoint]) -> set[str]:
    return {one.workload or one.address for one in endpoints}


def _looks_elsewhere(policy: NetworkPolicy) -> bool:
    rules = [*(one.from_ for one in policy.spec.ingress or ()), *(one.to for one in policy.spec.egress or ())]
    return any(peer.namespace_selector is not None for peers in rules for peer in peers or ())
