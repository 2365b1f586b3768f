"""A sidecar process that registers its app in Consul or etcd, and takes it out when it ends."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.roles import Role, Roles, roles_in, until
from tests.servers import consul, etcd

pytestmark = pytest.mark.asyncio
POD = """
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}, annotations: {fairlead.dev/address: 127.0.0.1}}
"""


async def start(roles: Roles, tmp_path: Path, where: str) -> Role:
    (tmp_path / "web.yaml").write_text(POD)
    return await roles.start(
        "sidecar", "-f", str(tmp_path / "web.yaml"), "--workload", "default/web-1", "--labels", "app=web",
        "--outbound", "off", "--inbound", "off", "--address", "127.0.0.1",
        "--admin", "off", "--health", "off", "--metrics", "off",
        "--register", where, "--service", "web:8080",
    )  # fmt: skip


async def test_in_consul(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, consul(tmp_path) as server:

        async def entries() -> Any:
            return await server.get("/v1/health/service/web?passing")

        role = await start(roles, tmp_path, f"consul={server.url}")
        found = await until("the app in Consul", entries)
        assert found[0]["Service"]["Port"] == 8080
        assert await role.stop() == 0
        assert await server.get("/v1/health/service/web") == []


async def test_in_etcd(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, etcd(tmp_path) as server:

        async def value() -> Any:
            return await server.value("/services/web/web-1")

        role = await start(roles, tmp_path, f"etcd={server.url}")
        found = await until("the app in etcd", value)
        assert (found["host"], found["port"], found["labels"]) == ("127.0.0.1", 8080, {"app": "web"})
        stopping = asyncio.ensure_future(role.stop())
        assert await stopping == 0
        assert await value() is None


async def test_the_account_of_the_certificate_is_registered_and_keeps_the_feed_open(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, consul(tmp_path) as server:
        control = await roles.start("control", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "control"))
        url = f"http://{control.at['api']}"
        code, out, _ = await roles.command("token", "create", "--service-account", "web", "--control", url)
        assert code == 0
        (tmp_path / "web.token").write_text(out)
        arguments = (
            "sidecar", "--control", url, "--token-file", str(tmp_path / "web.token"), "--workload", "default/web-1",
            "--outbound", "off", "--inbound", "127.0.0.1:0", "--address", "127.0.0.1",
            "--admin", "off", "--health", "off", "--metrics", "off",
            "--register", f"consul={server.url}", "--service", "web:8080",
        )  # fmt: skip
        for _ in range(2):  # the second comes when control knows the workload

            async def entries() -> Any:
                return await server.get("/v1/health/service/web?passing")

            role = await roles.start(*arguments)
            found = await until("the app in Consul", entries)
            assert found[0]["Service"]["Meta"]["fairlead-service-account"] == "web"
            assert await role.stop() == 0
