"""Following control: versions put in force, acknowledged, kept on disk; connections that end, are cut, or refuse."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import threading
import time
from base64 import b64encode
from collections.abc import AsyncIterator, Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest

from fairlead.mesh import feed as feed_module
from fairlead.mesh.feed import SILENCE_S, Feed
from fairlead.mesh.update import Holdings, RefusedError
from fairlead.policy.resources import Resources
from fairlead.policy.world import World
from fairlead.registry.digest import item_digest
from fairlead.registry.needs import FetchError, Reply, ReplyStream
from fairlead.registry.snapshot import Snapshot

pytestmark = pytest.mark.asyncio

DEADLINE_S = 20.0
ONE, TWO = "http://one", "http://two"


class Connection:
    """One request of the feed: what was asked, and what control says on it."""

    def __init__(self, url: str, headers: Mapping[str, str], idle_timeout_s: float | None, status: int) -> None:
        split = urlsplit(url)
        self.base, self.path = f"{split.scheme}://{split.netloc}", split.path
        self.query = dict(parse_qsl(split.query, keep_blank_values=True))
        self.sent = dict(headers)
        self.idle_timeout_s = idle_timeout_s
        self.status = status
        self.headers: Mapping[str, str] = {}
        self.closed = asyncio.Event()
        self._coming: asyncio.Queue[bytes | FetchError | None] = asyncio.Queue()

    def say(self, *chunks: bytes) -> None:
        for chunk in chunks:
            self._coming.put_nowait(chunk)

    def cut(self) -> None:
        self._coming.put_nowait(FetchError("cut off"))

    def end(self) -> None:
        self._coming.put_nowait(None)

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while True:
            chunk = await self._coming.get()
            if isinstance(chunk, FetchError):
                raise chunk
            if chunk is None:
                return
            yield chunk


class Control:
    """A `Fetch`: control as a test plays it."""

    def __init__(self) -> None:
        self.down: set[str] = set()
        self.deaf = False
        """Acknowledgements find nobody."""
        self.hangs: asyncio.Event | None = None
        """Until when acknowledgements are not answered."""
        self.pause = "0"
        """Seconds that the answer to an acknowledgement asks for."""
        self.said: asyncio.Queue[tuple[str, dict[str, Any]]] = asyncio.Queue()
        """("say" or "use", body)."""
        self.statuses: list[int] = []
        """Of the next connections; 200 after those."""
        self.connections: asyncio.Queue[Connection] = asyncio.Queue()
        self.acks: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self.acked_to: list[tuple[str, dict[str, str]]] = []

    async def request(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"",
                      timeout_s: float = 10.0) -> Reply:  # fmt: skip
        assert method == "POST"
        if url.rpartition("/")[2] in ("say", "use"):
            self.said.put_nowait((url.rpartition("/")[2], json.loads(body)))
            if self.deaf:
                raise FetchError("nobody there")
            return Reply(204, {}, b"")
        self.acked_to.append((url, dict(headers or {})))
        self.acks.put_nowait(json.loads(body))
        if self.deaf:
            raise FetchError("nobody there")
        if self.hangs is not None:
            await self.hangs.wait()
        return Reply(204, {"x-fairlead-pause": self.pause}, b"")

    @contextlib.asynccontextmanager
    async def stream(self, method: str, url: str, *, headers: Mapping[str, str] | None = None, body: bytes = b"",
                     connect_timeout_s: float = 2.0,
                     idle_timeout_s: float | None = None) -> AsyncIterator[ReplyStream]:  # fmt: skip
        assert (method, body) == ("GET", b"")
        made = Connection(url, headers or {}, idle_timeout_s, self.statuses.pop(0) if self.statuses else 200)
        if made.base in self.down:
            raise FetchError("connection refused")
        self.connections.put_nowait(made)
        try:
            yield made
        finally:
            made.closed.set()

    async def close(self) -> None:
        pass


class Built(World):
    def __init__(self, objects: list[dict[str, Any]], snapshot: Snapshot) -> None:
        super().__init__(snapshot, Resources())
        self.names = sorted(snapshot.namespaces)


class Sidecar:
    """What the feed puts in force; refuses a world with the namespace `refuse`."""

    def __init__(self) -> None:
        self.worlds: list[list[str]] = []
        """The names of the namespaces of each world put in force."""

    def take(self, world: World) -> None:
        assert isinstance(world, Built)
        if "refuse" in world.names:
            raise RefusedError(["no such thing", "nor such"])
        self.worlds.append(world.names)


class Following:
    def __init__(self, keep: Path | None = None, urls: tuple[str, ...] = (ONE,)) -> None:
        self.control, self.sidecar = Control(), Sidecar()
        self.token = "first"
        self.feed = Feed(
            self.control,
            list(urls),
            Holdings(Built),
            self.sidecar.take,
            report={"role": "sidecar", "namespace": "default", "workload": "web-1"},
            headers=lambda: {"authorization": self.token},
            keep=keep,
        )

    async def connected(self) -> Connection:
        made = await self.control.connections.get()
        made.say(b"\n")
        return made

    async def acked(self) -> tuple[str, bool, list[str]]:
        told = await self.control.acks.get()
        assert (told["role"], told["namespace"], told["workload"]) == ("sidecar", "default", "web-1")
        return told["version"], told["accepted"], told["reasons"]


@contextlib.asynccontextmanager
async def running(following: Following) -> AsyncIterator[Following]:
    task = asyncio.create_task(following.feed.run())
    try:
        async with asyncio.timeout(DEADLINE_S):
            yield following
        assert not task.done(), task.exception()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.fixture(autouse=True)
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that were asked for; none is made."""
    asked: list[float] = []
    yield_now = asyncio.sleep

    async def at_once(seconds: float) -> None:
        asked.append(seconds)
        await yield_now(0)

    monkeypatch.setattr(asyncio, "sleep", at_once)
    monkeypatch.setattr(random, "uniform", lambda low, high: high)
    return asked


def line(version: str, *names: str, remove: tuple[str, ...] = (), full: bool = False) -> bytes:
    told = {"version": version, "full": full, "set": {f"namespace/{name}": {} for name in names},
            "remove": [f"namespace/{name}" for name in remove]}  # fmt: skip
    return json.dumps(told).encode() + b"\n"


async def until(what: Callable[[], Any]) -> None:
    while not what():
        await asyncio.sleep(0)


async def test_versions_are_put_in_force_in_turn_and_acknowledged() -> None:
    async with running(Following()) as it:
        connection = await it.connected()
        assert connection.path == "/fairlead/v1/feed"
        assert connection.query.pop("instance")
        assert connection.query == {"role": "sidecar", "namespace": "default", "workload": "web-1", "since": ""}
        assert (connection.sent, connection.idle_timeout_s) == ({"authorization": "first"}, SILENCE_S)
        assert not it.feed.in_force.is_set()
        connection.say(line("e.1", "a", full=True) + line("e.2", "b"))
        assert [await it.acked(), await it.acked()] == [("e.1", True, []), ("e.2", True, [])]
        assert it.sidecar.worlds == [["a"], ["a", "b"]]
        assert it.feed.in_force.is_set()
        assert it.feed.connected
        assert it.control.acked_to[0] == (
            f"{ONE}/fairlead/v1/feed/ack", {"authorization": "first", "content-type": "application/json"}
        )  # fmt: skip


async def test_a_line_may_come_in_any_pieces() -> None:
    whole = line("e.1", "a", full=True) + b"\n" + line("e.2", "ä")
    async with running(Following()) as it:
        for end in range(1, len(whole)):
            connection = await it.connected()
            connection.say(whole[:end], whole[end:])
            assert [await it.acked(), await it.acked()] == [("e.1", True, []), ("e.2", True, [])]
            connection.end()
        connection = await it.connected()
        connection.say(*(whole[at : at + 1] for at in range(len(whole))))
        assert [await it.acked(), await it.acked()] == [("e.1", True, []), ("e.2", True, [])]


async def test_a_refused_version_is_told_with_its_reasons_and_the_next_good_one_clears_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running(Following()) as it:
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True), line("e.2", "refuse"))
        assert await it.acked() == ("e.1", True, [])
        assert await it.acked() == ("e.2", False, ["no such thing", "nor such"])
        assert it.feed.refused == ["no such thing", "nor such"]
        assert "version e.2 refused" in caplog.text
        connection.say(line("e.3", "b", remove=("refuse",)))
        assert await it.acked() == ("e.3", True, [])
        assert it.feed.refused == []
        assert it.sidecar.worlds == [["a"], ["a", "b"]]


async def test_a_version_with_an_item_that_cannot_be_read_is_refused_under_its_own_name() -> None:
    async with running(Following()) as it:
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True), b'{"version":"e.2","set":{"gadget/x":{},"namespace/b":{}}}\n')
        assert await it.acked() == ("e.1", True, [])
        version, accepted, reasons = await it.acked()
        assert (version, accepted, reasons[0].partition(":")[0]) == ("e.2", False, "gadget/x")
        connection.say(line("e.3", "c", remove=("x",)))
        assert (await it.acked())[:2] == ("e.3", False), "the bad item is still there"
        connection.say(b'{"version":"e.4","remove":["gadget/x"]}\n')
        assert await it.acked() == ("e.4", True, [])
        assert it.sidecar.worlds == [["a"], ["a", "b", "c"]]


async def test_heartbeats_confirm_and_are_not_acknowledged(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(time, "time", lambda: now)
    async with running(Following()) as it:
        connection = await it.connected()
        await until(lambda: it.feed.confirmed_at == 100.0)
        now = 110.0
        connection.say(b"\n", b'{"version":"e.1"}\n')
        await until(lambda: it.feed.confirmed_at == 110.0)
        connection.say(line("e.1", full=True))
        assert await it.acked() == ("e.1", True, [])
        assert it.control.acks.empty()


@pytest.mark.parametrize("how", ["cut", "end"])
async def test_a_lost_connection_is_made_again_from_the_version_held_and_half_a_line_is_dropped(how: str) -> None:
    async with running(Following()) as it:
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True), line("e.2", "b")[:-10])
        assert await it.acked() == ("e.1", True, [])
        getattr(connection, how)()
        again = await it.connected()
        assert again.query["since"] == "e.1"
        again.say(line("e.2", "b"))
        assert await it.acked() == ("e.2", True, [])
        assert it.sidecar.worlds == [["a"], ["a", "b"]]


async def test_while_the_connection_is_gone_what_is_in_force_stays_and_the_state_says_so() -> None:
    it = Following()
    async with running(it):
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True))
        await it.acked()
        it.control.down.add(ONE)
        connection.cut()
        await until(lambda: "refused" in it.feed.error)
        assert not it.feed.connected
        assert it.feed.in_force.is_set()
        assert it.feed.error == f"{ONE}: connection refused"
        it.control.down.clear()
        await it.connected()
        await until(lambda: it.feed.connected)
        assert it.feed.error == ""


async def test_addresses_take_turns_and_the_token_is_asked_for_each_time() -> None:
    async with running(Following(urls=(ONE, TWO))) as it:
        first = await it.connected()
        it.token = "second"
        it.control.down.add(ONE)
        first.end()
        second = await it.connected()
        assert (second.base, second.sent) == (TWO, {"authorization": "second"})
        second.say(line("e.1", full=True))
        await it.acked()
        assert it.control.acked_to[-1][0].startswith(TWO), "told where it was heard"
        second.end()
        assert (await it.connected()).base == TWO, "one is down: its turn is passed"


async def test_pauses_grow_while_nobody_answers_and_start_again_small(pauses: list[float]) -> None:
    it = Following()
    it.control.down.add(ONE)
    async with running(it):
        await until(lambda: 5.0 in pauses)
        it.control.down.clear()
        connection = await it.connected()
        await until(lambda: it.feed.connected)
        grown = [pause for pause in pauses if pause]
        assert grown[:7] == [0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0]
        assert max(grown) == 5.0
        connection.cut()
        await it.connected()
        assert [pause for pause in pauses if pause][-1] == 0.1


async def test_a_line_that_is_no_message_makes_it_ask_again_ever_more_slowly(pauses: list[float]) -> None:
    async with running(Following()) as it:
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True))
        assert await it.acked() == ("e.1", True, [])
        for garbage in (b"garbage\n", b'{"version":"\xff"}\n', b"[" * 100_000 + b"\n"):
            connection.say(garbage)
            await connection.closed.wait()
            connection = await it.connected()
            assert connection.query["since"] == "e.1"
        assert [pause for pause in pauses if pause] == [0.1, 0.2, 0.4]
        connection.say(line("e.2", "b"))
        assert await it.acked() == ("e.2", True, [])


async def test_a_line_without_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed_module, "LINE_BYTES_MAX", 1000)
    async with running(Following()) as it:
        connection = await it.connected()
        connection.say(b"x" * 600, b"x" * 600)
        await connection.closed.wait()
        await until(lambda: "longer than 1000 bytes" in it.feed.error)


@pytest.mark.parametrize("body", [b"who are you?", b""])
async def test_another_status_is_an_error_that_says_what_control_said(body: bytes) -> None:
    it = Following()
    it.control.statuses = [403]
    async with running(it):
        refusing = await it.control.connections.get()
        refusing.say(body) if body else refusing.end()
        await until(lambda: it.feed.error)
        assert it.feed.error.startswith(f"{ONE}: feed refused with status 403")
        assert body.decode() in it.feed.error
        assert not it.feed.connected


async def test_an_acknowledgement_that_nobody_hears_stops_nothing() -> None:
    it = Following()
    it.control.deaf = True
    async with running(it):
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True), line("e.2", "b"))
        await it.acked()
        await it.acked()
        assert it.sidecar.worlds[-1] == ["a", "b"]


async def test_the_version_in_force_is_kept_for_us_alone_and_serves_a_restart(tmp_path: Path) -> None:
    keep = tmp_path / "deep" / "feed.json"
    async with running(Following(keep)) as it:
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True), line("e.2", "b"), line("e.3", "refuse"))
        for _ in range(3):
            await it.acked()
    assert keep.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in keep.parent.iterdir()] == ["feed.json"]
    again = Following(keep)
    assert again.feed.start_from_disk()
    assert (again.sidecar.worlds, again.feed.in_force.is_set()) == ([["a", "b"]], True)
    assert not again.feed.connected
    async with running(again):
        assert (await again.connected()).query["since"] == "e.2"


@pytest.mark.parametrize(
    "content",
    [b"", b"garbage", b'{"version":"\xff"}', line("e.1", "a", full=True)[:-5], line("e.1", "refuse", full=True)],
)
async def test_what_is_on_disk_and_cannot_be_used_is_told_and_control_is_asked_for_everything(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    keep = tmp_path / "feed.json"
    keep.write_bytes(content)
    it = Following(keep)
    assert not it.feed.start_from_disk()
    assert str(keep) in caplog.text
    assert not it.feed.in_force.is_set()
    async with running(it):
        connection = await it.connected()
        assert connection.query["since"] == ""
        connection.say(line("e.1", "b", full=True))
        await it.acked()
        assert it.sidecar.worlds == [["b"]]
    assert json.loads(keep.read_bytes())["set"] == {"namespace/b": {}}


async def test_without_anything_on_disk_there_is_nothing_to_start_from(tmp_path: Path) -> None:
    assert not Following().feed.start_from_disk()
    assert not Following(tmp_path / "none.json").feed.start_from_disk()


async def test_where_nothing_can_be_kept_the_version_is_in_force_all_the_same(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("")
    async with running(Following(tmp_path / "file" / "feed.json")) as it:
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True))
        assert await it.acked() == ("e.1", True, [])
        assert it.sidecar.worlds == [["a"]]
        assert it.feed.unsaved.startswith("version e.1 could not be kept on disk")
    assert "version e.1 could not be kept on disk" in caplog.text


async def test_a_save_that_fails_leaves_the_older_version_and_no_draft_and_the_next_one_clears_the_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep = tmp_path / "feed.json"

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    async with running(Following(keep)) as it:
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True))
        await it.acked()
        kept = keep.read_bytes()
        with monkeypatch.context() as patched:
            patched.setattr(os, "fsync", full)
            connection.say(line("e.2", "b"))
            assert await it.acked() == ("e.2", True, [])
        assert "No space left" in it.feed.unsaved
        assert ([path.name for path in tmp_path.iterdir()], keep.read_bytes()) == (["feed.json"], kept)
        connection.say(line("e.3", "c"))
        await it.acked()
        assert it.feed.unsaved == ""


async def test_neither_the_disk_nor_control_holds_up_the_next_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Traffic goes through the same loop: a slow disk must not stop it."""
    keep, slow, written = tmp_path / "feed.json", threading.Event(), os.fsync
    loop = threading.get_ident()
    on_the_loop = []

    def fsync(descriptor: int) -> None:
        on_the_loop.append(threading.get_ident() == loop)
        slow.wait(DEADLINE_S)
        written(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    async with running(Following(keep)) as it:
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True))
        await until(lambda: on_the_loop)
        connection.say(line("e.2", "b"), line("e.3", "c"))
        await until(lambda: len(it.sidecar.worlds) == 3)
        assert it.control.acks.empty(), "what control hears of is on disk"
        slow.set()
        assert [(await it.acked())[0] for _ in range(3)] == ["e.1", "e.2", "e.3"]
    assert on_the_loop == [False, False], "of the two that came meanwhile one write has both"
    assert json.loads(keep.read_bytes())["version"] == "e.3"


async def test_what_is_not_yet_on_disk_when_the_role_ends_is_written_then(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a restart without control would use what has been withdrawn."""
    keep, begun, written = tmp_path / "feed.json", threading.Event(), os.fsync

    def fsync(descriptor: int) -> None:
        begun.set()
        written(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    async with running(Following(keep)) as it:
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True))
        await until(begun.is_set)
        connection.say(line("e.2", "b"))
        await until(lambda: len(it.sidecar.worlds) == 2)
    assert json.loads(keep.read_bytes())["version"] == "e.2"


async def test_a_fault_of_ours_refuses_the_version_and_does_not_end_the_follower() -> None:
    it = Following()
    take = it.sidecar.take

    def faulty(world: World) -> None:
        if "b" in getattr(world, "names", []):
            raise KeyError("oh")
        take(world)

    it.feed._take = faulty
    async with running(it):
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True), line("e.2", "b"), line("e.3", "c", remove=("b",)))
        assert await it.acked() == ("e.1", True, [])
        version, accepted, reasons = await it.acked()
        assert (version, accepted) == ("e.2", False)
        assert "fault of ours" in reasons[0]
        assert await it.acked() == ("e.3", True, [])
        assert it.sidecar.worlds[-1] == ["a", "c"]


async def test_the_health_of_the_app_is_told_at_once_and_again_where_it_was_not_heard(pauses: list[float]) -> None:
    following = Following()
    following.feed.health(False, "not started")
    async with running(following):
        control = following.control
        first = await control.connections.get()
        assert (first.query["ready"], first.query["why"]) == ("0", "not started")
        first.say(b"\n")
        told = await control.acks.get()
        assert control.acked_to[-1][0] == f"{ONE}/fairlead/v1/feed/health"
        assert (told["ready"], told["why"], told["workload"]) == (False, "not started", "web-1")
        control.deaf = True
        following.feed.health(True, "", lambda: [{"check": "a"}])
        told = await control.acks.get()
        assert (told["ready"], told["checks"]) == (True, [{"check": "a"}])
        control.deaf = False
        assert (await control.acks.get())["ready"] is True, "it was not heard"
        first.cut()
        second = await control.connections.get()
        assert second.query["ready"] == "1"


async def test_an_app_that_nobody_checks_is_not_spoken_of() -> None:
    following = Following()
    async with running(following):
        connection = await following.control.connections.get()
        assert "ready" not in connection.query


async def test_who_comes_in_plaintext_is_told_and_what_was_not_heard_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(feed_module, "PLAINTEXT_S", 0.01)
    it, waiting, back = Following(), [[{"source": "10.0.0.1", "port": 80}]], asyncio.Queue[Any]()

    async def take() -> list[dict[str, Any]]:
        return waiting.pop() if waiting else []

    it.feed.plaintext(take, back.put_nowait)
    it.control.deaf = True
    async with running(it):
        await it.connected()
        await until(lambda: not it.feed.connected or not waiting)
        entries = await asyncio.wait_for(back.get(), DEADLINE_S)
        assert entries == [{"source": "10.0.0.1", "port": 80}]
        it.control.deaf = False
        waiting.append(entries)
        await until(lambda: len(it.control.acked_to) == 2)
        told = [it.control.acks.get_nowait() for _ in range(2)]
        assert it.control.acked_to[-1][0] == f"{ONE}/fairlead/v1/feed/plaintext"
        assert told[1]["entries"] == entries and told[1]["workload"] == "web-1"
        assert back.empty()


async def test_a_version_that_comes_while_an_acknowledgement_hangs_is_on_disk_at_once(tmp_path: Path) -> None:
    keep = tmp_path / "feed.json"
    async with running(Following(keep)) as it:
        it.control.hangs = asyncio.Event()
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True))
        assert (await it.acked())[0] == "e.1"
        connection.say(line("e.2", "b"))

        def on_disk() -> bool:
            return bool(json.loads(keep.read_bytes())["version"] == "e.2")

        await until(on_disk)
        assert it.control.acks.empty(), "the first still hangs"
        it.control.hangs.set()
        assert (await it.acked())[0] == "e.2"


async def test_where_control_asks_for_a_pause_the_last_version_is_acknowledged_for_all(pauses: list[float]) -> None:
    async with running(Following()) as it:
        it.control.pause, it.control.hangs = "0.25", asyncio.Event()
        connection = await it.connected()
        connection.say(line("e.1", "a", full=True))
        assert (await it.acked())[0] == "e.1"
        for number in range(2, 6):
            connection.say(line(f"e.{number}", "a", f"b{number}"))
        await until(lambda: len(it.sidecar.worlds) == 5)
        await until(lambda: it.feed._kept.qsize() == 4)
        it.control.hangs.set()
        assert (await it.acked())[0] == "e.5"
        assert 0.25 in pauses


def held(following: Following) -> Holdings:
    found: Holdings = following.feed._holdings
    return found


async def test_what_control_asks_for_is_said_and_a_version_that_is_held_already_is_only_named(tmp_path: Path) -> None:
    keep = tmp_path / "feed.json"
    it = Following(keep)
    it.feed._fields = lambda: {"kind": ["field"]}
    it.feed.in_use = lambda: {"web"}
    async with running(it):
        connection = await it.connected()
        connection.say(line("e.1", "a", "b", full=True))
        await it.acked()
        connection.cut()
        again = await it.connected()
        assert again.query["since"] == "e.1"
        again.say(b'{"version":"","ask":["holds","fields"]}\n')
        what, body = await it.control.said.get()
        assert (what, body["uses"], body["fields"]) == ("say", ["web"], {"kind": ["field"]})
        assert body["holds"] == b64encode(held(it).digests()).decode()
        again.say(b'{"version":"f.7","full":false,"set":{},"remove":[],"resumed":true,"drop":[],"keep":[]}\n')
        assert await it.acked() == ("f.7", True, [])
        assert len(it.sidecar.worlds) == 1, "nothing has changed"
        await until(lambda: json.loads(keep.read_bytes())["version"] == "f.7")
        assert json.loads(keep.read_bytes())["uses"] == ["web"]
        drop = b64encode(item_digest("namespace/a", b"{}")).decode()
        again.say(json.dumps({"version": "f.8", "resumed": True, "drop": [drop], "set": {}}).encode() + b"\n")
        await it.acked()
        assert it.sidecar.worlds[-1] == ["b"]
    restarted = Following(keep)
    assert restarted.feed.start_from_disk()
    assert held(restarted).uses == {"web"}


SERVICE = (
    b'{"version":"e.1","full":true,"set":{"service/web":{"host":"web","namespace":"d","name":"web"}},"remove":[]}\n'
)


async def test_a_service_is_asked_for_once_and_again_where_that_was_not_heard(pauses: list[float]) -> None:
    async with running(Following()) as it:
        connection = await it.connected()
        connection.say(SERVICE)
        await it.acked()
        it.control.deaf = True
        assert it.feed.use("web")
        assert not it.feed.use("unknown")
        assert (await it.control.said.get())[1]["hosts"] == ["web"]
        it.control.deaf = False
        assert (await it.control.said.get())[1]["hosts"] == ["web"]
        assert it.feed.use("web"), "it is on its way"
        connection.say(b'{"version":"e.2","set":{"endpoints/web":[]}}\n')
        await it.acked()
        assert not it.feed.use("web")
        assert it.control.said.empty()


async def test_what_is_revoked_counts_also_where_the_rules_of_the_version_are_refused_and_after_a_restart(
    tmp_path: Path,
) -> None:
    told: list[dict[str, str]] = []
    following = Following(keep=tmp_path / "feed.json")
    following.feed.on_revoked = lambda revoked: told.append(revoked.items())
    async with running(following):
        connection = await following.connected()
        connection.say(b'{"version":"e.1","full":true,"set":{"revoked/serial:ab":{"why":"stolen"}}}\n')
        await until(lambda: told)
        assert (await following.acked())[:2] == ("e.1", True)
        connection.say(b'{"version":"e.2","set":{"revoked/account:shop/db":{"why":""},"namespace/refuse":{}}}\n')
        assert (await following.acked())[:2] == ("e.2", False)
        assert len(told) == 2
        connection.say(line("e.3", "web", remove=("refuse",)))
        await until(lambda: (tmp_path / "feed.json").exists() and b"e.3" in (tmp_path / "feed.json").read_bytes())
        assert len(told) == 2, "only what is new of it"
    assert told == [{"serial:ab": "stolen"}, {"serial:ab": "stolen", "account:shop/db": ""}]
    again = Following(keep=tmp_path / "feed.json")
    again.feed.on_revoked = lambda revoked: told.append(revoked.items())
    assert again.feed.start_from_disk()
    assert told[2] == told[1]
