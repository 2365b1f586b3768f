"""What is in force for a time: deadlines on our own clock, and going back without control, also after a restart."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.mesh import feed, provisional
from fairlead.mesh.provisional import GRACE_S, Provisional
from fairlead.mesh.update import Holdings, UnreadableError
from tests.mesh.test_feed import Built, Following, line, running
from tests.mesh.test_update import holdings

A = "object/virtualservices.networking.istio.io/default/a"
B = "object/virtualservices.networking.istio.io/default/b"
OLD, NEW = {"kind": "VirtualService", "spec": "old"}, {"kind": "VirtualService", "spec": "new"}


def message(version: str, set: dict[str, Any], remove: tuple[str, ...] = (), full: bool = False) -> bytes:
    return json.dumps({"version": version, "full": full, "set": set, "remove": remove}).encode()


def until(deadline: float, **before: Any) -> dict[str, Any]:
    return {"provisional/c1": {"deadline": deadline, "timeout": 60.0, "before": before}}


@given(st.floats(0, 1e9), st.floats(1, 86400), st.floats(0, 1e9))
def test_what_has_just_come_ends_within_its_timeout_whatever_our_clock_says(
    deadline: float, timeout: float, now: float
) -> None:
    one = Provisional(deadline, timeout)
    one.arrived(now)
    assert now < one.deadline <= now + timeout
    assert not one.is_due(now)
    assert one.is_due(now + timeout + GRACE_S + 1e-3)


def held() -> Holdings:
    made = holdings()
    made.apply(message("e.1", {A: OLD}, full=True))
    made.apply(message("e.2", {A: NEW, B: NEW, **until(160.0, **{A: OLD, B: None})}))
    made.arrived(100.0)
    return made


def test_at_the_deadline_objects_are_as_before_and_control_is_asked_for_everything() -> None:
    made = held()
    assert made.deadline() == 160.0
    assert made.take_back(160.0) == []
    assert made.take_back(160.0 + GRACE_S) == ["c1"]
    assert (json.loads(made.raw[A]), B in made.raw, made.version, made.deadline()) == (OLD, False, "", None)
    with pytest.raises(UnreadableError, match="taken back here"):
        made.apply(message("e.3", {}, ("provisional/c1",)))
    made.apply(message("e.3", {A: NEW}, full=True))  # it was confirmed after all
    assert json.loads(made.raw[A]) == NEW
    made.apply(message("e.4", {B: NEW}))


def test_what_is_confirmed_stays() -> None:
    made = held()
    made.apply(message("e.3", {}, ("provisional/c1",)))
    assert made.take_back(1e9) == []
    assert (json.loads(made.raw[A]), json.loads(made.raw[B]), made.version) == (NEW, NEW, "e.3")


def test_the_deadline_on_disk_is_that_of_our_own_clock() -> None:
    made = holdings()
    made.apply(message("e.1", {A: NEW, **until(5.0, **{A: OLD})}, full=True))
    made.arrived(1000.0)  # our clock is far ahead of control's
    again = holdings()
    again.apply(made.kept()())
    assert again.deadline() == 1060.0
    assert again.take_back(1060.0 + GRACE_S) == ["c1"]
    assert json.loads(again.raw[A]) == OLD


@pytest.mark.asyncio
async def test_the_feed_goes_back_by_itself_while_control_is_silent_and_keeps_that_on_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provisional, "GRACE_S", 0.0)
    monkeypatch.setattr(feed, "GRACE_S", 0.0)
    keep = tmp_path / "feed.json"
    async with running(Following(keep)) as it:
        connection = await it.connected()
        connection.say(line("e.1", "old", full=True))
        await it.acked()
        soon = {"provisional/c1": {"deadline": time.time() + 0.1, "timeout": 0.1, "before": {"namespace/new": None}}}
        connection.say(message("e.2", {"namespace/new": {}, **soon}) + b"\n")
        await it.acked()
        assert it.sidecar.worlds[-1] == ["new", "old"]
        while b"provisional" in keep.read_bytes():
            await asyncio.sleep(0)
        assert it.sidecar.worlds[-1] == ["old"]
        connection.say(line("e.3", "other"))  # a difference, counted from what is not held any more
        again = await it.connected()
        assert again.query["since"] == ""
        again.say(line("e.3", "old", "other", full=True))
        assert (await it.acked())[1]
        assert it.sidecar.worlds[-1] == ["old", "other"]


@pytest.mark.asyncio
async def test_after_a_restart_what_has_ended_meanwhile_is_not_in_force(tmp_path: Path) -> None:
    keep = tmp_path / "feed.json"
    gone = {"provisional/c1": {"deadline": time.time() - 10, "timeout": 60, "before": {"namespace/new": None}}}
    keep.write_bytes(message("e.2", {"namespace/old": {}, "namespace/new": {}, **gone}, full=True))
    it = Following(keep)
    assert it.feed.start_from_disk()
    assert it.sidecar.worlds == [["old"]]
    async with running(it):
        assert (await it.connected()).query["since"] == ""


def test_a_provisional_item_that_cannot_be_read_refuses_the_version() -> None:
    from fairlead.mesh.update import RefusedError

    with pytest.raises(RefusedError):
        Holdings(Built).apply(message("e.1", {"provisional/c1": {"deadline": "soon"}}, full=True))
