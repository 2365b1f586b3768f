"""etcd as a source, against the real server."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.control.fetch import AiohttpFetch
from fairlead.registry.etcd_values import EtcdSettings
from fairlead.registry.source_etcd import EtcdSource
from tests.registry.following import Heard, following
from tests.servers import Etcd, etcd

pytestmark = pytest.mark.asyncio
WEB = "web.default.svc.cluster.local"


def source(server: Etcd, heard: Heard) -> EtcdSource:
    return EtcdSource(AiohttpFetch(), EtcdSettings(endpoints=(server.url,)), heard.update, heard.tell, hold_s=0.5)


async def test_keys_are_loaded_and_then_followed(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server:
        await server.put(
            "/services/web/web-1",
            {"host": "10.0.0.1", "port": 8001, "weight": 3, "labels": {"v": "1"}, "zone": "a", "meshPort": 15006,
             "serviceAccount": "web"},
        )  # fmt: skip
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            found = heard.endpoints(WEB)[0]
            assert (found.address, found.weight, found.labels, found.locality) == ("10.0.0.1", 3, {"v": "1"}, "/a")
            assert (found.mesh_port, found.service_account, found.workload) == (15006, "web", "default/web-1")
            assert heard.status.state == "live"
            await server.put("/services/web/web-2", {"host": "10.0.0.2", "port": 8002, "ready": False})
            await heard.until(lambda: heard.ports(WEB, ready=False) == {8001, 8002})
            assert heard.ports(WEB) == {8001}
            await server.put("/services/web/web-2", {"host": "10.0.0.2", "port": 8002, "ready": True})
            await heard.until(lambda: heard.ports(WEB) == {8001, 8002})
            await server.put("/services/web/x", {"host": "10.0.0.3", "port": 8003, "namespace": "shop"})
            await heard.until(lambda: "web.shop.svc.cluster.local" in heard.facts.services)
            await server.delete("/services/web/web-1")
            await heard.until(lambda: heard.ports(WEB) == {8002})


async def test_malformed_values_are_skipped_and_told_by_key(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server:
        for key, value in (
            ("a", "not json"), ("b", "[]"), ("c", {"host": "x"}), ("d", {"host": "x", "port": "80"}),
            ("e", {"host": "x", "port": 80, "colour": "red"}), ("f", {"host": 1, "port": 80}),
        ):  # fmt: skip
            await server.put(f"/services/web/{key}", value)
        await server.put("/services/web/good", {"host": "10.0.0.1", "port": 8001})
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001, 80})  # a field too many does no harm
            assert {problem.split(":")[0] for problem in heard.status.problems} == {
                f"/services/web/{key}" for key in "abcdef"
            }
            await server.put("/services/web/a", {"host": "10.0.0.2", "port": 8002})
            await heard.until(lambda: heard.ports(WEB) == {80, 8001, 8002} and len(heard.status.problems) == 5)


async def test_what_is_known_stays_while_etcd_is_dead_and_it_comes_back_by_itself(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server:
        await server.put("/services/web/web-1", {"host": "10.0.0.1", "port": 8001})
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            await server.kill()
            await heard.until(lambda: heard.status.state == "stale")
            assert heard.ports(WEB) == {8001}
            await server.start()
            await server.put("/services/web/web-2", {"host": "10.0.0.2", "port": 8002})
            await heard.until(lambda: heard.status.state == "live" and heard.ports(WEB) == {8001, 8002})


async def test_a_frozen_server_is_found_out(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server:
        await server.put("/services/web/web-1", {"host": "10.0.0.1", "port": 8001})
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            server.freeze()
            await heard.until(lambda: heard.status.state == "stale")
            server.thaw()
            await server.put("/services/web/web-2", {"host": "10.0.0.2", "port": 8002})
            await heard.until(lambda: heard.ports(WEB) == {8001, 8002})


async def test_a_compacted_revision_leads_to_a_full_read(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server:
        await server.put("/services/web/web-1", {"host": "10.0.0.1", "port": 8001})
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8001})
            await server.kill()
            await heard.until(lambda: heard.status.state == "stale")
            await server.start()
            await server.delete("/services/web/web-1")
            revision = await server.put("/services/web/web-2", {"host": "10.0.0.2", "port": 8002})
            await server.call("/v3/kv/compaction", {"revision": str(revision), "physical": True})
            await heard.until(lambda: heard.status.state == "live" and heard.ports(WEB) == {8002})


async def test_a_server_that_lost_its_data_is_read_again_and_followed(tmp_path: Path) -> None:
    """Its revisions begin again: a watch from ours on would be silent until it got there."""
    async with etcd(tmp_path) as server:
        for number in range(20):
            await server.put("/services/web/web-1", {"host": "10.0.0.1", "port": 8000 + number})
        async with following(lambda heard: source(server, heard)) as heard:
            await heard.until(lambda: heard.ports(WEB) == {8019})
            await server.kill()
            await heard.until(lambda: heard.status.state == "stale")
            server.lose_data()
            await server.start()
            await heard.until(lambda: "1 of 1 are missing" in heard.status.error)
            assert heard.ports(WEB) == {8019}  # until the second look
            await heard.until(lambda: heard.status.state == "live" and heard.ports(WEB) == set())
            await server.put("/services/web/web-2", {"host": "10.0.0.2", "port": 9000})
            await heard.until(lambda: heard.ports(WEB) == {9000})
