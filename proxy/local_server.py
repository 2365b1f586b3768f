"""Shell: a small HTTP server on our own codec, for a sidecar's health, metrics and admin ports.

Handlers are looked up by (method, path) and give (status, content type, body). One request at a time on a connection;
bodies are read and given to the handler up to a limit. Whatever is not HTTP gets a 4xx and a closed connection.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from .http1 import RequestParser
from .message import ProtocolError, RequestHead
from .sockets import Sockets

HEAD_TIMEOUT_S = 10.0
IDLE_TIMEOUT_S = 75.0
BODY_BYTES_MAX = 1 << 20
CONNECTIONS_MAX = 512
TEXT = "text/plain; charset=utf-8"
JSON = "application/json"

Answer = tuple[int, str, bytes]
Handler = Callable[["Query"], "Answer | Awaitable[Answer]"]
logger = logging.getLogger("fairlead.local")


class Query:
    """A request as handlers see it."""

    __slots__ = ("body", "head", "path", "query", "source")

    def __init__(self, head: RequestHead, body: bytes, source: str = "") -> None:
        self.head = head
        self.path, _, self.query = head.path.partition("?")
        self.body = body
        self.source = source
        """Address of who asks."""


class LocalServer:
    def __init__(self, routes: Mapping[tuple[str, str], Handler]) -> None:
        """Keys are (method, path); a path that ends in `/*` takes everything below it. GET also answers HEAD."""
        self._routes = dict(routes)
        self._servers: list[asyncio.Server] = []
        self._ending = False
        self._connections: set[_Connection] = set()
        self.port = 0

    async def start(self, host: str, port: int, sockets: Sockets | None = None, name: str = "") -> int:
        """Listen; the port. Raises OSError."""
        loop = asyncio.get_running_loop()
        socks = await (sockets or Sockets()).listening(host, port, name)
        self.port = int(socks[0].getsockname()[1])
        for sock in socks:
            self._servers.append(await loop.create_server(lambda: _Connection(self), sock=sock, backlog=128))
        return self.port

    def stop(self) -> None:
        """Accept no more; who is connected gets one more answer."""
        self._ending = True
        for server in self._servers:
            server.close()
        self._servers = []

    async def close(self) -> None:
        self.stop()
        for connection in list(self._connections):
            connection.abort()
        await asyncio.sleep(0)

    def find(self, method: str, path: str) -> Handler | int:
        """The handler, or 404 or 405."""
        method = "GET" if method == "HEAD" else method
        found = self._routes.get((method, path))
        if found is not None:
            return found
        known = False
        for (own, pattern), handler in self._routes.items():
            if pattern == path or (pattern.endswith("/*") and path.startswith(pattern[:-1])):
                if own == method:
                    return handler
                known = True
        return 405 if known else 404


class _Connection(asyncio.Protocol):
    def __init__(self, server: LocalServer) -> None:
        self._server = server
        self._parser = RequestParser()
        self._transport: asyncio.Transport | None = None
        self._head: RequestHead | None = None
        self._body: list[bytes] = []
        self._size = 0
        self._timer: asyncio.TimerHandle | None = None
        self._task: asyncio.Task[None] | None = None
        self._writable = asyncio.Event()
        """Cleared while the client takes no more: nothing further is answered then."""
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport) or hasattr(transport, "write")
        self._transport = transport  # type: ignore[assignment]
        if len(self._server._connections) >= CONNECTIONS_MAX:
            self.abort()
            return
        self._server._connections.add(self)
        self._wait(HEAD_TIMEOUT_S)

    def connection_lost(self, exc: Exception | None) -> None:
        self._server._connections.discard(self)
        self._stop_timer()
        self._transport = None
        self._writable.set()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def abort(self) -> None:
        if self._task is not None:
            self._task.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _wait(self, seconds: float) -> None:
        self._stop_timer()
        self._timer = asyncio.get_running_loop().call_later(seconds, self._too_slow)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        if self._parser.unread() or self._head is not None:
            self._refuse(408, "the request took too long")
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        if self._task is not None and self._transport is not None:
            self._transport.pause_reading()  # one at a time: the next request waits in the kernel
            return
        self._go_on()

    def eof_received(self) -> bool:
        return self._task is not None  # an answer may still be on its way

    def _go_on(self) -> None:
        try:
            if self._head is None:
                self._head = self._parser.read_head()
                if self._head is None:
                    return
                if self._head.expect_continue and self._transport is not None:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            while piece := self._parser.read_body():
                self._size += len(piece)
                if self._size > BODY_BYTES_MAX:
                    self._refuse(413, f"the body is larger than {BODY_BYTES_MAX} bytes")
                    return
                self._body.append(piece)
        except ProtocolError as error:
            self._refuse(error.status, str(error))
            return
        if self._parser.complete:
            self._stop_timer()
            self._task = asyncio.get_running_loop().create_task(self._answer(self._head, b"".join(self._body)))

    async def _answer(self, head: RequestHead, body: bytes) -> None:
        peer = self._transport.get_extra_info("peername") if self._transport is not None else None
        query = Query(head, body, peer[0] if peer else "")
        handler = self._server.find(head.method, query.path)
        try:
            if isinstance(handler, int):
                answer: Answer = (handler, TEXT, f"{HTTPStatus(handler).phrase}\n".encode())
            else:
                made = handler(query)
                answer = await made if inspect.isawaitable(made) else made
        except asyncio.CancelledError:
            raise
        except Exception:
            logger.exception("%s %s failed for a fault of ours", head.method, query.path)
            answer = (500, TEXT, b"an error of ours; the log says more\n")
        keep = head.keep_alive and not self._server._ending
        self._send(answer, keep, head.method == "HEAD")
        await self._until_taken()
        self._task = None
        self._head, self._body, self._size = None, [], 0
        if self._transport is not None and keep:
            self._parser.next_message()
            self._wait(IDLE_TIMEOUT_S)
            if self._parser.unread():
                self._go_on()
            if self._task is None and self._transport is not None:  # what is here is no whole request: read on
                self._transport.resume_reading()

    async def _until_taken(self) -> None:
        """Wait until the client has taken most of the answer: who only asks must not fill our memory."""
        if self._writable.is_set():
            return
        try:
            async with asyncio.timeout(IDLE_TIMEOUT_S):
                await self._writable.wait()
        except TimeoutError:
            if self._transport is not None:
                self._transport.abort()

    def _send(self, answer: Answer, keep: bool, without_body: bool = False) -> None:
        if self._transport is None:
            return
        status, content_type, body = answer
        head = (
            f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\ncontent-type: {content_type}\r\n"
            f"content-length: {len(body)}\r\n{'' if keep else 'connection: close' + chr(13) + chr(10)}\r\n"
        ).encode("latin-1")
        self._transport.write(head if without_body else head + body)
        if not keep:
            self._transport.close()

    def _refuse(self, status: int, why: str) -> None:
        self._stop_timer()
        self._send((status if status >= 400 else 400, TEXT, f"{why}\n".encode("utf-8", "replace")), keep=False)
