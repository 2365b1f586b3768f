"""Shell: the app of `fairlead run`: its process, the signals passed on to it, its end, and what PID 1 has to do.

With `--restart on-failure` or `always` an app that its liveness or startup checks give up is ended (SIGTERM, after the
drain deadline SIGKILL) and started again, after pauses that grow from 1 s to 5 minutes and begin anew once it has run
for ten (Kubernetes' CrashLoopBackOff); so is one that ends by itself with a failure, or at all. With `never`, the
default, `run` ends with it.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import signal
from collections.abc import Iterable
from pathlib import Path

from ..mesh.sidecar import Sidecar
from ..registry.backoff import Backoff
from .settings import SettingError

PASSED_ON = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGWINCH, signal.SIGCONT)
"""Beside SIGTERM and SIGINT, which begin the drain."""
REAP_S = 1.0
CONNECT_S = 1.0
RESERVE_SHARE = 0.1
"""Of the time that is left, what the app is not given: for the end of its last calls."""
PAUSE_LEAST_S, PAUSE_MOST_S = 1.0, 300.0
WELL_S = 600.0
"""After so long an app counts as having started well."""
GIVEN_UP = 1
"""Exit code where checks ended the app."""
logger = logging.getLogger("fairlead.run")


class App:
    """One process in a process group of its own, so that Ctrl-C reaches it once; of a terminal it is the foreground.

    `start`, then `watch` until it ends for good; `end` ends it.
    """

    def __init__(self, command: list[str], sidecar: Sidecar, restart: str, grace_s: float) -> None:
        self._command = command[1:] if command[:1] == ["--"] else command
        self._sidecar = sidecar
        self._restart = restart
        self._grace_s = grace_s
        """Given to one whose checks give it up."""
        self._process: asyncio.subprocess.Process | None = None
        self._started_at = 0.0
        self._given_up = False
        self._reaper: asyncio.Task[None] | None = None
        self.up = asyncio.Event()
        """It was started, and has not ended to be started again."""
        self.gone = asyncio.Event()
        """The process started last has ended, and another is to be started; a new event with each."""

    async def start(self) -> None:
        """Raises SettingError."""
        command, loop = self._command, asyncio.get_running_loop()
        try:
            self._process = await asyncio.create_subprocess_exec(*command, preexec_fn=_in_own_group)
        except OSError as error:
            raise SettingError(f"{command[0]}: {error.strerror or error}") from error
        if os.getpid() == 1 and self._reaper is None:
            self._reaper = loop.create_task(reap_orphans())
        for number in PASSED_ON:
            loop.add_signal_handler(number, self.signal, number)
        self._started_at = loop.time()
        self._sidecar.app_started()
        self.gone = asyncio.Event()
        self.up.set()

    @property
    def ended(self) -> bool:
        """No process of it runs."""
        return self._process is None or self._process.returncode is not None

    @property
    def pid(self) -> int:
        """Of the process started last; 0: none was."""
        return self._process.pid if self._process is not None else 0

    @property
    def code(self) -> int:
        """Its exit code; 128 + N where signal N ended it; GIVEN_UP where its checks were the end of it."""
        if self._given_up:
            return GIVEN_UP
        code = (self._process.returncode if self._process is not None else 0) or 0
        return code if code >= 0 else 128 - code

    async def watch(self) -> None:
        """Until it has ended and is not started again."""
        backoff, loop = Backoff(PAUSE_LEAST_S, PAUSE_MOST_S), asyncio.get_running_loop()
        while True:
            why = await self._until_it_ends()
            if self._restart == "never" or (self._restart == "on-failure" and not self.code):
                if self._given_up:
                    logger.error("the app was ended: %s (--restart on-failure would start it again)", why)
                return
            if loop.time() - self._started_at >= WELL_S:
                backoff.reset()
            self.up.clear()
            self.gone.set()
            while not self.up.is_set():
                pause_s = backoff.pause(random.random())
                logger.warning("the app is started again in %.1f s: %s", pause_s, why)
                await asyncio.sleep(pause_s)
                try:
                    await self.start()
                except SettingError as error:  # replaced under us, perhaps
                    why = str(error)
            self._given_up = False

    async def _until_it_ends(self) -> str:
        """Why; ends it where its checks say so."""
        sidecar = self._sidecar
        gone = asyncio.ensure_future(self._wait())
        hopeless = asyncio.ensure_future(sidecar.app_doomed.wait())
        try:
            await asyncio.wait({gone, hopeless}, return_when=asyncio.FIRST_COMPLETED)
            if not self.ended:
                why = f"its checks gave it up: {sidecar.app.health.doomed if sidecar.app is not None else ''}"
                logger.warning("ending the app: %s", why)
                sidecar.app_ended(why)
                await self._end(signal.SIGTERM, self._grace_s)
                self._given_up = True
                return why
        finally:
            gone.cancel()
            hopeless.cancel()
        why = f"it ended with exit code {self.code}"
        sidecar.app_ended(why)
        return why

    async def _wait(self) -> None:
        if self._process is not None:
            await self._process.wait()

    def signal(self, number: int) -> None:
        if self._process is not None and not self.ended:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    async def silent_ports(self, address: str, ports: Iterable[int]) -> list[int]:
        """Those of its ports on which nobody accepts connections."""
        found = []
        for port in ports:
            try:
                async with asyncio.timeout(CONNECT_S):
                    _, writer = await asyncio.open_connection(address, port)
                writer.close()
            except (OSError, TimeoutError):
                found.append(port)
        return found

    async def end(self, number: int, left_s: float) -> None:
        """Once nobody watches it: tell it to end by this signal, and end it with all of its group when the time is
        over."""
        self._sidecar.check_no_more()
        await self._end(number, left_s * (1.0 - RESERVE_SHARE))

    async def _end(self, number: int, grace_s: float) -> None:
        self.signal(number)
        try:
            async with asyncio.timeout(grace_s):
                await self._wait()
        except TimeoutError:
            logger.warning(
                "the app (process %d) did not end in time: killed", self._process.pid if self._process else 0
            )
            self.kill()
            await self._wait()

    def kill(self) -> None:
        """At once, with all of its group."""
        if self._process is not None and not self.ended:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)

    async def close(self) -> None:
        self.kill()
        if self._reaper is not None:
            self._reaper.cancel()
            await asyncio.gather(self._reaper, return_exceptions=True)


def _in_own_group() -> None:
    os.setpgrp()
    if os.isatty(0):
        signal.signal(signal.SIGTTOU, signal.SIG_IGN)  # we are in the background until the next line
        os.tcsetpgrp(0, os.getpgrp())
        signal.signal(signal.SIGTTOU, signal.SIG_DFL)


async def reap_orphans() -> None:
    """As PID 1 we are the parent of all whose parents have ended: wait for those that have ended, too.

    Only who was dead at the look before: the event loop waits for its own children at once.
    """
    before: set[int] = set()
    while True:
        dead = dead_children()
        for pid in dead & before:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, os.WNOHANG)
        before = dead
        await asyncio.sleep(REAP_S)


def dead_children() -> set[int]:
    """Children of ours that have ended and were not waited for."""
    own, dead = str(os.getpid()), set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                state, parent = (entry / "stat").read_text().rpartition(")")[2].split()[:2]
            except (OSError, ValueError):  # gone meanwhile
                continue
            if state == "Z" and parent == own:
                dead.add(int(entry.name))
    return dead
