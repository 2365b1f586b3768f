"""Shell: DNS over HTTPS (RFC 8484) on HTTP/2 and HTTP/1.1, by our own codecs: `/dns-query`, GET and POST."""

from __future__ import annotations

import asyncio
import base64
import binascii
import ssl
from collections.abc import Awaitable, Callable
from http import HTTPStatus
from typing import Any
from urllib.parse import parse_qsl

from ..dns.message import SOA, Malformed, read_message
from ..proxy.http1 import RequestParser
from ..proxy.http2 import Http2, Http2Error, Http2Limits, Stream
from ..proxy.message import ProtocolError, RequestHead

PATH = "/dns-query"
MESSAGE = "application/dns-message"
LONGEST = 65535
"""Octets of a message."""
TARGET_MOST = 4 * LONGEST // 3 + 200
CONNECTIONS_MOST = 1000
IDLE_S = 30.0
UNREAD_MOST = 1 << 20
"""Octets of answers that a client may leave unread before it is cut off."""

Ask = Callable[[bytes, tuple[str, int]], Awaitable["bytes | None"]]


class Doh:
    """`ask(message, client)` gives the reply to a DNS message."""

    def __init__(self, ask: Ask) -> None:
        self.ask = ask
        self.port = 0
        self.counts: dict[int, int] = {}
        """Answers by HTTP status."""
        self.connections: set[_Connection] = set()
        self._server: asyncio.Server | None = None

    async def start(self, host: str, port: int, context: ssl.SSLContext | None) -> None:
        """Listen; without a context in clear text, for a proxy in front (and HTTP/1.1 alone). Raises OSError."""
        loop = asyncio.get_running_loop()
        limit = 5.0 if context is not None else None
        self._server = await loop.create_server(
            lambda: _Connection(self), host, port, ssl=context, backlog=256, ssl_handshake_timeout=limit
        )
        self.port = int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        if self._server is not None:
            self._server.close()
        for connection in list(self.connections):
            connection.abort()
        await asyncio.sleep(0)

    async def answer(self, head: RequestHead, body: bytes, client: tuple[str, int]) -> bytes:
        """The HTTP/1.1 text of the response."""
        reply = b""
        message, status, why = asked(head, body)
        if message:
            made = await self.ask(message, client)
            if made is None:
                status, why = 400, "no DNS query"
            else:
                status, reply = 200, made
        self.counts[status] = self.counts.get(status, 0) + 1
        lines = [f"HTTP/1.1 {status} {HTTPStatus(status).phrase}"]
        if status == 200:
            lines += [f"content-type: {MESSAGE}", f"cache-control: max-age={lifetime(reply)}"]
        else:
            reply = f"{why}\n".encode()
            lines += ["content-type: text/plain; charset=utf-8"]
        if status == 405:
            lines.append("allow: GET, HEAD, POST")
        lines.append(f"content-length: {len(reply)}")
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + reply


def asked(head: RequestHead, body: bytes) -> tuple[bytes, int, str]:
    """(message, status, why): the DNS message of a request, or the status that refuses it."""
    path, _, query = head.path.partition("?")
    if path != PATH:
        return b"", 404, f"DNS is asked at {PATH}"
    if head.method == "POST":
        kind = (head.header("content-type") or "").partition(";")[0].strip().lower()
        if kind != MESSAGE:
            return b"", 415, f"expected content-type {MESSAGE}"
        return (body, 200, "") if len(body) >= 12 else (b"", 400, "shorter than a DNS header")
    if head.method not in ("GET", "HEAD"):
        return b"", 405, "expected GET or POST"
    values = [value for name, value in parse_qsl(query, keep_blank_values=True) if name == "dns"]
    if len(values) != 1:
        return b"", 400, "expected one parameter `dns`, the message in base64url"
    try:
        message = base64.b64decode(values[0].encode("ascii") + b"=" * (-len(values[0]) % 4), b"-_", validate=True)
    except (ValueError, binascii.Error):
        return b"", 400, "the parameter `dns` is not base64url"
    if not 12 <= len(message) <= LONGEST:
        return b"", 400, "shorter or longer than a DNS message can be"
    return message, 200, ""


def lifetime(reply: bytes) -> int:
    """Seconds for which the answer may be kept (RFC 8484 section 5.1): its least TTL; of a denial its SOA's MINIMUM."""
    try:
        read = read_message(reply)
    except Malformed:
        return 0
    if read.rcode not in (0, 3):
        return 0
    starts = [min(r.ttl, int.from_bytes(r.rdata[0][-4:], "big")) for r in read.authority if r.rtype == SOA]
    found = [rrset.ttl for rrset in read.answer] + starts
    return min(found) if found else 0


class _Connection(asyncio.Protocol):
    """One client: HTTP/2 where ALPN or its preface says so, else HTTP/1.1, one request at a time."""

    def __init__(self, doh: Doh) -> None:
        self._doh = doh
        self._transport: Any = None
        self._client = ("", 0)
        self._one: RequestParser | None = None
        self._two: Http2 | None = None
        self._head: RequestHead | None = None
        self._bodies: dict[int, tuple[RequestHead, bytearray]] = {}
        self._body = bytearray()
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._heard = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self._client = peer[:2] if peer else ("", 0)
        if len(self._doh.connections) >= CONNECTIONS_MOST:
            self.abort()
            return
        self._doh.connections.add(self)
        tls = transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() == "h2":
            self._two = Http2(self, False, Http2Limits(max_head=TARGET_MOST + 8192))
            self._two.start()
            self._flush()
        else:
            self._one = RequestParser(TARGET_MOST + 8192, 100, TARGET_MOST)
        loop = asyncio.get_running_loop()
        self._heard = loop.time()
        self._timer = loop.call_later(IDLE_S, self._idle)

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._doh.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
        for task in self._tasks:
            task.cancel()

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def _idle(self) -> None:
        """Nothing came for a while: who sends a question slowly is cut off, too."""
        loop = asyncio.get_running_loop()
        left = self._heard + IDLE_S - loop.time()
        if left > 0 or self._tasks:
            self._timer = loop.call_later(max(left, 1.0), self._idle)
        else:
            self.abort()

    def data_received(self, data: bytes) -> None:
        now = asyncio.get_running_loop().time()
        if self._two is not None:
            self._two.calm(now - self._heard)
            self._heard = now
            try:
                self._two.receive(data)
            except Http2Error:
                self._flush()
                if self._transport is not None:
                    self._transport.close()
                return
            self._flush()
            return
        assert self._one is not None
        self._one.feed(data)
        if self._tasks:
            self._transport.pause_reading()  # one at a time: the next waits in the kernel
        else:
            self._go_on(now)

    # HTTP/1.1 -----------------------------------------------------------------------------------------------------

    def _go_on(self, now: float) -> None:
        parser = self._one
        assert parser is not None
        try:
            if self._head is None:
                self._head = parser.read_head()
                if self._head is None:
                    return
                self._heard = now
                if self._head.expect_continue:
                    self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            while piece := parser.read_body():
                self._body += piece
                if len(self._body) > LONGEST:
                    raise ProtocolError("a DNS message has at most 65535 octets", status=413)
        except ProtocolError as error:
            text = f"{error}\n".encode("utf-8", "replace")
            phrase = HTTPStatus(error.status).phrase
            self._transport.write(
                f"HTTP/1.1 {error.status} {phrase}\r\ncontent-length: {len(text)}\r\nconnection: close\r\n\r\n".encode()
                + text
            )
            self._transport.close()
            return
        if parser.complete:
            self._start(self._answer_one(self._head, bytes(self._body)))

    async def _answer_one(self, head: RequestHead, body: bytes) -> None:
        text = await self._doh.answer(head, body, self._client)
        if self._transport is None:
            return
        self._transport.write(text if head.method != "HEAD" else text[: text.index(b"\r\n\r\n") + 4])
        self._head, self._body = None, bytearray()
        if not head.keep_alive or self._transport.get_write_buffer_size() > UNREAD_MOST:
            self._transport.close()
            return
        assert self._one is not None
        self._one.next_message()
        asyncio.get_running_loop().call_soon(self._next)

    def _next(self) -> None:
        if self._transport is not None and not self._tasks:
            assert self._one is not None
            if self._one.unread():
                self._go_on(asyncio.get_running_loop().time())
            if self._transport is not None and not self._tasks:
                self._transport.resume_reading()

    def _start(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # HTTP/2: what the codec calls ---------------------------------------------------------------------------------

    def head(self, stream: Stream, head: RequestHead, end: bool) -> None:
        if end:
            self._start(self._answer_two(stream, head, b""))
        else:
            self._bodies[stream.id] = head, bytearray()

    def data(self, stream: Stream, data: bytes, end: bool) -> None:
        assert self._two is not None
        self._two.consumed(stream, len(data))
        known = self._bodies.get(stream.id)
        if known is None:
            return
        head, body = known
        body += data
        if len(body) > LONGEST:
            del self._bodies[stream.id]
            self._two.respond(stream, b"HTTP/1.1 413 \r\ncontent-length: 0\r\n\r\n", True)
            self._two.reset(stream, 0)
        elif end:
            del self._bodies[stream.id]
            self._start(self._answer_two(stream, head, bytes(body)))

    def trailers(self, stream: Stream, block: bytes) -> None:
        known = self._bodies.pop(stream.id, None)
        if known is not None:
            self._start(self._answer_two(stream, known[0], bytes(known[1])))

    async def _answer_two(self, stream: Stream, head: RequestHead, body: bytes) -> None:
        text = await self._doh.answer(head, body, self._client)
        if self._transport is None or self._two is None:
            return
        end = text.index(b"\r\n\r\n") + 4
        alone = head.method == "HEAD" or end == len(text)
        self._two.respond(stream, text[:end], alone)
        if not alone:
            self._two.send(stream, text[end:], True)
        self._flush()

    def reset(self, stream: Stream, code: int, why: str) -> None:
        self._bodies.pop(stream.id, None)

    def refused(self, why: str, large: bool) -> None: ...

    def interim(self, stream: Stream, head: Any) -> None: ...

    def writable(self, stream: Stream) -> None: ...

    def goaway(self, last_id: int, code: int, debug: bytes) -> None: ...

    def pong(self, payload: bytes) -> None: ...

    def settings_changed(self) -> None: ...

    def _flush(self) -> None:
        if self._transport is None or self._two is None:
            return
        out = self._two.output()
        if out:
            self._transport.write(out)
            if self._transport.get_write_buffer_size() + self._two.queued > UNREAD_MOST:
                self.abort()
