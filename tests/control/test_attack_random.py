"""Random requests of several accounts: each is permitted as a check of its own says, and nobody sees what they may not
read. More of them: FAIRLEAD_ATTACKS=200 (seeds), FAIRLEAD_ATTACK_FROM=1000 (the first)."""

from __future__ import annotations

import asyncio
import logging
import os
from pathlib import Path

import aiohttp
import pytest

from fairlead.control.api import Options
from fairlead.control.api_limits import Limits
from tests.control.attack_world import MARK, RBAC, USERS, World
from tests.control.serving import api_in

SEEDS = int(os.environ.get("FAIRLEAD_ATTACKS", "3"))
FIRST = int(os.environ.get("FAIRLEAD_ATTACK_FROM", "1"))
STEPS = 250


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(FIRST, FIRST + SEEDS))
async def test_every_request_is_permitted_as_the_judge_says_and_shows_nothing_else(
    tmp_path: Path, seed: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    lines = [f"{name}-token {name} {','.join(groups) or '-'}" for name, groups in USERS.items()]
    (tmp_path / "tokens").write_text("\n".join(["root-token root", *lines]))
    options = Options(
        admin_token_file=str(tmp_path / "tokens"), audit_file=str(tmp_path / "audit"),
        limits=Limits(requests_per_second=1e6, burst=1e6),
    )  # fmt: skip
    async with api_in(tmp_path, options) as (api, client):
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:
            world = World(api, session, client.url, seed)
            readers = {"nonResourceURLs": ["/fairlead/v1/history*"], "verbs": ["get"]}
            role = {"metadata": {"name": "history"}, "rules": [readers]}
            await world.ask("root", "POST", f"/apis/{RBAC}/v1/clusterroles", role)
            binding = {"metadata": {"name": "history"}, "subjects": [{"kind": "User", "name": "u4"}],
                       "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": "history"}}  # fmt: skip
            await world.ask("root", "POST", f"/apis/{RBAC}/v1/clusterrolebindings", binding)
            await world.start()
            try:
                for _ in range(STEPS):
                    await world.step()
                    assert not world.findings, "\n".join(world.findings)
            finally:
                for watch in world.watches:
                    world.end(watch)
                ended = await asyncio.gather(*world.ended, return_exceptions=True)
        assert not world.findings, "\n".join(world.findings)
        assert not [one for one in ended if one is not None and not isinstance(one, asyncio.CancelledError)]
        assert {code for _, code in world.answers} >= {200, 201, 403, 404}
    assert not MARK.findall(caplog.text) and not MARK.findall((tmp_path / "audit").read_text())
