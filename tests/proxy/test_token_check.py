"""Where keys of tokens are fetched from, and how much of an answer is taken: both are another's word."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from fairlead.policy.request_authentication import TokenRule, TokenRules
from fairlead.policy.resources import JWTRule
from fairlead.proxy.token_check import SET_MOST, TokenCheck

pytestmark = pytest.mark.asyncio


async def problem(rule: JWTRule, blocked: tuple[str, ...] = ()) -> str:
    check, done = TokenCheck(), asyncio.Event()
    check.on_fetched = done.set
    try:
        check.update(TokenRules([TokenRule(rule, "shop/a")], ()), blocked)
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


async def test_keys_are_not_fetched_from_addresses_of_the_link_nor_from_those_that_the_operator_names() -> None:
    asked = []

    async def keys(request: web.Request) -> web.Response:
        asked.append(request.path)
        return web.Response(text="{}")

    app = web.Application()
    app.router.add_get("/keys", keys)
    async with TestServer(app) as server:
        url = str(server.make_url("/keys"))
        assert "is never asked for keys" in await problem(JWTRule(issuer="i", jwks_uri="http://169.254.169.254/latest"))
        assert "is never asked for keys" in await problem(JWTRule(issuer="i", jwks_uri="http://[fe80::1]/keys"))
        assert "jwksBlockedNetworks" in await problem(JWTRule(issuer="i", jwks_uri=url), ("127.0.0.0/8", "::1/128"))
        assert asked == []
        await problem(JWTRule(issuer="i", jwks_uri=url))
    assert asked == ["/keys"]
