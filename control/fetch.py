"""Shell: an HTTP client on aiohttp for control's own needs (Consul, etcd): `registry.needs.Fetch`."""

from __future__ import annotations

import asyncio
import ipaddress
import os
import ssl
import urllib.request
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

import aiohttp

from ..registry.needs import FetchError, Reply, ReplyStream


class AiohttpFetch:
    """One session, made at first use in the running loop; `close()` when done.

    `tls`: context for https; None: the system's authorities. `headers` are sent with every request (credentials).
    `server_name`: what the server's certificate must be for, where it is not the host of the URL. `socket`: path of a
    Unix socket to which all requests go, whatever their host.
    """

    def __init__(
        self,
        tls: ssl.SSLContext | None = None,
        headers: Mapping[str, str] | None = None,
        server_name: str = "",
        socket: str = "",
    ) -> None:
        self._tls = tls
        self._socket = socket
        self._server_name = server_name or None
        self._headers = dict(headers or {})
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    def _open(self) -> aiohttp.ClientSession:
        if self._closed:
            raise FetchError("this client is closed")
        if self._session is None:
            connector: aiohttp.BaseConnector = (
                aiohttp.UnixConnector(self._socket, limit=0)
                if self._socket
                else aiohttp.TCPConnector(ssl=self._tls if self._tls is not None else True, limit=0)
            )
            self._session = aiohttp.ClientSession(
                connector=connector, headers=self._headers, auto_decompress=True, cookie_jar=aiohttp.DummyCookieJar()
            )
        return self._session

    async def request(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        body: bytes = b"",
        timeout_s: float = 10.0,
    ) -> Reply:
        """One request, whole answer. Any status is an answer; raises FetchError where there was none."""
        session = self._open()
        try:
            async with session.request(
                method,
                url,
                headers=headers,
                data=body or None,
                timeout=aiohttp.ClientTimeout(total=timeout_s),
                allow_redirects=False,
                proxy=None if self._socket else proxy_for(url),
                server_hostname=self._server_name if url.startswith("https:") else None,
            ) as answer:
                return Reply(answer.status, lower(answer.headers), await answer.read())
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:  # noqa: UP041
            raise FetchError(explain(method, url, error, timeout_s)) from error

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
    ) -> AsyncIterator[ReplyStream]:
        """A request with an answer without end. `idle_timeout_s`: longest silence before FetchError."""
        session = self._open()
        limits = aiohttp.ClientTimeout(
            total=None, connect=connect_timeout_s, sock_connect=connect_timeout_s, sock_read=idle_timeout_s
        )
        try:
            answer = await session.request(
                method, url, headers=headers, data=body or None, timeout=limits, allow_redirects=False,
                proxy=None if self._socket else proxy_for(url),
                server_hostname=self._server_name if url.startswith("https:") else None,
            )  # fmt: skip
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:  # noqa: UP041
            raise FetchError(explain(method, url, error, connect_timeout_s)) from error
        try:
            yield Stream(answer, method, url, idle_timeout_s or 0.0)
        finally:
            answer.close()

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()


class Stream:
    """An answer that is read as it comes."""

    def __init__(self, answer: aiohttp.ClientResponse, method: str, url: str, idle_timeout_s: float) -> None:
        self.status = answer.status
        self.headers: Mapping[str, str] = lower(answer.headers)
        self._answer = answer
        self._what = (method, url, idle_timeout_s)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        method, url, idle_timeout_s = self._what
        try:
            async for chunk in self._answer.content.iter_any():
                if chunk:
                    yield chunk
        except (aiohttp.ClientError, OSError, asyncio.TimeoutError, ValueError) as error:  # noqa: UP041
            raise FetchError(explain(method, url, error, idle_timeout_s)) from error


def lower(headers: Mapping[str, str]) -> dict[str, str]:
    """Names in lower case; of several lines the values joined with a comma."""
    found: dict[str, str] = {}
    for name, value in headers.items():
        key = name.lower()
        found[key] = f"{found[key]}, {value}" if key in found else value
    return found


def explain(method: str, url: str, error: BaseException, timeout_s: float) -> str:
    """What went wrong with which address, without the query (it may carry secrets)."""
    parts = urlsplit(url)
    where = f"{method} {parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
    if isinstance(error, (asyncio.TimeoutError, TimeoutError)):
        return f"{where}: no answer within {timeout_s:g} s"
    cause: BaseException = error.os_error if isinstance(error, aiohttp.ClientConnectorError) else error
    if isinstance(error, aiohttp.ClientConnectorCertificateError):
        cause = error.certificate_error
    if isinstance(cause, (ConnectionError, TimeoutError)) and cause.errno:  # asyncio's words for it are its own
        return f"{where}: {os.strerror(cause.errno)}"
    return f"{where}: {cause or type(cause).__name__}"


def proxy_for(url: str) -> str | None:
    """The proxy that HTTP_PROXY, HTTPS_PROXY and NO_PROXY name for this URL; never for loopback, as Go's clients do."""
    parts = urlsplit(url)
    host = parts.hostname or ""
    try:
        if ipaddress.ip_address(host).is_loopback:
            return None
    except ValueError:
        if host == "localhost":
            return None
    proxies = urllib.request.getproxies()
    proxy = proxies.get(parts.scheme)
    if not proxy or urllib.request.proxy_bypass(host):
        return None
    return proxy
