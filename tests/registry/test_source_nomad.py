"""Nomad's native services, as its HTTP API documents them; its server cannot run here."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairlead.control.fetch import AiohttpFetch
from fairlead.registry.source_listed import ListedSource
from fairlead.registry.source_nomad import NomadReader, NomadSettings, settings_of
from tests.registry.api_server import Recorded, recorded
from tests.registry.following import Heard, following

pytestmark = pytest.mark.asyncio
REDIS = "example-cache-redis.default.svc.cluster.local"
FIRST, SECOND = "177160af-26f6-619f-9c9f-5e46d1104395", "ba731da0-6df9-9858-ef23-806e9758a899"


def registration(allocation: str, port: int, **more: Any) -> dict[str, Any]:
    return {
        "Address": "127.0.0.1", "AllocID": allocation, "CreateIndex": 14, "Datacenter": "dc1",
        "ID": f"_nomad-task-{allocation}-redis-example-cache-redis-db", "JobID": "example", "ModifyIndex": 24,
        "Namespace": "default", "NodeID": "7406e90b-de16-d118-80fe-60d0f2730cb3", "Port": port,
        "ServiceName": "example-cache-redis", "Tags": ["db", "version=7", "fairlead.mesh-port=15006"], **more,
    }  # fmt: skip


def check(status: str, mode: str = "healthiness", service: str = "example-cache-redis") -> dict[str, Any]:
    return {
        "9810e90177a4": {
            "Check": "alive", "Group": "example.cache[0]", "ID": "9810e90177a4", "Mode": mode,
            "Output": "nomad: Get http://127.0.0.1: refused\nmore", "Service": service, "Status": status,
            "StatusCode": 0, "Task": "", "Timestamp": 1678378223,
        }
    }  # fmt: skip


def documents(server: Recorded) -> None:
    listing = [{"Namespace": "default", "Services": [{"ServiceName": "example-cache-redis", "Tags": ["cache", "db"]}]}]
    server.documents = {
        "/v1/services": listing,
        "/v1/service/example-cache-redis": [registration(FIRST, 29702), registration(SECOND, 27232)],
        f"/v1/client/allocation/{FIRST}/checks": check("success"),
        f"/v1/client/allocation/{SECOND}/checks": check("failure", "readiness"),
    }


def source(server: Recorded, heard: Heard, **more: Any) -> ListedSource:
    settings = NomadSettings(url=server.url, **more)
    return ListedSource(NomadReader(AiohttpFetch(), settings), heard.update, heard.tell, hold_s=0.1)


async def test_registrations_are_endpoints_with_tags_as_labels_and_settings() -> None:
    async with recorded(documents) as server, following(lambda heard: source(server, heard, token="t")) as heard:
        await heard.until(lambda: heard.ports(REDIS) == {29702, 27232})
        one = next(one for one in heard.endpoints(REDIS) if one.port == 29702)
        assert (one.address, one.mesh_port, one.locality, one.workload) == (
            "127.0.0.1", 15006, "dc1", "default/example-177160af",
        )  # fmt: skip
        assert one.labels["version"] == "7" and one.labels["tag.db"] == "true"
        assert one.labels["nomad.job"] == "example"
        assert heard.facts.services[REDIS].ports[0].number == 80, "their ports are random ones"
        path, query, headers = server.asked[0]
        assert (path, query["namespace"], headers["X-Nomad-Token"]) == ("/v1/services", "*", "t")


async def test_a_change_is_heard_of_by_a_blocking_query() -> None:
    async with recorded(documents) as server, following(lambda heard: source(server, heard)) as heard:
        await heard.until(lambda: len(heard.ports(REDIS)) == 2 and not heard.status.error)
        await heard.until(lambda: any("index" in query for _, query, _ in server.asked))
        server.change("/v1/service/example-cache-redis", [registration(FIRST, 6379)])
        await heard.until(lambda: heard.ports(REDIS) == {6379})
        assert heard.facts.services[REDIS].ports[0].number == 6379, "the port that all of them share"
        server.change("/v1/services", [])
        await heard.until(lambda: REDIS not in heard.facts.services)


async def test_an_instance_whose_check_fails_is_not_ready() -> None:
    def failing(server: Recorded) -> None:
        documents(server)
        server.documents[f"/v1/client/allocation/{FIRST}/checks"] = check("failure")

    async with recorded(failing) as server, following(lambda heard: source(server, heard)) as heard:
        await heard.until(lambda: heard.ports(REDIS, ready=False) == {29702, 27232})
        assert heard.ports(REDIS) == {27232}, "a check with on_update ignore says nothing of readiness"
        (why,) = [one.why for one in heard.endpoints(REDIS) if not one.ready]
        assert why == "check alive fails: nomad: Get http://127.0.0.1: refused"


async def test_an_allocation_that_cannot_be_asked_has_nothing_against_it() -> None:
    def unreachable(server: Recorded) -> None:
        documents(server)
        server.status[f"/v1/client/allocation/{FIRST}/checks"] = 500

    async with recorded(unreachable) as server, following(lambda heard: source(server, heard)) as heard:
        await heard.until(lambda: heard.ports(REDIS) == {29702, 27232})


async def test_what_is_malformed_is_told_by_its_id() -> None:
    def malformed(server: Recorded) -> None:
        documents(server)
        server.documents["/v1/service/example-cache-redis"] = [
            registration(FIRST, 29702), registration(SECOND, 0, ID="b"), {"ID": "c"}, "d",
            registration(SECOND, 1, ID="e", Port="80"),
        ]  # fmt: skip

    async with recorded(malformed) as server, following(lambda heard: source(server, heard)) as heard:
        await heard.until(lambda: heard.ports(REDIS) == {29702})
        assert sorted(problem.split(":")[0] for problem in heard.status.problems) == ["nomad b", "nomad c", "nomad e"]


@pytest.mark.parametrize(("status", "said"), [(403, "NOMAD_TOKEN"), (500, "status 500")])
async def test_a_refusal_says_what_to_do(status: int, said: str) -> None:
    def refusing(server: Recorded) -> None:
        documents(server)
        server.status["/v1/services"] = status

    async with recorded(refusing) as server, following(lambda heard: source(server, heard)) as heard:
        await heard.until(lambda: said in heard.status.error)
        assert heard.status.state == "starting"


async def test_what_is_no_answer_of_nomad_changes_nothing() -> None:
    async with recorded(documents) as server, following(lambda heard: source(server, heard)) as heard:
        await heard.until(lambda: len(heard.ports(REDIS)) == 2)
        server.change("/v1/services", {"not": "a list"})
        await heard.until(lambda: heard.status.state == "stale" and "expected a list" in heard.status.error)
        assert len(heard.ports(REDIS)) == 2


async def test_settings_are_those_of_nomads_own_tools(tmp_path: Path) -> None:
    found = settings_of("env", {"NOMAD_ADDR": "https://n:4646/", "NOMAD_TOKEN": "t", "NOMAD_NAMESPACE": "shop",
                                "NOMAD_CACERT": "/ca", "NOMAD_SKIP_VERIFY": "true", "NOMAD_REGION": "eu"})  # fmt: skip
    assert (found.url, found.token, found.namespace, found.ca_file) == ("https://n:4646", "t", "shop", "/ca")
    assert (found.verify, found.region) == (False, "eu")
    assert settings_of("n:1", {}).url == "http://n:1"
