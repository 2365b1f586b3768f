"""Workload tokens: made, kept as digests, checked, used up, forgotten."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control import tokens
from fairlead.control.store import ConflictError, Objects
from fairlead.control.tokens import TokenError

DRAW = bytes(range(40))


def made(objects: Objects, draw: bytes = DRAW, **settings: Any) -> str:
    settings = {"now": 100.0, "ttl_s": 60.0, **settings}
    text, _, write = tokens.make(draw, "shop", "web", **settings)
    objects.commit(objects.plan([write]))
    return text


def test_a_token_stands_for_what_it_was_made_for_until_it_expires() -> None:
    objects = Objects()
    text = made(objects)
    token, _ = tokens.verify(objects, text, 159.0)
    assert (token.namespace, token.service_account, token.workload) == ("shop", "web", "")
    with pytest.raises(TokenError, match="expired"):
        tokens.verify(objects, text, 160.0)


def test_the_store_and_the_list_hold_no_secret() -> None:
    objects = Objects()
    secret = made(objects).split("_", 2)[2]
    assert secret not in str([one.body for one in objects.all(tokens.RESOURCE)])
    listed = json.dumps(tokens.listed(objects))
    assert secret not in listed
    assert "digest" not in listed
    assert "shop" in listed


def test_another_secret_or_another_id_is_not_known() -> None:
    objects = Objects()
    text = made(objects)
    for wrong in (text[:-1] + "A", text.replace("flt_00", "flt_01"), "flt__", "flt", "", f"{text}x", "x" + text):
        with pytest.raises(TokenError, match="not known"):
            tokens.verify(objects, wrong, 100.0)


@given(st.text())
def test_any_text_is_refused_without_a_crash(text: str) -> None:
    with pytest.raises(TokenError):
        tokens.verify(Objects(), text, 0.0)


def test_a_one_time_token_is_used_once_even_by_two_at_once() -> None:
    objects = Objects()
    text = made(objects, one_time=True)
    _, first = tokens.verify(objects, text, 100.0)
    _, second = tokens.verify(objects, text, 100.0)
    objects.commit(objects.plan([tokens.used(first, 101.0)]))
    with pytest.raises(ConflictError):
        objects.plan([tokens.used(second, 101.0)])
    with pytest.raises(TokenError, match=r"has been used.*have control on https"):
        tokens.verify(objects, text, 102.0)


@pytest.mark.parametrize("ttl_s", [0.0, -5.0, float("nan"), float("inf"), 1e9])
def test_a_life_that_makes_no_sense_is_refused(ttl_s: float) -> None:
    with pytest.raises(TokenError, match="ttlSeconds"):
        made(Objects(), ttl_s=ttl_s)


def test_what_expired_long_ago_is_forgotten() -> None:
    objects = Objects()
    made(objects)
    made(objects, bytes(40), ttl_s=1e6)
    assert tokens.outdated(objects, 200.0) == []
    assert [write.key.name for write in tokens.outdated(objects, 200.0 + 86400)] == [DRAW[:8].hex()]
