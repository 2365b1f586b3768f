"""Shell: carries questions to upstream servers over UDP and TCP; identical ones in flight are asked once."""

from __future__ import annotations

import asyncio
import random
import socket
from collections.abc import Callable

from .cache import Key
from .engine import Engine, Pending
from .forward import Lookup, Send, Upstreams

STALE_AFTER_S = 1.8
"""An expired answer is given after this long without a fresh one (RFC 8767)."""

_RANDOM = random.SystemRandom()


def _ident() -> int:
    return _RANDOM.getrandbits(16)


Waiter = tuple[Pending, Callable[[bytes], None]]


class _Flight:
    """One lookup with its sockets, timers and those who wait for it."""

    def __init__(self, lookup: Lookup) -> None:
        self.lookup = lookup
        self.waiters: list[Waiter] = []
        self.sockets: dict[int, socket.socket] = {}
        self.tasks: set[asyncio.Task[None]] = set()
        self.timer: asyncio.TimerHandle | None = None
        self.stale: asyncio.TimerHandle | None = None
        self.over = False


class Forwarder:
    """Owns what is in flight."""

    def __init__(self, engine: Engine, upstreams: Upstreams, loop: asyncio.AbstractEventLoop) -> None:
        self._engine = engine
        self._upstreams = upstreams
        self._loop = loop
        self._flights: dict[Key, _Flight] = {}
        self._waiting = 0

    def ask(self, pending: Pending, reply: Callable[[bytes], None]) -> bool:
        """Have `reply` called with the octets to send, once; False: too many are waiting, and it will not be."""
        if self._waiting >= self._engine.options.max_pending:
            return False
        self._waiting += 1
        flight = self._flights.get(pending.key)
        if flight is None:
            now = self._loop.time()
            flight = _Flight(Lookup(pending.key, self._upstreams, now, _ident))
            self._flights[pending.key] = flight
            flight.waiters.append((pending, reply))
            if self._engine.cache.stale(pending.key, now) is not None:
                flight.stale = self._loop.call_later(STALE_AFTER_S, self._answer_stale, flight)
            self._pump(flight)
        else:
            flight.waiters.append((pending, reply))
        return True

    def close(self) -> None:
        """Drop everything in flight."""
        for flight in list(self._flights.values()):
            self._release(flight)
        self._flights.clear()

    async def wait_closed(self) -> None:
        await asyncio.sleep(0)

    def _pump(self, flight: _Flight) -> None:
        """Do what the lookup wants done, and set its next deadline."""
        if flight.over:
            return
        lookup = flight.lookup
        while lookup.outbox and not lookup.done:
            send = lookup.outbox.pop(0)
            if send.tcp:
                task = self._loop.create_task(self._over_tcp(flight, send))
                flight.tasks.add(task)
                task.add_done_callback(flight.tasks.discard)
            else:
                self._over_udp(flight, send)
        if flight.timer is not None:
            flight.timer.cancel()
            flight.timer = None
        if lookup.done:
            self._done(flight)
        else:
            flight.timer = self._loop.call_at(lookup.wake_at(), self._due, flight)

    def _due(self, flight: _Flight) -> None:
        flight.timer = None
        # A timer may fire a little early by this clock; a tick that does nothing would spin.
        flight.lookup.tick(max(self._loop.time(), flight.lookup.wake_at()))
        self._pump(flight)

    def _over_udp(self, flight: _Flight, send: Send) -> None:
        host, port = send.server
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        try:
            sock.connect((host, port))  # the kernel picks a random port, and drops what others send to it
            sock.send(send.octets)
        except OSError:
            sock.close()
            flight.lookup.failed(send.number, self._loop.time())
            return
        flight.sockets[send.number] = sock
        self._loop.add_reader(sock.fileno(), self._readable, flight, send)

    def _readable(self, flight: _Flight, send: Send) -> None:
        sock = flight.sockets.get(send.number)
        if sock is None:
            return
        try:
            octets = sock.recv(65535)
        except BlockingIOError:
            return
        except OSError:  # nobody listens there
            self._forget_socket(flight, send.number)
            flight.lookup.failed(send.number, self._loop.time())
            self._pump(flight)
            return
        if flight.lookup.reply(send.number, send.server, octets, self._loop.time()):
            self._forget_socket(flight, send.number)
            self._pump(flight)

    def _forget_socket(self, flight: _Flight, number: int) -> None:
        sock = flight.sockets.pop(number)
        self._loop.remove_reader(sock.fileno())
        sock.close()

    async def _over_tcp(self, flight: _Flight, send: Send) -> None:
        writer = None
        octets = b""
        try:
            reader, writer = await asyncio.open_connection(*send.server)
            writer.write(len(send.octets).to_bytes(2, "big") + send.octets)
            octets = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
        except (OSError, asyncio.IncompleteReadError):
            octets = b""
        finally:
            if writer is not None:
                writer.transport.abort()
        if not flight.lookup.reply(send.number, send.server, octets, self._loop.time()):
            flight.lookup.failed(send.number, self._loop.time())
        self._pump(flight)

    def _done(self, flight: _Flight) -> None:
        if self._flights.get(flight.lookup.key) is flight:
            del self._flights[flight.lookup.key]
        waiters = flight.waiters
        self._release(flight)
        now = self._loop.time()
        known = self._engine.learn(flight.lookup.key, flight.lookup.result, now)
        for pending, reply in waiters:
            made = self._engine.finish(pending, known, now, _RANDOM.random())
            if isinstance(made, Pending):
                if self.ask(made, reply):  # the next name of the client's search list
                    continue
                made = self._engine.give_up(made)
            reply(made)

    def _answer_stale(self, flight: _Flight) -> None:
        """The fresh answer is late; what we had serves, while the lookup goes on to renew it."""
        flight.stale = None
        waiters, flight.waiters = flight.waiters, []
        self._waiting -= len(waiters)
        now = self._loop.time()
        for pending, reply in waiters:
            octets = self._engine.stale(pending, now, _RANDOM.random())
            if octets is not None:
                reply(octets)
            else:
                flight.waiters.append((pending, reply))
                self._waiting += 1

    def _release(self, flight: _Flight) -> None:
        flight.over = flight.lookup.done = True
        self._waiting -= len(flight.waiters)
        flight.waiters = []
        for number in list(flight.sockets):
            self._forget_socket(flight, number)
        current = asyncio.current_task(self._loop) if self._loop.is_running() else None
        for task in flight.tasks:
            if task is not current:
                task.cancel()
        for timer in (flight.timer, flight.stale):
            if timer is not None:
                timer.cancel()
        flight.timer = flight.stale = None
