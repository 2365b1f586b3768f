"""Connections to one cluster: reuse, open, wait or refuse, within the limits of its DestinationRule."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

from .cluster import CONNECTIONS, PENDING

if TYPE_CHECKING:
    from .cluster import Host, LiveCluster


class Waiter(Protocol):
    """An exchange that needs a connection."""

    host: Host

    def connected(self, upstream: Any) -> None: ...
    def connect_failed(self, why: str) -> None: ...


class Overflow(Exception):
    """A limit is reached; `str()` says which, with its numbers."""


class Pool:
    """The pool of one LiveCluster. `connect(pool, host)` starts a connection that ends in `ready` or `failed`."""

    def __init__(self, live: LiveCluster, connect: Callable[[Any, Host], None]) -> None:
        self.live = live
        self.connect = connect
        self.waiting: deque[Any] = deque()
        self.connecting = 0
        self.retired = False
        """The cluster is no longer in the tables: what runs may end, nothing is kept for later."""

    def acquire(self, host: Host, waiter: Any) -> Any:
        """An idle connection, or None: the waiter is told later. Raises Overflow."""
        idle = host.idle
        while idle:
            upstream = idle.pop()
            if upstream.usable:
                return upstream
        limits = self.live.config.limits
        if limits.max_pending and len(self.waiting) + self.live.elsewhere(PENDING) >= limits.max_pending:
            raise Overflow(
                f"{len(self.waiting) + self.live.elsewhere(PENDING)} requests already wait for a connection to "
                f"{self.live.config.host}:{self.live.config.port}; http1MaxPendingRequests is {limits.max_pending}"
            )
        self.waiting.append(waiter)
        self._count_waiting()
        self._open(host)
        return None

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

    def _open(self, host: Host) -> None:
        if self.connecting < len(self.waiting) and self.open_allowed(host):
            self.connecting += 1
            self.count_open(host)
            self.connect(self, host)

    def ready(self, upstream: Any) -> None:
        """A new connection is made."""
        self.connecting -= 1
        self.offer(upstream)

    def failed(self, host: Host, why: str) -> None:
        """A new connection could not be made: the first that waits for this endpoint hears it."""
        self.connecting -= 1
        self.count_closed(host)
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
                if waiter.host is upstream.host or not bound:
                    self.waiting.remove(waiter)
                    self._count_waiting()
                    waiter.connected(upstream)
                    return
        if self.retired or upstream.host.gone or self._wanted_elsewhere():
            upstream.close()
        else:
            upstream.host.idle.append(upstream)

    def closed(self, upstream: Any) -> None:
        """A connection that was made is no more."""
        self.count_closed(upstream.host)
        try:
            upstream.host.idle.remove(upstream)
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
            self._open(self.waiting[0].host)

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
            for upstream in list(host.idle):
                if (limits.idle_timeout_s and now - upstream.idle_since >= limits.idle_timeout_s) or (
                    limits.max_connection_duration_s and now - upstream.opened_at >= limits.max_connection_duration_s
                ):
                    upstream.close()

    def drop_idle(self, hosts: Any) -> None:
        """Close the idle connections of these hosts; those in use end with their exchange."""
        for host in hosts:
            for upstream in list(host.idle):
                upstream.close()

    def retire(self) -> None:
        self.retired = True
        self.drop_idle(self.live.hosts)
