"""Events about objects: one for each thing, counted, and gone after an hour."""

from __future__ import annotations

from fairlead.control.events import (
    NEW_VERSION,
    TTL_S,
    event_write,
    last_seen,
    outdated,
    shown,
    stored,
    stored_selector,
)
from fairlead.control.store import Key, Objects, Stored, Write

WEB = Key("virtualservices.networking.istio.io", "shop", "web")


def about(memory: Objects) -> Stored:
    memory.commit(memory.plan([Write(WEB, {"metadata": {"name": "web", "namespace": "shop", "uid": "u"}})]))
    stored = memory.get(WEB)
    assert stored is not None
    return stored


def record(memory: Objects, stored: Stored, message: str, now: float) -> None:
    write = event_write(memory, stored, "networking.istio.io/v1", "VirtualService", "Warning", "Refused", message, now,
                        bytes(16))  # fmt: skip
    memory.commit(memory.plan([write]))


def test_the_same_again_is_counted() -> None:
    memory = Objects()
    stored = about(memory)
    record(memory, stored, "why", 1000.0)
    record(memory, stored, "why", 1060.0)
    record(memory, stored, "else", 1060.0)
    events = [one.object() for one in memory.all("events", "shop")]
    assert sorted((one["message"], one["count"]) for one in events) == [("else", 1), ("why", 2)]
    one = next(one for one in events if one["count"] == 2)
    assert (one["firstTimestamp"], one["lastTimestamp"]) == ("1970-01-01T00:16:40Z", "1970-01-01T00:17:40Z")
    assert one["involvedObject"]["name"] == "web" and one["involvedObject"]["uid"] == "u"
    assert one["source"] == {"component": "fairlead-control"}


def test_after_an_hour_of_silence_an_event_goes() -> None:
    memory = Objects()
    record(memory, about(memory), "why", 1000.0)
    assert outdated(memory, 1000.0 + TTL_S, 10) == []
    memory.commit(memory.plan(outdated(memory, 1001.0 + TTL_S, 10)))
    assert memory.all("events") == []


def test_when_an_event_was_seen_is_read_from_whatever_says_so() -> None:
    assert last_seen({"eventTime": "1970-01-01T00:00:05.000000Z", "lastTimestamp": None}) == 5
    assert last_seen({"series": {"lastObservedTime": "1970-01-01T00:00:09Z"}, "lastTimestamp": "nonsense"}) == 9
    assert last_seen({"metadata": {"creationTimestamp": "1970-01-01T00:00:03Z"}}) == 3
    assert last_seen({}) == 0


def test_the_newer_group_shows_the_same_event_under_other_names() -> None:
    body = {"metadata": {"name": "e"}, "involvedObject": {"name": "web"}, "message": "why", "count": 2, "type": "x"}
    new = shown(body, NEW_VERSION)
    assert new == {"metadata": {"name": "e"}, "regarding": {"name": "web"}, "note": "why", "deprecatedCount": 2,
                   "type": "x"}  # fmt: skip
    assert stored({"apiVersion": NEW_VERSION, **new}) == {"apiVersion": NEW_VERSION, **body}
    assert shown(body, "v1") is body and stored(body) is body
    assert stored_selector("regarding.name=web", NEW_VERSION) == "involvedObject.name=web"
