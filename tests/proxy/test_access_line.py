"""Tests of proxy/access_line.py: the short way gives the very line that the general formatter gives."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.tables import ClusterEndpoint
from fairlead.proxy.access_line import Lines, Seconds, escaped, usual_line
from fairlead.proxy.access_log import ENVOY_DEFAULT, text_formatter
from fairlead.proxy.http1 import RequestParser
from fairlead.proxy.message import Outcome
from fairlead.registry.model import Endpoint

TEXT = st.text(st.characters(min_codepoint=0x20, max_codepoint=0xFF, exclude_characters="\x7f"), max_size=20)


def outcome(agent: str = "", forwarded: str = "", request_id: str = "") -> Outcome:
    lines = [("user-agent", agent), ("x-forwarded-for", forwarded), ("x-request-id", request_id)]
    head = b"".join(name.encode() + b": " + text.encode("latin-1") + b"\r\n" for name, text in lines if text.strip())
    parser = RequestParser()
    parser.feed(b"GET /items?a=1 HTTP/1.1\r\nHost: web:80\r\n" + head + b"\r\n")
    found = Outcome()
    found.request = parser.read_head()
    found.endpoint = ClusterEndpoint("10.0.0.1", 8080, Endpoint(address="10.0.0.1", port=8080))
    found.status = 200
    found.started_at, found.sent_at, found.first_at, found.ended_at = 10.0, 10.001, 10.0504, 10.0704
    found.received_bytes, found.sent_bytes = 3, 4_000_000_000
    return found


@given(TEXT, TEXT, TEXT, st.sampled_from([(1, 0), (1, 1), (2, 1)]))
def test_the_short_way_says_what_the_general_formatter_says_whatever_a_client_sends(
    agent: str, forwarded: str, request_id: str, version: tuple[int, int]
) -> None:
    done = outcome(agent, forwarded, request_id)
    assert done.request is not None
    done.request.major, done.request.minor = version
    general = text_formatter(ENVOY_DEFAULT + " ")  # not the default's text, so the general way
    line = usual_line(done, 1_700_000_000.0, Seconds())
    assert line is not None
    assert line == general(done, 1_700_000_000.0).replace(" \n", "\n")
    assert line.count("\n") == 1


def test_an_exchange_that_failed_or_never_reached_an_endpoint_is_left_to_the_general_formatter() -> None:
    for change in ({"reason": "FL-TIMEOUT"}, {"endpoint": None}, {"request": None}, {"first_at": 0.0}):
        done = outcome()
        for name, value in change.items():
            setattr(done, name, value)
        assert usual_line(done, 0.0, Seconds()) is None


@given(st.text(max_size=30))
def test_what_is_escaped_neither_ends_its_field_nor_its_line(text: str) -> None:
    shown = escaped(text)
    assert not any(letter in shown for letter in '"\n\r\0\x7f\x85\u2028')
    assert text != shown or "\\" not in text


def test_a_line_that_cannot_be_made_is_counted_and_takes_no_other_with_it() -> None:
    def line(found: Outcome, skew: float) -> str:
        return f"{found.status}\n" if found.status != 500 else str(1 // 0)

    lines = Lines(line, False)
    for status in (200, 500, 404):
        found = Outcome()
        found.status = status
        lines.add(found)
    assert lines.take() == b"200\n404\n"
    assert (lines.taken, lines.dropped) == (2, 1)


def test_a_second_is_written_once_and_the_next_one_anew() -> None:
    seconds = Seconds()
    assert seconds.of(0) == "1970-01-01T00:00:00"
    assert seconds.of(0) is seconds.of(0)
    assert seconds.of(86_399) == "1970-01-01T23:59:59"
