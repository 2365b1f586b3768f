"""A switch to STRICT is judged by the ledgers of all control planes of a store, also of those that have ended."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.mtls_api import MtlsApi
from fairlead.control.plaintext import Forgotten, PlaintextLedger, Report
from fairlead.control.shared_plaintext import FOLDER, SharedPlaintext
from fairlead.control.store import Store
from fairlead.control.store_shared import SharedStore
from tests.control.serving import api_on
from tests.control.storages import storages
from tests.control.test_mtls_api import NOW, PEERS, RESOURCES, SNAPSHOT, policy
from tests.e2e.roles import until

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module", params=["etcd", "consul"])
def new(request: Any, tmp_path_factory: Any) -> Iterator[Any]:
    with storages(request.param, tmp_path_factory.mktemp(request.param)) as make:
        yield make


class Plane:
    def __init__(self, store: Store, name: str) -> None:
        assert isinstance(store, SharedStore)
        self.ledger = PlaintextLedger()
        self.changes = 0
        self.shared = SharedPlaintext(store, name, self.ledger, self.changed, lambda: NOW)

    def changed(self) -> None:
        self.changes += 1

    def came(self, source: str, ago_s: float = 30.0) -> None:
        self.ledger.take("shop/web-1", [Report(source, 80, 4, 0, ago_s, ago_s)], SNAPSHOT, NOW)

    def known(self) -> set[str]:
        return {entry.address for ledger in (self.ledger, *self.shared.ledgers()) for entry in ledger.entries()}


@contextlib.asynccontextmanager
async def planes(new: Any) -> AsyncIterator[tuple[Plane, Plane, Store]]:
    storage = new()
    async with storage.open() as first, storage.open() as second:
        pair = Plane(first, "one"), Plane(second, "two")
        yield *pair, first
        for plane in pair:
            plane.shared.close()


async def test_a_ledger_that_was_taken_for_ended_is_written_again(new: Any) -> None:
    async with planes(new) as (one, two, store):
        one.came("10.0.0.1")
        await one.shared.beat()
        assert isinstance(store, SharedStore)
        await store.backend.delete([FOLDER + "one"])
        for plane in (one, one, two):
            await plane.shared.beat()
        assert two.known() == {"10.0.0.1"}


async def test_what_one_has_seen_the_others_know_and_forget_together(new: Any) -> None:
    async with planes(new) as (one, two, _):
        one.came("10.0.0.1")
        two.came("10.0.0.2")
        assert two.shared.unknown
        for plane in (one, two, one):
            await plane.shared.beat()
        assert one.known() == two.known() == {"10.0.0.1", "10.0.0.2"}
        assert not two.shared.unknown
        assert await one.shared.forget(Forgotten("shop", "web-1", "10.0.0.2", NOW)) == 1

        async def heard() -> bool:
            return two.known() == {"10.0.0.1"}

        await until("the other to forget", heard)
        assert (one.known(), two.changes) == ({"10.0.0.1"}, 1)
        await one.shared.beat()  # what the other has written before it heard of it counts no more
        assert one.known() == {"10.0.0.1"}
        two.ledger.take("shop/web-1", [Report("10.0.0.2", 80, 1, 0, 0.0, -1.0)], SNAPSHOT, NOW)
        await two.shared.beat()
        await one.shared.beat()
        assert one.known() == {"10.0.0.1", "10.0.0.2"}  # who comes again is there again


async def test_strict_is_refused_for_who_came_to_a_control_plane_that_has_ended(new: Any, tmp_path: Path) -> None:
    async with planes(new) as (one, two, store), api_on(store) as (api, client):
        mtls = MtlsApi(tmp_path / "x.json", lambda *_: None, lambda: api.objects(RESOURCES), lambda: SNAPSHOT,
                       lambda *_: None, lambda: NOW)  # fmt: skip
        api.operations.guards.append(mtls.guard)
        mtls.shared = one.shared
        refused = await client.post(PEERS, policy("STRICT"), 403)
        assert "is not known" in refused["message"] and "try again" in refused["message"]
        await client.post(PEERS, policy("PERMISSIVE"))  # which refuses nobody
        two.came("10.0.0.2")
        await two.shared.beat()
        two.shared.close()  # it ends
        await one.shared.beat()
        strict = {"spec": {"mtls": {"mode": "STRICT"}}}
        refused = await client.patch(f"{PEERS}/default", strict, code=403)
        assert "shop/web-1 port 80: 10.0.0.2, 4 connections, last 30 s ago" in refused["message"]
        await one.shared.forget(Forgotten("shop", at=NOW))
        await client.patch(f"{PEERS}/default", strict)


async def test_what_cannot_be_read_or_is_too_much_is_not_taken_for_nothing(new: Any) -> None:
    async with planes(new) as (one, two, store):
        assert isinstance(store, SharedStore)
        two.came("10.0.0.2", 25 * 86400.0)
        await two.shared.beat()
        await one.shared.beat()
        assert (one.known(), one.shared.unknown) == ({"10.0.0.2"}, "")
        await store.backend.put(f"{FOLDER}old", b"of another version")
        await one.shared.beat()
        assert "of another version" in one.shared.unknown
        await store.backend.delete([f"{FOLDER}old"])
        await one.shared.beat()
        assert one.shared.unknown == ""
