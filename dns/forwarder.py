"""Shell: carries questions to upstream servers over UDP and TCP; identical ones in flight are asked once."""

from __future__ import annotations

import asyncio
import random
import socket
import ssl
from collections.abc import Callable

from .cache import Key
from .engine import Engine, Pending
from .forward import Lookup, Send, Server, Upstreams

STALE_AFTER_S = 1.8
"""An expired answer is given after this long without a fresh one (RFC 8767)."""

_RANDOM = random.SystemRandom()


def _ident() -> int:
    return _RANDOM.getrandbits(16)


Waiter = tuple[Pending, Callable[[bytes], None]]


IDLE_S = 8.0
IDLE_MOST = 8
"""Connections to one upstream that are kept for further questions, and for how long."""


class _Flight:
    """One lookup with its sockets, timers and those who wait for it."""

    def __init__(self, lookup: Lookup, probe: bool = False) -> None:
        self.lookup = lookup
        self.probe = probe
        """Asked to see whether it comes back; its answer is nobody's."""
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
        self._idle: dict[Server, list[tuple[float, asyncio.StreamReader, asyncio.StreamWriter]]] = {}
        self._context: ssl.SSLContext | None = None

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

    def refresh(self, key: Key) -> None:
        """Ask for what is known and ends soon."""
        if key not in self._flights and self._waiting < self._engine.options.max_pending:
            self._engine.cache.prefetches += 1
            self._fly(key, self._upstreams)

    def probe(self, key: Key, server: Server) -> None:
        """Ask one server for a name of our own making."""
        self._fly(key, Upstreams((server,), self._upstreams.tls), True)

    def _fly(self, key: Key, upstreams: Upstreams, probe: bool = False) -> None:
        flight = self._flights[key] = _Flight(Lookup(key, upstreams, self._loop.time(), _ident), probe)
        self._pump(flight)

    def sweep(self) -> None:
        """Close connections that were idle for too long."""
        end = self._loop.time() - IDLE_S
        for server, idle in list(self._idle.items()):
            kept = [one for one in idle if one[0] > end]
            for _, _, writer in idle:
                if not any(writer is other for _, _, other in kept):
                    writer.transport.abort()
            self._idle[server] = kept
            if not kept:
                del self._idle[server]

    def close(self) -> None:
        """Drop everything in flight."""
        for idle in self._idle.values():
            for _, _, writer in idle:
                writer.transport.abort()
        self._idle.clear()
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
        """On a connection that is kept for more, over TLS where the server is one for that."""
        octets = b""
        for _ in range(2):
            writer = None
            reused = False
            try:
                reader, writer, reused = await self._connection(send.server)
                writer.write(len(send.octets).to_bytes(2, "big") + send.octets)
                octets = await reader.readexactly(int.from_bytes(await reader.readexactly(2), "big"))
                self._keep(send.server, reader, writer)
                writer = None
                break
            except (OSError, asyncio.IncompleteReadError):
                octets = b""
            finally:
                if writer is not None:
                    writer.transport.abort()
            if not reused:  # else the server had closed it in between: once more, on a new one
                break
        if not flight.lookup.reply(send.number, send.server, octets, self._loop.time()):
            flight.lookup.failed(send.number, self._loop.time())
        self._pump(flight)

    async def _connection(self, server: Server) -> tuple[asyncio.StreamReader, asyncio.StreamWriter, bool]:
        """A connection, and whether it has been used before. Raises OSError."""
        idle = self._idle.get(server, [])
        while idle:
            since, reader, writer = idle.pop()
            if not reader.at_eof() and not writer.is_closing() and since > self._loop.time() - IDLE_S:
                return reader, writer, True
            writer.transport.abort()
        name = self._upstreams.tls.get(server)
        if name is None:
            return *await asyncio.open_connection(*server), False
        if self._context is None:
            self._context = ssl.create_default_context(cafile=self._engine.options.upstream_ca or None)
        made = await asyncio.open_connection(*server, ssl=self._context, server_hostname=name or server[0])
        return *made, False

    def _keep(self, server: Server, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        idle = self._idle.setdefault(server, [])
        if len(idle) < IDLE_MOST:
            idle.append((self._loop.time(), reader, writer))
        else:
            writer.transport.abort()

    def _done(self, flight: _Flight) -> None:
        if self._flights.get(flight.lookup.key) is flight:
            del self._flights[flight.lookup.key]
        waiters = flight.waiters
        self._release(flight)
        if flight.probe:
            return
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
