"""Connections as transports, on real sockets: what asyncio promises of a transport, and what the poller adds."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
import pytest_asyncio

from fairlead.proxy import wire as module
from fairlead.proxy.poller import Poller, poller_of
from fairlead.proxy.wire import HIGH_WATER, PUT_OFF_MOST, READ_MOST, Tally, Wire

pytestmark = pytest.mark.asyncio
DEADLINE_S = 10.0


class Said:
    """A protocol that writes down what it hears."""

    keep = False

    def __init__(self) -> None:
        self.got = b""
        self.ends = 0
        self.full: list[bool] = []
        self.lost: list[Exception | None] = []
        self.transport: Any = None
        self.heard = asyncio.Event()
        self.on_data: Callable[[bytes], None] = lambda _: None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.got += data
        self.on_data(data)
        self.heard.set()

    def eof_received(self) -> bool:
        self.ends += 1
        self.heard.set()
        return self.keep

    def connection_lost(self, error: Exception | None) -> None:
        self.lost.append(error)
        self.heard.set()

    def pause_writing(self) -> None:
        self.full.append(True)
        self.heard.set()

    def resume_writing(self) -> None:
        self.full.append(False)
        self.heard.set()

    async def until(self, what: Callable[[], Any]) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while not what():
                self.heard.clear()
                await self.heard.wait()


class Ends:
    """A wire with its protocol, and the plain socket at its other end."""

    def __init__(self, poller: Poller, small: bool = False) -> None:
        with socket.create_server(("127.0.0.1", 0)) as server:
            if small:
                server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            ours = socket.create_connection(server.getsockname())
            self.far, _ = server.accept()
        if small:
            ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        self.far.settimeout(DEADLINE_S)
        ours.setblocking(False)
        self.said = Said()
        self.wire = Wire(poller, ours, self.said)

    async def gone(self) -> None:
        await self.said.until(lambda: self.said.lost)

    async def read(self, size: int) -> bytes:
        """So many octets from the far end, or all there are until its end."""
        got = b""
        while len(got) < size:
            piece = await asyncio.to_thread(self.far.recv, min(65536, size - len(got)))
            if not piece:
                break
            got += piece
        return got


@pytest_asyncio.fixture
async def poller() -> AsyncIterator[Poller]:
    made = poller_of(asyncio.get_running_loop())
    yield made
    await asyncio.sleep(0)
    made.close_if_idle()
    assert made.closed, "something is still watched"


@pytest_asyncio.fixture
async def ends(poller: Poller) -> AsyncIterator[Ends]:
    made = Ends(poller)
    made.wire.begin()
    yield made
    made.far.close()
    if not made.said.lost:
        made.wire.abort()
        await made.said.until(lambda: made.said.lost)


async def test_octets_come_and_go_and_the_end_closes(ends: Ends) -> None:
    ends.far.sendall(b"hello")
    await ends.said.until(lambda: ends.said.got == b"hello")
    ends.wire.write(b"good")
    ends.wire.writelines([b" ", b"bye"])
    assert await ends.read(8) == b"good bye"
    ends.far.shutdown(socket.SHUT_WR)
    await ends.said.until(lambda: ends.said.lost)
    assert (ends.said.ends, ends.said.lost) == (1, [None])
    assert await ends.read(1) == b""
    ends.wire.write(b"too late")
    ends.wire.close()
    ends.wire.abort()
    ends.wire.reset()
    await asyncio.sleep(0)
    assert ends.said.lost == [None], "told once"


async def test_what_does_not_fit_waits_in_order_and_the_protocol_hears_of_it(poller: Poller) -> None:
    ends = Ends(poller, small=True)
    ends.wire.begin()
    sent = b"".join(b"%07d\n" % n for n in range(200_000))
    for at in range(0, len(sent), 5000):
        ends.wire.write(sent[at : at + 5000])
    assert ends.said.full == [True]
    assert ends.wire.get_write_buffer_size() > HIGH_WATER
    ends.wire.close()
    ends.wire.write(b"nothing of this")
    assert ends.said.lost == [], "not before all is written"
    assert await ends.read(len(sent) + 1) == sent
    await ends.said.until(lambda: ends.said.lost)
    ends.far.close()


async def test_room_is_told_when_most_of_it_went(poller: Poller) -> None:
    ends = Ends(poller, small=True)
    ends.wire.begin()
    ends.wire.write(bytes(1_000_000))
    assert ends.said.full == [True]
    await ends.read(1_000_000)
    await ends.said.until(lambda: ends.said.full == [True, False])
    assert ends.wire.get_write_buffer_size() <= ends.wire.get_write_buffer_limits()[0]
    ends.wire.abort()
    await ends.said.until(lambda: ends.said.lost)
    ends.far.close()


async def test_a_half_close_goes_after_what_waits_and_reading_goes_on(poller: Poller) -> None:
    ends = Ends(poller, small=True)
    ends.said.keep = True
    ends.wire.begin()
    ends.wire.write(bytes(300_000))
    ends.wire.write_eof()
    ends.wire.write(b"dropped")
    assert len(await ends.read(300_001)) == 300_000
    ends.far.sendall(b"answer")
    await ends.said.until(lambda: ends.said.got == b"answer")
    ends.far.shutdown(socket.SHUT_WR)
    await ends.said.until(lambda: ends.said.ends)
    assert ends.said.lost == []
    ends.wire.close()
    await ends.said.until(lambda: ends.said.lost)
    ends.far.close()


async def test_nothing_is_read_while_paused_and_everything_afterwards(ends: Ends) -> None:
    ends.wire.pause_reading()
    ends.far.sendall(b"one")
    for _ in range(20):
        await asyncio.sleep(0)
    assert ends.said.got == b""
    assert not ends.wire.is_reading()
    ends.far.sendall(b"two")
    ends.wire.resume_reading()
    await ends.said.until(lambda: ends.said.got == b"onetwo")


async def test_a_pause_within_a_read_holds_from_the_next_one_on(ends: Ends) -> None:
    ends.said.on_data = lambda _: ends.wire.pause_reading()
    sent = bytes(3 * READ_MOST)
    task = asyncio.create_task(asyncio.to_thread(ends.far.sendall, sent))
    await ends.said.until(lambda: ends.said.got)
    first = len(ends.said.got)
    for _ in range(20):
        await asyncio.sleep(0)
    assert len(ends.said.got) == first <= READ_MOST
    ends.said.on_data = lambda _: None
    ends.wire.resume_reading()
    await ends.said.until(lambda: len(ends.said.got) == len(sent))
    await task


async def test_a_reset_is_told_apart_from_an_end_on_both_sides(poller: Poller) -> None:
    ends = Ends(poller)
    ends.wire.begin()
    ends.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ends.far.close()
    await ends.said.until(lambda: ends.said.lost)
    assert isinstance(ends.said.lost[0], ConnectionResetError)
    assert ends.said.ends == 0
    other = Ends(poller)
    other.wire.begin()
    other.wire.reset()
    await other.said.until(lambda: other.said.lost)
    with pytest.raises(ConnectionResetError):
        other.far.recv(1)
    other.far.close()


async def test_a_write_to_a_peer_that_is_gone_ends_with_its_error_and_not_within_the_call(poller: Poller) -> None:
    ends = Ends(poller)
    ends.wire.begin()
    ends.wire.pause_reading()
    ends.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    ends.far.close()
    ends.wire.write(b"to nobody")
    assert ends.said.lost == []
    await ends.said.until(lambda: ends.said.lost)
    assert isinstance(ends.said.lost[0], (ConnectionResetError, BrokenPipeError))


async def test_an_abort_within_a_read_ends_reading_at_once(ends: Ends) -> None:
    ends.said.on_data = lambda _: ends.wire.abort()
    ends.far.sendall(b"x")
    await ends.said.until(lambda: ends.said.lost)
    assert (ends.said.got, ends.said.lost) == (b"x", [None])


async def test_another_protocol_can_take_over_with_the_next_octets(ends: Ends) -> None:
    other = Said()
    ends.said.on_data = lambda _: ends.wire.set_protocol(other)
    ends.far.sendall(b"first")
    await ends.said.until(lambda: ends.said.got)
    assert ends.wire.get_protocol() is other
    ends.far.sendall(b"second")
    await other.until(lambda: other.got)
    assert (ends.said.got, other.got) == (b"first", b"second")
    ends.far.close()
    await other.until(lambda: other.lost)
    ends.said.lost.append(None)


async def test_an_error_of_the_protocol_ends_its_connection_and_no_other(poller: Poller) -> None:
    errors: list[Any] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _loop, context: errors.append(context["exception"]))
    bad, good = Ends(poller), Ends(poller)
    for one in (bad, good):
        one.wire.begin()

    def fail(_data: bytes) -> None:
        raise ZeroDivisionError

    bad.said.on_data = fail
    bad.far.sendall(b"x")
    good.far.sendall(b"y")
    await bad.said.until(lambda: bad.said.lost)
    await good.said.until(lambda: good.said.got == b"y")
    assert [type(error) for error in errors] == [ZeroDivisionError]
    assert isinstance(bad.said.lost[0], ZeroDivisionError)
    good.wire.abort()
    await good.said.until(lambda: good.said.lost)
    for one in (bad, good):
        one.far.close()


async def test_small_writes_of_a_turn_go_together_after_the_last_read_and_large_ones_at_once(poller: Poller) -> None:
    asking, other = Ends(poller), Ends(poller)
    for one in (asking, other):
        one.wire.begin()
    seen: list[bytes] = []
    other.far.setblocking(False)

    def look() -> None:
        try:
            seen.append(other.far.recv(1_000_000))
        except BlockingIOError:
            seen.append(b"")

    def answer(_data: bytes) -> None:
        other.wire.write(b"a")
        other.wire.write(b"b")
        look()
        assert other.wire.get_write_buffer_size() == 2
        other.wire.write(bytes(PUT_OFF_MOST))
        look()

    asking.said.on_data = answer
    asking.far.sendall(b"?")
    await asking.said.until(lambda: seen)
    assert seen[0] == b""
    assert seen[1].startswith(b"ab\0")
    for one in (asking, other):
        one.wire.abort()
        await one.gone()
        one.far.close()


@pytest.mark.skipif(module.__file__.endswith(".py"), reason="plain Python reads into bytes in any case")
async def test_octets_that_are_passed_on_come_by_no_protocol_and_what_does_not_fit_is_told(poller: Poller) -> None:
    one, two = Ends(poller), Ends(poller, small=True)
    tally = Tally()
    one.said.keep = True
    for each in (one, two):
        each.wire.begin()
    one.wire.pass_to(two.wire, tally)
    one.said.on_data = two.wire.write
    one.far.sendall(b"hello")
    assert await two.read(5) == b"hello"
    assert (tally.count, tally.moved, one.said.got) == (5, True, b"")
    assert not two.said.full
    sent = os.urandom(500_000)
    sending = asyncio.create_task(asyncio.to_thread(one.far.sendall, sent))
    await two.said.until(lambda: two.said.full)
    one.wire.pause_reading()
    reading = asyncio.create_task(two.read(len(sent)))
    await two.said.until(lambda: two.said.full == [True, False])
    one.wire.resume_reading()
    assert await reading == sent
    await sending
    one.far.shutdown(socket.SHUT_WR)
    await one.said.until(lambda: one.said.ends)
    two.far.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    two.far.close()
    await two.said.until(lambda: two.said.lost)
    assert isinstance(two.said.lost[0], ConnectionResetError)
    one.wire.abort()
    await one.said.until(lambda: one.said.lost)
    one.far.close()
