"""Shell: many changes in a short time become one piece of work.

What is rare is done at once. While changes keep coming, work is done again no sooner than it took the last time, or
than a pause that the caller names, so that it takes half of the time at most. What is urgent waits for the first alone.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable


class Gather:
    """`work()` is called in the loop, after `ask`; `pause_s()`: the shortest time between two."""

    def __init__(self, work: Callable[[], None], pause_s: Callable[[], float] = lambda: 0.0) -> None:
        self._work = work
        self._pause_s = pause_s
        self._free_at = self._urgent_at = 0.0
        """From when on work may be done again, and what is urgent (monotonic)."""
        self._due_at = 0.0
        """When what was asked for is to be done."""
        self._handle: asyncio.Handle | None = None

    def ask(self, urgent: bool = False) -> None:
        """Something has changed."""
        due_at = self._urgent_at if urgent else self._free_at
        if self._handle is not None:
            if due_at >= self._due_at:
                return
            self._handle.cancel()
        loop = asyncio.get_running_loop()
        wait_s, self._due_at = due_at - time.monotonic(), due_at
        self._handle = loop.call_later(wait_s, self._run) if wait_s > 0 else loop.call_soon(self._run)

    def now(self) -> None:
        """Do at once what has been asked for, if anything."""
        if self._handle is not None:
            self._handle.cancel()
            self._run()

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def _run(self) -> None:
        self._handle = None
        begun = time.monotonic()
        try:
            self._work()
        finally:
            ended = time.monotonic()
            self._urgent_at = ended + ended - begun
            self._free_at = max(self._urgent_at, ended + self._pause_s())
