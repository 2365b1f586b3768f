"""The feed between real roles: endpoints on first use, a resumed stream, and an outage with every sidecar restarted."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.roles import PACE_S, Role, ask, free_port, static_service, until
from tests.e2e.test_mesh import HOST, Shop, shop

pytestmark = pytest.mark.asyncio


async def config(mesh: Shop, who: str) -> dict[str, Any]:
    async with mesh.session.get(mesh.sidecars[who].url("admin", "/config_dump")) as answer:
        found: dict[str, Any] = json.loads(await answer.text())
        return found


async def start(mesh: Shop, name: str, *flags: str) -> Role:
    mesh.sidecars[name] = await mesh.roles.start(
        "sidecar", "--workload", f"default/{name}-1", "--control", mesh.url,
        "--token-file", str(mesh.roles.folder / f"{name}.token"), "--outbound", "127.0.0.1:0",
        "--inbound", f"127.0.0.1:{mesh.mesh_ports[name]}", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0",
        "--metrics", "127.0.0.1:0", "--data-dir", str(mesh.roles.folder / name), *flags,
    )  # fmt: skip
    return mesh.sidecars[name]


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_first_request_waits_for_the_endpoints_and_what_is_used_is_known_after_a_restart_without_control(
    tmp_path: Path, workers: str
) -> None:
    async with shop(tmp_path) as mesh:
        others = [
            static_service(f"other{number}", "http", 80, 9).replace("127.0.0.1", "10.9.9.9") for number in range(3)
        ]
        await mesh.apply("---".join(others))
        await mesh.sidecars["friend"].stop()
        friend = await start(mesh, "friend", "--endpoints", "used", "--workers", workers)

        async def forgotten() -> bool:  # it had all of them, and has them from disk
            return HOST not in (await config(mesh, "friend"))["endpoints"]

        await until("what is not in use to be dropped", forgotten)
        before = await config(mesh, "friend")
        assert {HOST, "other1.default.svc.cluster.local"} <= before["services"].keys()
        answers = await asyncio.gather(*(mesh.ask("friend") for _ in range(5)))
        assert [status for status, _, _ in answers] == [200] * 5
        assert (await config(mesh, "friend"))["endpoints"].keys() == {HOST}
        code, out, err = await mesh.roles.command("status", "-o", "json", "--control", mesh.url)
        assert code == 0, err
        shown = {one["workload"]: one for one in json.loads(out)["sidecars"]}
        assert (shown["friend-1"]["endpoints"], shown["friend-1"]["uses"]) == ("used", 1)
        assert shown["web-1"]["endpoints"] == "all"

        assert mesh.control is not None
        await mesh.control.kill()
        await friend.kill()
        await start(mesh, "friend", "--endpoints", "used", "--workers", workers)
        assert (await mesh.ask("friend"))[0] == 200
        assert (await config(mesh, "friend"))["endpoints"].keys() == {HOST}

        await mesh.start_control()
        await mesh.apply(static_service("late", "http", 80, mesh.app.port))

        async def late() -> bool:
            return (await ask(mesh.session, mesh.sidecars["friend"], "late.default.svc.cluster.local", "/"))[0] == 200

        await until("a service of the control that came back", late)


async def test_a_service_of_which_nothing_can_be_learnt_fails_after_a_bounded_time(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh:
        await mesh.sidecars["friend"].stop()
        await start(mesh, "friend", "--endpoints", "used")

        async def forgotten() -> bool:
            return HOST not in (await config(mesh, "friend"))["endpoints"]

        await until("what is not in use to be dropped", forgotten)
        assert mesh.control is not None
        await mesh.control.kill()
        begun = asyncio.get_running_loop().time()
        status, _, _ = await mesh.ask("friend")
        assert status == 503
        assert 4.5 < asyncio.get_running_loop().time() - begun < 15


async def test_with_every_sidecar_restarted_in_an_outage_of_control_no_request_fails(tmp_path: Path) -> None:
    """Each hands over to its successor, which has tables, certificate and key from disk alone."""
    async with shop(tmp_path) as mesh:
        outbound = f"127.0.0.1:{free_port()}"
        await mesh.sidecars["friend"].stop()
        first = await start(mesh, "friend", "--outbound", outbound)
        assert (await mesh.ask("friend"))[0] == 200
        assert mesh.control is not None
        await mesh.control.kill()
        statuses: list[int] = []
        ended = asyncio.Event()

        async def requests() -> None:
            while not ended.is_set():
                statuses.append((await ask(mesh.session, first, HOST, "/"))[0])
                await asyncio.sleep(PACE_S)

        load = [asyncio.create_task(requests()) for _ in range(4)]
        serial = await certificate(mesh, "web")
        for name, more in (("web", ()), ("friend", ("--outbound", outbound))):
            old = mesh.sidecars[name]
            await start(mesh, name, *more)
            assert await asyncio.wait_for(old.process.wait(), 60) == 0, old.log
        assert await certificate(mesh, "web") == serial
        count = len(statuses)
        await until("requests after that", lambda: asyncio.sleep(0.01, len(statuses) > count + 50))
        ended.set()
        await asyncio.gather(*load)
        assert set(statuses) == {200}, statuses


async def certificate(mesh: Shop, who: str) -> str:
    async with mesh.session.get(mesh.sidecars[who].url("admin", "/certs")) as answer:
        return str((await answer.json(content_type=None))["serial"])
