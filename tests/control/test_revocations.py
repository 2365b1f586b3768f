"""What was taken back: who is refused, and which certificates go with it."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.control.issued import IssuedLeaf
from fairlead.control.revocations import (
    ACCOUNT,
    RESOURCE,
    SERIAL,
    TOKEN,
    WORKLOAD,
    Entry,
    Revocations,
    items_of,
    matching,
    write_of,
)
from fairlead.control.store import ConflictError, Write
from fairlead.control.store_sqlite import SqliteStore
from tests.control.serving import store_in

pytestmark = pytest.mark.asyncio


def leaf(serial: str, workload: str = "shop/web-1", parent: str = "", token: str = "", at: float = 0.0) -> IssuedLeaf:
    account = workload.partition("/")[2].partition("-")[0]
    return IssuedLeaf(serial, f"spiffe://d/ns/shop/sa/{account}", workload, "k", at, 100.0, parent=parent, token=token)


async def add(store: SqliteStore, *entries: Entry) -> None:
    await store.write([write_of(one) for one in entries])


async def test_who_shows_what_was_revoked_is_told_by_whom_and_why(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        revocations = Revocations(store.memory)
        assert revocations.why("shop", "web", "ab", "web-1") == ""
        await add(
            store, Entry(SERIAL, "ab", "", "alice", "stolen"), Entry(ACCOUNT, "db", "shop", "bob"),
            Entry(WORKLOAD, "web-2", "shop", "bob"),
        )  # fmt: skip
        assert revocations.why("shop", "web", "ab") == "certificate ab was revoked by alice: stolen"
        assert revocations.why("shop", "db", "cd") == "service account shop/db was revoked by bob"
        assert revocations.why("shop", "web", "cd", "web-2") == "workload shop/web-2 was revoked by bob"
        assert revocations.why("other", "db", "", "web-2") == ""
        assert Revocations(store.memory).entries == revocations.entries, "after a restart"
        with pytest.raises(ConflictError):
            await add(store, Entry(SERIAL, "ab"))


async def test_with_a_certificate_goes_what_was_renewed_from_it_under_whichever_name(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        revocations = Revocations(store.memory)
        leaves = [
            leaf("3", "shop/other-1", parent="2", at=3), leaf("2", "shop/else-1", parent="1", at=2), leaf("1", at=1),
            leaf("4", parent="0", at=4), leaf("5", at=5),
        ]  # fmt: skip
        assert revocations.following(leaves, 10.0) == []
        await add(store, Entry(SERIAL, "1", "", "alice", "stolen", ends=100.0))
        found = revocations.following(leaves, 10.0)
        assert [(one.name, one.by, one.reason, one.ends) for one in found] == [
            ("2", "alice", "stolen", 100.0), ("3", "alice", "stolen", 100.0)
        ]  # fmt: skip
        assert {one.because for one in found} == {"certificate 1"}
        await add(store, *found)
        assert revocations.following(leaves, 10.0) == []
        assert {stored.key.name for stored in matching(store.memory, "certificate 1")} == {"serial:2", "serial:3"}


@pytest.mark.parametrize(
    ("entry", "gone"),
    [
        (Entry(WORKLOAD, "web-1", "shop"), {"1", "3"}), (Entry(ACCOUNT, "web", "shop"), {"1", "2", "3"}),
        (Entry(TOKEN, "t1"), {"2"}), (Entry(WORKLOAD, "web-1", "other"), set()),
    ],
)  # fmt: skip
async def test_with_a_workload_an_account_or_a_token_goes_what_was_issued_to_it(
    tmp_path: Path, entry: Entry, gone: set[str]
) -> None:
    async with store_in(tmp_path) as store:
        revocations = Revocations(store.memory)
        await add(store, entry)
        leaves = [leaf("1"), leaf("2", "shop/web-2", token="t1"), leaf("3", token="t2"), leaf("4", "shop/db-1")]
        assert {one.name for one in revocations.following(leaves, 10.0)} == gone
        assert bool(revocations.why_leaf(leaves[0])) == ("1" in gone)


async def test_what_has_ended_is_forgotten_and_what_waits_for_a_restore_is_not(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        revocations = Revocations(store.memory)
        await add(store, Entry(SERIAL, "1", ends=50.0), Entry(SERIAL, "2", ends=150.0), Entry(ACCOUNT, "db", "shop"))
        assert revocations.following([leaf("9", "shop/db-1")], 200.0) == [], "it has ended by itself"
        await store.write(revocations.outdated(100.0))
        assert {key.name for key in revocations.entries} == {"serial:2", "account:db"}
        assert {stored.key.name for stored in store.memory.all(RESOURCE)} == {"serial:2", "account:db"}


async def test_proxies_are_told_of_certificates_and_accounts(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store:
        revocations = Revocations(store.memory)
        told = []
        revocations.changed.append(lambda news: told.append(items_of(news)))
        one, two = (
            Entry(SERIAL, "ab", "", "alice", "x" * 500, because="workload shop/web-1"),
            Entry(ACCOUNT, "db", "shop"),
        )
        await add(store, one, two, Entry(WORKLOAD, "web-1", "shop"), Entry(TOKEN, "t"))
        (items,) = told
        assert set(items) == {"revoked/serial:ab", "revoked/account:shop/db"}
        why = items["revoked/serial:ab"]
        assert why is not None and why["why"].startswith("by alice, as workload shop/web-1 was: xxx")
        assert len(why["why"]) == 200
        assert revocations.in_handshakes()
        await store.write([Write(key, None) for key in (one.key, two.key)])
        assert told[1] == {"revoked/serial:ab": None, "revoked/account:shop/db": None}
        assert not revocations.in_handshakes()
