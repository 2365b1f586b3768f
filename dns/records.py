"""What each service, workload and the zone itself contributes: names and their records (Kubernetes DNS spec 1.1.0)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import Struct

from msgspec import Struct as Frozen

from ..registry.merge import usable
from ..registry.model import Endpoint, Service
from .message import AAAA, ANY, CNAME, NS, PTR, SOA, SRV, TXT, A, RRset, show_name, wire_name

ENDPOINT_PTR = 65280 + PTR
"""Key of a PTR that counts only where no virtual address has one; a private type that is never served."""
TTL_ANNOTATION = "fairlead.dev/dns-ttl"
DNS_VERSION = "1.1.0"

_SOA_TIMES = Struct("!5I")
_SRV = Struct("!HHH")

Records = dict[bytes, dict[int, RRset]]
"""Record sets by owner (wire form, lower case) and type; an owner without any exists without data."""


class Found(Frozen, frozen=True):
    """What the zone has to say about a question."""

    rcode: int
    answer: tuple[RRset, ...] = ()
    authority: tuple[RRset, ...] = ()
    additional: tuple[RRset, ...] = ()
    depends: tuple[bytes, ...] = ()
    """Names whose change would change this answer."""
    pending: bytes = b""
    """An alias to a name of somebody else: ask upstream for this name, and append what it says."""


class ZoneOptions(Frozen, frozen=True):
    """What the zone's content depends on besides the registry."""

    cluster_domain: str = "cluster.local"
    ttl: int = 5
    """Seconds, of every record (a service's own: annotation `fairlead.dev/dns-ttl`)."""
    negative_ttl: int = 5
    """Seconds for which "no such name" may be kept: the SOA's TTL and MINIMUM."""
    serial_base: int = 0
    """Added to the snapshot's version for the SOA's serial: the time at start, so that a restart does not go back."""
    server_addresses: tuple[str, ...] = ()
    """Addresses of the server itself, for `ns.dns.CLUSTER_DOMAIN`."""
    pods: str = "verified"
    """Names of workloads by address, `10-1-2-3.NAMESPACE.pod.CLUSTER_DOMAIN`: `verified` (those that exist), `insecure`
    (any address in a namespace that exists), `disabled`; as CoreDNS has them."""
    autopath: str = "off"
    """Walk the client's search list for it: `off`, `client` (in the namespace of the workload that asks),
    `question` (in the namespace that the question names)."""
    search: tuple[str, ...] = ()
    """Search domains that clients have behind the cluster's three."""
    client_namespace: str = ""
    """Namespace of clients whose address is no workload's (a sidecar's own app)."""
    client_locality: str = ""
    """region/zone/subzone of clients whose address is no workload's."""
    consul_domain: str = ""
    """Also answer Consul's names below this domain, usually `consul`; empty: none."""
    consul_datacenter: str = "dc1"
    consul_namespace: str = "default"
    """Where a service is looked for whose name in Consul's form says no namespace."""
    forward_private_reverse: bool = False
    """Ask upstream for the names of private addresses that the registry does not know (RFC 6303 says not to)."""


@lru_cache(maxsize=4096)
def address_record(text: str) -> tuple[int, bytes] | None:
    """(type, rdata) of an address; None where the text is not one."""
    parts = text.split(".")
    if len(parts) == 4:  # by hand: a registry has a hundred thousand of them
        try:
            packed = bytes(map(int, parts))
        except ValueError:
            return None
        return (A, packed) if ".".join(map(str, packed)) == text else None
    try:
        address = ipaddress.IPv6Address(text)
    except ValueError:
        return None
    if address.scope_id:  # it means something on one host only
        return None
    return AAAA, address.packed


_OCTETS = [b"%c%d" % (len(str(n)), n) for n in range(256)]
_NIBBLES = [b"\1%x\1%x" % (n & 15, n >> 4) for n in range(256)]
_REVERSE4, _REVERSE6 = wire_name("in-addr.arpa"), wire_name("ip6.arpa")


def reverse_name(packed: bytes) -> bytes:
    """Owner of an address's PTR records, in wire form."""
    if len(packed) == 4:
        return b"".join([_OCTETS[octet] for octet in reversed(packed)]) + _REVERSE4
    return b"".join([_NIBBLES[octet] for octet in reversed(packed)]) + _REVERSE6


class _Builder:
    """Gathers rdata per owner and type, each once, in order."""

    def __init__(self, ttl: int) -> None:
        self.ttl = ttl
        self.data: dict[bytes, dict[int, dict[bytes, None]]] = {}
        self._offered: set[tuple[bytes, bytes]] = set()

    def add(self, owner: bytes, rtype: int, rdata: bytes) -> None:
        types = self.data.get(owner)
        if types is None:
            self.data[owner] = {rtype: {rdata: None}}
            return
        known = types.get(rtype)
        if known is None:
            types[rtype] = {rdata: None}
        else:
            known[rdata] = None

    def address(self, owner: bytes, text: str) -> bool:
        found = address_record(text)
        if found is not None:
            self.add(owner, *found)
        return found is not None

    def srv(self, owner: bytes, port: int, weight: int, target: bytes) -> None:
        """The same port of the same name is one record, however many addresses the name has."""
        rdata = _SRV.pack(0, max(0, min(weight, 65535)), port) + target
        if (owner, rdata[4:]) not in self._offered:
            self._offered.add((owner, rdata[4:]))
            self.add(owner, SRV, rdata)

    def done(self) -> Records:
        return {
            owner: {
                rtype: RRset(owner, PTR if rtype == ENDPOINT_PTR else rtype, self.ttl, tuple(rdata))
                for rtype, rdata in types.items()
            }
            for owner, types in self.data.items()
        }


def zone_records(options: ZoneOptions, serial: int) -> Records:
    """The cluster domain's apex and what stands in it whatever the registry holds."""
    zone = options.cluster_domain
    apex, ns = wire_name(zone), wire_name(f"ns.dns.{zone}")
    build = _Builder(options.ttl)
    build.add(apex, NS, ns)
    for address in options.server_addresses:
        build.address(ns, address)
    records = build.done()
    records.setdefault(ns, {})
    records[apex][SOA] = soa(apex, options, serial)
    version = wire_name(f"dns-version.{zone}")
    records[version] = {TXT: RRset(version, TXT, 28800, (bytes((len(DNS_VERSION),)) + DNS_VERSION.encode(),))}
    records[wire_name(f"svc.{zone}")] = {}
    records[wire_name(f"pod.{zone}")] = {}
    return records


def soa(apex: bytes, options: ZoneOptions, serial: int) -> RRset:
    """The SOA of a zone of ours; its TTL is its MINIMUM, as negative answers need it (RFC 2308)."""
    zone = options.cluster_domain
    names = wire_name(f"ns.dns.{zone}") + wire_name(f"hostmaster.{zone}")  # dnslib would compress the second
    times = _SOA_TIMES.pack((options.serial_base + serial) & 0xFFFFFFFF, 7200, 1800, 86400, options.negative_ttl)
    return RRset(apex, SOA, options.negative_ttl, (names + times,))


def namespace_records(name: str, options: ZoneOptions) -> Records:
    """A namespace exists, also one without services."""
    return {wire_name(f"{name}.svc.{options.cluster_domain}"): {}}


def dashed(address: str) -> str:
    """An address as a label: dashes for dots and colons; none at the end, where a 0 says the same."""
    label = address.replace(".", "-").replace(":", "-").lower()
    return label + "0" if label.endswith("-") else label


def undashed(label: str) -> str:
    """The address that a label of dashes says, as `dashed` and others write them; empty where it is none."""
    for text in (label.replace("-", "."), label.replace("-", ":")):
        if address_record(text):
            return text
    return ""


def endpoint_label(endpoint: Endpoint) -> str:
    """An endpoint's own name: its hostname where it has a usable one, else its dashed address."""
    if not endpoint.hostname:
        return dashed(endpoint.address)
    name = endpoint.hostname.lower()
    return name if len(name.encode()) < 64 and "." not in name else dashed(endpoint.address)


def service_ttl(service: Service, options: ZoneOptions) -> int:
    """Seconds: the annotation if it is a whole number up to a week, else the zone's."""
    text = service.annotations.get(TTL_ANNOTATION, "")
    return min(int(text), 604800) if text.isascii() and text.isdecimal() and len(text) < 12 else options.ttl


def service_records(
    service: Service, endpoints: Sequence[Endpoint], override: Sequence[str], options: ZoneOptions
) -> Records:
    """Everything that one service puts into DNS.

    `override`: addresses to give instead of its own (a sidecar's loopback addresses). Raises ValueError where the
    host or a port's name cannot be a DNS name.
    """
    host = wire_name(service.host)
    build = _Builder(service_ttl(service, options))
    if service.external_name and not override:
        build.add(host, CNAME, wire_name(service.external_name))
        return build.done()
    ready = usable(service, endpoints)
    own = [] if service.headless else addresses_of(service.addresses)
    internal = service.host.endswith(f".{options.cluster_domain}")
    for address in override or own:
        build.address(host, address)
    if internal:
        for address in (*override, *own):
            record = address_record(address)
            if record is not None:
                build.add(reverse_name(record[1]), PTR, host)
    if override or own:
        if internal:
            _virtual_srv(build, service, host)
            if not own:
                _endpoint_names(build, host, [e for e in ready if address_record(e.address)], reverse=not override)
        return build.done()
    addressed = [e for e in ready if address_record(e.address)]
    if ready and not addressed and not ready[0].address.startswith("unix:"):
        # One alias at most (RFC 1034 section 3.6.2): the first, in order of the source.
        alias = wire_name(ready[0].address)
        if alias != host:
            build.add(host, CNAME, alias)
    elif internal:
        _endpoint_records(build, service, host, addressed)
    else:
        for endpoint in addressed:
            build.address(host, endpoint.address)
    return build.done()


def addresses_of(candidates: Iterable[str]) -> list[str]:
    """Those that are single addresses; a ServiceEntry's may be CIDR blocks or names."""
    return [address for address in candidates if address_record(address)]


def _below(labels: str, host: bytes) -> bytes:
    """A name below the service's. Raises ValueError where that is too long."""
    if "." in labels or not labels.isascii() or not 0 < len(labels) < 64:
        name = wire_name(labels)[:-1] + host
    else:
        name = bytes((len(labels),)) + labels.lower().encode() + host
    if len(name) > 255:
        raise ValueError(f"{labels} below {show_name(host)} is longer than 255 octets")
    return name


def _port_owner(host: bytes, name: str, protocol: str) -> bytes:
    return _below(f"_{name}._{protocol}", host)


def _virtual_srv(build: _Builder, service: Service, host: bytes) -> None:
    """Named ports at their own names; all of them at the service's."""
    for port in service.ports:
        if port.name:
            build.srv(_port_owner(host, port.name, port.protocol), port.number, 100, host)
        build.srv(host, port.number, 100, host)


def _endpoint_names(build: _Builder, host: bytes, endpoints: Sequence[Endpoint], reverse: bool) -> None:
    for endpoint in endpoints:
        owner = _below(endpoint_label(endpoint), host)
        build.address(owner, endpoint.address)
        if reverse:
            record = address_record(endpoint.address)
            if record is not None:
                build.add(reverse_name(record[1]), ENDPOINT_PTR, owner)


def _endpoint_records(build: _Builder, service: Service, host: bytes, endpoints: Sequence[Endpoint]) -> None:
    """A service without an address of its own: its ready endpoints, their names, and SRV with their own ports.

    In one pass, since a change of one endpoint makes all of its service again.
    """
    protocols = {port.name: port.protocol for port in service.ports}
    sole = service.ports[0].name if len(service.ports) == 1 else ""
    owners: dict[str, bytes] = {}
    add, srv = build.add, build.srv
    for endpoint in endpoints:
        record = address_record(endpoint.address)
        if record is None:
            continue
        rtype, packed = record
        target = _below(endpoint_label(endpoint), host)
        add(host, rtype, packed)
        add(target, rtype, packed)
        add(reverse_name(packed), ENDPOINT_PTR, target)
        if not 0 < endpoint.port < 65536:
            continue
        name = endpoint.port_name or sole
        if name:
            owner = owners.get(name)
            if owner is None:
                owner = owners[name] = _port_owner(host, name, protocols.get(name, "TCP"))
            srv(owner, endpoint.port, endpoint.weight, target)
        srv(host, endpoint.port, endpoint.weight, target)


def pick(sets: dict[int, RRset], qtype: int, external: bool) -> RRset | None:
    """The record set of a name that answers a question of this type."""
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


def merged(owner: bytes, given: list[dict[int, RRset]]) -> dict[int, RRset]:
    """The union of all contributions, each record once, with the lowest TTL."""
    made: dict[int, RRset] = {}
    for sets in given:
        for rtype, rrset in sets.items():
            known = made.get(rtype)
            rdata = rrset.rdata if known is None else tuple(dict.fromkeys((*known.rdata, *rrset.rdata)))
            made[rtype] = RRset(owner, rrset.rtype, min(rrset.ttl, known.ttl) if known else rrset.ttl, rdata)
    by_endpoint = made.pop(ENDPOINT_PTR, None)
    if by_endpoint is not None and PTR not in made:
        made[PTR] = by_endpoint
    return made
