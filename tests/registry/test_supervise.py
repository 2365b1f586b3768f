"""A source in which a defect shows is begun anew, and says so."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.fetch import AiohttpFetch
from fairlead.registry import source_consul
from fairlead.registry.consul_catalog import ConsulSettings, facts_of_service
from fairlead.registry.etcd_values import EtcdSettings
from fairlead.registry.hub import Registry
from fairlead.registry.model import SourceStatus
from fairlead.registry.source_consul import ConsulSource
from fairlead.registry.source_etcd import EtcdSource
from fairlead.registry.supervise import supervised
from tests.servers import consul, etcd

pytestmark = pytest.mark.asyncio


class Failing:
    """Fails as often as it has errors to raise, then ends."""

    name = "consul"

    def __init__(self, *errors: Exception) -> None:
        self.errors = list(errors)

    async def run(self) -> None:
        if self.errors:
            raise self.errors.pop(0)


@pytest.mark.parametrize(("before", "after"), [(None, "starting"), ("starting", "starting"), ("live", "stale")])
async def test_a_defect_is_told_and_the_source_begun_anew(
    before: str | None, after: str, caplog: pytest.LogCaptureFixture
) -> None:
    last = SourceStatus("consul", before, 7.0, problems=("k: bad",)) if before else None
    told: list[SourceStatus] = []
    source = Failing(ExceptionGroup("several", [ExceptionGroup("inner", [KeyError("web")])]), TypeError("no"))
    await supervised(source, lambda: last, told.append, pause_s=0.001)
    assert not source.errors
    assert [one.state for one in told] == [after] * 2
    assert told[0].error == "a defect in Fairlead, whose log has more: KeyError: 'web'"
    assert told[1].error == "a defect in Fairlead, whose log has more: TypeError: no"
    if last is not None:
        assert (told[0].confirmed_at, told[0].problems) == (7.0, ("k: bad",))
    assert [record.getMessage().split(" in ")[0] for record in caplog.records] == ["consul: a defect"] * 2
    assert all(record.exc_info for record in caplog.records), "the traceback is what a report of it needs"


async def test_who_ends_it_is_no_defect() -> None:
    class Endless(Failing):
        async def run(self) -> None:
            await asyncio.Event().wait()

    told: list[SourceStatus] = []
    task = asyncio.create_task(supervised(Endless(), lambda: None, told.append))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not told


async def reaches(registry: Registry, good: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not good():
            await asyncio.sleep(0.01)


async def followed(source: Any, registry: Registry, good: Callable[[], bool], bad: Callable[[], bool]) -> None:
    """What is there is `good` in the end, after it was `bad` for a time."""
    last = lambda: registry.snapshot.value.sources.get(source.name)  # noqa: E731
    task = asyncio.create_task(supervised(source, last, registry.status, pause_s=0.2))
    try:
        await reaches(registry, bad)
        await reaches(registry, good)
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        await source.close()


@pytest.mark.parametrize("watches", [3, 100], ids=["by node", "a watch each"])
async def test_an_entry_of_consul_that_nobody_thought_of_costs_time_and_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, watches: int
) -> None:
    monkeypatch.setattr(source_consul, "WATCHES_MAX", watches)
    usual, left = facts_of_service, [2]

    def facts_of(name: str, *more: Any) -> Any:
        if name == "s3" and left[0]:
            left[0] -= 1
            raise AttributeError("nobody thought of it")
        return usual(name, *more)

    monkeypatch.setattr(source_consul, "facts_of_service", facts_of)
    async with consul(tmp_path) as server:
        for number in range(5):
            one = {"ID": f"s{number}", "Service": f"s{number}", "Port": 8000 + number}
            await server.put("/v1/catalog/register", {"Node": "n", "Address": "10.0.0.9", "Service": one})
        registry = Registry()
        source = ConsulSource(
            AiohttpFetch(), ConsulSettings(url=server.url),
            lambda facts, touched: registry.update("consul", facts, touched), registry.status, wait_s=1,
        )  # fmt: skip

        def status() -> SourceStatus:
            return registry.snapshot.value.sources.get("consul") or SourceStatus("consul")

        await followed(
            source, registry, lambda: len(registry.snapshot.value.services) == 5 and status().state == "live",
            lambda: "nobody thought of it" in status().error,
        )  # fmt: skip
        assert left == [0]


async def test_an_entry_of_etcd_that_nobody_thought_of_costs_time_and_no_restart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = [1]
    async with etcd(tmp_path) as server:
        await server.put("/services/web/a", '{"host": "10.0.0.1", "port": 80}')
        registry = Registry()
        source = EtcdSource(
            AiohttpFetch(), EtcdSettings(endpoints=(server.url,)),
            lambda facts, touched: registry.update("etcd", facts, touched), registry.status,
        )  # fmt: skip
        usual = source._put

        def put(key: str, value: bytes) -> None:
            if left[0]:
                left[0] -= 1
                raise AttributeError("nobody thought of it")
            usual(key, value)

        monkeypatch.setattr(source, "_put", put)

        def status() -> SourceStatus:
            return registry.snapshot.value.sources.get("etcd") or SourceStatus("etcd")

        await followed(
            source, registry, lambda: len(registry.snapshot.value.services) == 1 and status().state == "live",
            lambda: "nobody thought of it" in status().error,
        )  # fmt: skip
