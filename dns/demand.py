"""Names of services, made when they are asked for: all their records would take 1.5 KB an endpoint.

Kept of a service is what it is made from; its records are made by the first question, and kept while there is room. So
a change costs a look at what its addresses point to, and no records. Only reverse names stand in a table, since nothing
else leads from an address to its service. Ordinary services alone are here: those with two labels before `svc` and the
cluster's domain. Who answers with names at or below a service depends on `service_key` of it, not on each name.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from ..registry.merge import usable
from ..registry.model import Endpoint, Service
from .consul import service_key
from .message import AAAA, ANY, A, RRset, wire_name
from .records import (
    Records,
    ZoneOptions,
    address_record,
    addresses_of,
    endpoint_label,
    reverse_name,
    service_records,
    service_ttl,
)

KEPT_NAMES = 10_000
"""Names whose records are kept made, about 400 octets each; at least those of one service."""
_CERTAIN_OCTETS = 160
"""A host up to this long leaves room for every label below it that is made of an address or a usual port's name."""
_NOTHING: Records = {}


class Made:
    """What a service's names are made from, and what was made of it where that stays."""

    __slots__ = ("certain", "endpoints", "names", "override", "owner", "pointed", "records", "source")

    def __init__(self, source: object, endpoints: tuple[Endpoint, ...], override: tuple[str, ...]) -> None:
        self.source = source
        """The Service; anything else: there is none."""
        self.endpoints = endpoints
        self.override = override
        self.owner = b""
        """Its name in wire form where its records are made on demand; empty: they stand in `records`, or there are
        none."""
        self.records = _NOTHING
        self.names = 0
        """How many there are below its own."""
        self.certain = False
        """Seen without making them: all endpoints have addresses."""
        self.pointed: dict[bytes, str] | None = None
        """Of its `Outline`, until `repoint`."""


class Outline:
    """What can be said of a service's names without making them."""

    __slots__ = ("certain", "names", "pointed")

    def __init__(self) -> None:
        self.pointed: dict[bytes, str] = {}
        """By packed address that has a PTR: the label below the service, empty for the service itself."""
        self.names = 0
        self.certain = True
        """All of them can be names; else only making them tells."""


def outline(service: Service, endpoints: Sequence[Endpoint], override: Sequence[str]) -> Outline:
    """In step with `service_records`: what has a PTR there is `pointed` here."""
    made = Outline()
    if service.external_name and not override:
        made.certain = False
        return made
    pointed = made.pointed
    own = [] if service.headless else addresses_of(service.addresses)
    for address in (*override, *own):
        record = address_record(address)
        if record is None:
            made.certain = False
        else:
            pointed[record[1]] = ""
    virtual = bool(override or own)
    labels: set[str] = set()
    protocols = {port.name: port.protocol for port in service.ports}
    ports = {(port.name, port.protocol) for port in service.ports if port.name and virtual}
    sole = service.ports[0].name if len(service.ports) == 1 else ""
    for endpoint in () if own else usable(service, endpoints):
        record = address_record(endpoint.address)
        if record is None:
            made.certain = False
            continue
        if endpoint.hostname:
            made.certain = False
        label = endpoint_label(endpoint)
        labels.add(label)
        if virtual:
            continue
        known = pointed.get(record[1], label)
        pointed[record[1]] = label if known == label else f"{known}\0{label}"
        if (endpoint.port_name or sole) and 0 < endpoint.port < 65536:
            name = endpoint.port_name or sole
            ports.add((name, protocols.get(name, "TCP")))
    for name, protocol in ports:
        if not (name.isascii() and len(name) < 60 and "." not in name and len(protocol) < 10):
            made.certain = False
    made.names = len(labels) + len(ports) + len({protocol for _, protocol in ports})
    return made


class OnDemand:
    """The ordinary services of a zone. `tail`: `svc` and the cluster's domain in wire form."""

    def __init__(self, options: ZoneOptions, tail: bytes) -> None:
        self._options = options
        self._tail = tail
        self._text_tail = f".svc.{options.cluster_domain}"
        self._services: dict[bytes, Made] = {}
        self.pointing: dict[bytes, bytes | tuple[bytes, ...]] = {}
        """By reverse name, whose services' records have it."""
        self._kept: dict[bytes, Records] = {}
        self._kept_names = 0
        self.names = 0
        """How many there are below those of services."""

    def takes(self, host: str) -> bool:
        """Whether a service of this host belongs here."""
        first = host[: -len(self._text_tail)] if host.endswith(self._text_tail) else ""
        namespace = first.partition(".")[2]
        return bool(namespace) and "." not in namespace and host.isascii() and host.islower()

    def put(self, host: str, made: Made) -> None:
        """Make it known, beside what `repoint` does. Raises ValueError where it cannot be in DNS."""
        assert isinstance(made.source, Service)
        owner = wire_name(host)
        seen = outline(made.source, made.endpoints, made.override)
        records = None
        if not seen.certain or len(owner) > _CERTAIN_OCTETS:
            records = service_records(made.source, made.endpoints, made.override, self._options)
        if owner not in records if records is not None else not seen.pointed:
            return  # nobody serves: no such name
        made.owner, made.names, made.pointed, made.certain = owner, seen.names, seen.pointed, seen.certain
        self.names += made.names
        self._services[owner] = made
        if records is not None:
            self._keep(owner, _whole(owner, records))

    def drop(self, made: Made) -> None:
        self.names -= made.names
        self._services.pop(made.owner, None)
        self._forget(made.owner)

    def repoint(self, old: Made, new: Made) -> tuple[list[bytes], list[bytes], list[bytes]]:
        """Reverse names that this service points (from now on; no more; elsewhere than before)."""
        before, now = _pointed(old), _pointed(new)
        new.pointed = None
        other = bool(old.owner and new.owner) and _ttl(old, self._options) != _ttl(new, self._options)
        come = [reverse_name(packed) for packed in now if packed not in before]
        gone = [reverse_name(packed) for packed in before if packed not in now]
        moved = [reverse_name(p) for p, label in now.items() if p in before and (other or before[p] != label)]
        return come, gone, moved

    def point(self, name: bytes, owner: bytes) -> bool:
        """A reverse name leads to this service, too; whether it is the first one."""
        known = self.pointing.get(name)
        if known is None:
            self.pointing[name] = owner
            return True
        several = {*(known if isinstance(known, tuple) else (known,)), owner}
        self.pointing[name] = tuple(sorted(several)) if len(several) > 1 else owner
        return False

    def unpoint(self, name: bytes, owner: bytes) -> bool:
        """It leads there no more; whether it was the last one."""
        known = self.pointing[name]
        left = tuple(one for one in known if one != owner) if isinstance(known, tuple) else ()
        if not left:
            del self.pointing[name]
            return True
        self.pointing[name] = left if len(left) > 1 else left[0]
        return False

    def owner_of(self, name: bytes) -> bytes:
        """What an ordinary service would be called that has this name, or one above it; empty: none can."""
        if not name.endswith(self._tail):
            return b""
        end, at, last, before = len(name) - len(self._tail), 0, -1, -1
        while at < end:
            before, last = last, at
            at += 1 + name[at]
        return name[before:] if at == end and before >= 0 else b""

    def key_of(self, name: bytes) -> bytes:
        """What changes with all that `owner_of` puts into DNS; empty: nothing does."""
        owner = self.owner_of(name)
        return _key(owner) if owner else b""

    def sets(self, name: bytes, qtype: int = ANY) -> list[dict[int, RRset]]:
        """The record sets that services have for a name, each service's by themselves; empty: no such name.

        Complete as far as `qtype` is concerned.
        """
        if qtype in (A, AAAA):  # the usual question
            made = self._services.get(name)
            if made is not None and made.certain and name not in self._kept:
                return [self._addresses(made)]
        owners = self.pointing.get(name)
        if owners is None:
            owners = self.owner_of(name)
        found = []
        for owner in owners if isinstance(owners, tuple) else (owners,):
            made = self._services.get(owner)
            sets = self.records(made).get(name) if made is not None else None
            if sets is not None:
                found.append(sets)
        return found

    def _addresses(self, made: Made) -> dict[int, RRset]:
        """What `service_records` has of addresses for the service's own name."""
        service = made.source
        assert isinstance(service, Service)
        texts: Iterable[str] = made.override or ([] if service.headless else addresses_of(service.addresses))
        texts = texts or [endpoint.address for endpoint in usable(service, made.endpoints)]
        found: dict[int, dict[bytes, None]] = {}
        for text in texts:
            record = address_record(text)
            if record is not None:
                found.setdefault(record[0], {})[record[1]] = None
        ttl = service_ttl(service, self._options)
        return {rtype: RRset(made.owner, rtype, ttl, tuple(data)) for rtype, data in found.items()}

    def records(self, made: Made) -> Records:
        """All that a service has, with the empty names between."""
        known = self._kept.get(made.owner)
        if known is None:
            known = self.made(made)
            self._keep(made.owner, known)
        return known

    def made(self, made: Made) -> Records:
        """The same, made anew."""
        assert isinstance(made.source, Service)
        return _whole(made.owner, service_records(made.source, made.endpoints, made.override, self._options))

    def all(self) -> list[Made]:
        return list(self._services.values())

    def _keep(self, owner: bytes, records: Records) -> None:
        self._forget(owner)
        self._kept[owner] = records
        self._kept_names += len(records)
        while self._kept_names > KEPT_NAMES and len(self._kept) > 1:
            self._forget(next(iter(self._kept)))

    def _forget(self, owner: bytes) -> None:
        known = self._kept.pop(owner, None)
        if known is not None:
            self._kept_names -= len(known)


def below(owner: bytes, records: Records) -> Iterator[bytes]:
    """The names at and below the service's own; not reverse ones."""
    return (name for name in records if name.endswith(owner))


def _whole(owner: bytes, records: Records) -> Records:
    """With the names between the service's and those of its ports, which exist, too."""
    for name in tuple(records):
        above = name[1 + name[0] :]
        if above != owner and name != owner and name.endswith(owner):
            while above != owner:
                records.setdefault(above, {})
                above = above[1 + above[0] :]
    return records


def _pointed(made: Made) -> dict[bytes, str]:
    if made.pointed is not None:
        return made.pointed
    if not made.owner or not isinstance(made.source, Service):
        return {}
    return outline(made.source, made.endpoints, made.override).pointed


def _ttl(made: Made, options: ZoneOptions) -> int:
    return service_ttl(made.source, options) if isinstance(made.source, Service) else 0


def _key(owner: bytes) -> bytes:
    """`service_key` of the host with this name."""
    labels, at = [], 0
    while owner[at]:
        labels.append(owner[at + 1 : at + 1 + owner[at]])
        at += 1 + owner[at]
    return service_key("") + b".".join(labels)
