"""Shell: certificates that are asked for at one time are made together.

What a signature needs of the processor's caches a request's handling has put out of them, and the other way round: one
by one both cost a third more. So those whose requests came in one turn of the loop are verified one after the other,
then signed one after the other, then put on record by one write, before any of them is handed out. Who asks alone waits
for nobody.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from .issued import IssuedLeaf

TOGETHER_MOST = 16
"""At a time, some 3 ms; then others have their turn."""
Ask = tuple[str, str, str]
"""(CSR in PEM, namespace, service account)."""
Issued = dict[str, Any]


class Together:
    """`issue(asks, now)`: a certificate, or what is wrong, for each; `clock`: Unix seconds; `record` is told of those
    that are to be on record before they are handed out."""

    def __init__(
        self,
        issue: Callable[[Sequence[Ask], float], list[Issued | Exception]],
        clock: Callable[[], float],
        record: Callable[[Sequence[IssuedLeaf]], None],
    ) -> None:
        self._issue = issue
        self._clock = clock
        self._record = record
        self._waiting: deque[tuple[Ask, Callable[[Issued, float], IssuedLeaf] | None, asyncio.Future[Issued]]] = deque()

    def ask(self, ask: Ask, leaf: Callable[[Issued, float], IssuedLeaf] | None) -> asyncio.Future[Issued]:
        """The certificate, with "time". `leaf(issued, now)`: what goes on record; None: the caller sees to it."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[Issued] = loop.create_future()
        if not self._waiting:
            loop.call_soon(self._run, loop)
        self._waiting.append((ask, leaf, answer))
        return answer

    def _run(self, loop: asyncio.AbstractEventLoop) -> None:
        some = [self._waiting.popleft() for _ in range(min(TOGETHER_MOST, len(self._waiting)))]
        if self._waiting:
            loop.call_soon(self._run, loop)
        some = [one for one in some if not one[2].done()]  # who has gone meanwhile gets none
        now = self._clock()
        try:
            made = self._issue([ask for ask, _, _ in some], now)
            leaves = [
                leaf(told, now)
                for (_, leaf, _), told in zip(some, made, strict=True)
                if leaf is not None and not isinstance(told, Exception)
            ]
            if leaves:
                self._record(leaves)
        except Exception as error:  # a defect: it is nobody's alone
            made = [error] * len(some)
        for (_, _, answer), told in zip(some, made, strict=True):
            if isinstance(told, Exception):
                answer.set_exception(told)
            else:
                answer.set_result({**told, "time": now})
