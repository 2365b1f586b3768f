"""Work beside the loop: who waits, who pays; and others are served amid the largest bodies."""

from __future__ import annotations

import asyncio
import gc
import itertools
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.api import Options
from fairlead.control.api_limits import Limits
from fairlead.control.aside import Thread, metered
from fairlead.control.kinds import load_yaml
from fairlead.control.role_control import GARBAGE
from tests.control.serving import SERVICES, VIRTUAL_SERVICES, Client, api_in, service, virtual_service

SOON_S = 0.25
ME: list[dict[str, Any]] = [{"Authorization": f"Bearer {letter * 32}"} for letter in "rab"]
ROOT, ANN, BOB = ME


@pytest.fixture
def garbage_as_in_control() -> Iterator[None]:
    """Collections of all that pytest holds would hold up the loop for longer than any request."""
    before = gc.get_threshold()
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GARBAGE)
    yield
    gc.set_threshold(*before)
    gc.unfreeze()


def settings(folder: Path, limits: Limits) -> Options:
    file = folder / "tokens"
    lines = [
        f"{letter * 32} {name}{more}"
        for letter, name, more in (("r", "root", ""), ("a", "ann", " -"), ("b", "bob", " -"))
    ]
    file.write_text("\n".join(lines))
    return Options(admin_token_file=str(file), audit_file=str(folder / "audit"), limits=limits)


async def let_edit(client: Client, *users: str) -> None:
    bindings = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/rolebindings"
    made = {"metadata": {"name": "editors"}, "roleRef": {"kind": "ClusterRole", "name": "admin"},
            "subjects": [{"kind": "User", "name": user} for user in users]}  # fmt: skip
    await client.post(bindings, made, **ROOT)


def large(name: str, routes: int = 9_000) -> bytes:
    made = virtual_service(name)
    route = {"route": [{"destination": {"host": "web"}}]}
    made["spec"]["http"] = [{"match": [{"uri": {"prefix": f"/a{n}"}}], **route} for n in range(routes)]
    return json.dumps(made).encode()


@pytest.mark.asyncio
@pytest.mark.usefixtures("garbage_as_in_control")
async def test_in_a_flood_of_the_largest_bodies_others_are_served_soon(tmp_path: Path) -> None:
    bodies = [large(f"big-{n}") for n in range(4)]
    assert min(map(len, bodies)) > 700_000
    async with api_in(tmp_path, settings(tmp_path, Limits(work=0))) as (_, client):
        await let_edit(client, "ann", "bob")
        flood = [asyncio.create_task(client.ask("POST", VIRTUAL_SERVICES, body, **BOB)) for body in bodies]
        waits: list[float] = []
        number = itertools.count()
        asking: list[Callable[[], Awaitable[Any]]] = [
            lambda: client.get("/livez"),
            lambda: client.get(f"{SERVICES}?limit=1", **ANN),
            lambda: client.post(SERVICES, service(f"small-{next(number)}"), **ANN),
        ]
        while not all(one.done() for one in flood) or len(waits) < 9:
            for asked in asking:
                begun = time.monotonic()
                await asked()
                waits.append(time.monotonic() - begun)
        assert [status for status, _ in await asyncio.gather(*flood)] == [201] * 4
    assert len(waits) > 30
    assert sorted(waits)[int(len(waits) * 0.95)] < SOON_S, sorted(waits)[-5:]


@pytest.mark.asyncio
async def test_who_takes_too_much_processor_time_is_refused_until_it_is_paid_back_and_nobody_else(
    tmp_path: Path,
) -> None:
    async with api_in(tmp_path, settings(tmp_path, Limits(work=0.01, work_burst_s=0.005))) as (api, client):
        await let_edit(client, "ann", "bob")
        now = time.monotonic()
        api.door.now = lambda: now
        answers = await asyncio.gather(
            *(client.ask("POST", VIRTUAL_SERVICES, large(f"big-{n}", 3000), **BOB) for n in range(5))
        )
        assert sorted(status for status, _ in answers) == [201, 429, 429, 429, 429], "in turns, and the first is known"
        async with client.session.get(client.url + VIRTUAL_SERVICES, headers=BOB) as refused:
            assert refused.status == 429
            wait, told = int(refused.headers["Retry-After"]), await refused.json()
        assert "user bob have taken more processor time than 0.01 s a second" in told["message"]
        assert told["details"]["retryAfterSeconds"] == wait >= 1
        await client.post(SERVICES, service("a"), **ANN)
        await client.get(VIRTUAL_SERVICES, **ROOT)
        await client.post(VIRTUAL_SERVICES, large("of-root", 3000), **ROOT)
        await client.post(VIRTUAL_SERVICES, virtual_service("b"), **ROOT)
        await client.get("/livez")
        now += wait
        assert len((await client.get(VIRTUAL_SERVICES, **BOB))["items"]) == 3
        assert api.limits.refused == 5


@pytest.mark.asyncio
async def test_what_the_parts_of_the_mesh_ask_is_never_charged(tmp_path: Path) -> None:
    async with api_in(tmp_path, settings(tmp_path, Limits(work=1e-9, work_burst_s=1e-9))) as (_, client):
        for _ in range(3):
            status, told = await client.ask("GET", "/fairlead/v1/feed/none", **ROOT)
            assert status != 429, told
            await client.get("/readyz")
            assert (await client.ask("GET", "/fairlead/v1/roots"))[0] != 429


def test_each_step_on_the_loop_is_charged_and_what_is_waited_is_not() -> None:
    now = 0.0
    charged: list[float] = []

    def work(seconds: float) -> None:
        nonlocal now
        now += seconds

    async def handled() -> str:
        nonlocal now
        work(2.0)
        await asyncio.sleep(0)
        now += 0.5
        with pytest.raises(asyncio.CancelledError):
            await asyncio.get_running_loop().create_future()
        return "done"

    async def around() -> str:
        asking = asyncio.ensure_future(_awaited(metered(handled(), charged.append, lambda: now)))
        for _ in range(5):
            await asyncio.sleep(0)
        work(100.0)  # somebody else's
        asking.cancel()
        return str(await asking)

    assert asyncio.run(around()) == "done"
    assert sum(charged) == pytest.approx(2.5)


async def _awaited(one: Any) -> Any:
    return await one


@pytest.mark.asyncio
async def test_what_is_raised_within_comes_out_and_is_charged() -> None:
    charged: list[float] = []

    async def handled() -> None:
        raise ValueError("no")

    with pytest.raises(ValueError, match="no"):
        await metered(handled(), charged.append)
    assert len(charged) == 1


def nothing() -> None:
    """No check."""


@pytest.mark.asyncio
async def test_each_user_has_one_piece_of_work_at_a_time_and_who_leaves_pays_all_the_same() -> None:
    thread, go, charged = Thread(), threading.Event(), list[float]()
    order: list[str] = []

    def work(name: str) -> Callable[[], str]:
        def run() -> str:
            assert go.wait(10)
            order.append(name)
            return name

        return run

    def ask(user: str, name: str) -> asyncio.Task[str]:
        return asyncio.create_task(thread.run(user, work(name), nothing, charged.append))

    first = ask("bob", "b1")
    await asyncio.sleep(0)
    more = [ask("bob", "b2"), ask("bob", "b3")]
    other = ask("ann", "a1")
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    go.set()
    assert await asyncio.gather(*more, other) == ["b2", "b3", "a1"]
    assert order == ["b1", "a1", "b2", "b3"]
    assert len(charged) == 4
    assert not thread._turns
    thread.close()


@pytest.mark.asyncio
async def test_work_that_fails_or_is_refused_gives_the_turn_back() -> None:
    thread = Thread()

    def fail() -> None:
        raise ValueError("no")

    for _ in range(2):
        with pytest.raises(ValueError, match="no"):
            await thread.run("bob", fail, nothing, lambda _: None)
        with pytest.raises(ValueError, match="no"):
            await thread.run("bob", nothing, fail, lambda _: None)
    assert await thread.run("bob", lambda: 5, nothing, lambda _: None) == 5
    found: Any = await thread.run("bob", {}.copy, nothing, lambda _: None)
    assert found == {}
    thread.close()


@pytest.mark.asyncio
@pytest.mark.parametrize("path", ["/apis/authorization.k8s.io/v1/selfsubjectaccessreviews", VIRTUAL_SERVICES])
async def test_much_yaml_is_read_beside_the_loop_wherever_it_may_be_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    where: list[str] = []

    def load(text: bytes) -> Any:
        where.append(threading.current_thread().name)
        return load_yaml(text)

    monkeypatch.setattr("fairlead.control.kinds.load_yaml", load)
    async with api_in(tmp_path) as (_, client):
        for body in ("a: 1\n", "#" * 20_000 + "\na: 1\n"):
            await client.ask("POST", path, body, Content_Type="application/yaml")
    assert [name.startswith("fairlead-api") for name in where] == [False, True]
