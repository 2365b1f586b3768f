"""Shell: make connections to endpoints, in time and to the right peer."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import Callable
from typing import Any, cast

from ..policy.tables import ClusterEndpoint, PoolLimits, UpstreamTLS
from .tls import Tls

ClientContext = Callable[..., "ssl.SSLContext | None"]
"""Of an UpstreamTLS; a second argument, True, asks for one that offers HTTP/2 by ALPN."""
VerifyPeer = Callable[[Any, UpstreamTLS], "str | None"]


class _Pending(asyncio.Protocol):
    """Holds a new connection still until its peer is verified and its real protocol takes over."""

    def __init__(self) -> None:
        self.data = b""
        self.ended = False
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.pause_reading()

    def data_received(self, data: bytes) -> None:
        self.data += data  # uvloop begins to read after connection_made, paused or not
        self.transport.pause_reading()

    def eof_received(self) -> bool:
        self.ended = True
        return True

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True


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
        self._tasks: set[asyncio.Task[None]] = set()

    def dial(
        self,
        endpoint: ClusterEndpoint,
        limits: PoolLimits,
        choose: Callable[[Any], Any],
        connected: Callable[[Any], None],
        failed: Callable[[str], None],
        header: bytes = b"",
        two: bool = False,
    ) -> asyncio.Task[None]:
        """Connect `choose(transport)`, a protocol object; then `connected(it)`, or `failed(why)`, never both; `why` is
        one sentence. The task may be cancelled; `failed` may then be called, or neither. `header` goes before all else,
        TLS included; `two`: offer HTTP/2 by ALPN where there is TLS."""
        dialled = self._dial(endpoint, limits, choose, connected, failed, header, two)
        task = asyncio.get_running_loop().create_task(dialled)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _dial(
        self,
        endpoint: ClusterEndpoint,
        limits: PoolLimits,
        choose: Callable[[Any], Any],
        connected: Callable[[Any], None],
        failed: Callable[[str], None],
        header: bytes,
        two: bool,
    ) -> None:
        try:
            made = await self._connect(endpoint, limits, header, two)
        except asyncio.CancelledError:
            failed(f"The connection to {endpoint.address}:{endpoint.port} was given up: the proxy is closing.")
            raise
        if isinstance(made, str):
            failed(made)
            return
        transport, pending = made
        protocol = choose(transport)
        transport.set_protocol(protocol)
        protocol.connection_made(transport)
        connected(protocol)
        if transport.is_closing():
            return
        transport.resume_reading()  # before `data_received`, which may pause it again
        if pending.data:
            protocol.data_received(pending.data)
        if transport.is_closing():
            return
        if pending.ended and not protocol.eof_received():
            transport.close()

    async def _connect(self, endpoint: ClusterEndpoint, limits: PoolLimits, header: bytes, two: bool) -> Any:
        """The transport, verified, and what held it so far; or why there is none."""
        where = f"{endpoint.address}:{endpoint.port}"
        tls = endpoint.tls
        context = None
        if tls is not None:
            context = self.client_context(tls, True) if two else self.client_context(tls)
            if context is None:
                return f"There is no certificate for a {tls.mode} TLS connection to {where} yet."
        seconds = limits.connect_timeout_s or 10.0
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(seconds):
                to: dict[str, Any] = {"host": endpoint.address, "port": endpoint.port}
                if header:
                    to = {"sock": await self._prefaced(endpoint, header)}
                if context is not None:
                    assert tls is not None
                    # resumes sessions by endpoint
                    bound = context.to(where) if hasattr(context, "to") else context
                    transport, pending = await _by_tls(bound, tls.sni or endpoint.address, to)
                else:
                    transport, pending = await loop.create_connection(_Pending, **to)
        except TimeoutError:
            return f"{where} did not accept a connection within connectTimeout {seconds:g} s."
        except ssl.SSLError as error:
            return f"The TLS handshake with {where} failed: {error.reason or error}."
        except (OSError, UnicodeError, ValueError) as error:
            return f"No connection to {where}: {_said(error)}."
        if tls is not None:
            wrong = self.verify_peer(transport, tls)
            if wrong is not None:
                transport.abort()
                return f"{where} is not who it should be: {wrong}."
        peer = transport.get_extra_info("peername")
        forbidden = self.may_leave(endpoint, str(peer[0])) if peer else None
        if forbidden is not None:
            transport.abort()
            return f"{where} may not be reached: {forbidden}."
        if pending.lost:
            return f"{where} closed the connection at once."
        if limits.keepalive is not None:
            _keep_alive(transport.get_extra_info("socket"), limits.keepalive)
        return transport, pending

    async def _prefaced(self, endpoint: ClusterEndpoint, header: bytes) -> socket.socket:
        """A socket connected to an endpoint, on which `header` is sent. Raises OSError."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(endpoint.address, endpoint.port, type=socket.SOCK_STREAM)
        error: OSError = ConnectionRefusedError()
        for family, kind, protocol, _, address in found:
            forbidden = self.may_leave(endpoint, str(address[0]))
            if forbidden is not None:
                error = OSError(forbidden)
                continue
            sock = socket.socket(family, kind, protocol)
            try:
                sock.setblocking(False)
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                await loop.sock_connect(sock, address)
                await loop.sock_sendall(sock, header)
            except OSError as failed:
                sock.close()
                error = failed
            except BaseException:
                sock.close()
                raise
            else:
                return sock
        raise error


async def _by_tls(context: ssl.SSLContext, name: str, to: dict[str, Any]) -> tuple[Any, _Pending]:
    """A transport whose handshake is over, and what holds it. Raises ssl.SSLError, OSError, ValueError."""
    loop = asyncio.get_running_loop()
    over: asyncio.Future[None] = loop.create_future()

    def made(error: Exception | None) -> None:
        if over.done():
            return
        if error is None:
            over.set_result(None)
        else:
            over.set_exception(error)

    pending = _Pending()
    wire = Tls(pending, context, made, loop.call_soon, False, name)
    try:
        await loop.create_connection(lambda: cast(asyncio.BaseProtocol, wire), **to)
        await over
    except BaseException:
        if over.done() and not over.cancelled():
            over.exception()  # seen
        else:
            over.cancel()
        if wire.raw is not None:
            wire.abort_handshake()
        raise
    return wire, pending


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
