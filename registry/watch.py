"""Shell: a cell that holds the latest value of something, and tells who waits or listens when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class Cell(Generic[T]):
    """`version` grows by one with every `set`. Used from one event loop."""

    def __init__(self, value: T) -> None:
        self.value = value
        self.version = 0
        self._waiting: set[asyncio.Future[None]] = set()
        self._callbacks: list[Callable[[T], None]] = []

    def set(self, value: T) -> None:
        """Put a new value in; callbacks run before this returns, waiters afterwards."""
        self.value = value
        self.version += 1
        for waiter in self._waiting:
            if not waiter.done():
                waiter.set_result(None)
        self._waiting.clear()
        for callback in tuple(self._callbacks):
            callback(value)

    async def wait(self, version: int) -> T:
        """The value, as soon as it is newer than `version`."""
        while self.version <= version:
            waiter = asyncio.get_running_loop().create_future()
            self._waiting.add(waiter)
            try:
                await waiter
            finally:
                self._waiting.discard(waiter)
        return self.value

    def subscribe(self, callback: Callable[[T], None]) -> Callable[[], None]:
        """Call `callback` with each new value; returns how to end that."""
        self._callbacks.append(callback)

        def unsubscribe() -> None:
            if callback in self._callbacks:
                self._callbacks.remove(callback)

        return unsubscribe
