"""How much one user may ask of the control API: requests and processor time a second, at once, and watches.
Nobody starves the others.

Processor time is charged as it is spent, so who is over their share waits until it is paid back. Members of
system:masters have no rate, as upstream, so that whoever repairs something is not held up; watches are
counted for all, and a share of them is kept for system:masters. A large answer counts until it has been read. Who
shows bad credentials is slowed down by address; a certificate is not, since it cannot be guessed and others may share
the address.
"""

from __future__ import annotations

from collections import OrderedDict

from msgspec import Struct

from .status import StatusError

USERS_MAX = 10_000
"""Buckets that are kept; the one that was used least lately goes first."""
FAILURES_PER_SECOND, FAILURES_BURST = 5.0, 50.0
"""Bad credentials from one address."""
MASTERS_SHARE = 0.1
"""Of all watches, kept for system:masters."""


class Limits(Struct, frozen=True):
    """Per user."""

    requests_per_second: float = 200.0
    burst: float = 1000.0
    in_flight: int = 100
    watches: int = 200
    unread_bytes: int = 64 << 20
    """Of large answers that have not been read yet."""
    work: float = 0.25
    """Seconds of processor time a second; 0: no limit."""
    work_burst_s: float = 10.0
    """So much at once, before somebody has to wait. What a request takes is known when it is done, so one may go
    beyond this."""


class Buckets:
    """Token buckets by key, each one number: the time at which it was, or will be, empty of debt."""

    def __init__(self, rate: float, burst: float) -> None:
        self._each_s = 1.0 / rate
        self._depth_s = burst / rate
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, key: str, now: float) -> float:
        """Take one; 0, or the seconds until there is one."""
        at = max(self._full_at.get(key, 0.0), now)
        if at + self._each_s - now > self._depth_s:
            return at + self._each_s - now - self._depth_s
        self._full_at[key] = at + self._each_s
        self._full_at.move_to_end(key)
        while len(self._full_at) > USERS_MAX:
            self._full_at.popitem(last=False)
        return 0.0

    def would_wait(self, key: str, now: float) -> float:
        """Seconds until there is one; takes none."""
        at = max(self._full_at.get(key, 0.0), now)
        return max(0.0, at + self._each_s - now - self._depth_s)

    def spend(self, key: str, amount: float, now: float) -> None:
        """Take so much, whether it is there or not."""
        self._full_at[key] = max(self._full_at.get(key, 0.0), now) + amount * self._each_s
        self._full_at.move_to_end(key)
        while len(self._full_at) > USERS_MAX:
            self._full_at.popitem(last=False)

    def owes(self, key: str, now: float) -> float:
        """Seconds until nothing is owed."""
        return max(0.0, self._full_at.get(key, 0.0) - now - self._depth_s)


class ApiLimits:
    """What is under way, by user. `now`: seconds of a clock that only grows."""

    def __init__(self, limits: Limits, watches_max: int) -> None:
        self._limits = limits
        self._watches_max = watches_max
        self._requests = Buckets(limits.requests_per_second, limits.burst)
        self._failures = Buckets(FAILURES_PER_SECOND, FAILURES_BURST)
        self._work = Buckets(limits.work, limits.work_burst_s) if limits.work > 0 else None
        self._running: dict[tuple[str, bool], int] = {}
        """By (user, is a watch)."""
        self._unread: dict[str, int] = {}
        """Octets by user."""
        self.watching = 0
        self.refused = 0

    def begin(self, user: str, is_master: bool, is_watch: bool, now: float) -> None:
        """Count a request in, until `end`. Raises StatusError 429."""
        limits, key = self._limits, (user, is_watch)
        self.check_work(user, is_master, now)
        running = self._running.get(key, 0)
        if is_watch:
            room = self._watches_max if is_master else int(self._watches_max * (1 - MASTERS_SHARE))
            if self.watching >= room:
                raise self._refusal(f"{self.watching} watches are open already", 5)
            if not is_master and running >= limits.watches:
                raise self._refusal(f"user {user} has {running} watches open, the limit is {limits.watches}", 5)
        elif not is_master and running >= limits.in_flight:
            raise self._refusal(f"{running} requests of user {user} are under way, the limit is {limits.in_flight}", 1)
        if not is_master and (wait := self._requests.take(user, now)):
            raise self._refusal(
                f"user {user} sends more than {limits.requests_per_second:g} requests a second", int(wait) + 1
            )
        self._running[key] = running + 1
        self.watching += is_watch

    def end(self, user: str, is_watch: bool) -> None:
        key = (user, is_watch)
        left = self._running.get(key, 0) - 1
        if left > 0:
            self._running[key] = left
        else:
            self._running.pop(key, None)
        self.watching -= is_watch

    def worked(self, user: str, is_master: bool, seconds: float, now: float) -> None:
        """Charge processor time that a request of this user has taken."""
        if self._work is not None and not is_master:
            self._work.spend(user, seconds, now)

    def check_work(self, user: str, is_master: bool, now: float) -> None:
        """Raises StatusError 429 for who has taken more processor time than their share."""
        if self._work is None or is_master or not (wait := self._work.owes(user, now)):
            return
        raise self._refusal(
            f"the requests of user {user} have taken more processor time than {self._limits.work:g} s a second "
            f"({self._limits.work_burst_s:g} s at once)", int(wait) + 1
        )  # fmt: skip

    def hold(self, user: str, is_master: bool, size: int) -> None:
        """Count a large answer in that waits to be read, until `release`; the only one may be of any size. Raises
        StatusError 429."""
        unread = self._unread.get(user, 0)
        if unread and not is_master and unread + size > self._limits.unread_bytes:
            raise self._refusal(f"user {user} has {unread} bytes of answers to read", 5)
        self._unread[user] = unread + size

    def release(self, user: str, size: int) -> None:
        left = self._unread.get(user, 0) - size
        if left > 0:
            self._unread[user] = left
        else:
            self._unread.pop(user, None)

    def check_address(self, address: str, now: float) -> None:
        """Raises StatusError 429 for an address that has shown bad credentials too often."""
        if wait := self._failures.would_wait(address, now):
            raise self._refusal("too many requests with bad credentials from this address", int(wait) + 1)

    def failed(self, address: str, now: float) -> None:
        self._failures.take(address, now)

    def _refusal(self, why: str, wait_s: int) -> StatusError:
        self.refused += 1
        return StatusError(429, f"too many requests, please try again later: {why}", retry_after_s=wait_s)
