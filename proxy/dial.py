"""Shell: make connections to endpoints, in time and to the right peer."""

from __future__ import annotations

import asyncio
import errno
import os
import random
import re
import socket
import ssl
from collections.abc import Callable
from typing import Any

from ..policy.tables import ClusterEndpoint, PoolLimits, UpstreamTLS
from .poller import EPOLLOUT, Poller, Watcher, poller_of
from .tls import Tls
from .wire import Wire

ClientContext = Callable[..., "ssl.SSLContext | None"]
"""Of an UpstreamTLS; a second argument, True, asks for one that offers HTTP/2 by ALPN. Raises NoContextError."""
VerifyPeer = Callable[[Any, UpstreamTLS], "str | None"]
UNIX = "unix://"
ANSWER_MOST = 16 * 1024
"""Octets of the head with which an HTTP proxy answers CONNECT."""
Address = tuple[int, Any]
"""Address family, and what `connect` takes."""


class NoContextError(Exception):
    """What TLS to an endpoint is to be made of cannot be had; `str()`: why, and where."""


class Dialing(Watcher):
    """One connection being made: addresses tried in turn, PROXY header, TLS, the peer verified; then its protocol's."""

    def __init__(
        self,
        dialer: Dialer,
        endpoint: ClusterEndpoint,
        limits: PoolLimits,
        choose: Callable[[Any], Any],
        connected: Callable[[Any], None],
        failed: Callable[[str], None],
        header: bytes,
        two: bool,
        tunnel: str = "",
    ) -> None:
        self.dialer = dialer
        self.endpoint = endpoint
        self.limits = limits
        self.choose = choose
        self.connected = connected
        self.failed = failed
        self.header = header
        self.two = two
        self.tunnel = tunnel
        """HOST:PORT to ask the endpoint for by CONNECT, once it is connected; empty: it is what was wanted."""
        self.where = f"{endpoint.address}:{endpoint.port}" if endpoint.port else endpoint.address
        self.poller: Poller = dialer.poller()
        self.context: Any = None
        self.sock: socket.socket | None = None
        """While it is being connected."""
        self.transport: Any = None
        self.over = False
        self._addresses: list[Address] = []
        self._error: OSError = ConnectionRefusedError()
        self._resolving: asyncio.Task[None] | None = None
        self._answer = b""
        """What the endpoint has said to CONNECT."""
        seconds = limits.connect_timeout_s or 10.0
        self._timer = self.poller.loop.call_later(seconds, self._late, seconds)
        self.poller.soon(self._begin)  # never fails within the call that asks for it

    def cancel(self) -> None:
        """Give it up; nobody is told."""
        if self.over:
            return
        self._leave()
        if self.transport is not None:
            self.transport.abort()

    def give_up(self, why: str) -> None:
        """Give it up, and say so."""
        if not self.over:
            self.cancel()
            self.failed(why)

    def _leave(self) -> None:
        self.over = True
        self.dialer.dialings.discard(self)
        self._timer.cancel()
        if self._resolving is not None:
            self._resolving.cancel()
        self._drop_socket()

    def _drop_socket(self) -> None:
        sock, self.sock = self.sock, None
        if sock is not None:
            self.poller.forget(sock.fileno())
            sock.close()

    def _late(self, seconds: float) -> None:
        asked = self.tunnel and self.transport is not None
        did_not = f"answer CONNECT {self.tunnel}" if asked else "accept a connection"
        self.give_up(f"{self.where} did not {did_not} within connectTimeout {seconds:g} s.")

    def _begin(self) -> None:
        if self.over:
            return
        endpoint = self.endpoint
        tls = endpoint.tls
        if tls is not None:
            try:
                context = self.dialer.client_context(tls, True) if self.two else self.dialer.client_context(tls)
            except NoContextError as error:
                self.give_up(f"No TLS connection to {self.where} can be made: {error}.")
                return
            if context is None:
                self.give_up(f"There is no certificate for a {tls.mode} TLS connection to {self.where} yet.")
                return
            self.context = context.to(self.where) if hasattr(context, "to") else context  # resumes sessions
        found = literal(endpoint.address, endpoint.port)
        if found is not None:
            self._addresses = [found]
            self._next()
        else:
            self._resolving = self.poller.loop.create_task(self._resolve())

    async def _resolve(self) -> None:
        endpoint = self.endpoint
        try:
            found = await self.poller.loop.getaddrinfo(endpoint.address, endpoint.port, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            self._resolving = None
            self.give_up(f"No connection to {self.where}: {_said(error)}.")
            return
        self._resolving = None
        first = found[0][0]
        if self.limits.spread:  # one of all that the name has, of the family that the resolver puts first
            random.shuffle(found)
            found.sort(key=lambda one: one[0] != first)
        self._addresses = [(family, address) for family, _, _, _, address in reversed(found)]
        self._next()

    def _next(self) -> None:
        """Try the next address."""
        while self._addresses:
            family, address = self._addresses.pop()
            local = family == socket.AF_UNIX
            forbidden = None if local else self.dialer.may_leave(self.endpoint, str(address[0]))
            if forbidden is not None:
                self._error = PermissionError(0, f"{address[0]} may not be reached: {forbidden}")
                continue
            try:
                sock = self.sock = socket.socket(family, socket.SOCK_STREAM)
                sock.setblocking(False)
                if not local:
                    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                if self.limits.keepalive is not None and not local:
                    _keep_alive(sock, self.limits.keepalive)
                code = sock.connect_ex(address)
            except OSError as error:
                self._error = error
                self._drop_socket()
                continue
            if code in (0, errno.EINPROGRESS):
                self.poller.watch(sock.fileno(), self, EPOLLOUT)
                return
            self._error = OSError(code, os.strerror(code))
            self._drop_socket()
        self.give_up(f"No connection to {self.where}: {_said(self._error)}.")

    def readable(self) -> None:
        """An error, which comes with the other."""
        if self.sock is not None:
            self.writable()

    def writable(self) -> None:
        """The socket is connected, or cannot be."""
        sock = self.sock
        if sock is None:
            return
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        try:
            if code:
                raise OSError(code, os.strerror(code))
            if self.header and sock.send(self.header) != len(self.header):
                raise OSError(errno.ENOBUFS, "it took no PROXY header")
        except OSError as error:
            self._error = error
            self._drop_socket()
            self._next()
            return
        self.sock = None
        tls = self.endpoint.tls
        if tls is None:
            wire = self.transport = Wire(self.poller, sock, self)
        else:
            above = self.transport = Tls(
                self, self.context, self._shaken, self.poller.soon, False, tls.sni or self.endpoint.address
            )
            wire = Wire(self.poller, sock, above)
        wire.begin_connected()

    def _shaken(self, error: Exception | None) -> None:
        """TLS: the handshake is over."""
        if self.over:
            return
        if error is not None:
            if isinstance(error, ssl.SSLError):
                why = getattr(error, "verify_message", "") or error.reason or error
                self.give_up(f"The TLS handshake with {self.where} failed: {why}.")
            else:
                self.give_up(f"No connection to {self.where}: {_said(error)}.")
            return
        tls = self.endpoint.tls
        assert tls is not None
        wrong = self.dialer.verify_peer(self.transport, tls)
        if wrong is not None:
            self.give_up(f"{self.where} is not who it should be: {wrong}.")

    def connection_made(self, transport: Any) -> None:
        """It is what was asked for, or leads to it."""
        if not self.tunnel:
            self._hand_over(transport)
            return
        self.transport = transport
        transport.write(f"CONNECT {self.tunnel} HTTP/1.1\r\nHost: {self.tunnel}\r\n\r\n".encode())

    def _hand_over(self, transport: Any) -> None:
        self._leave()
        protocol = self.choose(transport)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        self.connected(protocol)
        if self._answer:  # what came behind the answer is the target's
            protocol.data_received(self._answer)

    # --- the answer to CONNECT (RFC 9110 section 9.3.6)

    def data_received(self, data: bytes) -> None:
        if self.over:
            return
        self._answer += data
        while not self.over and (end := self._answer.find(b"\r\n\r\n")) >= 0:
            line = self._answer[: self._answer.index(b"\r\n")].decode("latin-1")
            status = _status_of(line)
            if not 100 <= status < 200 or status == 101:
                break
            self._answer = self._answer[end + 4 :]
        if end < 0:
            if len(self._answer) > ANSWER_MOST:
                self.give_up(f"{self.where} answered CONNECT {self.tunnel} with a head of over {ANSWER_MOST} octets.")
            return
        if 200 <= status < 300:
            self._answer = self._answer[end + 4 :]
            self._hand_over(self.transport)
        else:
            said = f"status {status}" if status else f"{line[:80]!r}, which is no status of HTTP/1"
            self.give_up(f"{self.where} answered CONNECT {self.tunnel} with {said}.")

    def eof_received(self) -> bool:
        self.give_up(f"{self.where} closed the connection before it answered CONNECT {self.tunnel}.")
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self.tunnel:
            self.eof_received()

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...


def _status_of(line: str) -> int:
    """Of a status line; 0: it is none."""
    version, _, rest = line.partition(" ")
    return int(rest[:3]) if version in ("HTTP/1.1", "HTTP/1.0") and re.fullmatch(r"[1-9][0-9]{2}( .*)?", rest) else 0


class Dialer:
    def __init__(
        self,
        client_context: ClientContext,
        verify_peer: VerifyPeer,
        may_leave: Callable[[ClusterEndpoint, str], str | None],
    ) -> None:
        self.may_leave = may_leave
        """Why an address that an endpoint's name led to may not be used, or None."""
        self.client_context = client_context
        self.verify_peer = verify_peer
        self.dialings: set[Dialing] = set()
        self._poller: Poller | None = None

    def poller(self) -> Poller:
        if self._poller is None:
            self._poller = poller_of(asyncio.get_running_loop())
        return self._poller

    def dial(
        self,
        endpoint: ClusterEndpoint,
        limits: PoolLimits,
        choose: Callable[[Any], Any],
        connected: Callable[[Any], None],
        failed: Callable[[str], None],
        header: bytes = b"",
        two: bool = False,
        tunnel: str = "",
    ) -> Dialing:
        """Connect `choose(transport)`, a protocol object; then `connected(it)`, or `failed(why)`, never both, and never
        within this call; `why` is one sentence. It may be cancelled; then neither is called. `header` goes before all
        else, TLS included; `two`: offer HTTP/2 by ALPN where there is TLS; `tunnel`: HOST:PORT that the endpoint, an
        HTTP proxy, is asked for by CONNECT before anything else."""
        dialing = Dialing(self, endpoint, limits, choose, connected, failed, header, two, tunnel)
        self.dialings.add(dialing)
        return dialing

    def close(self) -> None:
        for dialing in list(self.dialings):
            dialing.give_up(f"The connection to {dialing.where} was given up: the proxy is closing.")


def literal(address: str, port: int) -> Address | None:
    """The socket address of an IP literal, or of unix:///PATH; None: it is a name, or has a scope."""
    if address.startswith(UNIX):
        return (socket.AF_UNIX, address.removeprefix(UNIX))
    if ":" in address:
        return None if "%" in address else (socket.AF_INET6, (address, port, 0, 0))
    return (socket.AF_INET, (address, port)) if address.replace(".", "").isdigit() else None


def _said(error: Exception) -> str:
    if isinstance(error, ConnectionRefusedError):
        return "connection refused"
    text = getattr(error, "strerror", None) or str(error)
    return str(text) or type(error).__name__


def _keep_alive(sock: Any, keepalive: tuple[int, float, float]) -> None:
    probes, time_s, interval_s = keepalive
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    if probes:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, int(probes))
    if time_s:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, max(1, int(time_s)))
    if interval_s:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, max(1, int(interval_s)))
