"""A server that answers with recorded documents: for sources whose real servers cannot run here."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from aiohttp import web


class Recorded:
    """`documents`: JSON by path. `index` is what a blocking query waits for; `events` go out on streams."""

    def __init__(self) -> None:
        self.documents: dict[str, Any] = {}
        self.status: dict[str, int] = {}
        self.asked: list[tuple[str, dict[str, str], dict[str, str]]] = []
        self.index = 1
        self.index_header = "X-Nomad-Index"
        self.streams: list[web.StreamResponse] = []
        self.stream_paths: tuple[str, ...] = ()
        self.url = ""
        self._changed = asyncio.Event()

    def change(self, path: str, document: Any) -> None:
        """Put a document in, and let blocking queries know."""
        self.documents[path] = document
        self.index += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def say(self, octets: bytes) -> None:
        """To all who follow a stream."""
        for stream in self.streams:
            await stream.write(octets)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, dict(request.query), dict(request.headers)))
        if status := self.status.get(request.path):
            return web.Response(status=status, text="no")
        if request.path in self.stream_paths:
            stream = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
            await stream.prepare(request)
            self.streams.append(stream)
            await asyncio.Event().wait()
        if int(request.query.get("index", "0")) >= self.index:
            await self._changed.wait()
        if request.path not in self.documents:
            return web.Response(status=404, text="not found")
        return web.Response(
            text=json.dumps(self.documents[request.path]),
            content_type="application/json",
            headers={self.index_header: str(self.index)},
        )


@asynccontextmanager
async def recorded(set_up: Callable[[Recorded], None], unix: str = "") -> AsyncIterator[Recorded]:
    """A server with these documents; its `url`, or the Unix socket `unix`."""
    made = Recorded()
    set_up(made)
    app = web.Application()
    app.router.add_route("*", "/{tail:.*}", made.answer)
    runner = web.AppRunner(app, handler_cancellation=True, shutdown_timeout=0.1)
    await runner.setup()
    site = web.UnixSite(runner, unix) if unix else web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    if not unix:
        host, port = runner.addresses[0][:2]
        made.url = f"http://{host}:{port}"
    try:
        yield made
    finally:
        await runner.cleanup()
