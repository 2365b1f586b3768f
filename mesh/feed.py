"""Shell: the stream from control: receive versions, keep the last one on disk, say what was taken or refused.

`GET /fairlead/v1/feed?...&since=VERSION` answers one JSON object a line without end; `POST /fairlead/v1/feed/ack`
tells control what became of a version, `POST .../health` whether the own app is ready. Control sends a line without
content at least every ten seconds, so that a silent connection is found out. A line that begins with `{"trust":` is no
version: it tells of the mesh's roots (bundle.py).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from ..policy.world import World
from ..registry.needs import Fetch, FetchError
from .provisional import GRACE_S
from .update import Holdings, RefusedError, UnreadableError

SILENCE_S = 30.0
"""Longest silence before the connection is given up; control sends something every 10 s."""
LINE_BYTES_MAX = 256 << 20
TRUST_LINE = b'{"trust":'
LEAVE_GRACE_S = 1.0
"""How much longer than what it was asked to wait control may take to answer a farewell."""

_one_at_a_time = threading.Lock()
logger = logging.getLogger("fairlead.feed")


class Farewell(msgspec.Struct):
    """What control says to a workload that leaves, or enters."""

    version: str = ""
    """In which it is gone, or there."""
    waited_s: float = 0.0
    """How long it took the others to run that."""
    others: int = 0
    pending: list[str] = []
    """Who does not run it yet."""
    refusing: list[str] = []
    superseded: bool = False
    """Another process is the workload's sidecar by now: nothing was taken out."""


class Feed:
    """Follows control for one workload (or for a DNS server, which has no workload).

    `take(world)` puts a version in force; it raises RefusedError where it cannot. `urls` are tried in turn.
    """

    def __init__(
        self,
        fetch: Fetch,
        urls: list[str],
        holdings: Holdings,
        take: Callable[[World], None],
        *,
        report: Mapping[str, str],
        headers: Callable[[], Mapping[str, str]] = dict,
        keep: Path | None = None,
    ) -> None:
        self._fetch = fetch
        self._urls = urls
        self._holdings = holdings
        self._take = take
        self._report = {**report, "instance": os.urandom(6).hex()}
        """Sent with the request: who we are and where our sidecar listens."""
        self._headers = headers
        self._keep = keep
        self.connected = False
        self.url = urls[0]
        """The control that is, or was last, connected."""
        self.confirmed_at = 0.0
        """Unix seconds at which control last said anything."""
        self.refused: list[str] = []
        """Reasons for which the latest version is not in force; empty: it is."""
        self.error = ""
        self.unsaved = ""
        """Why the version in force is not on disk; empty: it is, or nothing is to be kept."""
        self.in_force = asyncio.Event()
        """Set once a version, received or from disk, is in force."""
        self._told: asyncio.Queue[tuple[str, str, list[str]]] = asyncio.Queue()
        """(control, version, why it was refused) of what control has still to hear."""
        self._health: tuple[bool, str] | None = None
        """(ready, why not) of the own app; None: nobody checks it."""
        self._describe: Callable[[], list[dict[str, Any]]] = list
        self._health_told: tuple[bool, str] | None = None
        """What control was last told of it, on this connection."""
        self._health_news = asyncio.Event()
        self.on_trust: Callable[[bytes], None] | None = None
        """Given each line that tells of roots."""
        self.on_connect: list[Callable[[], None]] = []
        self.on_failure: list[Callable[[], None]] = []
        """Called when control let us not in, or was lost."""
        self._provisional_news = asyncio.Event()
        self._to_save: tuple[str, Callable[[], bytes]] | None = None
        """The version to be kept on disk, and what makes its octets."""

    @property
    def report(self) -> Mapping[str, str]:
        """Who we are, as control is told with everything."""
        return self._report

    @property
    def items(self) -> Mapping[str, bytes]:
        """What is held of the version last received."""
        return self._holdings.raw

    def start_from_disk(self) -> bool:
        """Put the version kept on disk in force; False where there is none or it cannot be read."""
        if self._keep is None or not self._keep.is_file():
            return False
        try:
            self._holdings.apply(self._keep.read_bytes())
            ended = self._holdings.take_back(time.time())
            self._put_in_force()
        except (OSError, RefusedError) as error:
            logger.warning("the version kept in %s is not used: %s", self._keep, error)
            self._holdings.forget()  # else control would send only what is newer
            return False
        self.in_force.set()
        self._say_ended(ended)
        logger.info(
            "started from the version kept on disk (%s); control has not confirmed it yet", self._holdings.version
        )
        return True

    async def run(self) -> None:
        """Follow for ever: reconnect with growing pauses, the next address each time."""
        async with asyncio.TaskGroup() as together:
            together.create_task(self._keep_and_tell())
            together.create_task(self._tell_health())
            together.create_task(self._take_back_in_time())
            await self._follow_all()

    async def _follow_all(self) -> None:
        pause_s, turn = 0.1, 0
        unreadable = False
        while True:
            url = self._urls[turn % len(self._urls)]
            try:
                await self._follow(url)
                self.error, unreadable = f"{url}: control ended the feed", False
                pause_s = 0.1
            except (FetchError, UnreadableError) as error:
                self.error, unreadable = f"{url}: {error}", isinstance(error, UnreadableError)
                for fail in self.on_failure:
                    fail()
            if self.connected:
                pause_s = pause_s if unreadable else 0.1
                logger.warning("feed lost, going on with version %s: %s", self._holdings.version, self.error)
            self.connected = False
            turn += 1
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, 5.0)

    async def _follow(self, url: str) -> None:
        said, health = dict(self._report), self._health
        state = {} if health is None else {"ready": str(int(health[0])), "why": health[1]}
        query = urlencode({**said, **state, "since": self._holdings.version})
        async with self._fetch.stream(
            "GET", f"{url}/fairlead/v1/feed?{query}", headers=self._headers(), idle_timeout_s=SILENCE_S
        ) as stream:
            buffer = bytearray()
            async for chunk in stream:
                if stream.status != 200:
                    raise FetchError(
                        f"feed refused with status {stream.status}: {bytes(chunk[:300]).decode('utf-8', 'replace')}"
                    )
                if said != self._report and not self.connected:
                    raise FetchError("what is to be said of us has changed meanwhile: once more")
                if not self.connected:
                    self.connected, self.error, self.url = True, "", url
                    self._health_told = None  # the checks themselves are not told yet
                    self._health_news.set()
                    for tell in self.on_connect:
                        tell()
                    logger.info("feed connected to %s", url)
                self.confirmed_at = time.time()
                buffer += chunk
                while (end := buffer.find(b"\n")) >= 0:
                    line = bytes(buffer[:end])
                    del buffer[: end + 1]
                    if line.startswith(TRUST_LINE):
                        if self.on_trust is not None:
                            self.on_trust(line)
                    elif line:
                        self._line(url, line)
                if len(buffer) > LINE_BYTES_MAX:
                    raise FetchError(f"a line of the feed is longer than {LINE_BYTES_MAX} bytes")
            if stream.status != 200:
                raise FetchError(f"feed refused with status {stream.status}")

    def _line(self, url: str, line: bytes) -> None:
        try:
            if not self._holdings.apply(line):
                return
            if self._holdings.arrived(time.time()):
                self._provisional_news.set()
            self._put_in_force()
            self.refused = []
        except UnreadableError:
            raise
        except RefusedError as error:
            self.refused = error.reasons
            logger.error("version %s refused, the one in force stays: %s", self._holdings.offered, error)
        else:
            self.in_force.set()
            self._to_save = self._holdings.version, self._holdings.kept()
        self._told.put_nowait((url, self._holdings.offered, self.refused))

    async def _take_back_in_time(self) -> None:
        """Provisional objects that nobody confirms go at their deadline, also while control is away."""
        while True:
            self._provisional_news.clear()
            ended = self._holdings.take_back(time.time())
            if ended:
                self._say_ended(ended)
                try:
                    self._put_in_force()
                    self.refused = []
                except RefusedError as error:
                    self.refused = error.reasons
                    logger.error("what was before cannot be put in force: %s", error)
                else:
                    self._to_save = None
                    if self._keep is not None:
                        await self._save(self._keep, "before the provisional one", self._holdings.kept())
            deadline = self._holdings.deadline()
            left_s = None if deadline is None else max(deadline + GRACE_S - time.time(), 0.0)
            with contextlib.suppress(TimeoutError):
                # Looks at the clock in between: it may be set.
                async with asyncio.timeout(left_s if left_s is None else min(left_s, 5.0)):
                    await self._provisional_news.wait()

    def _say_ended(self, ended: list[str]) -> None:
        for name in ended:
            logger.warning("the provisional change %s was not confirmed in time: what was before is in force", name)

    async def _keep_and_tell(self) -> None:
        """Keeps what is in force on disk, then tells control. Beside the feed: neither the disk nor control's answer
        holds up the next version, nor traffic. Of versions that come meanwhile only the last is written."""
        try:
            while True:
                url, version, refused = await self._told.get()
                save, self._to_save = self._to_save, None
                if save is not None and self._keep is not None:
                    await self._save(self._keep, *save)
                await self._acknowledge(url, version, refused)
        finally:
            if self._to_save is not None and self._keep is not None:  # the role ends
                with contextlib.suppress(OSError):
                    _write(self._keep, self._to_save[1])

    def health(self, ready: bool, why: str, describe: Callable[[], list[dict[str, Any]]] = list) -> None:
        """Whether the own app is ready, from now on; told to control at once, and again wherever we connect to.

        `describe` gives the checks as they are when control is told.
        """
        self._health, self._describe = (ready, why), describe
        self._health_news.set()

    async def _tell_health(self) -> None:
        """Of what changes meanwhile only the last is told; what was not heard is told again."""
        pause_s = 0.05
        while True:
            await self._health_news.wait()
            self._health_news.clear()
            health = self._health
            if not self.connected or health is None or health == self._health_told:
                continue
            body = {**self._report, "ready": health[0], "why": health[1], "checks": self._describe()}
            try:
                answer = await self._fetch.request(
                    "POST",
                    f"{self.url}/fairlead/v1/feed/health",
                    headers={**self._headers(), "content-type": "application/json"},
                    body=msgspec.json.encode(body),
                    timeout_s=5.0,
                )
                if answer.status != 204:
                    raise FetchError(f"status {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}")
            except FetchError as error:
                logger.warning("control did not hear how the app is: %s", error)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, 5.0)
                self._health_news.set()
                continue
            pause_s = 0.05
            self._health_told = health

    def _put_in_force(self) -> None:
        """Raises RefusedError, also where what refuses is a fault of ours: traffic goes on with the version before."""
        try:
            self._take(self._holdings.world())
        except RefusedError:
            raise
        except Exception as error:
            logger.exception("version %s cannot be put in force for a fault of ours", self._holdings.offered)
            raise RefusedError([f"a fault of ours, please report it: {type(error).__name__}: {error}"]) from error

    async def leave(self, timeout_s: float) -> Farewell:
        """Be taken out of the registry, and wait until the others know, or `timeout_s`. Raises FetchError."""
        self._report["leaving"] = "1"  # where the stream has to be opened again
        return await self._say("leave", timeout_s)

    def not_yet(self) -> None:
        """Before `run`: be known, but not taken for ready before `enter`."""
        self._report["leaving"] = "1"

    async def enter(self, timeout_s: float) -> Farewell | None:
        """Be taken for ready from now on, and wait until the others know, or `timeout_s`; None: control is away, and
        will hear it when it is back. Raises FetchError."""
        self._report.pop("leaving", None)
        return await self._say("enter", timeout_s) if self.connected else None

    async def _say(self, what: str, timeout_s: float) -> Farewell:
        reply = await self._fetch.request(
            "POST",
            f"{self.url}/fairlead/v1/feed/{what}",
            headers={**self._headers(), "content-type": "application/json"},
            body=msgspec.json.encode({**self._report, "timeout": timeout_s}),
            timeout_s=timeout_s + LEAVE_GRACE_S,
        )
        if reply.status != 200:
            why = reply.body[:200].decode("utf-8", "replace").strip()
            raise FetchError(f"{self.url}: status {reply.status}: {why}")
        try:
            return msgspec.json.decode(reply.body, type=Farewell)
        except msgspec.MsgspecError as error:
            raise FetchError(f"{self.url}: not an answer to a farewell: {error}") from error

    def hand_over(self) -> None:
        """Another process is this workload's sidecar from now on: what is kept on disk is its, and so is the place in
        the registry."""
        self._keep = None
        self._report["handedOver"] = "1"

    async def _acknowledge(self, url: str, version: str, refused: list[str]) -> None:
        body = msgspec.json.encode({**self._report, "version": version, "accepted": not refused, "reasons": refused})
        try:
            await self._fetch.request(
                "POST",
                f"{url}/fairlead/v1/feed/ack",
                headers={**self._headers(), "content-type": "application/json"},
                body=body,
                timeout_s=5.0,
            )
        except FetchError as error:
            logger.warning("control did not hear what became of version %s: %s", version, error)

    async def _save(self, keep: Path, version: str, dump: Callable[[], bytes]) -> None:
        try:
            await asyncio.to_thread(_write, keep, dump)
            self.unsaved = ""
        except OSError as error:
            self.unsaved = (
                f"version {version} could not be kept on disk ({error}): "
                "a restart without control would use an older one"
            )
            logger.error("%s", self.unsaved)


def _write(path: Path, dump: Callable[[], bytes]) -> None:
    """Put what `dump` makes in the place of what is at `path`; raises OSError, having left that as it was."""
    with _one_at_a_time:
        _write_alone(path, dump)


def _write_alone(path: Path, dump: Callable[[], bytes]) -> None:
    draft = path.with_suffix(".new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(dump())
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise
