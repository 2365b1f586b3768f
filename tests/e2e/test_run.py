"""`fairlead run -- CMD`: the app starts when its sidecar is ready, and its exit code is ours."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.e2e.roles import apps, client, free_port, roles_in, until

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
