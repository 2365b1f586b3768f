"""The book of items: versions, differences, removals, and who gets everything."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given as given_
from hypothesis import settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fairlead.control import push
from fairlead.control.push import NONE, Book, Held, Holds
from fairlead.registry.checks import Check
from fairlead.registry.model import Endpoint, Service, Workload
from fairlead.registry.snapshot import Snapshot


def told(book: Book, since: str = "") -> dict[str, Any] | None:
    message = book.message_since(since)
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


def given(book: Book, since: str, wanted: frozenset[str], holds: Holds = (NONE, NONE)) -> tuple[set[str], set[str]]:
    """(keys set, keys removed) of a message."""
    message = json.loads(book.message_since(since, wanted, holds) or b'{"set":{},"remove":[]}')
    return set(message["set"]), set(message["remove"])


def test_a_reader_gets_the_secrets_that_it_is_to_have_and_no_other() -> None:
    book = Book("e1")
    book.objects({"object/a": {}, "object/secrets/edge/cert": {"n": 1}, "object/secrets/edge/other": {"n": 2}})
    assert told(book) == {"version": "e1.1", "full": True, "set": {"object/a": {}}, "remove": []}
    assert given(book, "", keys("cert", "missing")) == ({"object/a", *keys("cert")}, set())
    book.objects({"object/secrets/edge/cert": {"n": 3}, "object/secrets/edge/other": None})
    assert book.message_since("e1.1") is None, "nothing of it is for everybody"
    both = (keys("cert"), keys("cert"))
    assert given(book, "e1.1", keys("cert"), both) == (set(keys("cert")), set())
    assert given(book, "e1.1", keys("other"), (keys("other"), keys("other"))) == (set(), set(keys("other")))
    book.objects({"object/b": {}})
    message = json.loads(book.message_since("e1.1") or b"")
    assert (message["set"], message["remove"]) == ({"object/b": {}}, [])


def test_a_secret_named_later_is_sent_and_one_named_no_more_is_withdrawn() -> None:
    book = Book("e1")
    book.objects({f"object/secrets/edge/{name}": {} for name in "abc"})
    book.objects({"object/gateway": {}})
    assert given(book, "e1.1", keys("b", "c"), (keys("a", "b"), keys("a", "b"))) == (
        {"object/gateway", *keys("c")}, set(keys("a")),
    )  # fmt: skip
    assert given(book, "e1.2", NONE, (keys("a"), keys("a"))) == (set(), set(keys("a")))
    assert given(book, "e1.2", keys("a"), (keys("a"), keys("a"))) == (set(), set())


def test_who_may_have_missed_what_was_sent_last_gets_all_of_it_again() -> None:
    held = Held()
    held.sent("e1.1", keys("a"))
    assert held.at("e1.1") == (keys("a"), keys("a"))
    held.sent("e1.2", keys("b"))
    assert held.at("e1.2") == (keys("b"), keys("b"))
    assert held.at("e1.1") == (NONE, keys("a", "b")), "it may have neither, or both"
    book = Book("e1")
    book.objects({f"object/secrets/edge/{name}": {} for name in "abc"})
    book.objects({"object/gateway": {}})
    assert given(book, "e1.1", keys("b"), held.at("e1.1")) == ({"object/gateway", *keys("b")}, set(keys("a")))
    held.taken("e1.1")
    assert held.at("e1.1") == (NONE, keys("a", "b")), "that is not the latest"
    held.taken("e1.2")
    assert held.at("e1.1") == (NONE, keys("b"))


STEPS = st.tuples(st.sampled_from(["name", "name", "item", "restart"]), st.sets(st.sampled_from("ab")), st.booleans())


@settings(max_examples=400, deadline=None)
@given_(st.lists(STEPS, min_size=4, max_size=12))
def test_whatever_happens_a_reader_ends_with_exactly_what_it_is_to_have(
    steps: list[tuple[str, set[str], bool]],
) -> None:
    """Names change, Secrets come and go, messages are lost with their connection, the reader comes back."""
    book, held, wanted = Book("e1"), Held(), NONE
    has: set[str] = set()
    since = ""  # what the reader has
    sent_at, holds = "", (NONE, NONE)  # the connection's
    for what, names, lost in [*steps, ("restart", set(), False)]:
        if what == "name":
            wanted = keys(*names)
            book.objects({"object/rule": {"n": sorted(names), "v": book.number}})
        elif what == "item":
            book.objects({key: {"v": book.number} if key in keys(*names) else None for key in keys("a", "b")})
        elif what == "restart":
            sent_at, holds = since, held.at(since)
        message = book.message_since(sent_at, wanted, holds)
        if message is None:
            sent_at = book.version
            continue
        sent_at = book.version
        held.sent(sent_at, wanted)
        holds = (wanted, wanted)
        if lost:
            sent_at, holds = since, held.at(since)  # the connection broke
            continue
        change = json.loads(message)
        has = (set() if change["full"] else has - set(change["remove"])) | set(change["set"])
        since = change["version"]
    present = {key for key in wanted if key in book._items}
    assert {key for key in has if key.startswith("object/secrets/")} == present


def test_who_is_up_to_date_gets_nothing() -> None:
    book = Book("e1")
    book.objects({"object/a": {}})
    assert book.message_since("e1.1") is None


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
    assert b"secret" not in (book.message_since("") or b"")
    assert b"secret" not in (book.message_since("", workload="default/a") or b"")
    own = json.loads(book.message_since("", workload="default/web-1") or b"")["set"]
    assert own["checks/default/web-1"][0]["headers"] == [["authorization", "secret"]]
    assert "checks" not in own["workload/default/web-1"]
    book.facts(Snapshot(2, workloads={"default/web-1": replace(web, checks=())}))
    removed = json.loads(book.message_since("e1.1", workload="default/web-1") or b"")["remove"]
    assert sorted(removed) == ["checks/default/web-1", "workload/default/a"]
    book.facts(Snapshot(3, workloads={"default/web-1": web}))
    book.facts(Snapshot(4))
    removed = json.loads(book.message_since("e1.3", workload="default/web-1") or b"")["remove"]
    assert sorted(removed) == ["checks/default/web-1", "workload/default/web-1"]
