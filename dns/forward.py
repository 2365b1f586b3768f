"""Ask other servers: whom, when again, and which reply to believe (RFC 5452). One `Lookup` a question in flight."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from dnslib import EDNS0, DNSHeader, DNSLabel, DNSQuestion, DNSRecord
from msgspec import Struct

from .cache import Key
from .message import (
    CNAME,
    FORMERR,
    NOERROR,
    NOTIMP,
    NXDOMAIN,
    PAYLOAD,
    REFUSED,
    SERVFAIL,
    SOA,
    Malformed,
    Message,
    labels_of,
    read_message,
)
from .metrics import DURATIONS, Histogram

Server = tuple[str, int]
"""Address and port."""

TOTAL_S = 4.4
"""A stub gives up after 5 s; the client hears of a failure before."""
NEXT_SERVER_S = 0.25
"""Silence after which another server is asked as well."""
AGAIN_S = (0.8, 1.6, 3.0)
"""Seconds after the start at which, with no server left to try, all are asked again."""
SHUN_S = 5.0
"""How long a server that failed is asked last."""
BAD_REPLIES = 3
"""Replies in a row without use (SERVFAIL, REFUSED, ...) that count as a failure: it is there, and no help."""


class Send(Struct, frozen=True):
    """Send this, from a port of its own, and feed what comes back to `reply` with `number`."""

    number: int
    server: Server
    octets: bytes
    tcp: bool


class Upstreams:
    """The servers to ask, and how they have been doing."""

    def __init__(self, servers: Sequence[Server], tls: Mapping[Server, str] | None = None) -> None:
        """`tls`: names in the certificates of those that are asked over TLS; empty: the address."""
        self.servers = tuple(servers)
        self.tls = dict(tls or {})
        self.looping: set[Server] = set()
        """Those that ask us what we ask them; not asked."""
        self._shunned: dict[Server, float] = {}
        self._bad: dict[Server, int] = {}
        self.failures: dict[Server, int] = dict.fromkeys(self.servers, 0)
        self.requests: dict[tuple[Server, int], int] = {}
        self.durations: dict[tuple[Server, int], Histogram] = {}
        self.broken = 0
        """Questions asked while all of them were failing."""

    def usable(self) -> list[Server]:
        return [server for server in self.servers if server not in self.looping]

    def order(self, now: float) -> list[Server]:
        """As configured; those that failed within the last SHUN_S seconds at the end."""
        servers = self.usable()
        failing = [server for server in servers if self._shunned.get(server, 0.0) > now]
        self.broken += bool(failing) and len(failing) == len(servers)
        return [server for server in servers if server not in failing] + failing

    def failed(self, server: Server, now: float) -> None:
        self._shunned[server] = now + SHUN_S
        self.failures[server] = self.failures.get(server, 0) + 1

    def answered(self, server: Server, rcode: int, now: float = 0.0, seconds: float = 0.0) -> None:
        key = (server, rcode)
        self.requests[key] = self.requests.get(key, 0) + 1
        self.durations.setdefault(key, Histogram(DURATIONS)).add(seconds)
        if rcode in (NOERROR, NXDOMAIN):
            self._bad.pop(server, None)
            self._shunned.pop(server, None)
            return
        self._bad[server] = self._bad.get(server, 0) + 1
        if self._bad[server] >= BAD_REPLIES:
            self._shunned[server] = now + SHUN_S


class _Try:
    __slots__ = ("edns", "ident", "over", "server", "since", "tcp")

    def __init__(self, server: Server, ident: int, tcp: bool, edns: bool, since: float) -> None:
        self.since = since
        self.server = server
        self.ident = ident
        self.tcp = tcp
        self.edns = edns
        self.over = False


class Lookup:
    """One question to the upstreams. Feed it replies and time; do what is in `outbox`; `result` ends it.

    `ident` gives the random ID of each query (0 to 65535).
    """

    def __init__(self, key: Key, upstreams: Upstreams, now: float, ident: Callable[[], int]) -> None:
        self.key = key
        self.upstreams = upstreams
        self.outbox: list[Send] = []
        self.result: Message | None = None
        self.done = False
        self.ended = now + TOTAL_S
        self._start = now
        self._ident = ident
        self._tries: list[_Try] = []
        self._left = upstreams.order(now)
        self._again = list(AGAIN_S)
        self._worst: Message | None = None
        self._next_at = now
        self.question = key[0] + key[1].to_bytes(2, "big") + b"\0\1"
        self.tick(now)

    def wake_at(self) -> float:
        """When `tick` is due."""
        return min(self._next_at, self.ended)

    def tick(self, now: float) -> None:
        """Time passed: ask the next server, or give up."""
        if self.done:
            return
        if not self.upstreams.usable():
            self._finish(None)
            return
        if now >= self.ended:
            for server in {attempt.server for attempt in self._tries if not attempt.over}:
                self.upstreams.failed(server, now)
            self._finish(self._worst)
            return
        if now < self._next_at:
            return
        if self._left:
            self._ask(self._left.pop(0), now)
            self._next_at = now + NEXT_SERVER_S if self._left else self._next_again()
        else:
            for server in self.upstreams.usable():
                self._ask(server, now)
            self._next_at = self._next_again()

    def reply(self, number: int, source: Server, octets: bytes, now: float) -> bool:
        """A message came for try `number`; False: not an answer to what was asked, keep listening."""
        if self.done or number >= len(self._tries):
            return False
        attempt = self._tries[number]
        if source != attempt.server or len(octets) < 12 or octets[:2] != attempt.ident.to_bytes(2, "big"):
            return False
        if not octets[2] & 0x80 or attempt.over:
            return False
        try:
            message = _answer(octets, self.question)
        except Malformed:
            self.failed(number, now)
            return True
        if message is None:
            return False
        attempt.over = True
        self.upstreams.answered(attempt.server, message.rcode, now, now - attempt.since)
        if octets[2] & 2 and not attempt.tcp:
            self._ask(attempt.server, now, tcp=True, edns=attempt.edns)
        elif message.rcode == FORMERR and attempt.edns:
            self._ask(attempt.server, now, tcp=attempt.tcp, edns=False)
        elif message.rcode in (NOERROR, NXDOMAIN):
            self._finish(message)
        else:
            self._worst = message if self._worst is None or message.rcode == SERVFAIL else self._worst
            self._move_on(now, attempt.server)
        return True

    def failed(self, number: int, now: float) -> None:
        """Try `number` cannot succeed: refused, unreachable, cut off, or garbage."""
        attempt = self._tries[number]
        if not self.done and not attempt.over:
            attempt.over = True
            self.upstreams.failed(attempt.server, now)
            self._move_on(now, attempt.server)

    def _move_on(self, now: float, server: Server) -> None:
        """A server gave nothing of use: ask the next at once; with none left and none in flight, that is the result."""
        if self._left:
            self._next_at = now
            self.tick(now)
        elif all(attempt.over for attempt in self._tries):
            if self._worst is not None or not self._again:
                self._finish(self._worst)
            # Else nobody could be reached; another round is due at _next_at.

    def _next_again(self) -> float:
        return self._start + self._again.pop(0) if self._again else self.ended

    def _ask(self, server: Server, now: float, tcp: bool = False, edns: bool = True) -> None:
        ident = self._ident()
        tcp = tcp or server in self.upstreams.tls
        self.outbox.append(Send(len(self._tries), server, query_octets(self.key, ident, edns), tcp))
        self._tries.append(_Try(server, ident, tcp, edns, now))

    def _finish(self, message: Message | None) -> None:
        self.result = message
        self.done = True


def query_octets(key: Key, ident: int, edns: bool = True) -> bytes:
    """A recursive query as it goes upstream."""
    name, qtype, do, cd = key
    header = DNSHeader(id=ident, bitmap=0x0100 | (0x10 if cd else 0) | (0x20 if do else 0))
    record = DNSRecord(header, q=DNSQuestion(DNSLabel(tuple(labels_of(name))), qtype))
    if edns:
        record.add_ar(EDNS0(flags="do" if do else "", udp_len=PAYLOAD))
    return bytes(record.pack())


def _answer(octets: bytes, question: bytes) -> Message | None:
    """The reply with what belongs to the question; None where it answers another. Raises Malformed."""
    if octets[2] & 2:  # cut: it is asked again over TCP, so only its question counts
        end = 12 + len(question)
        same = octets[4:6] == b"\0\1" and octets[12:end].lower() == question.lower()
        return Message(0, octets[3] & 15, question) if same else None
    if octets[4:6] == b"\0\0" and octets[3] & 15 in (FORMERR, NOTIMP, SERVFAIL, REFUSED):
        return Message(0, octets[3] & 15, question)  # a header only: all that some send for what they cannot read
    message = read_message(octets)
    asked = message.question
    if asked[-4:] != question[-4:] or asked[:-4].lower() != question[:-4]:
        return None
    wanted = question[:-4]
    chain, aliases = [], {r.owner.lower(): r for r in message.answer if r.rtype == CNAME}
    qtype = int.from_bytes(question[-4:-2], "big")
    while True:  # the aliases from the name asked for, in order, then what stands at the last
        here = [r for r in message.answer if r.owner.lower() == wanted and (r.rtype != CNAME or qtype in (CNAME, 255))]
        alias = aliases.pop(wanted, None) if qtype not in (CNAME, 255) else None
        signatures = [r for r in here if r.rtype == 46]
        if alias is None:
            chain += [r for r in here if r.rtype == qtype or qtype == 255 or r.rtype == 46]
            break
        chain += [alias, *signatures]
        wanted = alias.rdata[0].lower()
    message.answer = chain
    found = any(r.rtype == qtype or qtype == 255 for r in chain)
    # Of the authority section, what a denial needs; with DO, also its proof.
    message.authority = [] if found else [r for r in message.authority if r.rtype in (SOA, 46, 47, 50)]
    message.additional = [r for r in message.additional if r.rtype in (1, 28) and qtype in (15, 33)]
    return message
