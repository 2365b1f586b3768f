"""The names we answer for, made from the registry's snapshot, and kept up to date by what changed in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from ..registry.model import Changed, Endpoint, Service, Workload
from ..registry.snapshot import Snapshot
from .consul import ConsulNames, service_key
from .message import AAAA, ANY, CNAME, NOERROR, NS, NXDOMAIN, PTR, SOA, SRV, A, RRset, parents, wire_name
from .near import localities, wants_near
from .pods import Pods, space_key
from .records import (
    ENDPOINT_PTR,
    Found,
    Records,
    ZoneOptions,
    namespace_records,
    service_records,
    soa,
    zone_records,
)

CHAIN = 8
"""The most aliases followed for one question."""

# RFC 6303 (and RFC 1918, 6598): address space whose reverse names nobody outside can know.
_LOCAL_ONLY = ("0", "127", "254.169", "255.255.255.255", "2.0.192", "100.51.198", "113.0.203")
_PRIVATE = ("10", "168.192", *(f"{n}.172" for n in range(16, 32)), *(f"{n}.100" for n in range(64, 128)))
_NIL6 = ".".join("0" * 31)
_LOCAL_ONLY6 = (f"0.{_NIL6}", f"1.{_NIL6}", *(f"{n}.e.f" for n in "89ab"), "8.b.d.0.1.0.0.2")
_PRIVATE6 = ("d.f", "c.f")


class _Node:
    """One name: its record sets, and the zone it belongs to."""

    __slots__ = ("apex", "external", "key", "sets")

    def __init__(self, sets: dict[int, RRset], apex: bytes, external: bool) -> None:
        self.sets = sets
        self.key: str | None = None
        """The one object that it comes from; None: several, or there is only something below it."""
        self.apex = apex
        self.external = external
        """A ServiceEntry's host in a zone of somebody else: only its addresses are ours to give."""


class _Made:
    """What was made of one service or workload, to tell whether it has to be made again."""

    __slots__ = ("endpoints", "override", "records", "source")

    def __init__(
        self, source: object, endpoints: tuple[Endpoint, ...], override: tuple[str, ...], records: Records
    ) -> None:
        self.source = source
        self.endpoints = endpoints
        self.override = override
        self.records = records


_NO_ENDPOINTS: tuple[Endpoint, ...] = ()
_NO_OVERRIDE: tuple[str, ...] = ()
_NOT_MADE = _Made(None, _NO_ENDPOINTS, (), {})


class Zone:
    """Names to record sets. `update` takes a snapshot; `lookup` answers from the last one."""

    def __init__(self, options: ZoneOptions) -> None:
        self.options = options
        self.apex = wire_name(options.cluster_domain)
        self._services_tail = wire_name(f"svc.{options.cluster_domain}")
        self.synced = False
        """Whether any snapshot has come; before, nothing is known to be missing."""
        self.version = 0
        self.problems: dict[str, str] = {}
        """Services left out, and why."""
        self._services: dict[str, _Made] = {}
        self.pods = Pods(options, self.has_namespace)
        self._addresses: Mapping[str, tuple[str, ...]] = {}
        self._namespaces: set[str] = set()
        # Contributions to names that have more than one, by the object they come from.
        self._given: dict[bytes, tuple[tuple[str, dict[int, RRset]], ...]] = {}
        self._nodes: dict[bytes, _Node] = {}
        self._children: dict[bytes, int] = {}
        self._wildcards: dict[bytes, bytes] = {}
        self._starts: dict[int, bytes] = {}
        self.consul = ConsulNames(self) if options.consul_domain else None
        self.near: dict[bytes, dict[bytes, str]] = {}
        """Localities by owner and rdata, of services that want their nearest endpoints first."""
        local = [f"{name}.in-addr.arpa" for name in _LOCAL_ONLY] + [f"{name}.ip6.arpa" for name in _LOCAL_ONLY6]
        private = [f"{name}.in-addr.arpa" for name in _PRIVATE] + [f"{name}.ip6.arpa" for name in _PRIVATE6]
        self._reverse = {wire_name(name): True for name in local}
        self._reverse |= {wire_name(name): not options.forward_private_reverse for name in private}

    def __len__(self) -> int:
        return len(self._nodes)

    def update(
        self,
        snapshot: Snapshot,
        addresses: Mapping[str, tuple[str, ...]] | None = None,
        touched: Changed | None = None,
        last: bool = True,
    ) -> set[bytes]:
        """Take over a snapshot; return the names that are now different, to be forgotten by caches.

        `addresses`: by host, what to answer instead of the service's own addresses. `touched`: what may differ from the
        snapshot before; None: not known, and all is looked at. Only objects that are not the same (`is`) as last time
        are made again. `last`: nothing of this version is left; before, the serial is that of the one before it.
        A service that cannot be put in DNS is left out and named in `problems`.
        """
        changed: set[bytes] = set()
        addresses = addresses or {}
        if not self.synced:
            self._replace("", {}, zone_records(self.options, snapshot.version), changed)
        if touched is None or not self.synced or (addresses is not self._addresses and addresses != self._addresses):
            hosts: Iterable[str] = {**self._services, **snapshot.services}
            workloads: Iterable[str] = {**self.pods.workloads, **snapshot.workloads}
        else:
            hosts, workloads = touched.hosts, touched.workloads
        self._addresses = addresses
        self._update_services(hosts, snapshot, addresses, changed)
        if touched is None or not self.synced:
            wanted = {service.namespace for service in snapshot.services.values()} | set(snapshot.namespaces)
            for name in self._namespaces ^ wanted:
                self._update_namespace(name, name in wanted, changed)
        else:
            for name in touched.namespaces:
                self._update_namespace(name, name in snapshot.namespaces, changed)
        for key in workloads:
            old, new = self.pods.workloads.get(key), snapshot.workloads.get(key)
            if old is not new:
                self.pods.place(key, new, changed)
                if self.consul is not None:
                    self.consul.moved(old, new, changed)
        self.synced = True
        self.version = snapshot.version if last else snapshot.version - 1
        self._starts.clear()
        apex = self._nodes[self.apex]
        apex.sets = {**apex.sets, SOA: soa(self.apex, self.options, self.version)}
        changed.add(self.apex)
        return changed

    def _update_services(
        self,
        hosts: Iterable[str],
        snapshot: Snapshot,
        addresses: Mapping[str, tuple[str, ...]],
        changed: set[bytes],
    ) -> None:
        made, services, endpoints = self._services, snapshot.services, snapshot.endpoints
        for host in hosts:
            service = services.get(host)
            known = made.get(host, _NOT_MADE)
            if service is None:
                if known is not _NOT_MADE:
                    self._remake(host, _NOT_MADE, changed)
                continue
            ends = endpoints.get(host, _NO_ENDPOINTS)
            override = addresses.get(host, _NO_OVERRIDE)
            if known.source is service and known.endpoints is ends and known.override == override:
                continue
            self._remake(host, _Made(service, ends, override, {}), changed)

    def _update_namespace(self, name: str, exists: bool, changed: set[bytes]) -> None:
        if (name in self._namespaces) == exists:
            return
        (self._namespaces.add if exists else self._namespaces.discard)(name)
        try:
            records = namespace_records(name, self.options)
        except ValueError as error:
            self.problems[name] = str(error)
            return
        self._replace("n" + name, {} if exists else records, records if exists else {}, changed)
        changed.add(space_key(name))

    def _remake(self, host: str, new: _Made, changed: set[bytes]) -> None:
        """Put a service's names in, anew, or (nothing made) take them out."""
        made = self._services
        known = made.get(host, _NOT_MADE)
        self.problems.pop(host, None)
        if isinstance(new.source, Service):
            try:
                new.records = service_records(new.source, new.endpoints, new.override, self.options)
            except ValueError as error:
                self.problems[host] = str(error)
            made[host] = new
        else:
            made.pop(host, None)
        if self.near and known.records:
            for owner in known.records:
                self.near.pop(owner, None)
        if isinstance(new.source, Service) and not new.override and wants_near(new.source):
            self.near.update(localities(new.records, new.endpoints))
        if self.consul is not None:
            changed.add(service_key(host))
        self._replace("s" + host, known.records, new.records, changed)

    def has_namespace(self, label: bytes) -> bool:
        """Whether a namespace exists, given as the label of its name."""
        return bytes((len(label),)) + label + self._services_tail in self._nodes

    def workloads_at(self, address: str) -> tuple[Workload, ...]:
        """Who has this address."""
        return self.pods.at(address)

    def workload(self, key: str) -> Workload | None:
        """By namespace/name."""
        return self.pods.workloads.get(key)

    def service(self, host: str) -> tuple[Service, tuple[Endpoint, ...], tuple[str, ...]] | None:
        """(service, its endpoints, addresses given instead of its own) by host."""
        made = self._services.get(host, _NOT_MADE)
        return (made.source, made.endpoints, made.override) if isinstance(made.source, Service) else None

    def _replace(self, key: str, old: Records, new: Records, changed: set[bytes]) -> None:
        for owner in old:
            if owner not in new:
                self._give(key, owner, None, changed)
        for owner, sets in new.items():
            if owner not in old or old[owner] != sets:
                self._give(key, owner, sets, changed)

    def _give(self, key: str, owner: bytes, sets: dict[int, RRset] | None, changed: set[bytes]) -> None:
        """Put in, replace or (None) take out one object's contribution to one name."""
        given = self._given.pop(owner, None)
        node = self._nodes.get(owner)
        if given is None:
            given = ((node.key, node.sets),) if node is not None and node.key is not None else ()
        given = tuple(pair for pair in given if pair[0] != key)
        if sets is not None:
            given = (*given, (key, sets))
        if len(given) == 1:
            self._set_node(owner, given[0][1], changed)
            self._nodes[owner].key = given[0][0]
        elif given:
            self._given[owner] = given
            self._set_node(owner, _merged(owner, [sets for _, sets in given]), changed)
            self._nodes[owner].key = None
        elif self._children.get(owner):
            self._set_node(owner, {}, changed)
            self._nodes[owner].key = None
        else:
            self._drop_node(owner, changed)

    def _set_node(self, owner: bytes, sets: dict[int, RRset], changed: set[bytes]) -> None:
        changed.add(owner)
        known = self._nodes.get(owner)
        if known is not None:
            known.sets = sets
            return
        apex = self._apex_of(owner)
        self._nodes[owner] = _Node(sets, apex or owner, not apex)
        if owner[:2] == b"\1*":
            self._wildcards[owner[2:]] = owner
        if apex and owner != apex:
            parent = owner[1 + owner[0] :]
            self._children[parent] = self._children.get(parent, 0) + 1
            if parent not in self._nodes:
                self._set_node(parent, {}, changed)

    def _drop_node(self, owner: bytes, changed: set[bytes]) -> None:
        changed.add(owner)
        apex = self._nodes.pop(owner).apex
        if self._wildcards.get(owner[2:]) == owner:
            del self._wildcards[owner[2:]]
        if owner == apex:
            return
        parent = owner[1 + owner[0] :]
        left = self._children[parent] - 1
        if left:
            self._children[parent] = left
            return
        del self._children[parent]
        if parent not in self._given and self._nodes[parent].key is None:
            self._drop_node(parent, changed)

    def owns(self, name: bytes) -> bool:
        """Whether a name (wire form, lower case) lies in a zone that we answer for."""
        return bool(self._apex_of(name))

    def _apex_of(self, name: bytes) -> bytes:
        """The zone of ours that the name is in; empty where it is in none."""
        if self.consul is not None and self.consul.owns(name):
            return self.consul.apex
        if name.endswith((self.apex, b"\x04arpa\0")):
            for above in (name, *parents(name)):
                if above == self.apex or above in self._reverse:
                    return above
        return b""

    def lookup(self, name: bytes, qtype: int, recursive: bool) -> Found | None:
        """The answer, or None where the question is not ours. `name`: wire form in lower case.

        `recursive`: whether somebody else can be asked for what is not ours.
        """
        answer: list[RRset] = []
        depends: list[bytes] = []
        for _ in range(CHAIN):
            owner, node = self._find(name)
            depends.append(name)
            if owner != name:
                depends.append(owner)
            if node is None:
                made = self._made_up(name, qtype, recursive)
                if made is not None:
                    if not answer:
                        return made
                    depends += made.depends
                    answer += made.answer
                    return Found(
                        made.rcode, tuple(answer), made.authority, made.additional, tuple(depends), made.pending
                    )
                if not answer:
                    return self._nothing(name, recursive)
                return self._end_of_chain(name, answer, depends, recursive)
            if node.external and qtype not in (A, AAAA) and CNAME not in node.sets and recursive:
                return Found(NOERROR, tuple(answer), depends=tuple(depends), pending=name) if answer else None
            rrset = _pick(node.sets, qtype, node.external)
            if rrset is not None:
                if owner != name:
                    rrset = RRset(name, rrset.rtype, rrset.ttl, rrset.rdata)
                glue = self._glue(rrset, depends) if rrset.rtype == SRV else ()
                return Found(NOERROR, (*answer, rrset), (), glue, tuple(depends))
            alias = node.sets.get(CNAME)
            if alias is None or qtype == ANY:
                apex = name if node.external else node.apex
                return Found(NOERROR, tuple(answer), (self._soa(apex),), depends=tuple(depends))
            answer.append(alias if owner == name else RRset(name, CNAME, alias.ttl, alias.rdata))
            name = alias.rdata[0].lower()
            if name in depends:
                break
        # A loop of aliases, or a chain without end: what there is, and no claim about the rest.
        return Found(NOERROR, tuple(answer), depends=tuple(depends))

    def _find(self, name: bytes) -> tuple[bytes, _Node | None]:
        """The node for a name, by itself or by the nearest wildcard host above it."""
        node = self._nodes.get(name)
        if node is not None:
            return name, node
        if self._wildcards:
            for above in parents(name):
                owner = self._wildcards.get(above)
                if owner is not None:
                    return owner, self._nodes[owner]
        return name, None

    def _made_up(self, name: bytes, qtype: int, recursive: bool) -> Found | None:
        """Names that are made when asked for: Consul's, and pods' where any address will do."""
        if self.consul is not None and self.consul.owns(name):
            return self.consul.lookup(name, qtype, recursive)
        if self.options.pods != "disabled" and name.endswith(self.pods.apex):
            found = self.pods.lookup(name, qtype)
            if found is not None and not found.answer:
                found = Found(found.rcode, (), (self._soa(self.apex),), depends=found.depends)
            return found
        return None

    def _nothing(self, name: bytes, recursive: bool) -> Found | None:
        """NXDOMAIN where the name lies in a zone of ours."""
        apex = self._apex_of(name)
        if not apex or (apex != self.apex and not self._reverse[apex] and recursive):
            return None
        rcode = NOERROR if name == apex else NXDOMAIN
        return Found(rcode, (), (self._soa(apex),), depends=(name,))

    def _end_of_chain(self, name: bytes, answer: list[RRset], depends: list[bytes], recursive: bool) -> Found:
        """The last alias points to a name that we do not have: missing in our zone, or somebody else's."""
        nothing = self._nothing(name, recursive)
        if nothing is not None:  # RFC 6604: the RCODE is that of the last name
            return Found(nothing.rcode, tuple(answer), nothing.authority, depends=tuple(depends))
        return Found(NOERROR, tuple(answer), depends=tuple(depends), pending=name)

    def _soa(self, apex: bytes) -> RRset:
        if apex == self.apex and apex in self._nodes:
            return self._nodes[apex].sets[SOA]
        return soa(apex, self.options, self.version)

    def start_behind(self, question: bytes) -> bytes:
        """Our zone's SOA record as octets for behind a question in the zone, whose name's end it points to."""
        offset = 12 + len(question) - 4 - len(self.apex)
        known = self._starts.get(offset)
        if known is None:
            apex = (0xC000 | offset).to_bytes(2, "big")
            start = self._soa(self.apex)
            rdata = start.rdata[0][:-20].replace(self.apex, apex) + start.rdata[0][-20:]
            fixed = b"\0\6\0\1" + start.ttl.to_bytes(4, "big") + len(rdata).to_bytes(2, "big")
            known = self._starts[offset] = apex + fixed + rdata
        return known

    def is_plain_denial(self, found: Found) -> bool:
        """Whether an answer is nothing but our zone's SOA."""
        return (
            not found.answer and not found.pending and bool(found.authority) and found.authority[0].owner == self.apex
        )

    def _glue(self, srv: RRset, depends: list[bytes]) -> tuple[RRset, ...]:
        glue = []
        for target in dict.fromkeys(data[6:] for data in srv.rdata):
            depends.append(target)
            node = self._nodes.get(target)
            if node is not None:
                glue += [node.sets[rtype] for rtype in (A, AAAA) if rtype in node.sets]
        return tuple(glue)

    def content(self, apex: bytes) -> list[RRset]:
        """All records of a zone of ours, its SOA first; empty where it is none that has any."""
        if apex != self.apex and not (apex in self._reverse and self._children.get(apex)):
            return []
        found = [self._soa(apex)]
        if apex != self.apex:
            found.append(RRset(apex, NS, self.options.ttl, (wire_name(f"ns.dns.{self.options.cluster_domain}"),)))
        for node in self._nodes.values():
            if node.apex == apex and not node.external:
                found += [rrset for rtype, rrset in node.sets.items() if rtype != SOA]
        if apex == self.apex:
            found += [rrset for _, sets in self.pods.names() for rrset in sets.values()]
        return found

    def names(self) -> Iterable[tuple[bytes, Mapping[int, RRset]]]:
        """Every name with its record sets, for people and tests."""
        for name, node in self._nodes.items():
            yield name, {PTR if rtype == ENDPOINT_PTR else rtype: rrset for rtype, rrset in node.sets.items()}
        yield from self.pods.names()


def _pick(sets: dict[int, RRset], qtype: int, external: bool) -> RRset | None:
    if qtype != ANY:
        if external and qtype not in (A, AAAA, CNAME):
            return None
        if qtype == PTR:
            return sets.get(PTR) or sets.get(ENDPOINT_PTR)
        return sets.get(qtype) if qtype != ENDPOINT_PTR else None
    for rtype in (A, AAAA, CNAME, *sets):  # RFC 8482: one record set is answer enough
        if rtype in sets:
            return sets[rtype]
    return None


def _merged(owner: bytes, given: list[dict[int, RRset]]) -> dict[int, RRset]:
    """The union of all contributions, each record once, with the lowest TTL."""
    merged: dict[int, RRset] = {}
    for sets in given:
        for rtype, rrset in sets.items():
            known = merged.get(rtype)
            rdata = rrset.rdata if known is None else tuple(dict.fromkeys((*known.rdata, *rrset.rdata)))
            merged[rtype] = RRset(owner, rrset.rtype, min(rrset.ttl, known.ttl) if known else rrset.ttl, rdata)
    by_endpoint = merged.pop(ENDPOINT_PTR, None)
    if by_endpoint is not None and PTR not in merged:
        merged[PTR] = by_endpoint
    return merged
