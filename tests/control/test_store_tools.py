"""Copying, backing up and restoring stores: everything, at the same revisions, or nothing."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.revocations import Entry, write_of
from fairlead.control.store import Cause, Key, Store, StoreError, Write
from fairlead.control.store_tools import fill, read_file, read_store, write_file
from tests.control.storages import storages

pytestmark = pytest.mark.asyncio


@pytest.fixture(scope="module")
def makers(tmp_path_factory: Any) -> Iterator[dict[str, Any]]:
    with (
        storages("sqlite", tmp_path_factory.mktemp("sqlite")) as sqlite,
        storages("etcd", tmp_path_factory.mktemp("etcd")) as etcd,
        storages("consul", tmp_path_factory.mktemp("consul")) as consul,
    ):
        yield {"sqlite": sqlite, "etcd": etcd, "consul": consul}


def body(name: str, value: Any) -> dict[str, Any]:
    return {"metadata": {"name": name}, "value": value}


async def fill_with_a_life(store: Store) -> None:
    for n in range(70):
        key = Key("services", "default", f"a{n % 9}")
        await store.write([Write(key, body(key.name, n))], Cause("ann", f"because {n}", 1e9 + n))
    await store.write([Write(Key("services", "default", "a3"), None)], Cause("bob", "", 1e9 + 70))
    await store.write([Write(Key("workloadtokens.internal.fairlead.dev", "", "t"), body("t", "digest"))])
    await store.write([write_of(Entry("account", "web", "shop", "ann", "stolen"))])


def all_of(store: Store) -> Any:
    memory = store.memory
    objects = {name: memory.all(name) for name in memory.resources()}
    return memory.revision, objects, list(memory.log.after(0))


@pytest.mark.parametrize(
    ("source", "destination"),
    [("sqlite", "etcd"), ("etcd", "consul"), ("consul", "sqlite"), ("sqlite", "sqlite"), ("sqlite", "consul")],
)
async def test_a_copy_has_everything_at_the_same_revisions_and_goes_on_from_there(
    makers: dict[str, Any], source: str, destination: str
) -> None:
    one, two = makers[source](), makers[destination]()
    async with one.open() as store:
        await fill_with_a_life(store)
        before = all_of(store)
        content = await read_store(one.url, {})  # while it is in use
    await fill(two.url, content, {}, False)
    async with two.open() as store:
        assert all_of(store) == before
        assert store.memory.all_at("services", None, 30)
        stored = store.memory.get(Key("services", "default", "a1"))
        assert stored is not None
        changes = await store.write([Write(stored.key, body("a1", "new"), stored.version)])
        assert changes[0].revision == before[0] + 1


@pytest.mark.parametrize("kind", ["sqlite", "etcd", "consul"])
async def test_what_is_not_empty_is_replaced_only_by_force(makers: dict[str, Any], kind: str) -> None:
    one, two = makers["sqlite"](), makers[kind]()
    async with one.open() as store:
        await fill_with_a_life(store)
        before = all_of(store)
    async with two.open() as store:
        for n in range(5):
            await store.write([Write(Key("pods", "default", f"old{n}"), body(f"old{n}", 0))])
    content = await read_store(one.url, {})
    with pytest.raises(StoreError, match=r"not empty.*--force"):
        await fill(two.url, content, {}, False)
    await fill(two.url, content, {}, True)
    async with two.open() as store:
        assert all_of(store) == before


async def test_a_backup_is_for_its_owner_alone_and_comes_back_whole(makers: dict[str, Any], tmp_path: Path) -> None:
    one, two, file = makers["etcd"](), makers["sqlite"](), tmp_path / "backup"
    async with one.open() as store:
        await fill_with_a_life(store)
        before = all_of(store)
    write_file(file, await read_store(one.url, {}))
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    await fill(two.url, read_file(file), {}, False)
    async with two.open() as store:
        assert all_of(store) == before


async def test_a_backup_that_is_cut_off_or_something_else_is_refused(makers: dict[str, Any], tmp_path: Path) -> None:
    one, file = makers["sqlite"](), tmp_path / "backup"
    async with one.open() as store:
        await fill_with_a_life(store)
    write_file(file, await read_store(one.url, {}))
    whole = file.read_bytes()
    for damaged in (whole[: len(whole) // 2], whole[:-9], b"hello", b"", b'{"fairlead": "store"}'):
        file.write_bytes(damaged)
        with pytest.raises(StoreError, match="not a whole backup"):
            read_file(file)


async def test_a_store_with_control_planes_on_it_is_not_replaced(makers: dict[str, Any], monkeypatch: Any) -> None:
    one, two = makers["sqlite"](), makers["etcd"]()
    async with one.open() as store:
        await fill_with_a_life(store)
    content = await read_store(one.url, {})
    async with two.open() as store:
        beats = iter(range(100))

        async def beat(_seconds: float) -> None:
            await store.backend.put("live/x", str(next(beats)).encode())

        await beat(0)
        monkeypatch.setattr("fairlead.control.store_tools.asyncio.sleep", beat)
        with pytest.raises(StoreError, match="stop them first"):
            await fill(two.url, content, {}, True)
        monkeypatch.undo()


async def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="no such file"):
        await read_store(f"sqlite:{tmp_path}/none.db", {})


async def test_a_damaged_file_is_replaced_by_force_while_nobody_can_open_it(
    makers: dict[str, Any], tmp_path: Path
) -> None:
    one, two = makers["sqlite"](), makers["sqlite"]()
    async with one.open() as store:
        await fill_with_a_life(store)
        wanted = all_of(store)
    content = await read_store(one.url, {})
    broken = tmp_path / "broken.db"
    broken.write_bytes(b"garbage" * 1000)
    with pytest.raises(StoreError, match="not a database"):
        await fill(f"sqlite:{broken}", content, {}, False)
    await fill(f"sqlite:{broken}", content, {}, True)
    assert await read_store(f"sqlite:{broken}", {}) == content
    async with two.open():
        with pytest.raises(StoreError, match="another process has it open"):
            await fill(two.url, content, {}, True)
    await fill(two.url, content, {}, True)
    async with two.open() as store:
        assert all_of(store) == wanted
