"""Token buckets, and the limits of one proxy by them (policy/rate_limits.py says which there are).

A bucket is one number, the moment at which it was, or will be, empty: at `cost_s` seconds a token it holds
(now - empty_at) / cost_s tokens, at most `most`. So it begins full, is filled by the time that has passed, in fractions
of a token (as Envoy's AtomicTokenBucket), and giving a token back is a subtraction. Where several workers share one,
the number stands in memory that all of them map, and is changed by compare-and-swap: the limit is exact. (In plain
Python, where there is none, workers that look at the same moment may take the same token.)
A core. Runs compiled (with rate_limit.pxd) or as it stands.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..policy.rate_limits import CLIENT, PROXY, Limit, RateLimits
from . import exposition
from .headers import clean

COMPILED = not __file__.endswith((".py", ".pyc"))
CLIENTS_MAX = 10000
"""Clients of one limit with a bucket of their own."""
FORGET_EVERY_S = 1.0
"""How often, at most, the table of clients is looked through for those who have had their tokens back."""
ROUNDING_S = 1e-9
FULL = float("-inf")
"""A bucket that nobody has taken from."""
Cell = tuple[Any, int]
"""Shared memory, as doubles, and the place in it of a bucket."""


class Bucket:
    """`most` tokens, one every `cost_s` seconds; full at first."""

    def __init__(self, most: float, cost_s: float, cell: Cell | None = None) -> None:
        self.cost_s = cost_s
        self.window_s = most * cost_s
        """From empty to full."""
        self._empty_at = FULL
        self._memory: Any = None
        self._place = 0
        self._address = 0
        if cell is not None:
            self._memory, self._place = cell
            if COMPILED:
                self._address = fl_address(self._memory, self._place)  # type: ignore[name-defined]  # noqa: F821

    def take(self, now: float) -> bool:
        """Take a token, if there is one."""
        if COMPILED and self._address:
            return bool(fl_take(self._address, now, self.window_s, self.cost_s, ROUNDING_S))  # type: ignore[name-defined]  # noqa: F821
        memory = self._memory
        before = self._empty_at if memory is None else memory[self._place]
        after = max(before, now - self.window_s) + self.cost_s
        if after > now + ROUNDING_S:
            return False
        if memory is None:
            self._empty_at = after
        else:
            memory[self._place] = after
        return True

    def give_back(self) -> None:
        """A token that was taken is not used after all."""
        if COMPILED and self._address:
            fl_give(self._address, self.cost_s)  # type: ignore[name-defined]  # noqa: F821
        elif self._memory is None:
            self._empty_at -= self.cost_s
        else:
            self._memory[self._place] -= self.cost_s

    def wait_s(self, now: float) -> float:
        """Seconds until there is a token; 0: there is one."""
        before = self._empty_at if self._memory is None else self._memory[self._place]
        return max(0.0, max(before, now - self.window_s) + self.cost_s - now)

    def full(self, now: float) -> bool:
        """Whether it is as good as new."""
        before = self._empty_at if self._memory is None else self._memory[self._place]
        return bool(before <= now - self.window_s)


class LiveLimit:
    """A limit with its buckets and counts; survives changes of the tables while its bucket's numbers stay."""

    def __init__(self, limit: Limit, cell: Cell | None) -> None:
        self.limit = limit
        self.cost_s = limit.fill_interval_s / limit.tokens_per_fill
        self.allowed = 0
        self.limited = 0
        """Refused."""
        self.over = 0
        """Let through although over the limit, since it is not enforced."""
        self.bucket: Bucket | None = Bucket(limit.max_tokens, self.cost_s, cell) if limit.per == PROXY else None
        self.clients: dict[str, Bucket] = {}
        self.others = Bucket(limit.max_tokens, self.cost_s)
        """Of all clients for whom there is no room in the table."""
        self.lines = b""
        self.update(limit)
        self._forgotten_at = FULL

    def update(self, limit: Limit) -> None:
        self.limit = limit
        self.lines = b"".join([clean(name) + b": " + clean(value) + b"\r\n" for name, value in limit.headers])

    def bucket_of(self, arrival: Any, now: float) -> Bucket:
        bucket = self.bucket
        if bucket is not None:
            return bucket
        limit = self.limit
        if limit.per == CLIENT:
            client: str = arrival.identity or arrival.source_ip
            bucket = self.clients.get(client)
            if bucket is None:
                if len(self.clients) >= CLIENTS_MAX and not self._make_room(now):
                    return self.others
                bucket = self.clients[client] = Bucket(limit.max_tokens, self.cost_s)
            return bucket
        own = arrival.buckets
        if own is None:
            own = arrival.buckets = {}
        bucket = own.get(self)
        if bucket is None:
            bucket = own[self] = Bucket(limit.max_tokens, self.cost_s)
        return bucket

    def _make_room(self, now: float) -> bool:
        """Forget clients whose bucket is full, which is as good as none."""
        if now - self._forgotten_at < FORGET_EVERY_S:
            return False
        self._forgotten_at = now
        self.clients = {client: bucket for client, bucket in self.clients.items() if not bucket.full(now)}
        return len(self.clients) < CLIENTS_MAX

    def why(self, arrival: Any, now: float) -> str:
        """Why something was refused, with the numbers."""
        wait = self.bucket_of(arrival, now).wait_s(now)
        return f"{self.limit}; there is a token in {wait:.3g} s."


class Limiter:
    """All limits of a proxy. `cell_of(label)`: where workers share the bucket of a limit for PROXY, or None."""

    def __init__(self, cell_of: Callable[[Limit], Cell | None] = lambda _limit: None) -> None:
        self.cell_of = cell_of
        self._requests: dict[str, tuple[LiveLimit, ...]] = {}
        self._connections: dict[str, tuple[LiveLimit, ...]] = {}

    def update(self, rules: RateLimits) -> None:
        """Take new tables: a limit whose bucket has the same numbers keeps its tokens and counts."""
        before = {live.limit.label + live.limit.what: live for live in self.all()}

        def live(limit: Limit) -> LiveLimit:
            known = before.get(limit.label + limit.what)
            if known is None or known.limit.shape != limit.shape:
                return LiveLimit(limit, self.cell_of(limit) if limit.per == PROXY else None)
            known.update(limit)
            return known

        self._requests = {at: tuple(map(live, limits)) for at, limits in rules.requests.items()}
        self._connections = {at: tuple(map(live, limits)) for at, limits in rules.connections.items()}

    def all(self) -> list[LiveLimit]:
        return [live for table in (self._requests, self._connections) for limits in table.values() for live in limits]

    def request(self, head: Any, decision: Any, now: float, draw: Callable[[], float]) -> LiveLimit | None:
        """Count a request; the limit that refuses it, or None. What is refused takes no token of any limit."""
        limits = self._requests.get(head.arrival.listener)
        if limits is None:
            return None
        counted = [live for live in limits if live.limit.counts(head, decision)]
        return self._count(counted, head.arrival, now, draw)

    def connection(self, listener: str, arrival: Any, now: float, draw: Callable[[], float]) -> LiveLimit | None:
        """The same of a new connection."""
        limits = self._connections.get(listener)
        if limits is None:
            return None
        counted = [live for live in limits if not live.limit.port or live.limit.port == arrival.port]
        return self._count(counted, arrival, now, draw)

    def _count(self, limits: list[LiveLimit], arrival: Any, now: float, draw: Callable[[], float]) -> LiveLimit | None:
        taken: list[Bucket] = []
        over: list[LiveLimit] = []
        for live in limits:
            bucket = live.bucket_of(arrival, now)
            if bucket.take(now):
                taken.append(bucket)
            elif live.limit.enforced_percentage > draw() * 100:
                for bucket in taken:
                    bucket.give_back()
                live.limited += 1
                return live
            else:
                over.append(live)
        for live in limits:
            if live in over:
                live.over += 1
            else:
                live.allowed += 1
        return None

    def lines(self) -> list[str]:
        """Counts in Prometheus' text format."""
        family = exposition.family
        every = self.all()
        lines: list[str] = []
        for name, text, attribute in (
            ("allowed", "Requests and connections that a local rate limit let through.", "allowed"),
            ("limited", "Those that it refused.", "limited"),
            ("over", "Those over it, let through because it is not enforced.", "over"),
        ):
            samples: Iterable[Any] = [
                ({"limit": live.limit.label, "of": live.limit.what}, getattr(live, attribute)) for live in every
            ]
            lines += family(f"fairlead_local_rate_limit_{name}_total", "counter", text, samples)
        own = [({"limit": one.limit.label}, len(one.clients)) for one in every if one.limit.per == CLIENT]
        return lines + family("fairlead_local_rate_limit_clients", "gauge", "Clients with a bucket of their own.", own)
