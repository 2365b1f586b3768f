"""Shell: the stream from control: receive versions, keep the last one on disk, say what was taken or refused.

`GET /fairlead/v1/feed?...&since=VERSION` answers one JSON object a line without end; `POST /fairlead/v1/feed/ack`
tells control what became of a version, `POST .../health` whether the own app is ready, `POST .../use` which services
are in use, `POST .../say` what control asks for when we come back: digests of what we hold, and what our version knows.
Control sends a line without content at least every ten seconds, so that a silent connection is found out.
A line that begins with `{"trust":` is no version: it tells of the mesh's roots (bundle.py); one with `{"claims":`, what
of our labels and address is not believed, and what to do.
Long because all that a sidecar and control tell each other passes here, in one protocol.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import random
import threading
import time
from base64 import b64encode
from collections.abc import Awaitable, Callable, Iterable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import msgspec

from ..policy.world import World
from ..registry.needs import Fetch, FetchError
from .certificates import said_of
from .provisional import GRACE_S
from .revocations import Revoked
from .update import Holdings, RefusedError, UnreadableError

SILENCE_S = 30.0
"""Longest silence before the connection is given up; control sends something every 10 s."""
PLAINTEXT_S = 2.0
"""How often control hears of who comes in plaintext, where anybody does."""
LINE_BYTES_MAX = 256 << 20
ACK_PAUSE_S_MAX = 2.0
ACKS_MOST = 8
"""Versions that may wait to be acknowledged one by one."""
USE_PAUSE_S = 0.05
TRUST_LINE = b'{"trust":'
CLAIMS_LINE = b'{"claims":'
LEAVE_GRACE_S = 1.0
"""How much longer than what it was asked to wait control may take to answer a farewell."""

TakeEntries = Callable[[], Awaitable[list[dict[str, Any]]]]
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


class _Claims(msgspec.Struct):
    claims: list[str] = []


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
        knows: Mapping[str, str] | None = None,
        fields: Callable[[], Mapping[str, list[str]]] = dict,
    ) -> None:
        self._fetch = fetch
        self._urls = urls
        self._holdings = holdings
        self._take = take
        self._report = {**report, "instance": os.urandom(6).hex()}
        """Sent with the request: who we are and where our sidecar listens."""
        self._headers = headers
        self._keep = keep
        self._knows = {"says": "1", **knows} if knows is not None else {}
        """Told with the request for the feed: what we can answer, understand, and want."""
        self._fields = fields
        """What our version knows of objects; asked for by a control of another version."""
        self.in_use: Callable[[], Iterable[str]] = tuple
        """Hosts of services that have been asked for here, besides those that were not known."""
        self._wants: set[str] = set()
        """Hosts that control has still to hear of."""
        self._wanting = asyncio.Event()
        self._saying: set[asyncio.Task[None]] = set()
        self.connected = False
        self.url = urls[0]
        """The control that is, or was last, connected."""
        self.confirmed_at = 0.0
        """Unix seconds at which control last said anything."""
        self.refused: list[str] = []
        """Reasons for which the latest version is not in force; empty: it is."""
        self.error = ""
        self.not_believed: list[str] = []
        """What of what we say of ourselves control does not believe."""
        self.unsaved = ""
        """Why the version in force is not on disk; empty: it is, or nothing is to be kept."""
        self.in_force = asyncio.Event()
        """Set once a version, received or from disk, is in force."""
        self._told: asyncio.Queue[tuple[str, str, list[str]]] = asyncio.Queue()
        """(control, version, why it was refused) of what is to be put on disk, and then to be told."""
        self._kept: asyncio.Queue[tuple[str, str, list[str]]] = asyncio.Queue()
        """The same of what control has still to hear."""
        self._ack_pause_s = 0.0
        """As control asked for in its last answer."""
        self._health: tuple[bool, str] | None = None
        """(ready, why not) of the own app; None: nobody checks it."""
        self._describe: Callable[[], list[dict[str, Any]]] = list
        self._health_told: tuple[bool, str] | None = None
        """What control was last told of it, on this connection."""
        self._health_news = asyncio.Event()
        self.on_trust: Callable[[bytes], None] | None = None
        """Given each line that tells of roots."""
        self.on_revoked: Callable[[Revoked], None] | None = None
        self._revoked_number = 0
        self.on_connect: list[Callable[[], None]] = []
        self.on_lost: list[Callable[[], None]] = []
        """Called when the connection has ended, for whatever reason."""
        self.on_failure: list[Callable[[], None]] = []
        """Called when control let us not in, or was lost."""
        self._plaintext: tuple[TakeEntries, Callable[[list[dict[str, Any]]], None]] | None = None
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
            self._revoke()
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
            together.create_task(self._keep_all())
            together.create_task(self._tell_all())
            together.create_task(self._tell_health())
            together.create_task(self._tell_uses())
            if self._plaintext is not None:
                together.create_task(self._tell_plaintext(*self._plaintext))
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
                told = str(error).removeprefix(f"GET {url}/fairlead/v1/feed: ")
                self.error, unreadable = f"{url}: {told}", isinstance(error, UnreadableError)
                for fail in self.on_failure:
                    fail()
            if self.connected:
                pause_s = pause_s if unreadable else 0.1
                logger.warning("feed lost, going on with version %s: %s", self._holdings.version, self.error)
                self.connected = False
                for tell in self.on_lost:
                    tell()
            turn += 1
            await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
            pause_s = min(pause_s * 2, 5.0)

    async def _follow(self, url: str) -> None:
        said, health = dict(self._report), self._health
        state = {} if health is None else {"ready": str(int(health[0])), "why": health[1]}
        query = urlencode({**said, **state, **self._knows, "since": self._holdings.version})
        async with self._fetch.stream(
            "GET", f"{url}/fairlead/v1/feed?{query}", headers=self._headers(), idle_timeout_s=SILENCE_S
        ) as stream:
            buffer = bytearray()
            async for chunk in stream:
                if stream.status != 200:
                    raise FetchError(f"feed refused with status {stream.status}: {said_of(stream.status, chunk)}")
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
                    elif line.startswith(CLAIMS_LINE):
                        self._not_believed(line)
                    elif line:
                        self._line(url, line)
                if len(buffer) > LINE_BYTES_MAX:
                    raise FetchError(f"a line of the feed is longer than {LINE_BYTES_MAX} bytes")
            if stream.status != 200:
                raise FetchError(f"feed refused with status {stream.status}")

    def _not_believed(self, line: bytes) -> None:
        self.not_believed = msgspec.json.decode(line, type=_Claims).claims
        for why in self.not_believed:
            logger.error("control does not believe %s", why)

    def _line(self, url: str, line: bytes) -> None:
        before = self._holdings.version
        try:
            if not self._holdings.apply(line):
                if self._holdings.asked:
                    task = asyncio.create_task(self._say_what_is_asked(url, self._holdings.asked))
                    self._saying.add(task)
                    task.add_done_callback(self._saying.discard)
                if self._holdings.version == before:
                    return
            else:
                self._revoke()
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

    def _revoke(self) -> None:
        if self.on_revoked is not None and self._holdings.revoked_number != self._revoked_number:
            self._revoked_number = self._holdings.revoked_number
            self.on_revoked(self._holdings.revoked())

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

    async def _keep_all(self) -> None:
        """Keeps what is in force on disk, then has control told. Beside the feed: neither the disk nor control's answer
        holds up the next version, nor traffic. Of versions that come meanwhile only the last is written."""
        save: tuple[str, Callable[[], bytes]] | None = None
        try:
            while True:
                told = await self._told.get()
                save, self._to_save = self._to_save, None
                if save is not None and self._keep is not None:
                    await self._save(self._keep, *save)
                save = None
                self._kept.put_nowait(told)
        finally:
            last = self._to_save or save  # the role ends, perhaps while a version is being written
            if last is not None and self._keep is not None:
                with contextlib.suppress(OSError):
                    _write(self._keep, last[1])

    async def _tell_all(self) -> None:
        """Tells control what became of each version; of the last alone where control asks for a pause, or is slow."""
        while True:
            told = await self._kept.get()
            while self._kept.qsize() >= (1 if self._ack_pause_s else ACKS_MOST):
                told = self._kept.get_nowait()
            self._ack_pause_s = await self._acknowledge(*told)
            if self._ack_pause_s > 0:
                await asyncio.sleep(self._ack_pause_s)

    # --- which services are in use

    def use(self, host: str) -> bool:
        """A service is asked for of which we may not know the endpoints; whether they are to be waited for."""
        if not self._holdings.missing(host):
            return False
        if host not in self._holdings.uses:
            self._holdings.uses.add(host)
            self._wants.add(host)
            self._wanting.set()
        return True

    async def _tell_uses(self) -> None:
        """Ask control for the endpoints of services that are asked for; what was not heard is asked for again."""
        pause_s = USE_PAUSE_S
        while True:
            await self._wanting.wait()
            self._wanting.clear()
            hosts = sorted(self._wants)
            if not hosts or not self.connected:  # the next connection tells all
                continue
            try:
                await self._tell(self.url, "use", {"hosts": hosts})
            except FetchError as error:
                logger.warning("control did not hear which services are in use: %s", error)
                await asyncio.sleep(pause_s * random.uniform(0.5, 1.0))
                pause_s = min(pause_s * 2, 5.0)
                self._wanting.set()
                continue
            pause_s = USE_PAUSE_S
            self._wants.difference_update(hosts)

    async def _say_what_is_asked(self, url: str, asked: list[str]) -> None:
        body: dict[str, Any] = {}
        if "holds" in asked:
            self._holdings.uses.update(self.in_use())
            body["holds"] = b64encode(self._holdings.digests()).decode()
            body["uses"] = sorted(self._holdings.uses)
        if "fields" in asked:
            body["fields"] = self._fields()
        try:
            await self._tell(url, "say", body)
        except FetchError as error:
            logger.warning("control did not hear what it asked for, and will send everything: %s", error)

    async def _tell(self, url: str, what: str, more: Mapping[str, Any]) -> None:
        """Raises FetchError, also where the answer is not that it was heard."""
        answer = await self._fetch.request(
            "POST",
            f"{url}/fairlead/v1/feed/{what}",
            headers={**self._headers(), "content-type": "application/json"},
            body=msgspec.json.encode({**self._report, **more}),
            timeout_s=5.0,
        )
        if answer.status != 204:
            raise FetchError(f"status {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}")

    def health(self, ready: bool, why: str, describe: Callable[[], list[dict[str, Any]]] = list) -> None:
        """Whether the own app is ready, from now on; told to control at once, and again wherever we connect to.

        `describe` gives the checks as they are when control is told.
        """
        self._health, self._describe = (ready, why), describe
        self._health_news.set()

    def plaintext(self, take: TakeEntries, give_back: Callable[[list[dict[str, Any]]], None]) -> None:
        """Before `run`: from then on control hears of who comes in plaintext. `take()`: what came since;
        `give_back`: it was not heard after all."""
        self._plaintext = take, give_back

    async def _tell_plaintext(self, take: TakeEntries, give_back: Callable[[list[dict[str, Any]]], None]) -> None:
        while True:
            await asyncio.sleep(PLAINTEXT_S)
            entries = await take() if self.connected else []
            if not entries:
                continue
            try:
                answer = await self._fetch.request(
                    "POST",
                    f"{self.url}/fairlead/v1/feed/plaintext",
                    headers={**self._headers(), "content-type": "application/json"},
                    body=msgspec.json.encode({**self._report, "entries": entries}),
                    timeout_s=5.0,
                )
                if answer.status not in (204, 404):  # 404: a control that does not ask for it
                    raise FetchError(f"status {answer.status}: {answer.body[:200].decode('utf-8', 'replace')}")
            except FetchError as error:
                logger.info("control did not hear who comes in plaintext: %s", error)
                give_back(entries)

    async def _tell_health(self) -> None:
        """Of what changes meanwhile only the last is told; what was not heard is told again."""
        pause_s = 0.05
        while True:
            await self._health_news.wait()
            self._health_news.clear()
            health = self._health
            if not self.connected or health is None or health == self._health_told:
                continue
            try:
                more = {"ready": health[0], "why": health[1], "checks": self._describe()}
                await self._tell(self.url, "health", more)
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

    async def _acknowledge(self, url: str, version: str, refused: list[str]) -> float:
        """How long control asks us to wait before we acknowledge again, in seconds."""
        body = msgspec.json.encode({**self._report, "version": version, "accepted": not refused, "reasons": refused})
        try:
            answer = await self._fetch.request(
                "POST",
                f"{url}/fairlead/v1/feed/ack",
                headers={**self._headers(), "content-type": "application/json"},
                body=body,
                timeout_s=5.0,
            )
        except FetchError as error:
            logger.warning("control did not hear what became of version %s: %s", version, error)
            return 0.0
        try:
            return min(float(answer.headers.get("x-fairlead-pause", "0")), ACK_PAUSE_S_MAX)
        except ValueError:
            return 0.0

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
