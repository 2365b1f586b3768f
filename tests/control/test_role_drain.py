"""How a role ends: each step in its turn, measured, within one deadline, and said in the log."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any

import pytest

from fairlead.control import role_drain
from fairlead.control.role_drain import Departure
from fairlead.mesh.feed import Farewell
from fairlead.registry.needs import FetchError

pytestmark = pytest.mark.asyncio


class Stub:
    """Sidecar, feed and registration at once: what was asked of them, in order."""

    def __init__(self, farewell: Farewell | None = None, whole: bool = True) -> None:
        self.done: list[str] = []
        self.farewell = farewell
        self.whole = whole
        self.cut = [] if whole else [f"GET web/{n} from 10.0.0.{n}" for n in range(12)]
        self.asked_ready: dict[str, float] = {}
        self.stuck = False
        self.waits: list[float] = []

    def running(self) -> int:
        return 3

    def leave_sidecar(self) -> None:
        self.done.append("not ready")

    async def leave_feed(self, timeout_s: float) -> Farewell:
        self.done.append("control")
        self.waits.append(timeout_s)
        if self.farewell is None:
            raise FetchError("connection refused")
        return self.farewell

    async def close(self) -> None:
        self.done.append("registration")
        if self.stuck:
            await asyncio.Event().wait()

    async def drain(self, deadline_s: float, idle_s: float) -> bool:
        self.done.append("drain")
        self.waits.append(deadline_s)
        return self.whole

    async def drain_served(self, deadline_s: float) -> bool:
        self.done.append("drain served")
        self.waits.append(deadline_s)
        return self.whole


class AsFeed:
    def __init__(self, stub: Stub) -> None:
        self.leave = stub.leave_feed


class AsSidecar:
    def __init__(self, stub: Stub) -> None:
        self._stub = stub
        self.leave = stub.leave_sidecar
        self.drain, self.drain_served, self.running = stub.drain, stub.drain_served, stub.running
        self.cut, self.asked_ready = stub.cut, stub.asked_ready


def departure(
    stub: Stub, deadline_s: float = 30.0, minimum_s: float | None = None, feed: bool = True, registered: bool = False
) -> Departure:
    sidecar: Any = AsSidecar(stub)
    follows: Any = AsFeed(stub) if feed else None
    return Departure(sidecar, deadline_s, minimum_s, follows, stub if registered else None)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    monkeypatch.setattr(role_drain, "SETTLE_S", 0.01)
    monkeypatch.setattr(role_drain, "REGISTRATION_MARGIN_S", 0.02)
    caplog.set_level(logging.INFO)


async def test_not_ready_comes_first_and_the_measured_time_is_said(caplog: pytest.LogCaptureFixture) -> None:
    stub = Stub(Farewell("e.2", 0.031, 5))
    await departure(stub, registered=True).leave()
    assert stub.done == ["not ready", "control", "registration"]
    assert stub.waits == [15.0]
    assert "control, and 5 of 5 others after 0.031 s, know it" in caplog.text
    assert "the registration was taken back in 0." in caplog.text


async def test_who_does_not_know_yet_or_refuses_is_named(caplog: pytest.LogCaptureFixture) -> None:
    await departure(Stub(Farewell("e.2", 1.0, 3, ["sidecar/default/a"], ["sidecar/default/b"]))).leave()
    assert "1 of 3 others do not know it yet: sidecar/default/a" in caplog.text
    assert "1 of 3 others refuse the version that says it: sidecar/default/b" in caplog.text
    assert "1 of 3 others after 1.000 s, know it" in caplog.text


async def test_without_control_the_drain_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    stub = Stub()
    leaving = departure(stub)
    await leaving.leave()
    assert await leaving.finish()
    assert stub.done == ["not ready", "control", "drain"]
    assert "control cannot be told (connection refused)" in caplog.text


async def test_from_manifests_alone_nothing_is_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    stub = Stub()
    leaving = departure(stub, feed=False)
    async with asyncio.timeout(1):
        await leaving.leave()
    assert "nobody to tell" in caplog.text


async def test_a_registration_that_cannot_be_taken_back_takes_half_the_deadline(
    caplog: pytest.LogCaptureFixture,
) -> None:
    stub = Stub()
    stub.stuck = True
    leaving = departure(stub, deadline_s=0.1, feed=False, registered=True)
    await leaving.leave()
    assert "could not be taken back within 0.05 s" in caplog.text
    assert 0 < leaving.left_s() < 0.06


async def test_the_minimum_is_kept_and_within_half_the_deadline(caplog: pytest.LogCaptureFixture) -> None:
    loop = asyncio.get_running_loop()
    for deadline_s, takes_s in ((10.0, 0.1), (0.1, 0.05)):
        begun = loop.time()
        await departure(Stub(), deadline_s, minimum_s=0.1, feed=False).leave()
        assert takes_s <= loop.time() - begun + 0.001
    assert "at least 0.1 s, as --minimum-drain says" in caplog.text


@pytest.mark.parametrize(("who", "counts"), [("10.0.0.9", True), ("127.0.0.1", False), ("::1", False)])
async def test_another_host_that_polls_readiness_makes_a_minimum(
    who: str, counts: bool, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(role_drain, "MINIMUM_POLLED_S", 0.02)
    stub = Stub()
    stub.asked_ready[who] = time.monotonic()
    await departure(stub, feed=False).leave()
    assert (f"since {who} checks readiness" in caplog.text) == counts


async def test_a_job_that_has_ended_waits_for_nobody() -> None:
    stub = Stub(Farewell("e.2", 0.0, 5, ["sidecar/default/a"]))
    async with asyncio.timeout(1):
        await departure(stub, minimum_s=20.0).leave(wait=False)
    assert stub.waits == [0.0]


async def test_all_steps_share_one_deadline() -> None:
    stub = Stub(Farewell("e.2", 0.0, 0))
    leaving = departure(stub, deadline_s=10.0)
    await leaving.leave()
    await leaving.finish_served()
    await leaving.finish()
    asked, served, rest = stub.waits
    assert asked == 5.0
    assert served <= 5.0
    assert rest <= 10.0


async def test_what_the_deadline_cuts_off_is_counted_and_named(caplog: pytest.LogCaptureFixture) -> None:
    assert not await departure(Stub(whole=False), feed=False).finish()
    assert "the deadline of 30 s cut off 12: GET web/0 from 10.0.0.0; " in caplog.text
    assert "GET web/9 from 10.0.0.9; and 2 more" in caplog.text
