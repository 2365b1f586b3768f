"""One reader's stream: what it asks for at the start, what it says later, and what of that is refused."""

from __future__ import annotations

import json
import math
from base64 import b64encode
from typing import Any

import pytest
from aiohttp import web
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.feed_server import Member
from fairlead.control.feed_stream import DIGEST_BYTES, USES_MOST, HealthReport, Said, Stream, farewell, patience, read
from fairlead.control.scopes import EVERY
from fairlead.control.views import BASE_TABLES


def stream(**query: str) -> Stream:
    member = Member("sidecar", "d", "a", "", 0, "a", {}, [], 0.0)
    return Stream("d/a", member, query)


def said(**more: Any) -> Said:
    return Said("d", "a", **more)


def test_who_says_nothing_is_an_older_version_and_gets_everything() -> None:
    made = stream(endpoints="used")
    assert (made.endpoints, made.tables, made.schema, made.says) == (EVERY, BASE_TABLES, "", False)


def test_what_a_reader_asks_for_stands_in_its_query() -> None:
    made = stream(says="1", endpoints="used", schema="s" * 100, items="object,service")
    assert (made.endpoints, made.tables, made.schema) == ("used", frozenset(("object", "service")), "s" * 64)


def test_a_mode_that_is_none_is_refused_with_those_that_are() -> None:
    with pytest.raises(web.HTTPBadRequest) as refused:
        stream(says="1", endpoints="some")
    assert refused.value.text == "endpoints: expected one of auto, used, all, got 'some'"


def test_digests_of_what_it_holds_are_taken_apart() -> None:
    made, two = stream(says="1"), [bytes([n]) * DIGEST_BYTES for n in (1, 2)]
    made.hear(said(holds=b64encode(b"".join(two)).decode()))
    assert made.digests == set(two)
    assert made.said.is_set()
    made.hear(said(holds=""))
    assert made.digests == set(), "it holds nothing, which is something else than not to say it"
    made.digests = None
    made.hear(said())
    assert made.digests is None


@pytest.mark.parametrize(("holds", "says"), [("AAAA", "digests of 16 octets"), ("?", "padding|base64")])
def test_digests_that_cannot_be_are_refused_and_nothing_is_taken(holds: str, says: str) -> None:
    made = stream(says="1")
    with pytest.raises(ValueError, match=says):
        made.hear(said(holds=holds, uses=["a"]))
    with pytest.raises(ValueError, match="255"):
        made.hear(said(holds=b64encode(b"a" * DIGEST_BYTES).decode(), uses=["x" * 256]))
    assert (made.digests, made.uses, made.said.is_set()) == (None, frozenset(), False)


def test_hosts_add_up_in_lower_case_and_only_new_ones_are_news() -> None:
    made = stream(says="1")
    assert made.use(["A.d", "b.d"])
    assert not made.use(["a.D"])
    assert made.use(["c"])
    assert made.uses == {"a.d", "b.d", "c"}
    assert made.member.uses == 3


def test_nobody_fills_the_memory_with_hosts() -> None:
    made = stream(says="1")
    made.use([f"h{n}" for n in range(USES_MOST)])
    with pytest.raises(ValueError, match="--endpoints all"):
        made.use(["one-more"])
    assert len(made.uses) == made.member.uses == USES_MOST
    stream(says="1").use(["x" * 255])
    with pytest.raises(ValueError, match="at most 255"):
        stream(says="1").use(["x" * 256])


@pytest.mark.parametrize(
    "body", [b"", b"[]", b"{}", b'{"namespace": "d", "workload": 5}', b'{"namespace": "d", "workload": "a", "uses": 1}']
)
def test_a_body_of_another_form_is_refused(body: bytes) -> None:
    with pytest.raises(web.HTTPBadRequest):
        read(body, Said)


def test_a_body_may_have_what_a_newer_version_says() -> None:
    told = read(b'{"namespace": "d", "workload": "a", "ready": true, "new": 1}', HealthReport)
    assert (told.ready, told.role, told.checks) == (True, "sidecar", [])


@pytest.mark.parametrize("told", ["nan", "inf", float("-inf"), 10**400, "x", None, [1]])
def test_a_timeout_that_is_no_number_of_seconds_is_refused(told: Any) -> None:
    with pytest.raises((TypeError, ValueError)):
        patience(told, 60.0)


@given(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(10**30), 10**30))
def test_patience_has_its_bounds(told: float) -> None:
    assert 0.0 <= patience(told, 60.0) <= 60.0
    assert patience(told, math.inf) == max(float(told), 0.0)


def test_a_farewell_says_who_has_not_taken_it() -> None:
    body = json.loads(bytes(farewell("e-5", 1.23456789, ["d/b"], ["d/c"], 7).body))  # type: ignore[arg-type]
    assert body == {"version": "e-5", "waited_s": 1.234568, "others": 7, "pending": ["d/b"], "refusing": ["d/c"],
                    "superseded": False}  # fmt: skip
