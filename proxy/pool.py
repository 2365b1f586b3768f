"""Connections to one cluster: reuse, open, wait or refuse, within the limits of its DestinationRule."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol

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
        if limits.max_pending and len(self.waiting) >= limits.max_pending:
            raise Overflow(
                f"{len(self.waiting)} requests already wait for a connection to {self.live.config.host}:"
                f"{self.live.config.port}; http1MaxPendingRequests is {limits.max_pending}"
            )
        self.waiting.append(waiter)
        self.live.pending = len(self.waiting)
        self._open(host)
        return None

    def open_allowed(self, host: Host) -> bool:
        """Whether maxConnections lets one more connection be made; an endpoint without any may always have one."""
        most = self.live.config.limits.max_connections
        return not most or self.live.connections < most or host.connections == 0

    def count_open(self, host: Host) -> None:
        self.live.connections += 1
        host.connections += 1

    def count_closed(self, host: Host) -> None:
        self.live.connections -= 1
        host.connections -= 1

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
                self.live.pending = len(self.waiting)
                waiter.connect_failed(why)
                break
        self._open_next()

    def offer(self, upstream: Any) -> None:
        """A connection is free: for the first that waits and may use it, else idle."""
        if self.waiting:
            bound = self.live.config.load_balancer.hash_on
            for waiter in self.waiting:
                if waiter.host is upstream.host or not bound:
                    self.waiting.remove(waiter)
                    self.live.pending = len(self.waiting)
                    waiter.connected(upstream)
                    return
        if self.retired:
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

    def _open_next(self) -> None:
        if self.waiting:
            self._open(self.waiting[0].host)

    def cancel(self, waiter: Any) -> None:
        """The waiter no longer wants a connection."""
        try:
            self.waiting.remove(waiter)
        except ValueError:
            return
        self.live.pending = len(self.waiting)

    def sweep(self, now: float) -> None:
        """Close what was idle or open for too long."""
        limits = self.live.config.limits
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
