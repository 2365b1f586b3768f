"""A push never breaks what runs: exchanges and streams go on; only withdrawn permission ends one, with a reason."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest

from tests.mesh.test_sidecar import HOST, NO_CLIENTS, Pair, ask, pair, port_of

pytestmark = pytest.mark.asyncio
SOCKETS = 1000
PUSHES = 500
DEADLINE_S = 120.0
UPGRADE = f"GET /ws HTTP/1.1\r\nhost: {HOST}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n".encode()
SWITCHED = b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
ROUTE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http: [{timeout: %ds, route: [{destination: {host: web}, headers: {request: {set: {x-push: "%d"}}}}]}]
"""
GONE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web], http: [{directResponse: {status: 410}}]}
"""
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


@contextlib.asynccontextmanager
async def upgrading() -> AsyncIterator[Pair]:
    """A pair whose app switches protocols on /ws, and then sends back what it gets."""
    async with pair("PERMISSIVE") as mesh:

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
                head = await reader.readuntil(b"\r\n\r\n")
                assert b"/ws" in head
                writer.write(SWITCHED)
                while data := await reader.read(1000):
                    writer.write(data)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, backlog=SOCKETS)
        mesh.app.port = server.sockets[0].getsockname()[1]
        mesh.update()
        try:
            async with asyncio.timeout(DEADLINE_S):
                yield mesh
        finally:
            server.close()


async def opened(port: int) -> Stream:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0))  # client-1's
    writer.write(UPGRADE)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
    return reader, writer


async def echoes(stream: Stream) -> bool:
    stream[1].write(b"still here")
    return await stream[0].readexactly(10) == b"still here"


async def denied(mesh: Pair) -> float:
    text = (await ask(port_of(mesh.web.at["metrics"]), "/metrics"))[2].decode()
    lines = [line for line in text.split("\n") if line.startswith("fairlead_responses_total") and "FL-DENIED" in line]
    return sum(float(line.rpartition(" ")[2]) for line in lines)


async def test_a_thousand_idle_websockets_survive_five_hundred_pushes_and_end_when_their_permission_does() -> None:
    async with upgrading() as mesh:
        streams: list[Stream] = []
        for _ in range(0, SOCKETS - 1, 37):
            streams += await asyncio.gather(*(opened(mesh.mesh_port) for _ in range(37)))
        streams.append(await opened(port_of(mesh.client.at["outbound"])))  # one by both sidecars, over mutual TLS
        assert len(streams) >= SOCKETS
        for number in range(PUSHES):
            mesh.update(ROUTE % (number % 7 + 1, number))
            await asyncio.sleep(0)
        assert all(await asyncio.gather(*map(echoes, streams)))
        assert await denied(mesh) == 0
        mesh.update(NO_CLIENTS)
        for reader, _ in streams:
            with contextlib.suppress(ConnectionError):
                assert await reader.read() == b""
        assert await denied(mesh) == len(streams)
        for _, writer in streams:
            writer.close()


async def test_an_exchange_ends_by_the_tables_that_it_began_with() -> None:
    async with pair() as mesh:
        slow = asyncio.create_task(mesh.ask("/slow"))
        async with asyncio.timeout(20):
            await mesh.app.held.wait()
        for number in range(20):
            mesh.update(ROUTE % (1, number))
        mesh.update(GONE)
        assert (await mesh.ask())[0] == 410
        mesh.app.go.set()
        assert (await slow)[0] == 200
