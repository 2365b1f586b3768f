"""Kubernetes' own client libraries for Python against the API: kubernetes, kubernetes_asyncio and lightkube.

List and watch with a restart from a version, 410 Gone, bookmarks, conflicts, an informer, the dynamic client,
server-side apply, pages and statuses.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes
import kubernetes_asyncio
import lightkube
import pytest
import yaml
from kubernetes.dynamic import DynamicClient
from kubernetes.dynamic.exceptions import ConflictError
from kubernetes.informer import informer as informers
from lightkube.config.kubeconfig import KubeConfig
from lightkube.core.exceptions import ApiError
from lightkube.generic_resource import create_namespaced_resource
from lightkube.models.core_v1 import ServicePort, ServiceSpec
from lightkube.models.meta_v1 import ObjectMeta
from lightkube.resources.core_v1 import Service
from lightkube.types import CascadeType, PatchType

from fairlead.control.api import ControlApi
from tests.control.kubectl import config_text
from tests.control.serving import VIRTUAL_SERVICES, Client, api_on, service, store_in, virtual_service

pytestmark = pytest.mark.asyncio
ISTIO = ("networking.istio.io", "v1", "default", "virtualservices")
VirtualService = create_namespaced_resource("networking.istio.io", "v1", "VirtualService", "virtualservices")


@contextlib.asynccontextmanager
async def serving(folder: Path, log_entries: int = 0) -> AsyncIterator[tuple[ControlApi, Client]]:
    async with store_in(folder) as store, api_on(store) as pair:
        if log_entries:
            store.memory.log._entries_max = log_entries
        yield pair


def plain(url: str) -> Any:
    """kubernetes' client for a URL."""
    made = kubernetes.client.Configuration()
    made.host = url
    return kubernetes.client.ApiClient(made)


async def in_thread(work: Callable[..., Any], *arguments: Any, **more: Any) -> Any:
    """A blocking client must not hold up the loop that the API runs in."""
    return await asyncio.wait_for(asyncio.to_thread(work, *arguments, **more), 30)


# --- kubernetes -------------------------------------------------------------------------------------------------------


async def test_typed_and_custom_objects_are_made_listed_in_pages_and_conflict(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):

        def work() -> None:
            core, custom = kubernetes.client.CoreV1Api(api), kubernetes.client.CustomObjectsApi(api)
            for name in ("a", "b", "c"):
                core.create_namespaced_service("default", service(name))
            page = core.list_namespaced_service("default", limit=2)
            assert [one.metadata.name for one in page.items] == ["a", "b"]
            assert page.metadata.remaining_item_count == 1
            core.create_namespaced_service("default", service("bb"))
            rest = core.list_namespaced_service("default", limit=2, _continue=page.metadata._continue)
            assert [one.metadata.name for one in rest.items] == ["c"], "of the moment of the first page"
            made = custom.create_namespaced_custom_object(*ISTIO[:3], ISTIO[3], virtual_service("web"))
            assert made["metadata"]["generation"] == 1
            stale = dict(made, metadata=dict(made["metadata"], labels={"a": "b"}))
            custom.patch_namespaced_custom_object(*ISTIO, "web", {"spec": {"hosts": ["other"]}})
            with pytest.raises(kubernetes.client.ApiException) as refused:
                custom.replace_namespaced_custom_object(*ISTIO, "web", stale)
            assert (refused.value.status, "the object has been modified" in refused.value.body) == (409, True)
            custom.patch_namespaced_custom_object_status(*ISTIO, "web", {"status": {"mine": 1}})
            found = custom.get_namespaced_custom_object(*ISTIO, "web")
            assert (found["metadata"]["generation"], found["status"]) == (2, {"mine": 1})
            trial = core.create_namespaced_service("default", service("trial"), dry_run="All")
            assert trial.metadata.uid and len(core.list_namespaced_service("default").items) == 4
            named = core.create_namespaced_service("default", {**service("x"), "metadata": {"generateName": "x-"}})
            assert named.metadata.name.startswith("x-") and len(named.metadata.name) == 7
            core.delete_collection_namespaced_service("default")
            assert core.list_namespaced_service("default").items == []

        with plain(client.url) as api:
            await in_thread(work)


async def test_a_watch_starts_again_where_it_was_and_says_when_that_is_too_long_ago(tmp_path: Path) -> None:
    async with serving(tmp_path, log_entries=8) as (_, client):

        def follow(version: str, count: int) -> list[tuple[str, str, str]]:
            seen = []
            core = kubernetes.client.CoreV1Api(api)
            watch = kubernetes.watch.Watch()
            for event in watch.stream(core.list_namespaced_service, "default", resource_version=version,
                                      timeout_seconds=10):  # fmt: skip
                meta = event["object"].metadata
                seen.append((event["type"], meta.name, meta.resource_version))
                if len(seen) == count:
                    watch.stop()
            return seen

        with plain(client.url) as api:
            listed = await client.get("/api/v1/namespaces/default/services")
            start = listed["metadata"]["resourceVersion"]
            for name in ("a", "b"):
                await client.post("/api/v1/namespaces/default/services", service(name))
            await client.delete("/api/v1/namespaces/default/services/a")
            first = await in_thread(follow, start, 2)
            assert [one[:2] for one in first] == [("ADDED", "a"), ("ADDED", "b")]
            rest = await in_thread(follow, first[-1][2], 1)
            assert [one[:2] for one in rest] == [("DELETED", "a")]
            for number in range(30):
                await client.post("/api/v1/namespaces/default/services", service(f"s{number}"))
            with pytest.raises(kubernetes.client.ApiException) as gone:
                await in_thread(follow, start, 1)
            assert gone.value.status == 410 and "too old resource version" in gone.value.reason


async def test_an_informer_keeps_up_through_410_and_what_was_deleted_meanwhile(tmp_path: Path) -> None:
    async with serving(tmp_path, log_entries=8) as (api_server, client):
        with plain(client.url) as api:
            core = kubernetes.client.CoreV1Api(api)
            informer = informers.SharedInformer(core.list_namespaced_service, namespace="default")
            changed = threading.Event()
            told: list[tuple[str, str]] = []

            def tell(kind: str) -> Callable[[Any], None]:
                def take(one: Any) -> None:
                    told.append((kind, one.metadata.name))
                    changed.set()

                return take

            for kind in (informers.ADDED, informers.MODIFIED, informers.DELETED):
                informer.add_event_handler(kind, tell(kind))

            async def until(condition: Callable[[], bool]) -> None:
                async with asyncio.timeout(20):
                    while not condition():
                        changed.clear()
                        if not condition():
                            await asyncio.to_thread(changed.wait, 1)

            await client.post("/api/v1/namespaces/default/services", service("a"))
            informer.start()
            try:
                await until(lambda: (informers.ADDED, "a") in told)
                await client.post("/api/v1/namespaces/default/services", service("b"))
                await until(lambda: (informers.ADDED, "b") in told)
                await client.patch("/api/v1/namespaces/default/services/b", {"metadata": {"labels": {"x": "y"}}})
                await until(lambda: (informers.MODIFIED, "b") in told)
                await client.delete("/api/v1/namespaces/default/services/a")
                await until(lambda: (informers.DELETED, "a") in told)
                assert sorted(one.metadata.name for one in informer.cache.list()) == ["b"]
                assert api_server.hub.count == 1, "one watch, however much happens"
            finally:
                await asyncio.to_thread(informer.stop)


async def test_the_dynamic_client_finds_kinds_and_applies_on_the_server(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):

        def work() -> None:
            dynamic = DynamicClient(api)
            rules = dynamic.resources.get(api_version="networking.istio.io/v1", kind="VirtualService")
            assert (rules.name, rules.namespaced, "vs" in rules.short_names) == ("virtualservices", True, True)
            body = virtual_service("web")
            rules.server_side_apply(body, namespace="default", field_manager="one")
            other = virtual_service("web", host="other")
            with pytest.raises(ConflictError) as refused:
                rules.server_side_apply(other, namespace="default", field_manager="two")
            assert 'conflict with \\"one\\"' in str(refused.value.body)
            made = rules.server_side_apply(other, namespace="default", field_manager="two", force_conflicts=True)
            assert made.spec.hosts == ["other"]
            assert {one.manager for one in made.metadata.managedFields} >= {"two"}
            assert [one.metadata.name for one in rules.get(namespace="default").items] == ["web"]
            rules.delete("web", "default")
            assert rules.get(namespace="default").items == []

        with plain(client.url) as api:
            await in_thread(work)


async def test_both_event_apis_show_the_same_events(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):

        def work() -> None:
            models = kubernetes.client
            core, events = models.CoreV1Api(api), models.EventsV1Api(api)
            about = models.V1ObjectReference(kind="Service", name="web", namespace="default", api_version="v1")
            event = models.CoreV1Event(metadata={"name": "e"}, involved_object=about, reason="Seen", message="once",
                                       type="Normal", count=3, event_time=datetime.now(UTC))  # fmt: skip
            core.create_namespaced_event("default", event)
            (new,) = events.list_namespaced_event("default", field_selector="regarding.name=web").items
            assert (new.note, new.regarding.name, new.deprecated_count) == ("once", "web", 3)
            events.patch_namespaced_event("e", "default", {"note": "twice"})
            assert core.read_namespaced_event("e", "default").message == "twice"
            models_event = models.EventsV1Event(
                metadata={"name": "f"}, regarding=models.V1ObjectReference(kind="Service", name="api"), note="new",
                reason="Seen", type="Normal", event_time=datetime.now(UTC),
            )  # fmt: skip
            events.create_namespaced_event("default", models_event)
            (old,) = core.list_namespaced_event("default", field_selector="involvedObject.name=api").items
            assert old.message == "new"

        with plain(client.url) as api:
            await in_thread(work)


# --- kubernetes_asyncio -----------------------------------------------------------------------------------------------


async def test_bookmarks_and_the_initial_list_come_over_a_watch(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        made = kubernetes_asyncio.client.Configuration()
        made.host = client.url
        async with kubernetes_asyncio.client.ApiClient(made) as api:
            custom = kubernetes_asyncio.client.CustomObjectsApi(api)
            await custom.create_namespaced_custom_object(*ISTIO, virtual_service("web"))
            core = kubernetes_asyncio.client.CoreV1Api(api)
            await core.create_namespaced_service("default", service("web"))
            seen = []
            watch = kubernetes_asyncio.watch.Watch()
            async with asyncio.timeout(20), watch.stream(
                core.list_namespaced_service, "default", send_initial_events=True, allow_watch_bookmarks=True,
                resource_version_match="NotOlderThan", timeout_seconds=10,
            ) as stream:  # fmt: skip
                async for event in stream:
                    raw = event["raw_object"]["metadata"]
                    seen.append((event["type"], raw.get("name"), raw.get("annotations")))
                    if event["type"] == "BOOKMARK":
                        await core.delete_namespaced_service("web", "default")
                    if event["type"] == "DELETED":
                        break
            assert seen[0][:2] == ("ADDED", "web")
            assert seen[1] == ("BOOKMARK", None, {"k8s.io/initial-events-end": "true"})
            assert seen[2][:2] == ("DELETED", "web")
            listed = await custom.list_namespaced_custom_object(*ISTIO)
            assert [one["metadata"]["name"] for one in listed["items"]] == ["web"]
            await watch.close()


# --- lightkube --------------------------------------------------------------------------------------------------------


async def test_lightkube_applies_watches_waits_and_deletes(tmp_path: Path) -> None:
    async with serving(tmp_path) as (_, client):
        config = KubeConfig.from_dict(yaml.safe_load(config_text(client.url)))
        async with lightkube.AsyncClient(config=config.get(), field_manager="light") as light:
            rule = VirtualService(metadata=ObjectMeta(name="web"), spec=virtual_service("web")["spec"])
            made = await light.apply(rule)
            assert made.spec["hosts"] == ["web"]
            with pytest.raises(ApiError) as refused:
                other = VirtualService(metadata=ObjectMeta(name="web"), spec={**rule.spec, "hosts": ["x"]})
                await light.apply(other, field_manager="other")
            assert refused.value.status.code == 409
            events = light.watch(VirtualService, namespace="default", resource_version=made.metadata.resourceVersion)
            change = {"metadata": {"labels": {"a": "b"}}}
            await light.patch(VirtualService, "web", change, patch_type=PatchType.MERGE)
            async with asyncio.timeout(20):
                kind, seen = await anext(events)
            assert (kind, seen.metadata.labels) == ("MODIFIED", {"a": "b"})
            status = {"status": {"conditions": [{"type": "Reconciled", "status": "True"}]}}
            await light.patch(VirtualService.Status, "web", status, patch_type=PatchType.MERGE)
            done = await light.wait(VirtualService, "web", for_conditions=["Reconciled"])
            assert done.metadata.name == "web"
            for name in ("a", "b", "c"):
                spec = ServiceSpec(ports=[ServicePort(port=80)])
                await light.create(Service(metadata=ObjectMeta(name=name, labels={"n": name}), spec=spec))
            assert [one.metadata.name async for one in light.list(Service, chunk_size=1)] == ["a", "b", "c"]
            assert [one.metadata.name async for one in light.list(Service, labels={"n": ["a", "c"]})] == ["a", "c"]
            await light.delete(Service, "a", cascade=CascadeType.FOREGROUND)
            await light.deletecollection(Service)
            assert [one async for one in light.list(Service)] == []


# --- forms, for any client --------------------------------------------------------------------------------------------


async def test_metadata_alone_and_tables_are_told_apart_from_objects(tmp_path: Path) -> None:
    part, form = "application/json;as=PartialObjectMetadata%s;g=meta.k8s.io;v=v1", "application/json;as=Table;g=%s;v=v1"
    async with serving(tmp_path) as (_, client):
        await client.post(VIRTUAL_SERVICES, virtual_service("web"))
        listed = await client.get(VIRTUAL_SERVICES, Accept=part % "List")
        assert listed["kind"] == "PartialObjectMetadataList" and "spec" not in listed["items"][0]
        one = await client.get(f"{VIRTUAL_SERVICES}/web", Accept=part % "")
        assert (one["kind"], one["metadata"]["name"], "spec" in one) == ("PartialObjectMetadata", "web", False)
        table = await client.get(f"{VIRTUAL_SERVICES}?includeObject=Object", Accept=form % "meta.k8s.io")
        assert [column["name"] for column in table["columnDefinitions"]][-3:] == ["Sidecars", "Age", "Message"]
        assert table["rows"][0]["object"]["spec"]["hosts"] == ["web"]


async def test_an_unknown_field_is_refused_warned_about_or_dropped_as_asked(tmp_path: Path) -> None:
    body = virtual_service("web")
    body["spec"]["frob"] = 1
    async with serving(tmp_path) as (_, client):
        refused = await client.post(f"{VIRTUAL_SERVICES}?fieldValidation=Strict", body, 400)
        assert 'strict decoding error: unknown field "spec.frob"' in refused["message"]
        for how, warned in (("Warn", True), ("Ignore", False)):
            url = f"{client.url}{VIRTUAL_SERVICES}?fieldValidation={how}&dryRun=All"
            async with client.session.post(url, json=body) as answer:
                assert answer.status == 201
                told = answer.headers.getall("Warning", [])
                assert any('299 - "unknown field \\"spec.frob\\"' in one for one in told) is warned
                assert "frob" not in (await answer.json())["spec"]
