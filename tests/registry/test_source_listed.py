"""A source that is read as a whole: news, gaps, the brake, and what is told of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from fairlead.control.fetch import AiohttpFetch
from fairlead.registry.listed import Listed, Port, facts_of
from fairlead.registry.model import Facts
from fairlead.registry.needs import Fetch
from fairlead.registry.source_listed import ListedSource, SourceError
from tests.registry.following import Heard, following

pytestmark = pytest.mark.asyncio
WEB = "web.default.svc.cluster.local"


class Reader:
    """What a scheduler would say, as the test says."""

    name = "nomad"
    every_s = 3600.0

    def __init__(self) -> None:
        self.fetch: Fetch = AiohttpFetch()
        self.ports = [8001]
        self.fails = ""
        self.deaf = ""
        self.reads = 0
        self.heard: Callable[[], None] | None = None
        self.end = asyncio.Event()

    async def read(self) -> tuple[Facts, list[str]]:
        self.reads += 1
        if self.fails:
            raise SourceError(self.fails)
        return facts_of(
            [Listed("x", "web", "default", f"web-{port}", "10.0.0.1", (Port(80, port),), {}) for port in self.ports],
            self.name,
        )

    async def listen(self, heard: Callable[[], None]) -> None:
        if self.deaf:
            raise SourceError(self.deaf)
        self.heard = heard
        heard()
        await self.end.wait()
        self.end.clear()
        self.heard = None


@contextlib.asynccontextmanager
async def source(hold_s: float = 0.0) -> AsyncIterator[tuple[Reader, Heard]]:
    reader = Reader()
    async with following(lambda heard: ListedSource(reader, heard.update, heard.tell, hold_s=hold_s)) as heard:
        yield reader, heard


async def test_a_change_is_read_when_it_is_heard_of() -> None:
    async with source() as (reader, heard):
        await heard.until(
            lambda: heard.ports(WEB) == {8001} and heard.status.state == "live" and not heard.status.error
        )
        reader.ports = [8001, 8002]
        assert reader.heard is not None
        reader.heard()
        await heard.until(lambda: heard.ports(WEB) == {8001, 8002})
        assert heard.status.error == ""


async def test_what_is_known_stays_while_it_does_not_answer() -> None:
    async with source() as (reader, heard):
        await heard.until(lambda: heard.ports(WEB) == {8001} and reader.heard is not None)
        reader.fails = "no leader"
        assert reader.heard is not None
        reader.heard()
        await heard.until(lambda: heard.status.state == "stale")
        assert (heard.status.error, heard.ports(WEB)) == ("no leader", {8001})
        assert heard.status.confirmed_at > 0
        reader.fails, reader.ports = "", [8002]
        await heard.until(lambda: heard.status.state == "live" and heard.ports(WEB) == {8002})


async def test_after_a_gap_most_of_it_must_be_missing_twice() -> None:
    async with source() as (reader, heard):
        reader.ports = [8001, 8002, 8003]
        await heard.until(lambda: reader.heard is not None)
        assert reader.heard is not None
        reader.heard()
        await heard.until(lambda: len(heard.ports(WEB)) == 3)
        reader.fails = "gone"
        reader.heard()
        await heard.until(lambda: heard.status.state == "stale")
        reader.fails, reader.ports = "", []
        states: list[str] = []

        def seen() -> bool:
            states.append(heard.status.error)
            return heard.status.state == "live" and not heard.ports(WEB)

        await heard.until(seen)
        assert any("3 of 3 are missing" in error for error in states)


async def test_a_removal_that_is_heard_of_is_never_held() -> None:
    async with source(hold_s=3600.0) as (reader, heard):
        await heard.until(lambda: heard.ports(WEB) == {8001} and reader.heard is not None)
        reader.ports = []
        assert reader.heard is not None
        reader.heard()
        await heard.until(lambda: not heard.ports(WEB) and WEB not in heard.facts.services)


async def test_a_source_that_cannot_tell_of_changes_is_read_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.registry.source_listed.UNHEARD_S", 0.01)
    reader = Reader()
    reader.deaf = "status 404"
    async with following(lambda heard: ListedSource(reader, heard.update, heard.tell)) as heard:
        await heard.until(lambda: "status 404" in heard.status.error and heard.status.state == "live")
        reader.ports = [9000]
        await heard.until(lambda: heard.ports(WEB) == {9000})
        reader.deaf = ""
        await heard.until(lambda: heard.status.error == "")
