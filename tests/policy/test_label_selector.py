"""Label selectors as Kubernetes has them, and what is said of one that does not hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.label_selector import seen, selects, wanted
from fairlead.policy.resources import LabelSelector, LabelSelectorRequirement

LABELS = st.dictionaries(st.sampled_from("abc"), st.sampled_from("xy"))
OPERATORS = {
    "In": lambda own, values: own is not None and own in values,
    "NotIn": lambda own, values: own is None or own not in values,
    "Exists": lambda own, values: own is not None,
    "DoesNotExist": lambda own, values: own is None,
}


def expression(key: str, operator: str, *values: str) -> LabelSelectorRequirement:
    return LabelSelectorRequirement(key, operator, list(values))


@given(
    LABELS,
    LABELS,
    st.lists(st.builds(expression, st.sampled_from("abc"), st.sampled_from(sorted(OPERATORS)), st.sampled_from("xy"))),
)
def test_all_that_it_asks_must_hold(
    match: dict[str, str], labels: dict[str, str], expressions: list[LabelSelectorRequirement]
) -> None:
    holds = all(labels.get(key) == value for key, value in match.items()) and all(
        OPERATORS[one.operator](labels.get(one.key), one.values) for one in expressions
    )
    assert selects(LabelSelector(match, expressions), labels) is holds


def test_an_empty_one_takes_everything_and_an_operator_that_nobody_knows_takes_nothing() -> None:
    assert selects(LabelSelector(), {})
    assert not selects(LabelSelector({}, [expression("a", "Gt", "1")]), {"a": "2"})


@pytest.mark.parametrize(
    ("selector", "labels", "asks", "has"),
    [
        (LabelSelector(), {"a": "x"}, "any labels", "its labels"),
        (LabelSelector({"a": "x"}), {"b": "y"}, "a=x", "no label a"),
        (LabelSelector({"a": "x"}, [expression("b", "NotIn", "y", "z"), expression("c", "Exists")]),
         {"a": "", "b": "y", "d": "z"}, "a=x, b NotIn (y, z), c Exists", "a=, b=y, no label c"),
        (LabelSelector({"a": "x"}, [expression("a", "Exists")]), {"a": "y"}, "a=x, a Exists", "a=y"),
    ],
)  # fmt: skip
def test_it_is_told_beside_what_is_there(selector: LabelSelector, labels: dict[str, str], asks: str, has: str) -> None:
    assert (wanted(selector), seen(selector, labels)) == (asks, has)
