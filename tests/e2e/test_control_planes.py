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
from tests.e2e.roles import Role, Roles, apps, ask, client, free_port, roles_in, until
from tests.servers import Server, consul_cluster, etcd, etcd_cluster

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


HOST = "web.default.svc.cluster.local"
RULES = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: %d}]}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}
"""


async def sidecar(planes: Planes, name: str, first: int, *more: str) -> Role:
    """With a token that one control plane made; its feed begins at another, and knows them all."""
    token = planes.roles.folder / f"{name}.token"
    made = await planes.roles.command(
        "token", "create", "--service-account", name, "--labels", f"app={name}", "--control", planes.urls[0]
    )
    token.write_text(made[1])
    urls = planes.urls[first:] + planes.urls[:first]
    return await planes.roles.start(
        "sidecar", "--workload", f"default/{name}-1", *(part for url in urls for part in ("--control", url)),
        "--token-file", str(token), "--service-account", name, "--labels", f"app={name}", "--outbound", "127.0.0.1:0",
        "--inbound", f"127.0.0.1:{free_port()}", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0", "--metrics",
        "127.0.0.1:0", "--data-dir", str(planes.roles.folder / name), *more,
    )  # fmt: skip


async def test_sidecars_of_different_control_planes_find_each_other_and_move_when_one_dies(tmp_path: Path) -> None:
    """web is known only by what its sidecar tells one control plane; front asks the other."""
    async with etcd(tmp_path) as server, roles_in(tmp_path) as roles, apps("web") as (app,), client() as session:
        planes = Planes(roles, f"etcd://{server.url.partition('://')[2]}/mesh")
        await planes.start(2)
        one, two = planes.urls
        code, out, err = await roles.command("apply", "-f", "-", "--control", two, stdin=(RULES % app.port).encode())
        assert code == 0, out + err
        web = await sidecar(planes, "web", 0, "--ports", str(app.port), "--address", "127.0.0.1")
        front = await sidecar(planes, "front", 1)

        async def get(url: str, path: str) -> Any:
            async with session.get(url + path) as answer:
                return await answer.json()

        async def served() -> bool:
            return (await ask(session, front, HOST))[0] == 200

        async def seated(url: str) -> list[str]:
            return [one["workload"] for one in (await get(url, "/fairlead/v1/sidecars"))["sidecars"]]

        async def counted() -> bool:
            path = "/apis/networking.istio.io/v1/namespaces/default/virtualservices/web"
            return ((await get(one, path)).get("status") or {}).get("sidecars") == {
                "total": 2, "running": 2, "waiting": 0, "refused": 0
            }  # fmt: skip

        await until("a way from front to web", served)
        assert (await seated(one), await seated(two)) == (["web-1"], ["front-1"])
        code, out, err = await roles.command("apply", "-f", "-", "--control", one, stdin=ROUTE.encode())
        assert code == 0, out + err
        await until("a status that counts the sidecars of both", counted)

        await planes.running[0].kill()
        failed = []

        async def moved() -> bool:
            if not await served():
                failed.append(1)
            return await seated(two) == ["front-1", "web-1"]

        await until("web at the other control plane", moved)
        assert not failed
        assert await served()

        planes.running[0] = await planes.begin(0)  # web stays where it is, and is known here by the store
        fresh = await sidecar(planes, "fresh", 0)
        assert await seated(one) == ["fresh-1"]

        async def served_fresh() -> bool:
            return (await ask(session, fresh, HOST))[0] == 200

        await until("a way from fresh to web", served_fresh)
        await web.stop()  # a drain ends when the sidecars of both control planes know
        assert "fresh-1" not in web.log, web.log
        assert (await ask(session, fresh, HOST))[0] == 503
        assert (await ask(session, front, HOST))[0] == 503


async def test_a_control_plane_of_another_authority_is_refused_with_what_to_do(tmp_path: Path) -> None:
    async with etcd(tmp_path) as server, roles_in(tmp_path) as roles:
        planes = Planes(roles, f"etcd://{server.url.partition('://')[2]}/mesh")
        await planes.start(1)
        planes.ports.append(free_port())
        code, _, err = await roles.command("control", "--store", planes.store, "--data-dir", "other", "--listen", "off",
                                           "--tls-listen", "127.0.0.1:0")  # fmt: skip
        assert code == 2
        assert "copy ca-key.pem and ca.pem" in err


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
