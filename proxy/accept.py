"""Shell: new connections, from listening sockets to the protocol object that serves them."""

from __future__ import annotations

import asyncio
import socket
import ssl
import struct
from collections.abc import Callable
from typing import Any

from ..policy.tables import Arrival
from ..registry.reasons import CONNECT, PLAINTEXT
from . import proxy_protocol, sniff
from .arrive import HTTP_PROTOCOLS, address_of, by_server_name, declared, host_at, mesh_name, outbound_arrival
from .connection import Downstream
from .message import Outcome
from .tcp import Session

SO_ORIGINAL_DST = 80
ACCEPTS_A_TURN = 64


def original_destination(sock: Any) -> tuple[str, int] | None:
    """Where a redirected connection was going (nftables REDIRECT), or None: it was not redirected."""
    try:
        if sock.family == socket.AF_INET6:
            raw = sock.getsockopt(socket.IPPROTO_IPV6, SO_ORIGINAL_DST, 28)
            port, address = struct.unpack_from("!2xH4x16s", raw)
            return address_of((socket.inet_ntop(socket.AF_INET6, address), port))
        raw = sock.getsockopt(socket.SOL_IP, SO_ORIGINAL_DST, 16)
        port, address = struct.unpack_from("!2xH4s", raw)
        return socket.inet_ntoa(address), port
    except OSError:
        return None


class Entry(asyncio.Protocol):
    """A new connection until it is known who serves it: by the port's declared protocol, or by who speaks first, and
    what. Where nothing is declared, the endpoint is connected at once as if for TCP, see `Session.look_ahead`.
    """

    def __init__(
        self,
        engine: Any,
        arrive: Callable[[Any], tuple[Arrival, str] | None],
        counted: bool = False,
        ahead: Session | None = None,
        trusted: tuple[proxy_protocol.Network, ...] = (),
    ) -> None:
        self.engine = engine
        self.trusted = trusted
        """Peers that must say by the PROXY protocol for whom they come."""
        self.source: proxy_protocol.Address | None = None
        """Who a trusted peer said it comes for."""
        self.counted = counted
        """It was among the connections since it was accepted."""
        self.arrive = arrive
        """(arrival, protocol as in `declared`) of a transport; None: close it."""
        self.ahead = ahead
        """The connection to the endpoint, should it turn out to be needed."""
        self.arrival: Any = None
        self.transport: Any = None
        self.first = b""
        self.opaque = False
        """Declared as TCP; what is looked for is a TLS client's server name."""
        self.decided = False
        self.timer: Any = None
        self.timer_for = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        peer = transport.get_extra_info("peername")
        listener = "inbound" if self.counted else "outbound"
        room = self.engine.room(listener, peer, self.counted)
        if room and self.trusted and proxy_protocol.is_trusted(self.trusted, address_of(peer)[0]):
            awaited: Any = proxy_protocol.Awaited(self.engine, self._proxied)
            transport.set_protocol(awaited)
            awaited.connection_made(transport)
        else:
            self._begin(room)

    def _proxied(self, transport: Any, header: proxy_protocol.Header, rest: bytes) -> None:
        self.source = header.source
        transport.set_protocol(self)
        self._begin(True)
        if rest and not transport.is_closing():
            transport.get_protocol().data_received(rest)

    def _begin(self, room: bool) -> None:
        engine, transport = self.engine, self.transport
        found = self.arrive(transport) if room else None
        if found is None:
            self._leave()
            self._drop_ahead()
            transport.abort()
            return
        self.arrival, protocol = found
        if self.source is not None:
            self.arrival.source_ip, self.arrival.source_port = self.source
        self.opaque = protocol == "tcp"
        if self.ahead is not None:
            self.arrival = self.ahead.arrival
        if protocol == "http":
            self._serve_http()
        elif self.opaque and not self._wants_server_name():
            self._serve_tcp()
        else:
            engine.entries.add(self)
            self._wait("idle", engine.settings.relay_idle_timeout_s)
            engine.soon(self._look_ahead)  # octets that are here already come first

    def _wants_server_name(self) -> bool:
        arrival = self.arrival
        return arrival.listener != "inbound" and by_server_name(self.engine.tables, arrival.host, arrival.port)

    def _look_ahead(self) -> None:
        if self.decided:
            return
        session = self.ahead
        if session is None:
            session = self.ahead = Session(self.engine, self.arrival)
            session.local = address_of(self.transport.get_extra_info("sockname"))
        session.on_spoken = self._serve_tcp
        session.on_failed = self._unreachable
        if not session.ahead:
            session.look_ahead()
        elif session.spoken:
            self._serve_tcp()
        elif session.failure is not None or session.gone:
            self._unreachable()

    def _unreachable(self) -> None:
        """There is no endpoint to speak first, so it is not waited for long; a request would be answered."""
        settings = self.engine.settings
        assert self.ahead is not None
        failure = self.ahead.failure
        unreached = failure is None or failure[0] is CONNECT
        self._wait("nobody", settings.refused_grace_s if unreached else settings.undecided_s)

    def data_received(self, data: bytes) -> None:
        self.first += data
        first = self.first
        spoken = sniff.speaks(first)
        if spoken == sniff.TLS and self.arrival.listener != "inbound":
            spoken = self._server_name()
        elif self.opaque:
            spoken = sniff.MORE if spoken == sniff.MORE and first[0] == sniff.HANDSHAKE else sniff.OPAQUE
        if spoken == sniff.HTTP1:
            self._serve_http()
        elif spoken != sniff.MORE or len(first) > sniff.MAX_HELLO:
            self._serve_tcp()
        elif self.timer_for != "more":
            self._wait("more", self.engine.settings.undecided_s)

    def _server_name(self) -> str:
        """TLS that is passed through: its ClientHello says where to."""
        try:
            hello = sniff.client_hello(self.first)
        except ValueError:
            return sniff.OPAQUE
        if hello is None:
            return sniff.MORE
        self.arrival.sni = hello.sni
        self.arrival.alpn = ",".join(hello.alpn)
        return sniff.TLS

    def eof_received(self) -> bool:
        if not self.first and self.ahead is None:
            return False
        self._serve_tcp()
        return self.transport.get_protocol().eof_received()  # type: ignore[no-any-return]

    def connection_lost(self, error: Exception | None) -> None:
        self._leave()
        self._drop_ahead()

    def _wait(self, what: str, seconds: float) -> None:
        if self.timer is not None:
            self.timer.cancel()
        self.timer_for = what
        self.timer = self.engine.later(seconds, self._serve_tcp)

    def _leave(self) -> None:
        self.decided = True
        self.engine.entries.discard(self)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def _drop_ahead(self) -> None:
        if self.ahead is not None:
            self.ahead.abandon()
            self.ahead = None

    def _serve_http(self) -> None:
        self._leave()
        self._drop_ahead()
        downstream = Downstream(self.engine, self.arrival)
        self.transport.set_protocol(downstream)
        downstream.connection_made(self.transport)
        if self.first:
            downstream.data_received(self.first)

    def _serve_tcp(self) -> None:
        if self.decided:
            return
        self._leave()
        if self.ahead is not None and not self.ahead.still_good():
            self._drop_ahead()
        session, self.ahead = self.ahead or Session(self.engine, self.arrival), None
        session.start(self.first, self.transport)


def arrive_by_host(transport: Any) -> tuple[Arrival, str]:
    """Way 2: the Host header tells."""
    return outbound_arrival(transport.get_extra_info("peername")), "http"


def arrive_named(engine: Any, host: str, port: int) -> Callable[[Any], tuple[Arrival, str]]:
    """Ways 1 and 3: the listening address stands for one port of one service."""

    def arrive(transport: Any) -> tuple[Arrival, str]:
        arrival = outbound_arrival(transport.get_extra_info("peername"), host=host, port=port)
        return arrival, declared(engine.tables, host, port)

    return arrive


def arrive_redirected(engine: Any, find: Callable[[Any], tuple[str, int] | None]) -> Callable[[Any], Any]:
    """Way 4: the packet filter sent it here; where it was going is known from the socket."""

    def arrive(transport: Any) -> tuple[Arrival, str] | None:
        destination = find(transport.get_extra_info("socket"))
        local = address_of(transport.get_extra_info("sockname"))
        if destination is None or destination == local or engine.is_own(destination):
            return None  # came straight to this port: passing it on would go round in circles
        address, port = destination
        host = host_at(engine.tables, address)
        arrival = outbound_arrival(transport.get_extra_info("peername"), host=host, port=port, destination_ip=address)
        return arrival, declared(engine.tables, host, port) if host else ""

    return arrive


class Inbound:
    """A listening socket that takes mutual TLS and plaintext, told apart by the first bytes, which stay unread.

    `server_context()` gives the context of the moment (verify mode CERT_REQUIRED), or None: no certificate, no TLS.
    `identity_of(transport)` gives the peer's verified SPIFFE id; empty: the connection is closed.
    """

    def __init__(
        self,
        engine: Any,
        sock: socket.socket,
        server_context: Callable[[], ssl.SSLContext | None],
        identity_of: Callable[[Any], str],
        find: Callable[[Any], tuple[str, int] | None] | None,
        trusted: tuple[proxy_protocol.Network, ...] = (),
    ) -> None:
        self.trusted = trusted
        self.engine = engine
        self.sock = sock
        self.server_context = server_context
        self.identity_of = identity_of
        self.find = find
        self.local = address_of(sock.getsockname())
        self.peeks: set[_Peek] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self.failed_handshakes = 0
        self.loop = asyncio.get_running_loop()
        self.loop.add_reader(sock.fileno(), self._accept)

    def _accept(self) -> None:
        for _ in range(ACCEPTS_A_TURN):
            try:
                sock, peer = self.sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # out of descriptors: the backlog keeps the rest for later
                return
            if not self.engine.room("inbound", peer):
                sock.close()
                continue
            sock.setblocking(False)
            _Peek(self, sock, peer).look()

    def hand_over(
        self, sock: socket.socket, peer: Any, hello: sniff.Hello | None, ahead: Session | None = None
    ) -> None:
        task = self.loop.create_task(self._hand_over(sock, peer, hello, ahead))
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def _hand_over(
        self, sock: socket.socket, peer: Any, hello: sniff.Hello | None, ahead: Session | None
    ) -> None:
        context = None
        if hello is not None:
            context = self.server_context()
            if context is None:
                sock.close()
                self.failed_handshakes += 1
                return

        def arrive(transport: Any) -> tuple[Arrival, str] | None:
            return self._arrival(transport, sock, peer, hello)

        if ahead is not None:
            ahead.on_spoken = ahead.on_failed = None  # the entry looks
        try:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await self.loop.connect_accepted_socket(
                lambda: Entry(self.engine, arrive, True, ahead),
                sock,
                ssl=context,
                ssl_handshake_timeout=self.engine.settings.handshake_timeout_s if context is not None else None,
            )
        except (OSError, ssl.SSLError, TimeoutError, asyncio.CancelledError):
            self.failed_handshakes += 1
            sock.close()
            if ahead is not None:
                ahead.abandon()

    def look_ahead(self, sock: socket.socket, peer: Any) -> Session | None:
        """What would be done for a plaintext client that waits for its server to speak; None: nobody would."""
        arrival = self._plain_arrival(sock, peer)
        config = self.engine.tables.clusters.get(f"inbound|{arrival.port}||")
        if not arrival.port or (config is not None and config.protocol in HTTP_PROTOCOLS):
            return None
        session = Session(self.engine, arrival)
        session.local = address_of(sock.getsockname())
        return session

    def _plain_arrival(self, sock: socket.socket, peer: Any) -> Arrival:
        source_ip, source_port = address_of(peer)
        destination = self.find(sock) if self.find is not None else None
        if destination is not None and (destination == self.local or self.engine.is_own(destination)):
            destination = None
        port = destination[1] if destination is not None else 0
        arrival = Arrival("inbound", source_ip=source_ip, source_port=source_port, port=port)
        if destination is not None:
            arrival.destination_ip = destination[0]
        else:
            ports = self.engine.tables.viewpoint.workload.ports
            if len(ports) == 1:
                arrival.port = ports[0].number
        return arrival

    def _arrival(
        self, transport: Any, sock: socket.socket, peer: Any, hello: sniff.Hello | None
    ) -> tuple[Arrival, str] | None:
        arrival = self._plain_arrival(sock, peer)
        tables = self.engine.tables
        protocol = ""
        if hello is not None:
            identity = self.identity_of(transport)
            if not identity:
                return None
            arrival.identity = identity
            arrival.tls = True
            arrival.sni = hello.sni
            chosen = transport.get_extra_info("ssl_object")
            arrival.alpn = (chosen.selected_alpn_protocol() or "") if chosen is not None else ""
            meant = mesh_name(hello.sni)
            if meant is not None:
                arrival.host = meant[0]
                arrival.port = self.engine.inbound_port(tables, hello.sni)
                if not arrival.port:
                    return None
                protocol = declared(tables, *meant)
        if hello is None and self._refused(arrival):
            return None
        return arrival, protocol

    def _refused(self, arrival: Arrival) -> bool:
        """Whether PeerAuthentication wants mutual TLS here; the observer hears of it."""
        engine = self.engine
        verdict = engine.admit(engine.tables, arrival)
        if verdict.allowed or not verdict.by.startswith("PeerAuthentication"):
            return False
        outcome = Outcome()
        outcome.kind = "tcp"
        outcome.arrival = arrival
        outcome.reason = PLAINTEXT.code
        outcome.flag = PLAINTEXT.flag
        outcome.why = verdict.why
        outcome.started_at = outcome.ended_at = engine.clock()
        engine.observe(outcome)
        return True

    async def close(self) -> None:
        self.stop()
        for peek in list(self.peeks):
            peek.drop()
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def stop(self) -> None:
        """Accept no more."""
        if self.sock.fileno() >= 0:
            self.loop.remove_reader(self.sock.fileno())
            self.sock.close()


class _Peek:
    """An accepted socket until its first bytes are there; they are looked at and left in the kernel.

    Where plaintext is taken and nothing has come yet, the app is connected at once, in case it speaks first.
    """

    def __init__(self, inbound: Inbound, sock: socket.socket, peer: Any) -> None:
        self.inbound = inbound
        self.sock = sock
        self.peer = peer
        self.waiting = False
        self.timer: Any = None
        self.low_water = 1
        self.header = bool(inbound.trusted) and proxy_protocol.is_trusted(inbound.trusted, address_of(peer)[0])
        """A PROXY protocol header is still to come."""
        self.ahead: Session | None = None

    def look(self) -> None:
        try:
            data = self.sock.recv(sniff.MAX_HELLO, socket.MSG_PEEK)
        except (BlockingIOError, InterruptedError):
            self._wait(0)
            return
        except OSError:
            self.drop()
            return
        if not data or len(data) < self.low_water:  # closed, with or without having said enough
            self.drop()
            return
        if self.header:
            self._read_header(data)
            return
        spoken = sniff.speaks(data)
        hello = None
        if spoken == sniff.TLS:
            try:
                hello = sniff.client_hello(data)
            except ValueError:
                self.inbound.failed_handshakes += 1
                self.drop()
                return
            if hello is None:
                self._wait(len(data))
                return
        elif spoken == sniff.MORE and data[0] == sniff.HANDSHAKE:
            self._wait(len(data))
            return
        self._pass(hello)

    def _read_header(self, data: bytes) -> None:
        """Take a trusted peer's PROXY header, and nothing behind it, out of the kernel."""
        try:
            found = proxy_protocol.read(data)
        except ValueError:
            self.inbound.engine.refused_headers += 1
            self.drop()
            return
        if found is None:
            self._wait(len(data))
            return
        header, size = found
        self.header = False
        self.sock.recv(size)
        if header.source is not None:
            self.peer = header.source
        if self.low_water > 1:
            self.low_water = 1
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        if self.waiting:
            self.inbound.loop.call_soon(self._look_ahead)
        self.look()

    def _wait(self, have: int) -> None:
        """Wait until more is there than was seen; without the low-water mark the loop would spin."""
        if have:
            self.low_water = have + 1
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, self.low_water)
        if not self.waiting:
            inbound = self.inbound
            self.waiting = True
            inbound.peeks.add(self)
            inbound.loop.add_reader(self.sock.fileno(), self.look)
            self.timer = inbound.loop.call_later(inbound.engine.settings.peek_timeout_s, self._give_up)
            inbound.loop.call_soon(self._look_ahead)  # what is there by then comes first

    def _look_ahead(self) -> None:
        if not self.waiting or self.low_water > 1 or self.header or self.ahead is not None:
            return
        session = self.ahead = self.inbound.look_ahead(self.sock, self.peer)
        if session is not None:
            session.on_spoken = lambda: self._pass(None)
            session.on_failed = self._unreachable
            session.look_ahead()

    def _unreachable(self) -> None:
        """The app is not there; a client that waits for it need not wait long."""
        assert self.ahead is not None
        failure = self.ahead.failure
        if self.waiting and (failure is None or failure[0] is CONNECT):
            self.timer.cancel()
            self.timer = self.inbound.loop.call_later(self.inbound.engine.settings.refused_grace_s, self._give_up)

    def _give_up(self) -> None:
        if self.low_water == 1 and not self.header:  # not one octet: plaintext, if anything
            self._pass(None)
        else:
            self.drop()

    def _leave(self) -> None:
        if self.waiting:
            self.waiting = False
            self.inbound.loop.remove_reader(self.sock.fileno())
            self.inbound.peeks.discard(self)
            self.timer.cancel()

    def _pass(self, hello: sniff.Hello | None) -> None:
        self._leave()
        if self.low_water > 1:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVLOWAT, 1)
        if hello is not None:
            self._drop_ahead()
        ahead, self.ahead = self.ahead, None
        self.inbound.hand_over(self.sock, self.peer, hello, ahead)

    def _drop_ahead(self) -> None:
        if self.ahead is not None:
            self.ahead.abandon()
            self.ahead = None

    def drop(self) -> None:
        self._leave()
        self._drop_ahead()
        self.sock.close()
