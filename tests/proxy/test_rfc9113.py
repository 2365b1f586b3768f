"""RFC 9113 section by section: what a server's and a client's connection answer to each fault."""

from __future__ import annotations

from typing import Any

import pytest
from hpack import Encoder

from fairlead.proxy.http2 import (
    CANCEL,
    COMPRESSION_ERROR,
    ENHANCE_YOUR_CALM,
    FLOW_CONTROL_ERROR,
    FRAME_SIZE_ERROR,
    PREFACE,
    PROTOCOL_ERROR,
    REFUSED_STREAM,
    STREAM_CLOSED,
    Http2,
    Http2Error,
    Http2Limits,
)
from tests.proxy.test_http2 import GET, Heard, frames_of, reset_codes

DATA, HEADERS, PRIORITY, RST, SETTINGS, PUSH, PING, GOAWAY, WINDOW, CONTINUATION = range(10)
END, ACK, WHOLE, PADDED, WEIGHED = 1, 1, 4, 8, 32


def frame(kind: int, flags: int = 0, number: int = 0, payload: bytes = b"") -> bytes:
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


def block(*more: tuple[str, str]) -> bytes:
    data: bytes = Encoder().encode([*GET, *more])
    return data


HELLO = PREFACE + frame(SETTINGS)
OPEN = HELLO + frame(HEADERS, WHOLE, 1, block())
ENDED = HELLO + frame(HEADERS, WHOLE | END, 1, block())

BROKEN: list[tuple[str, bytes, int]] = [
    ("3.4 another preface", b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", PROTOCOL_ERROR),
    ("3.4 a preface without SETTINGS", PREFACE + frame(PING, 0, 0, bytes(8)), PROTOCOL_ERROR),
    ("3.4 a preface with the acknowledgement of SETTINGS", PREFACE + frame(SETTINGS, ACK), PROTOCOL_ERROR),
    ("4.2 a frame larger than we take", HELLO + frame(DATA, 0, 1, bytes(16385)), FRAME_SIZE_ERROR),
    ("4.3 a block that is no HPACK", HELLO + frame(HEADERS, WHOLE, 1, b"\xff\xff\xff\xff\xff\xff"), COMPRESSION_ERROR),
    ("4.3 a block that ends within a field", HELLO + frame(HEADERS, WHOLE, 1, b"\x40\x0a"), COMPRESSION_ERROR),
    ("4.3 another frame within a head", HELLO + frame(HEADERS, 0, 1, block()) + frame(PING, 0, 0, bytes(8)), 1),
    ("4.3 another stream within a head", HELLO + frame(HEADERS, 0, 1, block()) + frame(CONTINUATION, 4, 3), 1),
    ("5.1 DATA of an idle stream", HELLO + frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
    ("5.1 RST_STREAM of an idle stream", HELLO + frame(RST, 0, 1, bytes(4)), PROTOCOL_ERROR),
    ("5.1 WINDOW_UPDATE of an idle stream", HELLO + frame(WINDOW, 0, 1, b"\0\0\0\1"), PROTOCOL_ERROR),
    ("5.1 CONTINUATION of nothing", HELLO + frame(CONTINUATION, WHOLE, 1, block()), PROTOCOL_ERROR),
    ("5.1.1 a stream with an even number", HELLO + frame(HEADERS, WHOLE, 2, block()), PROTOCOL_ERROR),
    ("5.1.1 HEADERS of stream 0", HELLO + frame(HEADERS, WHOLE, 0, block()), PROTOCOL_ERROR),
    ("6.1 DATA of stream 0", HELLO + frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
    ("6.1 DATA all padding and one more", OPEN + frame(DATA, PADDED, 1, b"\x05abcd"), PROTOCOL_ERROR),
    ("6.1 padded DATA without the length of its padding", OPEN + frame(DATA, PADDED, 1), PROTOCOL_ERROR),
    ("6.2 HEADERS with more padding than octets", HELLO + frame(HEADERS, WHOLE | PADDED, 1, b"\x09abc"), 1),
    ("6.2 HEADERS too short for their priority", HELLO + frame(HEADERS, WHOLE | WEIGHED, 1, b"abc"), PROTOCOL_ERROR),
    ("6.3 PRIORITY of stream 0", HELLO + frame(PRIORITY, 0, 0, bytes(5)), PROTOCOL_ERROR),
    ("6.3 PRIORITY of another size", HELLO + frame(PRIORITY, 0, 1, bytes(4)), FRAME_SIZE_ERROR),
    ("6.4 RST_STREAM of stream 0", HELLO + frame(RST, 0, 0, bytes(4)), PROTOCOL_ERROR),
    ("6.4 RST_STREAM of another size", OPEN + frame(RST, 0, 1, bytes(3)), FRAME_SIZE_ERROR),
    ("6.5 SETTINGS of a stream", HELLO + frame(SETTINGS, 0, 1), PROTOCOL_ERROR),
    ("6.5 an acknowledgement with a payload", HELLO + frame(SETTINGS, ACK, 0, bytes(6)), FRAME_SIZE_ERROR),
    ("6.5 SETTINGS of another size", HELLO + frame(SETTINGS, 0, 0, bytes(5)), FRAME_SIZE_ERROR),
    ("6.5.2 ENABLE_PUSH of 2", HELLO + frame(SETTINGS, 0, 0, b"\0\2\0\0\0\2"), PROTOCOL_ERROR),
    ("6.5.2 a window of 2^31", HELLO + frame(SETTINGS, 0, 0, b"\0\4\x80\0\0\0"), FLOW_CONTROL_ERROR),
    ("6.5.2 frames of less than 16384", HELLO + frame(SETTINGS, 0, 0, b"\0\5\0\0\x3f\xff"), PROTOCOL_ERROR),
    ("6.5.2 frames of 2^24", HELLO + frame(SETTINGS, 0, 0, b"\0\5\1\0\0\0"), PROTOCOL_ERROR),
    ("6.5 too many settings in a frame", HELLO + frame(SETTINGS, 0, 0, b"\0\1\0\0\0\1" * 65), ENHANCE_YOUR_CALM),
    ("6.6 PUSH_PROMISE of a client", OPEN + frame(PUSH, WHOLE, 1, b"\0\0\0\2" + block()), PROTOCOL_ERROR),
    ("6.7 PING of a stream", HELLO + frame(PING, 0, 1, bytes(8)), PROTOCOL_ERROR),
    ("6.7 PING of another size", HELLO + frame(PING, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    ("6.8 GOAWAY of a stream", HELLO + frame(GOAWAY, 0, 1, bytes(8)), PROTOCOL_ERROR),
    ("6.8 GOAWAY too short", HELLO + frame(GOAWAY, 0, 0, bytes(7)), FRAME_SIZE_ERROR),
    ("6.9 WINDOW_UPDATE by 0", HELLO + frame(WINDOW, 0, 0, bytes(4)), PROTOCOL_ERROR),
    ("6.9 WINDOW_UPDATE of another size", HELLO + frame(WINDOW, 0, 0, bytes(3)), FRAME_SIZE_ERROR),
    ("6.9.1 a window beyond 2^31-1", HELLO + frame(WINDOW, 0, 0, b"\x7f\xff\xff\xff"), FLOW_CONTROL_ERROR),
    (
        "6.9.2 a setting that overflows a window",
        OPEN + frame(WINDOW, 0, 1, b"\x7f\xff\0\0") + frame(SETTINGS, 0, 0, b"\0\4\x7f\xff\xff\xff"),
        FLOW_CONTROL_ERROR,
    ),
    ("10.5 a head in too many frames", HELLO + frame(HEADERS, 0, 1, block()) + frame(CONTINUATION, 0, 1) * 65, 11),
]


@pytest.mark.parametrize(("name", "data", "code"), BROKEN, ids=[name for name, _, _ in BROKEN])
def test_what_breaks_the_connection_is_answered_by_goaway_wherever_it_is_cut(name: str, data: bytes, code: int) -> None:
    for cut in {*range(min(len(data), 200)), len(data) - 1, len(data)}:
        heard = Heard()
        codec = Http2(heard, False)
        codec.start()
        codec.output()
        with pytest.raises(Http2Error) as raised:
            codec.receive(data[:cut])
            codec.receive(data[cut:])
        assert raised.value.code == code, str(raised.value)
        kinds = [(kind, payload[4:8]) for kind, _, _, payload in frames_of(codec.output())]
        assert kinds[-1] == (GOAWAY, code.to_bytes(4, "big"))
        codec.receive(frame(PING, 0, 0, bytes(8)))
        assert codec.output() == b"", "nothing is answered after the end"


RESET: list[tuple[str, bytes, int]] = [
    ("5.1 DATA after END_STREAM", ENDED + frame(DATA, 0, 1, b"x"), STREAM_CLOSED),
    ("5.1 HEADERS after END_STREAM", ENDED + frame(HEADERS, WHOLE | END, 1, block()), STREAM_CLOSED),
    ("5.1 DATA after RST_STREAM", OPEN + frame(RST, 0, 1, b"\0\0\0\x08") + frame(DATA, 0, 1, b"x"), STREAM_CLOSED),
    ("5.1.1 a lower number", HELLO + frame(HEADERS, 5, 3, block()) + frame(HEADERS, 5, 1, block()), STREAM_CLOSED),
    ("6.9 WINDOW_UPDATE by 0", OPEN + frame(WINDOW, 0, 1, bytes(4)), PROTOCOL_ERROR),
    ("6.9.1 a window beyond 2^31-1", OPEN + frame(WINDOW, 0, 1, b"\x7f\xff\xff\xff"), FLOW_CONTROL_ERROR),
    ("8.1 trailers that do not end the stream", OPEN + frame(HEADERS, WHOLE, 1, Encoder().encode([("a", "b")])), 1),
    ("8.1.1 a shorter body", HELLO + frame(HEADERS, 4, 1, block(("content-length", "2"))) + frame(DATA, 1, 1, b"x"), 1),
    (
        "8.1.1 a longer body",
        HELLO + frame(HEADERS, 4, 1, block(("content-length", "2"))) + frame(DATA, 0, 1, b"xyz"),
        1,
    ),
    ("8.1.1 a length and no body", HELLO + frame(HEADERS, 5, 1, block(("content-length", "2"))), PROTOCOL_ERROR),
    ("8.3 a pseudo-header among trailers", OPEN + frame(HEADERS, 5, 1, Encoder().encode([(":path", "/")])), 1),
    ("8.3.1 no :method", HELLO + frame(HEADERS, 5, 1, Encoder().encode(GET[1:])), PROTOCOL_ERROR),
    ("8.3.1 no :scheme", HELLO + frame(HEADERS, 5, 1, Encoder().encode([GET[0], *GET[2:]])), PROTOCOL_ERROR),
    ("8.3.2 a :status", HELLO + frame(HEADERS, 5, 1, Encoder().encode([*GET, (":status", "200")])), PROTOCOL_ERROR),
]


@pytest.mark.parametrize(("name", "data", "code"), RESET, ids=[name for name, _, _ in RESET])
def test_what_breaks_a_stream_is_answered_by_rst_stream_and_the_connection_goes_on(
    name: str, data: bytes, code: int
) -> None:
    heard = Heard()
    codec = Http2(heard, False)
    codec.start()
    codec.receive(data)
    assert reset_codes(codec.output()) == [code]
    codec.receive(frame(HEADERS, WHOLE | END, 9, block()))
    assert heard.heads[-1][1].path == "/a"


HARMLESS: list[tuple[str, bytes]] = [
    ("4.1 a frame of an unknown type", frame(0xEE, 0xFF, 1, b"whatever")),
    ("4.1 reserved bits", frame(PING, 0, 1 << 31, bytes(8))),
    ("5.3 priority in HEADERS and PRIORITY", frame(PRIORITY, 0, 7, bytes(5))),
    ("6.4 RST_STREAM with an unknown code", frame(RST, 0, 1, b"\xff\0\0\1")),
    ("6.5.2 an unknown setting", frame(SETTINGS, 0, 0, b"\xab\xcd\0\0\0\1")),
    ("6.5 an empty acknowledgement", frame(SETTINGS, ACK)),
    ("6.9 WINDOW_UPDATE of a closed stream", frame(RST, 0, 1, bytes(4)) + frame(WINDOW, 0, 1, b"\0\0\0\1")),
]


@pytest.mark.parametrize(("name", "data"), HARMLESS, ids=[name for name, _ in HARMLESS])
def test_what_the_rfc_allows_disturbs_nothing(name: str, data: bytes) -> None:
    heard = Heard()
    codec = Http2(heard, False)
    codec.start()
    weighed = frame(HEADERS, WHOLE | END | WEIGHED | PADDED, 9, b"\x03" + bytes(5) + block() + bytes(3))
    codec.receive(OPEN + data + weighed)
    assert [head.path for _, head, _ in heard.heads] == ["/a", "/a"]
    assert reset_codes(codec.output()) == []


def test_streams_beyond_the_most_are_refused_and_those_there_are_live() -> None:
    heard = Heard()
    codec = Http2(heard, False, Http2Limits(max_concurrent=2))
    codec.start()
    codec.receive(HELLO + b"".join(frame(HEADERS, WHOLE | END, n, block()) for n in (1, 3, 5, 7)))
    assert reset_codes(codec.output()) == [REFUSED_STREAM, REFUSED_STREAM]
    assert codec.active == 2
    for stream, _, _ in heard.heads:
        codec.respond(stream, b"HTTP/1.1 204 No Content\r\n\r\n", True)
    codec.receive(frame(HEADERS, WHOLE | END, 9, block()))
    assert len(heard.heads) == 3


def test_what_was_on_its_way_to_a_stream_that_we_reset_is_not_answered() -> None:
    """Section 5.1: the peer could not know yet; its windows are given back, and nothing else is sent."""
    heard = Heard()
    codec = Http2(heard, False, Http2Limits(connection_window=131072))
    codec.start()
    codec.receive(OPEN)
    codec.reset(heard.heads[0][0], CANCEL)
    codec.output()
    for _ in range(16):
        codec.receive(frame(DATA, 0, 1, bytes(8192)))
    codec.receive(frame(HEADERS, WHOLE | END, 1, Encoder().encode([("checksum", "1")])))
    sent = frames_of(codec.output())
    assert {kind for kind, _, _, _ in sent} == {WINDOW}
    assert sum(int.from_bytes(payload, "big") for _, _, number, payload in sent if number == 0) == 131072
    codec.receive(frame(DATA, 0, 1, b"after its end"))
    assert reset_codes(codec.output()) == [STREAM_CLOSED]


def test_streams_that_we_reset_are_remembered_in_bounded_number_and_what_comes_for_them_is_counted() -> None:
    heard = Heard()
    codec = Http2(heard, False)
    codec.start()
    codec.receive(HELLO)
    for number in range(1, 600, 2):
        codec.receive(frame(HEADERS, WHOLE, number, block()))
        codec.reset(heard.heads[-1][0], CANCEL)
    codec.output()
    codec.receive(frame(DATA, 0, 1, b"x") + frame(DATA, 0, 599, b"x"))
    assert reset_codes(codec.output()) == [STREAM_CLOSED], "the oldest is forgotten, the newest is known"
    with pytest.raises(Http2Error) as raised:
        for _ in range(20_000):
            codec.receive(frame(DATA, 0, 599))
    assert raised.value.code == ENHANCE_YOUR_CALM


def test_a_peer_that_never_acknowledges_our_settings_cannot_open_streams_beyond_the_most_for_ever() -> None:
    heard = Heard()
    codec = Http2(heard, False, Http2Limits(max_concurrent=2))
    codec.start()
    codec.receive(HELLO)
    with pytest.raises(Http2Error) as raised:
        for number in range(1, 20_001, 2):
            codec.receive(frame(HEADERS, WHOLE | END, number, block()))
            codec.output()
    assert raised.value.code == ENHANCE_YOUR_CALM


@pytest.mark.parametrize("end", ["by us", "by the peer", "by a fault"])
def test_a_stream_that_was_reset_holds_nothing_of_its_handler(end: str) -> None:
    heard = Heard()
    codec = Http2(heard, False)
    codec.start()
    codec.receive(OPEN)
    stream = heard.heads[0][0]
    stream.owner = heard
    if end == "by us":
        codec.reset(stream, CANCEL)
    else:
        codec.receive(frame(RST, 0, 1, bytes(4)) if end == "by the peer" else frame(WINDOW, 0, 1, bytes(4)))
        assert len(heard.resets) == 1
    assert stream.owner is None


def client(limits: Http2Limits | None = None) -> tuple[Http2, Heard, Any]:
    heard = Heard()
    codec = Http2(heard, True, limits)
    codec.start()
    codec.receive(frame(SETTINGS))
    stream = codec.open(b"GET /a HTTP/1.1\r\nhost: web\r\n\r\n", "http", True, None)
    codec.output()
    return codec, heard, stream


def answer(*fields: tuple[str, str], flags: int = WHOLE) -> bytes:
    return frame(HEADERS, flags, 1, Encoder().encode(list(fields)))


@pytest.mark.parametrize(
    "data",
    [
        answer(("x", "y")),
        answer((":status", "20")),
        answer((":status", "1000")),
        answer((":status", "101")),
        answer((":status", "200"), (":status", "200")),
        answer(("x", "y"), (":status", "200")),
        answer((":status", "200"), (":path", "/")),
        answer((":status", "200"), ("Upper", "y")),
        answer((":status", "200"), ("connection", "close")),
        answer((":status", "200"), ("a", "b\r\nset-cookie: evil")),
        answer((":status", "200"), ("content-length", "1"), ("content-length", "2")),
        answer((":status", "100"), flags=WHOLE | END),
        answer((":status", "200"), ("content-length", "3"), flags=WHOLE | END),
        answer((":status", "103")) * 17,
        frame(DATA, 0, 1, b"before the head"),
        answer((":status", "200"), ("content-length", "3")) + frame(DATA, END, 1, b"four"),
        answer((":status", "204")) + frame(DATA, END, 1, b"x"),
    ],
)
def test_a_malformed_response_ends_its_stream_alone(data: bytes) -> None:
    codec, heard, _ = client()
    codec.receive(data)
    assert heard.resets == [PROTOCOL_ERROR]
    assert heard.bodies == []
    assert codec.active == 0
    other = codec.open(b"GET /b HTTP/1.1\r\nhost: web\r\n\r\n", "http", True, None)
    assert other.id == 3


@pytest.mark.parametrize(
    "data",
    [
        frame(PUSH, WHOLE, 1, b"\0\0\0\2" + block()),
        frame(SETTINGS, 0, 0, b"\0\2\0\0\0\1"),
        frame(HEADERS, WHOLE, 2, Encoder().encode([(":status", "200")])),
        frame(HEADERS, WHOLE, 3, Encoder().encode([(":status", "200")])),
        frame(DATA, 0, 3, b"x"),
    ],
    ids=["push", "push allowed", "a stream of the server's", "a stream nobody opened", "data of it"],
)
def test_a_server_that_opens_streams_breaks_the_connection(data: bytes) -> None:
    codec, _, _ = client()
    with pytest.raises(Http2Error):
        codec.receive(data)


def test_a_response_to_head_may_tell_a_length_and_has_no_body() -> None:
    heard = Heard()
    codec = Http2(heard, True)
    codec.start()
    codec.receive(frame(SETTINGS))
    codec.open(b"HEAD /a HTTP/1.1\r\nhost: web\r\n\r\n", "http", True, None)
    codec.receive(answer((":status", "200"), ("content-length", "3"), flags=WHOLE | END))
    assert heard.heads[0][1].content_length == 3
    assert codec.active == 0


def test_a_long_head_goes_out_in_frames_that_the_peer_takes() -> None:
    codec, _, _ = client()
    text = (
        b"GET /a HTTP/1.1\r\nhost: web\r\n" + b"".join(b"x-%d: %b\r\n" % (n, b"v" * 900) for n in range(40)) + b"\r\n"
    )
    codec.open(text, "http", True, None)
    sent = frames_of(codec.output())
    assert [kind for kind, _, _, _ in sent][:2] == [HEADERS, CONTINUATION]
    assert all(len(payload) <= 16384 for _, _, _, payload in sent)
    assert [flags & WHOLE for _, flags, _, _ in sent] == [0] * (len(sent) - 1) + [WHOLE]
    assert sent[0][1] & END


def test_a_change_of_the_initial_window_counts_for_streams_that_are_open() -> None:
    heard = Heard()
    codec = Http2(heard, False)
    codec.start()
    codec.receive(PREFACE + frame(SETTINGS, 0, 0, b"\0\4\0\0\0\4") + frame(HEADERS, WHOLE | END, 1, block()))
    stream = heard.heads[0][0]
    codec.respond(stream, b"HTTP/1.1 200 OK\r\n\r\n", False)
    codec.send(stream, b"0123456789", True)
    assert stream.queued == 6
    codec.output()
    codec.receive(frame(SETTINGS, 0, 0, b"\0\4\0\0\0\2"))  # less than what is sent: the window is negative
    codec.receive(frame(WINDOW, 0, 1, b"\0\0\0\2"))
    assert [payload for kind, _, _, payload in frames_of(codec.output()) if kind == DATA] == []
    codec.receive(frame(SETTINGS, 0, 0, b"\0\4\0\0\0\4"))
    assert [payload for kind, _, _, payload in frames_of(codec.output()) if kind == DATA] == [b"45"]
    codec.receive(frame(SETTINGS, 0, 0, b"\0\4\0\0\0\x40"))
    sent = [(flags, payload) for kind, flags, _, payload in frames_of(codec.output()) if kind == DATA]
    assert sent == [(END, b"6789")]
    assert codec.active == 0


def test_windows_opened_octet_by_octet_close_the_connection_soon() -> None:
    """CVE-2019-9511: each octet of window costs a frame of one octet."""
    heard = Heard()
    codec = Http2(heard, False, Http2Limits(controls=300))
    codec.start()
    codec.receive(PREFACE + frame(SETTINGS, 0, 0, b"\0\4\0\0\0\0") + frame(HEADERS, WHOLE | END, 1, block()))
    stream = heard.heads[0][0]
    codec.respond(stream, b"HTTP/1.1 200 OK\r\n\r\n", False)
    codec.send(stream, b"x" * 10_000, True)
    with pytest.raises(Http2Error) as raised:
        for _ in range(400):
            codec.receive(frame(WINDOW, 0, 1, b"\0\0\0\1"))
    assert raised.value.code == ENHANCE_YOUR_CALM


def test_padding_and_what_came_for_a_closed_stream_is_given_back_to_the_connection() -> None:
    heard = Heard()
    codec = Http2(heard, False, Http2Limits(connection_window=65536))
    codec.start()
    codec.receive(OPEN)
    padded = frame(DATA, PADDED, 1, b"\xff" + bytes(255))
    for _ in range(1000):  # far more than the window holds
        codec.receive(padded)
    codec.reset(heard.heads[0][0], 8)
    codec.output()
    codec.receive(frame(DATA, 0, 1, bytes(16384)) * 3)
    given = [payload for kind, _, number, payload in frames_of(codec.output()) if kind == WINDOW and number == 0]
    assert given
