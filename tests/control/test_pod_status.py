"""The status of Pods as sidecars tell it: read, watched, waited for by kubectl, and never stored."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from fairlead.control.api import ControlApi
from fairlead.control.pod_status import PodStatuses, is_derived, judged
from fairlead.control.sidecars import Known
from fairlead.control.store import Key, Stored, encode
from fairlead.registry.model import Workload
from tests.control.kubectl import Kubectl
from tests.control.serving import Client, api_on, store_in

PODS = "/api/v1/namespaces/default/pods"
UP = Known("default", "web", address="10.0.0.1", mesh_port=15008)
SICK = msgspec.structs.replace(UP, unhealthy="GET /ready: 503")


def pod(name: str = "web", **more: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "labels": {"app": "web"}},
            "spec": {"containers": [{"name": "a"}]}, **more}  # fmt: skip


class World:
    def __init__(self) -> None:
        self.known: dict[str, Known] = {}
        self.workloads: dict[str, Workload] = {}
        self.now = 1_000_000_000.0
        self.statuses = PodStatuses(self.workloads.get, self.known.get, lambda: self.now)

    def heard(self, *connected: Known) -> list[str]:
        self.known |= {one.key: one for one in connected}
        return self.statuses.heard({one.key: one for one in connected})

    def of(self, declared: Any = None) -> dict[str, Any]:
        body: dict[str, Any] = {"metadata": {"name": "web"}, **({"status": declared} if declared else {})}
        shown = self.statuses.shown(Stored(Key("pods", "default", "web"), 7, encode(body)))
        assert (shown.version, shown.object()["metadata"]) == (7, {"name": "web"})
        found: dict[str, Any] = shown.object()["status"]
        return found

    def ready(self, declared: Any = None) -> tuple[str, str]:
        conditions = {one["type"]: one for one in self.of(declared)["conditions"]}
        return conditions["Ready"]["status"], conditions["Ready"].get("reason", "")


def test_a_pod_is_ready_while_its_sidecar_is_connected_and_its_checks_pass() -> None:
    world = World()
    assert (world.of()["phase"], world.ready()) == ("Pending", ("Unknown", "SidecarMissing"))
    assert world.heard(UP) == ["default/web"]
    found = world.of()
    assert (found["phase"], found["podIP"], found["podIPs"]) == ("Running", "10.0.0.1", [{"ip": "10.0.0.1"}])
    assert {one["type"]: one["status"] for one in found["conditions"]} == dict.fromkeys(
        ("PodScheduled", "Initialized", "ContainersReady", "Ready"), "True"
    )
    assert world.heard(UP) == [], "nothing is new"
    world.now += 60
    assert world.heard(SICK) == ["default/web"]
    ready = next(one for one in world.of()["conditions"] if one["type"] == "Ready")
    assert ready == {"type": "Ready", "status": "False", "reason": "SidecarChecksFail", "message": "GET /ready: 503",
                     "lastTransitionTime": "2001-09-09T01:47:40Z"}  # fmt: skip
    assert world.heard() == ["default/web"]
    assert (world.of()["phase"], world.ready()) == ("Running", ("Unknown", "SidecarGone"))
    world.known["default/web"] = msgspec.structs.replace(UP, left=True)
    assert world.ready() == ("False", "SidecarDrains")


def test_what_is_declared_stays_where_no_sidecar_knows_better() -> None:
    world = World()
    declared = {"phase": "Succeeded", "podIP": "10.9.9.9", "conditions": [
        {"type": "Ready", "status": "False"}, {"type": "example.com/gate", "status": "True"}]}  # fmt: skip
    assert world.of(declared) == declared
    world.workloads["default/web"] = Workload("default", "web", addresses=("10.0.0.2",), ready=False, why="declared so")
    world.heard(UP)
    found = world.of(declared)
    assert (found["phase"], found["podIP"]) == ("Succeeded", "10.9.9.9")
    assert world.ready(declared) == ("False", "SidecarHeldBack")
    assert "example.com/gate" in {one["type"] for one in found["conditions"]}
    assert world.of()["podIP"] == "10.0.0.2", "what the registry gives out goes before what the sidecar says"


def test_a_status_that_was_read_is_known_by_its_reasons() -> None:
    world = World()
    assert is_derived(world.of())
    others: list[Any] = [None, {}, [], {"conditions": None}, {"conditions": [1, {"reason": []}, {"reason": "Mine"}]}]
    for other in others:
        assert not is_derived(other)
    assert judged(UP, UP, None) == ("True", "SidecarConnected", "")


@contextlib.asynccontextmanager
async def world_in(folder: Path) -> AsyncIterator[tuple[World, ControlApi, Client]]:
    world = World()
    async with store_in(folder) as store, api_on(store) as (api, client):
        api.hub.readers["pods"] = world.statuses.shown
        yield world, api, client


def tell(world: World, api: ControlApi, *connected: Known) -> None:
    api.hub.touch("pods", [("default", key.partition("/")[2]) for key in world.heard(*connected)])


@pytest.mark.asyncio
async def test_nothing_of_it_is_stored_also_where_an_object_is_written_as_it_was_read(tmp_path: Path) -> None:
    async with world_in(tmp_path) as (world, api, client):
        made = await client.post(PODS, pod())
        assert made["status"]["phase"] == "Pending"
        revision = api.store.memory.revision
        for one in (UP, SICK, UP):
            tell(world, api, one)
        assert api.store.memory.revision == revision
        read = await client.get(f"{PODS}/web")
        assert read["status"]["phase"] == "Running"
        read["metadata"]["labels"]["x"] = "y"
        put = await client.put(f"{PODS}/web", read)
        assert put["status"]["phase"] == "Running"
        await client.put(f"{PODS}/web/status", put)
        copy = {**put, "metadata": {"name": "copy"}}
        await client.post(PODS, copy)
        for name in ("web", "copy"):
            stored = api.store.memory.get(Key("pods", "default", name))
            assert stored is not None and "status" not in stored.object()
        listed = (await client.get(f"{PODS}?fieldSelector=status.phase%3DRunning"))["items"]
        assert [one["metadata"]["name"] for one in listed] == ["web"]
        declared = {"status": {"conditions": [{"type": "Ready", "status": "False"}]}}
        await client.patch(f"{PODS}/copy/status", declared)
        assert (await client.get(f"{PODS}/copy"))["status"]["conditions"] == declared["status"]["conditions"]


@pytest.mark.asyncio
async def test_a_watch_tells_of_each_change_also_of_one_since_its_list(tmp_path: Path) -> None:
    async with world_in(tmp_path) as (world, api, client):
        await client.post(PODS, pod())
        await client.post(PODS, pod("other"))
        version = (await client.get(PODS))["metadata"]["resourceVersion"]
        tell(world, api, UP)
        watch = f"{client.url}{PODS}?watch=1&resourceVersion={version}&allowWatchBookmarks=true&timeoutSeconds=20"
        async with client.session.get(watch) as answer:

            async def event() -> tuple[str, str, Any]:
                told = msgspec.json.decode(await asyncio.wait_for(answer.content.readline(), 10))
                of = {one["type"]: one for one in told["object"].get("status", {}).get("conditions", [])}
                return told["type"], told["object"]["metadata"].get("name", ""), of.get("Ready", {}).get("reason")

            assert await event() == ("MODIFIED", "web", "SidecarConnected")
            assert await event() == ("BOOKMARK", "", None)
            tell(world, api, SICK)
            assert await event() == ("MODIFIED", "web", "SidecarChecksFail")
            assert await event() == ("BOOKMARK", "", None)
            await client.post(PODS, pod("later"))
            assert await event() == ("ADDED", "later", "SidecarMissing")
        by_status = f"{client.url}{PODS}?watch=1&fieldSelector=status.phase%3DPending&timeoutSeconds=20"
        async with client.session.get(by_status) as answer:
            assert {(await event())[1] for _ in range(2)} == {"later", "other"}
            tell(world, api, UP, Known("default", "other", mesh_port=1))
            tell(world, api, SICK, Known("default", "other", mesh_port=1))
            assert {(await event())[:2] for _ in range(2)} == {("DELETED", "web"), ("DELETED", "other")}


@pytest.mark.asyncio
async def test_kubectl_waits_for_a_pod_until_its_sidecar_runs(tmp_path: Path) -> None:
    async with world_in(tmp_path) as (world, api, client):
        kubectl = Kubectl(tmp_path, client.url)
        await client.post(PODS, pod())
        code, _, error = await kubectl.run("wait", "--for=condition=Ready", "pod/web", "--timeout=1s")
        assert code and "timed out" in error
        waiting = asyncio.create_task(kubectl.done("wait", "--for=condition=Ready", "pod/web", "--timeout=30s"))
        while not api.hub.count:
            await asyncio.sleep(0.01)
        tell(world, api, UP)
        assert "condition met" in await waiting
        wide = await kubectl.done("get", "pods", "-o", "wide")
        assert wide.split("\n")[1].split()[:4] == ["web", "1/1", "Running", "10.0.0.1"], wide
        tell(world, api, SICK)
        assert (await kubectl.done("get", "pods")).split("\n")[1].split()[:3] == ["web", "0/1", "Running"]


def test_a_hundred_thousand_are_listed_without_a_look_into_each() -> None:
    world = World()
    stored = Stored(Key("pods", "default", "web"), 7, encode(pod()))
    world.heard(UP)
    begun = time.process_time()
    for _ in range(10_000):
        world.statuses.shown(stored)
    assert time.process_time() - begun < 0.5, "some 4 us each"
