"""`fairlead token list` and `revoke`: what is shown of tokens, and that a revoked one is of no use."""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path

import pytest

from fairlead.control import grants, tokens
from fairlead.control.cli import main
from fairlead.control.cli_tokens import state_of
from tests.control.serving import Client, api_in

pytestmark = pytest.mark.asyncio


@pytest.fixture(autouse=True)
def nothing_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("FAIRLEAD_"):
            monkeypatch.delenv(name)


async def run(client: Client, *arguments: str) -> int:
    return await asyncio.to_thread(main, ["token", *arguments, "--control", client.url])


async def test_tokens_are_listed_without_secrets_and_revoked_by_id_or_by_themselves(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with api_in(tmp_path) as (_, client):
        made = []
        for account in ("web", "db"):
            assert await run(client, "create", "--service-account", account, "-n", "shop", "--one-time") == 0
            made.append(capsys.readouterr().out.strip())
        assert await run(client, "list", "-o", "json") == 0
        out = capsys.readouterr().out
        assert {one["serviceAccount"] for one in json.loads(out)["tokens"]} == {"web", "db"}
        assert await run(client, "list") == 0
        out += (table := capsys.readouterr().out)
        assert all(token.split("_")[2] not in out for token in made)
        assert "shop        db                any        one-time   until 20" in table
        assert await run(client, "list", "-n", "elsewhere", "-o", "json") == 0
        assert json.loads(capsys.readouterr().out) == {"tokens": []}
        first = made[0].split("_")[1]
        assert await run(client, "revoke", first, made[1]) == 0
        assert await run(client, "revoke", first) == 1
        told = capsys.readouterr()
        assert told.out.splitlines() == [f"token {first} revoked", f"token {made[1].split('_')[1]} revoked"]
        assert f'"{first}" not found; see `fairlead token list`' in told.err
        bearer = f"Bearer {made[1]}"
        status, answer = await client.ask("POST", "/fairlead/v1/certificates", {}, Authorization=bearer)
        assert status == 401 and "revoked" in answer["message"]


async def test_what_a_token_gave_goes_with_it_where_that_is_asked_for(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        grant = await client.post("/fairlead/v1/tokens", {"namespace": "shop", "labels": {"app": "web"}})
        token = tokens.known(api.store.memory, grant["id"])
        key = grants.key_of("shop", "default", "web-1")
        await api.store.write(grants.issued(api.store.memory, token, key, time.time()))
        assert await run(client, "revoke", "--withdraw", grant["id"]) == 0
        assert api.store.memory.get(key) is None


async def test_the_state_of_a_token() -> None:
    assert state_of({"expiresAt": 100.0}, 99.0) == "until 1970-01-01 00:01:40Z"
    assert state_of({"expiresAt": 100.0}, 100.0) == "expired 1970-01-01 00:01:40Z"
    assert state_of({"expiresAt": 100.0, "usedAt": 5.0}, 9.0).startswith("until")
    assert state_of({"expiresAt": 100.0, "usedAt": 5.0, "oneTime": True}, 9.0) == "used"
