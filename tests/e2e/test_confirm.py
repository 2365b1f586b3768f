"""`fairlead apply --confirm` with real processes: what cuts everybody off goes by itself, control or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.roles import until
from tests.e2e.test_mesh import Shop, shop

pytestmark = pytest.mark.asyncio
NOBODY = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: nobody}
spec: {podSelector: {}, policyTypes: [Ingress]}
"""


async def answered(it: Shop, status: int) -> None:
    async def is_so() -> bool:
        return (await it.ask("friend"))[0] == status

    await until(f"status {status}", is_so)


async def apply(it: Shop, seconds: str) -> str:
    """The id to confirm."""
    code, out, err = await it.roles.command(
        "apply", "-f", "-", "--confirm", seconds, "--control", it.url, stdin=NOBODY.encode()
    )
    assert code == 0, out + err
    assert "NetworkPolicy default/nobody created" in out
    return out.split()[-1]


async def test_sidecars_go_back_without_control_and_control_goes_back_when_it_returns(tmp_path: Path) -> None:
    async with shop(tmp_path) as it:
        await answered(it, 200)
        name = await apply(it, "60s")
        await answered(it, 403)
        code, out, err = await it.roles.command("confirm", "--revert", "--control", it.url)
        assert (code, out) == (0, f"{name} taken back\n"), err
        await answered(it, 200)
        await apply(it, "2s")
        await answered(it, 403)
        assert it.control is not None
        await it.control.kill()
        await answered(it, 200)  # by the sidecars alone
        await it.start_control()
        code, out, err = await it.roles.command("get", "networkpolicies", "-o", "name", "--control", it.url)
        assert "nobody" not in out, out + err
        name = await apply(it, "60s")
        await answered(it, 403)
        code, out, err = await it.roles.command("confirm", name, "--control", it.url)
        assert (code, out) == (0, f"{name} confirmed\n"), err
        code, out, err = await it.roles.command("confirm", "--control", it.url)
        assert (code, err) == (1, "fairlead: nothing waits to be confirmed\n"), out
        await answered(it, 403)
