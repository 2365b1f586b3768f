"""Shell: the app of `fairlead run`: its process, the signals passed on to it, its end, and what PID 1 has to do."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
from collections.abc import Iterable
from pathlib import Path

from .settings import SettingError

PASSED_ON = (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGQUIT, signal.SIGWINCH, signal.SIGCONT)
"""Beside SIGTERM and SIGINT, which begin the drain."""
REAP_S = 1.0
CONNECT_S = 1.0
RESERVE_SHARE = 0.1
"""Of the time that is left, what the app is not given: for the end of its last calls."""
logger = logging.getLogger("fairlead.run")


class App:
    """One process in a process group of its own, so that Ctrl-C reaches it once; of a terminal it is the foreground."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process
        self._reaper: asyncio.Task[None] | None = None

    @classmethod
    async def start(cls, command: list[str]) -> App:
        """Raises SettingError."""
        command = command[1:] if command[:1] == ["--"] else command
        try:
            made = cls(await asyncio.create_subprocess_exec(*command, preexec_fn=_in_own_group))
        except OSError as error:
            raise SettingError(f"{command[0]}: {error.strerror or error}") from error
        if os.getpid() == 1:
            made._reaper = asyncio.get_running_loop().create_task(reap_orphans())
        loop = asyncio.get_running_loop()
        for number in PASSED_ON:
            loop.add_signal_handler(number, made.signal, number)
        return made

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    @property
    def code(self) -> int:
        """Its exit code; 128 + N where signal N ended it."""
        code = self._process.returncode or 0
        return code if code >= 0 else 128 - code

    async def wait(self) -> None:
        await self._process.wait()

    def signal(self, number: int) -> None:
        if not self.ended:
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
        """Tell it to end by this signal, and end it with all of its group when the time is over."""
        self.signal(number)
        try:
            await asyncio.wait_for(self.wait(), left_s * (1.0 - RESERVE_SHARE))
        except TimeoutError:
            logger.warning("the app (process %d) did not end in time: killed", self._process.pid)
            self.kill()
            await self.wait()

    def kill(self) -> None:
        """At once, with all of its group."""
        if not self.ended:
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
