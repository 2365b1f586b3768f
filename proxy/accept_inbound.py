"""Shell: the inbound listening socket: mutual TLS told from plaintext by first bytes that stay unread."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable
from typing import Any

from ..policy.tables import Arrival
from ..registry.reasons import CONNECT, PLAINTEXT
from . import proxy_protocol, sniff
from .accept import Entry
from .arrive import HTTP_PROTOCOLS, address_of, declared, mesh_name
from .message import Outcome
from .poller import EPOLLIN, Listener, Poller, Watcher
from .tcp import Session
from .tls import Tls
from .wire import Wire


class TlsListener:
    """What listening sockets whose clients may speak TLS share: looks at first bytes, handshakes under way, the end."""

    of_gateway = False

    def __init__(self, engine: Any, poller: Poller, trusted: tuple[proxy_protocol.Network, ...]) -> None:
        self.engine = engine
        self.poller = poller
        self.loop = poller.loop
        self.trusted = trusted
        """Peers that must say by the PROXY protocol for whom they come."""
        self.peeks: set[Peek] = set()
        self.shaking: set[Tls] = set()
        """Handshakes that are not over."""
        self.failed_handshakes = 0
        self.listener: Listener

    def seen(self, sock: socket.socket, peer: Any, hello: sniff.Hello | None) -> Arrival:
        """What is known of a connection before a byte of it is read."""
        raise NotImplementedError

    def look_ahead(self, sock: socket.socket, peer: Any) -> Session | None:
        """What would be done for a plaintext client that waits for its server to speak; None: nobody would."""
        return None

    def hand_over(
        self, sock: socket.socket, peer: Any, hello: sniff.Hello | None, ahead: Session | None = None
    ) -> None:
        """The first bytes are there, and unread; `hello`: they are TLS."""
        raise NotImplementedError

    def by_tls(self, entry: Entry, context: ssl.SSLContext) -> Tls:
        """The protocol of a connection that `entry` gets once its handshake is over, which is limited in time."""

        def made(error: Exception | None) -> None:
            timer.cancel()
            self.shaking.discard(wire)
            if error is not None:
                self.failed_handshakes += 1

        wire = Tls(entry, context, made, self.poller.soon, True)
        self.shaking.add(wire)
        timer = self.loop.call_later(self.engine.settings.handshake_timeout_s, lambda: wire.give_up(TimeoutError()))
        return wire

    def stop(self) -> None:
        """Accept no more."""
        self.listener.close()

    def close(self) -> None:
        self.stop()
        for peek in list(self.peeks):
            peek.drop()
        for wire in list(self.shaking):
            wire.give_up(ConnectionAbortedError())


class Inbound(TlsListener):
    """A listening socket that takes mutual TLS and plaintext, told apart by the first bytes, which stay unread.

    `server_context()` gives the context of the moment (verify mode CERT_REQUIRED), or None: no certificate, no TLS.
    `identity_of(transport)` gives the peer's verified SPIFFE id; empty: the connection is closed.
    """

    def __init__(
        self,
        engine: Any,
        poller: Poller,
        sock: socket.socket,
        server_context: Callable[[], ssl.SSLContext | None],
        identity_of: Callable[[Any], str],
        find: Callable[[Any], tuple[str, int] | None] | None,
        trusted: tuple[proxy_protocol.Network, ...] = (),
    ) -> None:
        super().__init__(engine, poller, trusted)
        self.server_context = server_context
        self.identity_of = identity_of
        self.find = find
        self.local = address_of(sock.getsockname())
        self.listener = Listener(poller, sock, self._accepted)

    def _accepted(self, sock: socket.socket, peer: Any) -> None:
        if self.engine.room("inbound", peer):
            Peek(self, sock, peer).look()
        else:
            sock.close()

    def hand_over(
        self, sock: socket.socket, peer: Any, hello: sniff.Hello | None, ahead: Session | None = None
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
        entry: Any = Entry(self.engine, arrive, True, ahead)
        if context is not None:
            entry = self.by_tls(entry, context)
        Wire(self.poller, sock, entry).begin()

    def seen(self, sock: socket.socket, peer: Any, hello: sniff.Hello | None) -> Arrival:
        arrival = self._plain_arrival(sock, peer)
        if hello is not None and mesh_name(hello.sni) is not None:
            arrival.port = self.engine.inbound_port(self.engine.tables, hello.sni)
        return arrival

    def look_ahead(self, sock: socket.socket, peer: Any) -> Session | None:
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
        if hello is None:
            refused = self._refused(arrival)
            self.engine.plaintext.came(arrival.source_ip, arrival.port, refused, self.engine.clock())
            if refused:
                return None
        if not protocol:
            # A port of HTTP takes nothing else: what an app reads more loosely than we do would pass unread, and with
            # it what its sender says of his identity. On one of TCP rules about requests allow nothing, come who may.
            config = tables.clusters.get(f"inbound|{arrival.port}||")
            if config is not None and config.protocol:
                protocol = "http" if config.protocol in HTTP_PROTOCOLS else "tcp"
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
        outcome.policy = verdict.by
        outcome.started_at = outcome.ended_at = engine.clock()
        engine.observe(outcome)
        return True


class Peek(Watcher):
    """An accepted socket until its first bytes are there; they are looked at and left in the kernel.

    Where plaintext is taken and nothing has come yet, the app is connected at once, in case it speaks first.
    """

    def __init__(self, inbound: TlsListener, sock: socket.socket, peer: Any) -> None:
        self.inbound = inbound
        self.sock = sock
        self.peer = peer
        self.waiting = False
        self.timer: Any = None
        self.low_water = 1
        self.header = bool(inbound.trusted) and proxy_protocol.is_trusted(inbound.trusted, address_of(peer)[0])
        """A PROXY protocol header is still to come."""
        self.ahead: Session | None = None
        self.counted_port = -1
        """The port for which local rate limits have counted it."""

    def readable(self) -> None:
        self.look()

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
            self.inbound.engine.refused_connections["proxy-protocol"] += 1
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
            inbound.poller.watch(self.sock.fileno(), self, EPOLLIN)
            self.timer = inbound.loop.call_later(inbound.engine.settings.peek_timeout_s, self._give_up)
            inbound.loop.call_soon(self._look_ahead)  # what is there by then comes first

    def _look_ahead(self) -> None:
        if not self.waiting or self.low_water > 1 or self.header or self.ahead is not None:
            return
        if self.inbound.engine.limiter is not None:
            if not self.inbound.seen(self.sock, self.peer, None).port:
                return  # nor would anybody be connected to
            if self._over_limit(None):
                return
        session = self.ahead = self.inbound.look_ahead(self.sock, self.peer)
        if session is not None:
            session.on_spoken = lambda: self._pass(None)
            session.on_failed = self._unreachable
            session.look_ahead()

    def _over_limit(self, hello: sniff.Hello | None) -> bool:
        """Whether it is closed for a local rate limit, which counts it once for its port. Where nothing has come yet, a
        TLS client's server name may still say another."""
        engine = self.inbound.engine
        if engine.limiter is None:
            return False
        arrival = self.inbound.seen(self.sock, self.peer, hello)
        if arrival.port == self.counted_port:
            return False
        self.counted_port = arrival.port
        if engine.over_limit(arrival):
            self.drop()
            return True
        return False

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
            self.inbound.poller.forget(self.sock.fileno())
            self.inbound.peeks.discard(self)
            self.timer.cancel()

    def _pass(self, hello: sniff.Hello | None) -> None:
        if self._over_limit(hello):
            return
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
