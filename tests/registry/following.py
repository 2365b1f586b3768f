"""A source running in a test, and how to wait for what it tells."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

from fairlead.registry.model import Changed, Endpoint, Facts, SourceStatus

DEADLINE_S = 40.0


class Heard:
    def __init__(self) -> None:
        self.facts = Facts()
        self.status = SourceStatus("none")
        self.updates = 0
        self.watch: Callable[[], Any] | None = None
        """Called at every change."""
        self._changed = asyncio.Event()

    def update(self, facts: Facts, touched: Changed | None = None) -> None:
        self.facts = facts
        self.updates += 1
        self._told()

    def tell(self, status: SourceStatus) -> None:
        self.status = status
        self._told()

    def _told(self) -> None:
        if self.watch is not None:
            self.watch()
        self._changed.set()

    async def until(self, what: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not what():
                self._changed.clear()
                await self._changed.wait()

    def endpoints(self, host: str) -> list[Endpoint]:
        return list(self.facts.endpoints.get(host, ()))

    def ports(self, host: str, ready: bool = True) -> set[int]:
        return {endpoint.port for endpoint in self.endpoints(host) if endpoint.ready or not ready}


@contextlib.asynccontextmanager
async def following(make: Callable[[Heard], Any]) -> AsyncIterator[Heard]:
    """`make(heard)` makes the source; it runs for as long as the block does."""
    heard = Heard()
    source = make(heard)
    task = asyncio.ensure_future(source.run())
    try:
        yield heard
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await source.close()
