"""The names we answer for, made from the registry's snapshot, and kept up to date by what changed in it.

Those of ordinary services are made on demand (`demand`); here stand the others, and the names that lie above any.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from ..registry.model import Changed, Endpoint, Service, Workload
from ..registry.snapshot import Snapshot
from .consul import ConsulNames, service_key
from .demand import Made, OnDemand, below
from .message import AAAA, ANY, CNAME, NOERROR, NS, NXDOMAIN, PTR, SOA, SRV, A, RRset, parents, wire_name
from .near import localities, wants_near
from .pods import Pods, space_key
from .records import (
    ENDPOINT_PTR,
    Found,
    Records,
    ZoneOptions,
    merged,
    namespace_records,
    pick,
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


_NO_ENDPOINTS: tuple[Endpoint, ...] = ()
_NO_OVERRIDE: tuple[str, ...] = ()
_NOT_MADE = Made(None, _NO_ENDPOINTS, ())
_NO_SETS: dict[int, RRset] = {}


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
        self._services: dict[str, Made] = {}
        self._demand = OnDemand(options, self._services_tail)
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
        self._near_of: dict[str, tuple[bytes, ...]] = {}
        """The owners there, by host."""
        local = [f"{name}.in-addr.arpa" for name in _LOCAL_ONLY] + [f"{name}.ip6.arpa" for name in _LOCAL_ONLY6]
        private = [f"{name}.in-addr.arpa" for name in _PRIVATE] + [f"{name}.ip6.arpa" for name in _PRIVATE6]
        self._reverse = {wire_name(name): True for name in local}
        self._reverse |= {wire_name(name): not options.forward_private_reverse for name in private}

    def __len__(self) -> int:
        pointing, nodes = self._demand.pointing, self._nodes
        return len(nodes) + self._demand.names + len(pointing) - len(pointing.keys() & nodes.keys())

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
            self._remake(host, Made(service, ends, override), changed)

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

    def _remake(self, host: str, new: Made, changed: set[bytes]) -> None:
        """Put a service's names in, anew, or (nothing made) take them out."""
        known = self._services.get(host, _NOT_MADE)
        self.problems.pop(host, None)
        if known.owner:
            self._demand.drop(known)
        if isinstance(new.source, Service):
            try:
                if self._demand.takes(host):
                    self._demand.put(host, new)
                else:
                    new.records = service_records(new.source, new.endpoints, new.override, self.options)
            except ValueError as error:
                self.problems[host] = str(error)
            self._services[host] = new
        else:
            self._services.pop(host, None)
        for owner in self._near_of.pop(host, ()):
            self.near.pop(owner, None)
        if isinstance(new.source, Service) and not new.override and wants_near(new.source):
            records = self._demand.records(new) if new.owner else new.records
            near = localities(records, new.endpoints)
            self.near.update(near)
            self._near_of[host] = tuple(near)
        changed.add(service_key(host))
        self._replace("s" + host, known.records, new.records, changed)
        if known.owner or new.owner:
            self._swap(host, known, new, changed)

    def _swap(self, host: str, old: Made, new: Made, changed: set[bytes]) -> None:
        """The place of a service that is made on demand: its own name, and those of its addresses."""
        changed.add(new.owner or old.owner)
        come, gone, moved = self._demand.repoint(old, new)
        changed.update(come, gone, moved)
        for name in come:
            if self._demand.point(name, new.owner) and name not in self._nodes:
                self._added(name, self._apex_of(name), changed)
        for name in gone:
            if self._demand.unpoint(name, old.owner) and name not in self._nodes:
                if self._children.get(name):
                    self._nodes[name] = _Node(_NO_SETS, self._apex_of(name), False)
                else:
                    self._removed(name, self._apex_of(name), changed)
        if bool(old.owner) != bool(new.owner):
            self._give("s" + host, new.owner or old.owner, _NO_SETS if new.owner else None, changed)

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
            self._set_node(owner, merged(owner, [sets for _, sets in given]), changed)
            self._nodes[owner].key = None
        elif self._children.get(owner):
            self._set_node(owner, {}, changed)
            self._nodes[owner].key = None
        else:
            self._drop_node(owner, changed)
        if owner.endswith(self._services_tail) and (key_of := self._demand.key_of(owner)):
            changed.add(key_of)

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
        if owner not in self._demand.pointing:
            self._added(owner, apex, changed)

    def _added(self, owner: bytes, apex: bytes, changed: set[bytes]) -> None:
        """The names above a new one exist, too."""
        if apex and owner != apex:
            parent = owner[1 + owner[0] :]
            self._children[parent] = self._children.get(parent, 0) + 1
            if parent not in self._nodes and parent not in self._demand.pointing:
                self._set_node(parent, {}, changed)

    def _drop_node(self, owner: bytes, changed: set[bytes]) -> None:
        changed.add(owner)
        apex = self._nodes.pop(owner).apex
        if self._wildcards.get(owner[2:]) == owner:
            del self._wildcards[owner[2:]]
        if owner not in self._demand.pointing:
            self._removed(owner, apex, changed)

    def _removed(self, owner: bytes, apex: bytes, changed: set[bytes]) -> None:
        """The names above one that is gone exist no more, where nothing else is below them."""
        if not apex or owner == apex:
            return
        parent = owner[1 + owner[0] :]
        left = self._children[parent] - 1
        if left:
            self._children[parent] = left
            return
        del self._children[parent]
        node = self._nodes.get(parent)
        if node is not None and node.key is None and parent not in self._given:
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
        seen: list[bytes] = []
        for _ in range(CHAIN):
            owner, node = self._find(name, qtype)
            seen.append(name)
            depends.append(self._demand.key_of(name) or name)
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
                    return self._nothing(name, recursive, depends)
                return self._end_of_chain(name, answer, depends, recursive)
            if node.external and qtype not in (A, AAAA) and CNAME not in node.sets and recursive:
                return Found(NOERROR, tuple(answer), depends=tuple(depends), pending=name) if answer else None
            rrset = pick(node.sets, qtype, node.external)
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
            if name in seen:
                break
        # A loop of aliases, or a chain without end: what there is, and no claim about the rest.
        return Found(NOERROR, tuple(answer), depends=tuple(depends))

    def _find(self, name: bytes, qtype: int) -> tuple[bytes, _Node | None]:
        """The node for a name, by itself or by the nearest wildcard host above it."""
        node = self._node(name, qtype)
        if node is not None:
            return name, node
        if self._wildcards:
            for above in parents(name):
                owner = self._wildcards.get(above)
                if owner is not None:
                    return owner, self._nodes[owner]
        return name, None

    def _node(self, name: bytes, qtype: int = ANY) -> _Node | None:
        """What there is of a name for this type, with what services have for it."""
        node = self._nodes.get(name)
        given = self._demand.sets(name, qtype)
        if not given:
            return node
        if node is not None and node.sets:
            given = [*(sets for _, sets in self._given.get(name, (("", node.sets),))), *given]
        apex = self._apex_of(name)
        return _Node(given[0] if len(given) == 1 else merged(name, given), apex or name, not apex)

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

    def _nothing(self, name: bytes, recursive: bool, depends: list[bytes]) -> Found | None:
        """NXDOMAIN where the name lies in a zone of ours."""
        apex = self._apex_of(name)
        if not apex or (apex != self.apex and not self._reverse[apex] and recursive):
            return None
        rcode = NOERROR if name == apex else NXDOMAIN
        return Found(rcode, (), (self._soa(apex),), depends=tuple(depends))

    def _end_of_chain(self, name: bytes, answer: list[RRset], depends: list[bytes], recursive: bool) -> Found:
        """The last alias points to a name that we do not have: missing in our zone, or somebody else's."""
        nothing = self._nothing(name, recursive, depends)
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
            depends.append(self._demand.key_of(target) or target)
            node = self._node(target)
            if node is not None:
                glue += [node.sets[rtype] for rtype in (A, AAAA) if rtype in node.sets]
        return tuple(glue)

    def content(self, apex: bytes) -> tuple[RRset, Iterator[RRset]] | None:
        """(SOA, all other records as they are now) of a zone of ours; None where it is none that has any."""
        if apex != self.apex and not (apex in self._reverse and self._children.get(apex)):
            return None
        top = [] if apex == self.apex else [self._own_ns(apex)]
        plain = [
            node.sets if owner not in self._demand.pointing else {}
            for owner, node in self._nodes.items()
            if node.apex == apex and not node.external
        ]
        demand, services = self._demand, self._demand.all() if apex == self.apex else []
        pods = list(self.pods.names()) if apex == self.apex else []
        pointed = [self._node(name) for name in demand.pointing if apex != self.apex and self._apex_of(name) == apex]

        def rest() -> Iterator[RRset]:
            yield from top
            for sets in (*plain, *(node.sets for node in pointed if node is not None), *(sets for _, sets in pods)):
                yield from (rrset for rtype, rrset in sets.items() if rtype != SOA)
            for made in services:  # one at a time
                records = demand.made(made)
                for name in below(made.owner, records):
                    yield from records[name].values()

        return self._soa(apex), rest()

    def _own_ns(self, apex: bytes) -> RRset:
        return RRset(apex, NS, self.options.ttl, (wire_name(f"ns.dns.{self.options.cluster_domain}"),))

    def names(self) -> Iterable[tuple[bytes, Mapping[int, RRset]]]:
        """Every name with its record sets, for people and tests."""
        names = dict.fromkeys((*self._nodes, *self._demand.pointing))
        for made in self._demand.all():
            names |= dict.fromkeys(below(made.owner, self._demand.records(made)))
        for name in names:
            node = self._node(name)
            sets = node.sets if node is not None else {}
            yield name, {PTR if rtype == ENDPOINT_PTR else rtype: rrset for rtype, rrset in sets.items()}
        yield from self.pods.names()
