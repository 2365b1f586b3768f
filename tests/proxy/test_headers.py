"""Heads as they go on: removals, additions, trailers, answers of our own."""

from __future__ import annotations

from fairlead.policy.tables import HeaderOps
from fairlead.proxy.headers import own_response, prepared, safe_trailers, without


def test_lines_are_removed_by_name_in_any_case_and_however_often() -> None:
    block = b"A: 1\r\nX-Gone: 2\r\nB: 3\r\nx-gone: 4\r\nx-gone-not: 5\r\n"
    assert without(block, (b"\r\nx-gone:",)) == b"A: 1\r\nB: 3\r\nx-gone-not: 5\r\n"
    assert without(b"X-Gone: 1\r\n", (b"\r\nx-gone:",)) == b""
    assert without(block, (b"\r\nnone:",)) == block


def test_policy_cannot_touch_framing_or_break_lines() -> None:
    wire = prepared(
        HeaderOps(
            set=(("content-length", "9"), ("x-a", "1\r\nevil: 2")), add=(("host", "x"),), remove=("transfer-encoding",)
        )
    )
    assert wire.added == b"x-a: 1  evil: 2\r\n"
    assert wire.gone == (b"\r\nx-a:",)


def test_trailers_that_frame_route_or_authorise_are_dropped() -> None:
    block = b"X-Sum: 1\r\nContent-Length: 5\r\nAuthorization: a\r\nX-Forwarded-For: b\r\nETag: c\r\n"
    assert safe_trailers(block) == b"X-Sum: 1\r\nETag: c\r\n"
    told = b"X_Forwarded_For: 1\r\nContent_Length: 9\r\nx-real-ip: 1\r\nTrue-Client-IP: 1\r\nx_sum: 1\r\n"
    assert safe_trailers(told) == b"x_sum: 1\r\n"


def test_our_own_answers_frame_themselves() -> None:
    assert own_response(204, b"no", False) == b"HTTP/1.1 204 Status\r\n\r\n"
    assert own_response(200, b"hi", False, no_body=True).endswith(
        b"content-length: 2\r\ncontent-type: text/plain; charset=utf-8\r\n\r\n"
    )
    assert b"connection: close\r\n" in own_response(400, b"", True)
