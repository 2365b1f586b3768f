"""`fairlead run -- CMD`: the app starts when its sidecar is ready, and its exit code is ours."""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.e2e.roles import FAIRLEAD, Role, Roles, apps, client, free_port, roles_in, static_service, until

pytestmark = pytest.mark.asyncio
PORTS = ("--inbound", "off", "--admin", "off", "--metrics", "off")


async def test_a_job_that_ends_ends_everything_with_its_exit_code(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("web") as (app,):
        (tmp_path / "mesh.yaml").write_text(
            "apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{name: http, port: 80}]}\n---\n"
            "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
            "metadata: {name: web, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n"
            f"ports: [{{name: http, port: {app.port}}}]\nendpoints: [{{addresses: [127.0.0.1]}}]\n"
        )
        job = (
            "import os, sys, urllib.request\n"
            "url = 'http://web.default.svc.cluster.local/job'\n"
            "opener = urllib.request.build_opener(urllib.request.ProxyHandler({'http': os.environ['PROXY']}))\n"
            "sys.exit(7 if opener.open(url).status == 200 else 1)\n"
        )
        outbound = f"127.0.0.1:{free_port()}"
        role = await roles.start(
            "run", "-f", "mesh.yaml", "--workload", "default/job-1", "--outbound", outbound, "--health", "off", *PORTS,
            "--", sys.executable, "-c", job, env={"PROXY": f"http://{outbound}"},
        )  # fmt: skip
        assert await role.process.wait() == 7
        assert [seen["path"] for seen in app.seen] == ["/job"]


async def test_sigterm_reaches_the_app_and_its_exit_code_comes_back(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, client() as session:
        (tmp_path / "mesh.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a-1}\n")
        script = (
            "import signal, sys, time, pathlib\n"
            "signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))\n"
            "pathlib.Path('up').touch()\n"
            "signal.pause()\n"
        )
        role = await roles.start(
            "run", "-f", "mesh.yaml", "--workload", "default/a-1",
            "--outbound", "off", "--health", "127.0.0.1:0", *PORTS,
            "--", sys.executable, "-c", script,
        )  # fmt: skip

        async def up() -> bool:
            return (tmp_path / "up").exists()

        await until("the app to run", up)
        async with session.get(role.url("health", "/healthz/ready")) as answer:
            assert answer.status == 200
        assert await role.stop() == 3


async def test_an_app_that_cannot_be_started_is_told(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        (tmp_path / "mesh.yaml").write_text("apiVersion: v1\nkind: Pod\nmetadata: {name: a-1}\n")
        code, _, err = await roles.command(
            "run", "-f", "mesh.yaml", "--workload", "default/a-1", "--outbound", "off", "--health", "off", *PORTS,
            "--", "/no/such/app",
        )  # fmt: skip
        assert code == 2
        assert "/no/such/app" in err


MESH = "apiVersion: v1\nkind: Pod\nmetadata: {name: a-1}\n"
RECORDS = """
import pathlib, signal, sys
def note(number, _frame):
    with open("signals", "a") as file:
        file.write(signal.Signals(number).name + "\\n")
signal.signal(signal.SIGINT, signal.SIG_DFL)
for name in ("HUP", "USR1", "USR2", "QUIT", "WINCH"):
    signal.signal(getattr(signal, "SIG" + name), note)
pathlib.Path("up").touch()
while True:
    signal.pause()
"""


async def started(roles: Roles, script: str, *flags: str, env: dict[str, str] | None = None) -> Role:
    (roles.folder / "mesh.yaml").write_text(MESH)
    role = await roles.start(
        "run", "-f", "mesh.yaml", "--workload", "default/a-1", "--outbound", "off", "--health", "off", *PORTS, *flags,
        "--", sys.executable, "-c", script, env=env,
    )  # fmt: skip

    async def up() -> bool:
        return (roles.folder / "up").exists()

    await until("the app to run", up)
    return role


async def test_signals_are_passed_on_and_one_that_kills_the_app_is_128_more(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        role = await started(roles, RECORDS)
        for name in ("HUP", "USR1", "USR2", "QUIT", "WINCH"):
            role.process.send_signal(getattr(signal, f"SIG{name}"))

            async def heard(name: str = name) -> bool:
                path = tmp_path / "signals"
                return path.exists() and f"SIG{name}" in path.read_text()

            await until(f"SIG{name} at the app", heard)
        role.process.send_signal(signal.SIGINT)  # is what the app gets, which dies of it
        assert await asyncio.wait_for(role.process.wait(), 20) == 130


async def test_the_apps_last_call_is_answered_and_what_it_leaves_open_is_not_waited_for(tmp_path: Path) -> None:
    """On SIGTERM the app calls another service once more, by its sidecar."""
    async with roles_in(tmp_path) as roles, apps("web") as (app,):
        outbound = f"127.0.0.1:{free_port()}"
        (tmp_path / "mesh.yaml").write_text(static_service("web", "http", 80, app.port))
        script = (
            "import os, pathlib, signal, sys, urllib.request\n"
            "opener = urllib.request.build_opener(urllib.request.ProxyHandler({'http': os.environ['PROXY']}))\n"
            "def last(*_):\n"
            "    sys.exit(5 if opener.open('http://web.default.svc.cluster.local/last').status == 200 else 1)\n"
            "signal.signal(signal.SIGTERM, last)\n"
            "pathlib.Path('up').touch()\n"
            "signal.pause()\n"
        )
        role = await roles.start(
            "run", "-f", "mesh.yaml", "--workload", "default/a-1", "--outbound", outbound, "--health", "off", *PORTS,
            "--", sys.executable, "-c", script, env={"PROXY": f"http://{outbound}"},
        )  # fmt: skip

        async def up() -> bool:
            return (tmp_path / "up").exists()

        await until("the app to run", up)
        assert await role.stop() == 5
        assert [seen["path"] for seen in app.seen] == ["/last"]


async def test_an_app_that_does_not_end_is_killed_within_the_deadline(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        stubborn = "import signal, pathlib\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\npathlib.Path('up').touch()\n"
        role = await started(roles, stubborn + "while True: signal.pause()\n", "--drain-deadline", "1s")
        assert await role.stop() == 137
        assert "did not end in time: killed" in role.log


async def test_a_second_signal_ends_the_app_and_us_at_once(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        stubborn = (
            "import os, signal, pathlib\n"
            "def note(*_):\n"
            "    pathlib.Path('told').touch()\n"
            "signal.signal(signal.SIGTERM, note)\n"
            "pathlib.Path('pid').write_text(str(os.getpid()))\n"
            "pathlib.Path('up').touch()\n"
            "while True: signal.pause()\n"
        )
        role = await started(roles, stubborn, "--drain-deadline", "60s")
        role.process.send_signal(signal.SIGTERM)

        async def told() -> bool:
            return (tmp_path / "told").exists()

        await until("the app to be told", told)
        role.process.send_signal(signal.SIGTERM)
        assert await asyncio.wait_for(role.process.wait(), 10) == 143
        with pytest.raises(ProcessLookupError):
            for _ in range(100):
                os.kill(int((tmp_path / "pid").read_text()), 0)
                await asyncio.sleep(0.05)


async def test_health_says_so_until_the_app_listens(tmp_path: Path) -> None:
    port = free_port()
    async with roles_in(tmp_path) as roles, client() as session:
        (tmp_path / "mesh.yaml").write_text(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a-1, annotations: {fairlead.dev/address: 127.0.0.1}}\n"
            f"spec: {{containers: [{{name: a, ports: [{{containerPort: {port}}}]}}]}}\n"
        )
        script = (
            "import pathlib, socket, time\n"
            "while not pathlib.Path('go').exists(): time.sleep(0.02)\n"
            f"socket.create_server(('127.0.0.1', {port})).accept()\n"
            "time.sleep(60)\n"
        )
        role = await roles.start(
            "run", "-f", "mesh.yaml", "--workload", "default/a-1", "--outbound", "off", "--health", "127.0.0.1:0",
            *PORTS, "--", sys.executable, "-c", script,
        )  # fmt: skip

        async def health() -> tuple[int, str]:
            async with session.get(role.url("health", "/healthz/ready")) as answer:
                return answer.status, await answer.text()

        async def not_yet() -> bool:
            status, text = await health()
            return status == 503 and f"the app does not listen yet on port {port}" in text

        await until("the app to be missed", not_yet)
        (tmp_path / "go").touch()

        async def ready() -> bool:
            return (await health())[0] == 200

        await until("readiness", ready)
        assert await role.stop() == 143


async def test_an_app_without_checks_that_is_started_again_is_not_ready_before_it_listens_again(tmp_path: Path) -> None:
    port = free_port()
    async with roles_in(tmp_path) as roles, client() as session:
        (tmp_path / "mesh.yaml").write_text(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a-1, annotations: {fairlead.dev/address: 127.0.0.1}}\n"
            f"spec: {{containers: [{{name: a, ports: [{{containerPort: {port}}}]}}]}}\n"
        )
        script = (
            "import pathlib, socket, sys, time\n"
            "first = not pathlib.Path('again').exists()\n"
            "pathlib.Path('again').touch()\n"
            "while not first and not pathlib.Path('go').exists(): time.sleep(0.02)\n"
            f"server = socket.create_server(('127.0.0.1', {port}))\n"
            "while not first or not pathlib.Path('fail').exists(): time.sleep(0.02)\n"
            "sys.exit(3)\n"
        )
        role = await roles.start(
            "run", "-f", "mesh.yaml", "--workload", "default/a-1", "--outbound", "off", "--health", "127.0.0.1:0",
            *PORTS, "--restart", "on-failure", "--", sys.executable, "-c", script,
        )  # fmt: skip

        async def health() -> tuple[int, str]:
            async with session.get(role.url("health", "/healthz/ready")) as answer:
                return answer.status, await answer.text()

        async def ready() -> bool:
            return (await health())[0] == 200

        await until("readiness", ready)
        (tmp_path / "fail").touch()

        async def silent() -> bool:
            status, text = await health()
            return status == 503 and f"the app does not listen yet on port {port}" in text

        await until("the second one to be missed", silent)
        (tmp_path / "go").touch()
        await until("readiness again", ready)
        assert await role.stop() == 143


async def test_a_liveness_check_that_passes_does_not_make_an_app_ready_that_does_not_listen(tmp_path: Path) -> None:
    port = free_port()
    async with roles_in(tmp_path) as roles, client() as session:
        (tmp_path / "mesh.yaml").write_text(
            "apiVersion: v1\nkind: Pod\nmetadata: {name: a-1, annotations: {fairlead.dev/address: 127.0.0.1}}\n"
            f"spec: {{containers: [{{name: a, ports: [{{containerPort: {port}}}]}}]}}\n"
        )
        for purpose, status in (("liveness", 503), ("readiness", 200)):
            role = await roles.start(
                "run", "-f", "mesh.yaml", "--workload", "default/a-1", "--outbound", "off", "--health", "127.0.0.1:0",
                *PORTS, f"--{purpose}", f"exec:touch {tmp_path}/{purpose}",
                "--", sys.executable, "-c", "import time; time.sleep(60)",
            )  # fmt: skip

            async def checked(role: Role = role, path: Path = tmp_path / purpose, status: int = status) -> bool:
                async with session.get(role.url("health", "/healthz/ready")) as answer:
                    silent = f"the app does not listen yet on port {port}" in await answer.text()
                    return path.exists() and answer.status == status and silent == (status == 503)

            await until(f"the answer where {purpose} passes", checked)
            assert await role.stop() == 143


def may_unshare() -> bool:
    return (
        shutil.which("unshare") is not None
        and not subprocess.run(["unshare", "-pf", "--mount-proc", "true"], check=False, capture_output=True).returncode
    )


@pytest.mark.skipif(not may_unshare(), reason="no PID namespaces here")
async def test_as_pid_1_it_waits_for_orphans(tmp_path: Path) -> None:
    (tmp_path / "mesh.yaml").write_text(MESH)
    script = (  # a grandchild whose parent has gone, and which is dead: PID 1 has to wait for it
        "import os, pathlib, sys, time\n"
        "if os.fork() == 0:\n"
        "    if os.fork() == 0: time.sleep(0.3); os._exit(0)\n"
        "    os._exit(0)\n"
        "os.wait()\n"
        "def dead():\n"
        "    stats = [p.read_text().rpartition(')')[2].split() for p in pathlib.Path('/proc').glob('[0-9]*/stat')]\n"
        "    return sum(s[0] == 'Z' and s[1] == '1' for s in stats)\n"
        "seen, end = 0, time.monotonic() + 20\n"
        "while time.monotonic() < end:\n"
        "    seen = max(seen, dead())\n"
        "    if seen and not dead(): sys.exit(9)\n"
        "    time.sleep(0.01)\n"
        "sys.exit(10 + seen)\n"
    )
    process = await asyncio.create_subprocess_exec(
        "unshare", "-pf", "--mount-proc", FAIRLEAD, "run", "-f", "mesh.yaml", "--workload", "default/a-1",
        "--outbound", "off", "--health", "off", *PORTS, "--", sys.executable, "-c", script, cwd=tmp_path,
        stdout=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    try:
        assert await asyncio.wait_for(process.wait(), 60) == 9
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
