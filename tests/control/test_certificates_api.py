"""Tokens and certificates over HTTP: the identity is the caller's own and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.control import certificates_api
from fairlead.control.api import ControlApi, Options
from tests.control.serving import SERVICES, Client, api_on, store_in

pytestmark = pytest.mark.asyncio
CERTIFICATES, TOKENS = "/fairlead/v1/certificates", "/fairlead/v1/tokens"


class Issuer:
    """Signs nothing and says what it was asked for."""

    def issue(self, csr: str, namespace: str, service_account: str, now: float) -> dict[str, Any]:
        if "bad" in csr:
            raise ValueError("its signature does not verify")
        identity = f"spiffe://cluster.local/ns/{namespace}/sa/{service_account}"
        return {"certificates": "PEM", "roots": "ROOTS", "notAfter": "later", "identity": identity, "serial": "1"}

    def roots(self) -> str:
        return "ROOTS"


@contextlib.asynccontextmanager
async def control(folder: Path) -> AsyncIterator[tuple[ControlApi, Client]]:
    options = Options(audit_file=str(folder / "audit"))
    async with store_in(folder) as store, api_on(store, options, issuer=Issuer()) as pair:
        yield pair


async def make_token(client: Client, **settings: Any) -> str:
    made = await client.post(TOKENS, {"namespace": "shop", "serviceAccount": "web", **settings})
    return f"Bearer {made['token']}"


async def test_a_token_is_traded_for_the_certificate_of_its_identity(tmp_path: Path) -> None:
    async with control(tmp_path) as (_, client):
        token = await make_token(client)
        for body in ({"csr": "PEM"}, {"csr": "PEM", "namespace": "shop", "workload": "web-1"}):
            issued = await client.post(CERTIFICATES, body, 200, Authorization=token)
            assert issued["identity"] == "spiffe://cluster.local/ns/shop/sa/web"
            assert issued["certificates"] == "PEM"
            assert issued["roots"] == "ROOTS"
    lines = [json.loads(line) for line in (tmp_path / "audit").read_text().splitlines()]
    assert lines[-1]["identity"] == "spiffe://cluster.local/ns/shop/sa/web"
    assert lines[-1]["by"] == "token"
    assert token.split("_", 2)[2] not in (tmp_path / "audit").read_text()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"csr": "PEM", "namespace": "other"}, 403), ({"csr": "PEM", "serviceAccount": "db"}, 403), ({}, 400),
        ({"csr": 5}, 400), ({"csr": "x" * 20_000}, 400), ({"csr": "bad"}, 400), ({"csr": "PEM", "namespace": 5}, 400),
    ],
)  # fmt: skip
async def test_nothing_else_is_signed(tmp_path: Path, body: dict[str, Any], code: int) -> None:
    async with control(tmp_path) as (api, client):
        token = await make_token(client)
        refused = await client.post(CERTIFICATES, json.dumps(body), code, Authorization=token)
        assert refused["kind"] == "Status"
        assert (api.certificates.issued, api.certificates.refused) == (0, 1)


async def test_without_a_token_nothing_is_signed_even_on_the_open_loopback(tmp_path: Path) -> None:
    async with control(tmp_path) as (_, client):
        await client.post(CERTIFICATES, {"csr": "PEM"}, 401)


async def test_a_token_bound_to_a_workload_serves_no_other(tmp_path: Path) -> None:
    async with control(tmp_path) as (_, client):
        token = await make_token(client, workload="web-1")
        await client.post(CERTIFICATES, {"csr": "PEM", "workload": "web-1"}, 200, Authorization=token)
        await client.post(CERTIFICATES, {"csr": "PEM", "workload": "web-2"}, 403, Authorization=token)


async def test_of_many_who_show_a_one_time_token_at_once_one_is_served(tmp_path: Path) -> None:
    async with control(tmp_path) as (_, client):
        token = await make_token(client, oneTime=True)
        answers = await asyncio.gather(
            *(client.ask("POST", CERTIFICATES, {"csr": "PEM"}, Authorization=token) for _ in range(8))
        )
        assert sorted(code for code, _ in answers) == [200] + [401] * 7


async def test_the_list_tells_when_a_reusable_token_was_last_traded(tmp_path: Path) -> None:
    async with control(tmp_path) as (_, client):
        token = await make_token(client)
        assert "usedAt" not in (await client.get(TOKENS))["tokens"][0]
        answers = await asyncio.gather(
            *(client.ask("POST", CERTIFICATES, {"csr": "PEM"}, Authorization=token) for _ in range(8))
        )
        assert [code for code, _ in answers] == [200] * 8
        assert (await client.get(TOKENS))["tokens"][0]["usedAt"] > 0


class SlowIssuer(Issuer):
    """Another process signs, as with Vault."""

    def __init__(self) -> None:
        self.signed = 0
        self.problem: Exception | None = None
        self.goes_on = asyncio.Event()

    async def issue(self, *asked: Any) -> dict[str, Any]:  # type: ignore[override]
        self.signed += 1
        await self.goes_on.wait()
        if self.problem is not None:
            raise self.problem
        return super().issue(*asked)


async def test_of_many_who_show_a_one_time_token_while_another_process_signs_one_is_signed_for(tmp_path: Path) -> None:
    issuer = SlowIssuer()
    async with store_in(tmp_path) as store, api_on(store, Options(), issuer=issuer) as (_, client):
        token = await make_token(client, oneTime=True)

        async def ask() -> int:
            return (await client.ask("POST", CERTIFICATES, {"csr": "PEM"}, Authorization=token))[0]

        asking = [asyncio.create_task(ask()) for _ in range(4)]
        done, _ = await asyncio.wait(asking, return_when=asyncio.FIRST_COMPLETED)
        issuer.goes_on.set()
        assert sorted(await asyncio.gather(*asking)) == [200, 401, 401, 401]
        assert issuer.signed == 1
        assert {task.result() for task in done} == {401}, "who comes second is told at once"


async def test_a_one_time_token_for_which_nothing_could_be_signed_is_good_again(tmp_path: Path) -> None:
    issuer = SlowIssuer()
    issuer.problem = certificates_api.UnavailableError("Vault is sealed")
    issuer.goes_on.set()
    async with store_in(tmp_path) as store, api_on(store, Options(), issuer=issuer) as (_, client):
        token = await make_token(client, oneTime=True)
        await client.post(CERTIFICATES, {"csr": "PEM"}, 503, Authorization=token)
        issuer.problem = None
        await client.post(CERTIFICATES, {"csr": "PEM"}, 200, Authorization=token)
        await client.post(CERTIFICATES, {"csr": "PEM"}, 401, Authorization=token)


async def test_a_broken_csr_does_not_use_up_a_one_time_token(tmp_path: Path) -> None:
    async with control(tmp_path) as (_, client):
        token = await make_token(client, oneTime=True)
        await client.post(CERTIFICATES, {"csr": "bad"}, 400, Authorization=token)
        await client.post(CERTIFICATES, {"csr": "PEM"}, 200, Authorization=token)


async def test_a_revoked_token_is_worth_nothing_and_lists_show_no_secrets(tmp_path: Path) -> None:
    async with control(tmp_path) as (_, client):
        made = await client.post(TOKENS, {"namespace": "shop"})
        listed = await client.get(TOKENS)
        assert [token["id"] for token in listed["tokens"]] == [made["id"]]
        assert made["token"].split("_", 2)[2] not in json.dumps(listed)
        await client.delete(f"{TOKENS}/{made['id']}", code=204)
        await client.delete(f"{TOKENS}/{made['id']}", code=404)
        await client.post(CERTIFICATES, {"csr": "PEM"}, 401, Authorization=f"Bearer {made['token']}")


async def test_tokens_outlive_a_restart(tmp_path: Path) -> None:
    async with control(tmp_path) as (_, client):
        token = await make_token(client)
    async with control(tmp_path) as (_, client):
        await client.post(CERTIFICATES, {"csr": "PEM"}, 200, Authorization=token)


async def test_workloads_see_no_objects_and_make_no_tokens(tmp_path: Path) -> None:
    async with control(tmp_path) as (_, client):
        token = await make_token(client)
        await client.get(SERVICES, 403, Authorization=token)
        await client.get("/metrics", 403, Authorization=token)
        await client.post(TOKENS, {}, 403, Authorization=token)
        await client.get(TOKENS, 403, Authorization=token)
        await client.delete(f"{TOKENS}/x", code=403, Authorization=token)
        assert await client.get("/fairlead/v1/roots", Authorization=token) == {"roots": "ROOTS"}


@pytest.mark.parametrize(
    "body",
    [{"ttlSeconds": 0}, {"ttlSeconds": "x"}, {"ttlSeconds": True}, {"oneTime": 1}, {"namespace": "Not/One"},
     {"serviceAccount": ["x"]}, {"serviceAccount": "a/b"}, [], "x"],
)  # fmt: skip
async def test_a_token_request_that_makes_no_sense_is_refused(tmp_path: Path, body: Any) -> None:
    async with control(tmp_path) as (_, client):
        code, refused = await client.ask("POST", TOKENS, json.dumps(body))
        assert code in (400, 422)
        assert refused["kind"] == "Status"


async def test_one_identity_cannot_ask_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(certificates_api, "ISSUES_PER_MINUTE", 3)
    async with control(tmp_path) as (_, client):
        token = await make_token(client)
        for _ in range(3):
            await client.post(CERTIFICATES, {"csr": "PEM"}, 200, Authorization=token)
        refused = await client.post(CERTIFICATES, {"csr": "PEM"}, 429, Authorization=token)
        assert refused["details"]["retryAfterSeconds"] > 0


async def test_without_an_authority_that_is_said(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store, api_on(store) as (_, client):
        await client.get("/fairlead/v1/roots", 404)
