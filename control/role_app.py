"""Shell: the app beside a sidecar: which checks flags and files give it; started, watched and restarted by `run`.

With `--restart on-failure` or `always` an app that its liveness or startup checks give up is ended (SIGTERM, after the
drain deadline SIGKILL) and started again, after pauses that grow from 1 s to 5 minutes and begin anew once it has run
for ten (Kubernetes' CrashLoopBackOff); so is one that ends by itself with a failure, or at all. With `never`, the
default, `run` ends with it.
"""

from __future__ import annotations

import asyncio
import logging
import random
import signal
from pathlib import Path
from typing import Any

from ..mesh.sidecar import Sidecar
from ..registry.backoff import Backoff
from ..registry.checks import PURPOSES, Check, CheckError, flag_check
from .settings import SettingError

RESTARTS = ("never", "on-failure", "always")
PAUSE_LEAST_S, PAUSE_MOST_S = 1.0, 300.0
WELL_S = 600.0
"""After so long an app counts as having started well."""
DOOMED = 1
"""Exit code where checks ended the app."""
logger = logging.getLogger("fairlead.app")


def checks_of(options: Any) -> tuple[Check, ...]:
    """The checks of --readiness, --liveness, --startup and --checks; raises SettingError."""
    found: list[Check] = []
    for purpose in PURPOSES:
        for text in getattr(options, purpose, None) or ():
            try:
                found.append(flag_check(purpose, text))
            except CheckError as error:
                raise SettingError(f"--{purpose}: {error}") from None
    files = getattr(options, "checks", None) or ()
    if files:
        import yaml  # for those who have such a file

        from ..registry.checks_elsewhere import file_checks
    for name in files:
        notes: list[str] = []
        try:
            found += file_checks(yaml.safe_load(Path(name).read_text()), notes)
        except (OSError, UnicodeDecodeError, yaml.YAMLError, CheckError) as error:
            raise SettingError(f"--checks {name}: {error}") from None
        for note in notes:
            logger.warning("--checks %s: %s", name, note)
    return tuple(found)


async def start_app(command: list[str]) -> asyncio.subprocess.Process:
    """Raises SettingError."""
    command = command[1:] if command[:1] == ["--"] else command
    try:
        return await asyncio.create_subprocess_exec(*command)
    except OSError as error:
        raise SettingError(f"{command[0]}: {error.strerror or error}") from error


class App:
    """`start`, then `watch` until it ends for good; `end` ends it."""

    def __init__(self, command: list[str], sidecar: Sidecar, restart: str, grace_s: float) -> None:
        self._command = command
        self._sidecar = sidecar
        self._restart = restart
        self._grace_s = grace_s
        self._process: asyncio.subprocess.Process | None = None
        self._started_at = 0.0
        self.restarts = 0

    async def start(self) -> None:
        """Raises SettingError."""
        self._process = await start_app(self._command)
        self._started_at = asyncio.get_running_loop().time()
        self._sidecar.app_started()

    async def watch(self) -> int:
        """Its exit code, once it has ended and is not started again."""
        backoff = Backoff(PAUSE_LEAST_S, PAUSE_MOST_S)
        while True:
            code, why = await self._until_it_ends()
            if self._restart == "never" or (self._restart == "on-failure" and not code):
                if why.startswith("its checks"):
                    logger.error("the app was ended: %s (--restart on-failure would start it again)", why)
                return code
            if asyncio.get_running_loop().time() - self._started_at >= WELL_S:
                backoff.reset()
            while True:
                pause_s = backoff.pause(random.random())
                logger.warning("the app is started again in %.1f s: %s", pause_s, why)
                await asyncio.sleep(pause_s)
                try:
                    await self.start()
                except SettingError as error:  # replaced under us, perhaps
                    why = str(error)
                    continue
                self.restarts += 1
                break

    async def _until_it_ends(self) -> tuple[int, str]:
        """(exit code, why); ends it where its checks say so."""
        process, doomed = self._process, self._sidecar.app_doomed
        assert process is not None
        gone = asyncio.ensure_future(process.wait())
        hopeless = asyncio.ensure_future(doomed.wait())
        try:
            await asyncio.wait({gone, hopeless}, return_when=asyncio.FIRST_COMPLETED)
            if process.returncode is None:
                checker = self._sidecar.app
                why = f"its checks gave it up: {checker.health.doomed if checker is not None else ''}"
                logger.warning("ending the app: %s", why)
                self._sidecar.app_ended(why)
                await self.end()
                return DOOMED, why
        finally:
            for waiting in (gone, hopeless):
                waiting.cancel()
        code = exit_code(process)
        why = f"it ended with exit code {code}"
        self._sidecar.app_ended(why)
        return code, why

    async def end(self) -> int:
        """SIGTERM, after the grace SIGKILL; its exit code."""
        process = self._process
        if process is None:
            return 0
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
            try:
                await asyncio.wait_for(process.wait(), self._grace_s)
            except TimeoutError:
                process.kill()
                await process.wait()
        return exit_code(process)


def exit_code(process: asyncio.subprocess.Process) -> int:
    """As a shell has it: 128 and the signal's number for one that a signal ended."""
    code = process.returncode or 0
    return code if code >= 0 else 128 - code
