"""Where keys of tokens are fetched from, and how much of an answer is taken: both are another's word."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from fairlead.policy.request_authentication import TokenRule, TokenRules
from fairlead.policy.resources import JWTRule
from fairlead.proxy.token_check import SET_MOST, TokenCheck, is_of_the_host

pytestmark = pytest.mark.asyncio


async def problem(rule: JWTRule) -> str:
    check, done = TokenCheck(), asyncio.Event()
    check.on_fetched = done.set
    try:
        check.update(TokenRules([TokenRule(rule, "shop/a")], ()))
        await asyncio.wait_for(done.wait(), 10.0)
        return check.problem()
    finally:
        await check.close()


async def test_an_issuers_document_cannot_send_us_to_a_socket_of_this_host(tmp_path: Path) -> None:
    asked = []

    async def inside(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.append(await reader.readline())
        writer.close()

    async def document(_request: web.Request) -> web.Response:
        where = f"http+unix://{str(tmp_path / 's').replace('/', '%2F')}/containers/json"
        return web.Response(text=json.dumps({"jwks_uri": where}))

    app = web.Application()
    app.router.add_get("/.well-known/openid-configuration", document)
    async with await asyncio.start_unix_server(inside, tmp_path / "s"), TestServer(app) as issuer:
        told = await problem(JWTRule(issuer=str(issuer.make_url("")).rstrip("/")))
    assert "http and https only" in told
    assert asked == []


async def test_an_answer_that_does_not_end_is_left_where_it_is_too_large() -> None:
    sent = 0

    async def endless(request: web.Request) -> web.StreamResponse:
        nonlocal sent
        response = web.StreamResponse()
        await response.prepare(request)
        while True:
            await response.write(b" " * 65536)
            sent += 65536

    app = web.Application()
    app.router.add_get("/keys", endless)
    async with TestServer(app) as server:
        told = await problem(JWTRule(issuer="i", jwks_uri=str(server.make_url("/keys"))))
    assert f"larger than {SET_MOST} octets" in told
    assert sent < 32 * SET_MOST, "the rest was read, too"


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "[fe80::1]", "[fd00:ec2::254]", "[::ffff:169.254.169.254]", "2852039166", "0xa9fea9fe"]
)
async def test_no_policy_has_a_machines_own_credentials_fetched(host: str) -> None:
    told = await problem(JWTRule(issuer="i", jwks_uri=f"http://{host}/latest/meta-data"))
    assert "nothing is fetched from there" in told


async def test_a_name_for_such_an_address_is_none_to_fetch_from(monkeypatch: pytest.MonkeyPatch) -> None:
    loop, asked = asyncio.get_running_loop(), []

    async def lookup(host: str, port: int, **_: Any) -> Any:
        asked.append(host)
        return [(2, 1, 6, "", ("169.254.169.254" if len(asked) == 1 else "127.0.0.1", port))]

    class Loop:
        def __getattr__(self, name: str) -> Any:
            return lookup if name == "getaddrinfo" else getattr(loop, name)

    monkeypatch.setattr("fairlead.proxy.client.asyncio.get_running_loop", Loop)
    told = await problem(JWTRule(issuer="i", jwks_uri="http://keys.example/"))
    assert "keys.example is 169.254.169.254" in told
    assert asked == ["keys.example"], "what was looked at is what is dialled"


async def test_addresses_of_this_host_and_its_networks_may_be_fetched_from() -> None:
    assert [is_of_the_host(one) for one in ("127.0.0.1", "::1", "10.0.0.1", "fe80::1%eth0")] == [False] * 3 + [True]
