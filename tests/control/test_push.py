"""The book of items: versions, differences, removals, and who gets everything."""

from __future__ import annotations

import json
from typing import Any

from fairlead.control import push
from fairlead.control.push import Book
from fairlead.registry.model import Endpoint, Service
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


def test_secrets_are_for_those_of_their_namespace_who_ask_for_them() -> None:
    book = Book("e1")
    book.objects({"object/a": {}, "object/secrets/edge/cert": {"n": 1}, "object/secrets/shop/cert": {"n": 2}})
    assert told(book) == {"version": "e1.1", "full": True, "set": {"object/a": {}}, "remove": []}
    full = json.loads(book.message_since("", "edge") or b"")
    assert full["set"] == {"object/a": {}, "object/secrets/edge/cert": {"n": 1}}
    book.objects({"object/secrets/edge/cert": {"n": 3}, "object/secrets/shop/cert": None})
    assert book.message_since("e1.1") is None, "nothing of it is for everybody"
    assert json.loads(book.message_since("e1.1", "edge") or b"")["set"] == {"object/secrets/edge/cert": {"n": 3}}
    assert json.loads(book.message_since("e1.1", "shop") or b"")["remove"] == ["object/secrets/shop/cert"]
    book.objects({"object/b": {}})
    assert json.loads(book.message_since("e1.1") or b"")["set"] == {"object/b": {}}


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
