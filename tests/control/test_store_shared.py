"""What every store promises, on SQLite, a real etcd and a real Consul; and what only shared ones do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from fairlead.control.store import (
    Cause,
    Change,
    CompactedError,
    ConflictError,
    Key,
    Store,
    Stored,
    StoreError,
    StoreTooLargeError,
    StoreUnavailableError,
    Write,
)
from fairlead.control.store_entries import Entry, Head, entry_of
from fairlead.control.store_open import backend_of
from fairlead.control.store_shared import SharedStore, _Gap
from fairlead.registry.etcd_values import b64
from tests.control.storages import Storage, storages
from tests.e2e.roles import until
from tests.servers import Etcd, Server, consul, etcd, etcd_cluster, free_ports

pytestmark = pytest.mark.asyncio
New = Callable[[], Storage]


@pytest.fixture(scope="module", params=["sqlite", "etcd", "consul"])
def new(request: Any, tmp_path_factory: Any) -> Iterator[New]:
    with storages(request.param, tmp_path_factory.mktemp(request.param)) as make:
        yield make


@pytest.fixture(scope="module", params=["etcd", "consul"])
def shared(request: Any, tmp_path_factory: Any) -> Iterator[New]:
    with storages(request.param, tmp_path_factory.mktemp(request.param)) as make:
        yield make


def key(name: str, resource: str = "services") -> Key:
    return Key(resource, "default", name)


def body(name: str, value: Any = 0) -> dict[str, Any]:
    return {"metadata": {"name": name}, "value": value}


def value_of(store: Store, name: str) -> Any:
    stored = store.memory.get(key(name))
    return stored and stored.object()["value"]


async def test_what_was_written_is_there_after_a_restart_with_its_history(new: New) -> None:
    storage = new()
    async with storage.open() as store:
        for n in range(5):
            await store.write([Write(key("a"), body("a", n))], Cause("ann", f"try {n}"))
        await store.write([Write(key("b"), body("b"))])
        await store.write([Write(key("b"), None)])
        before = store.memory.all("services"), list(store.memory.log.after(0))
    async with storage.open() as store:
        assert store.memory.revision == 7
        assert (store.memory.all("services"), list(store.memory.log.after(0))) == before
        assert (before[1][2].cause.author, before[1][2].cause.reason) == ("ann", "try 2")
        changes = await store.write([Write(key("a"), body("a", 9), expect=5)])
        assert changes[0].revision == 8


async def test_a_write_that_expects_another_version_changes_nothing(new: New) -> None:
    async with new().open() as store:
        await store.write([Write(key("a"), body("a"), expect=0)])
        for expect in (0, 7):
            with pytest.raises(ConflictError):
                await store.write([Write(key("a"), body("a", 1), expect)])
        with pytest.raises(ConflictError):
            await store.write([Write(key("b"), body("b"), 0), Write(key("a"), None, expect=99)])
        with pytest.raises(ConflictError):
            await store.write([Write(key("none"), None)])
        assert [one.key.name for one in store.memory.all("services")] == ["a"]
        assert value_of(store, "a") == 0


async def test_of_many_writers_at_once_exactly_one_wins_each_version(new: New) -> None:
    async with new().open() as store:
        await store.write([Write(key("n"), body("n", 0))])
        await asyncio.gather(*(add_one(store) for _ in range(20)))
        assert value_of(store, "n") == 20


async def add_one(store: Store, name: str = "n") -> None:
    while True:
        stored = store.memory.get(key(name))
        assert stored is not None
        try:
            await store.write([Write(key(name), body(name, stored.object()["value"] + 1), stored.version)])
        except ConflictError:
            continue
        return


async def test_of_writes_that_share_a_commit_with_one_in_conflict_the_others_succeed(new: New) -> None:
    async with new().open() as store:
        results = await asyncio.gather(
            store.write([Write(key("a"), body("a"), expect=0)]),
            store.write([Write(key("a"), body("a"), expect=0)]),
            store.write([Write(key("b"), body("b"), expect=0)]),
            store.write([Write(key("c"), body("c", object()))]),
            return_exceptions=True,
        )
        assert [type(result) for result in results] == [list, ConflictError, list, StoreError]


async def test_a_group_of_hundreds_of_writes_happens_as_a_whole(new: New) -> None:
    storage = new()
    async with storage.open() as store:
        await store.write([Write(key(f"a{n}"), body(f"a{n}", "x" * 3000)) for n in range(300)])
        await store.write([Write(key(f"a{n}"), None) for n in range(299)])
    async with storage.open() as store:
        assert [one.key.name for one in store.memory.all("services")] == ["a299"]
        assert len(store.memory.all_at("services", None, 300)) == 300


async def test_an_object_of_a_megabyte_is_kept_where_it_can_be_compressed(new: New) -> None:
    storage = new()
    async with storage.open() as store:
        await store.write([Write(key("a"), body("a", "text " * 200_000))])
        await store.write([Write(key("a"), body("a", "text " * 200_001))])
    async with storage.open() as store:
        assert value_of(store, "a") == "text " * 200_001


async def test_an_object_too_large_for_the_storage_is_refused_with_the_limit(shared: New) -> None:
    import random

    async with shared().open() as store:
        text = random.Random(1).randbytes(1_200_000).hex()
        with pytest.raises(StoreTooLargeError, match=r"default/a is too large .*the limit is \d+"):
            await store.write([Write(key("a"), body("a", text))])
        await store.write([Write(key("b"), body("b"))])


async def test_the_history_is_bounded_and_what_is_older_is_told(new: New) -> None:
    storage = new()
    async with storage.open(log_entries=16) as store:
        for n in range(60):
            await store.write([Write(key("a"), body("a", n))])
        assert store.memory.log.floor >= 40
        with pytest.raises(CompactedError):
            store.memory.log.after(1)
    async with storage.open(log_entries=16) as store:
        assert [change.revision for change in store.memory.log.after(58)] == [59, 60]
        assert value_of(store, "a") == 59


async def test_a_closed_store_takes_nothing_and_what_waits_is_finished(new: New) -> None:
    storage = new()
    async with storage.open() as store:
        waiting = asyncio.ensure_future(store.write([Write(key("a"), body("a"))]))
        await asyncio.sleep(0)
        await store.close()
        await waiting
        with pytest.raises(StoreError, match="closed"):
            await store.write([Write(key("b"), body("b"))])


# --- several control planes -----------------------------------------------------------------------------------------


async def test_what_one_writes_the_other_hears_at_the_same_revision(shared: New) -> None:
    storage = shared()
    async with storage.open() as one, storage.open() as two:
        heard: list[Change] = []
        two.memory.subscribe(lambda changes: heard.extend(changes))
        written = await one.write([Write(key("a"), body("a"))], Cause("ann", "because"))
        await until("the change", lambda: as_async(bool(heard)))
        assert heard == written
        assert heard[0].cause.reason == "because"
        assert two.memory.all("services") == one.memory.all("services")


async def as_async(value: Any) -> Any:
    return value


async def test_compare_and_swap_holds_over_two_control_planes(shared: New) -> None:
    storage = shared()
    async with storage.open() as one, storage.open() as two:
        await one.write([Write(key("n"), body("n", 0))])
        await two.sync()
        await asyncio.gather(*(add_one(store) for store in (one, two) for _ in range(10)))
        await one.sync()
        await two.sync()
        assert value_of(one, "n") == value_of(two, "n") == 20
        assert list(one.memory.log.after(0)) == list(two.memory.log.after(0))


async def test_a_client_goes_to_the_other_control_plane_with_the_version_it_has_just_seen(shared: New) -> None:
    storage = shared()
    async with storage.open() as one, storage.open() as two:
        version = 0
        for n in range(20):  # never a conflict, however late the watch is
            store = (one, two)[n % 2]
            version = (await store.write([Write(key("a"), body("a", n), expect=version)]))[0].revision
        assert version == 20


async def test_what_is_controls_own_reaches_the_others_and_stays_out_of_the_history(new: New) -> None:
    storage = new()
    async with storage.open() as store:
        await store.write([Write(key("t", "tokens.internal.fairlead.dev"), body("t"))])
        await store.write([Write(key("a"), body("a"))])
        assert [change.key.name for change in store.memory.log.after(0)] == ["a"]
    async with storage.open() as store:
        assert store.memory.get(key("t", "tokens.internal.fairlead.dev")) is not None
        assert [change.key.name for change in store.memory.log.after(0)] == ["a"]


async def test_a_storage_put_back_to_an_earlier_state_is_noticed_and_read_anew(shared: New) -> None:
    """As after `etcdctl snapshot restore`: the head is another one, and so is what follows."""
    storage = shared()
    async with storage.open() as one:
        assert isinstance(one, SharedStore)
        await one.write([Write(key("a"), body("a", 1))])
        await one.write([Write(key("b"), body("b", 1))])
        before, saved = await one.backend.head(), await one.backend.listed("")
        await one.write([Write(key("a"), body("a", 2))])
        await one.write([Write(key("c"), body("c", 2))])
        heard: list[Change] = []
        one.memory.subscribe(lambda changes: heard.extend(changes))
        life = one.memory.life
        await put_back(storage, before, saved)
        await until("the other state", lambda: as_async(one.memory.life > life))
        assert (value_of(one, "a"), value_of(one, "b"), value_of(one, "c")) == (1, 1, None)
        assert {(change.key.name, change.after is None) for change in heard} == {("a", False), ("c", True)}
        assert (await one.write([Write(key("d"), body("d"))]))[0].revision == 3


async def test_a_read_that_must_be_current_sees_another_state_as_long_as_the_one_it_knows(shared: New) -> None:
    storage = shared()
    async with storage.open() as one:
        assert isinstance(one, SharedStore)
        await one.write([Write(key("a"), body("a", 1))])
        before, saved = await one.backend.head(), await one.backend.listed("")
        await one.write([Write(key("a"), body("a", 2))])
        assert one._following is not None
        one._following.cancel()  # what it is told does not come in time
        await put_back(storage, before, saved)
        async with storage.open() as two:
            await two.write([Write(key("a"), body("a", 3))])
            assert two.memory.revision == one.memory.revision
        await one.sync()
        assert value_of(one, "a") == 3


class Follower:
    """What a control plane makes of commits that it is told of, without a storage."""

    def __init__(self) -> None:
        self.store = SharedStore(SimpleNamespace(url="none"))
        self.take(entry(1), entry(2))

    def take(self, *entries: Entry, head: Head | None = None) -> str:
        """What memory is at then; `gap` where the log does not lead there."""
        try:
            self.store._take(head, entries)
        except _Gap:
            return "gap"
        return f"{self.store._head.seq}{self.store._head.id}@{self.store.memory.revision}"


def entry(seq: int, id: str = "", previous: str = "") -> Entry:
    stored = Stored(key(f"k{seq}"), seq, msgspec.json.encode(body(f"k{seq}", seq)))
    head = Head(seq - 1, previous or (f"id{seq - 1}" if seq > 1 else ""), seq - 1)
    return entry_of(head, id or f"id{seq}", [Change(seq, stored.key, None, stored, Cause())])


@pytest.mark.parametrize(
    ("entries", "head", "becomes"),
    [
        ((), None, "2id2@2"),
        ((), Head(2, "id2", 2), "2id2@2"),
        ((entry(3),), Head(3, "id3", 3), "3id3@3"),
        ((entry(1), entry(2), entry(3), entry(4)), None, "4id4@4"),
        ((entry(4),), None, "gap"),
        ((entry(3, previous="other"),), None, "gap"),
        ((entry(2, id="other"),), None, "gap"),
        ((entry(1, id="other"), entry(2), entry(3)), None, "3id3@3"),
        ((), Head(1, "id1", 1), "gap"),
        ((), Head(2, "other", 2), "gap"),
        ((), Head(3, "id3", 3), "gap"),
        ((entry(3),), Head(4, "id4", 4), "gap"),
        ((entry(3), entry(3)), None, "3id3@3"),
        ((entry(3), entry(3, id="other")), None, "gap"),
    ],
)
async def test_commits_are_taken_where_each_follows_the_last_and_anything_else_is_a_gap(
    entries: tuple[Entry, ...], head: Head | None, becomes: str
) -> None:
    assert Follower().take(*entries, head=head) == becomes


async def put_back(storage: Storage, head: Head, saved: list[tuple[str, bytes]]) -> None:
    """In one transaction, as a restore is: what is seen between two steps would be one more state."""
    other = backend_of(storage.url, {})
    try:
        kept = {path for path, _ in saved}
        gone = [path for path, _ in await other.listed("") if path not in kept]
        assert await other.commit(await other.head(), head, [one for one in saved if one[0] != "head"], gone)
    finally:
        await other.close()


async def test_the_storages_log_is_shortened_and_a_control_plane_far_behind_reads_everything(shared: New) -> None:
    storage = shared()
    async with storage.open(log_entries=32) as one:
        assert isinstance(one, SharedStore)
        for n in range(600):
            await one.write([Write(key(f"a{n % 7}"), body(f"a{n % 7}", n))])
        await until("a shorter log", lambda: log_is_short(one))
        entries = await one.backend.entries(0)
        assert entries[-1].seq == 600
    async with storage.open() as two:
        assert sorted(one.object()["value"] for one in two.memory.all("services")) == list(range(593, 600))


async def log_is_short(store: SharedStore) -> bool:
    return len(await store.backend.listed("log/")) < 400


# --- the storage goes away and comes back ---------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def alone(kind: str, folder: Path) -> AsyncIterator[tuple[Server, str]]:
    """A server of its own, to be ended."""
    async with etcd(folder) if kind == "etcd" else consul(folder) as server:
        yield server, f"{kind}://{server.url.partition('://')[2]}/alone"


@pytest.mark.parametrize("kind", ["etcd", "consul"])
async def test_without_its_storage_reads_go_on_writes_are_refused_and_what_was_missed_is_caught_up(
    kind: str, tmp_path: Path
) -> None:
    async with alone(kind, tmp_path) as (server, url):
        one = await SharedStore.open(backend_of(url, {}), commit_s=1.0)
        try:
            await one.write([Write(key("a"), body("a", 1))])
            await server.kill()
            with pytest.raises(StoreUnavailableError, match="it is not known whether") as told:
                await one.write([Write(key("a"), body("a", 2))])
            assert told.value.unknown
            await until("the loss", lambda: as_async(one.problem()))

            async def is_refused_at_once() -> bool:
                begun = asyncio.get_running_loop().time()
                with pytest.raises(StoreUnavailableError) as refused:
                    await one.write([Write(key("a"), body("a", 3))])
                at_once = asyncio.get_running_loop().time() - begun < 0.5
                return at_once and not refused.value.unknown and "nothing was changed" in str(refused.value)

            await until("a refusal at once", is_refused_at_once)
            assert value_of(one, "a") == 1
            await server.start()
            async with Storage(kind, url).open() as two:  # another control plane is back sooner
                for n in range(30):
                    await two.write([Write(key(f"b{n}"), body(f"b{n}"))])
                heard = two.memory.revision
            await until("what was missed", lambda: as_async(one.memory.revision == heard))
            assert len(one.memory.log.after(1)) == 30
            assert one.memory.life == 0, "nothing was lost, so nobody needs to list again"
            assert await one.probe() == ""
            await one.write([Write(key("c"), body("c"))])
        finally:
            await one.close()


async def test_a_server_that_hangs_is_left_for_another(tmp_path: Path) -> None:
    async with etcd_cluster(tmp_path) as members:
        hosts = ",".join(member.url.partition("://")[2] for member in members)
        async with Storage("etcd", f"etcd://{hosts}/x").open() as store:
            await store.write([Write(key("a"), body("a", 0))])
            assert isinstance(store, SharedStore)
            hangs = next(one for one in members if one.url == store.backend.client.endpoint)  # type: ignore[attr-defined]
            hangs.freeze()
            try:
                for n in range(1, 4):
                    await store.write([Write(key("a"), body("a", n))])
                assert value_of(store, "a") == 3
            finally:
                hangs.thaw()


async def test_a_compacted_etcd_loses_nothing(tmp_path: Path) -> None:
    async with alone("etcd", tmp_path) as (server, url), Storage("etcd", url).open() as one:
        assert isinstance(server, Etcd)
        await one.write([Write(key("a"), body("a", 1))])
        async with Storage("etcd", url).open() as two:
            for n in range(20):
                await two.write([Write(key("a"), body("a", n))])
        told = await server.call("/v3/kv/range", {"key": b64("x")})
        await server.call("/v3/kv/compaction", {"revision": told["header"]["revision"], "physical": True})
        await server.kill()
        await server.start()
        await until("the latest", lambda: as_async(value_of(one, "a") == 19))
        assert [change.revision for change in one.memory.log.after(0)] == list(range(1, 22))


async def test_a_storage_that_is_not_there_at_the_start_is_told_by_its_address() -> None:
    (port,) = free_ports(1)
    for kind in ("etcd", "consul"):
        with pytest.raises(StoreUnavailableError, match=rf"{kind}://127\.0\.0\.1:{port}/x"):
            await SharedStore.open(backend_of(f"{kind}://127.0.0.1:{port}/x", {}), open_s=0.3)


async def test_etcd_with_passwords_and_consul_with_acls_are_used_by_their_usual_variables(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server:
        await server.call("/v3/auth/user/add", {"name": "root", "password": "secret"})
        await server.call("/v3/auth/user/grant", {"user": "root", "role": "root"})
        await server.call("/v3/auth/enable", {})
        url = f"etcd://{server.url.partition('://')[2]}/x"
        store = await SharedStore.open(backend_of(url, {"ETCDCTL_USER": "root:secret"}))
        await store.write([Write(key("a"), body("a"))])
        await store.close()
        with pytest.raises(StoreError, match="ETCDCTL_USER"):
            await SharedStore.open(backend_of(url, {}), open_s=0.5)
    async with consul(tmp_path, token="root-token") as agent:
        url = f"consul://{agent.url.partition('://')[2]}/x"

        async def opened() -> SharedStore | None:  # ACLs are there a moment after the leader
            try:
                return await SharedStore.open(backend_of(url, {"CONSUL_HTTP_TOKEN": "root-token"}), open_s=1.0)
            except StoreError:
                return None

        found = await until("ACLs", opened)
        await found.write([Write(key("a"), body("a"))])
        await found.close()
        with pytest.raises(StoreError, match="CONSUL_HTTP_TOKEN"):
            await SharedStore.open(backend_of(url, {}), open_s=0.5)


async def test_a_value_is_deleted_only_where_it_is_still_the_one_that_was_read(shared: New) -> None:
    async with shared().open() as store:
        assert isinstance(store, SharedStore)
        backend = store.backend
        await backend.put("live/x", b"\0one")
        assert not await backend.delete_same("live/x", b"two")
        assert await backend.listed("live/") == [("x", b"\0one")]
        assert await backend.delete_same("live/x", b"\0one")
        assert await backend.listed("live/") == []
        assert not await backend.delete_same("live/x", b"\0one")
