"""Consul as a source, against the real agent."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairlead.control.fetch import AiohttpFetch
from fairlead.registry import source_consul
from fairlead.registry.consul_catalog import ConsulError, ConsulSettings
from fairlead.registry.namespace_map import NamespaceMap
from fairlead.registry.needs import Reply
from fairlead.registry.source_consul import ConsulSource
from tests.registry.following import Heard, following
from tests.relay import Answer, proxy
from tests.servers import Consul, consul

pytestmark = pytest.mark.asyncio
WEB = "web.default.svc.cluster.local"


def source(server: Consul, heard: Heard) -> ConsulSource:
    return ConsulSource(AiohttpFetch(), ConsulSettings(url=server.url), heard.update, heard.tell, hold_s=0.5)


async def test_services_come_change_and_go(tmp_path: Path) -> None:
    async with consul(tmp_path) as server:
        await server.register(
            "web", "web-1", 8001, Address="10.0.0.1", Tags=["v=1", "http"],
            Meta={"team": "shop", "fairlead-mesh-port": "15006", "fairlead-service-account": "web", "zone": "a"},
            Weights={"Passing": 5, "Warning": 1},
        )  # fmt: skip
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            found = heard.endpoints(WEB)[0]
            assert found.address == "10.0.0.1"
            assert found.labels == {"v": "1", "tag.http": "true", "team": "shop", "zone": "a"}
            assert (found.weight, found.mesh_port, found.service_account, found.locality) == (5, 15006, "web", "/a")
            assert heard.facts.services[WEB].ports[0].number == 8001
            assert heard.facts.services[WEB].ports[0].app_protocol == "http"
            assert heard.facts.workloads["default/web-1"].labels["team"] == "shop"
            assert heard.status.state == "live"
            await server.register("web", "web-2", 8002)
            await heard.until(lambda: heard.ports(WEB) == {8001, 8002})
            assert heard.facts.services[WEB].ports[0].number == 80
            await server.put("/v1/agent/service/deregister/web-1")
            await heard.until(lambda: heard.ports(WEB) == {8002})
            await server.put("/v1/agent/service/deregister/web-2")
            await heard.until(lambda: WEB not in heard.facts.services)
            assert "consul" not in str(list(heard.facts.services))


async def test_a_critical_check_makes_not_ready_with_its_reason_and_a_warning_does_not(tmp_path: Path) -> None:
    async with consul(tmp_path) as server:
        await server.register("web", "web-1", 8001, Check={"CheckID": "c", "TTL": "60s", "Status": "passing"})
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            await server.put("/v1/agent/check/warn/c")
            await server.put("/v1/agent/check/fail/c?note=disk+full")
            await heard.until(lambda: heard.ports(WEB) == set())
            assert "disk full" in heard.endpoints(WEB)[0].why
            await server.put("/v1/agent/check/warn/c")
            await heard.until(lambda: heard.ports(WEB) == {8001})


async def test_what_is_known_stays_while_consul_is_dead_and_it_comes_back_by_itself(tmp_path: Path) -> None:
    async with consul(tmp_path) as server:
        await server.register("web", "web-1", 8001)
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            await server.kill()
            await heard.until(lambda: heard.status.state == "stale")
            assert heard.status.error
            assert heard.ports(WEB) == {8001}
            await server.start()
            await server.register("web", "web-2", 8002)
            await heard.until(lambda: heard.status.state == "live" and 8002 in heard.ports(WEB))


async def test_unreachable_at_the_start_it_is_followed_from_when_it_answers(tmp_path: Path) -> None:
    (tmp_path / "consul").mkdir()
    server = Consul(tmp_path / "consul")
    try:
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: heard.status.error)
            assert heard.status.state == "starting"
            assert heard.updates == 0
            await server.start()
            await server.register("web", "web-1", 8001)
            await heard.until(lambda: heard.ports(WEB) == {8001})
    finally:
        await server.close()


async def test_a_malformed_instance_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    async with consul(tmp_path) as server:
        await server.register("web", "web-1", 8001)
        await server.register("web", "web-0", 0)
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            assert any("web-0" in problem for problem in heard.status.problems)


async def test_an_agent_that_hangs_is_found_out_and_followed_again_when_it_goes_on(tmp_path: Path) -> None:
    def quick(heard: Heard) -> ConsulSource:
        return ConsulSource(AiohttpFetch(), ConsulSettings(url=server.url), heard.update, heard.tell, wait_s=1)

    async with consul(tmp_path) as server:
        await server.register("web", "web-1", 8001)
        async with following(quick) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            server.freeze()
            await heard.until(lambda: heard.status.state == "stale")
            assert "no answer within" in heard.status.error
            assert heard.ports(WEB) == {8001}
            server.thaw()
            await server.register("web", "web-2", 8002)
            await heard.until(lambda: heard.status.state == "live" and heard.ports(WEB) == {8001, 8002})


async def test_a_token_that_may_see_nothing_is_told_and_never_taken_for_an_empty_catalog(tmp_path: Path) -> None:
    root = "8c5a4ff4-0000-4000-8000-7e61e7a3a9b1"
    async with consul(tmp_path, root) as server:
        await server.register("web", "web-1", 8001)
        async with following(lambda heard: source(server, heard)) as heard:  # anonymous
            await heard.until(lambda: heard.status.error)
            assert "token" in heard.status.error
            assert (heard.updates, heard.status.state) == (0, "starting")
        await server.put("/v1/acl/policy", {"Name": "names", "Rules": 'service_prefix "" { policy = "read" }\n'
                                            'agent_prefix "" { policy = "read" }'})  # fmt: skip
        weak = "5ea1c0de-0000-4000-8000-1d2c3b4a5968"
        await server.put("/v1/acl/token", {"SecretID": weak, "Policies": [{"Name": "names"}]})
        settings = ConsulSettings(url=server.url, token=weak)
        async with following(lambda heard: ConsulSource(AiohttpFetch(), settings, heard.update, heard.tell)) as heard:
            await heard.until(lambda: heard.status.problems)
            assert "node:read" in heard.status.problems[0]  # services may be seen, their instances not
        good = ConsulSettings(url=server.url, token=root)
        async with following(lambda heard: ConsulSource(AiohttpFetch(), good, heard.update, heard.tell)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})


async def test_a_token_that_loses_node_read_takes_no_instance_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It sees the agent and the names of services still, and no node: to it no service has an instance."""
    monkeypatch.setattr(source_consul, "WATCHES_MAX", 3)  # so that they are followed by node
    root, weak = "8c5a4ff4-0000-4000-8000-7e61e7a3a9b1", "5ea1c0de-0000-4000-8000-1d2c3b4a5968"
    names = 'service_prefix "" { policy = "read" }\nagent_prefix "" { policy = "read" }\n'
    nodes = 'node_prefix "" { policy = "read" }'
    async with consul(tmp_path, root) as server:
        for number in range(6):
            await server.register(f"s{number}", f"s{number}-1", 8000 + number)
        await server.put("/v1/acl/policy", {"Name": "reads", "Rules": names + nodes})
        await server.put("/v1/acl/token", {"SecretID": weak, "Policies": [{"Name": "reads"}]})
        hosts = {f"s{number}.default.svc.cluster.local": {8000 + number} for number in range(6)}
        settings = ConsulSettings(url=server.url, token=weak)
        unheard, fetch = Heard(), AiohttpFetch()
        proving = ConsulSource(fetch, settings, unheard.update, unheard.tell)
        await proving.prove_token()
        async with following(
            lambda heard: ConsulSource(AiohttpFetch(), settings, heard.update, heard.tell, wait_s=1)
        ) as heard:
            await heard.until(lambda: all(heard.ports(host) == ports for host, ports in hosts.items()))
            place = f"/v1/acl/policy/{(await server.get('/v1/acl/policy/name/reads'))['ID']}"
            await server.put(place, {"Name": "reads", "Rules": names})
            await heard.until(lambda: "node:read" in f"{heard.status.error} {heard.status.problems}")
            with pytest.raises(ConsulError, match="node:read"):
                await proving.prove_token()
            await fetch.close()
            assert all(heard.ports(host) == ports for host, ports in hosts.items())
            await server.put(place, {"Name": "reads", "Rules": names + nodes})
            await server.register("s0", "s0-2", 9000)
            await heard.until(lambda: heard.ports("s0.default.svc.cluster.local") == {8000, 9000})
            assert all(heard.ports(host) >= ports for host, ports in hosts.items())


@pytest.mark.parametrize(
    ("header", "value", "said"),
    [("X-Consul-Knownleader", "false", "no leader"), ("X-Consul-Lastcontact", "20000", "has not heard of its leader")],
)
async def test_what_a_server_says_that_is_cut_off_from_its_leader_is_not_believed(
    header: str, value: str, said: str, tmp_path: Path
) -> None:
    async with consul(tmp_path) as server, proxy(server.url) as between:
        await server.register("web", "web-1", 8001)
        settings = ConsulSettings(url=between.url)
        async with following(
            lambda heard: ConsulSource(AiohttpFetch(), settings, heard.update, heard.tell, wait_s=1)
        ) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            assert all("?stale" in path for path in between.asked), "any server may answer"

            async def cut_off(_path: str, told: Answer) -> Answer:
                return told[0], {**told[1], header: value}, told[2]

            between.change = cut_off
            await server.register("web", "web-1", 8002)
            await heard.until(lambda: heard.status.state == "stale")
            assert said in heard.status.error
            assert heard.ports(WEB) == {8001}
            between.change = None
            await heard.until(lambda: heard.ports(WEB) == {8002} and heard.status.state == "live")


async def test_more_services_than_watches_are_all_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_consul, "WATCHES_MAX", 3)
    async with consul(tmp_path) as server:
        for number in range(8):
            await server.register(f"s{number}", f"s{number}-1", 8000 + number)
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: len(heard.facts.services) == 8)
            await server.register("s5", "s5-2", 9005)
            await heard.until(lambda: heard.ports("s5.default.svc.cluster.local") == {8005, 9005})
            check = {"ID": "c7", "Name": "c7", "ServiceID": "s7-1", "TTL": "60s", "Status": "critical"}
            await server.put("/v1/agent/check/register", check)
            await heard.until(lambda: heard.ports("s7.default.svc.cluster.local") == set())
            await server.put("/v1/agent/check/pass/c7")
            await heard.until(lambda: heard.ports("s7.default.svc.cluster.local") == {8007})
            await server.put("/v1/agent/service/deregister/s6-1")
            await heard.until(lambda: len(heard.facts.services) == 7)


async def test_an_agent_that_lost_its_data_is_looked_at_twice_before_it_is_believed(tmp_path: Path) -> None:
    async with consul(tmp_path) as server:
        await server.register("web", "web-1", 8001)
        await server.register("web", "web-2", 8002)
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001, 8002})
            await server.kill()
            await heard.until(lambda: heard.status.state == "stale")
            server.lose_data()
            await server.start()
            await heard.until(lambda: "missing" in heard.status.error)
            assert heard.ports(WEB) == {8001, 8002}
            await heard.until(lambda: heard.status.state == "live" and not heard.facts.services)
            await server.register("web", "web-3", 8003)
            await heard.until(lambda: heard.ports(WEB) == {8003})


async def test_a_nomad_job_that_registers_in_consul_comes_by_consul(tmp_path: Path) -> None:
    """As Nomad's client registers the `service` stanza of a job: ids, tags, meta and a check of Nomad's making."""
    allocation = "177160af-26f6-619f-9c9f-5e46d1104395"
    async with consul(tmp_path) as server:
        for number, port in ((1, 29702), (2, 27232)):
            await server.register(
                "api", f"_nomad-task-{number}{allocation[1:]}-group-api-api-http", port, Address="10.0.0.7",
                Tags=["http", "version=3"], Meta={"external-source": "nomad", "fairlead-service-account": "api"},
                EnableTagOverride=False,
                Checks=[{"CheckID": f"_nomad-check-{number}", "Name": 'service: "api" check', "TTL": "60s",
                         "Status": "passing" if number == 1 else "critical"}],
            )  # fmt: skip
        host = "api.default.svc.cluster.local"
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: heard.ports(host, ready=False) == {29702, 27232})
            assert heard.ports(host) == {29702}
            one = heard.endpoints(host)[0]
            assert (one.labels["version"], one.labels["external-source"]) == ("3", "nomad")
            assert heard.facts.services[host].ports[0].app_protocol == "http"
            assert {key.split("/")[1][:13] for key in heard.facts.workloads} == {"_nomad-task-1", "_nomad-task-2"}


async def test_services_are_put_into_namespaces_by_their_names(tmp_path: Path) -> None:
    async with consul(tmp_path) as server:
        await server.register("pay-web", "pay-web-1", 8001)
        await server.register("web", "web-1", 8002)
        names = NamespaceMap(["pay-*=payments"])
        async with following(
            lambda heard: ConsulSource(
                AiohttpFetch(), ConsulSettings(url=server.url), heard.update, heard.tell, namespaces=names
            )
        ) as heard:
            await heard.until(lambda: {"pay-web.payments.svc.cluster.local", WEB} == set(heard.facts.services))


async def test_a_service_with_a_thousand_instances_and_each_of_its_changes(tmp_path: Path) -> None:
    async with consul(tmp_path) as server:
        await server.catalog({"ID": f"web-{n}", "Service": "web", "Port": 1 + n} for n in range(1000))
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: len(heard.ports(WEB)) == 1000)
            await server.catalog([{"ID": "web-7", "Service": "web", "Port": 9007}])
            await heard.until(lambda: 9007 in heard.ports(WEB))
            assert len(heard.ports(WEB)) == 1000
            assert 8 not in heard.ports(WEB)


class Counting(AiohttpFetch):
    """Keeps the URLs asked for, and how many answers in full were asked for at a time."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []
        self.at_once = self.most = 0

    async def request(self, method: str, url: str, **more: Any) -> Reply:
        self.asked.append(url)
        full = "/v1/health/service/" in url and "index=" not in url
        self.at_once += full
        self.most = max(self.most, self.at_once)
        try:
            return await super().request(method, url, **more)
        finally:
            self.at_once -= full


async def test_a_catalog_of_two_thousand_services_is_read_without_a_rush_and_followed(tmp_path: Path) -> None:
    """A change of health costs a look at that service, not at all of them."""
    async with consul(tmp_path) as server:
        await server.catalog({"ID": f"s{n}-1", "Service": f"s{n}", "Port": 8000} for n in range(2000))
        fetch, settings = Counting(), ConsulSettings(url=server.url)

        async def judge(number: int, status: str) -> None:
            check = {"CheckID": f"c{number}", "Name": "c", "ServiceID": f"s{number}-1", "Status": status}
            told = {"Node": "far", "Address": "10.0.0.9", "SkipNodeUpdate": True, "Check": check}
            await server.put("/v1/catalog/register", told)

        async with following(lambda heard: ConsulSource(fetch, settings, heard.update, heard.tell)) as heard:
            await heard.until(lambda: len(heard.facts.services) == 2000)
            assert 0 < fetch.most <= source_consul.READS_AT_ONCE
            mark = len(fetch.asked)
            for number in (3, 1999, 777):
                await judge(number, "critical")
                await heard.until(lambda: heard.ports(f"s{number}.default.svc.cluster.local") == set())  # noqa: B023
            assert len(fetch.asked) - mark < 400, "three looks beside what watches ask again"
            await server.catalog([{"ID": "s1999-2", "Service": "s1999", "Port": 8001}])
            await heard.until(lambda: heard.ports("s1999.default.svc.cluster.local") == {8001})
