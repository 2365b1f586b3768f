"""An app registered with the real Consul agent."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from fairlead.proxy.client import HttpFetch
from fairlead.registry.consul_catalog import ConsulSettings
from fairlead.registry.registration import Registration
from fairlead.registry.registration_consul import ConsulRegistration
from tests.e2e.roles import until
from tests.servers import Consul, consul

pytestmark = pytest.mark.asyncio
WEB = Registration("web", "web-1", "default", "10.0.0.1", 8001, {"v": "1"}, "web", 15006)


async def test_it_appears_passing_survives_a_restart_of_the_agent_and_goes_at_the_end(tmp_path: Path) -> None:
    async with consul(tmp_path) as server:

        async def state(server: Consul = server) -> list[str]:
            found = await server.get("/v1/health/service/web")
            return [check["Status"] for entry in found for check in entry["Checks"] if check["ServiceID"]]

        registration = ConsulRegistration(HttpFetch(), ConsulSettings(url=server.url), WEB, ttl_s=1.5)
        task = asyncio.ensure_future(registration.run())
        try:
            await asyncio.wait_for(registration.registered.wait(), 20)
            assert await state() == ["passing"]
            entry = (await server.get("/v1/health/service/web"))[0]["Service"]
            assert (entry["Address"], entry["Port"]) == ("10.0.0.1", 8001)
            assert entry["Meta"] == {"v": "1", "fairlead-namespace": "default", "fairlead-service-account": "web",
                                     "fairlead-mesh-port": "15006", "fairlead-workload": "web-1"}  # fmt: skip
            registration.health(False, "disk full")

            async def failing() -> bool:
                return await state() == ["critical"]

            await until("its health in Consul", failing)
            checks = (await server.get("/v1/health/service/web"))[0]["Checks"]
            assert [check["Output"] for check in checks if check["ServiceID"]] == ["disk full"]
            registration.health(True)

            async def passing() -> bool:
                return await state() == ["passing"]

            await until("its health in Consul again", passing)
            await server.put("/v1/agent/service/deregister/default-web-web-1")  # the agent forgets

            async def back() -> bool:
                return await state() == ["passing"]

            await until("the registration to come back", back)
            await server.kill()
            await server.start()
            await until("the registration after a restart", back)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await registration.close()
        assert await server.get("/v1/health/service/web") == []


async def test_one_that_hands_over_ends_and_leaves_what_its_successor_has_registered(tmp_path: Path) -> None:
    async with consul(tmp_path) as server:
        old, new = (ConsulRegistration(HttpFetch(), ConsulSettings(url=server.url), WEB, ttl_s=3.0) for _ in range(2))
        tasks = [asyncio.ensure_future(one.run()) for one in (old, new)]
        for one in (old, new):
            await asyncio.wait_for(one.registered.wait(), 20)
        await old.hand_over()
        await asyncio.wait_for(tasks[0], 20)
        await old.close()
        assert len(await server.get("/v1/health/service/web?passing")) == 1
        tasks[1].cancel()
        await asyncio.gather(tasks[1], return_exceptions=True)
        await new.close()
        assert await server.get("/v1/health/service/web") == []
