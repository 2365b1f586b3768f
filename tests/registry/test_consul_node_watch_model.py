"""A node of Consul is followed through thousands of random hours: nothing is lost or late, and there is no chase."""

from __future__ import annotations

import asyncio
import random
from typing import Any

import pytest

from fairlead.registry.consul_node_watch import NodeWatch
from tests import virtual_time

WAIT_S, SLOW_S = 20.0, 0.2
LATE_S = 8 * SLOW_S
"""A change has been heard of by then: the answer of the query that waits, the one in full, and one under way before."""


class Node:
    """As Consul answers of a node: by the index of everything, and from a wait for the node's changes alone. Requests
    and answers are under way for a random time."""

    def __init__(self, draw: random.Random, slow_s: float = SLOW_S) -> None:
        self.draw, self.slow_s = draw, slow_s
        self.index = self.here = 1
        self.at: dict[int, float] = {}
        """When the node changed, by index."""
        self.full = self.asked = 0
        self.changed = asyncio.Event()

    async def get(
        self, path: str, index: int = 0, decode: Any = None, *, fresh: bool = False, more: str = "", wait_s: float = 0.0
    ) -> tuple[int, Any]:
        await asyncio.sleep(self.draw.uniform(0, self.slow_s))
        answer = self.index, self.here
        if not index:
            self.full += 1
        else:
            self.asked += 1
            if answer[0] <= index:  # the wait goes on until the index passes, also over changes of the node before it
                try:
                    async with asyncio.timeout(wait_s * self.draw.uniform(1, 17 / 16)):
                        while answer[0] <= index:
                            await self.changed.wait()
                            answer = self.index, self.here
                except TimeoutError:
                    pass
        await asyncio.sleep(self.draw.uniform(0, self.slow_s))
        return answer[0], answer[1] if not index else None

    def change(self, here: bool) -> None:
        self.index += 1
        if here:
            self.here = self.index
            self.at[self.index] = asyncio.get_running_loop().time()
            self.changed.set()
            self.changed.clear()


async def follow(seed: int) -> tuple[Node, int]:
    draw = random.Random(seed)
    node, loop, heard = Node(draw), asyncio.get_running_loop(), [0]
    late: list[str] = []

    def hear(index: Any) -> None:
        for at in [at for at in node.at if at <= index]:
            if loop.time() - node.at[at] > LATE_S:
                late.append(f"of {at} after {loop.time() - node.at[at]:.2f} s")
            del node.at[at]
        heard[0] = max(heard[0], index)

    watch = NodeWatch(node.get, "/n", lambda: WAIT_S * draw.uniform(0.75, 1), hear, lambda: False)
    task = asyncio.ensure_future(watch.run())
    here = 0
    for _ in range(40):
        for _ in range(draw.choice((0, 1, 3, 30))):
            await asyncio.sleep(draw.choice((0.0, 0.01, 0.3, 5.0)) * draw.random())
            mine = draw.random() < draw.choice((0.0, 0.1, 1.0))
            here += mine
            node.change(mine)
        await asyncio.sleep(draw.choice((0.0, 1.0, 18.0, 60.0)) * draw.random())
    await asyncio.sleep(LATE_S)
    assert heard[0] == node.here, "the last change was not heard of"
    assert not task.done(), task
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert not late, late
    assert len(asyncio.all_tasks()) == 1, "queries are left under way"
    return node, here


@pytest.mark.parametrize("seed", range(150))
def test_every_change_is_heard_of_in_time_and_read_about_once(seed: int) -> None:
    node, here = virtual_time.run(follow(seed))
    assert node.full <= 10 + 2 * here


def test_a_busy_consul_is_not_asked_in_full_because_others_change() -> None:
    async def busy() -> tuple[int, int]:
        draw = random.Random(7)
        node = Node(draw, 0.01)
        watch = NodeWatch(node.get, "/n", lambda: WAIT_S, lambda _: None, lambda: False)
        task = asyncio.ensure_future(watch.run())
        for _ in range(3600 * 5):
            await asyncio.sleep(0.2)  # virtual time
            node.change(here=False)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return node.full, node.asked

    full, asked = virtual_time.run(busy())
    assert full <= 5, "of two hundred waits the next begins in time"
    assert asked <= 1000
