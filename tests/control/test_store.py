"""What every store promises, of its part without storage: compare-and-swap, revisions, the log, the past."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.store import Change, CompactedError, ConflictError, Key, Log, Objects, Write


def key(name: str, resource: str = "services", namespace: str = "default") -> Key:
    return Key(resource, namespace, name)


def put(objects: Objects, name: str, value: Any = 0, expect: int | None = None, resource: str = "services") -> Change:
    changes = objects.plan([Write(key(name, resource), {"metadata": {"name": name}, "value": value}, expect)])
    objects.commit(changes)
    return changes[0]


def drop(objects: Objects, name: str) -> None:
    objects.commit(objects.plan([Write(key(name), None)]))


def test_every_change_gets_the_next_revision_and_writes_it_into_the_object() -> None:
    objects = Objects()
    assert put(objects, "a").revision == 1
    assert put(objects, "b").revision == 2
    stored = objects.get(key("b"))
    assert stored is not None
    assert stored.object()["metadata"]["resourceVersion"] == "2"
    assert objects.revision == 2


def test_a_write_that_expects_another_version_changes_nothing() -> None:
    objects = Objects()
    put(objects, "a")
    for expect in (0, 7):
        with pytest.raises(ConflictError):
            put(objects, "a", 1, expect)
    put(objects, "a", 1, expect=1)
    with pytest.raises(ConflictError):
        put(objects, "new", 1, expect=1)
    with pytest.raises(ConflictError):
        drop(objects, "none")
    assert objects.revision == 2


def test_a_group_of_writes_happens_as_a_whole_or_not_at_all() -> None:
    objects = Objects()
    put(objects, "a")
    with pytest.raises(ConflictError):
        objects.plan([Write(key("b"), {"metadata": {}}, 0), Write(key("a"), None, expect=99)])
    assert objects.get(key("b")) is None


def test_groups_planned_together_see_each_other() -> None:
    objects = Objects()
    first = objects.plan([Write(key("a"), {"metadata": {}}, 0)])
    with pytest.raises(ConflictError):
        objects.plan([Write(key("a"), {"metadata": {}}, 0)], first)
    second = objects.plan([Write(key("a"), None, expect=1)], first)
    objects.commit([*first, *second])
    assert objects.get(key("a")) is None
    assert objects.revision == 2


def test_lists_are_in_order_and_of_one_namespace_where_asked() -> None:
    objects = Objects()
    for namespace, name in (("b", "x"), ("a", "z"), ("a", "y")):
        objects.commit(objects.plan([Write(key(name, namespace=namespace), {"metadata": {}})]))
    assert [one.key[1:] for one in objects.all("services")] == [("a", "y"), ("a", "z"), ("b", "x")]
    assert [one.key.name for one in objects.all("services", "a")] == ["y", "z"]


def test_a_removed_object_is_shown_at_the_revision_of_its_removal() -> None:
    objects = Objects()
    put(objects, "a", 5)
    changes = objects.plan([Write(key("a"), None)])
    assert changes[0].after is None
    assert changes[0].last.object() == {"metadata": {"name": "a", "resourceVersion": "2"}, "value": 5}


def test_subscribers_hear_every_commit_until_they_leave() -> None:
    objects, heard = Objects(), []
    leave = objects.subscribe(lambda changes: heard.append([c.key.name for c in changes]))
    put(objects, "a")
    leave()
    leave()
    put(objects, "b")
    assert heard == [["a"]]


def test_the_log_forgets_the_oldest_and_says_so() -> None:
    log = Log(entries_max=16)
    objects = Objects(log=log)
    for n in range(40):
        put(objects, "a", n)
    assert len(log) <= 18
    assert log.floor >= 22
    assert [change.revision for change in log.after(38)] == [39, 40]
    with pytest.raises(CompactedError):
        log.after(log.floor - 1)
    assert log.after(40) == []


def test_the_log_is_bounded_in_bytes_too() -> None:
    log = Log(entries_max=1000, bytes_max=100_000)
    objects = Objects(log=log)
    for n in range(50):
        put(objects, "a", "x" * 10_000 + str(n))
    assert len(log) < 10
    assert log.after(49)[0].revision == 50


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=30))
def test_the_past_can_be_read_as_it_was(steps: Sequence[tuple[str, bool]]) -> None:
    objects = Objects()
    put(objects, "other", resource="pods")
    seen: dict[int, list[bytes]] = {}
    for n, (name, present) in enumerate(steps):
        if present:
            put(objects, name, n)
        elif objects.get(key(name)) is not None:
            drop(objects, name)
        seen[objects.revision] = [one.body for one in objects.all("services")]
    for revision, bodies in seen.items():
        assert [one.body for one in objects.all_at("services", None, revision)] == bodies


def test_the_future_cannot_be_read() -> None:
    with pytest.raises(CompactedError):
        Objects().all_at("services", None, 5)
