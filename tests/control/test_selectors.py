"""Label and field selectors."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.selectors import field_predicate, label_predicate
from fairlead.control.status import StatusError

OBJECT = {"metadata": {"name": "web-1", "labels": {"app": "web", "tier": "front", "n": "7"}}, "spec": {"on": True}}


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("app=web", True), ("app==web", True), ("app!=web", False), ("other!=x", True), ("app = web , n=7", True),
        ("app in (web,api)", True), ("app notin (web)", False), ("none notin (web)", True), ("none in (web)", False),
        ("app", True), ("!app", False), ("!none", True), ("n>6", True), ("n<7", False), ("app>1", False),
        ("app in (api),tier=front", False), ("app=", False),
    ],
)  # fmt: skip
def test_label_selectors(text: str, matches: bool) -> None:
    predicate = label_predicate(text)
    assert predicate is not None
    assert predicate(OBJECT) is matches


def test_no_selector_is_no_predicate() -> None:
    assert label_predicate("") is None
    assert field_predicate(" ") is None


@pytest.mark.parametrize(
    "text", ["=x", "app in web", "app in (we b)", "a,,b", "app=(x)", "app=web)", "-a", "a b", "a=!"]
)
def test_a_label_selector_that_cannot_be_read_is_a_bad_request(text: str) -> None:
    with pytest.raises(StatusError) as refused:
        label_predicate(text)
    assert refused.value.code == 400


@pytest.mark.parametrize(
    ("text", "matches"),
    [
        ("metadata.name=web-1", True), ("metadata.name!=web-1", False), ("metadata.name==web-1,spec.on=true", True),
        ("metadata.none=", True), ("spec.x.y=", True), ("metadata.labels=x", False),
    ],
)  # fmt: skip
def test_field_selectors(text: str, matches: bool) -> None:
    predicate = field_predicate(text)
    assert predicate is not None
    assert predicate(OBJECT) is matches


@given(st.text(max_size=40))
def test_any_text_is_a_selector_or_a_bad_request(text: str) -> None:
    for read in (label_predicate, field_predicate):
        predicate = None
        with contextlib.suppress(StatusError):
            predicate = read(text)
        assert predicate is None or predicate(OBJECT) in (True, False)
