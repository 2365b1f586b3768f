"""Commits as they lie in a storage: read back as they were, whatever their size; the log goes before older objects."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.control.store import Cause, Key, Log, Objects, StoreError, Write
from fairlead.control.store_entries import (
    OWN_KEPT,
    Entry,
    Head,
    Kept,
    droppable,
    entry_of,
    join_parts,
    kept,
    object_key,
    object_path,
    pack,
    read_entry,
    state_of,
    unpack,
    write_entry,
)

names = st.text(st.characters(codec="utf-8"), min_size=1, max_size=12)


@given(st.builds(Key, names, st.text(max_size=12), names))
def test_every_key_has_a_path_of_its_own(key: Key) -> None:
    path = object_path(key)
    assert path.isascii()
    if key.namespace != "_":  # no namespace is called so
        assert object_key(path) == key


@given(st.binary(max_size=200), st.integers(1, 400))
def test_values_of_any_size_come_back(value: bytes, times: int) -> None:
    body = b"{" + value * times  # a body is a JSON object
    assert unpack(pack(body)) == body


def commits(count: int, memory: Objects, keys: int = 3) -> list[Entry]:
    head, made = Head(), []
    for n in range(count):
        key = Key("services", "default", f"a{n % keys}")
        body = None if n % 7 == 6 else {"metadata": {"name": key.name}, "value": n}
        if body is None and memory.get(key) is None:
            body = {"metadata": {"name": key.name}, "value": n}
        changes = memory.plan([Write(key, body)], (), Cause("ann", "x", 1e9 + n))
        entry = entry_of(head, f"id{n}", changes)
        memory.commit(changes)
        head = Head(entry.seq, entry.id, entry.revision)
        made.append(entry)
    return made


@given(st.integers(1, 40), st.integers(0, 40), st.integers(30, 5000))
@settings(max_examples=40)
def test_the_state_is_the_same_whichever_objects_were_written_in_time(count: int, seen: int, most: int) -> None:
    """Objects may be older than the log (a control plane died before it had written all): the log says what is."""
    memory, older = Objects(), Objects()
    entries = commits(count, memory)
    commits(min(seen, count), older)
    read = []
    for entry in entries:
        value, parts = write_entry(entry, most)
        again = read_entry(value)
        assert (again.parts == 0) == (not parts)
        read.append(join_parts(again, parts) if parts else again)
    objects = [(object_path(one.key), pack(one.body)) for name in older.resources() for one in older.all(name)]
    last = entries[-1]
    state = state_of(objects, read, Head(last.seq, last.id, last.revision), Log())
    assert sorted(state.objects.values(), key=lambda one: one.key) == memory.all("services")
    assert list(state.log.after(0)) == list(memory.log.after(0))
    assert (state.head.seq, state.head.revision) == (count, memory.revision)


def test_a_log_that_ends_before_the_head_is_refused_with_a_remedy() -> None:
    entries = commits(3, Objects())
    with pytest.raises(StoreError, match=r"log ends at commit 3, its head is 9.*restore it from a backup"):
        state_of([], entries, Head(9, "x", 9), Log())


def test_what_is_damaged_is_refused_by_its_place() -> None:
    with pytest.raises(StoreError, match="a commit in the store's log cannot be read"):
        read_entry(b"zgarbage")
    with pytest.raises(StoreError, match="object services/default/a in the store cannot be read"):
        state_of([("services/default/a", b"[]")], [], Head(), Log())
    with pytest.raises(StoreError, match="something else"):
        Head.read(b"[1]")


def test_only_what_nobody_needs_is_dropped() -> None:
    entries = [Kept(n, n, n % 2 == 0) for n in range(1, OWN_KEPT + 51)]
    assert [one.seq for one in droppable(entries, 5)][:8] == [1, 2, 3, 4, 5, 6, 8, 10]
    assert max(one.seq for one in droppable(entries, 0)) == 50
    assert [one.seq for one in droppable(entries[:3], 99)] == [1, 2], "the last one stays"


def test_large_commits_are_remembered_with_all_their_places() -> None:
    entry = Entry(7, "abc", "x", [], 9, 2)
    assert kept(entry).paths == ("log/0000000000000007", "parts/abc/000000", "parts/abc/000001")
