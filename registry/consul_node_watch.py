"""Shell: follows one node of Consul: a query that waits for a change there, and answers in full where there may be one.

The index of an answer about a node is that of all tables, so that a query which waits for more than that index returns
at once where anything else in Consul has changed meanwhile; only one that waits already returns for its node alone. An
answer in full of a thousand services takes Consul 16 ms, in which the next change comes: were each answer in full asked
to wait from its own index on, queries would chase the index without end (measured, from one change a second on). So
what waits is a query whose answer is left empty by a filter (4 ms), asked again until it waits, and an answer in full
is read beside it: it has all up to the index from which on the other tells. Before a wait ends the next has begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any
from urllib.parse import quote

from .consul_catalog import ConsulError
from .consul_nodes import NodesSeen, OnNode
from .needs import FetchError

EMPTY = "&filter=" + quote('ID == "fairlead-none"')
LEAD_S = 2.0
"""Before a wait ends the next one begins; a quarter of the wait at most."""
FAST_S = 0.1
"""A query that returns within this did not wait."""
PAUSE_S, PAUSE_MOST_S = 0.005, 1.0
"""Before the next try to wait, doubled from try to try."""
Get = Callable[..., Coroutine[Any, Any, tuple[int, OnNode | None]]]


class BackwardsError(Exception):
    """The index went backwards: Consul's data are others than before."""


class _Waiting:
    """A query that waits for more than `index`."""

    def __init__(self, index: int, now: float) -> None:
        self.index = index
        self.task: asyncio.Task[tuple[int, Any]] | None = None
        """None: it is to be asked (again)."""
        self.learned = now
        """When the index was heard of."""
        self.since = self.ends = now
        """It goes on for a little longer, as Consul spreads the ends."""
        self.last = False
        """None comes after it."""


class NodeWatch:
    """`get` of the catalog; `wait_s()`: how long the next query is to wait. `heard(answer)` with each in full;
    `idle()`, asked before a wait ends without a change: whether to end with it."""

    def __init__(
        self,
        get: Get,
        path: str,
        wait_s: Callable[[], float],
        heard: Callable[[OnNode | None], None],
        idle: Callable[[], bool],
    ) -> None:
        self._get = get
        self._path = path
        self._wait_s = wait_s
        self._heard = heard
        self._idle = idle
        self._covered = 0
        """What was heard has all up to this index."""
        self._needed = 0
        """Up to this index there may be something that was not."""
        self._bell = self._spare = _Waiting(0, 0.0)
        """The one that waits, and the one that comes after it: the same while there is none."""
        self._reader: asyncio.Task[tuple[int, OnNode | None]] | None = None
        self._read_since = self._read_at = 0.0
        self._fresh = False
        self._again_at = 0.0
        self._tries = 0

    async def run(self) -> None:
        """Until `idle` says so. Raises ConsulError, FetchError, BackwardsError."""
        loop = asyncio.get_running_loop()
        self._covered, told = await self._get(self._path, decode=NodesSeen.decode)
        self._heard(told)
        self._needed = self._covered
        self._bell = self._spare = _Waiting(self._covered, loop.time())
        try:
            while True:
                self._begin(loop.time())
                tasks = [task for task in (self._bell.task, self._spare.task, self._reader) if task is not None]
                pause_s = max(self._next() - loop.time(), 0.0)
                if tasks:
                    await asyncio.wait(tasks, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
                else:
                    await asyncio.sleep(pause_s)
                self._take_answer(loop.time())
                if self._spare is not self._bell:
                    self._take_spare(loop.time())
                if self._take_bell(loop.time()):
                    return
        finally:
            await self._end()

    def _lead_s(self) -> float:
        return min(LEAD_S, (self._bell.ends - self._bell.since) / 4)

    def _ask(self, one: _Waiting, now: float) -> None:
        wait_s = self._wait_s()
        told = self._get(self._path, one.index, NodesSeen.decode, more=EMPTY, wait_s=wait_s)
        one.task = asyncio.get_running_loop().create_task(told)
        one.since, one.ends = now, now + wait_s

    def _begin(self, now: float) -> None:
        """What is due."""
        bell = self._bell
        if bell.task is None and now >= self._again_at:
            self._ask(bell, now)
        if self._covered < self._needed and self._reader is None and now >= self._read_at:
            self._read_since = now
            told = self._get(self._path, decode=NodesSeen.decode, fresh=self._fresh)
            self._reader = asyncio.get_running_loop().create_task(told)
        if self._spare is not bell:
            if self._spare.task is None and now >= self._again_at:
                self._ask(self._spare, now)
        elif bell.task is not None and not bell.last and now >= bell.ends - self._lead_s():
            if self._covered >= self._needed and self._idle():
                bell.last = True  # a query that were cancelled Consul would count until its wait is over
            else:
                self._spare = _Waiting(bell.index, now)
                self._ask(self._spare, now)

    def _next(self) -> float:
        """When something is due, at the latest."""
        bell, spare = self._bell, self._spare
        due = [bell.since + 3600.0]
        if bell.task is None or spare.task is None:
            due.append(self._again_at)
        elif spare is bell and not bell.last:
            due.append(bell.ends - self._lead_s())
        if self._covered < self._needed and self._reader is None:
            due.append(self._read_at)
        return min(due)

    def _take_answer(self, now: float) -> None:
        if self._reader is None or not self._reader.done():
            return
        reader, self._reader = self._reader, None
        index, told = reader.result()
        self._fresh = index < self._needed  # this server is behind the one that told of a change
        self._read_at = now + (now - self._read_since)  # no more than half of the time
        self._covered = max(self._covered, index)
        self._heard(told)

    def _take_spare(self, now: float) -> None:
        spare = self._spare
        if spare.task is None or not spare.task.done():
            return
        task, spare.task = spare.task, None
        try:
            index, _ = task.result()
        except (ConsulError, FetchError):
            self._spare, self._bell.last = self._bell, True  # the one that waits tells what is the matter
            return
        if index < spare.index:
            raise BackwardsError
        spare.index, spare.learned = index, now
        self._pause(now, True)

    def _take_bell(self, now: float) -> bool:
        """Whether it was the last."""
        bell, spare = self._bell, self._spare
        if bell.task is None or not bell.task.done():
            return False
        index, _ = bell.task.result()
        if index < bell.index:
            raise BackwardsError
        changed = index > bell.index
        if changed:
            self._needed = max(self._needed, index)
        if spare is not bell and spare.task is not None:
            # It waits since before the other's end, which would have told of a change up to the index it waits for.
            if not changed and spare.learned <= bell.ends - self._lead_s() / 2 and self._covered >= self._needed:
                self._covered = max(self._covered, spare.index)
            self._needed = max(self._needed, spare.index)
            self._bell = spare
            self._tries = 0
            return False
        ended = bell.last and not changed and self._covered >= self._needed and self._idle()
        self._bell = self._spare = _Waiting(index, now)
        self._pause(now, now - bell.since < FAST_S)
        return ended

    def _pause(self, now: float, fast: bool) -> None:
        """Before a query that did not wait is asked again."""
        self._tries = self._tries + 1 if fast else 0
        self._again_at = now + (min(PAUSE_S * 2.0 ** (self._tries - 1), PAUSE_MOST_S) if fast else 0.0)

    async def _end(self) -> None:
        tasks = [task for task in (self._bell.task, self._spare.task, self._reader) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
