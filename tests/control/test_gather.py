"""Work that many changes ask for: at once where it is rare, and no more often than its pause where it is not."""

from __future__ import annotations

import asyncio

import pytest

from fairlead.control.gather import Gather

pytestmark = pytest.mark.asyncio


async def test_what_is_asked_for_in_one_turn_is_done_once_and_at_once() -> None:
    done: list[int] = []
    gather = Gather(lambda: done.append(1))
    for _ in range(5):
        gather.ask()
    assert done == []
    await asyncio.sleep(0)
    assert done == [1]


async def test_between_two_is_the_pause_and_what_comes_meanwhile_is_one() -> None:
    loop = asyncio.get_running_loop()
    at: list[float] = []
    twice = asyncio.Event()

    def work() -> None:
        at.append(loop.time())
        if len(at) == 2:
            twice.set()

    gather = Gather(work, lambda: 0.03)
    gather.ask()
    await asyncio.sleep(0)
    for _ in range(5):
        gather.ask()
        await asyncio.sleep(0)
    assert len(at) == 1
    await asyncio.wait_for(twice.wait(), 10)
    assert at[1] - at[0] >= 0.025


async def test_what_waits_can_be_done_now_and_nothing_is_done_after_the_end() -> None:
    done: list[int] = []
    gather = Gather(lambda: done.append(1), lambda: 60.0)
    gather.now()
    assert done == []
    gather.ask()
    await asyncio.sleep(0)
    gather.ask()
    gather.now()
    assert done == [1, 1]
    gather.ask()
    gather.close()
    await asyncio.sleep(0)
    assert done == [1, 1]


async def test_what_is_urgent_waits_for_no_pause() -> None:
    done: list[int] = []
    gather = Gather(lambda: done.append(1), lambda: 60.0)
    gather.ask(urgent=True)
    await asyncio.sleep(0)
    gather.ask()  # waits for a minute
    assert done == [1]
    gather.ask(urgent=True)
    async with asyncio.timeout(10):
        while len(done) < 2:
            await asyncio.sleep(0)
    gather.ask()
    await asyncio.sleep(0)
    assert done == [1, 1], "one that is not urgent waits again"
    gather.close()
