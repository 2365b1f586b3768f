"""The HTTP/1.1 codec: what it takes, what it refuses, and that cuts in the input change nothing."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.proxy import http1 as built
from fairlead.proxy.message import ProtocolError
from tests.proxy.plain import plain
from tests.proxy.smuggling_corpus import BAD_RESPONSES, REFUSED

CODECS = [pytest.param(built, id="as-installed"), pytest.param(plain("http1"), id="plain")]


def read_requests(codec: Any, pieces: list[bytes]) -> list[tuple[str, str, str, list[tuple[str, str]], bytes]]:
    """All requests in the pieces, each whole, as a server would read them."""
    parser = codec.RequestParser()
    found = []
    head, body = None, b""
    for piece in pieces:
        parser.feed(piece)
        while True:
            if head is None:
                head = parser.read_head()
                if head is None:
                    break
            got = parser.read_body()
            body += got
            if parser.complete:
                found.append((head.method, head.authority, head.path, head.headers(), body))
                head, body = None, b""
                parser.next_message()
            elif not got:
                break
    return found


def read_response(codec: Any, pieces: list[bytes], method: str = "GET", eof: bool = False) -> tuple[Any, bytes, Any]:
    parser = codec.ResponseParser()
    parser.expect(method)
    head, body = None, b""
    for piece in pieces:
        parser.feed(piece)
        while head is None or (head.status < 200 and head.status != 101):
            head = parser.read_head()
            if head is None:
                break
        if head is not None:
            body += parser.read_body()
    if eof:
        parser.eof()
    return head, body, parser


def cuts(data: bytes) -> list[list[bytes]]:
    return [
        [data],
        [data[k : k + 1] for k in range(len(data))],
        *([data[:k], data[k:]] for k in range(1, len(data))),
    ]


@pytest.mark.parametrize("codec", CODECS)
def test_the_shortest_request_line_is_one(codec: Any) -> None:
    for pieces in cuts(b"G / HTTP/1.1\r\nHost: a\r\n\r\n"):
        assert read_requests(codec, pieces)[0][:3] == ("G", "a", "/")


GOOD = (
    b"GET /a?b=c HTTP/1.1\r\nHost: web.default:80\r\nX-One: 1\r\nx-one:  2 \r\nEmpty:\r\n\r\n"
    b"POST http://web/x HTTP/1.1\r\nHost: WEB\r\nContent-Length: 5\r\n\r\nhello"
    b"PUT /chunks HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n"
    b"3;ext=1\r\nabc\r\n00A\r\n0123456789\r\n0\r\nTrailer-One: x\r\n\r\n"
    b"OPTIONS * HTTP/1.0\r\n\r\n"
)


@pytest.mark.parametrize("codec", CODECS)
def test_requests_read_the_same_however_the_bytes_are_cut(codec: Any) -> None:
    expected = [
        ("GET", "web.default:80", "/a?b=c"),
        ("POST", "web", "/x"),
        ("PUT", "a", "/chunks"),
        ("OPTIONS", "", "*"),
    ]
    for pieces in cuts(GOOD):
        found = read_requests(codec, pieces)
        assert [request[:3] for request in found] == expected
        assert [request[4] for request in found] == [b"", b"hello", b"abc0123456789", b""]
        assert found[0][3] == [("Host", "web.default:80"), ("X-One", "1"), ("x-one", "2"), ("Empty", "")]


@pytest.mark.parametrize("codec", CODECS)
def test_responses_read_the_same_however_the_bytes_are_cut(codec: Any) -> None:
    data = (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Made it\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n"
        b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n"
    )
    for pieces in cuts(data):
        head, body, parser = read_response(codec, pieces)
        assert (head.status, body, parser.complete, parser.unread()) == (201, b"hello world", True, 0)


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", REFUSED)
def test_what_could_be_read_in_two_ways_is_refused(codec: Any, name: str) -> None:
    data = REFUSED[name]
    some = cuts(data) if len(data) < 200 else [[data], [data[:60], data[60:]]]
    for pieces in some:
        with pytest.raises(ProtocolError) as error:
            read_requests(codec, pieces)
        assert error.value.status in (400, 413, 417, 431, 501, 505)
        assert error.value.reason.code in ("FL-MALFORMED", "FL-TOO-LARGE")


@pytest.mark.parametrize("codec", CODECS)
def test_limits_of_size_and_number_have_their_own_answers(codec: Any) -> None:
    for data, status in (
        (b"GET /" + b"a" * 20000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70000 + b"\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70000, 431),
        (b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n", 431),
    ):
        with pytest.raises(ProtocolError) as error:
            read_requests(codec, [data])
        assert (error.value.status, error.value.reason.code) == (status, "FL-TOO-LARGE")
    assert len(read_requests(codec, [b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 99 + b"\r\n"])) == 1


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize("name", BAD_RESPONSES)
def test_bad_responses_are_refused_as_the_upstreams_fault(codec: Any, name: str) -> None:
    data = BAD_RESPONSES[name]
    for pieces in cuts(data) if len(data) < 200 else [[data]]:
        with pytest.raises(ProtocolError) as error:
            read_response(codec, pieces)
        assert (error.value.status, error.value.reason.code) == (502, "FL-UP-MALFORMED")


@pytest.mark.parametrize("codec", CODECS)
def test_some_responses_have_no_body_whatever_their_headers_say(codec: Any) -> None:
    data = b"HTTP/1.1 %d X\r\nContent-Length: 5\r\n\r\n"
    for method, status in (("HEAD", 200), ("GET", 204), ("GET", 304)):
        head, body, parser = read_response(codec, [data % status + b"HTTP/"], method)
        assert (head.status, head.content_length, body) == (status, 5, b"")
        assert (parser.complete, parser.unread()) == (True, 5)


@pytest.mark.parametrize("codec", CODECS)
def test_a_response_without_length_ends_with_the_connection(codec: Any) -> None:
    head, body, parser = read_response(codec, [b"HTTP/1.0 200 OK\r\n\r\nab", b"cd"])
    assert (head.until_close, body, parser.complete) == (True, b"abcd", False)
    parser.eof()
    assert parser.complete


@pytest.mark.parametrize("codec", CODECS)
@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"HTTP/1.1 200",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n0\r\n",
    ],
)
def test_a_response_cut_short_is_an_error_and_not_an_end(codec: Any, data: bytes) -> None:
    with pytest.raises(ProtocolError):
        read_response(codec, [data] if data else [], eof=True)


@pytest.mark.parametrize("codec", CODECS)
def test_a_switch_of_protocols_leaves_raw_bytes(codec: Any) -> None:
    head, body, parser = read_response(
        codec, [b"HTTP/1.1 101 Switching\r\nUpgrade: WebSocket\r\nConnection: Upgrade\r\n\r\n\x81\x01", b"a"]
    )
    assert (head.status, head.upgrade, body, parser.complete) == (101, "websocket", b"\x81\x01a", False)


@pytest.mark.parametrize("codec", CODECS)
def test_lines_that_stay_on_this_hop_are_cut(codec: Any) -> None:
    parser = codec.RequestParser()
    parser.feed(
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, X-Hop, Authorization, X-Forwarded-For\r\nX-Hop: 1\r\n"
        b"Authorization: b\r\nX-Forwarded-For: c\r\nTE: trailers\r\nKeep-Alive: 1\r\nx-hop: 2\r\nUpgrade: h2c\r\n"
        b"Proxy-Connection: k\r\nHTTP2-Settings: x\r\nLast: 1\r\n\r\n"
    )
    head = parser.read_head()
    kept, at = b"", head.first
    for k in range(0, len(head.cuts), 2):
        kept += head.raw[at : head.cuts[k]]
        at = head.cuts[k + 1]
    kept += head.raw[at:]
    assert kept == b"Host: a\r\nAuthorization: b\r\nX-Forwarded-For: c\r\nLast: 1\r\n\r\n"
    assert not head.keep_alive
    assert head.upgrade == ""


@pytest.mark.parametrize("codec", CODECS)
def test_a_connection_header_may_not_name_more_than_there_can_be(codec: Any) -> None:
    names = b",".join(b"x%d" % number for number in range(101))
    with pytest.raises(ProtocolError) as error:
        read_requests(codec, [b"GET / HTTP/1.1\r\nHost: a\r\nConnection: %b\r\n\r\n" % names])
    assert (error.value.status, error.value.reason.code) == (431, "FL-TOO-LARGE")
    assert "100" in str(error.value)
    repeated = b",".join([b"x1"] * 1000)  # each costs a search of the head, if it is looked for
    assert read_requests(codec, [b"GET / HTTP/1.1\r\nHost: a\r\nConnection: %b\r\n\r\n" % repeated])


@pytest.mark.parametrize("codec", CODECS)
def test_the_connection_goes_on_as_version_and_connection_say(codec: Any) -> None:
    for line, header, expected in (
        (b"HTTP/1.1", b"", True),
        (b"HTTP/1.0", b"", False),
        (b"HTTP/1.0", b"Connection: Keep-Alive\r\n", True),
        (b"HTTP/1.1", b"Connection: close\r\n", False),
        (b"HTTP/1.1", b"Connection: keep-alive, close\r\n", False),
        (b"HTTP/1.1", b"Connection: keep-alive\r\nConnection: close\r\n", False),
    ):
        parser = codec.RequestParser()
        parser.feed(b"GET / %b\r\nHost: a\r\n%b\r\n" % (line, header))
        assert parser.read_head().keep_alive is expected


@pytest.mark.parametrize("codec", CODECS)
def test_headers_are_found_by_name_in_any_case_and_joined(codec: Any) -> None:
    parser = codec.RequestParser()
    parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\nX-Tag: 1\r\nx-tag:\t2 \r\nX-Tagged: no\r\nUSER-AGENT: me\r\n\r\n")
    head = parser.read_head()
    assert head.header("x-tag") == "1,2"
    assert head.header("x-ta") is None
    assert head.header("user-agent") == "me"
    assert head.header("host") == "a"
    assert head.header("server") is None
    assert [name.lower() for name, _ in head.headers()] == ["host", "x-tag", "x-tag", "x-tagged", "user-agent"]


@pytest.mark.parametrize("codec", CODECS)
def test_expect_continue_counts_only_before_a_body_of_1_1(codec: Any) -> None:
    for line, length, expected in ((b"HTTP/1.1", 5, True), (b"HTTP/1.1", 0, False), (b"HTTP/1.0", 5, False)):
        parser = codec.RequestParser()
        parser.feed(b"POST / %b\r\nHost: a\r\nExpect: 100-Continue\r\nContent-Length: %d\r\n\r\n" % (line, length))
        assert parser.read_head().expect_continue is expected


NAMES = st.text("abcXYZ019-_!~", min_size=1, max_size=12)
VALUES = st.binary(max_size=30).map(lambda raw: bytes(c for c in raw if c >= 32 and c != 127).strip(b" \t"))


@given(
    headers=st.lists(st.tuples(NAMES, VALUES), max_size=8),
    body=st.lists(st.binary(min_size=1, max_size=40), max_size=5),
    chunked=st.booleans(),
    cut=st.lists(st.integers(0, 400), max_size=6),
)
def test_what_is_written_is_read_back(
    headers: list[tuple[str, bytes]], body: list[bytes], chunked: bool, cut: list[int]
) -> None:
    whole = b"".join(body)
    lines = b"".join(b"x-%b:%b\r\n" % (name.encode(), value) for name, value in headers)
    if chunked:
        framing = b"Transfer-Encoding: chunked\r\n"
        payload = b"".join(built.chunk(piece) for piece in body) + built.LAST_CHUNK
    else:
        framing = b"Content-Length: %d\r\n" % len(whole)
        payload = whole
    data = b"POST /p HTTP/1.1\r\nHost: h\r\n" + lines + framing + b"\r\n" + payload
    marks = sorted({0, len(data), *(k for k in cut if k < len(data))})
    pieces = [data[a:b] for a, b in pairwise(marks)]
    for codec in (built, plain("http1")):
        ((method, host, path, found, got),) = read_requests(codec, pieces)
        assert (method, host, path, got) == ("POST", "h", "/p", whole)
        assert found[1:-1] == [(f"x-{name}", value.decode("latin-1")) for name, value in headers]


@given(
    st.lists(
        st.sampled_from(
            [b"GET / HTTP/1.1", b"\r\n", b"\n", b"\r", b" ", b":", b"Host: a", b"Content-Length: 3", b"abc", b"0", b";"]  # noqa: RUF005
            + [b"Transfer-Encoding: chunked", b"Connection: ", b"close", b"\0", b"\xff", b"X", b"3\r\nabc\r\n0\r\n\r\n"]
        ),
        max_size=14,
    ).map(b"".join)
)
def test_compiled_and_plain_agree_on_anything_and_only_refuse(data: bytes) -> None:
    results: list[object] = []
    for codec in (built, plain("http1")):
        try:
            results.append(read_requests(codec, [data]))
        except ProtocolError as error:
            results.append(error.status)
    assert results[0] == results[1]


def h11_events(role: Any, data: bytes, asked: bytes = b"") -> list[Any]:
    """What h11 makes of valid traffic: (start line, headers, body, trailers) of each message."""
    connection = h11.Connection(role)
    if role is h11.CLIENT:
        connection.send(h11.Request(method=asked, target="/", headers=[("Host", "a")]))
        connection.send(h11.EndOfMessage())
    connection.receive_data(data)
    if role is h11.CLIENT:
        connection.receive_data(b"")
    found: list[Any] = []
    body = b""
    while True:
        event = connection.next_event()
        if event in (h11.NEED_DATA, h11.PAUSED) and connection.their_state is not h11.DONE:
            return found
        if isinstance(event, h11.Request):
            found.append([event.method, event.target, event.headers.raw_items(), b"", []])
        elif isinstance(event, h11.InformationalResponse | h11.Response):
            found.append([event.status_code, bytes(event.reason), event.headers.raw_items(), b"", []])
        elif isinstance(event, h11.Data):
            body += bytes(event.data)
        elif isinstance(event, h11.EndOfMessage):
            found[-1][3:] = [body, event.headers.raw_items()]
            body = b""
            if role is h11.CLIENT:
                return found
            connection.send(h11.Response(status_code=200, headers=[("Content-Length", "0")]))
            connection.send(h11.EndOfMessage())
            connection.start_next_cycle()


def raw_items(lines: list[tuple[str, str]]) -> list[tuple[bytes, bytes]]:
    return [(name.encode("latin-1"), value.encode("latin-1")) for name, value in lines]


TEXTS = st.text("abcXYZ 019;=/,\t", max_size=12).map(lambda text: text.strip().encode())
FIELDS = st.lists(
    st.tuples(st.text("abcXYZ-", min_size=1, max_size=8).map(lambda t: b"x-" + t.encode()), TEXTS), max_size=5
)


def lines_of(fields: list[tuple[bytes, bytes]], draw_space: bytes = b" ") -> bytes:
    return b"".join(name + b":" + draw_space + value + b"\r\n" for name, value in fields)


@st.composite
def bodies(draw: Any) -> tuple[bytes, bytes]:
    """Framing lines and the octets of a body."""
    pieces = draw(st.lists(st.binary(min_size=1, max_size=20), max_size=4))
    if not draw(st.booleans()):
        whole = b"".join(pieces)
        return b"Content-Length: %d\r\n" % len(whole), whole
    extension = draw(st.sampled_from([b"", b";a", b";a=b", b';a="b c"']))
    chunks = b"".join(b"%X%b\r\n%b\r\n" % (len(piece), extension, piece) for piece in pieces)
    trailers = lines_of(draw(FIELDS))
    return b"Transfer-Encoding: chunked\r\n", chunks + b"0\r\n" + trailers + b"\r\n"


@given(
    st.lists(st.tuples(st.sampled_from([b"GET", b"POST", b"PUT", b"PURGE"]), FIELDS, bodies()), min_size=1, max_size=4)
)
def test_valid_requests_are_the_same_events_as_h11s(requests: list[Any]) -> None:
    data = b"".join(
        method + b" /x?y=1 HTTP/1.1\r\nHost: a\r\n" + lines_of(fields) + framing + b"\r\n" + body
        for method, fields, (framing, body) in requests
    )
    expected = h11_events(h11.SERVER, data)
    assert len(expected) == len(requests)
    for codec in (built, plain("http1")):
        parser = codec.RequestParser()
        parser.feed(data)
        for method, target, fields, body, trailers in expected:
            head = parser.read_head()
            got = b""
            while not parser.complete:
                got += parser.read_body()
            assert (head.method.encode(), head.target.encode(), raw_items(head.headers())) == (method, target, fields)
            assert got == body
            lines = parser.trailers if head.chunked else b""
            assert [
                (line.partition(b":")[0], line.partition(b":")[2].strip()) for line in lines.split(b"\r\n") if line
            ] == trailers
            parser.next_message()
        assert parser.unread() == 0


@given(
    st.lists(st.sampled_from([b"100 Continue", b"102 Processing", b"103 Early Hints"]), max_size=3),
    st.sampled_from([b"200 OK", b"404 Not Found", b"500 ", b"204 No Content", b"304 Not Modified"]),
    FIELDS,
    st.one_of(bodies(), st.binary(max_size=20).map(lambda body: (b"", body))),
    st.sampled_from([b"GET", b"HEAD"]),
)
def test_valid_responses_are_the_same_events_as_h11s(
    interim: list[bytes], status: bytes, fields: list[tuple[bytes, bytes]], framed: tuple[bytes, bytes], method: bytes
) -> None:
    framing, body = framed
    bodiless = method == b"HEAD" or status[:3] in (b"204", b"304")
    data = b"".join(b"HTTP/1.1 " + one + b"\r\nX: y\r\n\r\n" for one in interim)
    data += b"HTTP/1.1 " + status + b"\r\n" + lines_of(fields) + framing + b"\r\n" + (b"" if bodiless else body)
    *early, (code, _reason, headers, read, _trailers) = h11_events(h11.CLIENT, data, method)
    for codec in (built, plain("http1")):
        parser = codec.ResponseParser()
        parser.expect(method.decode())
        parser.feed(data)
        for one in early:
            assert parser.read_head().status == one[0]
        head = parser.read_head()
        got = parser.read_body()
        parser.eof()
        assert (head.status, raw_items(head.headers()), got) == (code, headers, read)
        assert parser.complete


def h11_reads(data: bytes) -> bool:
    """Whether h11 takes all of `data` as one whole request."""
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(data)
    try:
        while True:
            event = connection.next_event()
            if isinstance(event, h11.EndOfMessage):
                return True
            if event is h11.NEED_DATA:
                return False
    except h11.RemoteProtocolError:
        return False


# What h11 takes and we refuse, all of it on purpose: line ends, folding and controls; Host and target; versions; a
# length beside chunks (h11 lets chunks win).
H11_TAKES = {
    *("obs-fold", "bare lf after line", "bare lf in header", "bare lf everywhere", "control in value"),
    *("delete in value", "host empty", "host with user", "host with backslash", "host with path", "host list"),
    *("host port too big", "host port not digits", "host bad ipv6", "target and host differ", "target with https"),
    *("target with user", "target without slash", "target with fragment", "star for get", "version 1.2"),
    *("version 2.0", "preface of http/2", "long method", "connect without port", "connect with a path"),
    *("cl with zeros before it", "name folded to a length", "name folded to a coding", "trace with a body"),
    *(
        "cl.te with a request inside",
        "te with a blank before its name",
        "head ended by lf lf",
        "head ended by lf cr lf",
    ),
    *("fold with a tab", "host with a blank", "host with a tab inside", "host with a fragment", "host with a query"),
    *("host with two ports", "host percent-encoded", "host of high octets", "host with a zone"),
    *("target of another scheme", "target with an empty authority", "target with a user and host"),
    *("target with a backslash in the authority", "target of an authority", "target with another port"),
    *("chunk size with a tab", "chunk ext with cr", "chunk ext with nul"),
    *("connect and host differ", "connect with a body", "expect other", "connection not names", "trailer bare lf"),
}


def test_we_refuse_all_that_h11_refuses_and_the_listed_more() -> None:
    assert {name for name, data in REFUSED.items() if h11_reads(data)} == H11_TAKES


@given(
    st.lists(
        st.sampled_from(
            [b"GET / HTTP/1.1\r\nHost: a\r\n", b"X: ", b"y\r\n", b"\r\n", b"\n", b" ", b"Content-Length: 3\r\n", b"abc"]  # noqa: RUF005
            + [b"Transfer-Encoding: chunked\r\n", b"3\r\nabc\r\n", b"0\r\n\r\n", b"\0", b"\xff", b":"]
        ),
        max_size=10,
    ).map(b"".join)
)
def test_what_we_take_h11_takes_too(data: bytes) -> None:
    try:
        taken = read_requests(built, [data])
    except ProtocolError:
        return
    if taken:  # the one thing that h11 refuses and RFC 9112 section 2.2 asks for: an empty line before a request
        assert h11_reads(data.removeprefix(b"\r\n"))
