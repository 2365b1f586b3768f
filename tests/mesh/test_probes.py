"""Checks run against real servers and commands: what passes, what fails, and in which words."""

from __future__ import annotations

import asyncio
import os
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc.aio
import pytest
import pytest_asyncio
from aiohttp import web

from fairlead.mesh import probes
from fairlead.registry.checks import Check
from tests.mesh.certificates_made import authority, material
from tests.servers import free_ports

pytestmark = pytest.mark.asyncio


class Server:
    def __init__(self) -> None:
        self.port = 0
        self.seen: list[web.Request] = []

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        path = request.path
        if path == "/loop":
            raise web.HTTPFound("/loop")
        if path.startswith("/to/"):
            raise web.HTTPFound(request.query["where"])
        if path == "/large":
            return web.Response(body=b"x" * 10_000_000)
        return web.Response(status=int(path[1:] or 200), text="the cache is cold")


@pytest_asyncio.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    app = web.Application()
    app.router.add_route("*", "/{path:.*}", made.answer)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


def http(path: str = "/200", **more: Any) -> Check:
    return Check("readiness", "http", path=path, **{"timeout_s": 20.0, **more})


async def run(check: Check, port: int = 0) -> probes.Result:
    return await probes.run(check, "127.0.0.1", port)


@pytest.mark.parametrize(("status", "passes"), [(200, True), (204, True), (399, True), (400, False), (503, False)])
async def test_http_passes_with_the_statuses_of_kubernetes(server: Server, status: int, passes: bool) -> None:
    passed, output = await run(http(f"/{status}"), server.port)
    assert passed is passes
    assert output.startswith(f"GET http://127.0.0.1:{server.port}/{status}: {status}")
    if status == 503:
        assert output.endswith(" 503 Service Unavailable\nthe cache is cold")


async def test_http_sends_the_headers_and_the_body_that_it_was_given(server: Server) -> None:
    check = http("/200", headers=(("Host", "a.example"), ("X-A", "1"), ("User-Agent", "me")), method="POST", body="{}")
    assert (await run(check, server.port))[0]
    (seen,) = server.seen
    assert (seen.method, seen.headers.getall("host"), seen.headers["x-a"]) == ("POST", ["a.example"], "1")
    assert seen.headers.getall("user-agent") == ["me"]


async def test_stated_statuses_take_the_place_of_the_usual_ones(server: Server) -> None:
    check = http("/404", statuses=((404, 404),))
    assert (await run(check, server.port))[0]
    assert not (await run(http("/200", statuses=((404, 404),)), server.port))[0]


async def test_redirects_to_the_same_host_are_followed_and_no_others(server: Server) -> None:
    passed, output = await run(http("/to/?where=/503"), server.port)
    assert not passed
    assert "/503: 503" in output
    assert (await run(http("/to/?where=http://elsewhere.example/"), server.port))[0], "as Kubernetes"
    assert (await run(http("/to/?where=/503", redirects=False), server.port))[0]
    passed, output = await run(http("/loop"), server.port)
    assert not passed
    assert "more than 10 redirects" in output


async def test_a_large_answer_is_not_read_to_its_end(server: Server) -> None:
    passed, output = await run(http("/large"), server.port)
    assert passed
    assert len(output) < 5000


async def test_no_answer_in_time_fails_in_words() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        for kind in ("http", "grpc"):
            result = await run(Check("readiness", kind, timeout_s=0.2), port)
            assert result == (False, "no result within 0.2 s")


async def test_tcp_and_http_say_why_there_is_no_connection() -> None:
    (port,) = free_ports(1)
    for kind in ("tcp", "http", "grpc"):
        passed, output = await run(Check("readiness", kind, timeout_s=20.0), port)
        assert not passed
        assert "refused" in output.lower()


async def test_tcp_passes_where_somebody_listens(server: Server) -> None:
    assert await run(Check("readiness", "tcp"), server.port) == (True, f"connected to 127.0.0.1:{server.port}")


async def test_https_needs_no_certificate_that_we_know_unless_it_is_asked_for(tmp_path: Path) -> None:
    made = material(authority())
    (tmp_path / "chain.pem").write_text(made.certificates)
    (tmp_path / "key.pem").write_text(made.key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "chain.pem", tmp_path / "key.pem")

    async def ok(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    listening = await asyncio.start_server(ok, "127.0.0.1", 0, ssl=context)
    async with listening:
        port = listening.sockets[0].getsockname()[1]
        passed, output = await run(http("/", tls=True), port)
        assert passed, output
        passed, output = await run(http("/", tls=True, verify=True), port)
        assert not passed
        assert "certificate" in output.lower()


async def test_grpc_health_of_a_real_server_by_service() -> None:
    statuses = {b"": 1, b"\x0a\x02db": 2}

    async def check(request: bytes, context: Any) -> bytes:
        if request not in statuses:
            await context.abort(grpc.StatusCode.NOT_FOUND, "unknown service")
        return bytes((8, statuses[request]))

    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(check)
    server.add_generic_rpc_handlers(
        (grpc.method_handlers_generic_handler("grpc.health.v1.Health", {"Check": handler}),)
    )
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        assert await run(Check("readiness", "grpc", timeout_s=20), port) == (True, "SERVING")
        assert await run(Check("readiness", "grpc", service="db", timeout_s=20), port) == (
            False, "service 'db' is NOT_SERVING",
        )  # fmt: skip
        passed, output = await run(Check("readiness", "grpc", service="nope", timeout_s=20), port)
        assert (passed, output) == (False, "gRPC status 5: unknown service")
    finally:
        await server.stop(None)


async def test_a_command_passes_by_its_exit_code_and_its_output_is_kept() -> None:
    assert await run(command("echo fine; echo also >&2")) == (True, "exit code 0: fine\nalso")
    assert await run(command("echo no; exit 3")) == (False, "exit code 3: no")
    assert (await run(command("exit 1", exits=(0, 1))))[0]
    assert await run(command("kill -9 $$")) == (False, "killed by signal 9")
    passed, output = await run(Check("readiness", "exec", command=("/no/such/program",)))
    assert not passed
    assert "/no/such/program" in output


def command(script: str, **more: Any) -> Check:
    return Check("readiness", "exec", command=("/bin/sh", "-c", script), **{"timeout_s": 20.0, **more})


async def test_a_command_that_says_too_much_is_neither_stopped_nor_kept_whole() -> None:
    passed, output = await run(command("head -c 3000000 /dev/zero | tr '\\0' x"))
    assert passed
    assert len(output) < 5000


async def test_a_command_that_takes_too_long_is_killed_with_all_that_it_started(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/child; echo $$ > {tmp_path}/own; wait"
    assert await run(command(script, timeout_s=1.0)) == (False, "no result within 1 s")
    for name in ("own", "child"):
        pid = int((tmp_path / name).read_text())
        async with asyncio.timeout(20):
            while alive(pid):
                await asyncio.sleep(0.01)


async def test_what_a_command_leaves_running_does_not_hold_its_result(tmp_path: Path) -> None:
    script = f"sleep 1000 & echo $! > {tmp_path}/child; echo fine"
    try:
        assert await run(command(script)) == (True, "exit code 0: fine")
    finally:
        os.kill(int((tmp_path / "child").read_text()), 9)


def alive(pid: int) -> bool:
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return text.rpartition(")")[2].split()[0] != "Z"
