"""Answers of other servers, kept as long as they allow (RFC 2308, 8767, 9520), in bounded memory."""

from __future__ import annotations

from collections.abc import Sequence

from .message import (
    CNAME,
    NOERROR,
    NXDOMAIN,
    SERVFAIL,
    SOA,
    Message,
    RRset,
)

Key = tuple[bytes, int, bool, bool]
"""Name in lower case, type, DO, CD."""
STALE_TTL = 30
RETRY_S = 30.0
FAILURE_S = 1.0
PREFETCH_SHARE, PREFETCH_S, PREFETCH_ASKED, PREFETCH_TTL = 0.1, 2.0, 2, 5.0
"""An answer is asked for anew in the last tenth of its time, but 2 s before its end, if it was in demand twice and
was to be kept for 5 s or more."""


class Entry:
    """One answer, as it was at `stored`."""

    __slots__ = (
        "ad",
        "additional",
        "answer",
        "asked",
        "authority",
        "expires",
        "octets",
        "rcode",
        "refreshing",
        "retry_at",
        "stored",
    )

    def __init__(self, message: Message, now: float, ttl: float) -> None:
        self.rcode = message.rcode
        self.ad = bool(message.flags & 0x20)
        self.answer = tuple(message.answer)
        self.authority = tuple(message.authority)
        self.additional = tuple(message.additional)
        self.stored = now
        self.expires = now + ttl
        self.asked = 0
        """How often it was found; at most once a second, since answers made of it are kept so long."""
        self.refreshing = False
        self.retry_at = 0.0
        """Until then it is given without asking again, though it has expired: the last try failed (RFC 8767)."""
        everything = (*self.answer, *self.authority, *self.additional)
        self.octets = 200 + sum(100 + sum(50 + len(data) for data in rrset.rdata) for rrset in everything)

    def at(self, now: float) -> tuple[tuple[RRset, ...], tuple[RRset, ...], tuple[RRset, ...]]:
        """Answer, authority and additional with the TTLs that are left; STALE_TTL for what has expired."""
        if now >= self.expires:
            return tuple(
                tuple(RRset(r.owner, r.rtype, STALE_TTL, r.rdata) for r in section)
                for section in (self.answer, self.authority, self.additional)
            )  # type: ignore[return-value]
        age = max(0, int(now - self.stored))
        return tuple(
            tuple(RRset(r.owner, r.rtype, max(0, r.ttl - age), r.rdata) for r in section)
            for section in (self.answer, self.authority, self.additional)
        )  # type: ignore[return-value]


class Cache:
    """Least recently used goes first, when there are more than `size` entries or `octets` octets (as estimated)."""

    def __init__(
        self,
        size: int = 10_000,
        octets: int = 16 << 20,
        *,
        longest_s: float = 3600.0,
        longest_negative_s: float = 1800.0,
        stale_s: float = 86_400.0,
    ) -> None:
        self.size = size
        self.octets = octets
        self.longest_s = longest_s
        self.longest_negative_s = longest_negative_s
        self.stale_s = stale_s
        self.held = 0
        self.hits = {"success": 0, "denial": 0}
        self.misses = 0
        self.served_stale = 0
        self.evictions = 0
        self.prefetches = 0
        self._entries: dict[Key, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, key: Key, now: float) -> Entry | None:
        """What is known and not expired."""
        for known in (key, (key[0], 0, key[2], key[3])):  # NXDOMAIN is kept under type 0: it holds for all types
            entry = self._entries.get(known)
            if entry is not None and now < entry.expires:
                del self._entries[known]
                self._entries[known] = entry
                entry.asked += 1
                self.hits["success" if entry.answer and entry.rcode == NOERROR else "denial"] += 1
                return entry
        self.misses += 1
        return None

    def fading(self, entry: Entry, now: float) -> bool:
        """Whether an answer should be asked for anew before it ends; says so once."""
        ttl = entry.expires - entry.stored
        if entry.refreshing or entry.asked < PREFETCH_ASKED or ttl < PREFETCH_TTL:
            return False
        entry.refreshing = now >= entry.expires - max(ttl * PREFETCH_SHARE, PREFETCH_S)
        return entry.refreshing

    def stale(self, key: Key, now: float) -> Entry | None:
        """What was known, if it expired no more than `stale_s` ago and was no failure (RFC 8767)."""
        for known in (key, (key[0], 0, key[2], key[3])):
            entry = self._entries.get(known)
            if entry is not None and now < entry.expires + self.stale_s and entry.rcode in (NOERROR, NXDOMAIN):
                return entry
        return None

    def put(self, key: Key, message: Message, now: float) -> Entry:
        """Keep an answer for as long as it may be kept, which may be not at all."""
        ttl = self.lifetime(message)
        entry = Entry(message, now, ttl)
        name = (key[0], 0, key[2], key[3])
        if message.rcode in (NOERROR, NXDOMAIN):
            self._drop(name)
            self._drop(key)
        elif self.stale(key, now) is not None:
            return entry  # a failure does not take the place of what can still be served
        if ttl > 0:
            # A denial at the end of an alias says nothing about the first name's other types.
            self._keep(name if message.rcode == NXDOMAIN and not message.answer else key, entry)
        return entry

    def lifetime(self, message: Message) -> float:
        """Seconds for which a message may be kept."""
        if message.rcode == SERVFAIL:
            return FAILURE_S
        if message.rcode not in (NOERROR, NXDOMAIN):
            return 0.0
        ttls: list[float] = [rrset.ttl for rrset in message.answer]
        if message.rcode == NOERROR and any(rrset.rtype != CNAME for rrset in message.answer):
            return min(min(ttls), self.longest_s)
        starts = [r for r in message.authority if r.rtype == SOA]
        if not starts:
            # Nothing to say for how long (RFC 2308 section 5); an answer of aliases only is good for its own TTLs
            # when that is what was asked for, which the resolver sets right by asking type CNAME.
            return min(min(ttls), self.longest_s) if ttls and message.question[-4:-2] == b"\0\5" else 0.0
        ttls += [min(starts[0].ttl, int.from_bytes(starts[0].rdata[0][-4:], "big"))]
        return min(min(ttls), self.longest_negative_s)

    def forget(self, names: Sequence[bytes]) -> None:
        """Drop what is known of these names, all types."""
        gone = set(names)
        for key in [key for key in self._entries if key[0] in gone]:
            self._drop(key)

    def clear(self) -> None:
        self._entries.clear()
        self.held = 0

    def _keep(self, key: Key, entry: Entry) -> None:
        if entry.octets > self.octets // 8:
            return
        self._drop(key)
        self._entries[key] = entry
        self.held += entry.octets
        while len(self._entries) > self.size or self.held > self.octets:
            self._drop(next(iter(self._entries)))
            self.evictions += 1

    def _drop(self, key: Key) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self.held -= entry.octets
