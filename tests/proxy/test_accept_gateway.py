"""A gateway's listening socket: who is served by which server, who is turned away, and what is counted."""

from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path
from typing import Any

import pytest

from fairlead.policy import resources as r
from fairlead.policy.compile import compile_tables
from fairlead.policy.gateways import EVERY, Server
from fairlead.policy.rate_limits import rate_limits
from fairlead.policy.resources import Gateway, GatewayServer, GatewaySpec, Meta, Resources, ServerPort, ServerTLS
from fairlead.policy.tables import Viewpoint
from fairlead.proxy.engine import Engine
from fairlead.proxy.limits import Settings
from fairlead.registry.model import Workload
from fairlead.registry.snapshot import Snapshot
from tests.certificates import Authority

pytestmark = pytest.mark.asyncio


def server(number: int, protocol: str, *hosts: str, mode: str = "") -> GatewayServer:
    tls = ServerTLS(mode=mode) if mode else None
    return GatewayServer(ServerPort(number, f"p{number}-{hosts[0]}", protocol), list(hosts), tls=tls)


class Edge:
    """An engine whose tables have these servers, listening on one port of them."""

    def __init__(self, *servers: GatewayServer, **settings: Any) -> None:
        gateway = Gateway(Meta("edge", "edge"), GatewaySpec(list(servers)))
        viewpoint = Viewpoint(Workload("edge", "gateway-1"), EVERY)
        self.outcomes: list[Any] = []
        self.context: ssl.SSLContext | None = None
        self.asked: list[str] = []
        self.refuse = False
        tables = compile_tables(Resources(gateways=(gateway,)), Snapshot(), viewpoint)
        self.engine = Engine(tables, observer=self, settings=Settings(**settings))

    def done(self, outcome: Any) -> None:
        self.outcomes.append(outcome)

    def context_of(self, found: Server) -> ssl.SSLContext | None:
        self.asked.append(found.name)
        return self.context

    async def listen(self, number: int) -> int:
        return await self.engine.listen_gateway(
            "127.0.0.1", 0, number, self.context_of, lambda _server, _transport: None if self.refuse else ""
        )

    @property
    def failed(self) -> int:
        return sum(one.failed_handshakes for one in self.engine._inbounds)

    async def __aenter__(self) -> Edge:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.engine.close()


def own_context(folder: Path, authority: Authority) -> ssl.SSLContext:
    certificate = authority.issue("a.example")
    (folder / "own.pem").write_text("".join(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "own.pem")
    return context


async def said(port: int, data: bytes, tls: ssl.SSLContext | None = None, name: str | None = None) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=tls, server_hostname=name)
    try:
        writer.write(data)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


ASK = b"GET / HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"


async def test_plain_http_is_answered_by_the_tables_of_the_moment() -> None:
    async with Edge(server(80, "HTTP", "*")) as edge:
        port = await edge.listen(80)
        assert b" 404 " in (await said(port, ASK))[:20]
        (outcome,) = edge.outcomes
        assert (outcome.arrival.listener, outcome.arrival.port, outcome.reason) == ("gateway", 80, "FL-NO-ROUTE")


async def test_tls_ends_at_the_server_of_its_name_and_strangers_are_turned_away(tmp_path: Path) -> None:
    authority = Authority()
    trusting = ssl.create_default_context(cadata=authority.pem)
    servers = (server(443, "HTTPS", "b.example", mode="SIMPLE"), server(443, "HTTPS", "a.example", mode="SIMPLE"))
    async with Edge(*servers) as edge:
        edge.context = own_context(tmp_path, authority)
        port = await edge.listen(443)
        assert b" 404 " in (await said(port, ASK, trusting, "a.example"))[:20]
        assert edge.asked == ["spec.servers[1]"]
        arrival = edge.outcomes[0].arrival
        assert (arrival.tls, arrival.sni, arrival.server) == (True, "a.example", 2)
        assert edge.failed == 0
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await said(port, ASK, trusting, "c.example")
        with pytest.raises(ConnectionError):
            assert not await said(port, ASK)  # no TLS at all
            raise ConnectionError
        edge.context = None
        with pytest.raises((ssl.SSLError, ConnectionError)):
            await said(port, ASK, trusting, "a.example")
        assert edge.failed == 3


async def test_a_client_that_may_not_come_is_closed_after_its_handshake(tmp_path: Path) -> None:
    authority = Authority()
    async with Edge(server(443, "HTTPS", "a.example", mode="MUTUAL")) as edge:
        edge.context, edge.refuse = own_context(tmp_path, authority), True
        port = await edge.listen(443)
        trusting = ssl.create_default_context(cadata=authority.pem)
        try:
            assert await said(port, ASK, trusting, "a.example") == b""
        except ConnectionError:
            pass
        assert edge.failed == 1 and not edge.outcomes


async def test_octets_without_a_rule_are_closed_and_told() -> None:
    async with Edge(server(6379, "REDIS", "*")) as edge:
        port = await edge.listen(6379)
        try:
            assert await said(port, b"PING\r\n") == b""
        except ConnectionError:
            pass
        (outcome,) = edge.outcomes
        assert (outcome.kind, outcome.reason) == ("tcp", "FL-NO-ROUTE")
        assert "no rule of Gateway edge/edge has a route" in outcome.why


async def test_a_hello_that_never_ends_is_dropped_in_time() -> None:
    async with Edge(server(443, "HTTPS", "*", mode="SIMPLE"), peek_timeout_s=0.05) as edge:
        reader, writer = await asyncio.open_connection("127.0.0.1", await edge.listen(443))
        writer.write(b"\x16\x03\x01\x02\x00")
        try:
            assert await asyncio.wait_for(reader.read(), 10) == b""
        except ConnectionResetError:
            pass
        writer.close()


async def test_after_unlisten_nobody_comes_in_and_close_ends_what_is_looked_at() -> None:
    async with Edge(server(443, "HTTPS", "*", mode="SIMPLE")) as edge:
        port = await edge.listen(443)
        held = socket.create_connection(("127.0.0.1", port))
        held.sendall(b"\x16\x03")
        await edge.engine.unlisten("127.0.0.1", port)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))
        held.close()


@pytest.mark.parametrize("secured", [False, True])
async def test_a_connection_over_a_local_rate_limit_is_closed_before_any_handshake(
    tmp_path: Path, secured: bool
) -> None:
    authority = Authority()
    trusting = ssl.create_default_context(cadata=authority.pem) if secured else None
    mine = server(443, "HTTPS", "a.example", mode="SIMPLE") if secured else server(443, "HTTP", "*")
    async with Edge(mine) as edge:
        edge.context = own_context(tmp_path, authority)
        limit = r.ConnectionLimit("new", r.TokenBucket(max_tokens=1, fill_interval=3600.0), 443, "CLIENT")
        spec = r.LocalRateLimitSpec(context="GATEWAY", connections=[limit])
        tables = edge.engine.tables
        resources = r.Resources(local_rate_limits=(r.LocalRateLimit(r.Meta("it", "edge"), spec),))
        tables.rate_limits = rate_limits(resources, tables.viewpoint.workload, True)
        edge.engine.swap(tables)
        port = await edge.listen(443)
        name = "a.example" if secured else None
        assert b" 404 " in (await said(port, ASK, trusting, name))[:20]
        asked = len(edge.asked)
        with pytest.raises((ssl.SSLError, ConnectionError)):
            assert not await said(port, ASK, trusting, name)
            raise ConnectionError
        assert len(edge.asked) == asked
        assert [outcome.reason for outcome in edge.outcomes] == ["FL-NO-ROUTE", "FL-RATE"]
        assert (edge.outcomes[1].arrival.listener, edge.outcomes[1].flag) == ("gateway", "RL")
