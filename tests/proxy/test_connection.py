"""A client's connection: its deadlines, its order, its end."""

from __future__ import annotations

from fairlead.policy.tables import Decision
from tests.proxy.fakes import World, lose

GET = b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
DIRECT = Decision("direct-response", status=200, body=b"hi")


def test_a_head_that_takes_too_long_is_a_408_and_silence_just_ends() -> None:
    world = World()
    slow, silent = world.client(b"GET /"), world.client()
    world.pass_time(14.9)
    slow.data_received(b"x HTTP/1.1\r\n")
    assert not slow.transport.take()
    world.pass_time(0.2)
    assert slow.transport.take().startswith(b"HTTP/1.1 408 ")
    assert silent.transport.closed
    assert not silent.transport.take()
    assert world.outcomes[0].reason == "FL-SLOW"


def test_the_deadline_of_a_later_head_begins_with_its_first_octet() -> None:
    world = World(decision=DIRECT)
    client = world.client(GET)
    world.pass_time(100)
    assert not client.transport.closed
    client.transport.take()
    client.data_received(b"G")
    world.pass_time(14.9)
    assert not client.transport.take()
    world.pass_time(0.2)
    assert client.transport.take().startswith(b"HTTP/1.1 408 ")


def test_an_idle_connection_is_closed_after_its_time() -> None:
    world = World(decision=DIRECT, idle_timeout_s=60)
    client = world.client(GET)
    world.pass_time(50)
    client.data_received(GET)
    world.pass_time(50)
    assert not client.transport.closed
    world.pass_time(80)
    assert client.transport.closed


def test_a_body_that_stops_coming_is_a_408() -> None:
    world = World(body_timeout_s=30, body_min_rate=0)
    client = world.client(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nab")
    _upstream, wire = world.connect()
    world.pass_time(20)
    client.data_received(b"c")
    world.pass_time(20)
    assert not client.transport.take()
    world.pass_time(15)
    assert client.transport.take().startswith(b"HTTP/1.1 408 ")
    assert wire.aborted
    assert world.at_rest()


def test_a_malformed_body_is_answered_and_taken_from_the_endpoint() -> None:
    world = World()
    client = world.client(b"POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    _upstream, wire = world.connect()
    client.data_received(b"zz\r\n")
    answer = client.transport.take()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer
    assert wire.aborted
    client.data_received(GET)
    assert len(world.requests) == 1
    assert world.at_rest()


def test_garbage_is_answered_once_and_never_decided() -> None:
    world = World()
    client = world.client(b"\x16\x03\x01\x02\x00" + GET)
    assert client.transport.take().startswith(b"HTTP/1.1 400 ")
    client.data_received(GET)
    assert not world.requests
    world.pass_time(3)
    assert client.transport.aborted
    assert world.outcomes[0].reason == "FL-MALFORMED"


def test_a_client_that_has_said_all_still_gets_its_answer() -> None:
    world = World()
    client = world.client(GET)
    upstream, _wire = world.connect()
    assert client.eof_received()
    upstream.data_received(OK)
    assert client.transport.take().endswith(b"hi")
    assert client.transport.closed


def test_octets_behind_connect_are_not_let_in() -> None:
    world = World()
    client = world.client(b"CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\nearly")
    assert client.transport.take().startswith(b"HTTP/1.1 400 ")
    assert not world.tunnels
    world.client(b"CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n")
    assert len(world.tunnels) == 1


def test_draining_closes_what_is_idle_only() -> None:
    world = World()
    busy, idle = world.client(GET), world.client()
    for client in (busy, idle):
        client.drain()
    assert idle.transport.closed
    assert not busy.transport.closed


def test_a_connection_that_is_used_within_the_time_is_told_that_it_ends_and_one_that_is_not_is_closed() -> None:
    world = World(decision=DIRECT)
    used, unused, halfway = world.client(GET), world.client(GET), world.client(GET)
    world.draining = True
    for client in (used, unused, halfway):
        client.transport.take()
        client.drain(world.time - 1.0)
        assert not client.transport.closed
    used.data_received(GET)
    assert b"\r\nconnection: close\r\n" in used.transport.take()
    assert used.transport.closed
    halfway.data_received(GET[:10])
    world.pass_time(1.1)
    for client in (unused, halfway):
        client.drain(world.time - 1.0)
    assert unused.transport.closed
    assert not halfway.transport.closed
    halfway.data_received(GET[10:])
    assert b" 200 " in halfway.transport.take()


def test_requests_keep_one_timer_between_them() -> None:
    world = World(decision=DIRECT)
    client = world.client(GET)
    for _ in range(100):
        client.data_received(GET)
    assert len([timer for timer in world.timers if not timer.cancelled]) == 1
    lose(client.transport)
    assert not [timer for timer in world.timers if not timer.cancelled]
    assert not world.connections
