"""What control planes tell each other of their sidecars, and how one is found to be dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from fairlead.control import shared_sidecars
from fairlead.control.feed_server import FeedServer
from fairlead.control.push import Book
from fairlead.control.shared_sidecars import DEAD_S, SharedSidecars, Signs, agree_on_authority
from fairlead.control.sidecars import AWAY_S, Known
from fairlead.control.store import Store, StoreError
from fairlead.control.store_shared import SharedStore
from tests.control.storages import storages
from tests.e2e.roles import until

WEB = Known("default", "web-1", "10.0.0.1", 15006, "web")


def test_a_sign_that_does_not_change_means_death_after_a_while_by_our_own_clock() -> None:
    signs = Signs()
    signs.take({"a": b"1", "b": b"1"}, 100.0)
    signs.take({"a": b"2", "b": b"1"}, 100.0 + DEAD_S - 1)
    now = 100.0 + DEAD_S + 0.5
    assert signs.alive("a", now)
    assert not signs.alive("b", now)


def test_nobody_is_dead_for_the_time_in_which_we_could_not_look() -> None:
    signs = Signs()
    signs.take({"a": b"1"}, 100.0)
    signs.pause(500.0)
    assert signs.alive("a", 601.0)
    assert not signs.alive("a", 600.0 + DEAD_S + 1)


def test_who_was_never_seen_is_given_time() -> None:
    signs = Signs()
    assert signs.alive("x", 100.0)
    assert not signs.alive("x", 100.0 + DEAD_S)


def test_old_signs_are_to_be_deleted() -> None:
    signs = Signs()
    signs.take({"a": b"1"}, 100.0)
    assert signs.forgotten(["a"], 200.0) == []
    assert signs.forgotten(["a"], 100.0 + shared_sidecars.FORGOTTEN_S + 1) == ["a"]


@pytest.fixture(scope="module")
def new(tmp_path_factory: Any) -> Iterator[Any]:
    with storages("etcd", tmp_path_factory.mktemp("etcd")) as make:
        yield make


class Plane:
    """A control plane's part that speaks to others."""

    def __init__(self, store: Store, name: str) -> None:
        assert isinstance(store, SharedStore)
        self.book = Book(name)
        self.feed = FeedServer(self.book, lambda *_: None, lambda: None)
        self.changes = 0
        self.shared = SharedSidecars(store, self.book, self.feed, self._changed)
        self.task = asyncio.ensure_future(self.shared.run())

    def _changed(self) -> None:
        self.changes += 1

    def there(self) -> list[str]:
        return [one.key for one in self.shared.elsewhere()[0]]

    def nowhere(self) -> list[str]:
        return [one.key for one in self.shared.elsewhere()[1]]

    async def close(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.shared.close()


@pytest_asyncio.fixture
async def planes(new: Any) -> AsyncIterator[tuple[Plane, Plane]]:
    storage = new()
    async with storage.open() as first, storage.open() as second:
        pair = Plane(first, "aa"), Plane(second, "bb")
        yield pair
        for one in pair:
            await one.close()


async def is_true(value: Any) -> Any:
    return value


@pytest.mark.asyncio
async def test_a_sidecar_of_one_is_known_to_the_other_and_moves_without_a_gap(planes: tuple[Plane, Plane]) -> None:
    one, two = planes
    one.shared.connected([WEB])
    await until("web at two", lambda: is_true(two.there() == ["default/web-1"]))
    assert two.shared.elsewhere()[0] == [WEB]
    one.shared.connected([])
    two.shared.connected([WEB])
    await until("web at one", lambda: is_true(one.there() == ["default/web-1"]))
    assert one.nowhere() == two.nowhere() == []


@pytest.mark.asyncio
async def test_a_sidecar_that_does_not_come_back_is_gone_after_a_moment(planes: tuple[Plane, Plane]) -> None:
    one, two = planes
    one.shared.connected([WEB])
    await until("web at two", lambda: is_true(two.there()))
    begun = asyncio.get_running_loop().time()
    one.shared.connected([])
    await until("web nowhere", lambda: is_true(two.nowhere() == ["default/web-1"]))
    assert asyncio.get_running_loop().time() - begun >= shared_sidecars.MOVE_S - 0.1
    two.shared.forget(["default/web-1"])
    await until("nothing", lambda: is_true(one.nowhere() == []))


@pytest.mark.asyncio
async def test_one_of_all_leads_and_when_it_ends_the_other_does(planes: tuple[Plane, Plane]) -> None:
    one, two = planes

    async def one_leads() -> bool:
        return one.shared.leads() and not two.shared.leads()

    await until("one leader", one_leads)
    await one.close()
    await until("the other", lambda: is_true(two.shared.leads()))


@pytest.mark.asyncio
async def test_who_was_nowhere_for_long_is_deleted_by_the_one_that_leads(planes: tuple[Plane, Plane]) -> None:
    one, two = planes
    one.shared.connected([WEB, replace(WEB, workload="web-2"), replace(WEB, workload="web-3")])
    await until("all at two", lambda: is_true(len(two.there()) == 3))
    one.shared.connected([WEB])
    both = ["default/web-2", "default/web-3"]
    await until("nowhere", lambda: is_true(sorted(two.nowhere()) == both))
    await until("nowhere", lambda: is_true(sorted(one.nowhere()) == both))  # who wrote it may hear it last
    await until("a leader", lambda: is_true(one.shared.leads()))
    declared = {"default/web-2"}.__contains__
    await two.shared.expire(declared, 1000.0 + AWAY_S)  # it does not lead
    await one.shared.expire(declared, 1000.0)
    await one.shared.expire(declared, 1000.0 + AWAY_S)
    assert sorted(one.nowhere()) == both
    await one.shared.expire(declared, 1001.0 + AWAY_S)
    await until("gone", lambda: is_true(two.nowhere() == ["default/web-2"] and two.there() == ["default/web-1"]))


@pytest.mark.asyncio
async def test_one_thing_of_a_beat_that_fails_holds_up_no_other(planes: tuple[Plane, Plane]) -> None:
    (one, _), beats = planes, 0

    async def fails() -> None:
        raise StoreError("too large")

    async def works() -> None:
        nonlocal beats
        beats += 1

    one.shared.on_beat += [fails, works]
    await until("a beat", lambda: is_true(beats))


class OfFile:
    """What a control plane has for roots."""

    ONE = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    TWO = "-----BEGIN CERTIFICATE-----\nBBBB\n-----END CERTIFICATE-----\n"


@pytest.mark.asyncio
async def test_control_planes_must_have_an_authority_in_common(new: Any, tmp_path: Path) -> None:
    async with new().open() as store:
        await agree_on_authority(store, OfFile.ONE, "here")
        with pytest.raises(ValueError, match=r"there has another certificate authority.*copy ca-key\.pem"):
            await agree_on_authority(store, OfFile.TWO, "there")
        await agree_on_authority(store, OfFile.ONE + OfFile.TWO, "rotating")
        await agree_on_authority(store, OfFile.TWO, "rotated")
