"""What agents tell control, and what a rotation of roots makes of it."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from fairlead.control import api_objects, xds_agents
from fairlead.control.feed_server import FeedServer, Member
from fairlead.control.push import Book
from fairlead.control.rotation import holders_of
from fairlead.control.xds_agent import RefusedError, Trust, tell
from fairlead.control.xds_agents import GONE_S, Agents
from fairlead.proxy.client import HttpFetch

pytestmark = pytest.mark.asyncio
REPORT = {"namespace": "shop", "workload": "web-1", "roots": ["aa"], "serial": "7", "issuer": "k", "notAfter": 99.0}


class Serving:
    def __init__(self) -> None:
        self.now = 0.0
        feed = FeedServer(Book("e"), self._authorize, lambda: None)
        self.agents = Agents(feed, lambda: {"roots": "PEM", "issuer": "k"}, lambda: self.now)

    def _authorize(self, _request: web.Request, _namespace: str, workload: str) -> None:
        if workload == "thief":
            raise web.HTTPForbidden(text='{"message": "it is another\'s"}')

    def names(self, *members: Member) -> list[tuple[str, bool, tuple[str, ...]]]:
        held = holders_of({f"{one.role}/{one.namespace}/{one.workload}": one for one in members})
        return [(one.name, one.mute, one.trusts) for one in self.agents.holders(held)]


def member(workload: str, proxy: str) -> Member:
    return Member("sidecar", "shop", workload, "10.0.0.1", 0, "web", {}, [], 0.0, proxy=proxy)


async def asked(serving: Serving, body: Any) -> tuple[int, Any]:
    app = web.Application()
    app.add_routes(serving.agents.routes())
    async with TestClient(TestServer(app)) as client:
        answer = await client.post("/fairlead/v1/feed/agent", data=msgspec.json.encode(body))
        return answer.status, await answer.read()


async def test_an_agent_counts_for_its_proxy_and_alone_until_it_is_gone() -> None:
    serving = Serving()
    status, octets = await asked(serving, REPORT)
    assert (status, msgspec.json.decode(octets)) == (200, {"roots": "PEM", "issuer": "k", "again": 2.0})
    assert serving.names() == [("agent/shop/web-1", False, ("aa",))], "its Envoy is down"
    assert serving.names(member("web-1", "envoy"), member("web-2", "grpc"), member("ours", "")) == [
        ("sidecar/shop/ours", False, ()), ("sidecar/shop/web-1", False, ("aa",)), ("sidecar/shop/web-2", True, ()),
    ]  # fmt: skip
    serving.now = GONE_S
    assert serving.names(member("web-1", "envoy")) == [("sidecar/shop/web-1", True, ())]
    assert serving.names() == []


async def test_what_is_no_report_is_refused_and_nobody_speaks_for_another() -> None:
    serving = Serving()
    assert (await asked(serving, {"namespace": "shop"}))[0] == 400
    assert (await asked(serving, {**REPORT, "workload": "thief"}))[0] == 403
    assert serving.names() == []


async def test_where_no_more_agents_fit_those_known_are_heard_as_before(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xds_agents, "AGENTS_MOST", 1)
    serving = Serving()
    await asked(serving, REPORT)
    serving.now = GONE_S - 1
    await asked(serving, {**REPORT, "roots": ["bb"]})
    await asked(serving, {**REPORT, "workload": "web-2"})
    serving.now = GONE_S + 1
    assert serving.names() == [("agent/shop/web-1", False, ("bb",))]


async def test_a_report_that_does_not_arrive_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_objects, "BODY_TIMEOUT_S", 0.05)
    app = web.Application()
    app.add_routes(Serving().agents.routes())
    async with TestServer(app) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST /fairlead/v1/feed/agent HTTP/1.1\r\nhost: a\r\ncontent-length: 9\r\n\r\n{")
        async with asyncio.timeout(10):
            status = await reader.readline()
        writer.close()
    assert b" 200 " not in status and status.startswith(b"HTTP/1.1 ")


async def test_an_agent_hears_the_roots_or_that_it_is_refused_or_nothing_of_an_older_control() -> None:
    serving, fetch = Serving(), HttpFetch(None)
    app = web.Application()
    app.add_routes(serving.agents.routes())
    old = web.Application()
    async with TestServer(app) as server, TestServer(old) as older:
        url, before = (str(one.make_url("")).rstrip("/") for one in (server, older))
        assert await tell(fetch, ["http://127.0.0.1:1", url], {}, "shop", "web-1", None) == Trust("PEM", "k", 2.0)
        assert await tell(fetch, [before], {}, "shop", "web-1", None) is None
        with pytest.raises(RefusedError, match="it is another's"):
            await tell(fetch, [url], {}, "shop", "thief", None)
        await fetch.close()


async def test_what_one_agent_says_is_bounded_and_many_cost_no_square_of_them() -> None:
    """A low token could have control keep 3 MiB for each of 20,000 names that it thought up."""
    serving = Serving()
    long = "a" * 1000
    for more in ({"roots": [long]}, {"serial": long}, {"issuer": long}, {"workload": long}):
        status, said = await asked(serving, {**REPORT, **more})
        assert (status, b"not a report of trust" in said) == (400, True)
    assert serving.names() == []
