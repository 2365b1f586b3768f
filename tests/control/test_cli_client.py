"""The verbs that speak to a running control: what they print, where to, and with which exit code."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.api import Options
from fairlead.control.cli import main
from fairlead.control.cli_client import failed
from fairlead.control.status import StatusError
from tests.control.serving import VIRTUAL_SERVICES, Client, api_in, virtual_service

pytestmark = pytest.mark.asyncio
GOOD = """apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: NAME}
spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}
"""
CONFIRMATIONS = "/fairlead/v1/confirmations"


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("FAIRLEAD_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


async def run(client: Client, *arguments: str) -> int:
    return await asyncio.to_thread(main, [*arguments, "--control", client.url])


async def test_apply_shows_what_the_server_warns_of_and_where(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.yaml").write_text(GOOD.replace("NAME", "a, namespace: shop"))
    async with api_in(tmp_path) as (_, client):
        assert await run(client, "apply", "-f", "a.yaml") == 0
    told = capsys.readouterr()
    assert told.out == "VirtualService shop/a created\n"
    assert 'warning: a.yaml:1: VirtualService shop/a: namespace "shop" did not exist' in told.err
    assert "no service web.shop.svc.cluster.local is known" in told.err


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        (GOOD.replace("io/v1", "io/v2"), "a.yaml:1: VirtualService default/NAME: apiVersion: the server has no "
         "VirtualService of networking.istio.io/v2; it has it of networking.istio.io/v1"),
        (GOOD.replace("Service\n", "Servise\n"),
         "kind: the server has no VirtualServise; did you mean VirtualService?"),
        (GOOD.partition("\n")[2], "apiVersion and kind must both be given"),
        (GOOD.replace("{name: NAME}", "{}"), "metadata.name: Required value"),
    ],
)  # fmt: skip
async def test_a_document_that_names_nothing_the_server_has_is_refused_and_the_next_one_is_applied(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], manifest: str, said: str
) -> None:
    Path("a.yaml").write_text(manifest + "---\n" + GOOD.replace("NAME", "b"))
    async with api_in(tmp_path) as (_, client):
        assert await run(client, "apply", "-f", "a.yaml") == 1
        told = capsys.readouterr()
        assert said in told.err
        assert "VirtualService default/b created" in told.out
        assert await run(client, "apply", "-f", "a.yaml", "--confirm", "60s") == 1
        assert (await client.get(CONFIRMATIONS))["confirmations"] == [], "nothing is left open"


async def test_what_is_unchanged_needs_no_confirmation(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("a.yaml").write_text(GOOD.replace("NAME", "a"))
    async with api_in(tmp_path) as (_, client):
        assert await run(client, "apply", "-f", "a.yaml") == 0
        capsys.readouterr()
        manager = f"{VIRTUAL_SERVICES}/a?fieldManager=kubectl"
        await client.ask("PATCH", manager, GOOD.replace("NAME", "a"), 200, Content_Type="application/apply-patch+yaml")
        await client.ask("PATCH", manager, virtual_service("a"), 200, Content_Type="application/merge-patch+json")
        assert await run(client, "apply", "-f", "a.yaml", "--confirm", "60s") == 0
        assert capsys.readouterr().out == "VirtualService default/a unchanged\nunchanged: nothing to confirm\n"
        assert (await client.get(CONFIRMATIONS))["confirmations"] == []
        assert await run(client, "confirm", "--list") == 0
        assert capsys.readouterr().err == "nothing waits to be confirmed\n"
        assert await run(client, "confirm", "0badcafe") == 1
        assert "0badcafe" in (err := capsys.readouterr().err) and "see --list" in err


async def test_nothing_to_apply_or_delete_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty.yaml").write_text("# nothing\n")
    async with api_in(tmp_path) as (_, client):
        assert await run(client, "apply", "-f", "empty.yaml") == 1
        assert await run(client, "delete", "-f", "empty.yaml") == 1
        assert capsys.readouterr().err.splitlines() == [
            "fairlead: empty.yaml: no objects to apply", "fairlead: empty.yaml: no objects to delete",
        ]  # fmt: skip
        assert await run(client, "delete", "vs") == 2, "a name is missing"


async def test_delete_goes_through_its_documents_and_names_those_that_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("a.yaml").write_text("---\n".join(GOOD.replace("NAME", name) for name in ("a", "gone", "b")))
    async with api_in(tmp_path) as (_, client):
        for name in ("a", "b"):
            await client.post(VIRTUAL_SERVICES, virtual_service(name))
        assert await run(client, "delete", "-f", "a.yaml") == 1
        told = capsys.readouterr()
        assert told.out == "VirtualService a deleted\nVirtualService b deleted\n"
        assert told.err.startswith("fairlead: a.yaml:6: ") and '"gone" not found' in told.err


async def test_a_refusal_of_discovery_is_a_sentence_for_every_verb(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Path("tokens").write_text("a-token-of-thirty-two-characters admin\n")
    Path("a.yaml").write_text(GOOD.replace("NAME", "a"))
    verbs = [
        ["apply", "-f", "a.yaml"], ["delete", "vs", "a"], ["delete", "-f", "a.yaml"], ["get", "vs"],
        ["diff", "-f", "a.yaml"], ["history", "vs"], ["rollback", "1"], ["status"], ["mtls"], ["certs"], ["confirm"],
        ["token", "create"], ["explain", "GET", "http://web/"], ["policy", "matrix"], ["registry", "services"],
        ["mtls", "strict", "default"], ["env"],
    ]  # fmt: skip
    async with api_in(tmp_path, Options(admin_token_file="tokens")) as (_, client):
        for verb in verbs:
            code = await run(client, *verb, "--token", "wrong")
            told = capsys.readouterr()
            assert (code, told.out) == (2 if verb[0] == "diff" else 1, ""), verb
            assert "this bearer token is not known here" in told.err, verb


async def test_a_kind_that_is_misspelt_is_answered_with_the_near_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    async with api_in(tmp_path) as (_, client):
        assert await run(client, "get", "netpols") == 2
        assert "no resource called 'netpols'; did you mean netpol?\n" in capsys.readouterr().err


async def test_what_a_guard_refuses_is_done_by_force(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    class Guard:
        def check(self, _changed: Any, _author: str) -> None:
            raise StatusError(403, "it would cut you off")

    Path("a.yaml").write_text(GOOD.replace("NAME", "a"))
    async with api_in(tmp_path) as (api, client):
        before = api.store.memory.revision
        api.lockout = Guard()  # type: ignore[assignment]
        for verb in (["apply", "-f", "a.yaml"], ["rollback", str(before), "vs"], ["apply", "-f", "a.yaml"],
                     ["delete", "vs", "a"]):  # fmt: skip
            assert await run(client, *verb) == 1, verb
            assert "it would cut you off" in capsys.readouterr().err
            assert await run(client, *verb, "--force") == 0, verb
            capsys.readouterr()


async def test_names_of_others_in_a_refusal_move_no_cursor(capsys: pytest.CaptureFixture[str]) -> None:
    failed("taken by \x1b[2J\u202emallory\nand more")
    assert capsys.readouterr().err == "fairlead: taken by \\x1b[2J\\u202emallory\nand more\n"
