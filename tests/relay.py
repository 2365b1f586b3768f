"""What stands between a client and a real server in tests of faults: a line that falls silent, a proxy that lies."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from urllib.parse import urlsplit

import aiohttp
from aiohttp import web


class Line:
    """A TCP relay; while `silent` it passes nothing and closes nothing, also of what connects meanwhile."""

    def __init__(self, url: str) -> None:
        self._to = urlsplit(url).port
        self._loud = asyncio.Event()
        self._loud.set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self._closed = False
        self.url = ""

    def silence(self) -> None:
        self._loud.clear()

    def go_on(self) -> None:
        self._loud.set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        self._closed = True
        self._loud.set()
        for writer in list(self._open):
            writer.transport.abort()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._open.add(writer)
        try:
            await self._loud.wait()
            if self._closed:
                return
            inner, outer = await asyncio.open_connection("127.0.0.1", self._to)
            self._open.add(outer)
            await asyncio.gather(self._pass(reader, outer), self._pass(inner, writer))
        except OSError:
            pass
        finally:
            writer.transport.abort()
            self._open = {one for one in self._open if not one.transport.is_closing()}

    async def _pass(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while data := await reader.read(65536):
                await self._loud.wait()
                writer.write(data)
        writer.transport.abort()


Answer = tuple[int, dict[str, str], bytes]


class Proxy:
    """An HTTP proxy before a server. `change(path, answer)` makes of each answer what the client gets."""

    def __init__(self, url: str) -> None:
        self._to = url
        self._session: aiohttp.ClientSession | None = None
        self._runner: web.AppRunner | None = None
        self.url = ""
        self.asked: list[str] = []
        """Paths with queries."""
        self.change: Callable[[str, Answer], Awaitable[Answer]] | None = None

    async def open(self) -> None:
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._serve)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _serve(self, request: web.Request) -> web.Response:
        assert self._session is not None
        self.asked.append(request.path_qs)
        body = await request.read()
        async with self._session.request(request.method, self._to + request.path_qs, data=body or None) as answer:
            octets = await answer.read()
            headers = {k: v for k, v in answer.headers.items() if k.lower().startswith(("x-", "content-type"))}
            told: Answer = (answer.status, headers, octets)
        if self.change is not None:
            told = await self.change(request.path, told)
        return web.Response(status=told[0], headers=told[1], body=told[2])

    async def close(self) -> None:
        assert self._runner is not None
        assert self._session is not None
        await self._runner.cleanup()
        await self._session.close()


@contextlib.asynccontextmanager
async def line(url: str) -> AsyncIterator[Line]:
    made = Line(url)
    await made.open()
    try:
        yield made
    finally:
        await made.close()


@contextlib.asynccontextmanager
async def proxy(url: str) -> AsyncIterator[Proxy]:
    made = Proxy(url)
    await made.open()
    try:
        yield made
    finally:
        await made.close()
