"""Keys that control fetches for Envoys: from a real server of HTTP, with other keys later."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from fairlead.control import xds_keys
from fairlead.control.xds_keys import FetchedKeys
from fairlead.policy.resources import RequestAuthentication
from tests.control.xds_worlds import world
from tests.tokens import jwks, signer

pytestmark = pytest.mark.asyncio
GOOD = jwks(signer("ES256"))


@asynccontextmanager
async def issuer(*answers: str) -> AsyncIterator[str]:
    """A URL that gives these in turn, the last for ever; empty: 500."""
    given = list(answers)

    async def answer(_: web.Request) -> web.Response:
        text = given.pop(0) if len(given) > 1 else given[0]
        return web.Response(text=text, status=200 if text else 500)

    app = web.Application()
    app.router.add_get("/keys", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/keys"
    finally:
        await runner.cleanup()


def policies(*urls: str) -> list[RequestAuthentication]:
    rules = [{"issuer": "i", "jwksUri": one} if one else {"issuer": "j", "jwks": GOOD} for one in urls]
    made = {"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": {"name": "u"},
            "spec": {"jwtRules": rules}}  # fmt: skip
    return list(world([made]).resources.request_authentications)


async def test_they_are_there_once_they_are_fetched_and_that_is_told() -> None:
    changed = asyncio.Event()
    keys = FetchedKeys(changed.set)
    async with issuer(GOOD) as url:
        keys.update(policies("", url))
        assert keys(("url", url)) == ""
        await keys.first()
        assert keys(("url", url)) == GOOD
        assert changed.is_set()
        keys.update(policies(""))
        assert keys(("url", url)) == ""
    await keys.close()


async def test_where_nothing_is_to_be_fetched_nobody_waits() -> None:
    keys = FetchedKeys(lambda: None)
    keys.update(policies(""))
    await asyncio.wait_for(keys.first(), 1)
    keys.update(())
    await keys.close()


async def test_a_fetch_that_fails_is_tried_again_and_nobody_waits_for_that() -> None:
    changed = asyncio.Event()
    keys = FetchedKeys(changed.set)
    async with issuer("", GOOD) as url:
        keys.update(policies(url))
        await asyncio.wait_for(keys.first(), 5)
        assert keys(("url", url)) == ""
        await asyncio.wait_for(changed.wait(), 5)
        assert keys(("url", url)) == GOOD
    await keys.close()


async def test_a_server_that_does_not_answer_is_waited_for_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xds_keys, "FIRST_S", 0.05)
    keys = FetchedKeys(lambda: None)
    came: list[asyncio.StreamWriter] = []
    server = await asyncio.start_server(lambda _, writer: came.append(writer), "127.0.0.1", 0)
    async with server:
        keys.update(policies(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/"))
        await asyncio.wait_for(keys.first(), 2)
        await keys.close()
        for writer in came:
            writer.close()
            await writer.wait_closed()
