"""Shell: a source in which a defect of ours shows is begun anew.

What sources read was written by strangers. An entry that nobody thought of must not end discovery until somebody
restarts the role, nor end the role: the same entry would be there after the restart. What was known stays, and how
the source is says that something is wrong with it.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable
from typing import Protocol

from msgspec.structs import replace

from .backoff import Backoff
from .model import SourceStatus

logger = logging.getLogger("fairlead.registry")
PAUSE_S, PAUSE_MOST_S = 1.0, 60.0
"""Before it is begun anew: the first time, and at most."""
GOOD_S = 300.0
"""Having run for so long, the next defect counts as the first."""


class Source(Protocol):
    name: str

    async def run(self) -> None: ...


async def supervised(
    source: Source,
    last: Callable[[], SourceStatus | None],
    status: Callable[[SourceStatus], None],
    *,
    pause_s: float = PAUSE_S,
) -> None:
    """Runs the source until cancelled, or it ends by itself. `last`: what it said of itself last."""
    loop, backoff = asyncio.get_running_loop(), Backoff(pause_s, max(pause_s, PAUSE_MOST_S))
    while True:
        begun = loop.time()
        try:
            await source.run()
            return
        except Exception as error:
            if loop.time() - begun > GOOD_S:
                backoff.reset()
            pause = backoff.pause(random.random())
            logger.exception("%s: a defect in Fairlead; it is begun anew in %.1f s", source.name, pause)
            told = last() or SourceStatus(source.name)
            why = f"a defect in Fairlead, whose log has more: {_first(error)}"
            status(replace(told, state="starting" if told.state == "starting" else "stale", error=why))
            await asyncio.sleep(pause)


def _first(error: BaseException) -> str:
    """In one line, the innermost of a group's."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return f"{type(error).__name__}: {error}"
