"""fairlead history, diff, rollback, explain --at and store, as a person uses them, against a running control plane."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.roles import free_port, roles_in

pytestmark = pytest.mark.asyncio

RULE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web], http: [{timeout: %s, route: [{destination: {host: web}}]}]}
"""


async def test_a_change_is_found_looked_at_and_taken_back_and_the_store_moves_with_its_history(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        url = f"http://127.0.0.1:{free_port()}"

        async def run(*arguments: str, stdin: str = "", code: int = 0, control: bool = True) -> str:
            more = ("--control", url) if control else ()
            got, out, err = await roles.command(*arguments, *more, stdin=stdin.encode())
            assert got == code, (arguments, got, out, err)
            return out + err

        async def timeout(*more: str) -> Any:
            told = await run("explain", "GET", "http://web.default.svc.cluster.local/", "-o", "json", *more)
            return json.loads(told[: told.rindex("}") + 1])["timeout_s"]

        control = await roles.start("control", "--listen", url.removeprefix("http://"), "--data-dir", "one")
        await run("apply", "-f", "-", "--reason", "first", stdin=RULE % "1s")
        assert (await run("diff", "-f", "-", stdin=RULE % "1s")) == ""
        told = await run("diff", "-f", "-", stdin=RULE % "7s", code=1)
        assert "-  - timeout: 1s" in told or "timeout: 7s" in told
        await run("apply", "-f", "-", "--reason", "slower: ticket 12", stdin=RULE % "7s")
        listed = json.loads(await run("history", "vs", "web", "-o", "json"))["changes"]
        assert [(one["verb"], one["reason"]) for one in listed] == [
            ("changed", "slower: ticket 12"),
            ("created", "first"),
        ]
        text = await run("history", "vs", "web")
        assert "slower: ticket 12" in text
        first, second = listed[1]["revision"], listed[0]["revision"]
        assert "timeout: 7s" in await run("diff", str(second), code=1)
        assert "timeout: 7s" in await run("diff", str(first), str(second), "--kind", "vs", code=1)
        assert await timeout() == 7
        assert await timeout("--at", str(first)) == 1
        assert "changed (dry run)" in await run("rollback", str(first), "vs", "web", "--dry-run")
        assert "rolled back to revision" in await run("rollback", str(first), "vs", "web", "--reason", "too slow")
        assert await timeout() == 1
        await run("rollback", "999999", code=1)

        await run("store", "backup", "sqlite:one/store.db", "backup.gz", control=False)
        await control.stop()
        await run("store", "restore", "backup.gz", "sqlite:two/store.db", control=False)
        await run("store", "copy", "sqlite:one/store.db", "sqlite:two/store.db", control=False, code=1)
        await roles.start("control", "--listen", url.removeprefix("http://"), "--data-dir", "two")
        again = json.loads(await run("history", "vs", "web", "-o", "json"))["changes"]
        assert [one["reason"] for one in again] == ["too slow", "slower: ticket 12", "first"]
        assert [one["revision"] for one in again[1:]] == [second, first]
