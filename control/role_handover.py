"""Shell: a role's part in handing over: where its sockets come from at the start, and where they go at the end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import sys
from pathlib import Path
from typing import Any

from ..mesh.handover import BOUND, HandoverError, Holder, Predecessor, take_over
from ..mesh.sidecar import Sidecar
from ..proxy.sockets import of_systemd
from .settings import SettingError
from .systemd import Notifier

LOOK_S = 0.5
"""How often it is looked whether a successor that we started is still there."""
logger = logging.getLogger("fairlead.handover")


class Handover:
    """`taken`: set when a successor is ready and has our sockets."""

    def __init__(self, sidecar: Sidecar, who: str, path: Path | None, notifier: Notifier) -> None:
        self.taken = asyncio.Event()
        self.successor = 0
        """Its process."""
        self._sidecar = sidecar
        self._who = who
        self._path = path
        self._notifier = notifier
        self._predecessor: Predecessor | None = None
        self._holder: Holder | None = None
        self._started: asyncio.Task[None] | None = None

    @classmethod
    def of(cls, options: Any, sidecar: Sidecar, command: list[str] | None, notifier: Notifier) -> Handover:
        """As --handover and --data-dir say. Raises SettingError."""
        if command is not None:
            if options.handover:
                raise SettingError("--handover: the app of `run` is its child, which no successor can take over")
            path = None
        elif options.handover == "off":
            path = None
        elif options.handover:
            path = Path(options.handover)
        else:
            path = Path(options.data_dir) / BOUND if options.data_dir else None
        return cls(sidecar, f"{options.verb} {options.workload}", path, notifier)

    @property
    def succeeds(self) -> bool:
        """There is a predecessor, which serves until we are ready."""
        return self._predecessor is not None

    async def begin(self) -> None:
        """Before the first world: take what there is. Raises SettingError."""
        given, problems = of_systemd(os.environ, os.getpid())
        for problem in problems:
            logger.warning("%s", problem)
        sidecar = self._sidecar
        if self._path is not None:
            try:
                self._predecessor = await take_over(self._path, self._who)
            except HandoverError as error:
                raise SettingError(f"--handover {error}") from error
        predecessor = self._predecessor
        if predecessor is not None:
            logger.info("taking over %d sockets from process %d", len(predecessor.inherited), predecessor.pid)
            sidecar.inherit(predecessor.inherited, predecessor.state)
            sidecar.sockets.more = predecessor.more
        sidecar.sockets.give(given)

    async def ready(self) -> None:
        """We serve: a predecessor may end, and a successor may come."""
        sockets = self._sidecar.sockets
        sockets.more = None
        for place in sockets.close_spare():
            logger.warning("%s:%d (%s) was handed to us and is not listened on any more", *_where(place))
        if self._predecessor is not None:
            await self._predecessor.ready()
            self._predecessor = None
        if self._path is not None:
            self._holder = Holder(self._path, self._who, self._sidecar.offer, self._taken, self._failed)
            try:
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._holder.start()
            except OSError as error:
                self._holder = None
                logger.error("--handover %s: no successor can take over: %s", self._path, error)

    def _taken(self, pid: int) -> None:
        self.successor = pid
        self._notifier.handed_over(pid)
        self.taken.set()

    def _failed(self) -> None:
        self._notifier.tell(READY="1")  # the end of a reload that came to nothing

    def refuse(self, why: str) -> None:
        """Hand nothing over from now on."""
        if self._holder is not None:
            self._holder.closing = why

    def start_successor(self) -> None:
        """Start our own command line again (SIGUSR2): it takes over, and we end."""
        if self._holder is None or self._holder.closing or (self._started is not None and not self._started.done()):
            logger.warning("SIGUSR2: no successor is started: %s", self._why_none())
            return
        self._notifier.reloading()
        environment = {**os.environ, **self._notifier.environment}
        command = [sys.executable, *sys.orig_argv[1:]]
        pid = os.posix_spawn(sys.executable, command, environment)
        logger.info("SIGUSR2: process %d is started to take over", pid)
        self._started = asyncio.get_running_loop().create_task(self._look_after(pid))

    def _why_none(self) -> str:
        if self._holder is None:
            return "there is no --handover and no --data-dir"
        return self._holder.closing or "one is being started"

    async def _look_after(self, pid: int) -> None:
        while not self.taken.is_set():
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0]:
                    logger.error("process %d, which was to take over, has ended; going on", pid)
                    self._failed()
                    return
            await asyncio.sleep(LOOK_S)

    async def close(self) -> None:
        if self._started is not None:
            self._started.cancel()
            await asyncio.gather(self._started, return_exceptions=True)
        if self._predecessor is not None:
            self._predecessor.close()
        if self._holder is not None:
            await self._holder.close()


def _where(place: Any) -> tuple[str, int, str]:
    return place.host or "*", place.port, place.name
