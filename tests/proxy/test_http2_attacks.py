"""Hostile and unlucky HTTP/2 peers: what they hold, cost and break."""

from __future__ import annotations

import struct
import subprocess
import sys
from typing import Any

import h2.settings
import pytest

from fairlead.proxy.http2 import PREFACE, Http2, Http2Error
from tests.proxy.fakes import lose
from tests.proxy.test_connection2 import client_of
from tests.proxy.test_connection2 import world_of as world_of_one
from tests.proxy.test_upstream2 import GET, endpoint_of
from tests.proxy.test_upstream2 import world_of as world_of_two

CLOSING = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi"


def frame(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


class Handler:
    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __getattr__(self, name: str) -> Any:
        return lambda *given: self.calls.append((name, *given))


def server() -> tuple[Http2, Handler]:
    handler = Handler()
    codec = Http2(handler, False)
    codec.start()
    codec.receive(PREFACE + frame(4, 0, 0) + frame(4, 1, 0))
    codec.output()
    return codec, handler


def client() -> tuple[Http2, Handler]:
    handler = Handler()
    codec = Http2(handler, True)
    codec.start()
    codec.receive(frame(4, 0, 0) + frame(4, 1, 0))
    codec.output()
    return codec, handler


POST = bytes((0x83, 0x86, 0x84, 0x41, 3)) + b"web"  # :method POST, :scheme http, :path /, :authority web


def fill(talk: Any, number: int) -> None:
    """Send on a stream as much as the windows allow."""
    for _ in range(64):
        room = min(talk.peer.window(number), 16384)
        if room > 0:
            talk.peer.data(number, b"x" * room)
        talk.pump()


def test_the_connections_window_survives_uploads_that_were_held_when_they_ended() -> None:
    world = world_of_one()
    talk = client_of(world)
    for turn in range(6):
        number = talk.peer.request(method="POST", end=False)
        talk.pump()
        fill(talk, number)
        talk.peer.data(number, b"", end=True)
        talk.pump()
        upstream, wire = world.connect()
        wire.take()
        upstream.data_received(CLOSING)
        talk.pump()
        assert talk.peer.heads[number][":status"] == "200"
        assert world.at_rest()
        window = talk.peer.wire.outbound_flow_control_window
        # Nothing is held any more: all but what waits for half a window must have been given back.
        assert window >= 512 * 1024, f"after {turn + 1} requests the connection's window is {window}"


def test_the_connections_window_survives_an_endpoint_that_was_full_when_the_upload_ended() -> None:
    world = world_of_one()
    talk = client_of(world)
    for turn in range(6):
        number = talk.peer.request(method="POST", end=False)
        talk.pump()
        upstream, wire = world.connect()
        wire.full_at = 64 * 1024
        fill(talk, number)
        talk.peer.data(number, b"", end=True)
        talk.pump()
        while wire.written:
            wire.take()
        upstream.data_received(CLOSING)
        talk.pump()
        assert talk.peer.heads[number][":status"] == "200"
        window = talk.peer.wire.outbound_flow_control_window
        assert window >= 512 * 1024, f"after {turn + 1} requests the connection's window is {window}"


def test_a_slow_client_of_many_streams_is_not_cut_off_for_what_its_windows_hold_back() -> None:
    """What waits is bounded for the connection, too: beyond `buffer` (2 MiB) it would be cut off."""
    world = world_of_one()
    talk = client_of(world)  # the windows that RFC 9113 begins with, fewer streams than we allow
    talk.peer.acknowledge = False
    for _ in range(60):
        talk.peer.request()
    talk.pump()
    endpoints = []
    while world.dialed:
        endpoints.append(world.connect())
    for upstream, _ in endpoints:
        upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
    for _ in range(20):
        for upstream, wire in endpoints:
            if not wire.paused:
                upstream.data_received(b"x" * 16384)
        talk.pump()
    assert all(wire.paused for _, wire in endpoints)  # back-pressure is complete, and yet:
    held = talk.ours.buffered()
    most = world.settings.buffer_bytes
    assert held <= most, f"{held} octets are held at rest; Engine.bound_buffers cuts off above {most}"


def test_a_client_that_does_not_read_is_not_owed_a_hundred_megabytes_after_one_turn() -> None:
    from fairlead.proxy.outbox import Outbox
    from tests.proxy.two import Peer

    world = world_of_one()
    soon: list[Any] = []
    world.outbox = Outbox(soon.append)

    def turn_ends() -> None:
        calls = list(soon)
        soon.clear()
        for call in calls:
            call()

    peer = Peer(True, {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: (1 << 31) - 1})
    peer.wire.increment_flow_control_window(1 << 30)
    transport = world.client().transport
    transport.protocol.data_received(peer.take())
    turn_ends()
    peer.receive(transport.take())
    transport.full_at = 64 * 1024
    for _ in range(100):
        peer.request()
    transport.protocol.data_received(peer.take())
    turn_ends()
    endpoints = []
    while world.dialed:
        endpoints.append(world.connect())
    for upstream, wire in endpoints:  # one turn of the poller: up to 4 reads of 256 KiB of each (wire.py READS_A_TURN)
        upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
        for _ in range(4):
            if not wire.paused:
                upstream.data_received(b"x" * 262144)
    turn_ends()
    assert len(transport.written) < 16 * 1024 * 1024, f"{len(transport.written)} octets wait for one client"


def test_an_endpoint_that_sends_pings_and_reads_nothing_fills_no_memory() -> None:
    world = world_of_two()
    near = world.client(GET)
    connection, wire = world.connect()
    wire.full_at = 64 * 1024
    connection.data_received(frame(4, 0, 0) + frame(4, 1, 0) + frame(1, 4, 1, b"\x88"))
    for _ in range(14_000):
        if wire.closed:
            break
        connection.data_received(frame(0, 0, 1, b"x") + frame(6, 0, 0, b"12345678") * 19)
        near.transport.take()
    assert len(wire.written) < 4 * 1024 * 1024, f"{len(wire.written)} octets wait for an endpoint that does not read"


def test_an_endpoint_that_allows_no_streams_does_not_get_ever_more_connections() -> None:
    world = world_of_two()
    made = 0
    connection: Any
    for _ in range(50):
        world.client(GET)
        while world.dialed:
            made += 1
            connection, wire = world.connect()
            connection.data_received(frame(4, 0, 0, struct.pack(">HI", 3, 0)))
            for number in list(connection.codec.streams):
                connection.data_received(frame(3, 0, number, struct.pack(">I", 7)))
            if wire.closed:
                lose(wire)
    kept = [len(host.shared) for pool in world.pools.values() for host in pool.live.hosts]
    assert kept[0] <= 5, f"{made} connections made for 50 requests one after another, {kept[0]} kept open"


@pytest.mark.parametrize("role", ["server", "client"])
def test_small_frames_on_their_way_to_a_reset_stream_do_not_end_the_connection(role: str) -> None:
    """RFC 9113 section 5.1: they must be ignored; all are within the window that we gave (256 KiB)."""
    codec, handler = server() if role == "server" else client()
    if role == "server":
        codec.receive(frame(1, 4, 1, POST))
        stream = next(call[1] for call in handler.calls if call[0] == "head")
    else:
        stream = codec.open(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", "http", True, None)
        codec.receive(frame(1, 4, 1, b"\x88"))
    codec.reset(stream, 8)
    for _ in range(3000):  # messages of 40 octets: 120 kB in all
        codec.receive(frame(0, 0, 1, b"m" * 40))


def test_one_clients_cancelled_requests_do_not_end_the_connection_that_others_share() -> None:
    """Two sidecars. A client may cancel 500 requests; what two of them cancel ends the hop behind us for all."""
    near, far = world_of_two(), world_of_one()
    victim = near.client(GET)
    _, wire = near.connect()
    server_side = far.client(listener="inbound", identity="spiffe://cluster.local/ns/default/sa/edge")
    other = server_side.transport

    def carry() -> None:
        while True:
            out, back = wire.take(), other.take()
            if out and not other.closed:
                other.protocol.data_received(out)
            if back and not wire.closed:
                wire.protocol.data_received(back)
            if not out and not back:
                return

    carry()
    attackers = [client_of(near), client_of(near)]
    for talk in attackers:
        for _ in range(400):
            number = talk.peer.request()
            talk.pump()
            carry()
            talk.peer.wire.reset_stream(number, 8)
            talk.pump()
            carry()
    assert not any(talk.transport.closed for talk in attackers)
    assert not wire.closed and not other.closed, f"the victim got {victim.transport.take()[:300]!r}"


_FLOOD = """
from fairlead.proxy.hpack import Decoder, Encoder

def literal(name, value):
    return bytes((0x10, len(name))) + name + bytes((len(value),)) + value

def first(line):
    encoder = Encoder()
    encoder.lines(line, 0)
    return (encoder.take() or b"-")[0]

decoder = Decoder()
assert first(b"x-own: 1") == 0x40
decoder.decode(literal(b"x-before", b"secret"))
decoder.decode(literal(b"accept", b"secret"))
for number in range(300):
    decoder.decode(literal(b"x-junk-%d" % number, b"v"))
field = decoder.decode(literal(b"x-after", b"secret"))[0]
assert field.sensitive
assert first(field.line) & 0xF0 == first(b"x-before: y") & 0xF0 == first(b"accept: z") & 0xF0 == 0x10
assert first(b"x-own: 1") & 0xF0 == 0x10  # who knows
assert first(b"grpc-status: 0") & 0xC0 == first(b"user-agent: curl") & 0xC0 == 0x40
assert first(b"connection: close") == ord("-")
"""


def test_a_field_that_no_table_may_hold_is_sent_so_whatever_others_sent_before() -> None:
    """RFC 7541 section 6.2.3: intermediaries must use the same representation. What is learnt is the process's."""
    subprocess.run([sys.executable, "-c", _FLOOD], check=True)


def test_pings_on_a_quiet_stream_are_no_flood_however_long_it_lasts() -> None:
    """A watch without news for six hours and a PING each 10 s (gRPC keepalive): the budget knows no time."""
    codec, _ = server()
    codec.receive(frame(1, 4, 1, POST))
    for _ in range(6 * 360):
        codec.calm(10.0)
        codec.receive(frame(6, 0, 0, b"12345678"))
        codec.output()
    with pytest.raises(Http2Error):
        for _ in range(3000):
            codec.receive(frame(6, 0, 0, b"12345678"))


def test_an_idle_connection_is_not_closed_while_its_client_takes_the_rest_of_a_response() -> None:
    world = world_of_one(idle_timeout_s=10.0, write_timeout_s=300.0)
    talk = client_of(world)
    talk.peer.acknowledge = False
    number = talk.peer.request()
    talk.pump()
    upstream, _ = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000)
    talk.pump()
    for _ in range(100):
        assert not talk.transport.closed or not talk.ours.codec.queued, (
            f"closed; {talk.ours.codec.queued} octets were never sent, none is logged"
        )
        world.pass_time(1)
        talk.peer.wire.acknowledge_received_data(600, number)
        talk.pump()


def test_a_streams_end_needs_no_window() -> None:
    """RFC 9113 section 6.9.1: frames of length zero with END_STREAM may be sent when no window is left."""
    world = world_of_one(write_timeout_s=5.0)
    talk = client_of(world, {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 100})
    talk.peer.acknowledge = False
    number = talk.peer.request()
    talk.pump()
    upstream, _ = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n64\r\n" + b"x" * 100 + b"\r\n")
    talk.pump()
    talk.ours.data_received(frame(4, 0, 0, struct.pack(">HI", 4, 10)))  # the window is now -90
    upstream.data_received(b"0\r\n\r\n")
    talk.pump()
    world.pass_time(1000)
    talk.pump()
    assert number in talk.peer.ended or number in talk.peer.resets, "neither ended nor given up, for ever"


def test_a_client_that_is_drained_has_its_time_whenever_the_idle_time_ends() -> None:
    world = world_of_one(head_timeout_s=10.0, idle_timeout_s=10.0, write_timeout_s=30.0)
    talk = client_of(world)
    talk.peer.request()
    talk.pump()
    upstream, _ = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
    talk.pump()
    world.pass_time(5)
    assert not talk.transport.closed
    talk.ours.drain()
    assert talk.transport.closed
    passed = 0
    while not talk.transport.aborted and passed < 200:
        world.pass_time(1)
        passed += 1
    assert 30 <= passed < 200, "the timer that was armed before is not its time"


def test_a_client_that_takes_nothing_of_what_little_waits_is_let_go_after_the_idle_time_and_its_own() -> None:
    world = world_of_one(idle_timeout_s=10.0, write_timeout_s=30.0)
    talk = client_of(world)
    talk.pump()
    for _ in range(100):
        if not talk.transport.closed:
            world.pass_time(1)
    assert talk.transport.closed and not talk.transport.aborted
    world.pass_time(31)
    assert talk.transport.aborted


def test_a_few_clients_that_do_not_read_do_not_stop_all_others_of_a_shared_connection() -> None:
    """Paused streams hold 256 KiB of the connection's 1 MiB each: four of them, and nobody gets anything."""
    world = world_of_two()
    slow = []
    for _ in range(4):
        one = world.client(GET)
        one.transport.full_at = 64 * 1024  # and nobody reads
        slow.append(one)
    talk = endpoint_of(world)
    for number in (1, 3, 5, 7):
        talk.peer.answer(number, end=False)
        fill(talk, number)
    victim = world.client(GET)
    talk.pump()
    talk.peer.answer(9, ("content-length", "2"), end=False)
    talk.pump()
    world.pass_time(200)
    talk.pump()
    room = talk.peer.window(9)
    assert room >= 2, f"the endpoint may send {room} octets to a client that has nothing to do with the slow ones"
    assert victim.transport.written


def test_a_few_uploads_that_wait_for_a_slow_endpoint_do_not_stop_all_others_of_a_connection() -> None:
    """The same towards endpoints: between sidecars one connection carries all clients of a workload."""
    world = world_of_one()
    talk = client_of(world)
    for _ in range(4):
        number = talk.peer.request(method="POST", end=False)
        talk.pump()
        _, wire = world.connect()
        wire.full_at = 64 * 1024  # reads nothing
        fill(talk, number)
    victim = talk.peer.request(method="POST", end=False)
    talk.pump()
    room = talk.peer.window(victim)
    assert room > 0, f"another request of the connection may send {room} octets"


def test_heads_that_hpack_makes_large_are_counted_as_held() -> None:
    """7 kB sent hold 5.7 MB: one table entry of 4 kB, named 14 times in each of 100 heads."""
    world = world_of_one()
    one = world.client()
    one.data_received(PREFACE + frame(4, 0, 0) + frame(4, 1, 0))
    start = bytes((0x82, 0x86, 0x84)) + b"\x01\x03web"
    entry = b"\x40\x01x" + bytes((127, (4000 - 127) & 127 | 128, (4000 - 127) >> 7)) + b"v" * 4000
    sent = frame(1, 5, 1, start + entry)
    sent += b"".join(frame(1, 5, 1 + 2 * n, start + bytes([0xBE]) * 14) for n in range(1, 100))
    connection = one.transport.protocol
    connection.data_received(sent)
    held = sum(len(request.raw) for request in world.requests)
    assert held > 5_000_000 and len(sent) < 8000
    assert connection.buffered() >= held // 2, (
        f"{len(sent)} octets sent hold {held} octets of heads; the limits `buffer` and `buffered` see "
        f"{connection.buffered()}"
    )


def test_a_malformed_request_is_in_the_log_whatever_it_came_by() -> None:
    world = world_of_one()
    world.client(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n")
    assert [outcome.reason for outcome in world.outcomes] == ["FL-MALFORMED"]
    world = world_of_one()
    talk = client_of(world)
    talk.ours.data_received(frame(1, 5, 1, bytes((0x82, 0x86, 0x84)) + b"\x01\x03a b"))
    assert [outcome.reason for outcome in world.outcomes] == ["FL-MALFORMED"], "reset, but nobody hears of it"
