"""Shell: the checks of the own app, run when they are due; who wants to know is told at once of what changes."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Iterable
from math import inf
from typing import Any

from ..registry.checks import Check, CheckError, resolve_port
from ..registry.health import CheckState, Health, described
from ..registry.model import Workload
from . import probes

logger = logging.getLogger("fairlead.health")


class Checker:
    """`run` until cancelled. `given`: checks of flags and files, which hold beside those of the workload's manifest.

    `where()` is (workload, address at which the app listens). `changed` is called with every change of `ready`, `why`.
    """

    def __init__(
        self,
        given: Iterable[Check],
        where: Callable[[], tuple[Workload, str]],
        changed: Callable[[], None],
        doomed: asyncio.Event | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._given = tuple(given)
        self._where = where
        self._changed = changed
        self._clock = clock
        self._wall = wall
        self.checks: tuple[Check, ...] = ()
        self.health = Health(())
        self.doomed = doomed or asyncio.Event()
        """Set when the app must be restarted (`health.doomed` says why)."""
        self._wake = asyncio.Event()
        self._running: set[asyncio.Task[None]] = set()
        self.take(())

    def take(self, checks: Iterable[Check]) -> None:
        """The checks of the manifest, from now on; where they are other ones, all begin again."""
        wanted = (*self._given, *checks)
        if wanted == self.checks:
            return
        before = self.health
        self.checks = wanted
        self.health = before.replaced(wanted, self._clock())
        self._tell((before.ready, before.why))

    @property
    def tells_ready(self) -> bool:
        """Whether any check says when the app is ready: liveness checks pass before it is."""
        return any(one.purpose != "liveness" for one in self.checks)

    def app_started(self, ready: bool = False) -> None:
        """The app runs, or is taken to run where somebody else starts it; `ready`: others have found it so."""
        before = (self.health.ready, self.health.why)
        self.doomed.clear()
        self.health.app_started(self._clock(), ready)
        self._tell(before)

    def app_ended(self, why: str) -> None:
        before = (self.health.ready, self.health.why)
        self.health.app_ended(why)
        self._tell(before)

    def _tell(self, before: tuple[bool, str]) -> None:
        self._wake.set()
        after = (self.health.ready, self.health.why)
        if after != before:
            if after[0] != before[0]:
                logger.log(
                    logging.INFO if after[0] else logging.WARNING, "the app is %s",
                    "ready" if after[0] else f"not ready: {after[1]}",
                )  # fmt: skip
            self._changed()

    async def run(self) -> None:
        try:
            while True:
                self._wake.clear()
                health = self.health
                for one in health.due(self._clock()):
                    task = asyncio.get_running_loop().create_task(self._run(health, one))
                    self._running.add(task)
                    task.add_done_callback(self._running.discard)
                wait_s = health.wake_at() - self._clock()
                try:
                    async with asyncio.timeout(None if wait_s == inf else max(wait_s, 0.0)):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            tasks = list(self._running)
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, health: Health, one: CheckState) -> None:
        check, turn = one.check, one.turn
        workload, app = self._where()
        try:
            port = 0 if check.kind == "exec" else resolve_port(check, workload.ports)
            passed, output = await probes.run(check, check.host or app, port)
        except CheckError as error:
            passed, output = False, str(error)
        before = (health.ready, health.why)
        health.done(one, turn, passed, output, self._clock(), self._wall(), random.random())
        if health is self.health:
            if health.doomed:
                self.doomed.set()
            self._tell(before)

    def summary(self) -> str:
        """How the app is, in one line: why it is not ready, else what the last check that makes it so said."""
        if not self.health.ready:
            return self.health.why
        said = [one for one in self.health.checks if one.check.purpose == "readiness" and one.at]
        return f"{said[-1].check.label}: {said[-1].output.partition(chr(10))[0]}" if said else ""

    def describe(self) -> dict[str, Any]:
        """For the admin port and for control."""
        return {
            "ready": self.health.ready,
            "why": self.health.why,
            "checks": described(self.health, self._wall()),
        }
