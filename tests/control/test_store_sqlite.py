"""The embedded store: durable over kill -9, whole over a full disk, and one process at a time."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.store import Cause, ConflictError, Key, StoreError, StoreFullError, Write
from fairlead.control.store_sqlite import SqliteStore
from tests.control.serving import store_in

pytestmark = pytest.mark.asyncio


def key(name: str) -> Key:
    return Key("services", "default", name)


def body(name: str, value: Any = 0) -> dict[str, Any]:
    return {"metadata": {"name": name}, "value": value}


async def test_what_was_written_is_there_after_a_restart_with_its_log(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        for n in range(5):
            await store.write([Write(key("a"), body("a", n))])
        await store.write([Write(key("b"), body("b"))])
        await store.write([Write(key("b"), None)])
        before = store.memory.all("services"), store.memory.log.after(0)
    async with store_in(tmp_path) as store:
        assert store.memory.revision == 7
        assert (store.memory.all("services"), store.memory.log.after(0)) == before
        changes = await store.write([Write(key("a"), body("a", 9), expect=5)])
        assert changes[0].revision == 8


async def test_of_many_writers_at_once_exactly_one_wins_each_version(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        await store.write([Write(key("n"), body("n", 0))])

        async def add_one() -> int:
            tries = 0
            while True:
                tries += 1
                stored = store.memory.get(key("n"))
                assert stored is not None
                try:
                    await store.write([Write(key("n"), body("n", stored.object()["value"] + 1), stored.version)])
                except ConflictError:
                    continue
                return tries

        await asyncio.gather(*(add_one() for _ in range(40)))
        stored = store.memory.get(key("n"))
        assert stored is not None
        assert stored.object()["value"] == 40


async def test_nobody_else_can_open_a_store_in_use(tmp_path: Path) -> None:
    async with store_in(tmp_path):
        with pytest.raises(StoreError, match="another process has it open"):
            await SqliteStore.open(tmp_path / "store.db")
    async with store_in(tmp_path):
        pass


async def test_only_the_owner_can_read_the_file(tmp_path: Path) -> None:
    async with store_in(tmp_path):
        assert stat.S_IMODE((tmp_path / "store.db").stat().st_mode) == 0o600


async def test_a_file_that_is_no_store_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "store.db").write_bytes(b"not a database " * 100)
    with pytest.raises(StoreError, match=r"store\.db.*not a database"):
        await SqliteStore.open(tmp_path / "store.db")


async def test_a_folder_that_cannot_be_made_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file"):
        await SqliteStore.open(tmp_path / "file" / "store.db")


async def test_the_log_on_disk_is_compacted_with_the_one_in_memory(tmp_path: Path) -> None:
    async with store_in(tmp_path, log_entries=16) as store:
        for n in range(60):
            await store.write([Write(key("a"), body("a", n))])
    with sqlite3.connect(tmp_path / "store.db") as database:
        assert database.execute("SELECT count(*) FROM log").fetchone()[0] <= 20
    database.close()
    async with store_in(tmp_path, log_entries=16) as store:
        assert store.memory.revision == 60
        assert store.memory.log.floor >= 40
        assert [change.revision for change in store.memory.log.after(58)] == [59, 60]


async def test_a_full_disk_loses_nothing_and_reads_go_on_and_it_recovers(tmp_path: Path) -> None:
    async with store_in(tmp_path, pages_max=60) as store:
        accepted = []
        with pytest.raises(StoreFullError, match=r"full.*nothing was changed"):
            for n in range(100):
                await store.write([Write(key(f"a{n}"), body(f"a{n}", "x" * 10_000))])
                accepted.append(f"a{n}")
        assert len(accepted) > 3
        assert "full" in store.problem()
        assert "full" in await store.probe()
        assert [one.key.name for one in store.memory.all("services")] == sorted(accepted)
        await asyncio.get_running_loop().run_in_executor(store._thread, more_room, store)
        assert await store.probe() == ""
        await store.write([Write(key("later"), body("later"))])
        assert store.problem() == ""
    async with store_in(tmp_path) as store:
        assert [one.key.name for one in store.memory.all("services")] == sorted([*accepted, "later"])


def more_room(store: SqliteStore) -> None:
    assert store._database is not None
    store._database.execute("PRAGMA max_page_count=100000")


async def test_of_writes_that_share_a_commit_with_one_in_conflict_the_others_succeed(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        results = await asyncio.gather(
            store.write([Write(key("a"), body("a"), expect=0)]),
            store.write([Write(key("a"), body("a"), expect=0)]),
            store.write([Write(key("b"), body("b"), expect=0)]),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [list, ConflictError, list]


async def test_a_body_that_has_no_json_is_refused_and_harms_nobody_else(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        results = await asyncio.gather(
            store.write([Write(key("a"), body("a", object()))]),
            store.write([Write(key("b"), body("b"))]),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [StoreError, list]


async def test_a_closed_store_takes_nothing_and_what_waits_is_finished(tmp_path: Path) -> None:
    store = await SqliteStore.open(tmp_path / "store.db")
    waiting = asyncio.ensure_future(store.write([Write(key("a"), body("a"))]))
    await asyncio.sleep(0)
    await store.close()
    await waiting
    with pytest.raises(StoreError, match="closed"):
        await store.write([Write(key("b"), body("b"))])


WRITER = """
import asyncio, sys
from fairlead.control.store import Key, Write
from fairlead.control.store_sqlite import SqliteStore

async def main():
    store = await SqliteStore.open(sys.argv[1])
    async def one(lane):
        n = 0
        while True:
            name = f"{lane}-{n}"
            await store.write([Write(Key("services", "default", name), {"metadata": {"name": name}, "v": "x" * 2000})])
            sys.stdout.write(name + "\\n")
            sys.stdout.flush()
            n += 1
    await asyncio.gather(*(one(lane) for lane in range(4)))

asyncio.run(main())
"""


@pytest.mark.parametrize("told", [5, 60, 200])
async def test_nothing_accepted_is_lost_by_kill_9(tmp_path: Path, told: int) -> None:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", WRITER, str(tmp_path / "store.db")], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    accepted = [process.stdout.readline().strip() for _ in range(told)]
    os.kill(process.pid, signal.SIGKILL)
    accepted += process.stdout.read().split("\n")[:-1]  # what was told in the meantime counts as well
    process.wait()
    process.stdout.close()
    async with store_in(tmp_path) as store:
        assert set(accepted) <= {one.key.name for one in store.memory.all("services")}
        assert store.memory.revision >= len(accepted)
        assert (await store.write([Write(key("after"), body("after"), expect=0)]))[0].revision > len(accepted)


async def test_a_text_that_cannot_be_stored_leaves_the_store_writable(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        with pytest.raises(StoreError, match="surrogates"):
            await store.write([Write(key("a"), body("a", 1))], Cause("me", "\udcff"))
        assert store.memory.get(key("a")) is None
        await store.write([Write(key("a"), body("a", 2))], Cause("me", "again"))
    async with store_in(tmp_path) as store:
        stored = store.memory.get(key("a"))
        assert stored is not None and stored.object()["value"] == 2
