"""Consul's names for what the registry holds, for those who come from there (developer.hashicorp.com/consul, DNS).

`[TAG.]SERVICE.service[.DC].consul`, `_SERVICE._TAG[.service][.DC].consul` (RFC 2782), `NODE.node`, `HEX.addr` and
`SERVICE.virtual`; a namespace is written `SERVICE.service.NAMESPACE.ns.consul`. Names that need what we do not have
(prepared queries, Connect, gateways) are refused. Unlike Consul's own, names that only have others below them exist,
and denials may be kept.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator, Sequence
from struct import Struct
from typing import TYPE_CHECKING

from ..registry.model import Endpoint, Service, Workload
from ..registry.names import service_host
from .message import AAAA, ANY, CNAME, NOERROR, NS, NXDOMAIN, REFUSED, SOA, SRV, A, RRset, labels_of, wire_name
from .records import Found, address_record, service_ttl, soa

if TYPE_CHECKING:
    from .zone import Zone

NODE = "consul.io/node"
NODE_ADDRESS = "consul.io/node-address"
"""Annotations of a workload that Consul's catalog listed: its node."""

_KINDS = frozenset((b"service", b"node", b"addr", b"query", b"connect", b"ingress", b"virtual"))
_UNSUPPORTED = frozenset((b"query", b"connect", b"ingress"))
_SRV = Struct("!HHH")
_PRIORITY = 1


def service_key(host: str) -> bytes:
    """What answers made of a service's endpoints depend on; no DNS name looks like it."""
    return b"\xffs" + host.encode()


def node_key(name: str) -> bytes:
    return b"\xffn" + name.encode()


class _NoName(Exception):
    """The name cannot exist."""


class ConsulNames:
    """Answers below one domain, made when asked for from what the zone holds."""

    def __init__(self, zone: Zone) -> None:
        options = zone.options
        self._zone = zone
        self.apex = wire_name(options.consul_domain)
        self._datacenter = options.consul_datacenter.lower()
        self._size = len(labels_of(self.apex))
        self._nodes: dict[str, dict[str, str]] = {}

    def owns(self, name: bytes) -> bool:
        if not name.endswith(self.apex):
            return False
        return name == self.apex or len(self.apex) in _tail_sizes(name)

    def moved(self, old: Workload | None, new: Workload | None, changed: set[bytes]) -> None:
        """A workload came, changed or went; Consul's catalog says on which node it is."""
        if old is not None:
            self._gone(old, changed)
        if new is not None:
            self._placed(new, changed)

    def _placed(self, workload: Workload, changed: set[bytes]) -> None:
        changed.add(node_key(workload.key))
        node = workload.annotations.get(NODE, "").lower()
        if node:
            self._nodes.setdefault(node, {})[workload.key] = workload.annotations.get(NODE_ADDRESS, "")
            changed.add(node_key(node))

    def _gone(self, workload: Workload, changed: set[bytes]) -> None:
        changed.add(node_key(workload.key))
        node = workload.annotations.get(NODE, "").lower()
        known = self._nodes.get(node)
        if known is not None:
            known.pop(workload.key, None)
            if not known:
                del self._nodes[node]
            changed.add(node_key(node))

    def lookup(self, name: bytes, qtype: int, recursive: bool) -> Found:
        """The answer to a question below the domain."""
        depends: list[bytes] = [name]
        try:
            kind, rest, namespace = self._parse(labels_of(name)[: -self._size])
            if kind in _UNSUPPORTED:
                return Found(REFUSED, depends=(name,))
            ttl, sets, glue = self._sets(kind, rest, namespace, name, depends)
        except _NoName:
            return Found(NXDOMAIN, (), (soa(self.apex, self._zone.options, self._zone.version),), (), tuple(depends))
        if name == self.apex:
            apex = soa(self.apex, self._zone.options, self._zone.version)
            sets = {SOA: list(apex.rdata), NS: [wire_name(f"ns.dns.{self._zone.options.cluster_domain}")]}
        if qtype == ANY and sets:
            qtype = next(iter(sets))
        alias = sets.get(CNAME)
        if qtype in sets:
            answer = (RRset(name, qtype, ttl, tuple(dict.fromkeys(sets[qtype]))),)
            return Found(NOERROR, answer, (), tuple(glue) if qtype == SRV else (), tuple(depends))
        if alias:
            return self._behind(RRset(name, CNAME, ttl, tuple(alias)), qtype, recursive, depends)
        return Found(NOERROR, (), (soa(self.apex, self._zone.options, self._zone.version),), (), tuple(depends))

    def tag_of(self, name: bytes) -> str:
        """The tag that a name asks for, for explanations; empty: none."""
        try:
            kind, rest, _ = self._parse(labels_of(name)[: -self._size])
        except _NoName:
            return ""
        words = [label.decode("utf-8", "replace") for label in rest]
        if kind != b"service" or len(words) < 2:
            return ""
        if words[-1][:1] == "_":
            return "" if words[1][1:] in ("tcp", "udp") else words[1][1:]
        return ".".join(words[:-1])

    def _behind(self, alias: RRset, qtype: int, recursive: bool, depends: list[bytes]) -> Found:
        """An instance whose address is a name."""
        target = alias.rdata[0].lower()
        found = None if self.owns(target) else self._zone.lookup(target, qtype, recursive)
        if found is None:
            return Found(NOERROR, (alias,), depends=tuple(depends), pending=b"" if self.owns(target) else target)
        return Found(
            found.rcode, (alias, *found.answer), found.authority, found.additional, (*depends, *found.depends),
            found.pending,
        )  # fmt: skip

    def _parse(self, labels: list[bytes]) -> tuple[bytes, list[bytes], str]:
        """(kind, labels left of it, namespace)."""
        namespace = self._zone.options.consul_namespace
        while labels and labels[-1] not in _KINDS and labels[-1][:1] != b"_":
            last = labels[-1]
            if last in (b"ns", b"dc", b"ap") and len(labels) > 1:
                value = labels[-2].decode("utf-8", "replace")
                if last == b"ns":
                    namespace = value
                elif value != (self._datacenter if last == b"dc" else "default"):
                    raise _NoName
                labels = labels[:-2]
            elif last == self._datacenter.encode() and (len(labels) == 1 or labels[-2] not in (b"ns", b"ap")):
                labels = labels[:-1]
                break
            elif last == self._datacenter.encode():
                labels = labels[:-1]
            else:
                raise _NoName
        if not labels:
            return b"", [], namespace
        if labels[-1] in _KINDS:
            return labels[-1], labels[:-1], namespace
        if labels[-1][:1] == b"_":  # RFC 2782 lets `service` be left out
            return b"service", labels, namespace
        raise _NoName

    def _sets(
        self, kind: bytes, rest: list[bytes], namespace: str, name: bytes, depends: list[bytes]
    ) -> tuple[int, dict[int, list[bytes]], list[RRset]]:
        """(TTL, rdata by type, addresses of the SRV records' targets); nothing but the TTL for what lies between."""
        ttl = self._zone.options.ttl
        if not rest:
            return ttl, {}, []
        words = [label.decode("utf-8", "replace") for label in rest]
        if kind == b"addr":
            return ttl, _by_family([_hex_address(words)]), []
        if kind == b"node":
            return ttl, self._node(words, namespace, depends), []
        tag = ""
        if words[-1][:1] == "_":
            if len(words) == 1:
                return ttl, {}, []  # `_tcp.service`: there may be names below it
            if len(words) > 2 or words[0][:1] != "_":
                raise _NoName
            own, tag = words[0][1:], words[1][1:]
            tag = "" if tag in ("tcp", "udp") else tag
        else:
            own, tag = words[-1], ".".join(words[:-1])
        host = service_host(namespace, own, self._zone.options.cluster_domain)
        depends.append(service_key(host))
        known = self._zone.service(host)
        if known is None:
            raise _NoName
        service, endpoints, override = known
        ttl = service_ttl(service, self._zone.options)
        if kind == b"virtual" or (override and not tag):
            return ttl, *self._virtual(service, override or service.addresses)
        return ttl, *self._instances(endpoints, tag, ttl)

    def _node(self, words: list[str], namespace: str, depends: list[bytes]) -> dict[int, list[bytes]]:
        node = ".".join(words)
        depends.append(node_key(node))
        found = list(self._nodes.get(node, {}).values())
        if not found:
            workload = self._zone.workload(f"{namespace}/{node}")
            depends.append(node_key(f"{namespace}/{node}"))
            if workload is None:
                raise _NoName
            found = list(workload.addresses)
        return _by_family(found)

    def _virtual(self, service: Service, addresses: Sequence[str]) -> tuple[dict[int, list[bytes]], list[RRset]]:
        sets = _by_family(addresses)
        if not sets:
            raise _NoName
        glue: list[RRset] = []
        for port in service.ports:
            for address in addresses:
                self._offer(sets, glue, address, port.number, 1, self._zone.options.ttl)
        return sets, glue

    def _instances(
        self, endpoints: Sequence[Endpoint], tag: str, ttl: int
    ) -> tuple[dict[int, list[bytes]], list[RRset]]:
        """Ready ones that have the tag; without any the name does not exist, as Consul has it."""
        chosen = [e for e in endpoints if e.ready and (not tag or has_tag(e, tag))]
        sets = _by_family([endpoint.address for endpoint in chosen])
        glue: list[RRset] = []
        for endpoint in chosen:
            self._offer(sets, glue, endpoint.address, endpoint.port, endpoint.weight, ttl)
        if not sets:
            raise _NoName
        if A not in sets and AAAA not in sets:
            sets[CNAME] = [_name_of(chosen[0].address)]
        return sets, glue

    def _offer(
        self, sets: dict[int, list[bytes]], glue: list[RRset], address: str, port: int, weight: int, ttl: int
    ) -> None:
        """One SRV record, and where its target is."""
        if not 0 < port < 65536:
            return
        record = address_record(address)
        if record is None:
            target = _name_of(address)
        else:
            target = wire_name(f"{record[1].hex()}.addr.{self._datacenter}")[:-1] + self.apex
            glue.append(RRset(target, record[0], ttl, (record[1],)))
        sets.setdefault(SRV, []).append(_SRV.pack(_PRIORITY, max(0, min(weight, 65535)), port) + target)


def _tail_sizes(name: bytes) -> Iterator[int]:
    """Octets of the name and of each name above it."""
    at = 0
    while name[at]:
        yield len(name) - at
        at += 1 + name[at]


def _by_family(addresses: Sequence[str]) -> dict[int, list[bytes]]:
    sets: dict[int, list[bytes]] = {}
    for address in addresses:
        record = address_record(address)
        if record is not None:
            sets.setdefault(record[0], []).append(record[1])
    return sets


def _hex_address(words: list[str]) -> str:
    """`0a000001` or 32 hexadecimal digits."""
    if len(words) != 1 or len(words[0]) not in (8, 32):
        raise _NoName
    try:
        return str(ipaddress.ip_address(bytes.fromhex(words[0])))
    except ValueError:
        raise _NoName from None


def _name_of(address: str) -> bytes:
    try:
        return wire_name(address)
    except ValueError:
        raise _NoName from None


def has_tag(endpoint: Endpoint, tag: str) -> bool:
    """Tags stand among the labels as `tag.NAME`; of those with a `=`, name and value do."""
    wanted = f"tag.{tag}"
    return any(label.lower() == wanted for label in endpoint.labels)
