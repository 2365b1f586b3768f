"""Who still comes in plaintext: counted by sidecars, kept by control, shown, and in the way of a switch to STRICT."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.roles import until
from tests.e2e.test_mesh import HOST, Shop, shop

pytestmark = pytest.mark.asyncio
LOOSE = """
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: loose}
spec: {selector: {matchLabels: {app: web}}, mtls: {mode: PERMISSIVE}}
"""


async def fairlead(mesh: Shop, *arguments: str, stdin: str = "") -> tuple[int, str]:
    code, out, err = await mesh.roles.command(*arguments, "--control", mesh.url, stdin=stdin.encode())
    return code, out + err


async def ledger(mesh: Shop) -> list[dict[str, Any]]:
    code, out, err = await mesh.roles.command("mtls", "-o", "json", "--control", mesh.url)
    assert code == 0, err
    found: list[dict[str, Any]] = json.loads(out)
    return found


async def plain(mesh: Shop) -> int:
    """Status of a request that comes without a sidecar; 0: closed without an answer."""
    try:
        async with mesh.session.get(
            f"http://127.0.0.1:{mesh.mesh_ports['web']}/", headers={"host": HOST, "connection": "close"}
        ) as answer:
            return answer.status
    except OSError:
        return 0


@pytest.mark.parametrize("workers", [1, 2])
async def test_plaintext_stands_in_the_way_of_strict_until_it_is_forced(tmp_path: Path, workers: int) -> None:
    async with shop(tmp_path, workers=workers) as mesh:
        await mesh.apply(LOOSE)

        async def loose() -> bool:
            return await plain(mesh) == 200

        await until("plaintext to be taken", loose)

        async def told() -> list[dict[str, Any]]:
            return await ledger(mesh)

        entry = (await until("control to hear of it", told))[0]
        assert entry["destination"] == "default/web-1" and entry["address"] == "127.0.0.1"
        assert entry["port"] == mesh.app.port and entry["connections"] >= 1
        assert entry["mode"] == "PERMISSIVE" and entry["blocks"] is True
        code, text = await fairlead(mesh, "mtls", "--check")
        assert code == 1 and "DESTINATION" in text and "default/web-1" in text
        if workers > 1:
            return
        for arguments, stdin in ((("mtls", "strict", "default/web-1"), ""),
                                 (("delete", "peerauthentication", "loose"), ""),
                                 (("apply", "-f", "-"), LOOSE.replace("PERMISSIVE", "STRICT"))):  # fmt: skip
            code, text = await fairlead(mesh, *arguments, stdin=stdin)
            assert code == 1, (arguments, text)
            assert "STRICT would refuse who still comes in plaintext: default/web-1 port" in text, text
            assert "--force" in text and "127.0.0.1" in text
        assert await plain(mesh) == 200
        control = mesh.control
        assert control is not None
        await control.stop()
        await mesh.start_control()  # the ledger outlives it
        assert [one["destination"] for one in await ledger(mesh)] == ["default/web-1"]

        async def forgotten() -> bool:
            """What came before, too, may be told only now: its sidecar has to find control again."""
            code, text = await fairlead(mesh, "mtls", "forget", "default/web-1")
            assert code == 0 and "forgotten" in text
            return (await fairlead(mesh, "delete", "peerauthentication", "loose"))[0] == 0

        await until("nobody to be in the way", forgotten)

        async def refused() -> bool:
            return await plain(mesh) == 0

        await until("plaintext to be refused", refused)

        async def told_of_refusals() -> list[dict[str, Any]]:
            return [one for one in await ledger(mesh) if one["refused"]]  # what came before may be told first

        entry = (await until("control to hear of it", told_of_refusals))[0]
        assert entry["refused"] >= 1 and entry["mode"] == "STRICT" and entry["blocks"] is False
        await mesh.apply(LOOSE)
        code, text = await fairlead(mesh, "mtls", "strict", "default", "--force")
        assert code == 0 and "PeerAuthentication default/default is STRICT" in text
        assert "not so the workloads (PERMISSIVE) of PeerAuthentication default/loose" in text
