"""Apps and clients of bench/outage.py: HTTP/1.1, HTTP/2 and TCP; names by a sidecar's DNS; each request goes once."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import Awaitable, Callable
from typing import Any

import dnslib
import h2.config
import h2.connection
import h2.events
from aiohttp import web

HOST = "web.default.svc.cluster.local"
ANSWER_S = 10.0
"""An answer that takes longer has failed."""
KEPT_MAX = 25
"""Requests on one connection: then a new one, as pools of clients do."""
BODY = b"y" * 200
Address = tuple[str, int]


class Asked(enum.Enum):
    """What became of a request."""

    ANSWERED = 1
    DENIED = 2
    FAILED = 3


class App:
    """An instance: HTTP/1.1 on 8080, HTTP/2 without TLS on 8081, an echo on 8082."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.failing = False
        """Its check fails, and so does all that it is asked by HTTP, with 503."""
        self.bothered = 0
        """Requests that came while it was failing, but for checks."""
        self._closing: list[Callable[[], Awaitable[Any]]] = []

    async def start(self, host: str) -> None:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, host, 8080).start()
        loop = asyncio.get_running_loop()
        self._closing.append(runner.cleanup)
        for port, made in ((8081, lambda: Http2App(self)), (8082, Echo)):
            server = await loop.create_server(made, host, port)
            self._closing.append(_closer(server))

    async def _answer(self, request: web.Request) -> web.Response:
        await request.read()
        self.bothered += self.failing and request.path != "/healthz"
        return web.Response(status=503 if self.failing else 200, body=BODY, headers={"x-app": self.name})

    async def close(self) -> None:
        while self._closing:
            await self._closing.pop()()


def _closer(server: asyncio.Server) -> Callable[[], Awaitable[Any]]:
    async def close() -> None:
        server.close()

    return close


class Echo(asyncio.Protocol):
    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.transport.write(data)


class Http2App(asyncio.Protocol):
    def __init__(self, app: App) -> None:
        self.app = app
        self.own = h2.connection.H2Connection(h2.config.H2Configuration(client_side=False))

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.own.initiate_connection()
        self.transport.write(self.own.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.own.receive_data(data):
            if isinstance(event, h2.events.DataReceived):
                self.own.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self.app.bothered += self.app.failing
                status = "503" if self.app.failing else "200"
                self.own.send_headers(event.stream_id, [(":status", status), ("x-app", self.app.name)])
                self.own.send_data(event.stream_id, BODY, end_stream=True)
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.transport.close()
        self.transport.write(self.own.data_to_send())


# --- clients


async def resolve(server: Address) -> str:
    """The address of HOST, as a sidecar's DNS has it; one question, sent once."""
    loop = asyncio.get_running_loop()
    heard: asyncio.Future[bytes] = loop.create_future()

    class Asking(asyncio.DatagramProtocol):
        def datagram_received(self, data: bytes, address: Any) -> None:
            if not heard.done():
                heard.set_result(data)

        def error_received(self, error: Exception) -> None:
            if not heard.done():
                heard.set_exception(error)

    transport, _ = await loop.create_datagram_endpoint(Asking, remote_addr=server)
    try:
        transport.sendto(dnslib.DNSRecord.question(HOST).pack())
        async with asyncio.timeout(ANSWER_S):
            answer = dnslib.DNSRecord.parse(await heard)
    finally:
        transport.close()
    if not answer.rr:
        raise ValueError(f"DNS: {dnslib.RCODE.get(answer.header.rcode)} without an address")
    return str(answer.rr[0].rdata)


async def where(to: Address | int, dns: Address | None) -> Address:
    if isinstance(to, tuple):
        return to
    assert dns is not None
    return await resolve(dns), to


def judged(stream: Any, status: int, headers: dict[str, str], body: bytes) -> tuple[Asked, str]:
    stream.generation = headers.get("x-generation", "")
    if status == 200 and body == BODY and "x-app" in headers:
        return Asked.ANSWERED, ""
    said = f"{status} {headers.get('x-fairlead-reason', '')} {body[:200].decode(errors='replace')}"
    return (Asked.DENIED if status == 403 else Asked.FAILED), said


def ask_http(to: Address | int, path: str = "/api/items", dns: Address | None = None) -> Callable[..., Any]:
    """GET and POST in turn on a kept connection; `to`: a port is one at the address that `dns` gives."""

    async def ask(stream: Any) -> tuple[Asked, str]:
        async with asyncio.timeout(ANSWER_S):
            kept = stream.kept
            if kept is None or kept.reader.at_eof() or kept.used >= KEPT_MAX:
                if kept is not None:
                    kept.close()
                stream.kept = None
                stream.kept = kept = Kept(*await asyncio.open_connection(*await where(to, dns)))
            kept.used += 1
            method, body = ("POST", b"x" * 500) if kept.used % 3 == 0 else ("GET", b"")
            kept.writer.write(
                f"{method} {path} HTTP/1.1\r\nhost: {HOST}\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
            )
            try:
                head = (await kept.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
                headers = {name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:-2])}
                answer = await kept.reader.readexactly(int(headers["content-length"]))
            except BaseException:
                kept.close()
                stream.kept = None
                raise
            if headers.get("connection", "").lower() == "close":
                kept.close()
                stream.kept = None
            return judged(stream, int(head[0].split()[1]), headers, answer)

    return ask


class Kept:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.used = 0

    def close(self) -> None:
        self.writer.close()


class Http2Client(asyncio.Protocol):
    """One connection, one stream at a time."""

    def __init__(self) -> None:
        self.own = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="latin-1"))
        self.ended = False
        """No new stream may begin: GOAWAY, or the connection's end."""
        self.used = 0
        self._answer: asyncio.Future[None] | None = None
        self.headers: dict[str, str] = {}
        self.body = b""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.own.initiate_connection()
        transport.write(self.own.data_to_send())

    def data_received(self, data: bytes) -> None:
        for event in self.own.receive_data(data):
            if isinstance(event, h2.events.ResponseReceived):
                self.headers = {str(name): str(value) for name, value in event.headers}
            elif isinstance(event, h2.events.DataReceived):
                self.body += event.data
                self.own.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, h2.events.StreamEnded):
                self._settle(None)
            elif isinstance(event, h2.events.StreamReset):
                self._settle(OSError(f"the stream was reset with {event.error_code!r}"))
            elif isinstance(event, h2.events.ConnectionTerminated):
                self.ended = True
        self.transport.write(self.own.data_to_send())

    def connection_lost(self, error: Exception | None) -> None:
        self.ended = True
        self._settle(error or EOFError("the connection ended before the answer"))

    def _settle(self, error: Exception | None) -> None:
        if self._answer is not None and not self._answer.done():
            if error is None:
                self._answer.set_result(None)
            else:
                self._answer.set_exception(error)

    async def ask(self, authority: str, path: str, body: bytes) -> None:
        self.used += 1
        self.headers, self.body = {}, b""
        self._answer = asyncio.get_running_loop().create_future()
        number = self.own.get_next_available_stream_id()
        head = [(":method", "POST" if body else "GET"), (":scheme", "http"), (":authority", authority), (":path", path)]
        self.own.send_headers(number, head, end_stream=not body)
        if body:
            self.own.send_data(number, body, end_stream=True)
        self.transport.write(self.own.data_to_send())
        await self._answer

    def close(self) -> None:
        self.transport.close()


def ask_http2(to: Address | int, dns: Address | None = None, port: str = "") -> Callable[..., Any]:
    """As ask_http, over HTTP/2 with prior knowledge; `port` goes into :authority."""

    async def ask(stream: Any) -> tuple[Asked, str]:
        async with asyncio.timeout(ANSWER_S):
            kept = stream.kept
            if kept is None or kept.ended or kept.used >= KEPT_MAX:
                if kept is not None:
                    kept.close()
                stream.kept = None
                loop = asyncio.get_running_loop()
                _, kept = await loop.create_connection(Http2Client, *await where(to, dns))
                stream.kept = kept
            try:
                await kept.ask(HOST + port, "/api/items", b"x" * 500 if kept.used % 3 == 2 else b"")
            except BaseException:
                kept.close()
                stream.kept = None
                raise
            return judged(stream, int(kept.headers[":status"]), kept.headers, kept.body)

    return ask


def ask_plain(to: Address) -> Callable[..., Any]:
    """By plain text at a listener that wants mutual TLS: whatever becomes of it, but no answer of the app's."""

    async def ask(stream: Any) -> tuple[Asked, str]:
        said = b""
        with contextlib.suppress(OSError):
            async with asyncio.timeout(ANSWER_S):
                reader, writer = await asyncio.open_connection(*to)
                try:
                    writer.write(f"GET /api/items HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n\r\n".encode())
                    said = await reader.read()
                finally:
                    writer.close()
        return (Asked.DENIED, "") if not said else (Asked.FAILED, said[:200].decode("latin-1"))

    return ask


def ask_tcp(to: Address | int, dns: Address | None = None) -> Callable[..., Any]:
    """A new connection, two messages echoed, its end."""

    async def ask(stream: Any) -> tuple[Asked, str]:
        async with asyncio.timeout(ANSWER_S):
            reader, writer = await asyncio.open_connection(*await where(to, dns))
            try:
                for message in (b"a" * 100, b"b" * 5000):
                    writer.write(message)
                    if await reader.readexactly(len(message)) != message:
                        return Asked.FAILED, "another echo"
                return Asked.ANSWERED, ""
            finally:
                writer.close()
                with contextlib.suppress(OSError):
                    await writer.wait_closed()

    return ask
