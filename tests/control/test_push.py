"""The book of items: versions, differences, removals, and who gets everything."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given as given_
from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fairlead.control import push
from fairlead.control.push import ALL, NONE, Book, Scope, View
from fairlead.mesh.update import Holdings
from fairlead.policy.resources import Resources
from fairlead.policy.world import World
from fairlead.registry.checks import Check
from fairlead.registry.digest import item_digest
from fairlead.registry.model import Endpoint, Service, Workload
from fairlead.registry.snapshot import Snapshot

EVERYBODY = View()


def since(book: Book, version: str = "", now: View = EVERYBODY, before: View | None = None) -> bytes | None:
    """What a reader is sent that has `version`, and had the view `before` (as now, where it is not given)."""
    number = book.number_of(version)
    return book.everything(now) if number < 0 else book.difference(number, before or now, now)


def told(book: Book, version: str = "") -> dict[str, Any] | None:
    message = since(book, version)
    if message is None:
        return None
    assert message.endswith(b"\n")
    assert message.count(b"\n") == 1
    found: dict[str, Any] = json.loads(message)
    return found


WEB = Service(host="web.default.svc.cluster.local", namespace="default", name="web")


def test_who_has_nothing_gets_everything() -> None:
    book = Book("e1")
    book.objects({"object/virtualservices.networking.istio.io/default/a": {"kind": "VirtualService"}})
    assert told(book) == {
        "version": "e1.1",
        "full": True,
        "set": {"object/virtualservices.networking.istio.io/default/a": {"kind": "VirtualService"}},
        "remove": [],
    }


def keys(*names: str) -> frozenset[str]:
    return frozenset(f"object/secrets/edge/{name}" for name in names)


def given(book: Book, version: str, wanted: frozenset[str], had: frozenset[str] = NONE) -> tuple[set[str], set[str]]:
    """(keys set, keys removed) of a message."""
    message = json.loads(since(book, version, View(wanted), View(had)) or b'{"set":{},"remove":[]}')
    return set(message["set"]), set(message["remove"])


def test_a_reader_gets_the_secrets_that_it_is_to_have_and_no_other() -> None:
    book = Book("e1")
    book.objects({"object/a": {}, "object/secrets/edge/cert": {"n": 1}, "object/secrets/edge/other": {"n": 2}})
    assert told(book) == {"version": "e1.1", "full": True, "set": {"object/a": {}}, "remove": []}
    assert given(book, "", keys("cert", "missing")) == ({"object/a", *keys("cert")}, set())
    book.objects({"object/secrets/edge/cert": {"n": 3}, "object/secrets/edge/other": None})
    assert since(book, "e1.1") is None, "nothing of it is for everybody"
    assert given(book, "e1.1", keys("cert"), keys("cert")) == (set(keys("cert")), set())
    assert given(book, "e1.1", keys("other"), keys("other")) == (set(), set(keys("other")))
    book.objects({"object/b": {}})
    message = json.loads(since(book, "e1.1") or b"")
    assert (message["set"], message["remove"]) == ({"object/b": {}}, [])


def test_a_secret_named_later_is_sent_and_one_named_no_more_is_withdrawn() -> None:
    book = Book("e1")
    book.objects({f"object/secrets/edge/{name}": {} for name in "abc"})
    book.objects({"object/gateway": {}})
    assert given(book, "e1.1", keys("b", "c"), keys("a", "b")) == ({"object/gateway", *keys("c")}, set(keys("a")))
    assert given(book, "e1.2", NONE, keys("a")) == (set(), set(keys("a")))
    assert given(book, "e1.2", keys("a"), keys("a")) == (set(), set())


class Newer:
    """Understands nothing whose value says so."""

    def why_not(self, key: str, number: int, value: bytes) -> str:
        return "it is new" if b"new" in value else ""


NEWER = Newer()


def scope(hosts: str | None) -> Scope:
    """All services, with the endpoints of some of them; None: of all."""
    return ALL if hosts is None else Scope(None, frozenset(hosts), frozenset(hosts))


VIEWS = st.builds(
    lambda secrets, hosts, newer: View(keys(*secrets), "default/a", scope(hosts), NEWER if newer else None),
    st.sets(st.sampled_from("ab")), st.none() | st.sampled_from(["", "a", "b", "abc"]), st.booleans(),
)  # fmt: skip
CHANGES = st.dictionaries(
    st.sampled_from([*sorted(keys("a", "b")), "object/rule", "service/a", "endpoints/a", "endpoints/b", "workload/b",
                     "checks/default/a", "checks/default/b"]),
    st.none() | st.sampled_from(["1", "2", "new"]), max_size=3,
)  # fmt: skip


class Plain(Holdings):
    """Takes items of any value."""

    def _read(self, key: str, value: bytes) -> Any:
        return value


@settings(max_examples=500, deadline=None)
@given_(st.booleans(), st.lists(st.tuples(CHANGES, VIEWS, st.sampled_from(["", "", "lost", "back", "restart"])),
                                max_size=12), VIEWS)  # fmt: skip
def test_whatever_happens_a_reader_ends_with_exactly_what_it_is_to_have(
    newer: bool, steps: list[tuple[dict[str, str | None], View, str]], last: View
) -> None:
    """Items and views change, messages are lost with their connection, control is restarted; the reader tells the
    digests of what it holds when it comes back. What it would not understand stays as it was."""
    book, reader = Book("e1"), Plain(lambda *_: World(Snapshot(), Resources()))
    understands = NEWER if newer else None  # its version stays what it is
    last = replace(last, understands=understands)
    number, view = -1, last
    connected = True
    for change, wants, what in [*steps, ({}, last, "back")]:
        now = replace(wants, understands=understands)
        book._change({key: None if value is None else json.dumps(value).encode() for key, value in change.items()})
        if what == "restart":
            items, book = book._items, Book(f"{book.epoch}+")
            book._change({key: value for key, (_, value) in items.items()})
        if what in ("back", "restart"):
            held = reader.digests()
            message: bytes | None = book.compared(now, {held[at : at + 16] for at in range(0, len(held), 16)})
            connected = True
        elif not connected:
            continue
        else:
            message = book.everything(now) if number < 0 else book.difference(number, view, now)
        number, view = book.number, now
        if what == "lost":
            connected = False
        elif message is not None:
            reader.apply(message)
    wanted = {key: value for key, (_, value) in book._items.items() if last.has(key)}
    understood = {key: value for key, value in wanted.items() if not (newer and b"new" in value and "object" in key)}
    assert {key: value for key, value in reader.raw.items() if key in understood} == understood
    assert reader.raw.keys() <= wanted.keys()


def test_who_comes_back_is_sent_what_it_lacks_whoever_answers() -> None:
    old, new = Book("old"), Book("new")
    for book in (old, new):
        book.objects({f"object/{n}": {"n": n} for n in range(50)})
    old.objects({"object/only-there": {}})
    new.objects({"object/7": {"n": "other"}, "object/8": None, "object/here": {}})
    digests = {item_digest(key, value) for key, (_, value) in old._items.items()}
    message = json.loads(new.compared(View(), digests))
    assert message["set"] == {"object/7": {"n": "other"}, "object/here": {}}
    assert (message["full"], message["resumed"], len(message["drop"])) == (False, True, 3)
    assert (message["version"], message["remove"], message["keep"]) == ("new.2", [], [])


def test_what_a_reader_does_not_understand_is_left_out_and_named() -> None:
    book, view = Book("e1"), View(understands=NEWER)
    book.objects({"object/a": {"n": 1}, "object/b": {"new": 1}})
    assert json.loads(book.everything(view))["set"] == {"object/a": {"n": 1}}
    book.objects({"object/a": {"new": 2}, "object/c": {"n": 1}})
    message = json.loads(book.difference(1, view, view) or b"")
    assert (message["set"], message["remove"]) == ({"object/c": {"n": 1}}, []), "what it has of it stays"
    assert book.withheld_from(NEWER) == {"object/a": "it is new", "object/b": "it is new"}
    assert sorted(json.loads(book.compared(view, set()))["keep"]) == ["object/a", "object/b"]


def test_of_facts_a_reader_gets_those_of_its_scope_and_learns_when_it_changes() -> None:
    book = Book("e1")
    ends = (Endpoint("10.0.0.1", 80),)
    services = {host: Service(host, "default", host) for host in "abc"}
    book.facts(Snapshot(1, services, dict.fromkeys("abc", ends)))
    a, b, every = (View(scope=scope(hosts)) for hosts in ("a", "b", None))
    names = {f"service/{host}" for host in "abc"}
    assert set(json.loads(book.everything(a))["set"]) == {*names, "endpoints/a"}
    assert book.difference(1, a, a) is None
    message = json.loads(book.difference(1, a, b) or b"")
    assert (set(message["set"]), message["remove"]) == ({"endpoints/b"}, ["endpoints/a", "workload/a"])
    assert set(json.loads(book.difference(1, a, every) or b"")["set"]) == {"endpoints/b", "endpoints/c"}
    assert set(json.loads(book.difference(1, every, a) or b"")["remove"]) == {"endpoints/b", "endpoints/c"}
    book.facts(Snapshot(2, services, {"a": ends, "b": (), "c": ends}))
    assert book.difference(1, a, a) is None, "what is new is for others"
    assert json.loads(book.difference(1, b, b) or b"")["set"] == {"endpoints/b": []}


def test_who_is_up_to_date_gets_nothing() -> None:
    book = Book("e1")
    book.objects({"object/a": {}})
    assert since(book, "e1.1") is None


def test_only_what_changed_since_is_sent_and_each_key_once() -> None:
    book = Book("e1")
    book.objects({"object/a": {"n": 1}, "object/b": {"n": 1}})
    book.objects({"object/a": {"n": 2}})
    book.objects({"object/a": {"n": 3}, "object/c": {"n": 1}})
    book.objects({"object/b": None})
    message = told(book, "e1.1")
    assert message is not None
    assert message["full"] is False
    assert message["set"] == {"object/a": {"n": 3}, "object/c": {"n": 1}}
    assert message["remove"] == ["object/b"]


def test_a_change_to_the_same_value_is_no_change() -> None:
    book = Book("e1")
    assert book.objects({"object/a": {"n": 1}})
    assert not book.objects({"object/a": {"n": 1}})
    assert not book.objects({"object/unknown": None})
    assert book.version == "e1.1"


def test_another_epoch_gets_everything() -> None:
    book = Book("e2")
    book.objects({"object/a": {}})
    for since in ("e1.1", "e2.7", "nonsense", "e2.x"):
        message = told(book, since)
        assert message is not None
        assert message["full"] is True


def test_who_is_too_far_behind_gets_everything(monkeypatch: Any) -> None:
    monkeypatch.setattr(push, "REMOVALS_KEPT", 3)
    book = Book("e1")
    for n in range(6):
        book.objects({"object/a": {"n": n}})
    far, near = told(book, "e1.1"), told(book, "e1.4")
    assert far is not None
    assert near is not None
    assert far["full"] is True
    assert near["full"] is False
    assert near["set"] == {"object/a": {"n": 5}}


def test_of_a_snapshot_only_other_objects_than_before_are_looked_at() -> None:
    book = Book("e1")
    endpoints = (Endpoint("10.0.0.1", 80),)
    book.facts(Snapshot(1, {WEB.host: WEB}, {WEB.host: endpoints}))
    assert not book.facts(Snapshot(2, {WEB.host: WEB}, {WEB.host: endpoints}))
    assert book.facts(Snapshot(3, {WEB.host: WEB}, {WEB.host: ()}))
    message = told(book, "e1.1")
    assert message is not None
    assert message["set"] == {f"endpoints/{WEB.host}": []}
    assert book.facts(Snapshot(4))
    message = told(book, "e1.2")
    assert message is not None
    assert sorted(message["remove"]) == [f"endpoints/{WEB.host}", f"service/{WEB.host}"]


def test_the_checks_of_a_workload_are_for_its_own_sidecar_alone() -> None:
    book = Book("e1")
    checks = (Check("readiness", "http", port=8080, headers=(("authorization", "secret"),)),)
    web = Workload("default", "web-1", checks=checks)
    book.facts(Snapshot(1, workloads={"default/web-1": web, "default/a": Workload("default", "a")}))
    assert b"secret" not in (since(book) or b"")
    assert b"secret" not in (since(book, "", View(workload="default/a")) or b"")
    own = json.loads(since(book, "", View(workload="default/web-1")) or b"")["set"]
    assert own["checks/default/web-1"][0]["headers"] == [["authorization", "secret"]]
    assert "checks" not in own["workload/default/web-1"]
    book.facts(Snapshot(2, workloads={"default/web-1": replace(web, checks=())}))
    removed = json.loads(since(book, "e1.1", View(workload="default/web-1")) or b"")["remove"]
    assert sorted(removed) == ["checks/default/web-1", "workload/default/a"]
    book.facts(Snapshot(3, workloads={"default/web-1": web}))
    book.facts(Snapshot(4))
    removed = json.loads(since(book, "e1.3", View(workload="default/web-1")) or b"")["remove"]
    assert sorted(removed) == ["checks/default/web-1", "workload/default/web-1"]


def test_facts_that_take_a_ready_endpoint_away_are_told_from_others() -> None:
    def snapshot(version: int, *endpoints: Endpoint) -> Snapshot:
        return Snapshot(version=version, services={WEB.host: WEB}, endpoints={WEB.host: endpoints})

    one, two = Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80)
    book = Book("e1")
    for version, endpoints, loses in (
        (1, (one,), False),
        (2, (one, two), False),
        (3, (one, replace(two, weight=3)), False),
        (4, (one, replace(two, ready=False)), True),
        (5, (one,), False),
        (6, (), True),
    ):
        book.facts(snapshot(version, *endpoints))
        assert book.loses is loses, endpoints


def test_what_all_with_one_view_lack_is_made_once_but_not_what_is_for_one_alone() -> None:
    book = Book("e1")
    check = Check("liveness", "tcp")
    app = Workload("default", "app", checks=(check,))
    book.facts(Snapshot(version=1))
    before = book.version
    book.facts(Snapshot(version=2, workloads={app.key: app}, services={WEB.host: WEB}))
    own, other, third = View(workload=app.key), View(workload="default/other"), View(workload="default/third")
    mine, theirs = json.loads(since(book, before, own) or b""), json.loads(since(book, before, other) or b"")
    assert mine["set"].keys() - theirs["set"].keys() == {f"checks/{app.key}"}
    book.objects({"object/virtualservices.networking.istio.io/default/a": {"kind": "VirtualService"}})
    at = f"e1.{book.number - 1}"
    assert since(book, at, other) is since(book, at, third) is since(book, at, own)
