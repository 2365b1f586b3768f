"""What each service, workload and the zone itself contributes: names and their records (Kubernetes DNS spec 1.1.0)."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable, Sequence
from functools import lru_cache
from struct import Struct

from dnslib import AAAA as AAAARecord
from dnslib import SRV as SRVRecord
from dnslib import TXT as TXTRecord
from dnslib import A as ARecord
from dnslib import DNSBuffer, DNSLabel
from msgspec import Struct as Frozen

from ..registry.merge import usable
from ..registry.model import Endpoint, Service, Workload
from .message import AAAA, CNAME, NS, PTR, SOA, SRV, TXT, A, RRset, labels_of, show_name, wire_name

ENDPOINT_PTR = 65280 + PTR
"""A PTR that counts only where no virtual address has one; a private type that is never served."""
TTL_ANNOTATION = "fairlead.dev/dns-ttl"
DNS_VERSION = "1.1.0"

_SOA_TIMES = Struct("!5I")

Records = dict[bytes, dict[int, RRset]]
"""Record sets by owner (wire form, lower case) and type; an owner without any exists without data."""


class ZoneOptions(Frozen, frozen=True):
    """What the zone's content depends on besides the registry."""

    cluster_domain: str = "cluster.local"
    ttl: int = 5
    """Seconds, of every record (a service's own: annotation `fairlead.dev/dns-ttl`)."""
    negative_ttl: int = 5
    """Seconds for which "no such name" may be kept: the SOA's TTL and MINIMUM."""
    server_addresses: tuple[str, ...] = ()
    """Addresses of the server itself, for `ns.dns.CLUSTER_DOMAIN`."""
    pods: bool = True
    """Names of workloads by address: `10-1-2-3.NAMESPACE.pod.CLUSTER_DOMAIN`."""
    forward_private_reverse: bool = False
    """Ask upstream for the names of private addresses that the registry does not know (RFC 6303 says not to)."""


@lru_cache(maxsize=65536)
def address_record(text: str) -> tuple[int, bytes] | None:
    """(type, rdata) of an address; None where the text is not one."""
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    if address.version == 4:
        return A, bytes(ARecord(tuple(address.packed)).data)
    if address.scope_id:  # it means something on one host only
        return None
    return AAAA, bytes(AAAARecord(tuple(address.packed)).data)


def reverse_name(text: str) -> bytes:
    """Owner of an address's PTR records, in wire form."""
    return wire_name(ipaddress.ip_address(text).reverse_pointer)


def _packed(record: object) -> bytes:
    buffer = DNSBuffer()
    record.pack(buffer)  # type: ignore[attr-defined]
    return bytes(buffer.data)


def _label(name: bytes) -> DNSLabel:
    return DNSLabel(tuple(labels_of(name)))


class _Builder:
    """Gathers rdata per owner and type, each once, in order."""

    def __init__(self, ttl: int) -> None:
        self.ttl = ttl
        self.data: dict[bytes, dict[int, dict[bytes, None]]] = {}
        self._offered: set[tuple[bytes, bytes]] = set()

    def add(self, owner: bytes, rtype: int, rdata: bytes) -> None:
        self.data.setdefault(owner, {}).setdefault(rtype, {})[rdata] = None

    def address(self, owner: bytes, text: str) -> bool:
        found = address_record(text)
        if found is not None:
            self.add(owner, *found)
        return found is not None

    def srv(self, owner: bytes, port: int, weight: int, target: bytes) -> None:
        """The same port of the same name is one record, however many addresses the name has."""
        rdata = _packed(SRVRecord(0, max(0, min(weight, 65535)), port, _label(target)))
        if (owner, rdata[4:]) not in self._offered:
            self._offered.add((owner, rdata[4:]))
            self.add(owner, SRV, rdata)

    def done(self) -> Records:
        return {
            owner: {rtype: RRset(owner, rtype, self.ttl, tuple(rdata)) for rtype, rdata in types.items()}
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
    records[version] = {TXT: RRset(version, TXT, 28800, (_packed(TXTRecord(DNS_VERSION)),))}
    records[wire_name(f"svc.{zone}")] = {}
    records[wire_name(f"pod.{zone}")] = {}
    return records


def soa(apex: bytes, options: ZoneOptions, serial: int) -> RRset:
    """The SOA of a zone of ours; its TTL is its MINIMUM, as negative answers need it (RFC 2308)."""
    zone = options.cluster_domain
    names = wire_name(f"ns.dns.{zone}") + wire_name(f"hostmaster.{zone}")  # dnslib would compress the second
    times = _SOA_TIMES.pack(serial & 0xFFFFFFFF, 7200, 1800, 86400, options.negative_ttl)
    return RRset(apex, SOA, options.negative_ttl, (names + times,))


def namespace_records(name: str, options: ZoneOptions) -> Records:
    """A namespace exists, also one without services."""
    return {wire_name(f"{name}.svc.{options.cluster_domain}"): {}}


def workload_records(workload: Workload, options: ZoneOptions) -> Records:
    """`a-b-c-d.NAMESPACE.pod.ZONE` of each address."""
    build = _Builder(options.ttl)
    for address in workload.addresses:
        if address_record(address):
            owner = wire_name(f"{dashed(address)}.{workload.namespace}.pod.{options.cluster_domain}")
            build.address(owner, address)
    return build.done()


def dashed(address: str) -> str:
    """An address as a label: dashes for dots and colons; none at the end, where a 0 says the same."""
    label = address.replace(".", "-").replace(":", "-").lower()
    return label + "0" if label.endswith("-") else label


def endpoint_label(endpoint: Endpoint) -> str:
    """An endpoint's own name: its hostname where it has a usable one, else its dashed address."""
    name = endpoint.hostname.lower()
    return name if 0 < len(name.encode()) < 64 and "." not in name else dashed(endpoint.address)


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
    own = [] if service.headless else _addresses(service.addresses)
    internal = service.host.endswith(f".{options.cluster_domain}")
    for address in override or own:
        build.address(host, address)
    if internal:
        for address in (*override, *own):
            build.add(reverse_name(address), PTR, host)
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


def _addresses(candidates: Iterable[str]) -> list[str]:
    """Those that are single addresses; a ServiceEntry's may be CIDR blocks or names."""
    return [address for address in candidates if address_record(address)]


def _below(labels: str, host: bytes) -> bytes:
    """A name below the service's. Raises ValueError where that is too long."""
    name = wire_name(labels)[:-1] + host
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
            build.add(reverse_name(endpoint.address), ENDPOINT_PTR, owner)


def _endpoint_records(build: _Builder, service: Service, host: bytes, endpoints: Sequence[Endpoint]) -> None:
    """A service without an address of its own: its ready endpoints, their names, and SRV with their own ports."""
    protocols = {port.name: port.protocol for port in service.ports}
    sole = service.ports[0] if len(service.ports) == 1 else None
    for endpoint in endpoints:
        build.address(host, endpoint.address)
    _endpoint_names(build, host, endpoints, reverse=True)
    for endpoint in endpoints:
        if not 0 < endpoint.port < 65536:
            continue
        name = endpoint.port_name or (sole.name if sole else "")
        target = _below(endpoint_label(endpoint), host)
        if name:
            owner = _port_owner(host, name, protocols.get(name, "TCP"))
            build.srv(owner, endpoint.port, endpoint.weight, target)
        build.srv(host, endpoint.port, endpoint.weight, target)
