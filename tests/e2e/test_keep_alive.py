"""A server that closes idle connections after a while, and clients who ask at that moment: no request fails."""

from __future__ import annotations

import asyncio
import random
import sys
from pathlib import Path

import pytest

from tests.e2e.roles import free_port, roles_in, until

pytestmark = pytest.mark.asyncio

APP = """
async def app(scope, receive, send):
    if scope["type"] != "http":
        return
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"ok"})
"""
MESH = """
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: {port}}}]
endpoints: [{{addresses: [127.0.0.1]}}]
"""
KEEPS_S = 1
CLIENTS, EACH = 60, 6
QUIET = ("--inbound", "off", "--admin", "off", "--health", "off", "--metrics", "off")


async def client(port: int, seed: int, answers: list[bytes]) -> None:
    """Asks on one connection, about as often as the server closes what is idle."""
    draw = random.Random(seed)
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    for _ in range(EACH):
        writer.write(b"POST / HTTP/1.1\r\nHost: web.default\r\nContent-Length: 5\r\n\r\nhello")
        head = await reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        answers.append(head[:12] + b" " + await reader.readexactly(length))
        await asyncio.sleep(KEEPS_S * draw.uniform(0.96, 1.04))  # the very thing that is tested
    writer.close()


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
        async with roles_in(tmp_path) as roles:
            (tmp_path / "mesh.yaml").write_text(MESH.format(port=port))
            role = await roles.start("sidecar", "-f", str(tmp_path / "mesh.yaml"), "--workload", "default/client",
                                     "--outbound", "127.0.0.1:0", *QUIET)  # fmt: skip
            outbound = int(role.at["outbound"].rpartition(":")[2])
            answers: list[bytes] = []
            await asyncio.gather(*(client(outbound, seed, answers) for seed in range(CLIENTS)))
        assert len(answers) == CLIENTS * EACH
        assert {answer for answer in answers if answer != b"HTTP/1.1 200 ok"} == set()
    finally:
        server.terminate()
        await server.wait()
