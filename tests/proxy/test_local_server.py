"""The small server of a sidecar's own ports: answers, refusals, one request after another."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fairlead.proxy import local_server
from fairlead.proxy.client import HttpFetch
from fairlead.proxy.local_server import TEXT, Answer, LocalServer, Query

pytestmark = pytest.mark.asyncio


async def test_once_stopped_it_accepts_nobody_and_gives_who_is_connected_one_more_answer() -> None:
    async with server() as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        for keeps in (True, False):
            writer.write(b"GET /hello?a HTTP/1.1\r\nhost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            assert (b"connection: close" not in head) == keeps
            assert await reader.readexactly(7) == b"hello a"
            made.stop()
        assert await reader.read() == b""
        writer.close()
        with pytest.raises(OSError):
            await asyncio.open_connection("127.0.0.1", made.port)


async def slowly(_query: Query) -> Answer:
    await asyncio.sleep(0)
    return 200, TEXT, b"slow"


def broken(_query: Query) -> Answer:
    raise RuntimeError("ours")


@contextlib.asynccontextmanager
async def server() -> AsyncIterator[LocalServer]:
    made = LocalServer(
        {
            ("GET", "/hello"): lambda query: (200, TEXT, f"hello {query.query}".encode()),
            ("POST", "/echo"): lambda query: (200, TEXT, query.body),
            ("GET", "/slow"): slowly,
            ("GET", "/broken"): broken,
            ("GET", "/under/*"): lambda query: (200, TEXT, query.path.encode()),
        }
    )
    await made.start("127.0.0.1", 0)
    try:
        yield made
    finally:
        await made.close()


async def talk(port: int, octets: bytes, deadline_s: float = 5.0) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(octets)
    with contextlib.suppress(OSError):
        writer.write_eof()
    try:
        return await asyncio.wait_for(reader.read(), deadline_s)
    except ConnectionError:
        return b""
    finally:
        writer.close()


async def test_answers_what_it_knows_and_says_what_it_does_not() -> None:
    async with server() as made:
        fetch = HttpFetch()
        url = f"http://127.0.0.1:{made.port}"
        assert (await fetch.request("GET", f"{url}/hello?x")).body == b"hello x"
        assert (await fetch.request("POST", f"{url}/echo", body=b"abc" * 100_000)).body == b"abc" * 100_000
        assert (await fetch.request("GET", f"{url}/slow")).body == b"slow"
        assert (await fetch.request("GET", f"{url}/under/a/b")).body == b"/under/a/b"
        assert (await fetch.request("HEAD", f"{url}/hello")).body == b""
        assert (await fetch.request("GET", f"{url}/nothing")).status == 404
        assert (await fetch.request("POST", f"{url}/hello")).status == 405
        assert (await fetch.request("POST", f"{url}/echo", body=b"a" * (2 << 20))).status == 413
        await fetch.close()


async def test_a_fault_of_ours_is_a_500_and_the_connection_goes_on(caplog: pytest.LogCaptureFixture) -> None:
    async with server() as made:
        fetch = HttpFetch()
        assert (await fetch.request("GET", f"http://127.0.0.1:{made.port}/broken")).status == 500
        assert (await fetch.request("GET", f"http://127.0.0.1:{made.port}/hello")).status == 200
        await fetch.close()


async def test_requests_sent_at_once_are_answered_in_order() -> None:
    async with server() as made:
        answer = await talk(made.port, b"GET /hello?1 HTTP/1.1\r\nhost: a\r\n\r\nGET /slow HTTP/1.1\r\nhost: a\r\n\r\n"
                            b"GET /hello?3 HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")  # fmt: skip
        assert answer.index(b"hello 1") < answer.index(b"slow") < answer.index(b"hello 3")


@pytest.mark.parametrize(
    "octets",
    [
        b"\0\1\2\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/9.9\r\nhost: a\r\n\r\n",
        b"GET / HTTP/1.1\r\nhost: a\r\nbad line\r\n\r\n",
    ],
)
async def test_what_is_not_http_gets_a_400_and_a_closed_connection(octets: bytes) -> None:
    async with server() as made:
        answer = await talk(made.port, octets)
        assert answer.startswith((b"HTTP/1.1 4", b"HTTP/1.1 5"))


async def test_a_slow_head_gets_a_408(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_server, "HEAD_TIMEOUT_S", 0.05)
    async with server() as made:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(b"GET / HT")
        assert (await asyncio.wait_for(reader.read(), 5)).startswith(b"HTTP/1.1 408")
        writer.close()


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=300))
async def test_no_octets_bring_it_down(octets: bytes) -> None:
    async with server() as made:
        await talk(made.port, octets)
        answer = await talk(made.port, b"GET /hello?y HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")
        assert b"hello y" in answer


async def test_who_asks_again_and_again_and_reads_nothing_is_not_answered_into_memory() -> None:
    answered, body = 0, b"x" * (1 << 20)

    def large(_query: Query) -> Answer:
        nonlocal answered
        answered += 1
        return 200, TEXT, body

    made = LocalServer({("GET", "/large"): large})
    await made.start("127.0.0.1", 0)
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port, limit=1024)
        ask = b"GET /large HTTP/1.1\r\nhost: a\r\n\r\n"
        writer.write(ask * 99 + ask[:-2] + b"connection: close\r\n\r\n")
        await reader.readuntil(b"\r\n")
        before = -1
        while before != answered:  # until it stands still
            before = answered
            await asyncio.sleep(0.05)
        assert answered < 60, "the kernel's buffers hold some; the rest has to wait for the reader"
        got = 0
        async with asyncio.timeout(10.0):
            while chunk := await reader.read(1 << 16):
                got += chunk.count(b"x")
        assert (answered, got >= 100 << 20) == (100, True)
        writer.close()
    finally:
        await made.close()


async def test_requests_that_come_while_one_is_answered_are_answered_in_turn() -> None:
    async with server() as made:
        ask = b"GET /slow HTTP/1.1\r\nhost: a\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", made.port)
        writer.write(ask + ask + ask[:10])
        for _ in range(2):
            assert (await asyncio.wait_for(reader.readuntil(b"slow"), 5.0)).startswith(b"HTTP/1.1 200")
        writer.write(ask[10:])
        assert (await asyncio.wait_for(reader.readuntil(b"slow"), 5.0)).startswith(b"HTTP/1.1 200")
        writer.close()
