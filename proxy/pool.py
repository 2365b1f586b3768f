"""Connections to one cluster: reuse, open, wait or refuse, within the limits of its DestinationRule."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from .cluster import CONNECTIONS, PENDING

if TYPE_CHECKING:
    from .cluster import LiveCluster
    from .host import Host
    from .message import ResponseHead


class Waiter:
    """What needs a connection, and hears of it: an Exchange, or the copy of one for a mirror."""

    host: Host
    wants_two: bool
    """By HTTP/2, where the endpoint can."""
    moment: float
    """About now."""

    def may_be_sent_again(self) -> bool:
        """Whether it does no harm if the connection that it gets is closed at that very moment."""
        raise NotImplementedError

    def connected(self, upstream: Any) -> None:
        raise NotImplementedError

    def connect_failed(self, why: str) -> None:
        raise NotImplementedError

    def interim(self, head: ResponseHead) -> None:
        raise NotImplementedError

    def response(self, head: ResponseHead, body: bytes, complete: bool) -> None:
        raise NotImplementedError

    def response_body(self, body: bytes, complete: bool) -> None:
        raise NotImplementedError

    def upstream_lost(self, why: str, malformed: bool = False, refused: bool = False) -> None:
        raise NotImplementedError

    def upstream_full(self, full: bool) -> None:
        raise NotImplementedError


STREAMS_ASSUMED = 100
"""Streams that an HTTP/2 connection still being made is thought to carry (RFC 9113 section 6.5.2 advises it)."""


class Overflow(Exception):
    """A limit is reached; `str()` says which, with its numbers."""


class Pool:
    """The pool of one LiveCluster. `connect(pool, host, two)` starts a connection (`two`: of HTTP/2, where the
    endpoint can) that ends in `ready` or `failed`.

    An HTTP/1 connection is in `host.idle` between its exchanges; one of HTTP/2 is in `host.shared` all the time.
    """

    def __init__(self, live: LiveCluster, connect: Callable[[Any, Host, bool], None]) -> None:
        self.live = live
        self.connect = connect
        self.waiting: deque[Any] = deque()
        self.connecting = 0
        self.opening_two: dict[Any, int] = {}
        """How many of these are to be of HTTP/2, by host."""
        self.retired = False
        """The cluster is no longer in the tables: what runs may end, nothing is kept for later."""

    def acquire(self, host: Host, waiter: Waiter) -> Any:
        """An idle connection or a stream, or None: the waiter is told later. Raises Overflow."""
        two = waiter.wants_two
        if two:
            for connection in host.shared:
                if connection.room():
                    return connection.stream()
        if not two or host.one_only:
            idle = host.idle
            while idle:
                upstream = idle.pop()
                if not upstream.usable:
                    continue
                idle_s = waiter.moment - upstream.idle_since
                if idle_s > host.fresh_s:
                    if idle:  # the one that is idle for longest is still open
                        host.was_kept(waiter.moment - idle[0].idle_since)
                    if not host.may_use(idle_s, waiter.may_be_sent_again()):
                        idle.append(upstream)
                        self._too_old(host)
                        break
                upstream.idle_s = idle_s
                return upstream
        limits = self.live.config.limits
        if limits.max_pending and len(self.waiting) + self.live.elsewhere(PENDING) >= limits.max_pending:
            count = len(self.waiting) + self.live.elsewhere(PENDING)
            raise Overflow(
                f"{count} {'request already waits' if count == 1 else 'requests already wait'} for a connection to "
                f"{self.live.config.host}:{self.live.config.port}; http1MaxPendingRequests is {limits.max_pending}"
            )
        self.waiting.append(waiter)
        self._count_waiting()
        self._open(host, two)
        return None

    def _too_old(self, host: Host) -> None:
        """What is idle is no longer to be used: all but the oldest is closed, which shows how long the endpoint keeps
        it; all where connections are counted."""
        kept = 0 if self.live.config.limits.max_connections else 1
        for upstream in list(host.idle[kept:]):
            upstream.close()

    def open_allowed(self, host: Host) -> bool:
        """Whether maxConnections lets one more connection be made; an endpoint without any may always have one."""
        most = self.live.config.limits.max_connections
        return not most or host.connections == 0 or self.live.connections + self.live.elsewhere(CONNECTIONS) < most

    def count_open(self, host: Host) -> None:
        live = self.live
        live.connections += 1
        host.connections += 1
        if live.shared is not None:
            live.shared.publish(live)

    def count_closed(self, host: Host) -> None:
        live = self.live
        live.connections -= 1
        host.connections -= 1
        if live.shared is not None:
            live.shared.publish(live)

    def _count_waiting(self) -> None:
        live = self.live
        live.pending = len(self.waiting)
        if live.shared is not None:
            live.shared.publish(live)

    def _open(self, host: Host, two: bool) -> None:
        if self.connecting >= len(self.waiting):
            return
        if not self.open_allowed(host):
            self._close_idle_but(host)
            return
        if two:
            opening = self.opening_two.get(host, 0)
            if not host.one_only and opening * STREAMS_ASSUMED >= len(self.waiting):
                return
            self.opening_two[host] = opening + 1
        self.connecting += 1
        self.count_open(host)
        self.connect(self, host, two)

    def _close_idle_but(self, host: Host) -> None:
        """Close what is idle for longest at another endpoint, which uses up maxConnections: who waits for this endpoint
        could otherwise wait for a stream that never ends. When it is closed, `_open_next`."""
        for other in self.live.hosts:
            if other is host:
                continue
            if other.idle:
                other.idle[0].close()
                return
            for connection in other.shared:
                if not connection.taken:
                    connection.retire()
                    return

    def _opened(self, host: Host, two: bool) -> None:
        self.connecting -= 1
        if two:
            left = self.opening_two.pop(host, 1) - 1
            if left:
                self.opening_two[host] = left

    def ready(self, upstream: Any) -> None:
        """A new connection is made."""
        host = upstream.host
        self._opened(host, upstream.asked_two)
        if upstream.two:
            host.one_only = False
            host.shared.append(upstream)
            self.give(upstream)
            self._open_next()
            return
        if upstream.asked_two:  # the endpoint has no HTTP/2: one connection for each that waits
            host.one_only = True
            for _ in range(len(self.waiting) - 1):
                self._open(host, True)
        self.offer(upstream)

    def give(self, connection: Any) -> None:
        """Streams of an HTTP/2 connection for those that wait, while it has room."""
        bound = connection.host.gone or self.live.config.load_balancer.hash_on
        while self.waiting and connection.room():
            for waiter in self.waiting:
                if waiter.wants_two and (waiter.host is connection.host or not bound):
                    break
            else:
                return
            self.waiting.remove(waiter)
            self._count_waiting()
            waiter.connected(connection.stream())

    def failed(self, host: Host, why: str, two: bool = False) -> None:
        """A new connection could not be made: the first that waits for this endpoint hears it.

        All that wait for an HTTP/2 connection hear it, since one was to carry them all.
        """
        self._opened(host, two)
        self.count_closed(host)
        if two and not self.opening_two.get(host):
            for waiter in [one for one in self.waiting if one.host is host and one.wants_two]:
                if waiter in self.waiting:
                    self.waiting.remove(waiter)
                    self._count_waiting()
                    waiter.connect_failed(why)
            self._open_next()
            return
        for waiter in self.waiting:
            if waiter.host is host:
                self.waiting.remove(waiter)
                self._count_waiting()
                waiter.connect_failed(why)
                break
        self._open_next()

    def offer(self, upstream: Any) -> None:
        """A connection is free: for the first that waits and may use it, else idle."""
        if self.waiting:
            bound = upstream.host.gone or self.live.config.load_balancer.hash_on
            for waiter in self.waiting:
                if (waiter.host is upstream.host or not bound) and (not waiter.wants_two or upstream.host.one_only):
                    self.waiting.remove(waiter)
                    self._count_waiting()
                    waiter.connected(upstream)
                    return
        host = upstream.host
        if self.retired or host.gone or self._wanted_elsewhere():
            upstream.close()
        else:
            host.idle.append(upstream)

    def closed(self, upstream: Any) -> None:
        """A connection that was made is no more."""
        self.count_closed(upstream.host)
        try:
            (upstream.host.shared if upstream.two else upstream.host.idle).remove(upstream)
        except ValueError:
            pass
        self._open_next()

    def _wanted_elsewhere(self) -> bool:
        """Whether another worker's requests wait because our idle connections use maxConnections up."""
        live = self.live
        most = live.config.limits.max_connections
        return (
            live.shared is not None
            and most > 0
            and live.shared.others(PENDING) > 0
            and live.connections + live.shared.others(CONNECTIONS) >= most
        )

    def _open_next(self) -> None:
        if self.waiting:
            self._open(self.waiting[0].host, self.waiting[0].wants_two)

    def cancel(self, waiter: Any) -> None:
        """The waiter no longer wants a connection."""
        try:
            self.waiting.remove(waiter)
        except ValueError:
            return
        self._count_waiting()

    def sweep(self, now: float) -> None:
        """Close what was idle or open for too long, or is idle here and wanted by another worker."""
        limits = self.live.config.limits
        if self.live.shared is not None:
            self.live.shared.publish(self.live)
            if self._wanted_elsewhere():
                self.drop_idle(self.live.hosts)
            self._open_next()  # another worker may have closed one for us
        for host in self.live.hosts:
            if host.closes_s:  # the oldest stays, to show when the endpoint closes it
                for upstream in [one for one in host.idle[1:] if not host.may_use(now - one.idle_since, True)]:
                    upstream.close()
            for upstream in list(host.idle):
                if (limits.idle_timeout_s and now - upstream.idle_since >= limits.idle_timeout_s) or (
                    limits.max_connection_duration_s and now - upstream.opened_at >= limits.max_connection_duration_s
                ):
                    upstream.close()
            for connection in list(host.shared):
                connection.sweep(now)

    def drop_idle(self, hosts: Any) -> None:
        """Close the idle connections of these hosts; those in use end with their exchange."""
        for host in hosts:
            for upstream in list(host.idle):
                upstream.close()
            for connection in list(host.shared):
                if self.retired or host.gone or not connection.taken:
                    connection.retire()

    def retire(self) -> None:
        self.retired = True
        self.drop_idle(self.live.hosts)
