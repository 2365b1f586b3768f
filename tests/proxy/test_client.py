"""The sidecar's HTTP client against real servers: aiohttp, our own local server, and ones that misbehave."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from urllib.parse import quote

import pytest
from aiohttp import web

from fairlead.proxy.client import HttpFetch
from fairlead.registry.needs import FetchError

pytestmark = pytest.mark.asyncio


@contextlib.asynccontextmanager
async def raw_server(script: Callable[[asyncio.StreamReader, asyncio.StreamWriter], object]) -> AsyncIterator[str]:
    tasks = []
    writers = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.append(asyncio.current_task())
        writers.append(writer)
        try:
            await script(reader, writer)  # type: ignore[misc]
        except ConnectionError:
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()
        for writer in writers:
            writer.transport.abort()
        await asyncio.gather(*[t for t in tasks if t is not None], return_exceptions=True)


@contextlib.asynccontextmanager
async def aiohttp_server() -> AsyncIterator[str]:
    async def echo(request: web.Request) -> web.Response:
        return web.Response(
            body=await request.read(), headers={"X-Was": request.method, "X-Query": request.query_string}
        )

    async def trickle(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse()
        await response.prepare(request)
        for n in range(3):
            await response.write(f"line {n}\n".encode())
        return response

    app = web.Application(client_max_size=1 << 24)
    app.router.add_route("*", "/echo", echo)
    app.router.add_get("/trickle", trickle)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def fetcher() -> AsyncIterator[HttpFetch]:
    made = HttpFetch()
    try:
        yield made
    finally:
        await made.close()


async def test_sends_and_receives_whole_bodies_and_keeps_the_connection() -> None:
    async with aiohttp_server() as url, fetcher() as fetch:
        for method, body in (("GET", b""), ("POST", b"x" * 3_000_000), ("PUT", b"y")):
            reply = await fetch.request(method, f"{url}/echo?a=1", body=body, headers={"x-a": "b"})
            assert (reply.status, reply.body) == (200, body)
            assert reply.headers["x-was"] == method
            assert reply.headers["x-query"] == "a=1"
        assert len(fetch._open) == 1


async def test_streams_an_answer_as_it_comes() -> None:
    async with aiohttp_server() as url, fetcher() as fetch, fetch.stream("GET", f"{url}/trickle") as stream:
        assert b"".join([piece async for piece in stream]) == b"line 0\nline 1\nline 2\n"


async def test_a_kept_connection_that_died_is_replaced() -> None:
    served = 0

    async def once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal served
        await reader.readuntil(b"\r\n\r\n")
        served += 1
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")
        await writer.drain()

    async with raw_server(once) as url, fetcher() as fetch:
        for _ in range(3):
            assert (await fetch.request("GET", url)).body == b"ok"
        assert served == 3


async def test_nobody_there_is_an_error_that_names_the_address() -> None:
    async with fetcher() as fetch:
        with pytest.raises(FetchError, match=r"127\.0\.0\.1:1\b"):
            await fetch.request("GET", "http://127.0.0.1:1/")


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nshort",
        b"garbage\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_a_cut_or_malformed_answer_is_an_error(answer: bytes) -> None:
    async def bad(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with raw_server(bad) as url, fetcher() as fetch:
        with pytest.raises(FetchError):
            await fetch.request("GET", url)
        assert not fetch._open


async def test_silence_is_an_error_after_its_time() -> None:
    async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async with raw_server(silent) as url, fetcher() as fetch:
        with pytest.raises(FetchError, match="within"):
            await fetch.request("GET", url, timeout_s=0.05)
        with pytest.raises(FetchError, match="no byte"):
            async with fetch.stream("GET", url, idle_timeout_s=0.05):
                pass


async def test_a_header_with_a_line_break_is_refused() -> None:
    async with fetcher() as fetch:
        with pytest.raises(FetchError, match="line break"):
            await fetch.request("GET", "http://127.0.0.1:1/", headers={"a": "b\r\nc: d"})


async def test_a_request_goes_over_a_unix_socket(tmp_path: Path) -> None:
    path = tmp_path / "with space%.sock"
    app = web.Application()

    async def answer(request: web.Request) -> web.Response:
        return web.Response(text=f"{request.host} {request.path_qs}")

    app.router.add_get("/{path:.*}", answer)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.UnixSite(runner, str(path)).start()
    fetch = HttpFetch()
    try:
        for _ in range(2):
            reply = await fetch.request("GET", f"http+unix://{quote(str(path), safe='')}/a?b=c")
            assert (reply.status, reply.body) == (200, b"localhost /a?b=c")
        with pytest.raises(FetchError, match="No such file"):
            await fetch.request("GET", f"http+unix://{quote(str(tmp_path / 'none'), safe='')}/a")
    finally:
        await fetch.close()
        await runner.cleanup()


async def test_the_address_that_was_judged_is_the_one_connected_to(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that stands for another address each time it is asked (DNS rebinding)."""
    judged: list[str] = []

    def refuses(address: str) -> str:
        judged.append(address)
        return "" if address == "127.0.0.1" else f"{address} is blocked"

    async def hello(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok")

    loop = asyncio.get_running_loop()
    answers = [["127.0.0.1"], ["169.254.169.254"], ["127.0.0.1", "169.254.169.254"]]
    seen: list[str] = []

    async def resolve(host: str, port: int, **_: object) -> list[tuple[object, ...]]:
        seen.append(host)
        if host[0].isdigit():
            return [(2, 1, 6, "", (host, port))]
        return [(2, 1, 6, "", (address, port)) for address in answers.pop(0)]

    async with raw_server(hello) as url:
        port = url.rpartition(":")[2]
        fetches = [HttpFetch(refuses=refuses) for _ in range(3)]
        monkeypatch.setattr(type(loop), "getaddrinfo", lambda _self, *a, **k: resolve(*a, **k), raising=False)
        try:
            assert (await fetches[0].request("GET", f"http://keys.example:{port}/")).body == b"ok"
            assert [one for one in seen if one == "keys.example"] == ["keys.example"], (
                "asked once, judged, connected to"
            )
            with pytest.raises(FetchError, match=r"169.254.169.254 is blocked"):
                await fetches[1].request("GET", f"http://keys.example:{port}/")
            assert (await fetches[2].request("GET", f"http://keys.example:{port}/")).body == b"ok"
        finally:
            monkeypatch.undo()
            for fetch in fetches:
                await fetch.close()
