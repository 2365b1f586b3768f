"""Whatever happens to a catalog, and however it answers in between, the facts become what it has."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable

import pytest

from fairlead.registry import source_consul
from fairlead.registry.consul_catalog import ConsulSettings
from fairlead.registry.source_consul import ConsulSource
from tests.registry.consul_model import DEAF, FAULTS, Model, VirtualLoop
from tests.registry.following import Heard

CALM_S = 25.0
"""Within this a change is seen where nothing fails: a wait, for what its own watch does not hear of."""
HEALED_S = 75.0
"""The same since the last fault: a look that hangs, the pause after it, a wait, and the second look (10 s)."""
SEEDS = 30
"""For each kind of story and number of watches."""
STEPS = 30


class World:
    """A catalog, what happens to it, and who follows it."""

    def __init__(self, seed: int) -> None:
        self.draw = random.Random(seed)
        self.model = Model(self.draw)
        self.heard = Heard()
        self.source = ConsulSource(self.model, ConsulSettings(), self.heard.update, self.heard.tell)
        self.services, self.nodes = self.draw.choice((3, 6, 9)), self.draw.choice((1, 3, 9))
        self.port = 1000
        self.kept: set[tuple[str, str, int]] = set()
        """What was known when Consul fell silent, and was in the catalog ever since."""

    def facts(self) -> dict[str, dict[tuple[str, int], bool]]:
        return {
            host.split(".")[0]: {(one.address, one.port): one.ready for one in endpoints}
            for host, endpoints in self.heard.facts.endpoints.items()
        }

    def differs(self) -> bool:
        return self.facts() != self.model.tables.truth()

    def change(self) -> None:
        draw, model = self.draw, self.model
        have = [(node, own) for node, on in model.tables.nodes.items() for own in on.instances]
        kind = draw.random()
        if kind < 0.45 or not have:
            self.port += 1
            node, service = f"n{draw.randrange(self.nodes)}", f"s{draw.randrange(self.services)}"
            model.register(node, f"{service}-{draw.randrange(2)}", service, self.port)
        elif kind < 0.65:
            model.deregister(*draw.choice(have))
        elif kind < 0.7:
            model.lose_node(draw.choice(have)[0])
        elif kind < 0.72:  # its size changes
            self.services, self.nodes = draw.choice((2, 6, 9)), draw.choice((1, 3, 9))
            for node, own in have:
                if int(own[1]) >= self.services:
                    model.deregister(node, own)
        else:
            node, own = draw.choice(have)
            model.check(node, own if draw.random() < 0.7 else "", draw.random() < 0.5)
        self.kept &= {(name, *at) for name, found in model.tables.truth().items() for at in found}

    def unharmed(self) -> None:
        lost = self.kept - {(name, *at) for name, found in self.facts().items() for at in found}
        assert not lost, f"removed under {self.model.fault!r}: {lost}"

    async def settled(self, within_s: float) -> None:
        for _ in range(int(within_s * 2)):
            if not self.differs() and self.heard.status.state == "live" and not self.heard.status.error:
                return
            await asyncio.sleep(0.5)
        now, status, mine, right = asyncio.get_running_loop().time(), self.heard.status, self.facts(), self.model.tables
        other = {n: (mine.get(n), right.truth().get(n)) for n in {*mine, *right.truth()}
                 if mine.get(n) != right.truth().get(n)}  # fmt: skip
        raise AssertionError(f"at {now:.1f}: {status.state} {status.error!r}, (facts, truth): {other}")

    async def fail(self) -> None:
        """For some time, in which there are changes."""
        model, draw = self.model, self.draw
        fault = draw.choice(FAULTS)
        self.kept = {(name, *at) for name, found in self.facts().items() for at in found}
        self.kept &= {(name, *at) for name, found in model.tables.truth().items() for at in found}
        self.kept = self.kept if fault in DEAF else set()
        model.fault = fault
        for _ in range(draw.randrange(1, 6)):
            await asyncio.sleep(draw.choice((0.1, 1.0, 8.0, 30.0)) * draw.random())
            self.unharmed()
            self.change()
        if draw.random() < 0.2:
            model.restore()
        model.fault, self.kept = "", set()


async def followed(world: World, story: Callable[[World], Awaitable[None]]) -> None:
    """The story, during which nothing of ours dies, and after which nothing is left."""
    own = asyncio.current_task()
    task = asyncio.ensure_future(world.source.run())
    told = asyncio.ensure_future(story(world))
    await asyncio.wait((task, told), return_when=asyncio.FIRST_COMPLETED)
    if task.done():
        told.cancel()
        task.result()
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await world.source.close()
    left = asyncio.all_tasks() - {own, told}
    assert not left, left
    assert not world.model.open
    told.result()


def play(seed: int, story: Callable[[World], Awaitable[None]]) -> None:
    random.seed(seed)

    async def main() -> None:
        await followed(World(seed), story)

    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        runner.run(main())


@pytest.fixture(autouse=True)
def few_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(source_consul, "WATCHES_MAX", 4)


async def calm(world: World) -> None:
    for _ in range(STEPS):
        for _ in range(world.draw.choice((1, 1, 2, 6))):
            world.change()
            await asyncio.sleep(world.draw.choice((0.0, 0.03, 0.5)) * world.draw.random())
        if world.draw.random() < 0.4:
            await world.settled(CALM_S)
    await world.settled(CALM_S)


async def stormy(world: World) -> None:
    for _ in range(STEPS // 4):
        for _ in range(world.draw.choice((1, 2, 6))):
            world.change()
            await asyncio.sleep(world.draw.choice((0.0, 0.03, 2.0)) * world.draw.random())
        await world.fail()
        if world.draw.random() < 0.5:
            await world.settled(HEALED_S)
    await world.settled(HEALED_S)


@pytest.mark.parametrize("watches", [1, 3, 20])
@pytest.mark.parametrize("story", [calm, stormy])
def test_the_facts_become_what_the_catalog_has(
    monkeypatch: pytest.MonkeyPatch, story: Callable[[World], Awaitable[None]], watches: int
) -> None:
    monkeypatch.setattr(source_consul, "WATCHES_MOST", watches)
    failed: dict[int, str] = {}
    for seed in range(SEEDS):
        try:
            play(seed, story)
        except Exception as error:
            failed[seed] = f"{type(error).__name__}: {error}"[:600]
    assert not failed, "\n".join(f"{seed}: {why}" for seed, why in failed.items())
