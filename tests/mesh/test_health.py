"""The checker: checks of a real app, run when they are due, told at once."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from fairlead.mesh.health import Checker
from fairlead.registry.checks import Check
from fairlead.registry.model import Workload, WorkloadPort

pytestmark = pytest.mark.asyncio
WEB = Workload("default", "web-1")


class World:
    """A checker, what it told, and the app's port."""

    def __init__(self, *checks: Check) -> None:
        self.workload = WEB
        self.told: list[tuple[bool, str]] = []
        self.news = asyncio.Event()
        self.checker = Checker(checks, lambda: (self.workload, "127.0.0.1"), self._changed)

    def _changed(self) -> None:
        self.told.append((self.checker.health.ready, self.checker.health.why))
        self.news.set()

    async def until(self, ready: bool) -> str:
        async with asyncio.timeout(20):
            while self.checker.health.ready is not ready:
                self.news.clear()
                await self.news.wait()
        return self.checker.health.why


@contextlib.asynccontextmanager
async def running(world: World) -> AsyncIterator[Checker]:
    task = asyncio.ensure_future(world.checker.run())
    try:
        yield world.checker
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@contextlib.asynccontextmanager
async def app(port: int = 0) -> AsyncIterator[int]:
    async def end(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(end, "127.0.0.1", port)
    async with server:
        yield server.sockets[0].getsockname()[1]


async def test_an_app_is_ready_when_it_answers_and_unready_when_it_does_not() -> None:
    world = World(Check("readiness", "tcp", port="http", period_s=0.05, failure_threshold=1))
    async with running(world) as checker:
        async with app() as port:
            world.workload = Workload("default", "web-1", ports=(WorkloadPort(port, "http"),))
            assert not checker.health.ready
            checker.app_started()
            await world.until(True)
            (told,) = checker.describe()["checks"]
            assert (told["state"], told["output"]) == ("passing", f"connected to 127.0.0.1:{port}")
        assert "refused" in (await world.until(False)).lower()
        async with app(port):
            await world.until(True)


async def test_a_port_that_the_workload_does_not_have_fails_in_words() -> None:
    world = World(Check("readiness", "tcp", port="http", period_s=0.05, failure_threshold=1))
    async with running(world) as checker:
        checker.app_started()
        async with asyncio.timeout(20):
            while "no port 'http'" not in checker.health.why:
                world.news.clear()
                await world.news.wait()


async def test_a_dead_app_is_told_to_whoever_restarts_it_and_begins_again() -> None:
    world = World(Check("liveness", "tcp", port=1, period_s=0.02, failure_threshold=2))
    async with running(world) as checker:
        checker.app_started()
        await asyncio.wait_for(checker.doomed.wait(), 20)
        assert "refused" in checker.health.doomed
        checker.app_ended("restarting it")
        checker.app_started()
        assert not checker.doomed.is_set()
        await asyncio.wait_for(checker.doomed.wait(), 20)


async def test_checks_of_the_manifest_may_change_while_it_runs() -> None:
    world = World()
    async with running(world) as checker, app() as port:
        checker.app_started()
        assert checker.health.ready
        checker.take((Check("readiness", "tcp", port=port, period_s=0.05),))
        assert not checker.health.ready
        await world.until(True)
        checker.take(())
        assert checker.health.ready
        assert checker.describe()["checks"] == []
