"""A node of Consul is followed without loss, and without a chase after an index that everybody moves."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from fairlead.registry import consul_node_watch
from fairlead.registry.consul_catalog import ConsulError
from fairlead.registry.consul_node_watch import BackwardsError, NodeWatch

pytestmark = pytest.mark.asyncio


class Server:
    """One node of Consul, whose index others move, too. Waits end when told to."""

    def __init__(self) -> None:
        self.index = 10
        self.here = 10
        """Index of the node's last change."""
        self.full = self.asked = 0
        self.waiting: list[tuple[int, asyncio.Future[None]]] = []
        self.before_answer: Callable[[], None] = lambda: None
        self.behind = 0
        """By how much answers that are not fresh are older."""

    async def get(
        self, path: str, index: int = 0, decode: Any = None, *, fresh: bool = False, more: str = "", wait_s: float = 0.0
    ) -> tuple[int, Any]:
        await asyncio.sleep(0)
        if not index:
            self.full += 1
            at = self.index - (0 if fresh else self.behind)
            return at, self.here if self.here <= at else self.here - 1
        assert more == consul_node_watch.EMPTY
        self.asked += 1
        self.before_answer()
        at = self.index
        if at > index:
            return at, None
        rings: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append((index, rings))
        await rings
        return (self.index if self.here > index else at), None

    def changes(self, here: bool = True) -> None:
        self.index += 1
        if here:
            self.here = self.index
            for _, rings in self.waiting:
                if not rings.done():
                    rings.set_result(None)
            self.waiting.clear()

    def ends_oldest(self) -> None:
        self.waiting.pop(0)[1].set_result(None)


async def settled(good: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not good():
            await asyncio.sleep(0)


@contextlib.asynccontextmanager
async def watched(server: Server, wait_s: float = 1000.0, idle: bool = False) -> AsyncIterator[tuple[list[Any], Any]]:
    heard: list[Any] = []
    watch = NodeWatch(server.get, "/v1/catalog/node/n", lambda: wait_s, heard.append, lambda: idle)
    task = asyncio.create_task(watch.run())
    try:
        await settled(lambda: bool(server.waiting) or task.done())
        yield heard, task
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_change_there_is_read_once_and_one_elsewhere_not_at_all() -> None:
    server = Server()
    async with watched(server) as (heard, _):
        for _ in range(50):
            server.changes(here=False)
            await asyncio.sleep(0)
        assert (heard, server.asked) == ([10], 1)
        server.changes()
        await settled(lambda: heard[-1] == 61 and bool(server.waiting))
        assert server.full == 2


async def test_while_the_index_moves_with_every_answer_the_node_is_not_read_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consul_node_watch, "PAUSE_S", 0.0)
    server = Server()
    async with watched(server) as (heard, _):
        server.before_answer = lambda: server.changes(here=False)
        server.changes()
        await settled(lambda: server.asked > 100)
        server.before_answer = lambda: None
        await settled(lambda: bool(server.waiting))
        assert heard[-1] == 11
        assert server.full < 60, "no more than half of the time goes into reading, though each try asks for it"
        server.changes()
        await settled(lambda: heard[-1] == server.here)


async def test_a_change_between_two_waits_is_seen() -> None:
    server = Server()
    async with watched(server) as (heard, _):
        server.changes()  # wakes it; the next change comes before the next query is answered

        def once() -> None:
            server.before_answer = lambda: None
            server.changes()

        server.before_answer = once
        await settled(lambda: heard[-1] == 12 and bool(server.waiting))


async def test_before_a_wait_ends_the_next_has_begun_and_nothing_is_read_in_full() -> None:
    server = Server()
    loop, wait_s = asyncio.get_running_loop(), 0.8
    async with watched(server, wait_s) as (heard, _):
        for _ in range(2):
            server.changes(here=False)
            await settled(lambda: len(server.waiting) == 2 and server.waiting[1][0] == server.index)
            ends = loop.time() + wait_s / 4
            await settled(lambda: loop.time() > ends)  # noqa: B023  # Consul ends none before its time
            server.ends_oldest()
            await settled(lambda: len(server.waiting) == 1)
        assert (heard, server.full) == ([10], 1)
        server.changes()
        await settled(lambda: heard[-1] == server.here)


async def test_a_server_that_is_behind_is_asked_again_and_then_the_leader() -> None:
    server = Server()
    async with watched(server) as (heard, _):
        server.behind = 1
        server.changes()
        await settled(lambda: heard[-1] == server.here)
        assert heard == [10, 10, 11]


async def test_who_need_not_go_on_ends_with_the_wait_and_leaves_no_query_behind() -> None:
    server = Server()
    async with watched(server, wait_s=0.02, idle=True) as (_, task):
        ends = asyncio.get_running_loop().time() + 0.02
        await settled(lambda: asyncio.get_running_loop().time() > ends)
        server.ends_oldest()
        await settled(task.done)
        assert task.exception() is None
        assert server.waiting == []


async def test_an_index_that_goes_backwards_is_told() -> None:
    server = Server()
    async with watched(server) as (_, task):
        server.index = server.here = 5
        server.ends_oldest()  # as it was when it began to wait
        await settled(lambda: bool(server.waiting))
        server.ends_oldest()
        await settled(task.done)
        assert isinstance(task.exception(), BackwardsError)


async def test_a_failure_ends_it() -> None:
    server = Server()
    async with watched(server) as (_, task):
        server.waiting[0][1].set_exception(ConsulError("status 500"))
        await settled(task.done)
        assert str(task.exception()) == "status 500"
