"""What is taken back of certificates is refused by control and peers at once, and stays so over restarts."""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.roles import Role, apps, client, free_port, roles_in, until
from tests.e2e.test_certs import TlsShop
from tests.e2e.test_mesh import SERVICE, pod
from tests.servers import etcd

pytestmark = pytest.mark.asyncio

TTL_S = 20
"""Twice as long as a control plane takes to start on a machine that does much else."""


class Revoking(TlsShop):
    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.flags = ("--tls-listen", f"127.0.0.1:{self.tls_port}", "--certificate-ttl", str(TTL_S))

    async def fairlead(self, *arguments: str) -> str:
        code, out, err = await self.roles.command(*arguments, "--control", self.url)
        assert code == 0, out + err
        return out

    async def until_refused(self, who: str) -> None:
        async def refused() -> bool:
            return (await self.ask(who))[0] == 503

        await until(f"{who} to be refused", refused)

    async def until_served(self, who: str) -> None:
        async def served() -> bool:
            return (await self.ask(who))[0] == 200

        await until(f"{who} to be served", served)

    def audit(self, field: str) -> list[Any]:
        text = (self.roles.folder / "control" / "audit.log").read_text()
        return [line for line in map(json.loads, text.splitlines()) if field in line]


@contextlib.asynccontextmanager
async def revoking(folder: Path, *names: str) -> AsyncIterator[Revoking]:
    async with roles_in(folder) as roles, apps("web") as (app,), client() as session:
        mesh = Revoking(roles, app, session)
        await mesh.start_control()
        (folder / "first-ca.pem").write_bytes((folder / "control" / "ca.pem").read_bytes())
        pods = [pod("web-1", "web", mesh.mesh_ports["web"], app.port)]
        pods += [pod(f"{name}-1", name, mesh.mesh_ports[name]) for name in names]
        await mesh.apply("---".join([SERVICE, *pods]))
        for name in ("web", *names):
            await mesh.start_sidecar(name)
            if name != "web":
                assert (await mesh.ask(name))[0] == 200
        yield mesh


async def until_said(role: Role, text: str) -> None:
    async def said() -> bool:
        return text in role.log

    await until(f"{role.name} to say {text!r}", said)


async def test_a_revoked_workload_is_refused_by_peers_and_control_and_stays_so_until_it_is_restored(
    tmp_path: Path,
) -> None:
    """Long because it is one story over restarts of everybody."""
    async with revoking(tmp_path, "friend", "stranger") as mesh:
        out = await mesh.fairlead("certs", "revoke", "--workload", "default/stranger-1", "--reason", "laptop stolen")
        assert out.splitlines()[0] == "workload default/stranger-1 revoked"
        assert out.splitlines()[1].endswith("of default/stranger-1 revoked")
        status, _, told = await mesh.ask("stranger")  # in force everywhere when the command has answered
        assert status == 503, told
        assert (await mesh.ask("friend"))[0] == 200
        web, stranger = mesh.sidecars["web"], mesh.sidecars["stranger"]
        await until_said(web, "cut: certificate")
        assert "of spiffe://cluster.local/ns/default/sa/stranger is revoked (by fairlead:local" in web.log
        assert "laptop stolen" in web.log
        await until_said(stranger, "feed lost")
        await until_said(stranger, "workload default/stranger-1 was revoked by fairlead:local: laptop stolen")
        await until_said(stranger, "no certificate from control")
        (line,) = mesh.audit("revoked")
        assert (line["revoked"], line["changeCause"]) == ("workload default/stranger-1", "laptop stolen")
        metrics = await (await mesh.session.get(web.url("metrics", "/metrics"))).text()
        assert "fairlead_peers_refused_total{" in metrics

        await mesh.sidecars["friend"].stop()
        await mesh.control.stop()  # type: ignore[union-attr]
        await mesh.start_control()
        friend = await mesh.start_sidecar("friend")
        await mesh.until_served("friend")
        await web.stop()
        await mesh.start_sidecar("web")
        await mesh.until_served("friend")
        assert (await mesh.ask("stranger"))[0] == 503
        shown, _ = await mesh.certs()
        assert "workload default/stranger-1" in [one["what"] for one in shown["revoked"]]
        assert "laptop stolen" in await mesh.fairlead("certs", "--leaves")

        out = await mesh.fairlead("certs", "restore", "--workload", "default/stranger-1")
        assert out.startswith("workload default/stranger-1 restored")
        token = await mesh.fairlead("token", "create", "--service-account", "stranger", "--workload", "stranger-1")
        (tmp_path / "stranger.token").write_text(token)
        await mesh.until_served("stranger")
        assert "cut" not in friend.log
        for role in (friend, stranger, web, mesh.sidecars["web"]):
            role.said_no_traceback()


async def test_a_server_that_is_revoked_is_refused_by_its_clients(tmp_path: Path) -> None:
    async with revoking(tmp_path, "friend") as mesh:
        await mesh.fairlead("certs", "revoke", "--service-account", "default/web")
        await mesh.until_refused("friend")
        assert "of spiffe" in mesh.sidecars["friend"].log or "sa/web is revoked" in mesh.sidecars["friend"].log
        await mesh.fairlead("certs", "restore", "--service-account", "default/web", "--certificates")
        await mesh.until_served("friend")


async def test_with_a_token_goes_what_was_issued_by_it(tmp_path: Path) -> None:
    async with revoking(tmp_path, "friend", "stranger") as mesh:
        tokens = json.loads(await mesh.fairlead("token", "list", "-o", "json"))["tokens"]
        (name,) = [one["id"] for one in tokens if one["serviceAccount"] == "stranger"]
        first = {
            leaf["serial"] for leaf in (await mesh.certs())[0]["leaves"] if leaf["workload"] == "default/stranger-1"
        }

        async def renewed() -> bool:
            leaves = (await mesh.certs())[0]["leaves"]
            return all(one["serial"] not in first for one in leaves if one["workload"] == "default/stranger-1")

        await until("the certificate to be renewed by itself", renewed)
        out = await mesh.fairlead("token", "revoke", "--certificates", name)
        assert out.count("certificate ") >= 1
        assert (await mesh.ask("stranger"))[0] == 503
        assert (await mesh.ask("friend"))[0] == 200
        await until_said(mesh.sidecars["stranger"], "no certificate from control")


async def test_what_one_control_plane_revokes_is_refused_by_the_sidecars_of_another(tmp_path: Path) -> None:
    """The workload's certificate was issued by a control plane that is not the one that is asked."""
    async with etcd(tmp_path) as store:
        where = f"etcd://{store.url.partition('://')[2]}/revoking"
        async with roles_in(tmp_path) as roles, apps("web") as (app,), client() as session:
            mesh = Revoking(roles, app, session)
            mesh.flags += ("--store", where)
            control = await mesh.start_control()
            (tmp_path / "first-ca.pem").write_bytes((tmp_path / "control" / "ca.pem").read_bytes())
            (tmp_path / "other").mkdir()
            for name in ("ca.pem", "ca-key.pem"):
                shutil.copy(tmp_path / "control" / name, tmp_path / "other" / name)
            other = f"127.0.0.1:{free_port()}"
            await roles.start(
                "control", "--listen", other, "--store", where, "--data-dir", str(tmp_path / "other"),
                "--certificate-ttl", str(TTL_S),
            )  # fmt: skip
            pods = [pod("web-1", "web", mesh.mesh_ports["web"], app.port), *(
                pod(f"{name}-1", name, mesh.mesh_ports[name]) for name in ("friend", "stranger")
            )]  # fmt: skip
            await mesh.apply("---".join([SERVICE, *pods]))
            for name in ("web", "friend", "stranger"):
                await mesh.start_sidecar(name)
            for name in ("friend", "stranger"):
                await mesh.until_served(name)
            code, out, err = await roles.command(
                "certs", "revoke", "--workload", "default/stranger-1", "--control", f"http://{other}"
            )
            assert code == 0, out + err
            await mesh.until_refused("stranger")
            assert (await mesh.ask("friend"))[0] == 200
            assert "sidecar/default/stranger-1 is cut off: workload default/stranger-1 was revoked" in control.log
            shown, _ = await mesh.certs()
            assert "workload default/stranger-1" in [one["what"] for one in shown["revoked"]]
            for role in roles.running:
                role.said_no_traceback()
