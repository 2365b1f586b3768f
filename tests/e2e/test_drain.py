"""SIGTERM of a sidecar in a mesh: out of discovery first, everybody told, then the end; nobody is cut off."""

from __future__ import annotations

import asyncio
import json
import signal
from pathlib import Path

import pytest

from tests.e2e.roles import PACE_S
from tests.e2e.test_mesh import shop

pytestmark = pytest.mark.asyncio


async def test_who_calls_it_hears_that_nobody_is_there_and_never_a_refused_or_lost_connection(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh:
        mesh.app.hold = asyncio.Event()
        held = asyncio.create_task(mesh.ask("friend", "/hold"))
        await mesh.app.held.wait()
        answers: list[tuple[int, str]] = []
        stop = False

        async def call() -> None:
            while not stop:
                status, headers, _ = await mesh.ask("friend")
                answers.append((status, headers.get("x-fairlead-reason", "")))
                await asyncio.sleep(PACE_S)

        calls = [asyncio.create_task(call()) for _ in range(4)]
        role = mesh.sidecars["web"]
        role.process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(30):
            while "draining: accepting no more" not in role.log:
                await asyncio.sleep(0.02)
        code, out, _ = await mesh.roles.command("status", "-o", "json", "--control", mesh.url)
        assert code == 0
        told = {member["workload"]: member["leaving"] for member in json.loads(out)["sidecars"]}
        assert told == {"web-1": True, "friend-1": False, "stranger-1": False}
        assert role.process.returncode is None
        mesh.app.hold.set()
        assert (await held)[0] == 200  # it ran all the while
        assert await asyncio.wait_for(role.process.wait(), 30) == 0
        stop = True
        await asyncio.gather(*calls)
        assert set(answers) <= {(200, ""), (503, "FL-NO-HEALTHY")}
        assert answers[-1] == (503, "FL-NO-HEALTHY")
        assert "control, and 2 of 2 others after 0." in role.log
        assert "draining: finished" in role.log
        await mesh.start_sidecar("web")
        async with asyncio.timeout(30):
            while (await mesh.ask("friend"))[0] != 200:
                await asyncio.sleep(0.05)


async def test_it_stays_out_when_it_is_gone_and_control_is_restarted_and_comes_back_with_its_sidecar(
    tmp_path: Path,
) -> None:
    async with shop(tmp_path) as mesh:
        assert await mesh.sidecars["web"].stop() == 0
        assert (await mesh.ask("friend"))[0] == 503
        assert mesh.control is not None
        await mesh.control.kill()
        await mesh.start_control()
        await asyncio.sleep(0)
        assert (await mesh.ask("friend"))[1]["x-fairlead-reason"] == "FL-NO-HEALTHY"
        await mesh.start_sidecar("web")
        async with asyncio.timeout(30):
            while (await mesh.ask("friend"))[0] != 200:
                await asyncio.sleep(0.05)
