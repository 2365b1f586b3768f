"""Writes put off to the end of a turn: once, in order, and not the long ones."""

from __future__ import annotations

from collections.abc import Callable

from fairlead.proxy.outbox import PUT_OFF_MOST, Outbox
from tests.proxy.fakes import World

GET = b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def test_members_are_flushed_once_when_the_turn_ends() -> None:
    turn: list[Callable[[], None]] = []
    outbox = Outbox(turn.append)
    flushed: list[str] = []

    class Member:
        def __init__(self, name: str) -> None:
            self.name = name

        def flush(self) -> None:
            flushed.append(self.name)
            if self.name == "a":
                outbox.add(Member("later"))

    outbox.add(Member("a"))
    outbox.add(Member("b"))
    assert len(turn) == 1
    turn.pop()()
    assert flushed == ["a", "b"]
    turn.pop()()
    assert flushed == ["a", "b", "later"]
    assert not turn


def test_an_answer_is_written_before_its_connection_closes_and_long_pieces_at_once() -> None:
    turn: list[Callable[[], None]] = []
    world = World()
    world.outbox = Outbox(turn.append)
    client = world.client(GET.replace(b"Host", b"Connection: close\r\nHost"))
    upstream, _wire = world.connect()
    upstream.data_received(OK)
    assert client.transport.take().endswith(b"hi")
    assert client.transport.closed
    client = world.client(GET)
    long = b"x" * (PUT_OFF_MOST + 1)
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(long))
    assert not client.transport.written
    upstream.data_received(long)
    assert client.transport.take().endswith(b"\r\n\r\n" + long)
    for flush in turn:
        flush()
    assert not client.transport.written
    assert world.at_rest()
