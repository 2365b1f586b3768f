"""Heads whose token was looked at: what goes, what stays to the letter, and what is told to the app."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.request_authentication import COOKIE, HEADER, PARAMETER, Place
from fairlead.proxy.http1 import RequestParser
from fairlead.proxy.message import BIT, RequestHead
from fairlead.proxy.token_heads import rewrite, told_of


def head(*lines: str, path: str = "/a") -> RequestHead:
    parser = RequestParser()
    parser.feed("\r\n".join([f"GET {path} HTTP/1.1", "Host: web", *lines, "", ""]).encode("latin-1"))
    found = parser.read_head()
    assert found is not None
    return found


def rewritten(*lines: str, path: str = "/a", gone: tuple[str, ...] = (), places: Any = (), told: Any = ()) -> list[str]:
    """Lines after the Host of a head that was rewritten."""
    made = head(*lines, path=path)
    rewrite(made, gone, places, told)
    rows = made.raw.decode("latin-1").split("\r\n")
    assert rows[-2:] == ["", ""]
    return rows[2:-2]


def test_a_head_that_has_nothing_of_it_stays_to_the_letter() -> None:
    made = head("X-A:  odd  blanks", "x-a: twice")
    before = made.raw
    rewrite(made, ("x-told",), [Place(HEADER, "authorization", "Bearer "), Place(COOKIE, "t")])
    assert made.raw is before


@pytest.mark.parametrize("line", ["X-Payload: forged", "x_payload: forged", "X-PAYLOAD:forged", "x_Payload:"])
def test_what_only_we_may_tell_goes_in_every_spelling_that_an_app_could_read(line: str) -> None:
    assert rewritten("a: 1", line, "x-payload-too: 2", gone=("x-payload",)) == ["a: 1", "x-payload-too: 2"]


def test_the_tokens_header_goes_and_is_forgotten_as_seen() -> None:
    made = head("Authorization: Bearer x", "a: 1")
    name = next((one for one in ("authorization", "x-request-id") if one in BIT), "")
    lines = [f"{name}: x"] if name else []
    seen = head(*lines)
    rewrite(seen, (name,))
    assert not seen.seen & BIT.get(name, 0)
    rewrite(made, (), [Place(HEADER, "authorization", "Bearer ")])
    assert made.header("authorization") is None
    assert made.header("a") == "1"


@pytest.mark.parametrize(
    ("path", "left"),
    [
        ("/a?t=1", "/a"), ("/a?t=1&b=2", "/a?b=2"), ("/a?b=2&t=1&t=3&c", "/a?b=2&c"), ("/a?%74=1&b", "/a?b"),
        ("/a?tt=1", "/a?tt=1"), ("/a", "/a"), ("/a?", "/a?"), ("/a?b=t=1", "/a?b=t=1"),
    ],
)  # fmt: skip
def test_a_token_of_the_query_goes_and_the_rest_stays(path: str, left: str) -> None:
    made = head(path=path)
    rewrite(made, (), [Place(PARAMETER, "t")])
    assert made.path == left


@pytest.mark.parametrize(
    ("lines", "left"),
    [
        (["Cookie: t=1"], []),
        (["Cookie: a=1; t=2; b=3"], ["cookie: a=1; b=3"]),
        (["Cookie: t=1", "a: 1", "Cookie: b=2"], ["a: 1", "cookie: b=2"]),
        (["Cookie: tt=1;t"], ["cookie: tt=1"]),
    ],
)
def test_a_token_among_cookies_goes_alone(lines: list[str], left: list[str]) -> None:
    assert rewritten(*lines, places=[Place(COOKIE, "t")]) == left


def test_what_is_told_comes_after_what_was_forged_is_gone() -> None:
    assert rewritten("x-sub: forged", "a: 1", gone=("x-sub",), told=[b"x-sub: ann"]) == ["a: 1", "x-sub: ann"]


@given(st.text(st.characters(blacklist_categories=["Cs"]), max_size=20))
def test_no_claim_breaks_out_of_its_line(value: str) -> None:
    rule: Any = SimpleNamespace(payload_header="", claim_headers=[("x-sub", "sub")])
    token: Any = SimpleNamespace(payload="", claims={"sub": value})
    for line in told_of(rule, token):
        assert not set(line) & {0x0A, 0x0D, 0x00}
        made = head(*rewritten(told=[line]))
        assert len(made.headers()) == 2


def test_claims_that_are_not_there_are_not_told() -> None:
    rule: Any = SimpleNamespace(payload_header="x-payload", claim_headers=[("x-none", "none"), ("x-sub", "sub")])
    assert told_of(rule, SimpleNamespace(payload="AA", claims={"sub": "ann"})) == [b"x-payload: AA", b"x-sub: ann"]  # type: ignore[arg-type]
