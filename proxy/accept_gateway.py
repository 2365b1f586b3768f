"""Shell: a gateway's listening socket: plain HTTP and octets as they come, TLS by the server name in the first bytes,
which are looked at and left in the kernel until it is known whether TLS ends here or is passed through."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

from ..policy.gateways import TLS, Server
from ..policy.tables import Arrival
from . import proxy_protocol, sniff
from .accept import Entry
from .accept_inbound import Peek, TlsListener
from .arrive import address_of
from .poller import Listener, Poller
from .tcp import Session
from .wire import Wire

ServerContext = Callable[[Server], "ssl.SSLContext | None"]
"""None: its certificate cannot be had."""
ClientOf = Callable[[Server, Any], "str | None"]
"""The identity of a client (empty: none) by its server and transport after the handshake; None: it is refused."""


class GatewayListener(TlsListener):
    """`port`: the one that the tables' servers name, whichever this socket is bound to."""

    of_gateway = True

    def __init__(
        self,
        engine: Any,
        poller: Poller,
        sock: socket.socket,
        port: int,
        server_context: ServerContext,
        client_of: ClientOf,
        trusted: tuple[proxy_protocol.Network, ...] = (),
    ) -> None:
        super().__init__(engine, poller, trusted)
        self.port = port
        self.server_context = server_context
        self.client_of = client_of
        self.listener = Listener(poller, sock, self._accepted)

    def _accepted(self, sock: socket.socket, peer: Any) -> None:
        port = self.engine.tables.gateway.ports.get(self.port)
        if port is None or not port.servers:  # it is about to be closed
            sock.close()
        elif port.kind != TLS:
            self._plain(sock, peer, port.servers[0])
        elif self.engine.room("gateway", peer):
            Peek(self, sock, peer).look()
        else:
            sock.close()

    def _plain(self, sock: socket.socket, peer: Any, server: Server) -> None:
        def arrive(_transport: Any) -> tuple[Arrival, str]:
            return self._arrival(peer), "http" if server.http else "tcp"

        wire = Wire(self.poller, sock, Entry(self.engine, arrive, trusted=self.trusted, listener="gateway"))
        wire.know("peername", peer)
        wire.begin()

    def _arrival(self, peer: Any) -> Arrival:
        source_ip, source_port = address_of(peer)
        return Arrival("gateway", source_ip=source_ip, source_port=source_port, port=self.port)

    def seen(self, sock: socket.socket, peer: Any, hello: sniff.Hello | None) -> Arrival:
        return self._arrival(peer)

    def hand_over(
        self, sock: socket.socket, peer: Any, hello: sniff.Hello | None, ahead: Session | None = None
    ) -> None:
        port = self.engine.tables.gateway.ports.get(self.port)
        server = port.server(hello.sni) if hello is not None and port is not None and port.kind == TLS else None
        if hello is None or server is None:  # no TLS, or for nobody here
            self.failed_handshakes += 1
            sock.close()
            return
        arrival = self._arrival(peer)
        arrival.sni = hello.sni
        if not server.terminates:
            arrival.alpn = ",".join(hello.alpn)
            entry: Any = Entry(self.engine, lambda _transport: (arrival, "tcp"), True, listener="gateway")
            Wire(self.poller, sock, entry).begin()
            return
        context = self.server_context(server)
        if context is None:
            self.failed_handshakes += 1
            sock.close()
            return

        def arrive(transport: Any) -> tuple[Arrival, str] | None:
            identity = self.client_of(server, transport)
            if identity is None:
                self.failed_handshakes += 1
                return None
            arrival.identity, arrival.tls, arrival.server = identity, True, server.number
            chosen = transport.get_extra_info("ssl_object")
            arrival.alpn = (chosen.selected_alpn_protocol() or "") if chosen is not None else ""
            return arrival, "http" if server.http else "tcp"

        entry = self.by_tls(Entry(self.engine, arrive, True, listener="gateway"), context)
        Wire(self.poller, sock, entry).begin()
