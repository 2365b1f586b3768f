"""The sidecar checks its app, and everybody hears of it: peers, DNS, Consul, etcd, `run`, the sidecar's own ports."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.roles import Role, Roles, apps, ask, client, free_port, roles_in, until
from tests.e2e.test_dns_role import FLAGS as DNS_FLAGS
from tests.e2e.test_dns_role import WEB, becomes
from tests.e2e.test_mesh import Shop, pod, shop
from tests.servers import consul, etcd

pytestmark = pytest.mark.asyncio
HOST = "web.default.svc.cluster.local"
PROBE = "readinessProbe: {httpGet: {port: http, path: /healthz}, periodSeconds: 1, failureThreshold: 1}, "
OFF = ("--outbound", "off", "--inbound", "off", "--metrics", "off")
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: web-1, annotations: {fairlead.dev/address: 127.0.0.1}}\n"


async def page(session: aiohttp.ClientSession, role: Role, port: str, path: str) -> tuple[int, str]:
    async with session.get(role.url(port, path)) as answer:
        return answer.status, await answer.text()


async def checks(session: aiohttp.ClientSession, role: Role) -> Any:
    return json.loads((await page(session, role, "admin", "/healthchecks"))[1])


async def serves(mesh: Shop, status: int) -> None:
    async def is_so() -> bool:
        return (await mesh.ask("friend"))[0] == status

    await until(f"web to answer with {status}", is_so)


async def test_an_app_whose_readiness_probe_fails_leaves_dns_and_all_sidecars_and_comes_back(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh:
        names = await mesh.roles.start("dns", "--control", mesh.url, *DNS_FLAGS)
        web = mesh.sidecars["web"]
        probed = pod("web-1", "web", mesh.mesh_ports["web"], mesh.app.port)
        await mesh.apply(probed.replace("name: main, ", f"name: main, {PROBE}"))
        await serves(mesh, 200)
        await becomes(names, WEB, {"127.0.0.1"})
        mesh.app.failing = True
        await serves(mesh, 503)
        status, headers, _ = await mesh.ask("friend")
        assert headers["x-fairlead-reason"] == "FL-NO-HEALTHY"
        await becomes(names, WEB, set())
        status, text = await page(mesh.session, web, "health", "/healthz/ready")
        assert status == 503
        assert "app: readiness http" in text
        assert "500 Internal Server Error" in text
        told = await checks(mesh.session, web)
        assert (told["ready"], told["checks"][0]["state"]) == (False, "failing")
        _, text = await page(mesh.session, web, "metrics", "/metrics")
        assert "fairlead_app_ready 0" in text
        assert 'result="failed"} 0' not in text
        assert "/healthz: 500" in told["checks"][0]["output"]
        code, out, _ = await mesh.roles.command("status", "--control", mesh.url)
        assert code == 0
        assert "readiness http" in out
        status, _, told = await ask(mesh.session, mesh.sidecars["stranger"], HOST)
        assert status == 503
        mesh.app.failing = False
        await serves(mesh, 200)
        await becomes(names, WEB, {"127.0.0.1"})


async def test_what_checks_say_outlives_control_and_the_connection_to_it(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh:
        probed = pod("web-1", "web", mesh.mesh_ports["web"], mesh.app.port)
        await mesh.apply(probed.replace("name: main, ", f"name: main, {PROBE}"))
        mesh.app.failing = True
        await serves(mesh, 503)
        assert mesh.control is not None
        await mesh.control.kill()
        await mesh.start_control()
        names = await mesh.roles.start("dns", "--control", mesh.url, *DNS_FLAGS)
        await becomes(names, WEB, set())
        assert mesh.control is not None
        await mesh.control.kill()
        mesh.app.failing = False  # while nobody can be told

        async def ready() -> bool:
            return (await page(mesh.session, mesh.sidecars["web"], "health", "/healthz/ready"))[0] == 200

        await until("the sidecar to know", ready)
        await mesh.start_control()
        await serves(mesh, 200)


async def test_while_control_is_away_the_inbound_side_sends_peers_elsewhere(tmp_path: Path) -> None:
    async with shop(tmp_path, workers=2) as mesh:
        probed = pod("web-1", "web", mesh.mesh_ports["web"], mesh.app.port)
        await mesh.apply(probed.replace("name: main, ", f"name: main, {PROBE}"))
        await serves(mesh, 200)

        async def checked() -> bool:
            return bool((await checks(mesh.session, mesh.sidecars["web"]))["checks"])

        await until("the check to be known", checked)
        assert mesh.control is not None
        await mesh.control.kill()
        mesh.app.failing = True
        await serves(mesh, 503)
        _, headers, said = await mesh.ask("friend")
        assert (headers["x-fairlead-reason"], "no endpoint" in said) == ("FL-NO-HEALTHY", True), said
        asked = [one for one in mesh.app.seen if one["path"] != "/healthz"]
        await mesh.ask("friend")
        assert [one for one in mesh.app.seen if one["path"] != "/healthz"] == asked
        mesh.app.failing = False
        await serves(mesh, 200)


async def test_commands_that_control_gives_are_run_only_where_that_is_allowed(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh:
        probe = f"readinessProbe: {{exec: {{command: [touch, {tmp_path}/ran]}}}}, "
        probed = pod("web-1", "web", mesh.mesh_ports["web"], mesh.app.port)
        await mesh.apply(probed.replace("name: main, ", f"name: main, {probe}"))

        async def told() -> bool:
            return (
                "--enable-script-checks"
                in (await page(mesh.session, mesh.sidecars["web"], "health", "/healthz/ready"))[1]
            )

        await until("it to be told", told)
        assert (await checks(mesh.session, mesh.sidecars["web"]))["checks"] == []
        assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("workers", ["1", "2"])
async def test_without_control_the_inbound_side_sends_peers_elsewhere(tmp_path: Path, workers: str) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (app,), client() as session:
        (tmp_path / "web.yaml").write_text(
            pod("web-1", "web", 15006, app.port).replace("name: main, ", f"name: main, {PROBE}")
        )
        role = await roles.start(
            "sidecar", "-f", "web.yaml", "--workload", "default/web-1", "--outbound", "off", "--metrics", "off",
            "--inbound", "127.0.0.1:0", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0", "--workers", workers,
            "--app-address", "127.0.0.1", "--capture", "off",
        )  # fmt: skip

        async def answers(status: int) -> None:
            async def is_so() -> bool:
                async with session.get(role.url("inbound"), headers={"host": f"127.0.0.1:{app.port}"}) as answer:
                    return answer.status == status

            await until(f"inbound to answer {status}", is_so)

        await answers(200)
        app.failing = True
        app.seen.clear()
        await answers(503)
        app.failing = False
        await answers(200)


def registered(folder: Path, port: int) -> tuple[str, ...]:
    (folder / "web.yaml").write_text(POD)
    return (
        "sidecar", "-f", "web.yaml", "--workload", "default/web-1", *OFF, "--admin", "off", "--health", "off",
        "--address", "127.0.0.1", "--service", f"web:{port}",
        "--readiness", f"http://:{port}/healthz?period=100ms&failure=1",
    )  # fmt: skip


async def test_consuls_ttl_check_says_what_our_checks_say_also_after_the_agent_forgot(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, consul(tmp_path) as server, apps("web") as (app,):
        await roles.start(*registered(tmp_path, app.port), "--register", f"consul={server.url}")

        async def state() -> list[tuple[str, str]]:
            found = await server.get("/v1/health/service/web")
            return [(c["Status"], c["Output"]) for entry in found for c in entry["Checks"] if c["ServiceID"]]

        async def passing() -> bool:
            return [status for status, _ in await state()] == ["passing"]

        async def critical() -> bool:
            """In the catalog; the output at the agent, which lets the servers wait for one without another status."""
            found = await server.get("/v1/agent/checks")
            outputs = [check["Output"] for check in found.values()]
            return [s for s, _ in await state()] == ["critical"] and "500 Internal Server Error" in str(outputs)

        await until("Consul to see it pass", passing)
        assert "200 OK" in (await state())[0][1]
        app.failing = True
        await until("Consul to see it fail", critical)
        assert "500 Internal Server Error" in (await state())[0][1]
        await server.put("/v1/agent/service/deregister/default-web-web-1")
        await until("it to be registered again, and to fail", critical)
        await server.kill()
        await server.start()
        await until("it to fail after a restart of the agent", critical)
        app.failing = False
        await until("Consul to see it pass again", passing)


async def test_etcds_key_says_whether_the_app_is_ready(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, etcd(tmp_path) as server, apps("web") as (app,):
        app.failing = True
        await roles.start(*registered(tmp_path, app.port), "--register", f"etcd={server.url}")

        async def says(ready: bool) -> None:
            async def is_so() -> bool:
                value = await server.value("/services/web/web-1")
                return value is not None and value.get("ready", True) is ready

            await until(f"ready to be {ready}", is_so)

        await says(False)
        app.failing = False
        await says(True)
        app.failing = True
        await says(False)


APP = """
import os, pathlib, signal, sys
name = pathlib.Path("starts")
count = len(name.read_text()) if name.exists() else 0
name.write_text("x" * (count + 1))
pathlib.Path("healthy").touch()
signal.signal(signal.SIGTERM, lambda *_: (pathlib.Path("ended").touch(), sys.exit(0)))
signal.pause()
"""


async def run(roles: Roles, *flags: str) -> Role:
    (roles.folder / "mesh.yaml").write_text(POD)
    probe = {"exec": {"command": ["test", "-e", f"{roles.folder}/healthy"]}, "periodSeconds": 1}
    (roles.folder / "checks.yaml").write_text(
        json.dumps(
            {"livenessProbe": {**probe, "failureThreshold": 1}, "startupProbe": {**probe, "failureThreshold": 60}}
        )
    )
    return await roles.start(
        "run", "-f", "mesh.yaml", "--workload", "default/web-1", *OFF, "--admin", "off", "--health", "127.0.0.1:0",
        "--checks", "checks.yaml", *flags, "--", sys.executable, "-c", APP,
    )  # fmt: skip


async def begun(roles: Roles, session: aiohttp.ClientSession, role: Role, starts: int) -> None:
    async def is_so() -> bool:
        path = roles.folder / "starts"
        started = path.exists() and len(path.read_text()) == starts
        return started and (await page(session, role, "health", "/healthz/ready"))[0] == 200

    await until(f"start {starts} of the app", is_so)


async def test_run_starts_an_app_again_that_its_liveness_check_gives_up(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, client() as session:
        role = await run(roles, "--restart", "on-failure")
        await begun(roles, session, role, 1)
        (tmp_path / "healthy").unlink()
        await begun(roles, session, role, 2)
        assert (tmp_path / "ended").exists(), "it was asked to end"
        assert "started again" in role.log
        assert await role.stop() == 0


async def test_run_ends_with_an_app_that_its_liveness_check_gives_up_unless_told_otherwise(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, client() as session:
        role = await run(roles)
        await begun(roles, session, role, 1)
        (tmp_path / "healthy").unlink()
        assert await asyncio.wait_for(role.process.wait(), 30) == 1
        assert "its checks gave it up: liveness exec" in role.log
        assert "--restart" in role.log


async def test_run_starts_an_app_again_that_fails_and_not_one_that_is_done(tmp_path: Path) -> None:
    script = "import pathlib, sys\np = pathlib.Path('n')\nn = len(p.read_text()) if p.exists() else 0\n"
    script += "p.write_text('x' * (n + 1))\nsys.exit(0 if n else 3)\n"
    async with roles_in(tmp_path) as roles:
        (tmp_path / "mesh.yaml").write_text(POD)
        role = await roles.start(
            "run", "-f", "mesh.yaml", "--workload", "default/web-1", *OFF, "--admin", "off", "--health", "off",
            "--restart", "on-failure", "--", sys.executable, "-c", script,
        )  # fmt: skip
        assert await asyncio.wait_for(role.process.wait(), 30) == 0
        assert (tmp_path / "n").read_text() == "xx"


async def test_flags_and_files_that_make_no_sense_are_refused(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        (tmp_path / "mesh.yaml").write_text(POD)
        (tmp_path / "checks.yaml").write_text("check: {ttl: 30s}\n")
        for flags, words in (
            (("--readiness", "8080"), "--readiness: expected http"),
            (("--checks", "checks.yaml"), "--checks checks.yaml: check: ttl"),
            (("--checks", "none.yaml"), "--checks none.yaml"),
        ):
            code, _, err = await roles.command(
                "sidecar", "-f", "mesh.yaml", "--workload", "default/web-1", *OFF, "--admin", "off",
                "--health", f"127.0.0.1:{free_port()}", *flags,
            )  # fmt: skip
            assert code == 2
            assert words in err
