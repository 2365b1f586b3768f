"""Limits of a pool under load: hundreds of clients at once on real sockets, before a server that counts.

Of each limit: the server never sees more, what is admitted reaches it, and what is refused is told the numbers.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections import Counter
from collections.abc import AsyncIterator
from typing import Any

import pytest

from fairlead.policy.tables import PoolLimits, RetryPolicy
from fairlead.proxy.limits import Settings
from tests.proxy.test_engine import DEADLINE_S, GET, OK, Mesh, mesh, until
from tests.proxy.two import Peer

pytestmark = pytest.mark.asyncio
CLIENTS = 500
__all__ = ["mesh"]


class Counting:
    """A server of HTTP/1.1 (or 2) or of octets that holds what it is asked until `release`."""

    def __init__(self, two: bool = False) -> None:
        self.two = two
        self.gate = asyncio.Event()
        self.open = self.most_open = self.opened = 0
        self.running = self.most_running = self.served = 0
        self.retrying = self.most_retrying = 0
        self.per_connection: list[int] = []
        self.streams = 0
        self.most_streams = 0
        """On one connection."""
        self.answers: list[bytes] = []
        """Of the first requests, at once."""
        self.port = 0

    def release(self) -> None:
        self.gate.set()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.open += 1
        self.opened += 1
        self.most_open = max(self.most_open, self.open)
        self.per_connection.append(0)
        number = len(self.per_connection) - 1
        try:
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                await (self._streams(reader, writer) if self.two else self._requests(reader, writer, number))
        finally:
            self.open -= 1
            writer.close()

    async def _requests(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            self.per_connection[number] += 1
            again = b"x-envoy-attempt-count: 1\r\n" not in head
            self.begin(again)
            try:
                if self.answers and not again:
                    writer.write(self.answers.pop())
                else:
                    await self.gate.wait()
                    writer.write(OK)
                    self.served += 1
            finally:
                self.running -= 1
                self.retrying -= again

    def begin(self, again: bool = False) -> None:
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        self.retrying += again
        self.most_retrying = max(self.most_retrying, self.retrying)

    async def _streams(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(False)
        writer.write(peer.take())
        answered: set[int] = set()

        async def answer(number: int) -> None:
            await self.gate.wait()
            peer.answer(number)
            answered.add(number)
            writer.write(peer.take())
            self.running -= 1
            self.served += 1

        tasks = {}
        while data := await reader.read(65536):
            peer.receive(data)
            for number in peer.heads:
                if number not in tasks:
                    self.begin()
                    tasks[number] = asyncio.ensure_future(answer(number))
            self.most_streams = max(self.most_streams, len(tasks) - len(answered))
            writer.write(peer.take())

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[Counting]:
        server = await asyncio.start_server(self._serve, "127.0.0.1", 0, backlog=4096)
        self.port = server.sockets[0].getsockname()[1]
        try:
            yield self
        finally:
            self.release()
            server.close()


async def engine_before(mesh: Mesh, at: Counting, limits: PoolLimits, **cluster: Any) -> int:
    engine = mesh.start(at.port, settings=Settings())
    config = engine.tables.clusters["c"]
    config.limits = limits
    for name, value in cluster.items():
        setattr(config, name, value)
    return await engine.listen_outbound("127.0.0.1", 0)


class Crowd:
    """Clients that each ask once, on a connection of their own."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.answers: list[bytes] = []
        self._tasks: list[asyncio.Task[None]] = []

    def ask(self, count: int) -> None:
        self._tasks += [asyncio.ensure_future(self._one()) for _ in range(count)]

    async def _one(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(GET)
        head = await reader.readuntil(b"\r\n\r\n")
        found = re.search(rb"content-length: (\d+)", head.lower())
        self.answers.append(head + await reader.readexactly(int(found[1]) if found else 0))
        writer.close()

    async def all(self) -> Counter[bytes]:
        """Answers by status."""
        async with asyncio.timeout(30):
            await asyncio.gather(*self._tasks)
        return Counter(answer.split(b" ")[1] for answer in self.answers)

    def refusals(self) -> Counter[bytes]:
        """The sentences of 503s, without what comes before the first number."""
        return Counter(
            answer.rpartition(b"\r\n\r\n")[2] for answer in self.answers if answer.startswith(b"HTTP/1.1 503")
        )


async def test_max_connections_are_never_passed_and_who_waits_is_served(mesh: Mesh) -> None:
    async with Counting().listening() as server:
        port = await engine_before(mesh, server, PoolLimits(max_connections=10))
        crowd = Crowd(port)
        crowd.ask(CLIENTS)
        live = mesh.engine.pools
        await until(lambda: server.running == 10 and "c" in live and live["c"].live.pending == CLIENTS - 10)
        assert live["c"].live.connections == 10
        server.release()
        assert await crowd.all() == {b"200": CLIENTS}
        assert (server.most_open, server.most_running, server.opened) == (10, 10, 10)


async def test_max_pending_requests_wait_and_no_more(mesh: Mesh) -> None:
    async with Counting().listening() as server:
        port = await engine_before(mesh, server, PoolLimits(max_connections=10, max_pending=20))
        crowd = Crowd(port)
        crowd.ask(10)
        await until(lambda: server.running == 10)
        crowd.ask(CLIENTS - 10)
        await until(lambda: len(crowd.answers) == CLIENTS - 30)
        why = b"20 requests already wait for a connection to web:80; http1MaxPendingRequests is 20.\n"
        assert crowd.refusals() == {why: CLIENTS - 30}
        assert mesh.engine.pools["c"].live.pending == 20
        server.release()
        assert await crowd.all() == {b"200": 30, b"503": CLIENTS - 30}
        assert (server.most_open, server.served) == (10, 30)
        assert all(b"x-envoy-overloaded: true" in one for one in crowd.answers if b" 503 " in one[:20])
        assert {(one.reason, one.flag) for one in mesh.outcomes if one.status == 503} == {("FL-OVERFLOW", "UO")}


async def test_max_requests_are_in_flight_and_no_more(mesh: Mesh) -> None:
    async with Counting().listening() as server:
        port = await engine_before(mesh, server, PoolLimits(max_requests=50))
        crowd = Crowd(port)
        crowd.ask(CLIENTS)
        await until(lambda: len(crowd.answers) == CLIENTS - 50 and server.running == 50)
        why = b"50 requests to web:80 are in flight; http2MaxRequests is 50.\n"
        assert crowd.refusals() == {why: CLIENTS - 50}
        server.release()
        assert await crowd.all() == {b"200": 50, b"503": CLIENTS - 50}
        assert server.most_running == 50
        more = Crowd(port)  # and there is room again
        more.ask(50)
        assert await more.all() == {b"200": 50}


async def test_max_retries_are_under_way_and_no_more(mesh: Mesh) -> None:
    busy = b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n"
    async with Counting().listening() as server:
        server.answers = [busy] * 200
        port = await engine_before(mesh, server, PoolLimits(max_retries=5))
        mesh.decision.retries = RetryPolicy(1, frozenset({"5xx"}))
        crowd = Crowd(port)
        crowd.ask(200)
        await until(lambda: len(crowd.answers) == 195 and server.retrying == 5)
        assert all(answer.startswith(b"HTTP/1.1 503 Busy") for answer in crowd.answers)
        server.release()
        assert await crowd.all() == {b"200": 5, b"503": 195}
        assert server.most_retrying == 5


async def test_a_connection_carries_max_requests_and_is_then_followed_by_another(mesh: Mesh) -> None:
    async with Counting().listening() as server:
        server.release()
        port = await engine_before(mesh, server, PoolLimits(max_requests_per_connection=3, max_connections=7))
        crowd = Crowd(port)
        crowd.ask(300)
        assert await crowd.all() == {b"200": 300}
        assert sum(server.per_connection) == 300
        assert max(server.per_connection) == 3
        assert server.per_connection.count(3) >= 300 // 3 - 7
        assert server.most_open <= 7 + 1  # one may be seen to open before its predecessor is seen to close


@pytest.mark.parametrize("most", [0, 7])
async def test_streams_of_one_connection_are_at_most_max_concurrent_streams(mesh: Mesh, most: int) -> None:
    async with Counting(two=True).listening() as server:
        port = await engine_before(mesh, server, PoolLimits(max_streams=most), http2=True)
        crowd = Crowd(port)
        crowd.ask(CLIENTS)
        await until(lambda: server.running == CLIENTS)
        each = most or 100  # the server's SETTINGS
        assert server.most_streams == each
        assert server.most_open == -(-CLIENTS // each)
        server.release()
        assert await crowd.all() == {b"200": CLIENTS}


async def test_http2_too_has_max_requests_and_max_connections(mesh: Mesh) -> None:
    async with Counting(two=True).listening() as server:
        limits = PoolLimits(max_streams=10, max_connections=3, max_requests=40)
        port = await engine_before(mesh, server, limits, http2=True)
        crowd = Crowd(port)
        crowd.ask(CLIENTS)
        await until(lambda: len(crowd.answers) == CLIENTS - 40 and server.running == 30)
        assert mesh.engine.pools["c"].live.pending == 10
        assert crowd.refusals() == {b"40 requests to web:80 are in flight; http2MaxRequests is 40.\n": CLIENTS - 40}
        server.release()
        assert await crowd.all() == {b"200": 40, b"503": CLIENTS - 40}
        assert (server.most_open, server.most_streams) == (3, 10)


async def test_max_connections_of_tcp_are_relayed_and_the_rest_is_closed_with_the_numbers(mesh: Mesh) -> None:
    async with Counting().listening() as server:
        await engine_before(mesh, server, PoolLimits(max_connections=10))
        port = await mesh.engine.listen_named("127.0.0.1", 0, "db", 5432)
        clients = await asyncio.gather(*(asyncio.open_connection("127.0.0.1", port) for _ in range(200)))
        ends = [asyncio.ensure_future(_ended(reader)) for reader, _ in clients]
        await until(lambda: sum(end.done() for end in ends) == 190 and server.open == 10)
        assert server.most_open == 10
        why = "10 connections to web:80 are open; maxConnections is 10."
        assert Counter((one.reason, one.flag, one.why) for one in mesh.outcomes) == {("FL-OVERFLOW", "UO", why): 190}
        for _, writer in clients:
            writer.close()
        await asyncio.gather(*ends)


async def _ended(reader: asyncio.StreamReader) -> None:
    with contextlib.suppress(ConnectionError):
        await reader.read()


@pytest.mark.parametrize("opaque", [False, True])
async def test_a_connection_is_made_within_connect_timeout_or_not_at_all(mesh: Mesh, opaque: bool) -> None:
    with socket.socket() as deaf, contextlib.ExitStack() as full:
        deaf.bind(("127.0.0.1", 0))
        deaf.listen(0)
        at = deaf.getsockname()
        for _ in range(3):  # nobody takes them: further ones are not answered
            waiting = full.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(at)
        server = Counting()
        server.port = at[1]
        port = await engine_before(mesh, server, PoolLimits(connect_timeout_s=0.2))
        mesh.decision.retries = None
        if opaque:
            port = await mesh.engine.listen_named("127.0.0.1", 0, "db", 5432)
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            async with asyncio.timeout(DEADLINE_S):
                await _ended(reader)
            writer.close()
        else:
            crowd = Crowd(port)
            crowd.ask(20)
            assert await crowd.all() == {b"503": 20}
        outcome = await mesh.outcome()
        assert (outcome.reason, outcome.flag) == ("FL-CONNECT", "UF")
        assert outcome.why == f"127.0.0.1:{at[1]} did not accept a connection within connectTimeout 0.2 s."


async def test_tcp_keepalive_is_set_as_the_rule_says_on_connections_of_http_and_of_octets(mesh: Mesh) -> None:
    def said(transport: Any) -> tuple[int, ...]:
        sock = transport.get_extra_info("socket")
        options = (socket.TCP_KEEPCNT, socket.TCP_KEEPIDLE, socket.TCP_KEEPINTVL)
        return (
            sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE),
            *(sock.getsockopt(socket.IPPROTO_TCP, option) for option in options),
        )

    async with Counting().listening() as server:
        port = await engine_before(mesh, server, PoolLimits(keepalive=(4, 33.0, 7.0)))
        server.release()
        crowd = Crowd(port)
        crowd.ask(1)
        await crowd.all()
        (host,) = mesh.engine.pools["c"].live.hosts
        assert said(host.idle[0].transport) == (1, 4, 33, 7)
        named = await mesh.engine.listen_named("127.0.0.1", 0, "db", 5432)
        _, writer = await asyncio.open_connection("127.0.0.1", named)
        await until(lambda: len(mesh.engine.relays) == 1)
        (relay,) = mesh.engine.relays
        assert said(relay.server.transport) == (1, 4, 33, 7)
        writer.close()


@pytest.mark.parametrize(
    ("limits", "reason", "why"),
    [
        (PoolLimits(tcp_idle_timeout_s=2.0), ("FL-IDLE", "SI"), "Nothing went through for 2 s."),
        (
            PoolLimits(max_connection_duration_s=2.0, tcp_idle_timeout_s=0.0),
            ("FL-DURATION", "DT"),
            "It was open for maxConnectionDuration 2 s.",
        ),
    ],
)
async def test_a_tcp_connection_ends_after_its_rules_idle_time_or_duration(
    mesh: Mesh, limits: PoolLimits, reason: tuple[str, str], why: str
) -> None:
    now = [1000.0]
    async with Counting().listening() as server:
        await engine_before(mesh, server, limits)
        mesh.engine.clock = lambda: now[0]
        mesh.engine.monotonic = False
        port = await mesh.engine.listen_named("127.0.0.1", 0, "db", 5432)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await until(lambda: server.open == 1 and len(mesh.engine.relays) == 1)
        for now[0] in (1000.5, 1002.4 if limits.tcp_idle_timeout_s else 1001.9):
            mesh.engine._ticked()
            assert not mesh.outcomes
        now[0] = 1002.6
        mesh.engine._ticked()
        outcome = await mesh.outcome()
        assert ((outcome.reason, outcome.flag), outcome.why) == (reason, why)
        await _ended(reader)
        writer.close()
        await until(lambda: server.open == 0)
