"""Tests of proxy/http2.py as conversations with the frames of hyperframe and the heads of hpack."""

from __future__ import annotations

from typing import Any

import pytest
from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    HeadersFrame,
    PingFrame,
    PriorityFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from fairlead.proxy.http2 import ENHANCE_YOUR_CALM, Http2, Http2Error, Http2Limits

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + SettingsFrame(0).serialize()
GET = [(":method", "GET"), (":scheme", "http"), (":authority", "web"), (":path", "/a")]


class Heard:
    """A handler that notes everything."""

    def __init__(self) -> None:
        self.heads: list[Any] = []
        self.bodies: list[bytes] = []
        self.blocks: list[bytes] = []
        self.resets: list[int] = []
        self.refusals: list[str] = []

    def head(self, stream: Any, head: Any, end: bool) -> None:
        self.heads.append((stream, head, end))

    def data(self, stream: Any, data: bytes, end: bool) -> None:
        self.bodies.append(data)

    def trailers(self, stream: Any, block: bytes) -> None:
        self.blocks.append(block)

    def reset(self, stream: Any, code: int, why: str) -> None:
        self.resets.append(code)

    def refused(self, why: str, large: bool) -> None:
        self.refusals.append(why)

    def interim(self, stream: Any, head: Any) -> None: ...
    def writable(self, stream: Any) -> None: ...
    def goaway(self, last_id: int, code: int, debug: bytes) -> None: ...
    def pong(self, payload: bytes) -> None: ...
    def settings_changed(self) -> None: ...


def server(limits: Http2Limits | None = None) -> tuple[Http2, Heard]:
    heard = Heard()
    codec = Http2(heard, False, limits)
    codec.start()
    codec.output()
    return codec, heard


def frame(kind: type[Frame], number: int, flags: tuple[str, ...] = (), **fields: Any) -> bytes:
    made = kind(number)
    for name, value in fields.items():
        setattr(made, name, value)
    for flag in flags:
        made.flags.add(flag)
    data: bytes = made.serialize()
    return data


def headers(fields: list[tuple[str, str]], number: int = 1, end: bool = True) -> bytes:
    flags = ("END_HEADERS", "END_STREAM") if end else ("END_HEADERS",)
    return frame(HeadersFrame, number, flags, data=Encoder().encode(fields))


def frames_of(output: bytes) -> list[tuple[int, int, int, bytes]]:
    """Frames of an output: type, flags, stream, payload."""
    found = []
    at = 0
    while at < len(output):
        size = int.from_bytes(output[at : at + 3], "big")
        number = int.from_bytes(output[at + 5 : at + 9], "big")
        found.append((output[at + 3], output[at + 4], number, output[at + 9 : at + 9 + size]))
        at += 9 + size
    return found


def reset_codes(output: bytes) -> list[int]:
    """Error codes of the RST_STREAM frames in an output."""
    return [int.from_bytes(payload, "big") for kind, _, _, payload in frames_of(output) if kind == 3]


def test_a_request_is_heard_as_its_http1_text_wherever_the_input_is_cut() -> None:
    data = PREFACE + headers([*GET, ("x-tenant", "42"), ("cookie", "a=1"), ("cookie", "b=2")], end=False)
    data += frame(DataFrame, 1, (), data=b"hello ") + frame(DataFrame, 1, ("END_STREAM",), data=b"world")
    for cut in range(len(data) + 1):
        codec, heard = server()
        codec.receive(data[:cut])
        codec.receive(data[cut:])
        [(_, head, end)] = heard.heads
        assert (head.method, head.path, head.authority, head.major, head.chunked, end) == (
            "GET", "/a", "web", 2, True, False,
        )  # fmt: skip
        assert head.raw == b"GET /a HTTP/1.1\r\nhost: web\r\nx-tenant: 42\r\ncookie: a=1; b=2\r\n\r\n"
        assert b"".join(heard.bodies) == b"hello world"


@pytest.mark.parametrize(
    "fields",
    [
        [*GET, ("host", "other")],
        [*GET, ("connection", "close")],
        [*GET, ("transfer-encoding", "chunked")],
        [*GET, ("te", "gzip")],
        [*GET, ("x", "a\r\nevil: 1")],
        [*GET, ("x", "a\nevil: 1")],
        [*GET, ("x", "a\0b")],
        [*GET, ("X-Upper", "1")],
        [*GET, ("a b", "1")],
        [*GET, ("a:b", "1")],
        [*GET, (":path", "/b")],
        [*GET, (":other", "1")],
        [("x", "1"), *GET],
        [(":method", "GET"), (":scheme", "http"), (":authority", "web")],
        [(":method", "GET"), (":scheme", "http"), (":authority", "web"), (":path", "")],
        [(":method", "GET"), (":scheme", "http"), (":authority", "web"), (":path", "http://other/")],
        [(":method", "GET"), (":scheme", "http"), (":authority", "web"), (":path", "/a HTTP/1.1\r\nevil: 1\r\n")],
        [(":method", "GET"), (":scheme", "http"), (":authority", "we b"), (":path", "/")],
        [(":method", "GET"), (":scheme", "http"), (":authority", ""), (":path", "/")],
        [(":method", "G ET"), (":scheme", "http"), (":authority", "web"), (":path", "/")],
        [*GET, ("content-length", "1"), ("content-length", "2")],
        [*GET, ("content-length", "+1")],
        [GET[0], (":scheme", "HTTPS"), *GET[2:]],
        [GET[0], (":scheme", "ftp"), *GET[2:]],
        [(":method", "CONNECT"), (":protocol", "websocket"), *GET[1:]],
    ],
)
def test_what_could_be_read_in_two_ways_reaches_nobody(fields: list[tuple[str, str]]) -> None:
    codec, heard = server()
    output = b""
    try:
        codec.receive(PREFACE + headers(fields, end=False))
        output = codec.output()
        assert reset_codes(output)
    except Http2Error:
        assert codec.goaway_sent
    assert heard.heads == []


def test_a_body_of_another_length_than_was_said_is_never_whole() -> None:
    codec, heard = server()
    codec.receive(PREFACE + headers([*GET, ("content-length", "3")], end=False))
    codec.receive(frame(DataFrame, 1, ("END_STREAM",), data=b"four"))
    assert heard.bodies == []
    assert heard.resets == [1]


def flood(codec: Http2, pieces: Any, most: int) -> int:
    """How many pieces it took until the connection was closed."""
    for number, piece in enumerate(pieces):
        try:
            codec.receive(piece)
        except Http2Error as error:
            closed = error
            break
        codec.output()
        assert number <= most
    else:
        raise AssertionError("never closed")
    assert closed.code == ENHANCE_YOUR_CALM, str(closed)
    return number


def test_streams_reset_one_after_another_close_the_connection_soon() -> None:
    codec, _ = server(Http2Limits(resets=50))
    codec.receive(PREFACE)
    pieces = (headers(GET, n) + frame(RstStreamFrame, n, error_code=8) for n in range(1, 100_000, 2))
    assert flood(codec, pieces, 60) <= 51
    assert codec.active == 0


def test_streams_that_the_peer_makes_us_reset_count_alike() -> None:
    codec, _ = server(Http2Limits(resets=50))
    codec.receive(PREFACE)
    absolute = [*GET[:3], (":path", "http://other/")]
    pieces = (headers(absolute, n) for n in range(1, 100_000, 2))
    assert flood(codec, pieces, 60) <= 51


@pytest.mark.parametrize(
    "piece",
    [
        frame(PingFrame, 0, (), opaque_data=b"12345678"),
        SettingsFrame(0).serialize(),
        frame(SettingsFrame, 0, (), settings={1: 0}),
        frame(PriorityFrame, 1, (), depends_on=3, stream_weight=1),
        frame(DataFrame, 1, (), data=b""),
        frame(WindowUpdateFrame, 1, (), window_increment=1),
    ],
    ids=["ping", "settings", "table", "priority", "empty data", "window"],
)
def test_frames_that_move_nothing_are_counted_and_too_many_close_the_connection(piece: bytes) -> None:
    codec, _ = server(Http2Limits(controls=300))
    codec.receive(PREFACE + headers(GET, end=False))
    assert flood(codec, (piece for _ in range(10_000)), 400) <= 320


def test_a_head_without_end_closes_the_connection() -> None:
    codec, heard = server()
    codec.receive(PREFACE + frame(HeadersFrame, 1, (), data=Encoder().encode(GET)))
    with pytest.raises(Http2Error):
        for _ in range(1000):
            codec.receive(frame(ContinuationFrame, 1, (), data=b"\x00\x01a\x01b"))
    assert heard.heads == []


def bomb(number: int) -> bytes:
    """A head of 4 MB in 5 KB: the same field from the table, again and again."""
    block = Encoder().encode([*GET, ("x", "y" * 4000)]) + b"\xbe" * 1000
    return frame(HeadersFrame, number, ("END_HEADERS", "END_STREAM"), data=block)


def test_a_head_that_grows_when_it_is_read_is_answered_with_431_and_reaches_nobody() -> None:
    codec, heard = server()
    codec.receive(PREFACE + bomb(1))
    assert heard.heads == []
    assert codec.active == 0
    [answer] = [payload for kind, _, _, payload in frames_of(codec.output()) if kind == 1]
    decoder: Any = Decoder()
    assert dict(decoder.decode(answer))[":status"] == "431"


def test_heads_that_grow_when_they_are_read_close_the_connection_soon() -> None:
    codec, heard = server()
    codec.receive(PREFACE)
    assert flood(codec, (bomb(number) for number in range(1, 1000, 2)), 20) <= 11
    assert heard.heads == []


def test_what_the_peer_has_no_window_for_waits_and_goes_with_the_window() -> None:
    codec, heard = server()
    codec.receive(PREFACE + headers(GET))
    stream = heard.heads[0][0]
    codec.respond(stream, b"HTTP/1.1 200 OK\r\n\r\n", False)
    codec.send(stream, b"x" * 100_000, True)
    assert stream.queued == 100_000 - 65535 == codec.queued
    codec.receive(frame(WindowUpdateFrame, 0, (), window_increment=50_000))
    assert stream.queued == 100_000 - 65535
    codec.receive(frame(WindowUpdateFrame, 1, (), window_increment=50_000))
    assert stream.queued == 0
    assert codec.active == 0


def test_octets_that_nobody_took_are_not_asked_for_again() -> None:
    limits = Http2Limits(stream_window=65535, stream_window_most=65535, connection_window=65536)
    codec, heard = server(limits)
    codec.receive(PREFACE + headers(GET, end=False))
    update = b"\x00\x00\x04\x08\x00\x00\x00\x00\x01"  # WINDOW_UPDATE of the stream
    for _ in range(3):
        codec.receive(frame(DataFrame, 1, (), data=b"x" * 16_384))
    assert update not in codec.output()
    codec.consumed(heard.heads[0][0], 3 * 16_384)
    assert update in codec.output()
    codec.receive(frame(DataFrame, 1, (), data=b"x" * 16_384) * 3)
    with pytest.raises(Http2Error):
        codec.receive(frame(DataFrame, 1, (), data=b"x" * 16_384) * 2)


def test_after_goaway_running_streams_end_and_new_ones_are_refused() -> None:
    codec, heard = server()
    codec.receive(PREFACE + headers(GET))
    codec.shutdown()
    codec.output()
    codec.receive(headers(GET, 3))
    assert reset_codes(codec.output()) == [7]
    codec.respond(heard.heads[0][0], b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n", True)
    assert codec.output()
    assert codec.active == 0
    assert len(heard.heads) == 1


def given(output: bytes, number: int) -> int:
    """Octets of WINDOW_UPDATE of a stream in the output."""
    updates = [payload for kind, _, of, payload in frames_of(output) if kind == 8 and of == number]
    return sum(int.from_bytes(payload, "big") for payload in updates)


def test_bodies_that_are_taken_as_they_come_get_wider_windows_by_the_connections_in_all() -> None:
    limits = Http2Limits(stream_window=32768, stream_window_most=65536, connection_window=65536)
    codec, heard = server(limits)
    codec.receive(PREFACE)
    for number in (1, 3, 5):
        codec.receive(headers(GET, number, end=False))
    codec.output()
    for (stream, _, _), more in zip(heard.heads, (32768, 32768, 0), strict=True):
        codec.receive(frame(DataFrame, stream.id, (), data=b"x" * 16_384))
        assert not given(codec.output(), stream.id)
        codec.consumed(stream, 16_384)
        assert given(codec.output(), stream.id) == 16_384 + more
    codec.receive(frame(RstStreamFrame, 3, (), error_code=8))  # what it had is free for another
    stream = heard.heads[2][0]
    codec.receive(frame(DataFrame, 5, (), data=b"x" * 16_384))
    codec.consumed(stream, 16_384)
    assert given(codec.output(), 5) == 16_384 + 32_768


def test_a_body_that_is_taken_late_gets_no_wider_window() -> None:
    codec, heard = server(Http2Limits(stream_window=32768, stream_window_most=65536))
    codec.receive(PREFACE + headers(GET, end=False))
    codec.output()
    for _ in range(2):
        codec.receive(frame(DataFrame, 1, (), data=b"x" * 16_384))
    codec.consumed(heard.heads[0][0], 16_384)
    assert given(codec.output(), 1) == 16_384


def test_small_messages_with_what_their_clients_send_beside_them_are_no_flood_and_floods_behind_them_are() -> None:
    """gRPC sends a WINDOW_UPDATE and a PING with each message; a client with one octet and many PINGs is another."""
    codec, heard = server()
    codec.receive(PREFACE + headers(GET, end=False))
    beside = frame(PingFrame, 0, opaque_data=b"12345678") + frame(WindowUpdateFrame, 0, (), window_increment=100)
    for _ in range(5000):
        codec.receive(frame(DataFrame, 1, (), data=b"m" * 10) + beside)
        codec.consumed(heard.heads[0][0], 10)
        codec.output()
    with pytest.raises(Http2Error):
        for _ in range(1000):
            codec.receive(frame(DataFrame, 1, (), data=b"m") + frame(PingFrame, 0, opaque_data=b"12345678") * 19)
            codec.output()


def test_answers_to_our_own_pings_cost_the_peer_nothing_and_others_do() -> None:
    codec, _ = server()
    codec.receive(PREFACE + headers(GET, end=False))
    answer = frame(PingFrame, 0, ("ACK",), opaque_data=b"fairlead")
    for _ in range(5000):
        codec.ping(b"fairlead")
        codec.receive(answer)
        codec.output()
    with pytest.raises(Http2Error):
        codec.receive(answer * 5000)
