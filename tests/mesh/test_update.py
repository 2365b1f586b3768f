"""What a sidecar holds of the feed: versions taken, differences, and what refuses to be taken."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.push import Book, View
from fairlead.mesh.update import Holdings, RefusedError, UnreadableError
from fairlead.policy.resources import Resources
from fairlead.policy.world import World
from fairlead.registry.checks import Check
from fairlead.registry.model import Changed, Endpoint, Service, Workload
from fairlead.registry.snapshot import Snapshot

HOST = "web.default.svc.cluster.local"
RULE = {"kind": "VirtualService", "metadata": {"name": "a"}}
ITEMS: dict[str, Any] = {
    f"service/{HOST}": {"host": HOST, "namespace": "default", "name": "web"},
    f"endpoints/{HOST}": [{"address": "10.0.0.1", "port": 80}],
    "workload/default/web-1": {"namespace": "default", "name": "web-1"},
    "namespace/default": {"team": "x"},
    "object/virtualservices.networking.istio.io/default/a": RULE,
}
WRONG: dict[str, Any] = {
    f"service/{HOST}": {"host": 1},
    f"endpoints/{HOST}": [{"address": "10.0.0.1", "port": "80"}],
    "workload/default/web-1": [],
    "namespace/default": {"team": 1},
    "object/virtualservices.networking.istio.io/default/a": [],
    "gadget/x": {},
    "": {},
}

pytestmark = pytest.mark.usefixtures("tables")


class Built(World):
    """What a world was to be built of."""

    def __init__(self, objects: list[dict[str, Any]], snapshot: Snapshot) -> None:
        super().__init__(snapshot, Resources())
        self.objects = objects


def build(objects: list[dict[str, Any]], snapshot: Snapshot) -> World:
    if any("refuse" in one for one in objects):
        raise RefusedError(["an object says refuse"])
    return Built(objects, snapshot)


def holdings() -> Holdings:
    return Holdings(build)


def line(version: str, set: dict[str, Any] | None = None, remove: list[str] | None = None, full: bool = False) -> bytes:
    return json.dumps({"version": version, "full": full, "set": set or {}, "remove": remove or []}).encode()


def held(subject: Holdings) -> dict[str, Any]:
    """All that is held; fails where what is kept for disk and what a world is made of are not the same."""
    built = subject.world()
    assert isinstance(built, Built)
    snapshot = built.snapshot
    counted = [snapshot.services, snapshot.endpoints, snapshot.workloads, snapshot.namespaces, built.objects]
    assert sum(map(len, counted)) == len(subject.raw)
    return {key: json.loads(value) for key, value in subject.raw.items()}


def test_every_kind_of_item_comes_into_the_world() -> None:
    subject = holdings()
    assert subject.apply(line("e.1", ITEMS, full=True))
    built = subject.world()
    assert isinstance(built, Built)
    assert built.snapshot.services == {HOST: Service(HOST, "default", "web")}
    assert built.snapshot.endpoints == {HOST: (Endpoint("10.0.0.1", 80),)}
    assert built.snapshot.workloads == {"default/web-1": Workload("default", "web-1")}
    assert built.snapshot.namespaces == {"default": {"team": "x"}}
    assert built.objects == [RULE]
    assert (subject.version, subject.offered) == ("e.1", "e.1")


def test_a_world_once_made_does_not_change_with_what_is_held_and_has_a_version_of_its_own() -> None:
    subject = holdings()
    subject.apply(line("e.1", ITEMS, full=True))
    before = subject.world().snapshot
    subject.apply(line("e.2", remove=[f"service/{HOST}"]))
    assert HOST in before.services
    assert HOST not in subject.world().snapshot.services
    assert subject.world().snapshot.version > before.version


def test_tables_that_did_not_change_are_not_copied_for_a_world() -> None:
    subject = holdings()
    subject.apply(line("e.1", ITEMS, full=True))
    before = subject.world().snapshot
    subject.apply(line("e.2", {f"endpoints/{HOST}": [{"address": "10.0.0.2", "port": 80}]}))
    after = subject.world().snapshot
    assert after.workloads is before.workloads
    assert after.services is before.services
    assert before.endpoints[HOST] != after.endpoints[HOST]
    assert after.changed == Changed(frozenset((HOST,)))
    assert after.version == before.version + 1


FEW = st.integers(0, 2)
ITEM = st.one_of(
    st.builds(lambda n, v: (f"service/h{n}", {"host": f"h{n}", "namespace": "a", "name": str(v)}), FEW, FEW),
    st.builds(lambda n, v: (f"endpoints/h{n}", [{"address": f"10.0.0.{v}", "port": 80}]), FEW, FEW),
    st.builds(lambda n, v: (f"workload/a/{n}", {"namespace": "a", "name": str(n), "weight": v}), FEW, FEW),
    st.builds(lambda n, v: (f"namespace/n{n}", {"v": str(v)}), FEW, FEW),
)


@given(st.lists(st.tuples(st.lists(ITEM, max_size=4), st.lists(ITEM, max_size=2), st.booleans(), st.booleans())))
def test_what_differs_between_two_worlds_is_among_what_is_told_to_have_changed(history: list[Any]) -> None:
    subject = holdings()
    before = subject.world().snapshot
    for step, (items, removed, full, forget) in enumerate(history):
        if forget:
            subject.forget()
        subject.apply(line(f"e.{step}", dict(items), [key for key, _ in removed], full=full or forget))
        after = subject.world().snapshot
        if after.changed is not None and after.version == before.version + 1:
            for old, new, told in (
                (before.services, after.services, after.changed.hosts),
                (before.endpoints, after.endpoints, after.changed.hosts),
                (before.workloads, after.workloads, after.changed.workloads),
                (before.namespaces, after.namespaces, after.changed.namespaces),
            ):
                assert {key for key in {**old, **new} if old.get(key) != new.get(key)} <= told
        before = after


def test_a_difference_sets_and_removes_and_leaves_the_rest() -> None:
    subject = holdings()
    subject.apply(line("e.1", ITEMS, full=True))
    changed = {"namespace/default": {"team": "y"}, "namespace/shop": {}}
    assert subject.apply(line("e.2", changed, ["workload/default/web-1", "workload/default/never-held", "gadget/x"]))
    expected = ITEMS | changed
    del expected["workload/default/web-1"]
    assert held(subject) == expected
    assert subject.version == "e.2"


def test_a_full_version_drops_what_it_does_not_name() -> None:
    subject = holdings()
    subject.apply(line("e.1", ITEMS, full=True))
    subject.apply(line("f.1", {"namespace/shop": {}}, full=True))
    assert held(subject) == {"namespace/shop": {}}
    subject.apply(line("f.2", full=True))
    assert held(subject) == {}


@pytest.mark.parametrize("heartbeat", [b'{"version": "e.9"}', line("e.9")])
def test_a_message_without_content_changes_nothing(heartbeat: bytes) -> None:
    subject = holdings()
    subject.apply(line("e.1", ITEMS, full=True))
    assert not subject.apply(heartbeat)
    assert (subject.version, held(subject)) == ("e.1", ITEMS)


@pytest.mark.parametrize("key", WRONG)
def test_of_a_line_with_one_bad_item_nothing_is_taken_and_the_item_is_named(key: str) -> None:
    subject = holdings()
    subject.apply(line("e.1", ITEMS, full=True))
    with pytest.raises(RefusedError) as caught:
        subject.apply(line("e.2", {"namespace/other": {}, key: WRONG[key]}, ["namespace/default"]))
    assert [reason.startswith(f"{key}: ") for reason in caught.value.reasons] == [True]
    assert (subject.version, subject.offered) == ("e.1", "e.2")
    assert held(subject) == ITEMS


def test_every_bad_item_is_told_at_once() -> None:
    with pytest.raises(RefusedError) as caught:
        holdings().apply(line("e.1", WRONG, full=True))
    assert len(caught.value.reasons) == len(WRONG)
    assert "upgrade the sidecar" in str(caught.value)


def test_after_a_refused_full_version_a_difference_does_not_pass_for_everything() -> None:
    subject = holdings()
    with pytest.raises(RefusedError):
        subject.apply(line("e.1", ITEMS | {"gadget/x": {}}, full=True))
    with pytest.raises(RefusedError, match="gadget/x"):
        subject.apply(line("e.2", {"namespace/shop": {}}))
    assert (subject.version, held(subject)) == ("", {})
    assert subject.apply(line("e.3", remove=["gadget/x"]))
    assert (subject.version, held(subject)) == ("e.3", ITEMS | {"namespace/shop": {}})


def test_what_a_refused_difference_brought_comes_with_the_next_that_mends_it() -> None:
    subject = holdings()
    subject.apply(line("e.1", ITEMS, full=True))
    bad = {"namespace/default": {"team": 1}, "namespace/new": {}, "namespace/brief": {}}
    with pytest.raises(RefusedError):
        subject.apply(line("e.2", bad, ["workload/default/web-1", f"service/{HOST}"]))
    mend = {"namespace/default": {"team": "z"}, f"service/{HOST}": ITEMS[f"service/{HOST}"]}
    assert subject.apply(line("e.3", mend, ["namespace/brief"]))
    expected = ITEMS | {"namespace/default": {"team": "z"}, "namespace/new": {}}
    del expected["workload/default/web-1"]
    assert (subject.version, held(subject)) == ("e.3", expected)


def test_a_full_version_owes_nothing_to_a_refused_one() -> None:
    subject = holdings()
    with pytest.raises(RefusedError):
        subject.apply(line("e.1", WRONG))
    assert subject.apply(line("f.1", {"namespace/shop": {}}, full=True))
    assert held(subject) == {"namespace/shop": {}}


def test_what_cannot_be_built_is_held_and_the_next_difference_counts_from_it() -> None:
    subject = holdings()
    subject.apply(line("e.1", ITEMS, full=True))
    assert subject.apply(line("e.2", {"object/b": {"refuse": 1}, "namespace/shop": {}}))
    with pytest.raises(RefusedError, match="says refuse"):
        subject.world()
    subject.apply(line("e.3", remove=["object/b"]))
    assert held(subject) == ITEMS | {"namespace/shop": {}}


def test_what_is_dumped_is_loaded_again_as_it_was() -> None:
    subject, again = holdings(), holdings()
    subject.apply(line("e.1", ITEMS, full=True))
    subject.apply(line("e.2", {"namespace/shop": {"ä": "ö"}}, [f"endpoints/{HOST}"]))
    assert again.apply(subject.kept()())
    assert (again.version, held(again), again.kept()()) == ("e.2", held(subject), subject.kept()())


def test_what_is_forgotten_is_asked_for_again() -> None:
    subject = holdings()
    subject.apply(line("e.1", ITEMS, full=True))
    with pytest.raises(RefusedError):
        subject.apply(line("e.2", WRONG))
    subject.forget()
    assert (subject.version, held(subject)) == ("", {})
    assert subject.apply(line("e.3", {"namespace/shop": {}}))
    assert held(subject) == {"namespace/shop": {}}


@pytest.mark.parametrize(
    "garbage",
    [b"", b"null", b"[]", b"{}", b'{"version": 1}', b'{"version": "\xff"}', b'{"version": "1", "remove": ["\xff"]}',
     b'{"version": "1", "set": []}', b'{"version": "1", "set": {"object/a": ' + b'{"a":' * 5000],
)  # fmt: skip
def test_what_is_no_message_is_unreadable(garbage: bytes) -> None:
    subject = holdings()
    subject.apply(line("e.1", ITEMS, full=True))
    with pytest.raises(UnreadableError, match="not a message"):
        subject.apply(garbage)
    assert held(subject) == ITEMS


def test_a_line_cut_at_any_byte_is_refused_and_takes_nothing() -> None:
    whole, subject = line("e.1", ITEMS, full=True), holdings()
    for end in range(len(whole)):
        with pytest.raises(UnreadableError):
            subject.apply(whole[:end])
    assert (subject.version, subject.raw) == ("", {})


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["host", "name", "port"]), inner),
    max_leaves=6,
)


@given(
    st.binary(max_size=60)
    | st.builds(lambda text: json.dumps(text).encode(), json_values)
    | st.builds(line, st.text(max_size=3), st.dictionaries(st.sampled_from([*ITEMS, *WRONG]), json_values))
    | st.builds(
        lambda at, octet: (b := line("e.2", ITEMS))[:at] + octet + b[at + 1 :], st.integers(0, 400), st.binary()
    )
)
def test_whatever_comes_is_taken_whole_or_refused(data: bytes) -> None:
    subject = holdings()
    subject.apply(line("e.1", {"namespace/kept": {}}, full=True))
    before = dict(subject.raw)
    try:
        subject.apply(data)
    except RefusedError:
        assert (subject.raw, subject.version) == (before, "e.1")
    held(subject)


@given(st.lists(st.dictionaries(st.sampled_from("abc"), st.none() | st.integers(0, 2) | st.just("bad"), min_size=1),
                max_size=8), st.data())  # fmt: skip
def test_after_any_history_the_next_good_version_is_what_control_holds(
    changes: list[dict[str, Any]], data: st.DataObject
) -> None:
    """Control's side is the real Book; its cursor goes on whether we take a version or not, or we reconnect."""
    book, subject, cursor = Book("e"), holdings(), ""

    def deliver() -> None:
        nonlocal cursor
        number = book.number_of(cursor)
        message = book.difference(number, View(), View()) if number >= 0 else book.everything()
        cursor = book.version
        if message is not None:
            try:
                subject.apply(message)
            except RefusedError:
                assert any(b"bad" in value for _, value in book._items.values())

    for change in changes:
        book.objects({f"object/{key}": None if n is None else {"n": n} for key, n in change.items() if n != "bad"}
                     | {f"gadget/{key}": {"bad": 1} for key, n in change.items() if n == "bad"})  # fmt: skip
        if data.draw(st.booleans(), label="reconnect"):
            cursor = subject.version
        deliver()
    book.objects({f"gadget/{key}": None for key in "abc"})
    deliver()
    assert subject.raw == {key: value for key, (_, value) in book._items.items()}


def test_checks_become_the_workloads_and_what_did_not_change_stays_the_same_object() -> None:
    subject = holdings()
    checks = [{"purpose": "readiness", "kind": "tcp", "port": 8080}]
    subject.apply(line("1.1", {**ITEMS, "checks/default/web-1": checks}, full=True))
    first = subject.world().snapshot.workloads["default/web-1"]
    assert first.checks == (Check("readiness", "tcp", port=8080),)
    subject.apply(line("1.2", {"namespace/other": {}}))
    assert subject.world().snapshot.workloads["default/web-1"] is first
    subject.apply(line("1.3", remove=["checks/default/web-1"]))
    assert subject.world().snapshot.workloads["default/web-1"].checks == ()
