"""Shell: heavy work of the API beside its loop, and what each user's work costs.

A megabyte of rules takes seconds to judge. In a thread that takes turns with the loop (every 5 ms, by the interpreter's
lock) others wait some milliseconds and not those seconds. There is one such thread, and each user has one piece of
work in it, under way or waiting: so nobody's flood stands before the work of others.
"""

from __future__ import annotations

import asyncio
import time
import types
from collections.abc import Callable, Coroutine, Generator
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol, TypeVar

Made = TypeVar("Made")
Charge = Callable[[float], None]
"""Told seconds of processor time as they are spent."""

ASIDE_BYTES = 24 << 10
"""Work on so much is done in the thread; less takes the loop at most some 50 ms, and a thread some 0.1 ms more."""


class Aside(Protocol):
    """`work()`, of an input of `size` bytes, where it holds up nobody. It must touch nothing that others change."""

    async def __call__(self, size: int, work: Callable[[], Made]) -> Made: ...


async def at_once(size: int, work: Callable[[], Made]) -> Made:
    """For where there is nobody to hold up."""
    return work()


class Thread:
    """The thread, and whose turn it is."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None
        self._turns: dict[str, asyncio.Lock] = {}
        self._count: dict[str, int] = {}
        """How many pieces of work of a user there are, waiting or under way."""

    async def run(self, user: str, work: Callable[[], Made], check: Callable[[], None], charge: Charge) -> Made:
        """What `work` makes or raises. `check` is asked when it is this user's turn, and may refuse by raising.

        Who goes away meanwhile has the work charged all the same, and no other turn before it is done.
        """
        turn = self._turns.setdefault(user, asyncio.Lock())
        self._count[user] = self._count.get(user, 0) + 1
        try:
            await turn.acquire()
        except BaseException:
            self._forget(user)
            raise
        try:
            check()
            if self._pool is None:
                self._pool = ThreadPoolExecutor(1, "fairlead-api")
            under_way = asyncio.get_running_loop().run_in_executor(self._pool, _measured, work)
        except BaseException:
            self._done(user, turn)
            raise
        under_way.add_done_callback(lambda done: self._ended(user, turn, done, charge))
        made, error, _ = await asyncio.shield(under_way)
        if error is not None:
            raise error
        assert made is not None
        return made()

    def _ended(self, user: str, turn: asyncio.Lock, done: asyncio.Future[Any], charge: Charge) -> None:
        self._done(user, turn)
        if not done.cancelled() and done.exception() is None:
            charge(done.result()[2])

    def _done(self, user: str, turn: asyncio.Lock) -> None:
        turn.release()
        self._forget(user)

    def _forget(self, user: str) -> None:
        self._count[user] -= 1
        if not self._count[user]:
            del self._count[user], self._turns[user]

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def _measured(work: Callable[[], Made]) -> tuple[Callable[[], Made] | None, Exception | None, float]:
    """(what was made, or why nothing, seconds of this thread)."""
    begun = time.thread_time()
    try:
        made = work()
    except Exception as error:
        return None, error, time.thread_time() - begun
    return (lambda: made), None, time.thread_time() - begun


@types.coroutine
def metered(
    handled: Coroutine[Any, Any, Made], charge: Charge, clock: Callable[[], float] = time.thread_time
) -> Generator[Any, Any, Made]:
    """Await `handled`, and tell `charge` how long each of its steps held the loop, in seconds of processor time."""
    error: BaseException | None = None
    value: Any = None
    while True:
        begun = clock()
        try:
            asked = handled.send(value) if error is None else handled.throw(error)
        except StopIteration as end:
            made: Made = end.value
            return made
        finally:
            charge(clock() - begun)
        value, error = None, None
        try:
            value = yield asked
        except BaseException as thrown:  # a cancellation: it is the handler's to answer
            error = thrown
