"""The watch cell: waiting for what is newer, callbacks, the end of both."""

from __future__ import annotations

import asyncio

import pytest

from fairlead.registry.watch import Cell

pytestmark = pytest.mark.asyncio


async def test_who_waits_gets_the_next_value_and_who_is_behind_the_latest() -> None:
    cell = Cell(0)
    waiting = asyncio.ensure_future(cell.wait(0))
    await asyncio.sleep(0)
    assert not waiting.done()
    cell.set(1)
    cell.set(2)
    assert await waiting == 2
    assert await cell.wait(0) == 2
    assert cell.version == 2


async def test_a_waiter_that_gives_up_is_forgotten() -> None:
    cell = Cell(0)
    waiting = asyncio.ensure_future(cell.wait(0))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert not cell._waiting
    cell.set(1)


async def test_callbacks_run_at_once_until_they_are_taken_back() -> None:
    cell = Cell(0)
    heard: list[int] = []
    stop = cell.subscribe(heard.append)
    cell.set(1)
    stop()
    stop()
    cell.set(2)
    assert heard == [1]
