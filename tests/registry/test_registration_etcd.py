"""An app registered in the real etcd under a lease."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fairlead.proxy.client import HttpFetch
from fairlead.registry.etcd_values import EtcdSettings
from fairlead.registry.registration import Registration
from fairlead.registry.registration_etcd import EtcdRegistration
from tests.e2e.roles import until
from tests.servers import etcd

WEB = Registration("web", "web-1", "default", "10.0.0.1", 8001, {"v": "1"}, "web", 15006)
KEY = "/services/web/web-1"


@pytest.mark.asyncio
async def test_the_key_lives_under_its_lease_comes_back_when_it_is_lost_and_goes_at_the_end(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server:
        registration = EtcdRegistration(HttpFetch(), EtcdSettings(endpoints=(server.url,)), WEB, ttl_s=3)
        task = asyncio.ensure_future(registration.run())
        try:
            await asyncio.wait_for(registration.registered.wait(), 20)
            assert await server.value(KEY) == {
                "host": "10.0.0.1", "port": 8001, "namespace": "default", "labels": {"v": "1"}, "meshPort": 15006,
                "serviceAccount": "web",
            }  # fmt: skip
            registration.health(False, "disk full")

            async def unready() -> bool:
                return (await server.value(KEY) or {}).get("ready") is False

            await until("its health in etcd", unready)
            registration.health(True)

            async def ready() -> bool:
                return "ready" not in (await server.value(KEY) or {"ready": ""})

            await until("its health in etcd again", ready)
            await server.call("/v3/lease/revoke", {"ID": registration._lease})
            assert await server.value(KEY) is None

            async def back() -> bool:
                return await server.value(KEY) is not None

            await until("the key to come back under a new lease", back)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await registration.close()
        assert await server.value(KEY) is None


def test_the_value_names_the_workload_where_the_key_does_not() -> None:
    other = Registration("shop", "web-1", "default", "10.0.0.1", 8001)
    assert EtcdRegistration(HttpFetch(), EtcdSettings(), other).value()["workload"] == "web-1"
    assert "workload" not in EtcdRegistration(HttpFetch(), EtcdSettings(), WEB).value()


@pytest.mark.asyncio
async def test_who_is_killed_is_gone_when_the_lease_ends(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server:
        registration = EtcdRegistration(HttpFetch(), EtcdSettings(endpoints=(server.url,)), WEB, ttl_s=1)
        task = asyncio.ensure_future(registration.run())
        await asyncio.wait_for(registration.registered.wait(), 20)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

        async def gone() -> bool:
            return await server.value(KEY) is None

        await until("the lease to end", gone)
        await registration.client.fetch.close()


@pytest.mark.asyncio
async def test_one_that_hands_over_ends_and_the_key_outlives_its_lease_under_the_successors(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server:
        settings = EtcdSettings(endpoints=(server.url,))
        old, new = EtcdRegistration(HttpFetch(), settings, WEB, ttl_s=30), EtcdRegistration(HttpFetch(), settings, WEB)
        tasks = []
        for one in (old, new):
            tasks.append(asyncio.ensure_future(one.run()))
            await asyncio.wait_for(one.registered.wait(), 20)
        await old.hand_over()
        await asyncio.wait_for(tasks[0], 20)
        await old.close()
        await server.call("/v3/lease/revoke", {"ID": old._lease})  # as its end would
        assert await server.value(KEY) is not None
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        await new.close()
        assert await server.value(KEY) is None
