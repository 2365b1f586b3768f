"""Agents beside Envoys: who may be whom, roots that come while Envoy is down, drain, and refusals in statuses."""

# ruff: noqa: E501 - a table
from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.roles import free_port, until
from tests.e2e.xds_mesh import STRICT, Mesh, host, mesh_in, pod, service

pytestmark = pytest.mark.asyncio
UNREADABLE = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: theirs}
spec: {host: theirs, trafficPolicy: {tls: {mode: SIMPLE, caCertificates: /nowhere/ca.pem}}}
"""


async def certs(mesh: Mesh) -> Any:
    async with mesh.session.get(f"{mesh.control_url}/fairlead/v1/certs") as answer:
        return await answer.json()


async def test_an_agent_with_anothers_token_says_so_and_ends(tmp_path: Path) -> None:
    async with mesh_in(tmp_path) as (mesh, ()):
        await mesh.apply(pod("theirs-1", "theirs", 0, 8080))
        for kind, workload, token in (
            ("envoy", "default/theirs-1", await mesh.token("thief")), ("grpc", "default/theirs-1", await mesh.token("thief")),
            ("grpc", "other/x", await mesh.token("thief")), ("envoy", "default/x", tmp_path / "junk.token"),
        ):  # fmt: skip
            (tmp_path / "junk.token").write_text("junk")
            begun = asyncio.get_running_loop().time()
            code, out, err = await mesh.roles.command(
                kind, "--workload", workload, "--control", mesh.control_url, "--xds", f"127.0.0.1:{mesh.xds_port}",
                "--token-file", str(token), "--data-dir", str(tmp_path / f"{kind}-{token.stem}"),
            )  # fmt: skip
            assert code == 1, (kind, workload, out, err)
            assert "ready" not in out
            assert "control does not let this account be workload" in err or "refused with status 40" in err, err
            assert asyncio.get_running_loop().time() - begun < 15


async def test_roots_come_to_an_agent_whose_envoy_is_down_and_a_rotation_waits_for_it(tmp_path: Path) -> None:
    async with mesh_in(tmp_path) as (mesh, ()):
        await mesh.apply(pod("theirs-1", "theirs", 0, 8080))
        agent, bootstrap = await mesh.beside("envoy", "default/theirs-1", "theirs")
        told = await certs(mesh)
        assert told["connected"] == 1
        code, out, err = await mesh.roles.command("certs", "rotate", "--step", "start", "--control", mesh.control_url)
        assert code == 0, out + err

        async def both() -> bool:
            roots = json.loads((bootstrap.parent / "sds-roots.json").read_text())
            text = roots["resources"][0]["validation_context"]["trusted_ca"]["inline_string"]
            return bool(text.count("BEGIN CERTIFICATE") == 2)

        await until("the new root in the files of Envoy", both)

        async def nobody() -> bool:
            return bool((await certs(mesh))["rotation"]["waitsFor"] == [])

        await until("control to hear of it", nobody)
        code, out, err = await mesh.roles.command("certs", "rotate", "--step", "issue", "--control", mesh.control_url)
        assert code == 0, out + err
        assert await agent.stop() == 0


async def test_refusals_are_in_the_status_of_the_rule_and_sigterm_drains(tmp_path: Path) -> None:
    async with mesh_in(tmp_path, "theirs") as (mesh, (theirs,)):
        inbound = free_port()
        await mesh.apply(
            STRICT, service("theirs"), pod("theirs-1", "theirs", 0, theirs.port), pod("friend-1", "friend")
        )
        friend = await mesh.sidecar("default/friend-1", "friend", free_port())
        envoy = await mesh.envoy("default/theirs-1", "theirs", inbound, "--drain", "5s")
        await mesh.until_answers(friend.url("outbound", ""), host("theirs"))

        # A rule that Envoy refuses says so itself.
        await mesh.apply(UNREADABLE)
        path = f"{mesh.control_url}/apis/networking.istio.io/v1/namespaces/default/destinationrules/theirs"

        async def accepted() -> str:
            async with mesh.session.get(path) as answer:
                conditions = (await answer.json()).get("status", {}).get("conditions", [])
            found = [one for one in conditions if one["type"] == "Accepted"]
            return f"{found[0]['status']} {found[0]['message']}" if found else ""

        async def refused() -> bool:
            text = await accepted()
            return text.startswith("False") and "default/theirs-1" in text and "/nowhere/ca.pem" in text

        await until("the refusal in the status", refused)
        async with mesh.session.get(f"{mesh.control_url}/api/v1/namespaces/default/events") as answer:
            events = [one["message"] for one in (await answer.json())["items"]]
        assert any("/nowhere/ca.pem" in one for one in events), events
        await mesh.delete("destinationrule", "theirs")

        # The end of the agent takes the workload out, then Envoy takes nobody new.
        await mesh.until_answers(friend.url("outbound", ""), host("theirs"))
        stopping = asyncio.ensure_future(envoy.agent.stop())
        await mesh.until_answers(friend.url("outbound", ""), host("theirs"), 503)
        assert await stopping == 0
        assert "Envoy is drained" in envoy.agent.log, envoy.agent.log

        async def closed() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", inbound)
            except OSError:
                return True
            writer.close()
            return False

        await until("the mesh port to be closed", closed)
