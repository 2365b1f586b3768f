"""RFC 9110 and RFC 9112 as a table: one test a requirement, of both roles, through the data path without sockets.

Each name is the sentence; the section stands before it. Where Fairlead is stricter than SHOULD or MAY, it says so.
"""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.policy.tables import Decision, RetryPolicy
from tests.proxy.fakes import World, cluster, route

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
DIRECT = Decision("direct-response", status=200, body=b"hi")


class Talk:
    """One client, one endpoint, and what each got."""

    def __init__(self, request: bytes, world: World | None = None, listener: str = "outbound", **client: Any) -> None:
        self.world = world or World()
        self.client = self.world.client(request, listener, **client)
        self.upstream, self.wire = self.world.connect()
        self.sent = self.wire.take()

    def answer(self, *pieces: bytes) -> bytes:
        for piece in pieces:
            self.upstream.data_received(piece)
        got: bytes = self.client.transport.take()
        return got

    def lines(self) -> list[bytes]:
        """Header lines as the endpoint got them, in lower case."""
        return self.sent.partition(b"\r\n\r\n")[0].lower().split(b"\r\n")[1:]


def get(lines: bytes = b"", version: bytes = b"1.1", method: bytes = b"GET", target: bytes = b"/x") -> bytes:
    return method + b" " + target + b" HTTP/" + version + b"\r\nHost: web\r\n" + lines + b"\r\n"


def refused(request: bytes, world: World | None = None) -> bytes:
    """The answer to what must be refused; it was neither decided nor forwarded, and the connection ends."""
    world = world or World()
    client = world.client(request)
    assert not world.requests
    assert not world.dialed
    got: bytes = client.transport.take()
    assert b"\r\nconnection: close\r\n" in got
    assert client.transport.closed or client.transport.eof
    return got


# --- RFC 9112 section 2: messages


def test_2_2_one_empty_line_before_a_request_is_skipped_however_it_is_cut() -> None:
    for pieces in ([b"\r\n" + get()], [b"\r", b"\n", get()], [b"\r\n", get()], [b"\r\nG", get()[1:]]):
        world = World()
        client = world.client()
        for piece in pieces:
            client.data_received(piece)
        assert [request.path for request in world.requests] == ["/x"]
    world = World(decision=DIRECT)
    client = world.client(get() + b"\r\n" + get())
    assert client.transport.take().count(b"200 OK") == 2


def test_2_2_two_empty_lines_are_refused() -> None:
    assert refused(b"\r\n\r\n" + get()).startswith(b"HTTP/1.1 400 ")


def test_2_2_whitespace_between_the_start_line_and_the_first_header_is_refused() -> None:
    assert refused(b"GET / HTTP/1.1\r\n X: y\r\nHost: web\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_2_2_a_bare_cr_is_refused() -> None:
    assert refused(get(b"X: a\rb\r\n")).startswith(b"HTTP/1.1 400 ")


def test_2_2_a_bare_lf_as_line_end_is_refused_although_it_may_be_taken() -> None:
    assert refused(b"GET / HTTP/1.1\nHost: web\n\n").startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(("version", "status"), [(b"2.0", b"505"), (b"1.2", b"505"), (b"0.9", b"505")])
def test_2_3_a_version_that_is_not_spoken_is_a_505(version: bytes, status: bytes) -> None:
    assert refused(get(version=version)).startswith(b"HTTP/1.1 " + status)


def test_2_3_a_request_of_1_0_goes_on_as_1_1_and_is_answered_as_such() -> None:
    talk = Talk(get(version=b"1.0"))
    assert talk.sent.startswith(b"GET /x HTTP/1.1\r\n")
    assert talk.answer(b"HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n").startswith(b"HTTP/1.1 200 OK\r\n")


# --- section 3: request lines and targets


def test_3_a_target_with_a_blank_is_refused_and_never_repaired() -> None:
    assert refused(get(target=b"/a b")).startswith(b"HTTP/1.1 400 ")


def test_3_a_target_that_is_too_long_is_a_414() -> None:
    assert refused(get(target=b"/" + b"a" * 20000)).startswith(b"HTTP/1.1 414 ")


def test_3_1_the_method_is_case_sensitive_and_any_token_is_one() -> None:
    assert Talk(get(method=b"get")).sent.startswith(b"get /x HTTP/1.1\r\n")
    assert Talk(get(method=b"M-SEARCH")).sent.startswith(b"M-SEARCH /x HTTP/1.1\r\n")


@pytest.mark.parametrize("host", [b"", b"Host: a\r\nHost: b\r\n", b"Host: web\r\nHost: web\r\n", b"Host: a b\r\n"])
def test_3_2_host_missing_twice_or_invalid_in_1_1_is_a_400(host: bytes) -> None:
    assert refused(b"GET / HTTP/1.1\r\n" + host + b"\r\n").startswith(b"HTTP/1.1 400 ")


def test_3_2_a_request_of_1_0_without_host_goes_on_with_one() -> None:
    talk = Talk(b"GET / HTTP/1.0\r\n\r\n")
    assert [line for line in talk.lines() if line.startswith(b"host:")] == [b"host: web"]


def test_3_2_2_the_authority_of_an_absolute_target_takes_the_place_of_host() -> None:
    talk = Talk(b"GET http://web/a?b HTTP/1.1\r\nHost: WEB\r\n\r\n")
    assert talk.sent.startswith(b"GET /a?b HTTP/1.1\r\n")
    assert talk.sent.lower().count(b"\r\nhost:") == 1
    assert talk.world.requests[0].authority == "web"


def test_3_2_2_an_absolute_target_that_contradicts_host_is_refused_although_host_may_be_ignored() -> None:
    assert refused(b"GET http://a/ HTTP/1.1\r\nHost: b\r\n\r\n").startswith(b"HTTP/1.1 400 ")


def test_3_2_2_an_empty_path_becomes_a_slash() -> None:
    assert Talk(b"GET http://web HTTP/1.1\r\nHost: web\r\n\r\n").sent.startswith(b"GET / HTTP/1.1\r\n")
    assert Talk(b"GET http://web?q HTTP/1.1\r\nHost: web\r\n\r\n").sent.startswith(b"GET /?q HTTP/1.1\r\n")


def test_3_2_4_options_of_an_absolute_target_without_path_is_for_the_server_as_a_whole() -> None:
    assert Talk(b"OPTIONS http://web HTTP/1.1\r\nHost: web\r\n\r\n").sent.startswith(b"OPTIONS * HTTP/1.1\r\n")
    assert Talk(b"OPTIONS http://web/ HTTP/1.1\r\nHost: web\r\n\r\n").sent.startswith(b"OPTIONS / HTTP/1.1\r\n")


def test_3_2_4_an_asterisk_is_for_options_only() -> None:
    assert Talk(get(method=b"OPTIONS", target=b"*")).sent.startswith(b"OPTIONS * HTTP/1.1\r\n")
    assert refused(get(target=b"*")).startswith(b"HTTP/1.1 400 ")


# --- section 5: fields


def test_5_names_keep_their_case_and_lines_their_order() -> None:
    block = b"X-One: 1\r\nx-TWO: 2\r\nX-one: 3\r\nAccept:*/*\r\n"
    assert block in Talk(get(block)).sent
    back = Talk(get()).answer(b"HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nset-cookie: b=2\r\nContent-Length: 0\r\n\r\n")
    assert b"Set-Cookie: a=1\r\nset-cookie: b=2\r\n" in back


def test_5_1_whitespace_before_the_colon_is_a_400_from_a_client_and_a_502_from_an_endpoint() -> None:
    assert refused(get(b"X : y\r\n")).startswith(b"HTTP/1.1 400 ")
    assert Talk(get()).answer(b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n").startswith(b"HTTP/1.1 502 ")


def test_5_2_a_folded_line_is_a_400_from_a_client_and_a_502_from_an_endpoint() -> None:
    assert refused(get(b"X: y\r\n z\r\n")).startswith(b"HTTP/1.1 400 ")
    assert Talk(get()).answer(b"HTTP/1.1 200 OK\r\nX: y\r\n z\r\n\r\n").startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("name", [b"Content_Length", b"transfer_Encoding", b"X_Forwarded_For", b"x-forwarded_proto"])
def test_5_names_that_servers_take_for_one_that_frames_or_is_trusted_are_refused(name: bytes) -> None:
    assert refused(get(name + b": 1\r\n")).startswith(b"HTTP/1.1 400 ")
    assert b"X_Other: 1\r\n" in Talk(get(b"X_Other: 1\r\n")).sent


# --- section 6: bodies


def test_6_1_a_coding_that_is_not_known_is_a_501() -> None:
    assert refused(get(b"Transfer-Encoding: gzip, chunked\r\n", method=b"POST")).startswith(b"HTTP/1.1 501 ")


@pytest.mark.parametrize("coding", [b"chunked, gzip", b"chunked, chunked", b"identity", b"", b",chunked"])
def test_6_3_a_request_whose_last_coding_is_not_chunked_once_is_a_400(coding: bytes) -> None:
    assert refused(get(b"Transfer-Encoding: " + coding + b"\r\n", method=b"POST")).startswith(b"HTTP/1.1 400 ")


def test_6_1_transfer_encoding_beside_content_length_or_in_1_0_is_refused() -> None:
    both = b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n"
    assert refused(get(both, method=b"POST")).startswith(b"HTTP/1.1 400 ")
    assert refused(get(b"Transfer-Encoding: chunked\r\n", b"1.0", b"POST")).startswith(b"HTTP/1.1 400 ")
    assert Talk(get()).answer(b"HTTP/1.1 200 OK\r\n" + both + b"\r\n").startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("value", [b"+1", b"1, 1", b"", b"0x1", b"-1", b"1 1", b"01", b"1" * 19])
def test_6_3_a_length_that_is_no_plain_number_is_a_400(value: bytes) -> None:
    assert refused(get(b"Content-Length: " + value + b"\r\n", method=b"POST")).startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize("status", [b"204 No Content", b"304 Not Modified"])
@pytest.mark.parametrize("framing", [b"Transfer-Encoding: chunked\r\n", b"Content-Length: 5\r\n", b""])
def test_6_3_204_and_304_end_with_their_head(status: bytes, framing: bytes) -> None:
    talk = Talk(get())
    back = talk.answer(b"HTTP/1.1 " + status + b"\r\n" + framing + b"ETag: x\r\n\r\n")
    assert back.endswith(b"\r\n\r\n")
    assert back.count(b"\r\n\r\n") == 1
    assert b"transfer-encoding" not in back.lower()
    assert talk.upstream.usable
    assert talk.world.at_rest()


def test_9110_8_6_a_204_has_no_content_length() -> None:
    back = Talk(get()).answer(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nA: b\r\n\r\n")
    assert b"content-length" not in back.lower()
    assert b"A: b\r\n" in back


def test_9110_8_6_a_304_and_an_answer_to_head_may_say_the_length_of_what_is_not_there() -> None:
    assert b"Content-Length: 5\r\n" in Talk(get()).answer(b"HTTP/1.1 304 X\r\nContent-Length: 5\r\n\r\n")
    head = Talk(get(method=b"HEAD"))
    assert b"Content-Length: 5\r\n" in head.answer(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
    assert head.upstream.usable


def test_9110_9_3_2_head_of_a_chunked_answer_is_its_head_alone() -> None:
    talk = Talk(get(method=b"HEAD"))
    back = talk.answer(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert back.count(b"\r\n\r\n") == 1
    assert back.endswith(b"\r\n\r\n")
    assert talk.world.at_rest()


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_6_3_surplus_behind_an_answer_without_body_costs_the_endpoint_its_connection(method: bytes) -> None:
    status = b"200 OK" if method == b"HEAD" else b"204 No Content"
    talk = Talk(get(method=method))
    back = talk.answer(b"HTTP/1.1 " + status + b"\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
    assert b"evil" not in back
    assert talk.wire.aborted


# --- section 7: chunks and trailers


CHUNKED = get(b"Transfer-Encoding: chunked\r\n", method=b"POST")


def test_7_1_1_extensions_are_dropped_and_chunks_framed_anew() -> None:
    talk = Talk(CHUNKED + b'3;a="b";c\r\nabc\r\n00002;x\r\nde\r\n0;last\r\n\r\n')
    assert talk.sent.endswith(b"\r\n\r\n5\r\nabcde\r\n0\r\n\r\n")


@pytest.mark.parametrize(
    "body", [b"g\r\n", b"1\r\nab\r\n", b"-1\r\n", b" 1\r\na\r\n", b"1\n", b"ffffffffffffffff\r\n", b"1;\n\r\n"]
)
def test_7_1_a_chunk_that_is_not_one_is_a_400_and_the_endpoint_never_sees_an_end(body: bytes) -> None:
    world = World()
    client = world.client(CHUNKED)
    _upstream, wire = world.connect()
    wire.take()
    client.data_received(body)
    assert client.transport.take().startswith(b"HTTP/1.1 400 ")
    assert wire.aborted
    assert b"0\r\n\r\n" not in wire.take()


TRAILED = b"1\r\na\r\n0\r\nX-Sum: 1\r\nContent-Length: 9\r\nHost: evil\r\nAuthorization: a\r\n\r\n"


def test_7_1_2_safe_trailers_of_a_request_go_on_where_te_says_so() -> None:
    asked = get(b"TE: trailers\r\nConnection: TE\r\nTransfer-Encoding: chunked\r\n", method=b"POST")
    assert Talk(asked + TRAILED).sent.endswith(b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n")
    world = World()
    client = world.client(asked)
    _upstream, wire = world.connect()
    wire.take()
    for k in range(len(TRAILED)):
        client.data_received(TRAILED[k : k + 1])
    assert wire.take() == b"1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n"
    assert Talk(CHUNKED + TRAILED).sent.endswith(b"1\r\na\r\n0\r\n\r\n")


def test_9110_6_5_1_safe_trailers_of_a_response_go_on_to_who_asked_for_them() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n"
    assert Talk(get(b"TE: trailers\r\nConnection: TE\r\n")).answer(head + TRAILED).endswith(b"0\r\nX-Sum: 1\r\n\r\n")
    assert Talk(get()).answer(head + TRAILED).endswith(b"0\r\n\r\n")


def test_9110_10_1_4_te_says_trailers_to_the_endpoint_and_stands_in_connection() -> None:
    lines = Talk(get(b"TE: trailers, gzip;q=0.5\r\nConnection: TE\r\n")).lines()
    assert b"te: trailers" in lines
    assert b"connection: te" in lines
    assert not [line for line in Talk(get(b"TE: gzip\r\n")).lines() if line.startswith((b"te:", b"connection:"))]


def test_9110_6_6_2_trailer_announces_what_may_come() -> None:
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-Sum, Host\r\n\r\n"
    assert b"\r\ntrailer: X-Sum\r\n" in Talk(get(b"TE: trailers\r\n")).answer(head)
    assert b"trailer" not in Talk(get()).answer(head).lower()


# --- sections 8 and 9: ends of connections


@pytest.mark.parametrize(
    "cut",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nab",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n",
    ],
)
def test_8_an_answer_cut_short_is_cut_short_for_the_client_too(cut: bytes) -> None:
    talk = Talk(get())
    back = talk.answer(cut)
    talk.upstream.eof_received()
    talk.upstream.connection_lost(None)
    assert talk.client.transport.aborted
    assert not back.endswith(b"0\r\n\r\n")
    assert talk.world.at_rest()


def test_8_an_answer_cut_short_within_its_head_is_a_503() -> None:
    talk = Talk(get())
    talk.answer(b"HTTP/1.1 200 OK\r\nContent-Le")
    talk.upstream.eof_received()
    talk.upstream.connection_lost(None)
    assert b"FL-RESET" in talk.client.transport.take()


def test_9_3_pipelined_requests_are_answered_in_their_order() -> None:
    world = World()
    client = world.client(get(target=b"/1") + get(target=b"/2") + get(target=b"/3"))
    upstream, wire = world.connect()
    for number in (b"1", b"2", b"3"):
        assert wire.take().startswith(b"GET /" + number)
        upstream.data_received(OK[:-2] + b"a" + number)
    assert [piece[:2] for piece in client.transport.take().split(b"\r\n\r\n")[1:]] == [b"a1", b"a2", b"a3"]


def test_9_3_persistence_is_as_version_and_connection_say() -> None:
    for lines, version, kept in (
        (b"", b"1.1", True),
        (b"Connection: close\r\n", b"1.1", False),
        (b"", b"1.0", False),
        (b"Connection: keep-alive\r\n", b"1.0", True),
        (b"Connection: keep-alive, close\r\n", b"1.0", False),
    ):
        talk = Talk(get(lines, version))
        back = talk.answer(OK)
        assert talk.client.transport.closed is not kept
        assert (b"\r\nconnection: close\r\n" in back) is not kept
        assert (b"\r\nconnection: keep-alive\r\n" in back) is (kept and version == b"1.0")


def test_9_6_nothing_behind_a_request_that_closes_is_read() -> None:
    world = World(decision=DIRECT)
    client = world.client(get(b"Connection: close\r\n") + get(target=b"/smuggled"))
    assert client.transport.take().count(b"HTTP/1.1") == 1
    assert len(world.requests) == 1


def test_9_6_an_endpoint_that_closes_is_not_used_again() -> None:
    talk = Talk(get())
    talk.answer(OK.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert talk.wire.aborted


# --- RFC 9110 section 7: forwarding


def test_9110_7_6_1_connection_and_what_it_names_stay_on_their_hop() -> None:
    lines = Talk(get(b"Connection: X-Hop, keep-alive\r\nX-Hop: 1\r\nKeep-Alive: 5\r\nProxy-Connection: a\r\n")).lines()
    assert not [line for line in lines if line.startswith((b"connection", b"x-hop", b"keep-alive", b"proxy-"))]


@pytest.mark.parametrize("name", [b"Host", b"Authorization", b"Content-Length", b"Cookie", b"X-Forwarded-For", b"Via"])
def test_9110_7_6_1_connection_cannot_take_away_what_frames_routes_or_authorises(name: bytes) -> None:
    request = get(b"Content-Length: 0\r\nAuthorization: a\r\nCookie: c\r\nX-Forwarded-For: 1.2.3.4\r\nVia: 1.1 x\r\n")
    talk = Talk(request.replace(b"\r\n\r\n", b"\r\nConnection: " + name + b"\r\n\r\n"))
    assert [line for line in talk.lines() if line.startswith(name.lower() + b":")]


@pytest.mark.parametrize("method", [b"TRACE", b"OPTIONS"])
def test_9110_7_6_2_max_forwards_is_counted_down_and_ends_here_at_zero(method: bytes) -> None:
    assert b"max-forwards: 2" in Talk(get(b"Max-Forwards: 3\r\n", method=method)).lines()
    world = World()
    client = world.client(get(b"Max-Forwards: 0\r\n", method=method))
    assert not world.dialed
    assert client.transport.take().startswith(b"HTTP/1.1 200 " if method == b"OPTIONS" else b"HTTP/1.1 405 ")
    assert refused_after_deciding(get(b"Max-Forwards: x\r\n", method=method)).startswith(b"HTTP/1.1 400 ")
    assert b"max-forwards: 0" in Talk(get(b"Max-Forwards: 0\r\n")).lines()


def refused_after_deciding(request: bytes) -> bytes:
    world = World()
    client = world.client(request)
    assert not world.dialed
    got: bytes = client.transport.take()
    return got


def test_9110_7_6_3_via_is_added_where_it_is_switched_on_and_only_there() -> None:
    assert not [line for line in Talk(get()).lines() if line.startswith(b"via:")]
    talk = Talk(get(b"Via: 1.0 other\r\n"), World(via="fairlead"))
    assert [line for line in talk.lines() if line.startswith(b"via:")] == [b"via: 1.0 other", b"via: 1.1 fairlead"]
    assert b"\r\nvia: 1.1 fairlead\r\n" in talk.answer(OK)
    assert b"via: 1.0 fairlead" in Talk(get(version=b"1.0"), World(via="fairlead")).lines()


def test_9110_6_6_1_a_response_without_date_gets_one() -> None:
    world = World()
    world.date = b"date: Tue, 15 Nov 1994 08:12:31 GMT\r\n"
    talk = Talk(get(), world)
    assert talk.answer(OK).count(world.date) == 1
    other = World()
    other.date = world.date
    talk = Talk(get(), other)
    assert world.date not in talk.answer(OK.replace(b"\r\n\r\n", b"\r\nDate: x\r\n\r\n"))
    own = World(decision=DIRECT)
    own.date = world.date
    assert world.date in own.client(get()).transport.take()


def test_9110_7_8_only_websocket_is_forwarded_as_an_upgrade() -> None:
    ws = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"
    assert b"upgrade: websocket" in Talk(get(ws)).lines()
    for lines in (b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMA\r\n", ws[21:]):
        sent = Talk(get(lines)).lines()
        assert not [line for line in sent if line.startswith((b"upgrade", b"connection", b"http2"))]
    assert b"upgrade: websocket" not in Talk(get(ws, b"1.0")).lines()
    assert b"upgrade: websocket" not in Talk(get(ws + b"Content-Length: 3\r\n") + b"abc").lines()


@pytest.mark.parametrize(
    "switch",
    [
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    ],
)
def test_9110_7_8_a_switch_to_anything_else_is_a_502(switch: bytes) -> None:
    talk = Talk(get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n"))
    assert talk.answer(switch).startswith(b"HTTP/1.1 502 ")
    assert talk.wire.aborted


@pytest.mark.parametrize("answer", [OK, b"HTTP/1.1 400 X\r\nContent-Length: 0\r\n\r\n"])
def test_9931_what_follows_a_refused_upgrade_is_never_read_as_a_request(answer: bytes) -> None:
    talk = Talk(get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n") + get(target=b"/smuggled"))
    assert b"\r\nconnection: close\r\n" in talk.answer(answer)
    assert talk.client.transport.closed
    assert len(talk.world.requests) == 1
    world = World(decision=DIRECT)
    client = world.client(get(b"Connection: Upgrade\r\nUpgrade: websocket\r\n") + get(target=b"/smuggled"))
    assert client.transport.take().count(b"HTTP/1.1") == 1
    assert len(world.requests) == 1


# --- RFC 9110 sections 10 and 15: expectations and interim answers


EXPECTING = get(b"Expect: 100-continue\r\nContent-Length: 5\r\n", method=b"POST")


def test_9110_10_1_1_the_expectation_goes_on_and_the_endpoints_100_comes_back_once() -> None:
    talk = Talk(EXPECTING)
    assert b"expect: 100-continue" in talk.lines()
    assert talk.answer(b"HTTP/1.1 100 Continue\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    talk.client.data_received(b"hello")
    assert talk.wire.take() == b"hello"
    assert talk.answer(OK).startswith(b"HTTP/1.1 200 ")
    assert not talk.client.transport.closed


def test_9110_10_1_1_a_second_try_does_not_say_100_again() -> None:
    world = World(cluster("10.0.0.1", "10.0.0.2"), decision=route(retries=RetryPolicy(2, frozenset({"reset"}))))
    talk = Talk(EXPECTING, world)
    assert talk.answer(b"HTTP/1.1 100 Continue\r\n\r\n")
    talk.wire.closed = True
    talk.upstream.connection_lost(None)
    world.pass_time(1)
    upstream, _wire = world.connect()
    upstream.data_received(b"HTTP/1.1 100 Continue\r\n\r\n")
    assert talk.client.transport.take() == b""


def test_9110_10_1_1_a_refusal_closes_and_the_body_sent_nevertheless_is_no_request() -> None:
    talk = Talk(EXPECTING)
    assert b"\r\nconnection: close\r\n" in talk.answer(b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n")
    talk.client.data_received(get(target=b"/smuggled"))
    assert len(talk.world.requests) == 1
    assert talk.wire.aborted
    world = World(decision=Decision("denied", status=403, reason="FL-DENIED", why="No."))
    client = world.client(EXPECTING)
    got = client.transport.take()
    assert got.startswith(b"HTTP/1.1 403 ")
    assert b"\r\nconnection: close\r\n" in got
    client.data_received(get(target=b"/smuggled"))
    assert len(world.requests) == 1


def test_9110_10_1_1_an_answer_without_100_is_passed_on_and_the_body_not_awaited() -> None:
    talk = Talk(EXPECTING)
    back = talk.answer(OK)
    assert back.startswith(b"HTTP/1.1 200 ")
    assert b"\r\nconnection: close\r\n" in back


def test_9110_10_1_1_an_expectation_of_1_0_or_without_body_is_ignored_and_stays_here() -> None:
    for request in (
        get(b"Expect: 100-continue\r\nContent-Length: 5\r\n", b"1.0", b"POST") + b"hello",
        get(b"Expect: 100-continue\r\n"),
    ):
        talk = Talk(request)
        assert not [line for line in talk.lines() if line.startswith(b"expect")]
        back = talk.answer(b"HTTP/1.1 100 Continue\r\n\r\n" + OK)
        assert back.startswith(b"HTTP/1.1 200 " if b"HTTP/1.0" in request else b"HTTP/1.1 100 ")


def test_9110_10_1_1_another_expectation_is_a_417() -> None:
    assert refused(get(b"Expect: tea\r\n")).startswith(b"HTTP/1.1 417 ")


def test_9110_15_2_interim_answers_go_on_in_their_order_but_not_to_1_0() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\n"
    processing = b"HTTP/1.1 102 Processing\r\n\r\n"
    assert Talk(get()).answer(processing + hints, hints + OK).startswith(processing + hints + hints + b"HTTP/1.1 200 ")
    talk = Talk(get(version=b"1.0"))
    assert talk.answer(hints + OK).startswith(b"HTTP/1.1 200 ")


def test_9110_15_2_interim_answers_have_no_framing_and_no_connection_headers() -> None:
    got = Talk(get()).answer(b"HTTP/1.1 103 X\r\nConnection: a\r\nContent-Length: 5\r\nA: b\r\nLink: c\r\n\r\n")
    assert got == b"HTTP/1.1 103 X\r\nLink: c\r\n\r\n"


def test_9110_15_2_a_flood_of_interim_answers_is_a_502() -> None:
    talk = Talk(get())
    assert b"HTTP/1.1 502 " in talk.answer(b"HTTP/1.1 103 X\r\n\r\n" * 17)
    assert talk.wire.aborted


# --- RFC 9110 section 9.3: CONNECT, TRACE


def test_9110_9_3_6_connect_has_a_port_and_nothing_may_come_before_it_is_confirmed() -> None:
    for request in (
        b"CONNECT web HTTP/1.1\r\nHost: web\r\n\r\n",
        b"CONNECT web:80 HTTP/1.1\r\nHost: other:80\r\n\r\n",
        b"CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\nearly",
        b"CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\nContent-Length: 5\r\n\r\n",
        b"CONNECT web:0 HTTP/1.1\r\nHost: web:0\r\n\r\n",
    ):
        world = World()
        assert refused(request, world).startswith(b"HTTP/1.1 400 ")
        assert not world.tunnels


def test_9110_9_3_6_connect_is_for_the_outbound_port_and_elsewhere_a_405_that_says_what_is_allowed() -> None:
    world = World()
    client = world.client(b"CONNECT web:80 HTTP/1.1\r\nHost: web:80\r\n\r\n", "inbound")
    got = client.transport.take()
    assert got.startswith(b"HTTP/1.1 405 ")
    assert b"\r\nallow: " in got
    assert b"\r\nx-fairlead-reason: FL-DENIED\r\n" in got
    assert b"\r\nconnection: close\r\n" in got
    assert not world.tunnels
    assert [outcome.reason for outcome in world.outcomes] == ["FL-DENIED"]


def test_9110_9_3_8_trace_with_content_is_a_400() -> None:
    assert refused(get(b"Content-Length: 3\r\n", method=b"TRACE") + b"abc").startswith(b"HTTP/1.1 400 ")


def test_9110_9_3_8_trace_takes_no_credentials_along() -> None:
    lines = Talk(get(b"Authorization: a\r\nCookie: b\r\nA: c\r\n", method=b"TRACE")).lines()
    assert b"a: c" in lines
    assert not [line for line in lines if line.startswith((b"authorization", b"cookie"))]


# --- whose word counts about where a request came from


FORGED = (
    b"X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nForwarded: for=1.1.1.1\r\n"
    b"X-Forwarded-Client-Cert: URI=spiffe://x\r\nx-envoy-attempt-count: 5\r\nX-Real-IP: 1.1.1.1\r\n"
    b"X-Envoy-External-Address: 1.1.1.1\r\nX-Fairlead-Reason: FL-DENIED\r\nX-Forwarded-Port: 443\r\n"
)


@pytest.mark.parametrize("listener", ["inbound", "gateway"])
def test_a_client_that_nobody_knows_cannot_say_where_it_comes_from(listener: str) -> None:
    lines = Talk(get(FORGED), listener=listener).lines()
    assert b"x-forwarded-for: 10.0.0.9" in lines
    assert b"x-forwarded-proto: http" in lines
    told = (b"x-forwarded", b"forwarded", b"x-envoy", b"x-real", b"x-fairlead")
    left = [line for line in lines if line.startswith(told)]
    assert not [line for line in left if b"1.1.1.1" in line or b"evil" in line or b"spiffe" in line or b"443" in line]
    assert not [line for line in left if line.startswith((b"forwarded", b"x-real", b"x-fairlead"))]


def test_the_app_and_authenticated_peers_are_believed() -> None:
    for talk in (
        Talk(get(FORGED)),
        Talk(get(FORGED), listener="inbound", identity="spiffe://cluster.local/ns/default/sa/shop"),
    ):
        lines = talk.lines()
        for line in (b"x-forwarded-for: 1.1.1.1", b"x-forwarded-proto: https", b"forwarded: for=1.1.1.1"):
            assert line in lines
        assert not [line for line in lines if b"spiffe://x" in line]


def test_as_many_entries_are_believed_at_the_edge_as_there_are_trusted_proxies() -> None:
    world = World(trusted_proxies=1)
    lines = Talk(get(b"X-Forwarded-For: 6.6.6.6, 2.2.2.2\r\nX-Forwarded-For: 3.3.3.3\r\n"), world, "inbound").lines()
    assert [line for line in lines if line.startswith(b"x-forwarded-for")] == [b"x-forwarded-for: 3.3.3.3,10.0.0.9"]
