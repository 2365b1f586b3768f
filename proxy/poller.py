"""Shell: the epoll that the connections of the data path share, and their listening sockets.

A Poller has an epoll of its own, which the event loop watches like one descriptor: in a turn of the loop it takes
everything that is ready, so that no object of the loop's is made or called for an event, and what a turn leads to is
done at its end (`soon`). Runs compiled (with poller.pxd, whose functions wait in C) or as it stands.
"""

from __future__ import annotations

import asyncio
import select
import socket
from collections.abc import Callable
from typing import Any

ACCEPTS_A_TURN = 64
BACKLOG = 4096
"""Connections that the kernel keeps until they are accepted."""
OUT_OF_DESCRIPTORS_S = 0.1
"""How long nothing is accepted then."""
COMPILED = not __file__.endswith((".py", ".pyc"))
EPOLLIN, EPOLLOUT = 1, 4
EVENTS_A_TURN = 256
# For the .pxd, which hides what it types.
_IN, _OUT = EPOLLIN, EPOLLOUT


def malloc_trim() -> bool:
    """glibc's malloc_trim(0): whether anything went back to the system. False where there is none."""
    if COMPILED:
        return bool(fl_malloc_trim())  # type: ignore[name-defined]  # noqa: F821
    return bool(_library("malloc_trim", 0))


def mallopt(option: int, value: int) -> bool:
    """glibc's mallopt(3): whether the option was set. False where there is none."""
    if COMPILED:
        return bool(fl_mallopt(option, value))  # type: ignore[name-defined]  # noqa: F821
    return bool(_library("mallopt", option, value))


def _library(name: str, *values: int) -> int:
    import ctypes  # a quarter of a megabyte, for those who run uncompiled

    found = getattr(ctypes.CDLL(None), name, None)
    return 0 if found is None else int(found(*values))


class Protocol:
    """What a transport calls; those of the data path call one of this type directly."""

    def data_received(self, data: bytes) -> None:
        raise NotImplementedError


class Watcher(Protocol):
    """What a Poller calls when its descriptor is ready."""

    def readable(self) -> None:
        raise NotImplementedError

    def writable(self) -> None:
        raise NotImplementedError

    def flush(self) -> None:
        """Send what was put off to the turn's end."""

    def broken(self, error: Exception) -> None:
        """One of these raised this."""


class Transport(Watcher):
    """A connection as protocols of the data path see it, without TLS (Wire) or with (Tls)."""

    def write(self, data: bytes) -> None:
        """What is written after `close` or `write_eof` is dropped."""
        raise NotImplementedError


class Listener(Watcher):
    """A listening socket; `accepted(sock, peer)` gets each connection."""

    def __init__(self, poller: Poller, sock: socket.socket, accepted: Callable[[socket.socket, Any], None]) -> None:
        self.poller = poller
        self.sock = sock
        self.accepted = accepted
        self.taken = 0
        """Connections so far."""
        self._timer: Any = None
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is accepted inherits it
        poller.watch(sock.fileno(), self, _IN)

    def readable(self) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, peer = self.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # out of descriptors: the backlog keeps the rest for later
                self.poller.forget(self.sock.fileno())
                self._timer = self.poller.loop.call_later(OUT_OF_DESCRIPTORS_S, self._again)
                return
            self.taken += 1
            sock.setblocking(False)
            self.accepted(sock, peer)

    def _again(self) -> None:
        self._timer = None
        self.poller.watch(self.sock.fileno(), self, _IN)

    def accept_rest(self) -> None:
        """Take what the kernel holds: it resets what is not accepted when the socket is closed."""
        if self.sock.fileno() >= 0 and self._timer is None:
            for _ in range(BACKLOG // ACCEPTS_A_TURN):
                before = self.taken
                self.readable()
                if self.taken < before + ACCEPTS_A_TURN:
                    return

    def close(self) -> None:
        """Accept no more. Idempotent."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.sock.fileno() >= 0:
            self.poller.forget(self.sock.fileno())
            self.sock.close()


class Poller:
    """One for each event loop."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.closed = False
        self.watchers: list[Watcher | None] = [None] * 1024
        """By descriptor."""
        self.turning = False
        self.gathering = False
        """Within a turn, before what was written is sent."""
        self.flushes: list[Watcher] = []
        self._later: list[Callable[[], None]] = []
        self._epoll = select.epoll()
        self._fd = self._epoll.fileno()
        loop.add_reader(self._fd, self.turn)

    def __reduce__(self) -> str:
        raise TypeError("a poller cannot be pickled")

    def watch(self, fd: int, watcher: Watcher, events: int) -> None:
        self.give(fd, watcher)
        self._epoll.register(fd, events)

    def change(self, fd: int, events: int) -> None:
        self._epoll.modify(fd, events)

    def give(self, fd: int, watcher: Watcher | None) -> None:
        """What the kernel watches is somebody else's from now on; None: nobody's, and it will be closed."""
        watchers = self.watchers
        if fd >= len(watchers):
            watchers.extend([None] * fd)
        watchers[fd] = watcher

    def forget(self, fd: int) -> None:
        if fd < len(self.watchers) and self.watchers[fd] is not None:
            self.watchers[fd] = None
            self._epoll.unregister(fd)

    def soon(self, callback: Callable[[], None]) -> None:
        """Call at the end of this turn; outside of one in the loop's next."""
        if self.turning:
            self._later.append(callback)
        else:
            self.loop.call_soon(callback)

    def turn(self) -> None:
        """Everything that is ready, then what that leads to.

        What a batch of reads leads to is sent after the last of them: a peer wakes once, not once a write, and waking
        it is a large part of what a write costs. Nothing waits longer than the turn.
        """
        self.turning = True
        self.gathering = True
        try:
            if COMPILED:
                self._take()
            else:
                for fd, events in self._epoll.poll(0, EVENTS_A_TURN):
                    self._ready(fd, events)
            self.gathering = False
            flushes = self.flushes
            if flushes:
                self.flushes = []
                for watcher in flushes:
                    try:
                        watcher.flush()
                    except Exception as error:
                        self.failed(error)
                        watcher.broken(error)
            while self._later:
                later = self._later
                self._later = []
                for callback in later:
                    try:
                        callback()
                    except Exception as error:
                        self.failed(error)
        finally:
            self.turning = self.gathering = False

    def _take(self) -> None:
        """As `poll`; the names that are not defined here are C functions of poller.pxd."""
        count = fl_wait(self._fd)  # type: ignore[name-defined]  # noqa: F821
        for index in range(count):
            self._ready(fl_fd(index), fl_ready(index))  # type: ignore[name-defined]  # noqa: F821

    def _ready(self, fd: int, events: int) -> None:
        watcher = self.watchers[fd]
        if watcher is None:  # forgotten in this turn
            return
        try:
            if events & _OUT:
                watcher.writable()
            if events & ~_OUT:
                watcher.readable()
        except Exception as error:
            self.failed(error)
            watcher.broken(error)

    def failed(self, error: Exception) -> None:
        """An error that nobody expected: the loop's handler hears of it."""
        self.loop.call_exception_handler({"message": "error in the data path", "exception": error})

    def close_if_idle(self) -> None:
        """Where it watches nothing any more; another is made when one is asked for."""
        if not self.closed and not any(watcher is not None for watcher in self.watchers):
            self.closed = True
            self.loop.remove_reader(self._fd)
            self._epoll.close()


async def listening(host: str, port: int, reuse_port: bool = False) -> list[socket.socket]:
    """Listening sockets of all addresses that a name has, on one port; empty: all there are. Raises OSError."""
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    socks: list[socket.socket] = []
    try:
        for family, kind, protocol, _, address in dict.fromkeys(found):
            sock = socket.socket(family, kind, protocol)
            socks.append(sock)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if reuse_port:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            if family == socket.AF_INET6 and len({one[0] for one in found}) > 1:  # `::` by itself takes IPv4, too
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            bound = port or (socks[0].getsockname()[1] if len(socks) > 1 else 0)
            sock.bind((address[0], bound, *address[2:]))
            sock.listen(BACKLOG)
    except OSError as error:
        for sock in socks:
            sock.close()
        raise OSError(error.errno, f"{host}:{port} cannot be listened on: {error.strerror}") from None
    return socks


_pollers: dict[int, Poller] = {}


def poller_of(loop: asyncio.AbstractEventLoop) -> Poller:
    """The loop's poller, made when first asked for."""
    found = _pollers.get(id(loop))
    if found is None or found.loop is not loop or found.closed:
        for key, other in list(_pollers.items()):
            if other.loop.is_closed():
                del _pollers[key]
        found = _pollers[id(loop)] = Poller(loop)
    return found
