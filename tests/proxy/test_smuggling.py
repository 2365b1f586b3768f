"""The corpus against the real engine on real sockets: what is refused reaches no endpoint, what is bad no client."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from fairlead.proxy.engine import Engine
from tests.proxy.smuggling_corpus import BAD_RESPONSES, REFUSED
from tests.proxy.test_engine import DEADLINE_S, GET, OK, Mesh, server, until

pytestmark = pytest.mark.asyncio
BEHIND = b"GET /smuggled HTTP/1.1\r\nHost: web\r\n\r\n"


class Recorder:
    """An endpoint that writes down what came, by connection, and answers each whole head with `answers` in turn."""

    def __init__(self, *answers: bytes) -> None:
        self.came: list[bytes] = []
        self.answers = list(answers)
        self.first = b""
        """Said before anything was asked."""
        self.closes = False
        self.silent = False
        self.ended: set[int] = set()

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = len(self.came)
        self.came.append(b"")
        if self.first:
            writer.write(self.first)
        try:
            while data := await reader.read(65536):
                self.came[number] += data
                if data.endswith(b"\r\n\r\n") and not self.silent:
                    writer.write(self.answers.pop(0) if self.answers else OK)
                    if self.closes and not self.answers:
                        self.closes = False
                        return
        finally:
            self.ended.add(number)


@pytest_asyncio.fixture
async def mesh() -> AsyncIterator[Mesh]:
    made = Mesh()
    yield made
    if made.engine is not None:
        await made.engine.close()
        await until(made.at_rest)


async def say(port: int, *pieces: bytes) -> bytes:
    """All that comes back until the end; the client never closes first."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        with contextlib.suppress(ConnectionError):
            for number, piece in enumerate(pieces):
                if number:
                    await asyncio.sleep(0.002)  # so that it is read by itself, which need not be
                writer.write(piece)
                await writer.drain()
        async with asyncio.timeout(DEADLINE_S):
            return await reader.read()
    finally:
        writer.close()


async def checked(corpus: Any, check: Callable[[str], Any]) -> list[str]:
    """Names of the corpus for which the check fails, with how."""
    wrong = []
    for name in corpus:
        try:
            await check(name)
        except (AssertionError, TimeoutError, ConnectionError) as error:
            wrong.append(f"{name}: {type(error).__name__} {error}")
    return wrong


def of_the_body(name: str) -> bool:
    """The head of these is good: what comes behind it is not."""
    return b"chunked\r\n\r\n" in REFUSED[name] and name.startswith(("chunk", "trailer", "last chunk"))


async def test_what_is_refused_reaches_no_endpoint_and_ends_the_connection(mesh: Mesh) -> None:
    recorder = Recorder()
    async with server(recorder) as port:
        engine = mesh.start(port)
        listening = await engine.listen_outbound("127.0.0.1", 0)

        async def check(name: str) -> None:
            got = await say(listening, REFUSED[name] + BEHIND)
            assert got[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 5"), got
            assert got.count(b"\r\nx-fairlead-reason: FL-") == 1, got
            assert b"\r\nconnection: close\r\n" in got
            assert b"\r\nx-fairlead-reason: FL-" in got
            assert recorder.came == []

        wrong = await checked(REFUSED, check)
        assert wrong == [], "\n".join(wrong)
        await until(lambda: len(mesh.outcomes) == len(REFUSED))
        assert {outcome.reason for outcome in mesh.outcomes} == {"FL-MALFORMED", "FL-TOO-LARGE"}
        assert all(outcome.why.endswith(".") for outcome in mesh.outcomes)


async def test_a_body_that_turns_bad_ends_both_connections_and_is_never_whole(mesh: Mesh) -> None:
    recorder = Recorder()
    recorder.silent = True
    async with server(recorder) as port:
        engine = mesh.start(port)
        listening = await engine.listen_outbound("127.0.0.1", 0)

        async def check(name: str) -> None:
            head, _, body = REFUSED[name].partition(b"\r\n\r\n")
            got = await say(listening, head + b"\r\n\r\n", body + BEHIND)
            assert got[:10] in (b"HTTP/1.1 4", b"HTTP/1.1 5"), got
            assert got.count(b"\r\nx-fairlead-reason: FL-") == 1, got
            # One that was made for a request which was refused before it was there is kept, and has heard nothing.
            await until(lambda: all(k in recorder.ended for k, came in enumerate(recorder.came) if came))
            for came in recorder.came:
                assert not came.endswith(b"0\r\n\r\n"), came
                assert b"smuggled" not in came, came

        wrong = await checked([name for name in REFUSED if of_the_body(name)], check)
        assert wrong == [], "\n".join(wrong)
        recorder.silent = False
        assert (await say(listening, GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))).endswith(b"hi")


async def ask_twice(engine: Engine, recorder: Recorder, first: bytes = GET) -> tuple[bytes, bytes]:
    """What a first client gets, and what another one gets after it."""
    listening = await engine.listen_outbound("127.0.0.1", 0)
    closing = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
    got = await say(listening, first.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    then = await say(listening, closing)
    await engine.unlisten("127.0.0.1", listening)
    return got, then


@pytest.mark.parametrize("closes", [False, True], ids=["and waits", "and closes"])
async def test_a_malicious_answer_is_a_502_or_a_cut_and_nobody_else_gets_any_of_it(closes: bool) -> None:
    async def check(name: str) -> None:
        mesh, recorder = Mesh(), Recorder(BAD_RESPONSES[name])
        recorder.closes = closes
        async with server(recorder) as port:
            engine = mesh.start(port)
            try:
                got, then = await ask_twice(engine, recorder)
                assert b"evil" not in got + then, got
                assert then.endswith(b"\r\n\r\nhi"), then
                first = await mesh.outcome()
                if got.startswith(b"HTTP/1.1 200 "):  # the head was good: what follows must not look whole
                    assert b"0\r\n\r\n" not in got, got
                    assert first.reason == "FL-UP-MALFORMED", first.reason
                else:
                    assert b"HTTP/1.1 502 " in got, got
                    assert b"x-fairlead-reason: FL-UP-MALFORMED" in got
                    assert first.why
                assert len(recorder.came) == 2
            finally:
                await engine.close()
                await until(mesh.at_rest)

    wrong = await checked(BAD_RESPONSES, check)
    assert wrong == [], "\n".join(wrong)


EVIL = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
LEFTOVERS = {
    "a second answer": (GET, OK + EVIL),
    "a part of one": (GET, OK + EVIL[:20]),
    "a line end": (GET, OK + b"\r\n"),
    "an answer behind HEAD": (GET.replace(b"GET", b"HEAD"), b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n" + EVIL),
    "a body behind HEAD": (GET.replace(b"GET", b"HEAD"), b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"),
    "a body behind 204": (GET, b"HTTP/1.1 204 No Content\r\nContent-Length: 4\r\n\r\nevil"),
    "an answer behind 204": (GET, b"HTTP/1.1 204 No Content\r\n\r\n" + EVIL),
    "a body behind 304": (GET, b"HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nevil"),
    "chunks behind 304": (GET, b"HTTP/1.1 304 X\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n"),
    "more than its length": (GET, b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhievil"),
    "more than its chunks": (GET, b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + EVIL),
    "a switch unasked": (GET, b"HTTP/1.1 101 X\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nevil"),
    "a late interim answer": (GET, OK + b"HTTP/1.1 100 Continue\r\n\r\n"),
}


@pytest.mark.parametrize("name", LEFTOVERS)
async def test_octets_behind_an_answer_cost_the_connection_and_reach_nobody(mesh: Mesh, name: str) -> None:
    request, answer = LEFTOVERS[name]
    recorder = Recorder(answer)
    async with server(recorder) as port:
        engine = mesh.start(port)
        got, then = await ask_twice(engine, recorder, request)
        assert b"evil" not in got + then
        assert then.endswith(b"\r\n\r\nhi")
        assert len(recorder.came) == 2
        assert (name == "a switch unasked") == got.startswith(b"HTTP/1.1 502 ")


async def test_what_an_endpoint_says_to_an_idle_connection_answers_nothing(mesh: Mesh) -> None:
    writers = []

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writers.append(writer)
        while await reader.read(65536):
            writer.write(OK)

    async with server(handle) as port:
        engine = mesh.start(port)
        listening = await engine.listen_outbound("127.0.0.1", 0)
        closing = GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
        assert (await say(listening, closing)).endswith(b"hi")
        writers[0].write(EVIL)
        await until(lambda: engine.pools["c"].live.connections == 0)
        assert (await say(listening, closing)).endswith(b"hi")
        assert len(writers) == 2


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n0\r\nX: y\r\n",
    ],
)
async def test_an_answer_cut_short_never_looks_whole(mesh: Mesh, cut: bytes) -> None:
    recorder = Recorder(cut)
    recorder.closes = True
    async with server(recorder) as port:
        engine = mesh.start(port)
        listening = await engine.listen_outbound("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", listening)
        writer.write(GET)
        with contextlib.suppress(ConnectionError):
            async with asyncio.timeout(DEADLINE_S):
                got = await reader.read()
                assert not got.endswith(b"0\r\n\r\n")
                assert b"Content-Length: 2" not in got
        writer.close()
        assert (await mesh.outcome()).reason == "FL-RESET"
