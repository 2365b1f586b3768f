"""Headers of which every line counts: what stands outside of some shapes, as one regular expression."""

from __future__ import annotations

import itertools
import re

from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.xds_headers import MADE_UP, MADE_UP_PREFIXES, outside, without_made_up
from fairlead.policy.authorize_values import any_of
from fairlead.proxy import headers

TEXTS = ["".join(one) for size in range(5) for one in itertools.product("ab]", repeat=size)]
WORDS = st.text("ab]", max_size=3)
SHAPES = st.one_of(
    st.lists(st.one_of(WORDS.filter(bool), WORDS.map(lambda one: f"{one}*")), min_size=1, max_size=3),
    st.lists(WORDS.map(lambda one: f"*{one}"), min_size=1, max_size=3),
)


@given(SHAPES)
def test_it_is_all_that_has_none_of_the_shapes(values: list[str]) -> None:
    regex = outside(values)
    assert regex is not None
    held = any_of(values)
    for text in TEXTS:
        assert bool(re.fullmatch(regex, text)) is not held(text), (values, regex, text)


def test_prefixes_and_suffixes_together_cannot_be_said() -> None:
    assert outside(["a*", "*b"]) is None
    assert outside(["a*", "*"]) == "(?:)"  # Envoy takes no empty expression


def test_what_is_taken_out_is_what_a_sidecar_takes_out() -> None:
    assert {one.encode() for one in MADE_UP} == headers._TOLD
    assert tuple(one.encode() for one in MADE_UP_PREFIXES) == headers._TOLD_PREFIXES
    [extension] = without_made_up()
    assert len(extension["typed_config"]["mutations"]) == len(MADE_UP) + len(MADE_UP_PREFIXES)
