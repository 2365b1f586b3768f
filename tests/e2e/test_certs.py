"""Certificates of a whole mesh: a root is rotated under load, one-time tokens, users of a Unix socket."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.roles import PACE_S, Role, apps, client, free_port, roles_in, until
from tests.e2e.test_mesh import SERVICE, Shop, pod

pytestmark = pytest.mark.asyncio

ONE_REQUEST_A_CONNECTION = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}
"""
TTL_S = 40
STREAMS = 4


class TlsShop(Shop):
    """Sidecars that come to control by TLS, with a one-time token each: later their certificate opens the door."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.tls_port = free_port()
        self.flags = ("--tls-listen", f"127.0.0.1:{self.tls_port}", "--certificate-ttl", str(TTL_S))

    async def start_sidecar(self, name: str) -> Role:
        code, out, err = await self.roles.command(
            "token", "create", "--service-account", name, "--one-time", "--workload", f"{name}-1", "--control", self.url
        )
        assert code == 0, err
        token = self.roles.folder / f"{name}.token"
        token.write_text(out)
        self.sidecars[name] = await self.roles.start(
            "sidecar", "--workload", f"default/{name}-1", "--control", f"https://127.0.0.1:{self.tls_port}",
            "--ca", str(self.roles.folder / "first-ca.pem"), "--token-file", str(token),
            "--outbound", "127.0.0.1:0", "--inbound", f"127.0.0.1:{self.mesh_ports[name]}", "--admin", "127.0.0.1:0",
            "--health", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data-dir", str(self.roles.folder / name),
            "--workers", "2" if name == "web" else "1",
        )  # fmt: skip
        return self.sidecars[name]

    async def certs(self) -> Any:
        _, out, err = await self.roles.command("certs", "--control", self.url, "-o", "json")
        return json.loads(out), err

    async def rotate(self, *flags: str) -> tuple[int, str, str]:
        return await self.roles.command("certs", "rotate", "--control", self.url, *flags)


async def test_a_root_is_rotated_under_load_without_a_failed_handshake_and_each_step_waits(tmp_path: Path) -> None:
    """Long because it is one story: each new connection is a handshake, from before the first step to the end."""
    async with roles_in(tmp_path) as roles, apps("web") as (app,), client() as session:
        mesh = TlsShop(roles, app, session)
        control = await mesh.start_control()
        (tmp_path / "first-ca.pem").write_bytes((tmp_path / "control" / "ca.pem").read_bytes())
        pods = [
            pod("web-1", "web", mesh.mesh_ports["web"], app.port),
            pod("friend-1", "friend", mesh.mesh_ports["friend"]),
        ]
        await mesh.apply("---".join([SERVICE, ONE_REQUEST_A_CONNECTION, *pods]))
        for name in ("web", "friend"):
            await mesh.start_sidecar(name)
        answers: list[Any] = []
        ended = asyncio.Event()

        async def load() -> None:
            while not ended.is_set():
                status, _, told = await mesh.ask("friend")
                answers.append(status if status == 200 else told)
                await asyncio.sleep(PACE_S)

        streams = [asyncio.create_task(load()) for _ in range(STREAMS)]
        try:
            before, _ = await mesh.certs()
            (old,) = before["authorities"]
            assert (old["kind"], old["state"], old["trustedBy"], before["connected"]) == ("root", "issuing", 2, 2)
            assert {leaf["workload"] for leaf in before["leaves"]} == {"default/web-1", "default/friend-1"}
            assert {leaf["by"] for leaf in before["leaves"]} == {"token"}
            code, out, err = await mesh.rotate("--step", "finish")
            assert code == 1
            assert "expected a rotation that is issuing" in err
            code, out, err = await mesh.rotate("--step", "start")
            assert code == 0, err
            await control.stop()  # in the middle of it: the next one goes on where this one was
            await mesh.start_control()
            code, out, err = await mesh.rotate()
            assert code == 0, err
            assert out.splitlines() == [
                "issue: the new root issues; certificates are being replaced", "finish: the old root is dropped"
            ]  # fmt: skip
            assert "uses a certificate of the old root" in err
            count = len(answers)
            await until("traffic after the old root is gone", lambda: _more(answers, count + 50))
        finally:
            ended.set()
            await asyncio.gather(*streams)
        assert set(map(str, answers)) == {"200"}, [one for one in answers if one != 200][:3]
        after, _ = await mesh.certs()
        (new,) = after["authorities"]
        assert new["fingerprint"] != old["fingerprint"]
        assert (new["state"], new["trustedBy"], after["trustOldRoots"], after["rotation"]) == ("issuing", 2, {}, None)
        assert {leaf["by"] for leaf in after["leaves"]} == {"certificate"}, "one-time tokens were used up"
        assert {path.name for path in (tmp_path / "control").glob("*ca*.pem")} == {"ca.pem", "ca-key.pem"}
        metrics = await (await session.get(mesh.sidecars["web"].url("metrics", "/metrics"))).text()
        assert "fairlead_certificate_alarm 0" in metrics
        assert "fairlead_peers_refused_total{" not in metrics
        audit = [json.loads(line) for line in (tmp_path / "control" / "audit.log").read_text().splitlines()]
        assert [line["rotation"] for line in audit if "rotation" in line] == ["start", "issue", "finish"]
        await mesh.sidecars["friend"].stop()
        again = await mesh.roles.start(
            "sidecar", "--workload", "default/friend-1", "--control", f"https://127.0.0.1:{mesh.tls_port}",
            "--ca", str(tmp_path / "first-ca.pem"), "--token-file", str(tmp_path / "friend.token"),
            "--outbound", "127.0.0.1:0", "--inbound", f"127.0.0.1:{mesh.mesh_ports['friend']}",
            "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
            "--data-dir", str(tmp_path / "friend"),
        )  # fmt: skip
        mesh.sidecars["friend"] = again
        assert (await mesh.ask("friend"))[0] == 200, "the roots kept on disk know control, the file of --ca does not"


async def _more(answers: list[Any], least: int) -> bool:
    return len(answers) >= least


async def test_a_user_of_the_host_gets_its_certificate_by_the_unix_socket_and_no_other(tmp_path: Path) -> None:
    users, path, mesh_port = tmp_path / "users", tmp_path / "workloads.sock", free_port()
    users.write_text(f"{os.getuid()} default/web,default/db\n")
    flags = ["--outbound", "127.0.0.1:0", "--inbound", f"127.0.0.1:{mesh_port}", "--admin", "127.0.0.1:0",
             "--health", "127.0.0.1:0", "--metrics", "off"]  # fmt: skip
    async with roles_in(tmp_path) as roles, client() as session:
        control = await roles.start(
            "control", "--listen", "127.0.0.1:0", "--data-dir", str(tmp_path / "control"),
            "--workload-socket", str(path), "--workload-users", str(users),
        )  # fmt: skip
        assert control.at["socket"] == str(path)
        sidecar = await roles.start(
            "sidecar", "--workload", "default/web-1", "--control", f"unix://{path}", "--service-account", "web", *flags
        )
        certs = await (await session.get(sidecar.url("admin", "/certs"))).json()
        assert certs["identity"] == "spiffe://cluster.local/ns/default/sa/web"
        await sidecar.stop()
        thief = await roles.start(
            "sidecar", "--workload", "default/pay-1", "--control", f"unix://{path}", "--service-account", "pay", *flags,
            wait=False,
        )  # fmt: skip

        async def told() -> bool:
            return "may not be default/pay, but default/web or default/db" in thief.log

        await until("the refusal", told)
        refused = [
            line for line in (tmp_path / "control" / "audit.log").read_text().splitlines() if '"code":403' in line
        ]
        assert refused
