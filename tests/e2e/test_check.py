"""`fairlead check` as a command: manifests, a running mesh, a DNS server."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.roles import Roles, free_port, roles_in, until

pytestmark = pytest.mark.asyncio
POLICY = """
apiVersion: v1
kind: Pod
metadata: {name: web-1, labels: {app: web}}
status: {podIP: 127.0.0.1}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: allow}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{ports: [{port: 53, protocol: UDP}]}]}
"""


async def rows(roles: Roles, *flags: str, code: int) -> list[dict[str, Any]]:
    got, out, err = await roles.command("check", *flags, "-o", "json")
    assert got == code, (out, err)
    found: list[dict[str, Any]] = json.loads(out)
    return found


async def test_manifests_alone_show_policies_that_a_proxy_cannot_enforce(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        (tmp_path / "p.yaml").write_text(POLICY)
        found = await rows(roles, "-f", "p.yaml", code=0)
        assert [(row["group"], row["status"]) for row in found] == [("manifests", "ok"), ("policies", "warning")]
        (tmp_path / "q.yaml").write_text(POLICY.replace("podSelector", "podSelektor"))
        code, out, _ = await roles.command("check", "-f", "q.yaml", "-o", "short")
        assert code == 1
        assert "podSelektor" in out
        assert "errors" in out or "1 error" in out


async def test_a_mesh_is_told_with_its_sources_sidecars_certificates_and_dns(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        away = free_port()
        code, out, _ = await roles.command("check", "--control", f"http://127.0.0.1:{away}", "-o", "short")
        assert code == 1
        assert "no answer from control" in out
        control = await roles.start(
            "control", "--listen", "127.0.0.1:0", "--data-dir", "data", "--etcd", f"http://127.0.0.1:{away}"
        )
        url = f"http://{control.at['api']}"
        (tmp_path / "p.yaml").write_text(POLICY)
        assert (await roles.command("apply", "-f", "p.yaml", "--control", url))[0] == 0
        _, token, _ = await roles.command("token", "create", "--control", url)
        (tmp_path / "token").write_text(token)
        sidecar = await roles.start(
            "sidecar",
            "--workload",
            "default/web-1",
            "--control",
            url,
            "--inbound",
            "127.0.0.1:0",
            "--outbound",
            "off",
            "--admin",
            "127.0.0.1:0",
            "--health",
            "127.0.0.1:0",
            "--metrics",
            "off",
            "--ports",
            "80",
            "--token-file",
            "token",
        )
        dns = await roles.start(
            "dns", "-f", "p.yaml", "--listen", "127.0.0.1:0", "--health", "127.0.0.1:0", "--upstream", "off"
        )
        flags = ("--control", url, "--admin", sidecar.at["admin"], "--health", dns.at["health"], "--dns", dns.at["dns"])
        by_name = {(row["group"], row["name"]): row for row in await rows(roles, *flags, code=1)}
        assert by_name["sources", "etcd"]["status"] == "error"
        assert by_name["sidecars", "sidecar default/web-1"]["status"] == "ok"
        assert by_name["certificates", "root 1"]["status"] == "ok"
        assert by_name["dns", f"{dns.at['dns']} over TCP"]["status"] == "ok"
        assert by_name["roles", dns.at["health"]]["status"] == "ok"
        said = [row["message"] for row in await rows(roles, "--control", url, code=1) if row["group"] == "policies"]
        assert any("UDP" in one for one in said)
        assert any("passes the sidecar by: default/web-1" in one for one in said)
        await sidecar.kill()

        async def told() -> bool:
            found = await rows(roles, "--control", url, code=1)
            return any("without a sidecar: default/web-1" in row["message"] for row in found)

        await until("the sidecar that is gone", told)
        found = await rows(roles, "--dns", dns.at["dns"], "--dns-name", "nobody.default.svc.cluster.local", code=1)
        assert "NXDOMAIN" in found[-1]["message"]
        code, out, _ = await roles.command("check", "--control", url)
        assert code == 1
        assert out.splitlines()[0] == "control"
