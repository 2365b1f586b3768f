"""The feed's server: who leaves is taken out at once, and told when everybody else runs a version without it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from fairlead.control.feed_server import FeedServer, at_least
from fairlead.control.push import Book

DEADLINE_S = 10.0


def test_a_version_is_at_least_another_of_the_same_run_only() -> None:
    assert at_least("e.3", "e.3")
    assert at_least("e.10", "e.9")
    assert not at_least("e.9", "e.10")
    assert not at_least("f.10", "e.9")
    assert not at_least("", "e.1")


class Served:
    """A feed server whose book loses an item for each workload that leaves."""

    def __init__(self) -> None:
        self.book = Book("e")
        self.book.objects({"object/x/default/a": {"n": 1}})
        self.feed = FeedServer(self.book, lambda *_: None, self.changed, left=self.left)
        self.away: list[str] = []
        self.url = ""
        self.session: aiohttp.ClientSession
        self.streams: list[aiohttp.ClientResponse] = []

    def changed(self) -> None:
        gone = {f"object/gone/default/{m.workload}": {"n": 1} for m in self.feed.members.values() if m.leaving}
        if self.book.objects(gone):
            self.feed.publish()

    def left(self, workload: str) -> None:
        self.away.append(workload)

    async def connect(self, name: str, **more: str) -> aiohttp.ClientResponse:
        """A member that runs nothing yet; its first version is read."""
        query = {"role": "sidecar", "namespace": "default", "workload": name, "meshPort": "1", "instance": name, **more}
        answer = await self.session.get(f"{self.url}/fairlead/v1/feed", params=query)
        self.streams.append(answer)
        while b'"version"' not in await answer.content.readline():
            pass
        return answer

    async def ack(self, name: str, version: str, accepted: bool = True, **more: str) -> None:
        body = {"namespace": "default", "workload": name, "version": version, "accepted": accepted, "instance": name}
        async with self.session.post(f"{self.url}/fairlead/v1/feed/ack", json={**body, **more}) as answer:
            assert answer.status == 204

    async def leave(self, name: str, timeout_s: float = DEADLINE_S, **more: str) -> Any:
        body = {"namespace": "default", "workload": name, "timeout": timeout_s, "instance": name, **more}
        async with self.session.post(f"{self.url}/fairlead/v1/feed/leave", json=body) as answer:
            assert answer.status == 200
            return await answer.json()


@contextlib.asynccontextmanager
async def served() -> AsyncIterator[Served]:
    made = Served()
    app = web.Application()
    app.add_routes(made.feed.routes())
    runner = web.AppRunner(app, shutdown_timeout=0.1, handler_cancellation=True)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            made.session = session
            async with asyncio.timeout(DEADLINE_S):
                yield made
            for stream in made.streams:
                stream.close()
    finally:
        made.feed.close()
        await runner.cleanup()


@pytest.mark.asyncio
async def test_the_answer_to_a_farewell_comes_when_the_last_of_the_others_runs_a_version_without_it() -> None:
    async with served() as control:
        streams = [await control.connect(name) for name in ("a", "b", "c")]
        for name in ("a", "b", "c"):
            await control.ack(name, "e.1")
        farewell = asyncio.create_task(control.leave("a"))
        for stream in streams[1:]:
            assert b'"e.2"' in await stream.content.readline()
        await control.ack("b", "e.2")
        assert not farewell.done()
        await control.ack("c", "e.2")
        told = await farewell
        assert (told["version"], told["others"], told["pending"], told["refusing"]) == ("e.2", 2, [], [])
        assert told["waited_s"] > 0


@pytest.mark.asyncio
async def test_who_refuses_is_named_and_not_waited_for_and_who_goes_is_not_either() -> None:
    async with served() as control:
        _a, b, c = [await control.connect(name) for name in ("a", "b", "c")]
        farewell = asyncio.create_task(control.leave("a"))
        await b.content.readline()
        await control.ack("b", "e.2", accepted=False, reasons="no")
        assert not farewell.done()
        c.close()
        assert (await farewell)["refusing"] == ["sidecar/default/b"]


@pytest.mark.asyncio
async def test_after_the_time_given_the_answer_names_those_who_do_not_know_yet() -> None:
    async with served() as control:
        await control.connect("a")
        await control.connect("b")
        told = await control.leave("a", 0.05)
        assert told["pending"] == ["sidecar/default/b"]
        assert control.feed.members["sidecar/default/a"].leaving


@pytest.mark.asyncio
async def test_one_that_has_a_successor_takes_nothing_out() -> None:
    async with served() as control:
        await control.connect("a")
        await control.connect("a", instance="successor")
        told = await control.leave("a")
        assert told["superseded"]
        assert not control.feed.members["sidecar/default/a"].leaving


@pytest.mark.asyncio
async def test_one_that_has_handed_over_is_waited_for_and_is_not_the_workloads_sidecar() -> None:
    async with served() as control:
        await control.connect("a")
        await control.connect("b")
        await control.connect("b", instance="old", handedOver="1")
        assert control.feed.members["sidecar/default/b"].instance == "b"
        farewell = asyncio.create_task(control.leave("a"))
        await control.ack("b", "e.2")
        assert not farewell.done()
        await control.ack("b", "e.2", instance="old")
        assert (await farewell)["pending"] == []


@pytest.mark.asyncio
async def test_who_leaves_while_its_stream_is_away_is_told_of_to_the_registry() -> None:
    async with served() as control:
        await control.leave("a")
        assert control.away == ["default/a"]


@pytest.mark.asyncio
async def test_one_whose_app_does_not_listen_yet_is_out_until_it_says_so_itself() -> None:
    async with served() as control:
        await control.connect("a", leaving="1")
        assert control.feed.members["sidecar/default/a"].leaving
        for instance, status in (("other", 409), ("a", 200)):
            body = {"namespace": "default", "workload": "a", "instance": instance}
            async with control.session.post(f"{control.url}/fairlead/v1/feed/enter", json=body) as answer:
                assert answer.status == status
        assert not control.feed.members["sidecar/default/a"].leaving


@pytest.mark.asyncio
async def test_what_one_that_has_handed_over_says_of_the_app_is_not_what_its_successor_says() -> None:
    async with served() as control:
        await control.connect("a", instance="new", ready="1")
        await control.connect("a", instance="old", handedOver="1", ready="1")
        member = control.feed.members["sidecar/default/a"]
        for instance, status, ready in (("old", 204, True), ("gone", 409, True), ("new", 204, False)):
            body = {"namespace": "default", "workload": "a", "instance": instance, "ready": False, "why": "500"}
            async with control.session.post(f"{control.url}/fairlead/v1/feed/health", json=body) as answer:
                assert answer.status == status
            assert member.ready is ready
        assert member.why == "500"


@pytest.mark.asyncio
async def test_a_farewell_that_cannot_be_read_is_refused() -> None:
    async with served() as control:
        for body in (b"{", b"{}", b'{"namespace":"a","workload":"b","timeout":"soon"}'):
            async with control.session.post(f"{control.url}/fairlead/v1/feed/leave", data=body) as answer:
                assert answer.status == 400
