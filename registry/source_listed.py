"""Shell: a source that is read as a whole whenever it says that something has changed, and now and then.

What is known stays while the source does not answer. While it cannot say that something has changed it is read every
two seconds. After a gap most of what was known has to be missing twice before it is believed (`brake`).
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable
from typing import Protocol

from .backoff import Backoff
from .brake import HOLD_S, held
from .model import Changed, Facts, SourceStatus
from .needs import Fetch, FetchError

UNHEARD_S = 2.0
"""Between two reads while nothing tells of changes."""
PAUSE_S = 0.05
"""Least time between two reads, so that a burst of events is one read; a lone event is read for at once."""
logger = logging.getLogger("fairlead.registry")


class SourceError(Exception):
    """An answer that cannot be used; the message is for people."""


class Reader(Protocol):
    """What is special about one scheduler."""

    name: str
    fetch: Fetch
    every_s: float
    """Longest time between two reads although nothing was heard."""

    async def read(self) -> tuple[Facts, list[str]]:
        """Everything, and what in it cannot be used. Raises SourceError, FetchError."""
        ...

    async def listen(self, heard: Callable[[], None]) -> None:
        """Calls `heard` once it listens, and whenever something may have changed. Raises SourceError, FetchError."""
        ...


class ListedSource:
    """`update(facts, None)` with every change, `status(SourceStatus)` with every change of state. `run` until
    cancelled."""

    def __init__(
        self,
        reader: Reader,
        update: Callable[[Facts, Changed | None], None],
        status: Callable[[SourceStatus], None],
        *,
        hold_s: float = HOLD_S,
    ) -> None:
        self.name = reader.name
        self._reader = reader
        self._update = update
        self._status = status
        self._hold_s = hold_s
        self._known: set[str] = set()
        self._ever = False
        self._gap = True
        """The next read follows on a time in which nothing was known for sure."""
        self._confirmed_at = 0.0
        self._problems: tuple[str, ...] = ()
        self._unheard = "not connected yet"
        """Why no changes are heard of; empty: they are."""
        self._news = asyncio.Event()

    async def run(self) -> None:
        """Raises nothing but for defects; it can be run again."""
        self._tell("stale" if self._ever else "starting", "")
        tasks = [asyncio.ensure_future(self._listen()), asyncio.ensure_future(self._follow())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def close(self) -> None:
        await self._reader.fetch.close()

    async def _follow(self) -> None:
        backoff, looked_again = Backoff(), False
        while True:
            self._news.clear()
            try:
                facts, problems = await self._reader.read()
            except (SourceError, FetchError) as error:
                self._tell("stale" if self._ever else "starting", str(error))
                self._gap, looked_again = True, False
                await asyncio.sleep(backoff.pause(random.random()))
                continue
            backoff.reset()
            found = {f"{one.address}:{one.port}" for many in facts.endpoints.values() for one in many}
            if self._gap and not looked_again and (why := held(self._known, found)):
                self._tell("stale", why)
                looked_again = True
                await asyncio.sleep(self._hold_s)
                continue
            self._gap = looked_again = False
            self._known, self._problems = found, tuple(problems)
            self._ever, self._confirmed_at = True, time.time()
            self._update(facts, None)
            self._tell("live", self._unheard)
            await asyncio.sleep(PAUSE_S)
            try:
                async with asyncio.timeout(UNHEARD_S if self._unheard else self._reader.every_s):
                    await self._news.wait()
            except TimeoutError:
                pass

    async def _listen(self) -> None:
        backoff = Backoff()

        def heard() -> None:
            self._unheard = ""
            self._news.set()
            backoff.reset()

        while True:
            try:
                await self._reader.listen(heard)
                self._unheard = "the stream of changes ended"
            except (SourceError, FetchError) as error:
                self._unheard = f"changes are not heard of, everything is read every {UNHEARD_S:g} s: {error}"
            self._news.set()
            await asyncio.sleep(backoff.pause(random.random()))

    def _tell(self, state: str, error: str) -> None:
        self._status(SourceStatus(self.name, state, self._confirmed_at, error, self._problems))
