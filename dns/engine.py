"""The DNS server without its sockets: octets in, octets out; what has to be asked of others is handed back."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from functools import lru_cache

from ..registry.model import Changed, Workload
from ..registry.snapshot import Snapshot
from ._fast import AGING, Entry, Finished
from .answer import LOOPBACK_PTR, from_upstream, from_zone, refusal, rotations, special
from .cache import RETRY_S, Cache, Key
from .cache import Entry as Known
from .cookies import Cookies
from .message import (
    ANY,
    AXFR,
    CNAME,
    COOKIE,
    EDE_NETWORK,
    EDE_NOT_OURS,
    EDE_NOT_READY,
    EDE_PROHIBITED,
    EDE_UNSUPPORTED,
    IXFR,
    KEEPALIVE,
    NOERROR,
    NOTAUTH,
    NSID,
    NXDOMAIN,
    REFUSED,
    SERVFAIL,
    Message,
    Query,
    RRset,
    error,
    read_query,
)
from .metrics import Label, Metrics
from .near import ordered
from .records import Found, ZoneOptions
from .search import SearchList, Walk
from .transfer import Transfer, wanted
from .write import write_denial
from .zone import Zone

_LARGEST_KEPT = 4096
PADDING_BLOCK = 468
"""Octets of which a padded reply is a multiple (RFC 8467)."""
_MANY = 2000


class DnsOptions(ZoneOptions, frozen=True):
    """All settings of a DNS server."""

    addresses: Mapping[str, tuple[str, ...]] = {}
    """By host, what to answer instead of the service's own addresses (a sidecar's loopback addresses)."""
    upstreams: tuple[str, ...] | None = None
    """Servers for other names: ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT, or tls://ADDRESS[:PORT][#NAME]. None: as
    /etc/resolv.conf; empty: refuse."""
    loop_probe_s: float = 0.0
    """Seconds between questions that show whether an upstream forwards to us; 0: none are asked."""
    upstream_ca: str = ""
    """File with the authorities that vouch for upstreams over TLS; empty: the system's."""
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
    allow_transfer: tuple[str, ...] = ()
    """Networks whose servers may have whole zones (AXFR)."""
    rate_limit: int = 0
    """Replies over UDP a second to one client network (/24, /56); 0: no limit."""
    nsid: str = ""
    """What this server calls itself to clients that ask (RFC 5001)."""
    cookie_secrets: tuple[bytes, ...] = ()
    """Of 16 octets each: the first makes DNS cookies, all are good (servers that share them take each other's). Empty:
    one made at start."""
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


def _option(code: int, data: bytes) -> bytes:
    return code.to_bytes(2, "big") + len(data).to_bytes(2, "big") + data


class Pending:
    """A question that waits for an upstream: call `Engine.finish` with what came."""

    __slots__ = ("found", "key", "message", "query", "source", "tcp", "walk")

    def __init__(
        self, message: bytes, query: Query, tcp: bool, source: str, found: Found | None, walk: Walk | None = None
    ) -> None:
        self.message = message
        self.query = query
        self.tcp = tcp
        self.source = source
        self.found = found
        """Where an alias of ours led to the name that is asked for."""
        self.walk = walk
        """What else the client's search list has, if this name is missing."""
        self.key: Key = (found.pending if found else query.key, query.qtype, query.do, query.cd)


class Engine:
    """Decides what to reply. `now` in seconds on any steady clock, `draw` in [0, 1)."""

    def __init__(self, options: DnsOptions, *, forwards: bool, everyone: bool) -> None:
        """`forwards`: there are upstreams; `everyone`: who may ask them."""
        self.options = options
        self.forwards = forwards
        self.everyone = everyone
        networks = PRIVATE_NETWORKS if options.recursion is None else options.recursion
        self._may_ask = lru_cache(maxsize=4096)(_Networks(networks).has)
        self._may_transfer = lru_cache(maxsize=4096)(_Networks(options.allow_transfer).has)
        self.due: list[Key] = []
        """Answers in demand that end soon, to be asked for anew."""
        self.probes: set[bytes] = set()
        """Names that only we ask for: who asks us for one got it from an upstream that forwards to us."""
        self.looped: set[bytes] = set()
        """Those that came back."""
        self.cookies = Cookies(options.cookie_secrets) if options.cookie_secrets else None
        self.clock_offset = 0.0
        """Unix seconds less `now`; cookies say when they were made."""
        self.zone = Zone(options)
        self._search = SearchList(options) if options.autopath != "off" else None
        self.cache = Cache(options.cache_entries, options.cache_octets, stale_s=options.serve_stale_s)
        self.udp = Finished(options.finished)
        self.tcp = Finished(options.finished)
        self.metrics = Metrics()
        self._addresses: Mapping[str, tuple[str, ...]] = options.addresses

    def update(
        self,
        snapshot: Snapshot,
        addresses: Mapping[str, tuple[str, ...]] | None = None,
        touched: Changed | None = None,
        last: bool = True,
    ) -> set[bytes]:
        """Answer from this snapshot from now on; the names that changed. `addresses` None: as before.

        `touched`: what may differ from the snapshot before; None: not known. `last`: nothing else of it is to come.
        """
        if addresses is not None:
            self._addresses = addresses
        first = not self.zone.synced
        changed = self.zone.update(snapshot, self._addresses, touched, last)
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

    def reply(
        self, message: bytes, tcp: bool, source: str, now: float, draw: float, secure: bool = False
    ) -> bytes | Pending | Transfer | None:
        """The reply to a message that `udp.get` or `tcp.get` did not know; None: say nothing.

        `source`: the client's address; `secure`: over TLS or HTTPS. A Transfer comes over TCP only. Never raises,
        whatever the octets.
        """
        try:
            return self._reply(message, tcp, source, now, draw, secure)
        except Exception:  # a fault of ours costs its asker one SERVFAIL, and shows in the metrics
            self.metrics.panics += 1
            return error(message, SERVFAIL)

    def _reply(
        self, message: bytes, tcp: bool, source: str, now: float, draw: float, secure: bool
    ) -> bytes | Pending | Transfer | None:
        query = read_query(message)
        if not isinstance(query, Query):
            if query is None:
                self.metrics.dropped += 1
            else:
                self.metrics.count(Label(tcp, 0, query[3] & 15, "", len(message)), len(query))
            return query
        qtype = query.qtype
        if not query.plain and query.edns:
            self._options(query, tcp, secure, source, now)
            if not query.question:
                return self._finished(message, query, tcp, Found(NOERROR), draw)
        if qtype in (AXFR, IXFR):
            return self._transfer(message, query, tcp, source)
        if not self.zone.synced and self.zone.owns(query.key):
            return self._refuse(message, query, tcp, SERVFAIL, EDE_NOT_READY)
        found = self.zone.lookup(query.key, qtype, self.forwards)
        if found is None or (found.rcode == NXDOMAIN and query.key in LOOPBACK_PTR):
            found = special(query.key, qtype) or found
        walk = None
        if self._search is not None and found is not None and found.rcode == NXDOMAIN and not found.answer:
            walk = self._walk_of(query, found, source)
            if walk is not None:
                found = self._walked(query, walk, source)
        return self._decided(message, query, tcp, source, found, walk, now, draw)

    def _options(self, query: Query, tcp: bool, secure: bool, source: str, now: float) -> None:
        """What the client's EDNS options ask for goes into the reply's."""
        options = b""
        if query.cookie and self.cookies is not None:
            cookie = self.cookies.reply(query.cookie, _packed(source), now + self.clock_offset)
            options += _option(COOKIE, cookie)
        if query.nsid and self.options.nsid:
            options += _option(NSID, self.options.nsid.encode()[:255])
        if query.keepalive and tcp:
            options += _option(KEEPALIVE, min(int(self.options.idle_s * 10), 65535).to_bytes(2, "big"))
        query.options = options
        if query.pads and secure:
            query.block = PADDING_BLOCK

    def known_client(self, message: bytes, source: str, now: float) -> bool:
        """Whether a message shows a cookie of ours: its sender has the address that it comes from."""
        if self.cookies is None:
            return False
        query = read_query(message)
        good = isinstance(query, Query) and len(query.cookie) > 8
        return good and self.cookies.good(query.cookie, _packed(source), now + self.clock_offset)  # type: ignore[union-attr]

    def _transfer(self, message: bytes, query: Query, tcp: bool, source: str) -> bytes | Transfer:
        """A whole zone, to those who may have it; over UDP (IXFR alone) its SOA, which says to come by TCP."""
        if not self._may_transfer(source) or (not tcp and query.qtype == AXFR):
            return self._refuse(message, query, tcp, REFUSED, EDE_PROHIBITED)
        if not self.zone.synced:
            return self._refuse(message, query, tcp, SERVFAIL, EDE_NOT_READY)
        content = self.zone.content(query.key)
        if content is None:
            return self._refuse(message, query, tcp, NOTAUTH, EDE_NOT_OURS)
        query.plain = False
        start, records = content
        if not tcp:
            return self._finished(message, query, tcp, Found(NOERROR, (start,)), 0.0)
        self.metrics.count(Label(tcp, query.qtype, NOERROR, "fairlead", len(message), query.do), 0)
        return Transfer(message, query, start, records if wanted(query, message, start) else None)

    def _decided(
        self,
        message: bytes,
        query: Query,
        tcp: bool,
        source: str,
        found: Found | None,
        walk: Walk | None,
        now: float,
        draw: float,
    ) -> bytes | Pending:
        """Answer from the zone, or ask elsewhere."""
        if found is not None and (not found.pending or not self.forwards):  # else the alias is all that we can know
            if found.rcode == REFUSED:
                return self._refuse(message, query, tcp, REFUSED, EDE_UNSUPPORTED)
            if self.zone.near and found.answer:
                found = self._nearest(query, found, source, draw)
            return self._finished(message, query, tcp, found, draw)
        if not self.forwards:
            return self._refuse(message, query, tcp, REFUSED, EDE_NOT_OURS)
        if found is None and not self._may_forward(source):
            return self._refuse(message, query, tcp, REFUSED, EDE_PROHIBITED)
        return self._ask(Pending(message, query, tcp, source, found, walk), now, draw)

    def _ask(self, pending: Pending, now: float, draw: float) -> bytes | Pending:
        known = self.cache.get(pending.key, now)
        if known is not None:
            if self.cache.fading(known, now) and len(self.due) < _MANY:
                self.due.append(pending.key)
            return self._came(pending, known, now, draw, "cache")
        if pending.key[0] in self.probes:
            self.looped.add(pending.key[0])
            return self._refuse(pending.message, pending.query, pending.tcp, SERVFAIL, EDE_NETWORK, "forward")
        expired = self.cache.stale(pending.key, now)
        if expired is not None and now < expired.retry_at:
            return self.stale(pending, now, draw) or pending
        return pending

    def _came(self, pending: Pending, known: Known, now: float, draw: float, plugin: str) -> bytes | Pending:
        """What an upstream says of a name; missing where the client's search list goes on: the next one."""
        if pending.walk is not None and known.rcode == NXDOMAIN:
            query, source = pending.query, pending.source
            found = self._walked(query, pending.walk, source)
            return self._decided(pending.message, query, pending.tcp, source, found, pending.walk, now, draw)
        return self._from_upstream(pending, known, now, draw, plugin)

    def _may_forward(self, source: str) -> bool:
        return self.everyone or self._may_ask(source)

    # The client's search list --------------------------------------------------------------------------------------

    def _walk_of(self, query: Query, denial: Found, source: str) -> Walk | None:
        """The search list that a missing name seems to come from; None where it comes from none that we know."""
        assert self._search is not None
        split = self._search.split(query.key)
        if split is None or query.qtype in (ANY, CNAME):
            return None
        base, namespace = split
        if not self.zone.has_namespace(namespace):
            return None
        if self.options.autopath == "client":
            query.plain = False  # another client may mean the name as it is written
            here = {workload.namespace for workload in self.clients(source)} or {self.options.client_namespace}
            if namespace.decode("utf-8", "replace") not in here:
                return None
        return Walk(denial, self._search.candidates(base))

    def _walked(self, query: Query, walk: Walk, source: str) -> Found:
        """The first name left that exists, behind an alias; one of somebody else's is to be asked for."""
        for name in walk.left:
            found = self.zone.lookup(name, query.qtype, self.forwards) or special(name, query.qtype)
            walk.depends += found.depends if found else (name,)
            alias = RRset(query.key, CNAME, self.options.ttl, (name,))
            if found is None:
                if self.forwards and self._may_forward(source):
                    return Found(NOERROR, (alias,), depends=tuple(walk.depends), pending=name)
            elif found.rcode == NOERROR:
                self.metrics.autopath += 1
                answer = (alias, *found.answer)
                return Found(NOERROR, answer, found.authority, found.additional, tuple(walk.depends), found.pending)
        return Found(NXDOMAIN, (), walk.denial.authority, (), tuple(walk.depends))

    def clients(self, source: str) -> tuple[Workload, ...]:
        """The workloads that have a client's address."""
        return self.zone.workloads_at(source.removeprefix("::ffff:") if "." in source else source)

    def _nearest(self, query: Query, found: Found, source: str, draw: float) -> Found:
        """The answer in the order of the client's locality, where the service wants that."""
        last = found.answer[-1]
        places = self.zone.near.get(last.owner)
        if places is None or len(last.rdata) < 2:
            return found
        query.plain = False
        query.ordered = True
        client = next((one.locality for one in self.clients(source) if one.locality), self.options.client_locality)
        answer = (*found.answer[:-1], ordered(last, places, client, draw))
        return Found(found.rcode, answer, found.authority, found.additional, found.depends, found.pending)

    # Elsewhere -----------------------------------------------------------------------------------------------------

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

    def finish(self, pending: Pending, known: Known | None, now: float, draw: float) -> bytes | Pending:
        """The reply to a question that waited, or what is to be asked next; `known` None: no upstream answered."""
        if known is None or known.rcode not in (0, 3):
            expired = self.cache.stale(pending.key, now)
            if expired is not None:
                expired.retry_at = now + RETRY_S
            stale = self.stale(pending, now, draw)
            if stale is not None:
                return stale
        if known is None:
            return self.give_up(pending)
        return self._came(pending, known, now, draw, "forward")

    def give_up(self, pending: Pending) -> bytes:
        """The reply where no upstream could be asked, or none answered."""
        return self._refuse(pending.message, pending.query, pending.tcp, SERVFAIL, EDE_NETWORK, "forward")

    def _finished(self, message: bytes, query: Query, tcp: bool, found: Found, draw: float) -> bytes:
        ra = self.forwards
        if self.zone.is_plain_denial(found):
            body = write_denial(query, found.rcode, self.zone.start_behind(query.question), ra=ra)
            return self._keep(message, query, tcp, (body,), found.depends, found.rcode, "fairlead", True)
        starts, whole = rotations(found.answer, 0.0 if query.ordered else draw)
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
            self._count(pending.message, query, pending.tcp, variants[0], known.rcode, plugin)
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
            plugin_later = "cache" if plugin == "forward" else plugin
            label = Label(tcp, query.qtype, rcode, plugin_later, len(message), query.do)
            entry = Entry(variants, tuple(dict.fromkeys(depends)), label, whole)
            entry.turn = 1
            (self.tcp if tcp else self.udp).put(message, entry)
        self._count(message, query, tcp, variants[0], rcode, plugin)
        return message[:2] + variants[0]

    def _refuse(self, message: bytes, query: Query, tcp: bool, rcode: int, why: int, plugin: str = "fairlead") -> bytes:
        reply = refusal(query, rcode, why, ra=self.forwards and why != EDE_PROHIBITED)
        self._count(message, query, tcp, reply, rcode, plugin)
        return message[:2] + reply

    def _count(self, message: bytes, query: Query, tcp: bool, reply: bytes, rcode: int, plugin: str) -> None:
        self.metrics.count(Label(tcp, query.qtype, rcode, plugin, len(message), query.do), len(reply) + 2)


class _Networks:
    """Networks to ask by the text of an address."""

    def __init__(self, networks: Sequence[str]) -> None:
        self._networks = [ipaddress.ip_network(network, strict=False) for network in networks]

    def has(self, source: str) -> bool:
        try:
            address = ipaddress.ip_address(source.partition("%")[0])
        except ValueError:
            return False
        mapped = getattr(address, "ipv4_mapped", None)
        return any((mapped or address) in network for network in self._networks)


@lru_cache(maxsize=4096)
def _packed(source: str) -> bytes:
    """An address as cookies have it (RFC 9018 section 4.4)."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return b""
    return (getattr(address, "ipv4_mapped", None) or address).packed
