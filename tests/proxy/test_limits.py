"""The limits: their names, what is refused and why, and that nothing grows under a client that does all wrong."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from fairlead.policy.tables import Arrival, Decision
from fairlead.proxy.limits import Members, Settings, described, parse
from tests.proxy.fakes import World, lose, route
from tests.proxy.test_engine import Mesh, until

ROOT = Path(__file__).resolve().parent.parent.parent
GET = b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
BIG = Decision("direct-response", status=200, body=b"x" * 10_000)


# --- names and values


def test_limits_are_given_by_name_with_units() -> None:
    found = parse(["max-head=32KiB", "head-timeout=500ms", "max-connections=7", "via=edge", "body-timeout=2m"])
    assert (found.max_head_bytes, found.head_timeout_s, found.max_connections) == (32768, 0.5, 7)
    assert (found.via, found.body_timeout_s) == ("edge", 120.0)
    assert parse([]) == Settings()
    assert parse(["expected-timeout-header=false"]).expected_timeout_header is False


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("max-heads=1", "max-head"),
        ("max-head", "NAME=VALUE"),
        ("max-head=much", "1KiB"),
        ("max-head=-1", "1KiB"),
        ("head-timeout=soon", "500ms"),
        ("max-connections=1.5", "whole number"),
        ("via=a\r\nb", "name"),
        ("expected-timeout-header=perhaps", "true or false"),
    ],
)
def test_a_limit_that_makes_no_sense_is_told_with_what_would(text: str, told: str) -> None:
    with pytest.raises(ValueError) as error:
        parse([text])
    assert told in str(error.value)
    assert text.partition("=")[0] in str(error.value)


def test_the_readme_lists_every_limit_with_its_default() -> None:
    readme = (ROOT / "README.md").read_text()
    listed = set(re.findall(r"^\| `([a-z-]+)` \| ([^|]+?) \|", readme, re.MULTILINE))
    assert {(name, default) for name, default, _ in described()} <= listed


# --- heads


@pytest.mark.parametrize(
    ("settings", "request_bytes", "status", "numbers"),
    [
        ({"max_head_bytes": 100}, GET.replace(b"\r\n\r\n", b"\r\nX: " + b"y" * 100 + b"\r\n\r\n"), 431, "100"),
        ({"max_headers": 2}, GET.replace(b"\r\n\r\n", b"\r\nA: b\r\nC: d\r\n\r\n"), 431, "3 headers, more than 2"),
        ({"max_target_bytes": 10}, GET.replace(b"/x", b"/" + b"x" * 10), 414, "10"),
    ],
)
def test_heads_beyond_their_limits_are_refused_with_the_numbers(
    settings: dict[str, Any], request_bytes: bytes, status: int, numbers: str
) -> None:
    world = World(**settings)
    client = world.client(request_bytes)
    assert client.transport.take().startswith(b"HTTP/1.1 %d " % status)
    (outcome,) = world.outcomes
    assert (outcome.reason, outcome.status) == ("FL-TOO-LARGE", status)
    assert numbers in outcome.why


def test_one_octet_now_and_then_does_not_keep_a_head_alive() -> None:
    world = World()
    client = world.client(b"G")
    for _ in range(16):
        world.pass_time(1)
        if not client.closing:
            client.data_received(b"E")
    assert client.transport.take().startswith(b"HTTP/1.1 408 ")
    assert "15 s" in world.outcomes[0].why


# --- bodies


def test_a_body_that_drips_is_a_408_although_it_never_stops() -> None:
    world = World(body_min_rate=100, body_rate_window_s=30)
    client = world.client(POST % 100_000)
    _upstream, wire = world.connect()
    for _ in range(29):
        world.pass_time(1)
        client.data_received(b"x" * 50)
    assert not client.transport.take()
    world.pass_time(2)
    assert client.transport.take().startswith(b"HTTP/1.1 408 ")
    assert wire.aborted
    (outcome,) = world.outcomes
    assert outcome.reason == "FL-SLOW"
    assert "1450 octets" in outcome.why and "100 a second" in outcome.why
    assert world.at_rest()


def test_a_body_fast_enough_goes_on_and_a_stream_of_chunks_has_its_own_pace() -> None:
    world = World(body_min_rate=100, body_rate_window_s=30)
    fast = world.client(POST % 100_000)
    world.connect()
    stream = world.client(b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n")
    world.connect()
    for _ in range(200):
        world.pass_time(1)
        fast.data_received(b"x" * 150)
        stream.data_received(b"1\r\na\r\n")
    assert not fast.transport.take() + stream.transport.take()


def test_a_body_that_waits_for_the_endpoint_is_not_called_slow() -> None:
    world = World(body_min_rate=100, body_rate_window_s=30)
    client = world.client(POST % 100_000)
    upstream, _wire = world.connect()
    upstream.pause_writing()
    world.pass_time(200)
    assert not client.transport.take()
    upstream.resume_writing()
    client.data_received(b"x")
    world.pass_time(20)
    assert not client.transport.take()
    world.pass_time(60)
    assert client.transport.take().startswith(b"HTTP/1.1 408 ")


def test_a_request_as_a_whole_may_have_a_deadline() -> None:
    world = World(request_timeout_s=60)
    client = world.client(b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n")
    _upstream, wire = world.connect()
    for _ in range(59):
        world.pass_time(1)
        client.data_received(b"1\r\na\r\n")
    assert not client.transport.take()
    world.pass_time(2)
    assert client.transport.take().startswith(b"HTTP/1.1 408 ")
    assert "60 s" in world.outcomes[0].why
    assert wire.aborted


# --- clients that do not read


def test_a_client_that_takes_nothing_is_cut_off_after_its_time() -> None:
    world = World(write_timeout_s=60)
    client = world.client(GET)
    client.transport.full_at = 1000
    upstream, wire = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n" + b"x" * 5000)
    assert wire.paused
    world.pass_time(50)
    assert not client.transport.closed
    client.transport.take(1000)  # it took something: that counts
    world.pass_time(50)
    assert not client.transport.closed
    world.pass_time(60)
    assert client.transport.aborted
    (outcome,) = world.outcomes
    assert outcome.reason == "FL-SLOW"
    assert "60 s" in outcome.why
    assert wire.aborted
    assert world.at_rest()


@pytest.mark.parametrize("ending", [b"Connection: close\r\n", b""])
def test_a_client_that_never_takes_the_end_of_its_answer_is_cut_off(ending: bytes) -> None:
    world = World(decision=BIG, write_timeout_s=60, idle_timeout_s=100)
    client = world.client(GET.replace(b"\r\n\r\n", b"\r\n" + ending + b"\r\n"))
    client.transport.full_at = 1 << 20  # so little that nobody is told to pause
    world.pass_time(200)
    assert client.transport.aborted


# --- nothing grows


def test_pipelined_requests_of_a_client_that_does_not_read_wait_until_it_does() -> None:
    world = World(decision=BIG)
    client = world.client()
    client.transport.full_at = 65536
    for _ in range(200):
        if not client.transport.paused:
            client.data_received(GET * 100)
    assert client.transport.paused
    assert client.transport.most < 100_000
    assert client.buffered() < 110_000
    assert len(world.outcomes) < 20
    got = 0
    while client.transport.written:
        got += client.transport.take().count(b"200 OK")
    assert got == 100
    assert not client.transport.paused
    client.data_received(GET)
    assert client.transport.take().count(b"200 OK") == 1


def test_answers_put_off_within_one_turn_are_bounded_too() -> None:
    from fairlead.proxy.outbox import Outbox

    world = World(decision=BIG)
    soon: list[Any] = []
    world.outbox = Outbox(soon.append)
    client = world.client()
    client.transport.full_at = 65536
    client.data_received(GET * 1000)
    for callback in soon:
        callback()
    assert client.transport.most < 100_000
    assert client.transport.paused
    while client.transport.written:
        client.transport.take()
        while soon:
            soon.pop(0)()
    assert len(world.outcomes) == 1000


def test_a_body_ahead_of_its_endpoint_is_held_up_to_its_limit() -> None:
    world = World(decision=route(retries=None), hold_bytes=10_000)
    client = world.client(POST % 10_000_000)
    while not client.transport.paused:
        client.data_received(b"x" * 1000)
    assert 10_000 < client.buffered() <= 12_000
    upstream, wire = world.connect()
    assert not client.transport.paused
    assert client.buffered() == 0
    wire.full_at = 5000
    wire.take()
    while not client.transport.paused:
        client.data_received(b"x" * 1000)
    assert upstream.buffered() <= 7000


def test_a_client_that_does_everything_wrong_is_bounded_in_all_it_holds() -> None:
    """Pipelines, drips, never reads, trickles chunks with extensions, sends what it likes after refusals."""
    world = World(decision=route(timeout_s=15.0), hold_bytes=10_000)
    clients = [world.client() for _ in range(50)]
    for client in clients:
        client.transport.full_at = 10_000
    pieces = [
        GET * 50,
        POST % 1000 + b"x" * 100,
        b"1;" + b"e" * 500 + b"\r\na\r\n",
        b"G",
        b"\r\n",
        b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"\0" * 100,
        b"X: " + b"y" * 5000,
    ]
    for turn in range(400):
        for number, client in enumerate(clients):
            if not client.lost and not client.transport.closed and not client.transport.paused:
                client.data_received(pieces[(turn * (number + 1) + number) % len(pieces)])
        if turn % 7 == 0:
            while world.dialed:
                upstream, wire = world.connect()
                wire.full_at = 10_000
                if turn % 3:
                    upstream.data_received(OK * 2)
        world.pass_time(0.1)
        for client in clients:
            assert client.buffered() <= 100_000
    world.pass_time(10_000)
    for client in clients:
        assert client.transport.closed or client.transport.aborted
        if not client.lost:
            lose(client.transport)
    assert not world.connections
    assert world.at_rest()
    assert not [timer for timer in world.timers if not timer.cancelled]


# --- per source


class One:
    def __init__(self, source_ip: str) -> None:
        self.arrival = Arrival("outbound", source_ip=source_ip)


def test_members_are_counted_by_source_and_forgotten_with_the_last() -> None:
    counts: dict[str, int] = {}
    connections, sessions = Members(counts), Members(counts)
    a, b, c = One("10.0.0.1"), One("10.0.0.1"), One("10.0.0.2")
    for one in (a, b, c, a):
        connections.add(one)
    sessions.add(a)
    assert counts == {"10.0.0.1": 3, "10.0.0.2": 1}
    for one in (a, b, c, c):
        connections.discard(one)
    sessions.discard(a)
    assert counts == {}


# --- on real sockets


async def closed(port: int) -> bool:
    """Whether a new connection is closed before a word."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(0.3):
            return await reader.read(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True
    finally:
        writer.close()


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("settings", "limit", "told"),
    [
        (Settings(max_connections=2), "max-connections", "2 client connections are open; the limit is 2."),
        (
            Settings(max_connections_per_source=2),
            "max-connections-per-source",
            "2 connections from 127.0.0.1 are open; the limit is 2.",
        ),
    ],
)
async def test_connections_beyond_the_limit_are_closed_with_a_reason(settings: Settings, limit: str, told: str) -> None:
    mesh = Mesh()
    engine = mesh.start(settings=settings)
    try:
        http = await engine.listen_outbound("127.0.0.1", 0)
        unknown = await engine.listen_named("127.0.0.1", 0, "other", 1)  # its protocol is told by the first bytes
        inbound = await engine.listen_inbound("127.0.0.1", 0, lambda: None, lambda _transport: "")
        kept = [await asyncio.open_connection("127.0.0.1", port) for port in (http, http)]
        await until(lambda: len(engine.connections) == 2)
        assert await closed(http)
        assert await closed(unknown)
        outcome = await mesh.outcome()
        assert (outcome.reason, outcome.why, outcome.arrival.source_ip) == ("FL-OVERFLOW", told, "127.0.0.1")
        assert engine.refused_connections[limit] == 2
        if limit == "max-connections":  # an inbound connection is of a known source once it has spoken
            assert await closed(inbound)
        kept.pop()[1].close()
        await until(lambda: len(engine.connections) == 1)
        assert not await closed(http)
        for _, writer in kept:
            writer.close()
        await until(lambda: not engine.sources)
    finally:
        await engine.close()


@pytest.mark.asyncio
async def test_what_holds_most_is_cut_off_and_nobody_comes_in_until_there_is_room() -> None:
    mesh = Mesh()
    mesh.decision = Decision("direct-response", status=200, body=b"x" * 1_000_000)
    engine = mesh.start(settings=Settings(buffered_bytes=4_000_000, buffer_bytes=0))
    try:
        port = await engine.listen_outbound("127.0.0.1", 0)
        kept = []
        for count in (8, 1, 1):  # the first holds most: what its kernel does not take stays with us
            reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
            reader._transport.pause_reading()  # type: ignore[attr-defined]
            kept.append(writer)
            writer.write(GET * count)
        await until(lambda: len(mesh.outcomes) >= 3)
        assert engine.buffered() > 0
        engine.settings = Settings(buffered_bytes=1, buffer_bytes=0)
        most = max(engine.connections, key=lambda one: one.buffered())
        before = engine.buffered()
        engine.bound_buffers()
        assert most.transport.is_closing()
        assert engine.overfull
        assert engine.cut_off >= 1
        assert await closed(port)
        assert engine.refused_connections["buffered"] == 1
        assert any(f"{before} octets are held in all" in outcome.why for outcome in mesh.outcomes)
        await until(lambda: engine.buffered() == 0)
        engine.bound_buffers()
        assert not engine.overfull
        assert not await closed(port)
        for writer in kept:
            writer.close()
    finally:
        await engine.close()


@pytest.mark.asyncio
async def test_a_connection_that_holds_too_much_is_cut_off() -> None:
    mesh = Mesh()
    mesh.decision = Decision("direct-response", status=200, body=b"x" * 8_000_000)
    engine = mesh.start(settings=Settings(buffer_bytes=1_000_000))
    try:
        port = await engine.listen_outbound("127.0.0.1", 0)
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        reader._transport.pause_reading()  # type: ignore[attr-defined]
        writer.write(GET)
        await mesh.outcome()
        engine.bound_buffers()
        outcome = await mesh.outcome()
        assert outcome.reason == "FL-OVERFLOW"
        assert "the limit is 1000000." in outcome.why
        await until(lambda: not engine.connections)
        writer.close()
    finally:
        await engine.close()
