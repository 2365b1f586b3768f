"""Shell: what every role does the same: event loop, signals, log, the line that says it is ready."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import uvloop

from ..registry.styles import CONTROLS
from .systemd import Notifier, for_this_process

logger = logging.getLogger("fairlead")
T = TypeVar("T")
_told = [Notifier({}, 0)]
"""Who is told that this process is ready."""


class Signals:
    """`stop` is set by the first SIGTERM or SIGINT; the second ends the process. SIGHUP calls `on_reload`."""

    def __init__(self, notifier: Notifier | None = None) -> None:
        self.stop = asyncio.Event()
        self.number = int(signal.SIGTERM)
        """The signal that came."""
        self.on_reload: Callable[[], None] | None = None
        self.at_once: list[Callable[[], None]] = []
        """What the second signal has to end beside this process."""
        self.notifier = notifier or Notifier({}, 0)
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop, number)
        loop.add_signal_handler(signal.SIGHUP, self._reload)

    def _stop(self, number: int) -> None:
        if self.stop.is_set():
            logger.warning("second signal: ending at once")
            for end in self.at_once:
                end()
            os._exit(128 + number)
        self.number = number
        self.notifier.stopping(f"draining after {signal.Signals(number).name}")
        self.stop.set()

    def _reload(self) -> None:
        if self.on_reload:
            self.notifier.reloading()
            self.on_reload()
            self.notifier.tell(READY="1")


class StoppedError(Exception):
    """A signal asked the role to end before it was ready."""


async def unless_stopped(signals: Signals, work: Coroutine[Any, Any, T]) -> T:
    """The result of what may take long before the role is ready. Raises StoppedError as soon as a signal comes."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(signals.stop.wait())
    try:
        await asyncio.wait((task, stop), return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise StoppedError
        return task.result()
    finally:
        stop.cancel()
        task.cancel()
        await asyncio.gather(task, stop, return_exceptions=True)


def run(role: Callable[[Signals], Coroutine[Any, Any, int]]) -> int:
    """Run a role on uvloop until it returns its exit code."""
    set_up_log()
    notifier = _told[0] = for_this_process()

    async def whole() -> int:
        asyncio.get_running_loop().set_exception_handler(unheard)
        notifier.watch()
        signals = Signals(notifier)
        try:
            return await role(signals)
        except StoppedError:
            logger.warning("ended by a signal before it was ready")
            return 128 + signals.number

    return uvloop.run(whole())


class OneLine(logging.Formatter):
    """A record is one line (a traceback follows it): what sidecars and clients say of themselves forges no other."""

    def formatMessage(self, record: logging.LogRecord) -> str:
        return super().formatMessage(record).translate(CONTROLS)


def set_up_log() -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(OneLine("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(handlers=[handler], level=os.environ.get("FAIRLEAD_LOG_LEVEL", "INFO").upper())
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)


def unheard(_loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    logger.error("%s", context.get("message", "an error nobody waited for"), exc_info=context.get("exception"))


def ready(line: str) -> None:
    """The one line on standard output that says: this role is ready; systemd hears it, too."""
    print(line, flush=True)
    _told[0].ready(line.removeprefix("fairlead "))


class Tasks:
    """Background tasks of a role; one that dies ends the role, with its reason in the log."""

    def __init__(self, stop: asyncio.Event) -> None:
        self._stop = stop
        self._tasks: set[asyncio.Task[Any]] = set()
        self.failed = False

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> None:
        task = asyncio.get_running_loop().create_task(work, name=name)
        self._tasks.add(task)
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or task.exception() is None:
            return
        logger.error("%s died; ending", task.get_name(), exc_info=task.exception())
        self.failed = True
        self._stop.set()

    async def close(self) -> None:
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
