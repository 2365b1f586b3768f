"""Shell: new connections, from listening sockets to the protocol object that serves them."""

from __future__ import annotations

import asyncio
import socket
import struct
from collections.abc import Callable
from typing import Any

from ..policy.tables import Arrival
from ..registry.reasons import CONNECT
from . import proxy_protocol, sniff
from .arrive import address_of, by_server_name, declared, host_at, outbound_arrival
from .connection import Downstream
from .tcp import Session

SO_ORIGINAL_DST = 80


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
        listener: str = "",
    ) -> None:
        self.engine = engine
        self.listener = listener or ("inbound" if counted else "outbound")
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
        room = self.engine.room(self.listener, peer, self.counted)
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
        if not self.counted and engine.over_limit(self.arrival):
            self._leave()
            transport.abort()
            return
        self.opaque = protocol == "tcp"
        if self.ahead is not None:
            self.arrival = self.ahead.arrival
        if protocol == "http":
            self._serve_http()
        elif self.opaque and not self._wants_server_name():
            self._serve_tcp()
        else:
            engine.entries.add(self)
            if engine.settings.relay_idle_timeout_s:
                self._wait("idle", engine.settings.relay_idle_timeout_s)
            engine.soon(self._look_ahead)  # octets that are here already come first

    def _wants_server_name(self) -> bool:
        arrival = self.arrival
        return arrival.listener == "outbound" and by_server_name(self.engine.tables, arrival.host, arrival.port)

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
        if spoken == sniff.TLS and self.arrival.listener == "outbound":
            spoken = self._server_name()
        elif self.opaque:
            spoken = sniff.MORE if spoken == sniff.MORE and first[0] == sniff.HANDSHAKE else sniff.OPAQUE
        if spoken in (sniff.HTTP1, sniff.HTTP2):
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
