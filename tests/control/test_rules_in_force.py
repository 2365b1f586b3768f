"""Rules of two sources: which counts, what changed, and mappings that stay as they were."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.rules_in_force import RulesInForce

KEYS = st.sampled_from(["object/a/d/x", "object/a/d/y", "object/b//z"])
BODIES = st.integers(0, 2).map(lambda value: {"spec": value})
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("change"), st.dictionaries(KEYS, st.none() | BODIES, max_size=3)),
        st.tuples(st.just("declare"), st.dictionaries(KEYS, BODIES, max_size=3)),
        st.tuples(st.just("provide"), st.dictionaries(st.just("provisional/1"), BODIES, max_size=1)),
    )
)


@given(STEPS)
def test_what_is_told_to_have_changed_leads_to_what_is_in_force(steps: list[tuple[str, dict[str, Any]]]) -> None:
    rules = RulesInForce()
    told: dict[str, Any] = {}
    control: dict[str, Any] = {}
    manifests: dict[str, Any] = {}
    provisional: dict[str, Any] = {}
    for step, given_ in steps:
        before, copy = rules.seen, dict(rules.seen)
        if step == "change":
            changed = rules.change(given_)
            control = {key: body for key, body in {**control, **given_}.items() if body is not None}
        elif step == "declare":
            changed, manifests = rules.declare(given_), given_
        else:
            changed, provisional = rules.provide(given_), given_
        assert all(told.get(key) != body for key, body in changed.items()), "only what is another now is told"
        told = {key: body for key, body in {**told, **changed}.items() if body is not None}
        assert rules.seen == {**manifests, **control}
        assert told == {**manifests, **control, **provisional}
        assert before == copy, "who looks at them elsewhere sees no change"


def test_nothing_changed_is_the_same_mapping() -> None:
    rules = RulesInForce()
    body = {"spec": 1}
    rules.change({"object/a/d/x": body})
    seen = rules.seen
    assert rules.change({"object/a/d/x": body}) == {}
    assert rules.seen is seen
    assert rules.seen["object/a/d/x"] is body
