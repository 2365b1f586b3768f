"""Shell: the DNS server's sockets: UDP and TCP on one port, with limits; the engine decides what is said."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import resource
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from heapq import nsmallest
from pathlib import Path

from msgspec.structs import replace

from ..registry.huge_pages import collapse_soon
from ..registry.snapshot import Snapshot
from ._datagrams import PKTINFO4, Datagrams, limited, network_of
from ._limit import PASS, Limiter
from .engine import DnsOptions, Engine, Pending
from .forward import Server, Upstreams
from .forwarder import Forwarder
from .message import REFUSED, error, wire_name
from .metrics import render
from .query_log import QueryLog
from .stream import Stream
from .tls_files import Certificate
from .todo import Todo
from .transfer import Transfer

_OTHER_DESCRIPTORS = 1200
"""Files and sockets that the process needs beside its TCP clients: questions to upstreams, sources, logs."""
_HINFO = 13
UPDATE_WINDOW_S, SLICE_S = 0.02, 0.005
LARGE = 10_000
"""Services and workloads from which on memory is put in order when there are half as many more."""
_draw = random.random


class DnsServer:
    """One server on one address. `update` takes snapshots, also before `start`; until the first, SERVFAIL."""

    def __init__(self, options: DnsOptions | None = None) -> None:
        options = options or DnsOptions()
        if not options.cookie_secrets:
            options = replace(options, cookie_secrets=(os.urandom(16),))
        self.options = options
        self.engine = Engine(self.options, forwards=False, everyone=False)
        self.engine.clock_offset = time.time() - time.monotonic()
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
        self._connections: set[Stream] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._datagrams: Datagrams | None = None
        self.warn: Callable[[str], None] = self.warnings.append
        """Called with what people should know of later."""
        self._told = ""
        """The certificate's problem that was told of."""
        self._probes: dict[Server, bytes] = {}
        self._probe_at = 0.0
        self._snapshot: Snapshot | None = None
        """What has come and is not yet answered from; what it may change, and since when the first of it waits."""
        self._addresses: Mapping[str, tuple[str, ...]] | None = None
        self._todo = Todo()
        self._slice = 50
        self._arrived = 0.0
        self._version = -1
        self._window = self._spent = 0.0
        self._size = self._settled = 0
        """Services and workloads: now, and when memory was put in order."""
        self._gathering: asyncio.TimerHandle | None = None
        self.limiter = Limiter(self.options.rate_limit) if self.options.rate_limit else None
        self.log: QueryLog | None = None
        self._secure: asyncio.Server | None = None
        self._certificate: Certificate | None = None

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
        servers, self.warnings = usable_upstreams(self.options.upstreams, host, self.port)
        if (most := _raised_descriptors(self.options.max_connections + _OTHER_DESCRIPTORS)) is not None:
            clients = self.options.max_connections
            self.warnings.append(f"only {most} open files are allowed: too few for {clients} TCP clients (ulimit -n)")
        self.upstreams = Upstreams(servers, tls_names(self.options.upstreams or ()))
        self.engine.forwards = bool(servers)
        self.engine.everyone = self.options.recursion is None and _is_loopback(host)
        self._forwarder = Forwarder(self.engine, self.upstreams, loop)
        self._tcp = await loop.create_server(lambda: Stream(self), sock=listener, backlog=256)
        self._datagrams = Datagrams(self._sock, self.engine.udp, self._make, self.engine.metrics.durations.add)
        self._datagrams.limiter = self.limiter
        self.set_log(self.log)
        loop.add_reader(self._sock.fileno(), self._datagrams.read)
        self._sweep()

    async def start_tls(self, host: str, port: int, certificate: Certificate) -> int:
        """Listen for DNS over TLS (RFC 7858), too; the port. Raises OSError."""
        assert self._loop is not None
        self._secure = await self._loop.create_server(
            lambda: Stream(self, True), host, port, ssl=certificate.context("dot"), backlog=256, ssl_handshake_timeout=5
        )
        self.follow(certificate)
        return int(self._secure.sockets[0].getsockname()[1])

    def follow(self, certificate: Certificate) -> None:
        """Look each second whether its files have changed."""
        self._certificate = certificate

    def set_log(self, log: QueryLog | None) -> None:
        """Log each question from now on, or (None) none."""
        self.log = log
        if self._datagrams is not None:
            self._datagrams.log = None if log is None else log.datagram

    def update(self, snapshot: Snapshot, addresses: Mapping[str, tuple[str, ...]] | None = None) -> None:
        """Answer from this snapshot from the next question on.

        At once, as long as updates take no more than half of the time; in a burst what comes is gathered and taken over
        in slices of SLICE_S, so that questions are answered in between.
        """
        start = time.perf_counter()
        if addresses is not None:
            self._addresses = addresses
        known = snapshot.changed if snapshot.version == self._version + 1 else None
        self._version = snapshot.version
        if self._snapshot is None:
            self._arrived = start
        self._todo.add(known)
        self._snapshot = snapshot
        if self._loop is None:
            while self._snapshot is not None:
                self._apply()
        elif self._gathering is None:
            if start - self._window >= UPDATE_WINDOW_S:
                self._window, self._spent = start, 0.0
            if self._spent < UPDATE_WINDOW_S / 2:
                self._apply()
            self._gather()

    def _gather(self) -> None:
        """Come back to what is left when others have had their time."""
        if self._loop is not None and self._snapshot is not None and self._gathering is None:
            pause = max(self._window + UPDATE_WINDOW_S - time.perf_counter(), 0.0) if self._spent else 0.0
            self._gathering = self._loop.call_later(min(pause, self._spent), self._resume)

    def _resume(self) -> None:
        self._gathering = None
        self._window, self._spent = time.perf_counter(), 0.0
        self._apply()
        self._gather()

    def _apply(self) -> None:
        """Take over the last snapshot that came, or a slice of what it changed."""
        snapshot = self._snapshot
        if snapshot is None:
            return
        start = time.perf_counter()
        addresses, self._addresses = self._addresses, None
        if addresses is not None:
            self._todo.add(None)
        piece = self._todo.take(self._slice)
        if not self._todo:
            self._snapshot = None
        collecting = piece is None and gc.isenabled()
        if collecting:
            gc.disable()  # a third of the time to take over a large registry, for nothing: it is all still in use
        try:
            self.engine.update(snapshot, addresses, piece, self._snapshot is None)
        finally:
            if collecting:
                gc.enable()
        end = time.perf_counter()
        self._spent += end - start
        if piece is not None and (count := len(piece.hosts) + len(piece.workloads)) > 1:
            self._slice = max(8, min(10_000, int(SLICE_S * count / (end - start))))
        metrics = self.engine.metrics
        metrics.updated_at = time.monotonic()
        metrics.updates.add(end - start)
        if self._snapshot is None:
            metrics.programming.add(end - self._arrived)
        self._size = len(snapshot.services) + len(snapshot.workloads)

    def _settle(self) -> None:
        """Put memory in order once a registry is large: the collector need not look through it, and it gets large
        pages."""
        if self._size > max(LARGE, self._settled * 3 // 2) and self._snapshot is None:
            self._settled = self._size
            gc.freeze()
            collapse_soon()

    def stop(self) -> None:
        """Take no more questions; those in flight are answered."""
        if self._loop is not None and self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
        if self._tcp is not None:
            self._tcp.close()

    async def close(self) -> None:
        """Stop listening; questions in flight are dropped."""
        for timer in (self._sweeper, self._gathering):
            if timer is not None:
                timer.cancel()
        if self._loop is not None and self._sock is not None:
            self._loop.remove_reader(self._sock.fileno())
            self._sock.close()
            self._sock = None
        if self._forwarder is not None:
            self._forwarder.close()
        for listener in (self._tcp, self._secure):
            if listener is not None:
                listener.close()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)

    def metric_lines(self) -> list[str]:
        """Prometheus text, line by line."""
        if self._datagrams is not None:
            self.engine.metrics.unsent = self._datagrams.failed
        if self.limiter is not None:
            self.engine.metrics.slipped, self.engine.metrics.limited = self.limiter.slipped, self.limiter.dropped
        shown = f"[{self.host}]" if ":" in self.host else self.host
        family = "2" if ":" in self.host else "1"
        return render(self.engine, self.upstreams, f"dns://{shown}:{self.port}", family, time.monotonic())

    # UDP ------------------------------------------------------------------------------------------------------

    def _make(self, message: bytes, client: tuple[str, int], local: bytes) -> bytes | None:
        """The reply, or None where there is none, or none yet."""
        now = self.now()
        if self.limiter is not None:
            verdict = self.limiter.take(network_of(client[0]), now)
            if verdict != PASS and not self.engine.known_client(message, client[0], now):
                return limited(verdict, message, b"")
        made = self.engine.reply(message, False, client[0], now, _draw())
        if not isinstance(made, Pending):
            return made if isinstance(made, bytes) else None
        self.forward(made, lambda octets: self._send(message, octets, client, local))
        return None

    def _send(self, message: bytes, octets: bytes, client: tuple[str, int], local: bytes) -> None:
        if self._sock is not None and self._datagrams is not None:
            if self.log is not None:
                self.log.add(message, client, octets, "udp")
            self._datagrams.send(octets, client, local)

    # All ------------------------------------------------------------------------------------------------------

    async def ask(self, message: bytes, client: tuple[str, int]) -> bytes | None:
        """The reply to a message that came in some other way (HTTPS); None: none is owed."""
        engine = self.engine
        reply: bytes | Pending | Transfer | None = engine.tcp.get(message) if len(message) > 12 else None
        if reply is None:
            reply = engine.reply(message, True, client[0], self.now(), _draw(), True)
        if isinstance(reply, Transfer):
            reply = error(message, REFUSED)
        if isinstance(reply, Pending):
            assert self._loop is not None
            came: asyncio.Future[bytes] = self._loop.create_future()
            pending = reply

            def answered(octets: bytes) -> None:
                if not came.done():  # the client may have gone
                    came.set_result(octets)

            if self.forward(pending, answered):
                reply = await came
            else:
                reply = engine.give_up(pending)
        if reply is not None and self.log is not None:
            self.log.add(message, client, reply, "https")
        return reply

    def now(self) -> float:
        return time.monotonic()

    def forward(self, pending: Pending, reply: Callable[[bytes], None]) -> bool:
        """Have `reply` called once an upstream has answered; False: too many wait."""
        assert self._forwarder is not None
        taken = self._forwarder.ask(pending, reply)
        if not taken:
            self.engine.metrics.overload += 1
        return taken

    def _sweep(self) -> None:
        """Each second: close idle connections, let forwarded answers age."""
        assert self._loop is not None
        if self.engine.forwards and self._forwarder is not None:
            self.engine.tick()
            due, self.engine.due = self.engine.due, []
            for key in due:
                self._forwarder.refresh(key)
            self._forwarder.sweep()
            if self.options.loop_probe_s:
                self._look_for_loops(self.now())
        self._settle()
        now = self.now()
        self.engine.clock_offset = time.time() - now
        if self._certificate is not None and not self._certificate.look():
            if self._certificate.problem not in ("", self._told):
                self.warn(self._certificate.problem)
            self._told = self._certificate.problem
        for connection in list(self._connections):
            connection.check_idle(now, self.options.idle_s)
        self._sweeper = self._loop.call_later(1.0, self._sweep)

    def _look_for_loops(self, now: float) -> None:
        """Ask each upstream for a name of our own making now and then: one that comes back to us is a loop."""
        engine, upstreams = self.engine, self.upstreams
        back = {server for server, name in self._probes.items() if name in engine.looped}
        for server in back - upstreams.looping:
            self.warn(
                f"upstream {server[0]}:{server[1]} forwards to this server: a loop; it is not asked while it does"
            )
        upstreams.looping |= back
        if now < self._probe_at or self._forwarder is None:
            return
        upstreams.looping &= back  # of the last round: who did not ask again is asked again
        self._probe_at = now + self.options.loop_probe_s
        self._probes = {
            server: wire_name(f"{os.urandom(8).hex()}.{os.urandom(8).hex()}") for server in upstreams.servers
        }
        engine.probes = set(self._probes.values())
        engine.looped = set()
        for server, name in self._probes.items():
            self._forwarder.probe((name, _HINFO, False, False), server)

    def opened(self, connection: Stream) -> None:
        self._connections.add(connection)
        self.engine.metrics.connections = len(self._connections)
        if len(self._connections) > self.options.max_connections:
            # The longest idle go, some at a time: to look for one among ten thousand each time costs too much.
            idle = [other for other in self._connections if not other.waiting and other is not connection]
            for other in nsmallest(1 + self.options.max_connections // 100, idle, key=lambda other: other.active):
                other.abort()
            if not idle:
                connection.abort()

    def closed(self, connection: Stream) -> None:
        self._connections.discard(connection)
        self.engine.metrics.connections = len(self._connections)


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


def tls_names(configured: Sequence[str]) -> dict[Server, str]:
    """Of those to be asked over TLS, the name that their certificate must have; empty: their address."""
    found = {}
    for entry in configured:
        if entry.startswith("tls://"):
            with suppress(ValueError):  # told of by usable_upstreams
                found[parse_server(entry)] = entry.partition("#")[2]
    return found


def parse_server(text: str) -> Server:
    """ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT, or tls:// before it and #NAME behind. Raises ValueError."""
    host, port = text.strip(), "53"
    if host.startswith("tls://"):
        host, port = host[6:].partition("#")[0], "853"
    if host.startswith("["):
        host, _, rest = host[1:].partition("]")
        port = rest.removeprefix(":") or port
    elif host.count(":") == 1:
        host, _, port = host.partition(":")
    for family in (socket.AF_INET, socket.AF_INET6):
        try:
            socket.inet_pton(family, host.partition("%")[0])
        except OSError:
            continue
        if port.isascii() and port.isdecimal() and 0 < int(port) < 65536:
            return host, int(port)
    raise ValueError(
        f"upstream {text!r}: expected an address, as 192.0.2.1, 192.0.2.1:5353, [2001:db8::1]:53 or "
        "tls://192.0.2.1#dns.example"
    )


def _raised_descriptors(wanted: int) -> int | None:
    """Allow this process so many open files; what it may have where that is fewer, else None."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return None
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    except (OSError, ValueError):
        return soft
    return None if most == wanted else most


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
                udp.setsockopt(socket.IPPROTO_IP, PKTINFO4, 1)
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
