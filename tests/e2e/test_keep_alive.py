"""A server that closes idle connections after a while, and clients who ask at that moment: no request fails."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from pathlib import Path

import pytest

from bench.keepalive import APP
from tests.e2e.roles import free_port, roles_in, static_service, until

pytestmark = pytest.mark.asyncio

KEEPS_S = 1
CLIENTS, EACH = 60, 6
QUIET = ("--inbound", "off", "--admin", "off", "--health", "off", "--metrics", "off")


async def client(port: int, seed: int, answers: list[bytes], keeps_s: float = KEEPS_S) -> None:
    """Asks on one connection, about as often as the server closes what is idle."""
    draw = random.Random(seed)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(EACH):
        writer.write(b"POST / HTTP/1.1\r\nHost: web.default\r\nContent-Length: 5\r\n\r\nhello")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        answers.append(head[:12] + b" " + await reader.readexactly(length))
        await asyncio.sleep(keeps_s * draw.uniform(0.96, 1.04))  # the very thing that is tested
    writer.close()


async def ask_through_a_sidecar(folder: Path, port: int, keeps_s: float) -> None:
    """Many clients, to a server that keeps idle connections for so long: every request is answered."""
    async with roles_in(folder) as roles:
        (folder / "mesh.yaml").write_text(static_service("web", "http", 80, port))
        role = await roles.start("sidecar", "-f", str(folder / "mesh.yaml"), "--workload", "default/client",
                                 "--outbound", "127.0.0.1:0", *QUIET)  # fmt: skip
        outbound = int(role.at["outbound"].rpartition(":")[2])
        answers: list[bytes] = []
        await asyncio.gather(*(client(outbound, seed, answers, keeps_s) for seed in range(CLIENTS)))
    assert len(answers) == CLIENTS * EACH
    assert {answer for answer in answers if answer != b"HTTP/1.1 200 ok"} == set()


async def test_requests_do_not_fail_where_the_servers_end_is_long_under_way(tmp_path: Path) -> None:
    """On loopback the moment is too short to be met often; this server's lasts as long as a slow network's."""
    keeps_s, under_way_s = 1.5, 0.1
    serving: set[asyncio.Task[None] | None] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        serving.add(asyncio.current_task())
        try:
            while True:
                async with asyncio.timeout(keeps_s):
                    await reader.readuntil(b"hello")
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
        except TimeoutError:
            with contextlib.suppress(asyncio.CancelledError):
                await asyncio.sleep(under_way_s)  # whatever comes now is lost
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            writer.transport.abort()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        await ask_through_a_sidecar(tmp_path, server.sockets[0].getsockname()[1], keeps_s)
        for task in filter(None, serving):
            task.cancel()
        await asyncio.gather(*filter(None, serving), return_exceptions=True)


async def test_requests_that_meet_the_servers_idle_timeout_do_not_fail(tmp_path: Path) -> None:
    (tmp_path / "keeps.py").write_text(APP)
    port = free_port()
    server = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "uvicorn", "keeps:app", "--port", str(port), "--timeout-keep-alive", str(KEEPS_S),
        "--log-level", "warning", cwd=tmp_path,
    )  # fmt: skip
    try:

        async def up() -> bool:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionError:
                return False
            writer.close()
            return True

        await until("uvicorn", up)
        await ask_through_a_sidecar(tmp_path, port, KEEPS_S)
    finally:
        server.terminate()
        await server.wait()
