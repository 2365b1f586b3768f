"""Shell: a small HTTP client for sidecars: `registry.needs.Fetch` on our own codec, importing nothing heavy.

A request's connection is kept for the next one to the same address; a kept connection that turns out to be dead before
any answer is replaced by a new one, once, for requests that may be repeated.
"""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from urllib.parse import SplitResult, unquote, urlsplit

from ..registry.needs import FetchError, Reply
from .http1 import ResponseParser
from .message import ProtocolError, ResponseHead

READ_BYTES = 1 << 18
BODY_BYTES_MAX = 256 << 20
IDLE_KEPT = 4
"""Connections kept for each address."""
IDEMPOTENT = frozenset(("GET", "HEAD", "PUT", "DELETE", "OPTIONS"))


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, tls: ssl.SSLContext | None) -> None:
        self.reader = reader
        self.writer = writer
        self.tls = tls
        self.parser = ResponseParser()
        self.used = False

    def close(self) -> None:
        self.writer.transport.abort()


class _Stream:
    """An answer whose body is read as it comes."""

    def __init__(self, connection: _Connection, head: ResponseHead, idle_timeout_s: float | None) -> None:
        self.status = head.status
        self.headers: Mapping[str, str] = {name.lower(): value for name, value in head.headers()}
        self._connection = connection
        self._idle_timeout_s = idle_timeout_s

    async def __aiter__(self) -> AsyncIterator[bytes]:
        parser = self._connection.parser
        while True:
            data = parser.read_body()
            if data:
                yield data
                continue
            if parser.complete:
                return
            await _read_more(self._connection, self._idle_timeout_s)


async def _read_more(connection: _Connection, timeout_s: float | None) -> None:
    """Feed the parser the next bytes; raises FetchError for silence, ProtocolError for an early end."""
    try:
        async with asyncio.timeout(timeout_s):
            data = await connection.reader.read(READ_BYTES)
    except TimeoutError:
        raise FetchError(f"no byte for {timeout_s:g} s") from None
    except (OSError, ssl.SSLError) as error:
        raise FetchError(f"connection lost: {error}") from error
    if data:
        connection.parser.feed(data)
    else:
        connection.parser.eof()


def _shown(url: str) -> str:
    """An address for messages, without its query: that is long, and may be secret."""
    return url.partition("?")[0]


def _cause(error: BaseException) -> str:
    """In words, without the number of the error."""
    number = error.errno if isinstance(error, OSError) and not isinstance(error, (ssl.SSLError, socket.gaierror)) else 0
    return os.strerror(number) if number else str(error)


class HttpFetch:
    """`tls`: the context for https; it must be given where https is used. Close with `close()`.

    `http+unix://%2Frun%2Fx.sock/path` is a request over a Unix socket, whose path stands, quoted, for the host.
    """

    def __init__(
        self, tls: ssl.SSLContext | None = None, server_hostname: str | None = None,
        refuses: Callable[[str], str] | None = None,
    ) -> None:  # fmt: skip
        """`refuses(address)`: why an address that a name stands for is not connected to; empty: it may be."""
        self._refuses = refuses
        self.tls = tls
        """May be replaced at any time; connections of another are not used again, since the peer knows us by it."""
        self._server_hostname = server_hostname
        self._idle: dict[tuple[str, str, int], list[_Connection]] = {}
        self._open: set[_Connection] = set()
        self._closed = False

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 10.0,
    ) -> Reply:
        try:
            async with asyncio.timeout(timeout_s):
                return await self._whole(method, url, headers, body)
        except TimeoutError:
            raise FetchError(f"{method} {_shown(url)}: no complete answer within {timeout_s:g} s") from None

    async def _whole(self, method: str, url: str, headers: Mapping[str, str] | None, body: bytes) -> Reply:
        async with self.stream(method, url, headers=headers, body=body, connect_timeout_s=60.0) as stream:
            pieces, size = [], 0
            async for piece in stream:
                pieces.append(piece)
                size += len(piece)
                if size > BODY_BYTES_MAX:
                    raise FetchError(f"the answer is larger than {BODY_BYTES_MAX} bytes")
            return Reply(stream.status, dict(stream.headers), b"".join(pieces))

    @asynccontextmanager
    async def stream(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        connect_timeout_s: float = 2.0,
        idle_timeout_s: float | None = None,
    ) -> AsyncIterator[_Stream]:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https", "http+unix") or not parts.hostname:
            raise FetchError(f"expected an http or https URL, got {url!r}")
        where, host = _where(parts)
        target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
        head = _request_head(method, target, host, headers, body)
        connection, answer = None, None
        try:
            for again in (method in IDEMPOTENT, False):
                connection = await self._connection(where, connect_timeout_s)
                reused = connection.used
                try:
                    answer = await _exchange(connection, method, head + body, idle_timeout_s)
                    break
                except (FetchError, ProtocolError):
                    self._drop(connection)
                    if not (reused and again and not connection.parser.unread()):
                        raise
            assert connection is not None
            assert answer is not None
            connection.used = True
            yield _Stream(connection, answer, idle_timeout_s)
        except ProtocolError as error:
            raise FetchError(f"{method} {_shown(url)}: {error}") from error
        except FetchError as error:
            raise FetchError(f"{method} {_shown(url)}: {error}") from error
        finally:
            if connection is not None and connection in self._open:
                self._give_back(where, connection, answer)

    async def _connection(self, where: tuple[str, str, int], timeout_s: float) -> _Connection:
        if self._closed:
            raise FetchError("this client is closed")
        idle = self._idle.get(where, [])
        while idle:
            kept = idle.pop()
            fits = kept.tls is None or kept.tls is self.tls
            if fits and not kept.reader.at_eof() and not kept.writer.transport.is_closing():
                return kept
            self._drop(kept)
        scheme, host, port = where
        tls = None
        if scheme == "https":
            if self.tls is None:
                raise FetchError("no TLS context: give certificate authorities (--ca)")
            tls = self.tls
        try:
            async with asyncio.timeout(timeout_s):
                if scheme == "http+unix":
                    reader, writer = await asyncio.open_unix_connection(host)
                else:
                    name = (self._server_hostname or host) if tls else None
                    reader, writer = await self._connect(host, port, tls, name)
        except TimeoutError:
            raise FetchError(f"not connected to {host}:{port} within {timeout_s:g} s") from None
        except (OSError, ssl.SSLError) as error:
            raise FetchError(f"not connected to {host}:{port}: {_cause(error)}") from error
        made = _Connection(reader, writer, tls)
        self._open.add(made)
        return made

    async def _connect(
        self, host: str, port: int, tls: ssl.SSLContext | None, name: str | None
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Raises OSError, ssl.SSLError, FetchError."""
        if self._refuses is None:
            return await asyncio.open_connection(host, port, ssl=tls, server_hostname=name)
        # The addresses that are judged are those connected to: a name may stand for others the next time it is asked.
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
        addresses = dict.fromkeys(str(one[4][0]) for one in found)
        reasons = {address: self._refuses(address) for address in addresses}
        allowed = [address for address, why in reasons.items() if not why]
        if not allowed:
            raise FetchError(f"{host}: {'; '.join(reasons.values()) or 'it has no address'}")
        for address in allowed[:-1]:
            try:
                return await asyncio.open_connection(address, port, ssl=tls, server_hostname=name)
            except OSError:
                continue
        return await asyncio.open_connection(allowed[-1], port, ssl=tls, server_hostname=name)

    def _give_back(self, where: tuple[str, str, int], connection: _Connection, head: ResponseHead | None) -> None:
        parser = connection.parser
        whole = head is not None and parser.complete and head.keep_alive and not parser.unread()
        idle = self._idle.setdefault(where, [])
        if whole and not self._closed and len(idle) < IDLE_KEPT:
            idle.append(connection)
        else:
            self._drop(connection)

    def _drop(self, connection: _Connection) -> None:
        connection.close()
        self._open.discard(connection)

    async def close(self) -> None:
        self._closed = True
        self._idle.clear()
        for connection in list(self._open):
            self._drop(connection)
        await asyncio.sleep(0)


def _where(parts: SplitResult) -> tuple[tuple[str, str, int], str]:
    """(scheme, host or path of a socket, port) of a URL, and its Host header."""
    if parts.scheme == "http+unix":
        return (parts.scheme, unquote(parts.netloc), 0), "localhost"
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return (parts.scheme, parts.hostname or "", port), parts.netloc.rpartition("@")[2]


async def _exchange(connection: _Connection, method: str, octets: bytes, timeout_s: float | None) -> ResponseHead:
    """Send a request; its final head."""
    connection.parser.expect(method)
    try:
        connection.writer.write(octets)
        await connection.writer.drain()
    except (OSError, ssl.SSLError) as error:
        raise FetchError(f"connection lost: {error}") from error
    while True:
        head = connection.parser.read_head()
        if head is None:
            await _read_more(connection, timeout_s)
        elif head.status >= 200:
            return head
        elif head.status == 101:
            raise FetchError("the server switched protocols unasked")


def _request_head(method: str, target: str, host: str, headers: Mapping[str, str] | None, body: bytes) -> bytes:
    lines = [f"{method} {target} HTTP/1.1"]
    given = {name.lower() for name in headers or ()}
    lines += [f"{name}: {value}" for name, value in (("host", host), ("user-agent", "fairlead")) if name not in given]
    for name, value in (headers or {}).items():
        if any(c in f"{name}{value}" for c in "\r\n\0"):
            raise FetchError(f"header {name!r}: a line break in it")
        lines.append(f"{name}: {value}")
    if body or method in ("POST", "PUT", "PATCH"):
        lines.append(f"content-length: {len(body)}")
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1", "replace")
