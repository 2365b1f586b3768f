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

    def head(self, stream: Any, head: Any, end: bool) -> None:
        self.heads.append((stream, head, end))

    def data(self, stream: Any, data: bytes, end: bool) -> None:
        self.bodies.append(data)

    def trailers(self, stream: Any, block: bytes) -> None:
        self.blocks.append(block)

    def reset(self, stream: Any, code: int, why: str) -> None:
        self.resets.append(code)

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
    limits = Http2Limits(stream_window=65535, connection_window=65536)
    codec, heard = server(limits)
    codec.receive(PREFACE + headers(GET, end=False))
    for _ in range(3):
        codec.receive(frame(DataFrame, 1, (), data=b"x" * 16_384))
    assert b"\x00\x00\x04\x08" not in codec.output()  # no WINDOW_UPDATE
    codec.consumed(heard.heads[0][0], 3 * 16_384)
    assert b"\x00\x00\x04\x08" in codec.output()
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
