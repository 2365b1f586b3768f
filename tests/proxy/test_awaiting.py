"""Endpoints that are not known yet: requests and connections wait for them, for a bounded time, and those alone."""

from __future__ import annotations

import asyncio
import socket
import struct
from typing import Any

import pytest

from fairlead.policy.tables import Mirror, Tables
from fairlead.proxy import engine as engine_module
from fairlead.registry.snapshot import Snapshot
from tests.proxy.test_engine import DEADLINE_S, GET, Mesh, answer, ask, echo, mesh, server, until

pytestmark = pytest.mark.asyncio
__all__ = ["mesh"]
POST = b"POST /x HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello"


def known(made: Mesh, *ports: int) -> Tables:
    """Tables by which the endpoints of `web` are known."""
    tables = made.tables(*ports)
    tables.snapshot = Snapshot(1, endpoints={"web": ()})
    return tables


def missing(made: Mesh) -> list[str]:
    """What is asked for, by an engine that knows no endpoint of `web`."""
    asked: list[str] = []

    def ask_for(host: str) -> bool:
        asked.append(host)
        return True

    made.start().missing = ask_for
    return asked


async def test_requests_wait_until_the_endpoints_come_with_their_bodies(mesh: Mesh) -> None:
    bodies: list[bytes] = []

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            bodies.append(await reader.readexactly(5 if head.startswith(b"POST") else 0))
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")

    async with server(take) as port:
        asked = missing(mesh)
        listening = await mesh.engine.listen_outbound("127.0.0.1", 0)
        waiting = [asyncio.create_task(ask(listening, data)) for data in (GET, POST, GET)]
        await until(lambda: len(asked) == 3)
        mesh.engine.swap(mesh.tables())
        assert not any(one.done() for one in waiting), "that said nothing of them"
        mesh.engine.swap(known(mesh, port))
        assert all(got.endswith(b"hi") for got in await asyncio.gather(*waiting))
        assert sorted(bodies) == [b"", b"", b"hello"]
        assert (await ask(listening, GET)).endswith(b"hi")
        assert len(asked) == 3


async def test_a_service_without_endpoints_and_one_that_nobody_can_tell_of_are_said_to_have_none(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_module, "ENDPOINTS_S", 0.05)
    asked = missing(mesh)
    listening = await mesh.engine.listen_outbound("127.0.0.1", 0)
    got = await ask(listening, GET)
    assert got.startswith(b"HTTP/1.1 503 ")
    assert b"FL-NO-HEALTHY" in got
    waiting = asyncio.create_task(ask(listening, GET))
    await until(lambda: len(asked) == 2)
    mesh.engine.swap(known(mesh))
    assert b"FL-NO-HEALTHY" in await waiting
    mesh.engine.missing = lambda _host: False
    assert b"FL-NO-HEALTHY" in await ask(listening, GET)


async def test_connections_wait_too_and_one_whose_client_has_gone_is_forgotten(mesh: Mesh) -> None:
    async with server(echo) as port:
        asked = missing(mesh)
        listening = await mesh.engine.listen_named("127.0.0.1", 0, "db", 5432)
        web = await mesh.engine.listen_outbound("127.0.0.1", 0)
        gone: list[Any] = []
        for at, data in ((listening, b"x"), (web, GET)):
            _, writer = await asyncio.open_connection("127.0.0.1", at)
            writer.write(data)
            gone.append(writer)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        writer.write(b"hello")
        writer.write_eof()
        await until(lambda: len(asked) == 3)
        for one in gone:  # a reset: half a close may wait for its answer
            linger = struct.pack("ii", 1, 0)
            one.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
            one.transport.abort()
        await until(lambda: len(mesh.engine.connections) == 0)
        mesh.engine.swap(known(mesh, port))
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.read() == b"helloend"
        writer.close()


async def test_a_mirror_of_which_no_endpoint_is_known_asks_for_it_and_holds_up_nobody(mesh: Mesh) -> None:
    async with server(answer) as port:
        asked = missing(mesh)
        tables = known(mesh, port)
        tables.clusters = {**tables.clusters, "m": mesh.tables().clusters["c"]}
        mesh.engine.swap(tables)
        object.__setattr__(mesh.decision, "mirrors", (Mirror("m", "web", 80),))
        listening = await mesh.engine.listen_outbound("127.0.0.1", 0)
        assert (await ask(listening, GET)).endswith(b"hi")
        assert asked == ["web"]
