"""Connections to endpoints: UNIX sockets, names with several addresses, tunnels through an HTTP proxy."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.test_engine import DEADLINE_S, GET, Mesh, answer, ask, closing, echo, server

pytestmark = pytest.mark.asyncio


@pytest.mark.parametrize("http", [True, False])
async def test_an_endpoint_may_be_a_unix_socket(mesh: Mesh, tmp_path: Path, http: bool) -> None:
    where = tmp_path / "app.sock"
    started = await asyncio.start_unix_server(closing(answer if http else echo), where)
    tables = mesh.tables(0, keepalive=(1, 1.0, 1.0))
    (one,) = tables.clusters["c"].endpoints
    one.address, one.egress = f"unix://{where}", None
    mesh.start()
    mesh.engine.swap(tables)
    async with started:
        if http:
            listening = await mesh.engine.listen_outbound("127.0.0.1", 0)
            assert (await ask(listening, GET)).endswith(b"hi")
        else:
            listening = await mesh.engine.listen_named("127.0.0.1", 0, "db", 5432)
            reader, writer = await asyncio.open_connection("127.0.0.1", listening)
            writer.write(b"hello")
            writer.write_eof()
            async with asyncio.timeout(DEADLINE_S):
                assert await reader.read() == b"helloend"
            writer.close()
    await mesh.outcome()


async def test_a_unix_socket_that_is_not_there_is_named(mesh: Mesh, tmp_path: Path) -> None:
    tables = mesh.tables(0)
    tables.clusters["c"].endpoints[0].address = f"unix://{tmp_path}/gone.sock"
    mesh.start()
    mesh.engine.swap(tables)
    listening = await mesh.engine.listen_outbound("127.0.0.1", 0)
    assert b"FL-CONNECT" in await ask(listening, GET)
    assert f"No connection to unix://{tmp_path}/gone.sock: No such file" in (await mesh.outcome()).why


@pytest.mark.parametrize("spread", [True, False])
async def test_connections_to_a_name_go_to_all_its_addresses_or_to_the_first(
    mesh: Mesh, monkeypatch: pytest.MonkeyPatch, spread: bool
) -> None:
    reached: set[str] = set()

    async def echo_from(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        reached.add(writer.get_extra_info("sockname")[0])
        await echo(reader, writer)

    started = await asyncio.start_server(closing(echo_from), "0.0.0.0", 0)
    port = started.sockets[0].getsockname()[1]
    addresses = [f"127.0.0.{number}" for number in range(1, 5)]
    loop = asyncio.get_running_loop()
    resolve = loop.getaddrinfo

    async def named(host: Any, *given: Any, **fields: Any) -> Any:
        if host != "many.example":
            return await resolve(host, *given, **fields)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(loop, "getaddrinfo", named)
    tables = mesh.tables(port, spread=spread)
    tables.clusters["c"].endpoints[0].address = "many.example"
    mesh.start()
    mesh.engine.swap(tables)
    async with started:
        listening = await mesh.engine.listen_named("127.0.0.1", 0, "db", 5432)
        for _ in range(40):  # all four but by a chance of 4 in 100,000
            assert (await ask(listening, b"\r\n\r\n")).startswith(b"\r\n")
            await mesh.outcome()
            if spread and len(reached) > 1:
                break
    assert len(reached) > 1 if spread else reached == {"127.0.0.1"}


TARGET = "inside.example:5432"


def forward_proxy(*says: bytes, asked: list[bytes] | None = None) -> Any:
    """An HTTP proxy that answers CONNECT with these pieces, then is an echo."""

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        if asked is not None:
            asked.append(head)
        for piece in says:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(0)
        if says and says[-1]:
            await echo(reader, writer)

    return handle


@pytest.mark.parametrize(
    "says",
    [
        [b"HTTP/1.1 200 Connection established\r\n\r\n"],
        [b"HTTP/1.0 200 OK\r\nVia: proxy\r\n\r\nhello "],
        [b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 2", b"04\r\nA: b\r\n\r", b"\nhello "],
    ],
)
async def test_an_opaque_connection_goes_on_through_a_proxy_that_is_asked_by_connect(
    mesh: Mesh, says: list[bytes]
) -> None:
    asked: list[bytes] = []
    async with server(forward_proxy(*says, asked=asked)) as port:
        engine = mesh.start(port, tunnel=TARGET)
        listening = await engine.listen_named("127.0.0.1", 0, "db", 5432)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        writer.write(b"first ")
        expected = (b"hello " if says[-1].endswith(b"hello ") else b"") + b"first "
        async with asyncio.timeout(DEADLINE_S):
            assert await reader.readexactly(len(expected)) == expected
            writer.write(b"second")
            writer.write_eof()
            assert await reader.read() == b"secondend"
        writer.close()
        outcome = await mesh.outcome()
        assert (outcome.reason, outcome.received_bytes) == ("", len(b"first second"))
        assert asked == [b"CONNECT inside.example:5432 HTTP/1.1\r\nHost: inside.example:5432\r\n\r\n"]


@pytest.mark.parametrize(
    ("says", "why"),
    [
        ([b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n"], "with status 403."),
        ([b"HTTP/1.1 101 Switching Protocols\r\n\r\n"], "with status 101."),
        ([b"220 smtp.example ready\r\n\r\n"], "with '220 smtp.example ready', which is no status"),
        ([b"HTTP/1.1 200 OK\r\nX: " + b"x" * 20_000], "with a head of over 16384 octets."),
        ([b"HTTP/1.1 200 OK\r\n", b""], "closed the connection before it answered CONNECT inside.example:5432."),
    ],
)
async def test_a_proxy_that_does_not_agree_ends_the_connection_and_is_quoted(
    mesh: Mesh, says: list[bytes], why: str
) -> None:
    async with server(forward_proxy(*says)) as port:
        engine = mesh.start(port, tunnel=TARGET)
        listening = await engine.listen_named("127.0.0.1", 0, "db", 5432)
        with contextlib.suppress(ConnectionResetError):  # what it said was not read
            assert await ask(listening, b"first ", until_close=True) == b""
        outcome = await mesh.outcome()
        assert (outcome.reason, outcome.flag) == ("FL-CONNECT", "UF")
        assert why in outcome.why and f"127.0.0.1:{port}" in outcome.why


async def test_a_proxy_that_says_nothing_is_given_up_in_time(mesh: Mesh) -> None:
    async def silent(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with server(silent) as port:
        engine = mesh.start(port, tunnel=TARGET, connect_timeout_s=0.05)
        listening = await engine.listen_named("127.0.0.1", 0, "db", 5432)
        with contextlib.suppress(ConnectionResetError):
            assert await ask(listening, b"first ", until_close=True) == b""
        assert f"did not answer CONNECT {TARGET} within connectTimeout 0.05 s." in (await mesh.outcome()).why


async def test_a_tunnel_is_none_of_a_request(mesh: Mesh) -> None:
    """As with Envoy: only TCP routes are tunnelled."""
    async with server(answer) as port:
        engine = mesh.start(port, tunnel=TARGET)
        listening = await engine.listen_outbound("127.0.0.1", 0)
        assert (await ask(listening, GET)).endswith(b"hi")
