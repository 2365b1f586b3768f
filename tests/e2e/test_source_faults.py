"""Faults of Consul and etcd, each made with the real server: what is known stays, and what comes after is followed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path

import aiohttp
import pytest

from fairlead.control.fetch import AiohttpFetch
from fairlead.registry import source_consul
from fairlead.registry.consul_catalog import ConsulSettings
from fairlead.registry.etcd_values import EtcdSettings, b64
from fairlead.registry.source_consul import ConsulSource
from fairlead.registry.source_etcd import EtcdSource
from tests.registry.following import Heard, following
from tests.relay import Answer, line, proxy
from tests.servers import ConsulMember, Etcd, consul, consul_cluster, etcd, etcd_cluster

pytestmark = pytest.mark.asyncio
WEB = "web.default.svc.cluster.local"


def by_consul(url: str, wait_s: int = 1) -> Callable[[Heard], ConsulSource]:
    def make(heard: Heard) -> ConsulSource:
        settings = ConsulSettings(url=url)
        return ConsulSource(AiohttpFetch(), settings, heard.update, heard.tell, wait_s=wait_s, hold_s=0.3)

    return make


def by_etcd(*urls: str) -> Callable[[Heard], EtcdSource]:
    def make(heard: Heard) -> EtcdSource:
        return EtcdSource(AiohttpFetch(), EtcdSettings(endpoints=urls), heard.update, heard.tell, hold_s=0.3)

    return make


async def test_an_agent_restarted_with_its_data_loses_nothing_on_the_way(tmp_path: Path) -> None:
    async with consul(tmp_path) as server:
        await server.register("web", "web-1", 8001)
        await server.register("api", "api-1", 8002)
        async with following(by_consul(server.url)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001} and len(heard.facts.services) == 2)
            seen: list[tuple[int, ...]] = []
            heard.watch = lambda: seen.append((len(heard.facts.services), len(heard.ports(WEB))))
            await server.kill()
            await heard.until(lambda: heard.status.state == "stale")
            await server.start()
            await heard.until(lambda: heard.status.state == "live")
            await server.register("web", "web-2", 8003)
            await heard.until(lambda: heard.ports(WEB) == {8001, 8003})
            assert seen
            assert all(services == 2 and ready >= 1 for services, ready in seen)


async def test_a_restored_snapshot_whose_index_is_lower_is_read_in_full(tmp_path: Path) -> None:
    """Consul's index goes backwards; a query that waits for the old one would never hear of anything."""
    async with consul(tmp_path) as server:
        node = {"Node": "far", "Address": "10.0.0.9"}
        await server.put("/v1/catalog/register", {**node, "Service": {"ID": "web-1", "Service": "web", "Port": 8001}})
        async with aiohttp.ClientSession() as session:
            async with session.get(server.url + "/v1/snapshot") as answer:
                saved = await answer.read()
            for turn in range(30):
                one = {"ID": "web-2", "Service": "web", "Port": 8002 + turn}
                await server.put("/v1/catalog/register", {**node, "Service": one})
            async with following(by_consul(server.url)) as heard:
                await heard.until(lambda: heard.ports(WEB) == {8001, 8031})
                async with session.put(server.url + "/v1/snapshot", data=saved) as answer:
                    assert answer.status == 200
                await heard.until(lambda: heard.ports(WEB) == {8001})
                one = {"ID": "web-3", "Service": "web", "Port": 8100}
                await server.put("/v1/catalog/register", {**node, "Service": one})
                await heard.until(lambda: heard.ports(WEB) == {8001, 8100})
                assert heard.status.state == "live"


async def test_an_index_that_goes_backwards_is_not_waited_on(tmp_path: Path) -> None:
    async with consul(tmp_path) as server, proxy(server.url) as between:
        await server.register("web", "web-1", 8001)
        async with following(by_consul(between.url)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})

            async def lower(_path: str, told: Answer) -> Answer:
                return told[0], {**told[1], "X-Consul-Index": "2"}, told[2]

            mark = len(between.asked)  # it may be asked anew before the change is heard of here
            between.change = lower
            await server.register("web", "web-2", 8002)
            await heard.until(lambda: heard.ports(WEB) == {8001, 8002})
            async with asyncio.timeout(20):
                while not any("/health/service/web" in path and "index" not in path for path in between.asked[mark:]):
                    await asyncio.sleep(0.02)
            await server.register("web", "web-3", 8003)
            await heard.until(lambda: heard.ports(WEB) == {8001, 8002, 8003})


async def test_answers_of_500_leave_what_is_known_and_are_not_hammered(tmp_path: Path) -> None:
    async with consul(tmp_path) as server, proxy(server.url) as between:
        await server.register("web", "web-1", 8001)
        async with following(by_consul(between.url)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})

            async def broken(_path: str, _told: Answer) -> Answer:
                return 500, {}, b"rpc error making call: No cluster leader"

            between.change = broken
            await server.register("web", "web-2", 8002)
            await heard.until(lambda: heard.status.state == "stale")
            assert "status 500: rpc error" in heard.status.error
            assert heard.ports(WEB) == {8001}
            mark = len(between.asked)
            await asyncio.sleep(1.0)  # a stretch in which to count
            assert len(between.asked) - mark < 40, "two queries, each with a pause that grows"
            between.change = None
            await heard.until(lambda: heard.status.state == "live" and heard.ports(WEB) == {8001, 8002})


async def test_a_slow_agent_is_waited_for_and_is_not_stale(tmp_path: Path) -> None:
    async with consul(tmp_path) as server, proxy(server.url) as between:
        await server.register("web", "web-1", 8001)
        states: set[str] = set()

        async def slow(_path: str, told: Answer) -> Answer:
            await asyncio.sleep(1.5)
            return told

        between.change = slow
        async with following(by_consul(between.url)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            heard.watch = lambda: states.add(heard.status.state)
            await server.register("web", "web-2", 8002)
            await heard.until(lambda: heard.ports(WEB) == {8001, 8002})
            assert states == {"live"}


async def test_consuls_leader_is_lost_and_then_its_quorum(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Followed at another server, by nodes: what servers tell (`stale`) is known to have no leader behind it."""
    monkeypatch.setattr(source_consul, "WATCHES_MAX", 0)

    async def put(server: ConsulMember, port: int) -> None:
        one = {"Node": "far", "Address": "10.0.0.9", "Service": {"ID": "web-1", "Service": "web", "Port": port}}
        async with asyncio.timeout(30):
            while (
                await server.fetch.request("PUT", server.url + "/v1/catalog/register", body=json.dumps(one).encode())
            ).status != 200:
                await asyncio.sleep(0.2)  # no leader yet

    async with consul_cluster(tmp_path) as members:
        leader = await members[0].get("/v1/status/leader")
        ports = [json.loads((one.folder / "consul.json").read_text())["ports"]["server"] for one in members]
        led = ports.index(int(leader.rsplit(":", 1)[1]))
        first, second = (one for number, one in enumerate(members) if number != led)
        await put(first, 8001)
        async with following(by_consul(first.url)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001} and heard.status.state == "live")
            await members[led].kill()
            await put(second, 8002)
            await heard.until(lambda: heard.ports(WEB) == {8002} and heard.status.state == "live")
            await second.kill()
            await heard.until(lambda: heard.status.state == "stale")
            await heard.until(lambda: "leader" in heard.status.error)
            assert heard.ports(WEB) == {8002}
            await second.start()
            await put(first, 8003)
            await heard.until(lambda: heard.ports(WEB) == {8003} and heard.status.state == "live")


async def test_a_network_that_falls_silent_is_found_out_in_consul(tmp_path: Path) -> None:
    async with consul(tmp_path) as server, line(server.url) as between:
        await server.register("web", "web-1", 8001)
        async with following(by_consul(between.url)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            between.silence()
            await server.register("web", "web-2", 8002)
            await heard.until(lambda: heard.status.state == "stale")
            assert heard.ports(WEB) == {8001}
            between.go_on()
            await heard.until(lambda: heard.status.state == "live" and heard.ports(WEB) == {8001, 8002})


async def test_a_network_that_falls_silent_is_found_out_in_etcd(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server, line(server.url) as between:
        await server.put("/services/web/web-1", {"host": "10.0.0.1", "port": 8001})
        async with following(by_etcd(between.url)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            between.silence()
            await server.delete("/services/web/web-1")
            await server.put("/services/web/web-2", {"host": "10.0.0.2", "port": 8002})
            await heard.until(lambda: heard.status.state == "stale")
            assert heard.ports(WEB) == {8001}
            between.go_on()
            await heard.until(lambda: heard.status.state == "live" and heard.ports(WEB) == {8002})


async def test_leaders_of_an_etcd_cluster_are_killed_one_after_the_other(tmp_path: Path) -> None:
    async with etcd_cluster(tmp_path) as members:
        await members[0].put("/services/web/web-0", {"host": "10.0.0.1", "port": 8000})

        async def leader() -> int:
            async with asyncio.timeout(20):
                while True:
                    for at, member in enumerate(members):
                        if member.process is not None and member.process.returncode is None and await member.leads():
                            return at
                    await asyncio.sleep(0.05)

        first = await leader()  # the watch is on it
        urls = [member.url for member in (*members[first:], *members[:first])]
        async with following(by_etcd(*urls)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8000})
            ports = {8000}
            for turn in (1, 2):
                gone = await leader()
                await members[gone].kill()
                new = await leader()
                assert heard.ports(WEB) == ports
                await members[new].put(f"/services/web/web-{turn}", {"host": "10.0.0.1", "port": 8000 + turn})
                ports |= {8000 + turn}
                await heard.until(lambda: heard.ports(WEB) == ports and heard.status.state == "live")  # noqa: B023
                await members[gone].start()


async def test_without_a_quorum_what_is_known_stays_and_is_told_as_stale(tmp_path: Path) -> None:
    """Two of three are dead: the one left answers connections, and must not be believed to be up to date."""
    async with etcd_cluster(tmp_path) as members:
        await members[0].put("/services/web/web-0", {"host": "10.0.0.1", "port": 8000})
        async with following(by_etcd(members[0].url)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8000})
            await asyncio.gather(members[1].kill(), members[2].kill())
            await heard.until(lambda: heard.status.state == "stale")
            assert heard.ports(WEB) == {8000}
            await members[1].start()
            await members[1].put("/services/web/web-1", {"host": "10.0.0.1", "port": 8001})
            await heard.until(lambda: heard.ports(WEB) == {8000, 8001} and heard.status.state == "live")


async def test_a_revision_compacted_while_the_network_was_silent_leads_to_a_full_read(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server, line(server.url) as between:
        await server.put("/services/web/web-1", {"host": "10.0.0.1", "port": 8001})
        async with following(by_etcd(between.url)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            between.silence()
            await heard.until(lambda: heard.status.state == "stale")
            await server.delete("/services/web/web-1")
            revision = await server.put("/services/web/web-2", {"host": "10.0.0.2", "port": 8002})
            await server.call("/v3/kv/compaction", {"revision": str(revision), "physical": True})
            between.go_on()
            await heard.until(lambda: heard.status.state == "live" and heard.ports(WEB) == {8002})


async def test_an_instance_whose_lease_ends_is_gone(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server:
        lease = (await server.call("/v3/lease/grant", {"TTL": "1"}))["ID"]
        value = b64('{"host": "10.0.0.1", "port": 8001}')
        await server.call("/v3/kv/put", {"key": b64("/services/web/web-1"), "value": value, "lease": lease})
        async with following(by_etcd(server.url)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            await heard.until(lambda: heard.ports(WEB) == set())
            assert heard.status.state == "live"


async def test_etcd_unreachable_at_the_start_is_followed_from_when_it_answers(tmp_path: Path) -> None:
    (tmp_path / "etcd").mkdir()
    server = Etcd(tmp_path / "etcd")
    try:
        async with following(by_etcd(server.url)) as heard:
            await heard.until(lambda: heard.status.error)
            assert (heard.status.state, heard.updates) == ("starting", 0)
            await server.start()
            await server.put("/services/web/web-1", {"host": "10.0.0.1", "port": 8001})
            await heard.until(lambda: heard.ports(WEB) == {8001} and heard.status.state == "live")
    finally:
        await server.close()
