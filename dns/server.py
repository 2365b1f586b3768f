"""Shell: the DNS server's sockets: UDP and TCP on one port, with limits; the engine decides what is said."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from ..registry.snapshot import Snapshot
from ._datagrams import BATCH, LARGEST_QUERY, Datagrams
from .engine import DnsOptions, Engine, Pending
from .forward import Server, Upstreams
from .forwarder import Forwarder
from .metrics import render

_WRITE_HIGH = 256 << 10
_PENDING_PER_CONNECTION = 64
_PKTINFO4 = getattr(socket, "IP_PKTINFO", 8)
_draw = random.random


class DnsServer:
    """One server on one address. `update` takes snapshots, also before `start`; until the first, SERVFAIL."""

    def __init__(self, options: DnsOptions | None = None) -> None:
        self.options = options or DnsOptions()
        self.engine = Engine(self.options, forwards=False, everyone=False)
        self.host = ""
        self.port = 0
        self.warnings: list[str] = []
        """What of the settings could not be used, for the log."""
        self.upstreams = Upstreams(())
        self.socks: tuple[socket.socket, socket.socket] | None = None
        """The two that it listens on, for a successor."""
        self._sock: socket.socket | None = None
        self._tcp: asyncio.Server | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._forwarder: Forwarder | None = None
        self._connections: set[_Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._datagrams: Datagrams | None = None
        self._wildcard = False

    @property
    def ready(self) -> bool:
        """Whether a snapshot has come."""
        return self.engine.zone.synced

    async def start(
        self, host: str = "127.0.0.1", port: int = 0, socks: tuple[socket.socket, socket.socket] | None = None
    ) -> None:
        """Listen. Port 0: one that is free for both transports; then `.port` says which. `socks`: on these, a datagram
        and a listening one. Raises OSError."""
        loop = self._loop = asyncio.get_running_loop()
        self._sock, listener = socks or bind(host, port)
        self.socks = (self._sock, listener)
        self.host = host
        self.port = self._sock.getsockname()[1]
        self._wildcard = host in ("0.0.0.0", "::", "")
        servers, self.warnings = usable_upstreams(self.options.upstreams, host, self.port)
        self.upstreams = Upstreams(servers)
        self.engine.forwards = bool(servers)
        self.engine.everyone = self.options.recursion is None and _is_loopback(host)
        self._forwarder = Forwarder(self.engine, self.upstreams, loop)
        self._tcp = await loop.create_server(lambda: _Connection(self), sock=listener, backlog=256)
        self._datagrams = Datagrams(self._sock, self.engine.udp, self._make, self.engine.metrics.durations.add)
        reader = self._read_with_source if self._wildcard else self._datagrams.read
        loop.add_reader(self._sock.fileno(), reader)
        self._sweep()

    def update(self, snapshot: Snapshot, addresses: Mapping[str, tuple[str, ...]] | None = None) -> None:
        """Answer from this snapshot from the next question on."""
        start = time.perf_counter()
        self.engine.update(snapshot, addresses)
        self.engine.metrics.updated_at = time.monotonic()
        self.engine.metrics.updates.add(time.perf_counter() - start)

    def stop(self) -> None:
        """Take no more questions; those in flight are answered."""
        if self._loop is not None and self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
        if self._tcp is not None:
            self._tcp.close()

    async def close(self) -> None:
        """Stop listening; questions in flight are dropped."""
        if self._sweeper is not None:
            self._sweeper.cancel()
        if self._loop is not None and self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
        if self._forwarder is not None:
            self._forwarder.close()
        if self._tcp is not None:
            self._tcp.close()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)

    def metric_lines(self) -> list[str]:
        """Prometheus text, line by line."""
        if self._datagrams is not None:
            self.engine.metrics.unsent = self._datagrams.failed
        shown = f"[{self.host}]" if ":" in self.host else self.host
        family = "2" if ":" in self.host else "1"
        return render(self.engine, self.upstreams, f"dns://{shown}:{self.port}", family, time.monotonic())

    # UDP ------------------------------------------------------------------------------------------------------

    def _make(self, message: bytes, client: tuple[str, int]) -> bytes | None:
        """The reply, or None where there is none, or none yet."""
        made = self.engine.reply(message, False, client[0], self._now(), _draw())
        if not isinstance(made, Pending):
            return made
        self._forward(made, lambda octets: self._send(octets, client))
        return None

    def _send(self, octets: bytes, client: tuple[str, int]) -> None:
        if self._sock is not None:
            try:
                self._sock.sendto(octets, client)
            except OSError:
                self.engine.metrics.overload += 1

    def _read_with_source(self) -> None:
        """As `_read`, on all of the host's addresses: the reply leaves from the one asked (RFC 2181 section 4)."""
        sock = self._sock
        start = time.perf_counter()
        count = 0
        try:
            while sock is not None and count < BATCH:
                message, ancillary, _, client = sock.recvmsg(LARGEST_QUERY, 128)
                count += 1
                made: bytes | Pending | None = self.engine.udp.get(message)
                if made is None:
                    made = self.engine.reply(message, False, client[0], self._now(), _draw())
                send = partial(self._send_from, _reply_from(ancillary), client)
                if isinstance(made, Pending):
                    self._forward(made, send)
                elif made is not None:
                    send(made)
        except OSError:
            pass
        if count:
            self.engine.metrics.durations.add((time.perf_counter() - start) / count, count)

    def _send_from(self, back: list[tuple[int, int, bytes]], client: tuple[str, int], octets: bytes) -> None:
        if self._sock is not None:
            try:
                self._sock.sendmsg([octets], back, 0, client)
            except OSError:
                self.engine.metrics.overload += 1

    # Both -----------------------------------------------------------------------------------------------------

    def _now(self) -> float:
        return time.monotonic()

    def _forward(self, pending: Pending, reply: Callable[[bytes], None]) -> bool:
        assert self._forwarder is not None
        taken = self._forwarder.ask(pending, reply)
        if not taken:
            self.engine.metrics.overload += 1
        return taken

    def _sweep(self) -> None:
        """Each second: close idle connections, let forwarded answers age."""
        assert self._loop is not None
        if self.engine.forwards:
            self.engine.tick()
        now = self._now()
        for connection in list(self._connections):
            connection.check_idle(now, self.options.idle_s)
        self._sweeper = self._loop.call_later(1.0, self._sweep)

    def _opened(self, connection: _Connection) -> None:
        self._connections.add(connection)
        self.engine.metrics.connections = len(self._connections)
        if len(self._connections) > self.options.max_connections:
            idle = [other for other in self._connections if not other.waiting and other is not connection]
            min(idle, key=lambda other: other.active, default=connection).abort()

    def _closed(self, connection: _Connection) -> None:
        self._connections.discard(connection)
        self.engine.metrics.connections = len(self._connections)


class _Connection(asyncio.Protocol):
    """One TCP client: questions in a row, each with its length before it; replies as they are ready."""

    def __init__(self, server: DnsServer) -> None:
        self.active = server._now()
        self.waiting = 0
        """Questions that are with upstreams."""
        self._server = server
        self._transport: asyncio.Transport | None = None
        self._source = ""
        self._buffer = bytearray()
        self._writable = True
        self._reading = True
        self._ended = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is one in all but class
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        peer = transport.get_extra_info("peername")
        self._source = peer[0] if peer else ""
        self._server._opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server._closed(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def check_idle(self, now: float, idle_s: float) -> None:
        """Close when nothing came or went for too long: a client that is idle, that trickles, or that does not read."""
        if self._transport is None or now - self.active < idle_s or (self.waiting and self._writable):
            return
        if self._writable and not self._buffer:
            self._transport.close()
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._work()

    def eof_received(self) -> bool:
        """The client has asked all it wants; it still gets its answers."""
        self._ended = True
        self._close_if_done()
        return True

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.active = self._server._now()
        self._work()

    def _work(self) -> None:
        """Answer whole questions while the client takes the answers; stop reading while it does not."""
        buffer, at = self._buffer, 0
        replies: list[bytes] = []
        size = 0
        while self._transport is not None and self._writable and self.waiting < _PENDING_PER_CONNECTION:
            if len(buffer) - at < 2:
                break
            end = at + 2 + (buffer[at] << 8 | buffer[at + 1])
            if len(buffer) < end:
                break
            reply = self._answer(bytes(buffer[at + 2 : end]))
            at = end
            if reply is not None:
                replies.append(len(reply).to_bytes(2, "big") + reply)
                size += len(reply)
                if size >= 65536:
                    self._transport.write(b"".join(replies))
                    replies, size = [], 0
        if at:
            self.active = self._server._now()
            del buffer[:at]
        if self._transport is None:
            return
        if replies:
            self._transport.write(b"".join(replies))
        blocked = not self._writable or self.waiting >= _PENDING_PER_CONNECTION
        if blocked == self._reading:
            self._reading = not blocked
            (self._transport.pause_reading if blocked else self._transport.resume_reading)()
        self._close_if_done()

    def _answer(self, message: bytes) -> bytes | None:
        engine = self._server.engine
        reply = engine.tcp.get(message)
        if reply is not None:
            return reply
        made = engine.reply(message, True, self._source, self._server._now(), _draw())
        if not isinstance(made, Pending):
            return made
        self.waiting += 1
        if not self._server._forward(made, self._late):
            self.waiting -= 1
            return engine.give_up(made)
        return None

    def _late(self, reply: bytes) -> None:
        self.waiting -= 1
        if self._transport is not None:
            self.active = self._server._now()
            self._transport.write(len(reply).to_bytes(2, "big") + reply)
            if not self._reading:
                self._work()
            self._close_if_done()

    def _close_if_done(self) -> None:
        whole = len(self._buffer) >= 2 and len(self._buffer) >= 2 + (self._buffer[0] << 8 | self._buffer[1])
        if self._ended and not self.waiting and not whole and self._transport is not None:
            self._transport.close()


def usable_upstreams(configured: tuple[str, ...] | None, host: str, port: int) -> tuple[list[Server], list[str]]:
    """(servers to ask, what was left out and why): never ourselves, which would be a loop."""
    if configured is None:
        try:
            text = Path("/etc/resolv.conf").read_text(errors="replace")
        except OSError as error:
            return [], [f"/etc/resolv.conf: {error}; other names are refused"]
        configured = resolv_conf_servers(text)
    servers: list[Server] = []
    warnings = []
    for entry in configured:
        try:
            server = parse_server(entry)
        except ValueError as error:
            warnings.append(str(error))
            continue
        if server[1] == port and (server[0] == host or (host in ("0.0.0.0", "::", "") and _is_own(server[0]))):
            warnings.append(f"upstream {entry} is this server itself; left out, since it would be a loop")
        elif server not in servers:
            servers.append(server)
    return servers, warnings


def resolv_conf_servers(text: str) -> tuple[str, ...]:
    """Addresses of the `nameserver` lines."""
    lines = (line.split() for line in text.splitlines())
    return tuple(words[1] for words in lines if len(words) > 1 and words[0] == "nameserver")


def parse_server(text: str) -> Server:
    """ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT. Raises ValueError, saying what is expected."""
    host, port = text.strip(), "53"
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":") or "53"
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        if port.isascii() and port.isdecimal() and 0 < int(port) < 65536:
            return host, int(port)
    raise ValueError(f"upstream {text!r}: expected an address, as 192.0.2.1, 192.0.2.1:5353 or [2001:db8::1]:53")


def _is_loopback(host: str) -> bool:
    return host.startswith("127.") or host in ("::1", "localhost")


def _is_own(host: str) -> bool:
    """Whether an address is one of this host's: such can be bound."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError:
            return False
    return True


def bind(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """A datagram and a listening socket on the same port. Raises OSError."""
    family, _, _, _, where = socket.getaddrinfo(host or None, port, type=socket.SOCK_DGRAM, flags=socket.AI_PASSIVE)[0]
    for attempt in range(20):
        udp = socket.socket(family, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        tcp = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where[0] != "::"))
                tcp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, int(where[0] != "::"))
            if where[0] == "::":
                udp.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
            elif where[0] == "0.0.0.0":
                udp.setsockopt(socket.IPPROTO_IP, _PKTINFO4, 1)
            tcp.bind(where)
            udp.bind((where[0], tcp.getsockname()[1], *where[2:]))
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        except OSError:
            udp.close()
            tcp.close()
            if port or attempt == 19:
                raise
        else:
            return udp, tcp
    raise AssertionError("unreachable")


def _reply_from(ancillary: list[tuple[int, int, bytes]]) -> list[tuple[int, int, bytes]]:
    """Ancillary data that sends the reply from the address that was asked."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == _PKTINFO4:
            # struct in_pktinfo: interface, local address (to send from), address in the header.
            return [(level, kind, data[:4] + data[8:12] + bytes(4))]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return [(level, kind, data)]
    return []
