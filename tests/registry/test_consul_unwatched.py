"""More services in Consul than there may be blocking queries, against the real agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from fairlead.control.fetch import AiohttpFetch
from fairlead.registry import consul_unwatched, source_consul
from fairlead.registry.consul_catalog import ConsulError, ConsulSettings
from fairlead.registry.needs import Reply
from fairlead.registry.source_consul import ConsulSource
from tests.registry.following import Heard, following
from tests.relay import Answer, proxy
from tests.servers import Consul, consul

pytestmark = pytest.mark.asyncio
SERVICES = 6


class Asking(AiohttpFetch):
    """Keeps the paths that were asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def request(self, method: str, url: str, **more: Any) -> Reply:
        self.asked.append("/v1/" + url.split("/v1/")[1])
        return await super().request(method, url, **more)

    def reads(self, mark: int = 0) -> list[str]:
        """Of services, those in full."""
        return [path for path in self.asked[mark:] if path.startswith("/v1/health/service/") and "tag=" not in path]


@pytest.fixture(autouse=True)
def few_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_consul, "WATCHES_MAX", 3)


def following_it(url: str, fetch: AiohttpFetch, token: str = "") -> Callable[[Heard], ConsulSource]:
    settings = ConsulSettings(url=url, token=token)
    return lambda heard: ConsulSource(fetch, settings, heard.update, heard.tell, wait_s=1, hold_s=0.3)


def host(number: int) -> str:
    return f"s{number}.default.svc.cluster.local"


async def put(server: Consul, node: str, own: str, name: str, port: int, **more: Any) -> None:
    """Register an instance at a node, which nobody else touches."""
    one = {"ID": own, "Service": name, "Port": port, **more}
    told = {"Node": node, "Address": "10.0.0.9", "SkipNodeUpdate": True, "Service": one}
    await server.put("/v1/catalog/register", told)


async def filled(server: Consul, nodes: int = 2) -> None:
    """Two instances of each service, on nodes in turn."""
    for number in range(SERVICES):
        for turn in range(2):
            node = f"n{(2 * number + turn) % nodes}"
            await put(server, node, f"s{number}-{turn}", f"s{number}", 8000 + 10 * number + turn)


async def test_each_change_on_a_node_is_seen_by_a_look_at_the_service_it_concerns(tmp_path: Path) -> None:
    async with consul(tmp_path) as server:
        await filled(server)
        fetch = Asking()
        async with following(following_it(server.url, fetch)) as heard:
            await heard.until(lambda: len(heard.facts.services) == SERVICES and heard.status.state == "live")
            mark = len(fetch.asked)
            await put(server, "n0", "s0-0", "s0", 9000)  # registered anew otherwise
            await heard.until(lambda: heard.ports(host(0)) == {9000, 8001})
            await put(server, "n0", "s1-0", "s1", 8010, Tags=["canary"])
            await heard.until(lambda: any("tag.canary" in one.labels for one in heard.endpoints(host(1))))
            await put(server, "n1", "s2-2", "s2", 8022)  # one more, without a check
            await heard.until(lambda: heard.ports(host(2)) == {8020, 8021, 8022})
            await server.put("/v1/catalog/deregister", {"Node": "n1", "ServiceID": "s3-1"})
            await heard.until(lambda: heard.ports(host(3)) == {8030})
            await server.put("/v1/catalog/deregister", {"Node": "n0", "ServiceID": "s3-0"})  # the last one
            await heard.until(lambda: host(3) not in heard.facts.services)
            await put(server, "n1", "s9-0", "s9", 8090)  # a service that is new
            await heard.until(lambda: heard.ports(host(9)) == {8090})
            assert fetch.reads(mark), "all of them from the leader, which knows of what any server told"
            assert not [path for path in fetch.reads(mark) if "stale" in path]
            assert {path.split("/")[4].split("?")[0] for path in fetch.reads(mark)} == {
                "s0", "s1", "s2", "s3", "s9",
            }  # fmt: skip
            assert not [path for path in fetch.asked if "/v1/health/state/any" in path]
            assert not [path for path in fetch.asked if "/v1/health/service" in path and "index=" in path]
            assert heard.status.notes == ()


async def test_a_node_that_goes_moves_or_fails_concerns_all_that_is_on_it(tmp_path: Path) -> None:
    async with consul(tmp_path) as server:
        await filled(server)
        async with following(following_it(server.url, AiohttpFetch())) as heard:
            await heard.until(lambda: len(heard.facts.services) == SERVICES)
            check = {"CheckID": "serfHealth", "Name": "alive", "Status": "critical"}
            far = {"Node": "n0", "Address": "10.0.0.9", "SkipNodeUpdate": True}
            await server.put("/v1/catalog/register", {**far, "Check": check})
            await heard.until(lambda: all(len(heard.ports(host(n))) == 1 for n in range(SERVICES)))
            await server.put("/v1/catalog/register", {**far, "Check": {**check, "Status": "passing"}})
            await heard.until(lambda: all(len(heard.ports(host(n))) == 2 for n in range(SERVICES)))
            await server.put("/v1/catalog/register", {"Node": "n1", "Address": "10.0.0.77"})
            for number in range(SERVICES):
                await heard.until(lambda: "10.0.0.77" in {one.address for one in heard.endpoints(host(number))})  # noqa: B023
            await server.put("/v1/catalog/deregister", {"Node": "n0"})
            await heard.until(lambda: all(len(heard.endpoints(host(n))) == 1 for n in range(SERVICES)))
            await put(server, "n7", "s0-7", "s0", 8007)  # on a node that is new
            await server.put("/v1/catalog/register", {"Node": "n7", "Address": "10.0.0.9"})
            await heard.until(lambda: heard.ports(host(0)) == {8001, 8007})


async def test_more_nodes_than_watches_are_looked_at_when_the_catalog_changes_and_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_consul, "WATCHES_MOST", 2)
    async with consul(tmp_path) as server:
        await filled(server, nodes=6)
        fetch = Asking()
        async with following(following_it(server.url, fetch)) as heard:
            await heard.until(lambda: len(heard.facts.services) == SERVICES and heard.status.notes)
            assert "6 services on 7 nodes, but no more than 2 blocking queries" in heard.status.notes[0]
            assert "limits.http_max_conns_per_client" in heard.status.notes[0]
            mark = len(fetch.asked)
            for node in range(6):
                await put(server, f"n{node}", f"s{node // 2 + 3 * (node % 2)}-new", "s5", 9000 + node)
                await heard.until(lambda: 9000 + node in heard.ports(host(5)))  # noqa: B023
            names = {path.split("/")[4].split("?")[0] for path in fetch.reads(mark)}
            assert names == {"s5"}, "a change costs a look at the nodes, not at all services"
            # The nodes that changed last get the watches, each when the wait of another is over.
            while not any(path.startswith("/v1/catalog/node/n5?stale&index=") for path in fetch.asked):
                await put(server, "n5", "again", "s5", 9100 + len(fetch.asked) % 100)
                seen = heard.updates
                await heard.until(lambda: heard.updates > seen)  # noqa: B023


async def test_with_more_nodes_than_services_those_are_asked_for_their_index_and_read_if_it_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(source_consul, "WATCHES_MOST", 1)
    async with consul(tmp_path) as server:
        await filled(server, nodes=12)
        fetch = Asking()
        async with following(following_it(server.url, fetch)) as heard:
            await heard.until(lambda: len(heard.facts.services) == SERVICES and heard.status.notes)
            mark = len(fetch.asked)
            await put(server, "n11", "s4-0", "s4", 9040)
            await heard.until(lambda: 9040 in heard.ports(host(4)))
            await server.put("/v1/catalog/deregister", {"Node": "n11", "ServiceID": "s4-0"})
            await heard.until(lambda: 9040 not in heard.ports(host(4)))
            unwatched = [path for path in fetch.reads(mark) if "index=" not in path]
            assert {path.split("/")[4].split("?")[0] for path in unwatched} == {"s4"}
            assert any("tag=" in path for path in fetch.asked[mark:])
            check = {"CheckID": "serfHealth", "Name": "alive", "Status": "critical"}
            far = {"Node": "n8", "Address": "10.0.0.9", "SkipNodeUpdate": True}
            await server.put("/v1/catalog/register", {**far, "Check": check})
            await heard.until(lambda: heard.ports(host(4)) == {8041} and len(heard.endpoints(host(4))) == 2)


async def test_there_are_as_many_watches_as_the_agent_says_that_it_takes_connections(tmp_path: Path) -> None:
    (tmp_path / "consul").mkdir()
    server = Consul(tmp_path / "consul")
    path = server.folder / "consul.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "limits": {"http_max_conns_per_client": 45}}))
    try:
        await server.start()
        await filled(server, nodes=9)
        fetch = Asking()
        async with following(following_it(server.url, fetch)) as heard:
            await heard.until(lambda: len(heard.facts.services) == SERVICES and heard.status.notes)
            assert "no more than 5 blocking queries" in heard.status.notes[0]
    finally:
        await server.close()


async def test_a_token_that_may_not_see_nodes_or_the_agent_is_told_and_nothing_is_believed_gone(tmp_path: Path) -> None:
    root = "8c5a4ff4-0000-4000-8000-7e61e7a3a9b1"
    async with consul(tmp_path, root) as server:
        await filled(server)
        await server.put("/v1/acl/policy", {"Name": "names", "Rules": 'service_prefix "" { policy = "read" }'})
        weak = "5ea1c0de-0000-4000-8000-1d2c3b4a5968"
        await server.put("/v1/acl/token", {"SecretID": weak, "Policies": [{"Name": "names"}]})
        async with following(following_it(server.url, AiohttpFetch(), weak)) as heard:
            await heard.until(lambda: len(heard.status.problems) == SERVICES)
            assert "node:read" in heard.status.problems[0]
        await server.put("/v1/acl/policy", {"Name": "seen", "Rules": 'service_prefix "" { policy = "read" }\n'
                                            'node_prefix "" { policy = "read" }'})  # fmt: skip
        good = "5ea1c0de-0000-4000-8000-1d2c3b4a5969"
        await server.put("/v1/acl/token", {"SecretID": good, "Policies": [{"Name": "seen"}]})
        async with following(following_it(server.url, AiohttpFetch(), good)) as heard:
            await heard.until(lambda: len(heard.facts.services) == SERVICES)
            await put(server, "n0", "s0-0", "s0", 9000)
            await heard.until(lambda: heard.ports(host(0)) == {9000, 8001})


async def test_what_is_known_of_many_services_stays_while_consul_fails_and_is_compared_when_it_is_back(
    tmp_path: Path,
) -> None:
    async with consul(tmp_path) as server, proxy(server.url) as between:
        await filled(server)
        async with following(following_it(between.url, AiohttpFetch())) as heard:
            await heard.until(lambda: len(heard.facts.services) == SERVICES and heard.status.state == "live")

            async def broken(_path: str, _told: Answer) -> Answer:
                return 500, {}, b"rpc error"

            between.change = broken
            await heard.until(lambda: heard.status.state == "stale")
            await put(server, "n0", "s0-0", "s0", 9000)
            await server.put("/v1/catalog/deregister", {"Node": "n1", "ServiceID": "s1-1"})
            assert len(heard.facts.services) == SERVICES
            between.change = None
            await heard.until(lambda: heard.ports(host(0)) == {9000, 8001} and heard.ports(host(1)) == {8010})
            await heard.until(lambda: heard.status.state == "live")


async def test_many_services_lost_with_the_agents_data_are_kept_until_a_second_look(tmp_path: Path) -> None:
    async with consul(tmp_path) as server:
        await filled(server)
        async with following(following_it(server.url, AiohttpFetch())) as heard:
            await heard.until(lambda: len(heard.facts.services) == SERVICES and heard.status.state == "live")
            await server.kill()
            await heard.until(lambda: heard.status.state == "stale")
            server.lose_data()
            told: list[tuple[str, int]] = []
            heard.watch = lambda: told.append((heard.status.error, len(heard.facts.services)))
            await server.start()
            await heard.until(lambda: heard.status.state == "live" and not heard.facts.services)
            assert (SERVICES, True) in {(services, "missing" in error) for error, services in told}
            assert {services for _, services in told} == {SERVICES, 0}, "all at once, not one after the other"


async def test_a_restored_snapshot_of_many_services_is_read_in_full(tmp_path: Path) -> None:
    async with consul(tmp_path) as server, aiohttp.ClientSession() as session:
        await filled(server)
        async with session.get(server.url + "/v1/snapshot") as answer:
            saved = await answer.read()
        for turn in range(20):
            await put(server, "n0", "s0-0", "s0", 9000 + turn)
        async with following(following_it(server.url, AiohttpFetch())) as heard:
            await heard.until(lambda: heard.ports(host(0)) == {9019, 8001})
            async with session.put(server.url + "/v1/snapshot", data=saved) as restored:
                assert restored.status == 200
            await heard.until(lambda: heard.ports(host(0)) == {8000, 8001})
            await put(server, "n1", "s5-1", "s5", 9051)
            await heard.until(lambda: heard.ports(host(5)) == {8050, 9051})
            await heard.until(lambda: heard.status.state == "live")


async def test_a_service_whose_read_fails_is_tried_again_and_holds_up_no_other(tmp_path: Path) -> None:
    async with consul(tmp_path) as server, proxy(server.url) as between:
        await filled(server)
        bad = True

        async def one(path: str, told: Answer) -> Answer:
            return (500, {}, b"no") if bad and "/health/service/s2" in path else told

        between.change = one
        async with following(following_it(between.url, AiohttpFetch())) as heard:
            await heard.until(lambda: "/v1/health/service/s2" in heard.status.error)
            bad = False
            await heard.until(lambda: len(heard.facts.services) == SERVICES and heard.status.state == "live")
            bad = True
            await put(server, "n0", "s2-0", "s2", 9020)
            await heard.until(lambda: heard.status.state == "stale")
            await put(server, "n0", "s3-0", "s3", 9030)
            await heard.until(lambda: 9030 in heard.ports(host(3)))
            bad = False
            await heard.until(lambda: 9020 in heard.ports(host(2)) and heard.status.state == "live")


class Slow:
    """A catalog of the one service web, whose reads end when told: the real one orders them as it likes."""

    def __init__(self) -> None:
        self.index, self.under_way, self.most = 1, 0, 0
        self.reads: list[asyncio.Event] = []
        self.asked = asyncio.Condition()

    nodes: tuple[str, ...] = ()
    good_token = True

    async def get(self, path: str, index: int = 0, decode: Any = None, **more: Any) -> tuple[int, Any]:
        if path == "/v1/catalog/nodes" and not index:
            return 1, self.nodes
        if index or "/catalog/node/" in path:
            await asyncio.Event().wait()
        if "health/service" in path:
            return self.index, []
        return 1, b"[]" if decode is bytes else ()

    async def health(self, name: str, index: int = 0, *, fresh: bool = False) -> tuple[int, list[dict[str, Any]]]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        mine = asyncio.Event()
        self.reads.append(mine)
        async with self.asked:
            self.asked.notify_all()
        await mine.wait()
        self.under_way -= 1
        return self.index, [{}]

    async def read(self, number: int) -> asyncio.Event:
        """That one, once it has begun."""
        async with self.asked:
            await self.asked.wait_for(lambda: len(self.reads) > number)
        return self.reads[number]

    def spread_wait_s(self) -> float:
        return 1.0

    async def read_all_checks(self, seen: Any) -> None: ...
    async def prove_token(self) -> None:
        if not self.good_token:
            raise ConsulError("status 403")

    async def share_out(self) -> None: ...
    def held(self, name: str, entries: Any) -> str:
        return ""

    def take(self, name: str, entries: Any, gone: bool = False) -> None: ...
    def failed(self, what: str, why: str) -> None: ...
    def healed(self, what: str) -> None: ...
    def unsure(self) -> None: ...
    def learned(self, names: set[str]) -> None: ...


async def test_a_round_that_begins_while_a_service_is_read_reads_it_once_more_when_that_is_done(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(consul_unwatched, "ROUND_PAUSE_S", 0.0)
    catalog = Slow()
    subject = consul_unwatched.Unwatched(catalog, nodes_max=0)
    task = asyncio.create_task(subject.run())
    try:
        subject.follow(["web"], 1)
        (await catalog.read(0)).set()  # of the first round
        subject._ask(["web"])  # its health has changed
        held = await catalog.read(1)
        catalog.index += 1
        subject.moved()  # and another round begins
        while not subject._reading["web"] and catalog.most == 1:
            await asyncio.sleep(0)
        held.set()
        (await catalog.read(2)).set()
        while subject._reading:
            await asyncio.sleep(0)
        assert not task.done(), task
        assert catalog.most == 1
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_a_cancellation_that_meets_news_ends_it_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consul_unwatched, "ROUND_PAUSE_S", 0.0)
    catalog = Slow()
    subject = consul_unwatched.Unwatched(catalog, nodes_max=0)
    subject.by_node = False
    subject.follow(["web"], 1)
    task = asyncio.create_task(subject._rounds())
    while not subject._routine:
        await asyncio.sleep(0)
    subject._routine.clear()
    subject._end_round()
    for _ in range(5):  # until it waits for news
        await asyncio.sleep(0)
    subject.moved()
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait((task,), timeout=5)
    assert task.cancelled()


async def test_a_round_does_not_wait_for_nodes_that_are_not_watched_any_more() -> None:
    catalog = Slow()
    catalog.nodes = ("silent",)
    subject = consul_unwatched.Unwatched(catalog, nodes_max=1)
    task = asyncio.create_task(subject.run())
    try:
        subject.follow(["web"], 1)
        async with asyncio.timeout(5):
            while not subject._watches:
                await asyncio.sleep(0)
            await subject._follow_by(False)
            (await catalog.read(0)).set()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
