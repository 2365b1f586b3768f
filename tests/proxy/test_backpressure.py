"""Large bodies through one proxy and through a pair, with everybody taking and sending as much as chance has it.

Whoever is slow may slow down others for a while, but when all take what there is, every exchange ends, and whole.
"""

from __future__ import annotations

from typing import Any

from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.proxy.fakes import Transport, World
from tests.proxy.test_connection2 import world_of as world_of_one
from tests.proxy.test_upstream2 import world_of as world_of_two

CLIENTS, EACH = 5, 2
HIGH = 64 * 1024
"""Octets that a transport takes before it asks for a pause, as wire.py's."""
STEPS = st.lists(
    st.tuples(
        st.sampled_from(("read", "send", "serve", "take", "carry")), st.integers(0, CLIENTS), st.integers(1, 250_000)
    ),
    max_size=60,
)


def body(number: int, size: int) -> bytes:
    return (b"%06d." % number) * (size // 7) + b"." * (size % 7)


class Client:
    """Sends its requests one after another on one connection of HTTP/1.1, and looks at the answers."""

    def __init__(self, world: World, number: int, up: int, down: int) -> None:
        self.number, self.up, self.down = number, up, down
        self.transport: Transport = world.client().transport
        self.transport.full_at = HIGH
        self.to_send = b""
        self.got = b""
        self.done = 0
        self.ask()

    def ask(self) -> None:
        head = b"POST /%d HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n" % (self.number, self.up)
        self.to_send = head + body(self.number, self.up)

    def send(self, most: int) -> bool:
        if self.transport.paused or not self.to_send:
            return False
        piece, self.to_send = self.to_send[:most], self.to_send[most:]
        self.transport.protocol.data_received(piece)
        return True

    def read(self, most: int) -> bool:
        piece = self.transport.take(most)
        self.got += piece
        head, found, came = self.got.partition(b"\r\n\r\n")
        if found and len(came) >= self.down and not self.to_send:
            assert head.startswith(b"HTTP/1.1 200 OK\r\n"), head
            assert came == body(self.number, self.down)
            self.got = b""
            self.done += 1
            if self.done < EACH:
                self.ask()
        return bool(piece)


class Endpoint:
    """An app's end of one connection: answers each request when all of it has come."""

    def __init__(self, connection: tuple[Any, Transport], down: int) -> None:
        self.upstream, self.wire = connection
        self.wire.full_at = HIGH
        self.down = down
        self.got = b""
        self.to_send = b""

    def take(self, most: int) -> bool:
        piece = self.wire.take(most)
        self.got += piece
        head, found, came = self.got.partition(b"\r\n\r\n")
        if not found:
            return bool(piece)
        number = int(head.split(b" ")[1][1:])
        length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
        if len(came) == length:
            assert came == body(number, length)
            self.got = b""
            self.to_send += b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % self.down + body(number, self.down)
        return bool(piece)

    def send(self, most: int) -> bool:
        if self.wire.paused or not self.to_send:
            return False
        piece, self.to_send = self.to_send[:most], self.to_send[most:]
        self.upstream.data_received(piece)
        return True


class Play:
    def __init__(self, pair: bool, up: int, down: int) -> None:
        self.near = world_of_two() if pair else World()
        self.far = world_of_one() if pair else self.near
        self.down = down
        self.endpoints: list[Endpoint] = []
        self.hop: list[Transport] = []
        self.clients = [Client(self.near, number, up, down) for number in range(CLIENTS)]
        self.pair = pair

    def connect(self) -> None:
        if self.pair and self.near.dialed:
            assert not self.hop, "one connection is for all"
            _, wire = self.near.connect()
            other = self.far.client(listener="inbound").transport
            wire.full_at = other.full_at = HIGH
            self.hop = [wire, other]
        while self.far.dialed:
            self.endpoints.append(Endpoint(self.far.connect(), self.down))

    def carry(self, most: int) -> bool:
        moved = False
        for source, target in (self.hop, self.hop[::-1]) if self.hop else ():
            if not target.paused and (piece := source.take(most)):
                target.protocol.data_received(piece)
                moved = True
        return moved

    def step(self, what: str, which: int, most: int) -> bool:
        self.connect()
        if what == "carry":
            return self.carry(most)
        if what in ("read", "send"):
            client = self.clients[which % CLIENTS]
            return client.read(most) if what == "read" else client.send(most)
        if not self.endpoints:
            return False
        endpoint = self.endpoints[which % len(self.endpoints)]
        return endpoint.send(most) if what == "serve" else endpoint.take(most)

    def all_take(self) -> None:
        """Everybody takes and sends what there is, until nothing moves."""
        moved = True
        while moved:
            moved = self.carry(1 << 30)
            for which in range(max(CLIENTS, len(self.endpoints))):
                for what in ("send", "take", "serve", "carry", "read"):
                    moved = self.step(what, which, 1 << 30) or moved


@settings(max_examples=60, deadline=None)
@given(st.booleans(), st.sampled_from([(0, 400_000), (400_000, 0), (200_000, 200_000), (10, 70_000)]), STEPS)
@example(True, (0, 400_000), [])
@example(False, (0, 400_000), [("serve", 0, 350_000), ("serve", 0, 50_000)])
def test_every_exchange_ends_whole_when_all_take_what_there_is(
    pair: bool, sizes: tuple[int, int], steps: list[tuple[str, int, int]]
) -> None:
    play = Play(pair, *sizes)
    for what, which, most in steps:
        play.step(what, which, most)
    play.all_take()
    assert [client.done for client in play.clients] == [EACH] * CLIENTS
    assert play.near.at_rest() and play.far.at_rest()
    assert not any(endpoint.wire.paused for endpoint in play.endpoints if not endpoint.wire.closed)
