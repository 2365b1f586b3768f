"""The DNS server without its sockets: octets in, octets out; what has to be asked of others is handed back."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from functools import lru_cache

from ..registry.snapshot import Snapshot
from ._fast import AGING, Entry, Finished
from .answer import LOOPBACK_PTR, from_upstream, from_zone, refusal, rotations, special
from .cache import RETRY_S, Cache, Key
from .cache import Entry as Known
from .message import (
    AXFR,
    EDE_NETWORK,
    EDE_NOT_OURS,
    EDE_NOT_READY,
    EDE_PROHIBITED,
    IXFR,
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
    Message,
    Query,
    error,
    read_query,
    write_denial,
)
from .metrics import Label, Metrics
from .records import ZoneOptions
from .zone import Found, Zone

_LARGEST_KEPT = 4096
_MANY = 2000


class DnsOptions(ZoneOptions, frozen=True):
    """All settings of a DNS server."""

    addresses: Mapping[str, tuple[str, ...]] = {}
    """By host, what to answer instead of the service's own addresses (a sidecar's loopback addresses)."""
    upstreams: tuple[str, ...] | None = None
    """Servers for other names: ADDRESS, ADDRESS:PORT or [ADDRESS]:PORT. None: as /etc/resolv.conf; empty: refuse."""
    recursion: tuple[str, ...] | None = None
    """Networks whose clients may ask for other names. None: all if listening on loopback, else private networks."""
    cache_entries: int = 10_000
    cache_octets: int = 16 << 20
    serve_stale_s: float = 86_400.0
    """How long after its end an upstream's answer may still be given when no upstream answers."""
    max_pending: int = 1000
    """Most questions in flight to upstreams; more are dropped (UDP) or fail (TCP)."""
    max_connections: int = 1000
    idle_s: float = 10.0
    """Seconds after which a TCP connection without a question is closed."""
    finished: int = 8192
    """Finished answers per generation (two) and transport."""


PRIVATE_NETWORKS = (
    "127.0.0.0/8",
    "10.0.0.0/8",
    "172.16.0.0/12",
    "192.168.0.0/16",
    "100.64.0.0/10",
    "169.254.0.0/16",
    "::1/128",
    "fc00::/7",
    "fe80::/10",
)


class Pending:
    """A question that waits for an upstream: call `Engine.finish` with what came."""

    __slots__ = ("found", "key", "message", "query", "tcp")

    def __init__(self, message: bytes, query: Query, tcp: bool, found: Found | None, key: Key) -> None:
        self.message = message
        self.query = query
        self.tcp = tcp
        self.found = found
        """Where an alias of ours led to the name that is asked for."""
        self.key = key


class Engine:
    """Decides what to reply. `now` in seconds on any steady clock, `draw` in [0, 1)."""

    def __init__(self, options: DnsOptions, *, forwards: bool, everyone: bool) -> None:
        """`forwards`: there are upstreams; `everyone`: who may ask them."""
        self.options = options
        self.forwards = forwards
        self.everyone = everyone
        networks = PRIVATE_NETWORKS if options.recursion is None else options.recursion
        self._networks = [ipaddress.ip_network(network) for network in networks]
        self._may_ask = lru_cache(maxsize=4096)(self._in_networks)
        self.zone = Zone(options)
        self.cache = Cache(options.cache_entries, options.cache_octets, stale_s=options.serve_stale_s)
        self.udp = Finished(options.finished)
        self.tcp = Finished(options.finished)
        self.metrics = Metrics()
        self._addresses: Mapping[str, tuple[str, ...]] = options.addresses

    def update(self, snapshot: Snapshot, addresses: Mapping[str, tuple[str, ...]] | None = None) -> set[bytes]:
        """Answer from this snapshot from now on; the names that changed. `addresses` None: as before."""
        if addresses is not None:
            self._addresses = addresses
        first = not self.zone.synced
        changed = self.zone.update(snapshot, self._addresses)
        if first or len(changed) > _MANY or any(name[:2] == b"\1*" for name in changed):
            self.udp.clear()
            self.tcp.clear()
        else:
            self.udp.forget(changed)
            self.tcp.forget(changed)
        return changed

    def tick(self) -> None:
        """To be called each second, while anything is forwarded: TTLs of upstreams' answers count down."""
        self.udp.forget((AGING,))
        self.tcp.forget((AGING,))

    def reply(self, message: bytes, tcp: bool, source: str, now: float, draw: float) -> bytes | Pending | None:
        """The reply to a message that `udp.get` or `tcp.get` did not know; None: say nothing.

        `source`: the client's address. Never raises, whatever the octets.
        """
        try:
            return self._reply(message, tcp, source, now, draw)
        except Exception:  # a fault of ours costs its asker one SERVFAIL, and shows in the metrics
            self.metrics.panics += 1
            return error(message, SERVFAIL)

    def _reply(self, message: bytes, tcp: bool, source: str, now: float, draw: float) -> bytes | Pending | None:
        query = read_query(message)
        if not isinstance(query, Query):
            if query is None:
                self.metrics.dropped += 1
            else:
                self.metrics.count(Label(tcp, 0, query[3] & 15, ""), len(query))
            return query
        qtype = query.qtype
        if qtype in (AXFR, IXFR):
            return self._refuse(message, query, tcp, REFUSED, EDE_PROHIBITED)
        if not self.zone.synced and self.zone.owns(query.key):
            return self._refuse(message, query, tcp, SERVFAIL, EDE_NOT_READY)
        found = self.zone.lookup(query.key, qtype, self.forwards)
        if found is None or (found.rcode == NXDOMAIN and query.key in LOOPBACK_PTR):
            found = special(query.key, qtype) or found
        if found is not None and not found.pending:
            return self._finished(message, query, tcp, found, draw)
        if found is not None and not self.forwards:  # the alias is all that we can know
            return self._finished(message, query, tcp, found, draw)
        return self._elsewhere(message, query, tcp, found, source, now, draw)

    def _elsewhere(
        self, message: bytes, query: Query, tcp: bool, found: Found | None, source: str, now: float, draw: float
    ) -> bytes | Pending:
        if not self.forwards:
            return self._refuse(message, query, tcp, REFUSED, EDE_NOT_OURS)
        if found is None and not (self.everyone or self._may_ask(source)):
            return self._refuse(message, query, tcp, REFUSED, EDE_PROHIBITED)
        name = found.pending if found else query.key
        pending = Pending(message, query, tcp, found, (name, query.qtype, query.do, query.cd))
        known = self.cache.get(pending.key, now)
        if known is not None:
            return self._from_upstream(pending, known, now, draw, "cache")
        expired = self.cache.stale(pending.key, now)
        if expired is not None and now < expired.retry_at:
            return self.stale(pending, now, draw) or pending
        return pending

    def stale(self, pending: Pending, now: float, draw: float) -> bytes | None:
        """An answer that has expired, where there is one, for when upstreams do not answer in time."""
        known = self.cache.stale(pending.key, now)
        if known is None:
            return None
        self.cache.served_stale += 1
        return self._from_upstream(pending, known, now, draw, "cache")

    def learn(self, key: Key, result: Message | None, now: float) -> Known | None:
        """Keep what an upstream said."""
        return None if result is None else self.cache.put(key, result, now)

    def finish(self, pending: Pending, known: Known | None, now: float, draw: float) -> bytes:
        """The reply to a question that waited; `known` None: no upstream answered."""
        if known is None or known.rcode not in (0, 3):
            expired = self.cache.stale(pending.key, now)
            if expired is not None:
                expired.retry_at = now + RETRY_S
            stale = self.stale(pending, now, draw)
            if stale is not None:
                return stale
        if known is None:
            return self._refuse(pending.message, pending.query, pending.tcp, SERVFAIL, EDE_NETWORK, "forward")
        return self._from_upstream(pending, known, now, draw, "forward")

    def _finished(self, message: bytes, query: Query, tcp: bool, found: Found, draw: float) -> bytes:
        ra = self.forwards
        if self.zone.is_plain_denial(found):
            body = write_denial(query, found.rcode, self.zone.start_behind(query.question), ra=ra)
            return self._keep(message, query, tcp, (body,), found.depends, found.rcode, "fairlead", True)
        starts, whole = rotations(found.answer, draw)
        if not query.plain:
            starts = starts[:1]
        variants = tuple(from_zone(query, found, tcp=tcp, ra=ra, turn=turn) for turn in starts)
        return self._keep(message, query, tcp, variants, found.depends, found.rcode, "fairlead", whole)

    def _from_upstream(self, pending: Pending, known: Known, now: float, draw: float, plugin: str) -> bytes:
        query, found = pending.query, pending.found
        starts, whole = rotations(known.answer, draw)
        stale = now >= known.expires and known.stored < now
        if not query.plain or stale:
            starts = starts[:1]
        variants = tuple(
            from_upstream(query, found, known, now, tcp=pending.tcp, turn=turn, stale=stale) for turn in starts
        )
        if not self.everyone or stale or known.expires <= now:
            self._count(query, pending.tcp, variants[0], known.rcode, plugin)
            return pending.message[:2] + variants[0]
        depends = (AGING, query.key, *(found.depends if found else ()), pending.key[0])
        return self._keep(pending.message, query, pending.tcp, variants, depends, known.rcode, plugin, whole)

    def _keep(
        self,
        message: bytes,
        query: Query,
        tcp: bool,
        variants: tuple[bytes, ...],
        depends: tuple[bytes, ...],
        rcode: int,
        plugin: str,
        whole: bool,
    ) -> bytes:
        if query.plain and len(variants[0]) <= _LARGEST_KEPT:
            label = Label(tcp, query.qtype, rcode, "cache" if plugin == "forward" else plugin)
            entry = Entry(variants, tuple(dict.fromkeys(depends)), label, whole)
            entry.turn = 1
            (self.tcp if tcp else self.udp).put(message, entry)
        self._count(query, tcp, variants[0], rcode, plugin)
        return message[:2] + variants[0]

    def _refuse(self, message: bytes, query: Query, tcp: bool, rcode: int, why: int, plugin: str = "fairlead") -> bytes:
        reply = refusal(query, rcode, why, ra=self.forwards and why != EDE_PROHIBITED)
        self._count(query, tcp, reply, rcode, plugin)
        return message[:2] + reply

    def _count(self, query: Query, tcp: bool, reply: bytes, rcode: int, plugin: str) -> None:
        self.metrics.count(Label(tcp, query.qtype, rcode, plugin), len(reply) + 2)

    def _in_networks(self, source: str) -> bool:
        try:
            address = ipaddress.ip_address(source.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)
