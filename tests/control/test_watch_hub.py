"""Watches: what is there, what happens, what is seen through a selector, and what a client missed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.control import watch_hub
from fairlead.control.api_request import Form, Query, Target
from fairlead.control.store import CompactedError
from tests.control.serving import SERVICES, Client, api_in, api_on, service, store_in

pytestmark = pytest.mark.asyncio


class Watch:
    """One open watch; `next()` waits for its next event."""

    def __init__(self, lines: Any) -> None:
        self._lines = lines

    async def next(self) -> tuple[str, Any]:
        line = await asyncio.wait_for(self._lines.readline(), 10)
        assert line, "the watch has ended"
        event = json.loads(line)
        return event["type"], event["object"]

    async def name(self) -> tuple[str, str]:
        kind, shown = await self.next()
        return kind, shown["metadata"]["name"]

    async def ended(self) -> bool:
        rest: bytes = await asyncio.wait_for(self._lines.read(), 10)
        return rest == b""


@contextlib.asynccontextmanager
async def watching(client: Client, query: str, path: str = SERVICES, **headers: str) -> AsyncIterator[Watch]:
    async with client.session.get(f"{client.url}{path}?watch=true&{query}", headers=headers) as answer:
        assert answer.status == 200, await answer.text()
        yield Watch(answer.content)


async def test_a_watch_shows_what_is_there_and_then_what_happens(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.post(SERVICES, service("a"))
        async with watching(client, "") as watch:
            assert await watch.name() == ("ADDED", "a")
            await client.post(SERVICES, service("b"))
            assert await watch.name() == ("ADDED", "b")
            made = await client.patch(f"{SERVICES}/a", {"metadata": {"labels": {"x": "y"}}})
            kind, shown = await watch.next()
            assert (kind, shown) == ("MODIFIED", made)
            await client.delete(f"{SERVICES}/a")
            kind, shown = await watch.next()
            assert kind == "DELETED"
            assert int(shown["metadata"]["resourceVersion"]) > int(made["metadata"]["resourceVersion"])


async def test_a_watch_goes_on_from_a_version_even_over_a_restart(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.post(SERVICES, service("a"))
        seen = (await client.get(SERVICES))["metadata"]["resourceVersion"]
        await client.post(SERVICES, service("b"))
        await client.delete(f"{SERVICES}/a")
    async with api_in(tmp_path) as (_, client), watching(client, f"resourceVersion={seen}") as watch:
        assert await watch.name() == ("ADDED", "b")
        assert await watch.name() == ("DELETED", "a")
        await client.post(SERVICES, service("c"))
        assert await watch.name() == ("ADDED", "c")


async def test_a_watch_ends_when_the_server_closes(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client), watching(client, "") as watch:
        closing = asyncio.ensure_future(api.close())
        assert await watch.ended()
        await closing


async def test_objects_come_and_go_as_a_selector_sees_them(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.post(SERVICES, service("a"))
        async with watching(client, "labelSelector=on%3Dyes") as watch:
            await client.patch(f"{SERVICES}/a", {"metadata": {"labels": {"on": "yes"}}})
            assert await watch.name() == ("ADDED", "a")
            await client.patch(f"{SERVICES}/a", {"metadata": {"labels": {"more": "x"}}})
            assert await watch.name() == ("MODIFIED", "a")
            await client.patch(f"{SERVICES}/a", {"metadata": {"labels": {"on": "no"}}})
            assert await watch.name() == ("DELETED", "a")
            await client.post(SERVICES, service("b", labels={"on": "yes"}))
            assert await watch.name() == ("ADDED", "b")


async def test_a_watch_sees_one_namespace_or_one_name_where_asked(tmp_path: Path) -> None:
    async with (
        api_in(tmp_path) as (_, client),
        watching(client, "fieldSelector=metadata.name%3Db") as one,
        watching(client, "", "/api/v1/services") as every,
    ):
        await client.post("/api/v1/namespaces/other/services", service("b"))
        await client.post(SERVICES, service("a"))
        await client.post(SERVICES, service("b"))
        assert await one.name() == ("ADDED", "b")
        assert [await every.name() for _ in range(3)] == [("ADDED", "b"), ("ADDED", "a"), ("ADDED", "b")]


async def test_a_version_that_is_too_old_or_from_another_life_is_gone(tmp_path: Path) -> None:
    async with store_in(tmp_path, log_entries=8) as store, api_on(store) as (_, client):
        for n in range(20):
            await client.post(SERVICES, service(f"s{n}"))
        for version in (1, 999):
            async with watching(client, f"resourceVersion={version}") as watch:
                kind, shown = await watch.next()
                assert kind == "ERROR"
                assert (shown["code"], shown["reason"]) == (410, "Expired")
                assert await watch.ended()


async def test_a_watch_that_falls_behind_the_log_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with store_in(tmp_path, log_entries=4) as store, api_on(store) as (api, client):
        stream = watch_hub.Stream(store.memory, watch_target(api), Query(resource_version="1"), Form(""), lambda: 0.0)
        for n in range(12):
            await client.post(SERVICES, service(f"s{n}"))
        with pytest.raises(CompactedError):
            stream.news()


def watch_target(api: Any) -> Target:
    resource = api.catalog.find("", "v1", "services")
    return Target(resource, "v1", "default")


async def test_a_watch_ends_after_its_time_with_a_bookmark(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.post(SERVICES, service("a"))
        async with watching(client, "timeoutSeconds=1&allowWatchBookmarks=true") as watch:
            assert await watch.name() == ("ADDED", "a")
            kind, shown = await watch.next()
            assert kind == "BOOKMARK"
            assert int(shown["metadata"]["resourceVersion"]) >= 2
            assert await watch.ended()


async def test_bookmarks_come_while_nothing_happens(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch_hub, "BOOKMARK_S", 0.05)
    async with api_in(tmp_path) as (_, client), watching(client, "allowWatchBookmarks=true") as watch:
        assert (await watch.next())[0] == "BOOKMARK"
        assert (await watch.next())[0] == "BOOKMARK"
        await client.post(SERVICES, service("a"))
        kinds = [(await watch.next())[0] for _ in range(3)]
        assert "ADDED" in kinds


async def test_the_end_of_the_initial_events_is_marked_where_asked(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.post(SERVICES, service("a"))
        query = "sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true"
        async with watching(client, query) as watch:
            assert await watch.name() == ("ADDED", "a")
            kind, shown = await watch.next()
            assert kind == "BOOKMARK"
            assert shown["metadata"]["annotations"] == {"k8s.io/initial-events-end": "true"}


async def test_a_watch_can_show_tables(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.post(SERVICES, service("a"))
        async with watching(client, "", Accept="application/json;as=Table;v=v1;g=meta.k8s.io") as watch:
            _, first = await watch.next()
            await client.post(SERVICES, service("b"))
            _, second = await watch.next()
            assert first["columnDefinitions"]
            assert second["columnDefinitions"] == []
            assert second["rows"][0]["cells"][0] == "b"


async def test_a_client_that_leaves_is_forgotten(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        async with watching(client, ""):
            assert api.hub.count == 1
        async with asyncio.timeout(10):
            while api.hub.count:
                await asyncio.sleep(0.01)


async def test_there_is_a_limit_to_watches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fairlead.control.api.WATCHES_MAX", 1)
    async with api_in(tmp_path) as (_, client), watching(client, ""):
        refused = await client.get(f"{SERVICES}?watch=true", 429)
        assert refused["details"]["retryAfterSeconds"] == 5
