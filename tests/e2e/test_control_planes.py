"""Three control planes on one store, killed and restarted under load with the store's own nodes: one history.

At length: FAIRLEAD_PLANES_S=600 pytest tests/e2e/test_control_planes.py
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import shutil
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.planes import Load
from tests.e2e.planes_checker import Event, History, Op, Watcher, check
from tests.e2e.roles import Role, Roles, free_port, roles_in, until
from tests.servers import Server, consul_cluster, etcd_cluster

pytestmark = pytest.mark.asyncio
LOAD_S = float(os.environ.get("FAIRLEAD_PLANES_S", "9"))
PLANES = 3


class Planes:
    """Control planes of one store; each has its own data directory and port, and they have one authority."""

    def __init__(self, roles: Roles, store: str) -> None:
        self.roles = roles
        self.store = store
        self.ports: list[int] = []
        self.running: list[Role] = []

    async def start(self, count: int) -> None:
        self.ports = [free_port() for _ in range(count)]
        self.running.append(await self.begin(0))
        for number in range(1, count):
            (folder := self.roles.folder / f"data{number}").mkdir()
            for name in ("ca-key.pem", "ca.pem"):
                shutil.copy(self.roles.folder / "data0" / name, folder / name)
        self.running += await asyncio.gather(*(self.begin(number) for number in range(1, count)))

    async def begin(self, number: int) -> Role:
        return await self.roles.start(
            "control", "--store", self.store, "--data-dir", f"data{number}", "--listen",
            f"127.0.0.1:{self.ports[number]}",
        )  # fmt: skip

    @property
    def urls(self) -> list[str]:
        return [f"http://127.0.0.1:{port}" for port in self.ports]

    async def replace(self, number: int) -> None:
        await self.running[number].kill()
        self.running[number] = await self.begin(number)


@contextlib.asynccontextmanager
async def cluster(kind: str, folder: Path) -> AsyncIterator[tuple[list[Any], str]]:
    made = etcd_cluster(folder) if kind == "etcd" else consul_cluster(folder)
    async with made as members:
        hosts = ",".join(member.url.partition("://")[2] for member in members)
        yield members, f"{kind}://{hosts}/planes"


async def break_things(planes: Planes, members: list[Server], seconds: float, draw: random.Random) -> int:
    """A control plane killed, a node of the store killed or frozen, in turn; how often something was."""
    end, count = asyncio.get_running_loop().time() + seconds, 0
    while asyncio.get_running_loop().time() < end:
        await asyncio.sleep(0.5)
        member = draw.choice(members)
        number = draw.randrange(PLANES)
        if count % 2:
            member.freeze()
            await asyncio.gather(planes.replace(number), asyncio.sleep(1.5))
            member.thaw()
        else:
            await member.kill()
            await planes.running[number].kill()
            await asyncio.sleep(1.0)
            await member.start()
            planes.running[number] = await planes.begin(number)
        count += 1
    return count


@pytest.mark.parametrize("kind", ["etcd", "consul"])
async def test_nothing_is_lost_or_seen_twice_while_control_planes_and_store_nodes_are_killed(
    kind: str, tmp_path: Path
) -> None:
    async with cluster(kind, tmp_path) as (members, store), roles_in(tmp_path) as roles:
        planes = Planes(roles, store)
        await planes.start(PLANES)
        load = Load(planes.urls, seed=7)
        watchers = [asyncio.ensure_future(load.watch(f"watcher-{n}")) for n in range(4)]
        try:
            await until("watchers", lambda: as_async(len(load.history.watchers) == 4))
            writers = [asyncio.ensure_future(load.write(f"writer-{n}")) for n in range(4)]
            broken = await break_things(planes, members, LOAD_S, random.Random(5))
            load.stopping = True
            await asyncio.gather(*writers)
            await load.finish(until)
        finally:
            for task in watchers:
                task.cancel()
            ended = await asyncio.gather(*watchers, return_exceptions=True)
            await load.close()
        assert all(isinstance(one, asyncio.CancelledError) for one in ended), ended
        history = load.history
        outcomes = [op.outcome for op in history.ops]
        print(
            f"{kind}: {len(outcomes)} writes: {outcomes.count(True)} acknowledged, {outcomes.count(False)} refused, "
            f"{outcomes.count(None)} unknown; {sum(len(one.events) for one in history.watchers)} events, "
            f"{load.moves} moves of watchers, {broken} times something was broken"
        )
        assert check(history) == []
        assert outcomes.count(True) > 50
        assert broken >= 2
        assert load.moves > 0


async def as_async(value: Any) -> Any:
    return value


# --- the checker itself finds what it is to find --------------------------------------------------------------------


def good() -> History:
    events = [Event("ADDED", "a", 11, "m1"), Event("MODIFIED", "a", 12, "m2"), Event("DELETED", "a", 15, "m2")]
    ops = [
        Op("c", "put", "a", "m1", 0, True, 11),
        Op("c", "put", "a", "m2", 11, True, 12),
        Op("d", "put", "a", "m3", 11, False),
        Op("d", "put", "a", "m4", 11, None),
        Op("c", "delete", "a", "", 12, True),
    ]
    watchers = [Watcher("one", 10, {}, list(events)), Watcher("two", 11, {"a": (11, "m1")}, events[1:])]
    return History(ops, watchers, [(15, {}), (15, {})])


async def test_the_checker_finds_each_kind_of_fault_and_nothing_else() -> None:
    assert check(good()) == []
    faults: dict[str, Callable[[History], object]] = {
        "missed": lambda h: h.watchers[1].events.pop(0),
        "seen twice": lambda h: h.watchers[0].events.insert(1, h.watchers[0].events[0]),
        "to another watcher": lambda h: h.watchers[1].events.__setitem__(0, Event("MODIFIED", "a", 12, "other")),
        "acknowledged, and lost": lambda h: h.ops.append(Op("c", "put", "a", "m9", 12, True, 13)),
        "refused, and it happened": lambda h: h.ops.__setitem__(1, replace(h.ops[1], outcome=False)),
        "happened on version": lambda h: h.ops.__setitem__(1, replace(h.ops[1], expect=9)),
        "answered with version": lambda h: h.ops.__setitem__(1, replace(h.ops[1], version=13)),
        "nobody saw it go": lambda h: h.ops.__setitem__(
            slice(len(h.ops), None), [Op("c", "delete", "a", "", 11, True)]
        ),
        "happened 2 times": lambda h: [one.events.__iadd__([Event("ADDED", "a", 17, "m1")]) for one in h.watchers],
        "end with other objects": lambda h: h.finals.__iadd__([(15, {"a": (12, "m2")})]),
        "events lead to": lambda h: h.finals.__setitem__(slice(None), [(15, {"a": (12, "m2")})] * 2),
        "a list at": lambda h: h.watchers[0].listed.__setitem__("z", (99, "z")),
    }
    for expected, break_it in faults.items():
        history = good()
        break_it(history)
        assert any(expected in told for told in check(history)), (expected, check(history))
