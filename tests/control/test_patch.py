"""RFC 7396 and RFC 6902 patches."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.patch import PatchError, PatchTestError, json_patch, merge_patch

SCALARS = st.none() | st.booleans() | st.integers(-5, 5) | st.text("abc/~", max_size=3)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text("abc/~", max_size=3), inner, max_size=3),
)
OBJECTS = st.dictionaries(st.text("abc/~", max_size=3), VALUES, max_size=4)


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [  # RFC 7396 appendix A
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_does_what_its_rfc_says(target: Any, patch: Any, expected: Any) -> None:
    assert merge_patch(target, patch) == expected


def difference(one: Any, two: Any) -> Any:
    if not (isinstance(one, dict) and isinstance(two, dict)):
        return two
    return {key: None for key in one if key not in two} | {
        key: difference(one.get(key), value) for key, value in two.items() if key not in one or one[key] != value
    }


def without_nulls(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: without_nulls(item) for key, item in value.items() if item is not None}
    return value


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_made_of_the_difference_leads_to_the_other_object(one: Any, two: Any) -> None:
    one, two = without_nulls(one), without_nulls(two)
    assert merge_patch(one, difference(one, two)) == two


@given(VALUES, VALUES)
def test_a_merge_patch_changes_neither_argument_and_is_idempotent(one: Any, two: Any) -> None:
    before = copy.deepcopy((one, two))
    result = merge_patch(one, two)
    assert (one, two) == before
    assert merge_patch(result, two) == result


@pytest.mark.parametrize(
    ("operations", "expected"),
    [
        ([{"op": "add", "path": "/c", "value": 1}], {"a": {"b": [1, 2]}, "c": 1}),
        ([{"op": "add", "path": "/a/b/1", "value": 9}], {"a": {"b": [1, 9, 2]}}),
        ([{"op": "add", "path": "/a/b/-", "value": 9}], {"a": {"b": [1, 2, 9]}}),
        ([{"op": "remove", "path": "/a/b/0"}], {"a": {"b": [2]}}),
        ([{"op": "replace", "path": "/a/b", "value": None}], {"a": {"b": None}}),
        ([{"op": "move", "from": "/a/b", "path": "/c"}], {"a": {}, "c": [1, 2]}),
        ([{"op": "copy", "from": "/a/b/1", "path": "/a/b/0"}], {"a": {"b": [2, 1, 2]}}),
        ([{"op": "test", "path": "/a/b/0", "value": 1.0}], {"a": {"b": [1, 2]}}),
        ([{"op": "add", "path": "/x~1y~0", "value": 1}], {"a": {"b": [1, 2]}, "x/y~": 1}),
        ([{"op": "replace", "path": "", "value": [1]}], [1]),
        ([], {"a": {"b": [1, 2]}}),
    ],
)
def test_json_patch_operations(operations: Any, expected: Any) -> None:
    target = {"a": {"b": [1, 2]}}
    assert json_patch(target, operations) == expected
    assert target == {"a": {"b": [1, 2]}}


@pytest.mark.parametrize(
    ("operations", "says"),
    [
        ({}, "list of operations"),
        ([5], "operation 0: expected an object"),
        ([{"op": "frob", "path": "/a"}], "unknown op 'frob'"),
        ([{"op": "add", "path": "/a"}], "needs a value"),
        ([{"op": "add", "path": "a", "value": 1}], "not a JSON pointer"),
        ([{"op": "add", "path": "/x/y", "value": 1}], "nothing at '/x'"),
        ([{"op": "remove", "path": "/a/b/2"}], "beyond the end"),
        ([{"op": "remove", "path": "/a/b/01"}], "not a list index"),
        ([{"op": "remove", "path": "/a/b/-"}], "not a list index"),
        ([{"op": "move", "from": "/a", "path": "/a/b"}], "into itself"),
        ([{"op": "copy", "from": 7, "path": "/a/b"}], "not a JSON pointer"),
        ([{"op": "test", "path": "/a/b/0", "value": True}], "does not hold"),
    ],
)
def test_a_json_patch_that_cannot_be_applied_says_why(operations: Any, says: str) -> None:
    with pytest.raises(PatchError, match=says):
        json_patch({"a": {"b": [1, 2]}}, operations)


def test_a_failed_test_is_told_from_a_broken_patch() -> None:
    with pytest.raises(PatchTestError, match="operation 1"):
        json_patch({"a": 1}, [{"op": "add", "path": "/b", "value": 1}, {"op": "test", "path": "/a", "value": 2}])


def test_copies_cannot_grow_without_bound() -> None:
    bomb = [{"op": "copy", "from": "/a", "path": "/a/-"} for _ in range(60)]
    with pytest.raises(PatchError, match="copies too much"):
        json_patch({"a": ["x" * 1000]}, bomb)


OPERATIONS = st.fixed_dictionaries(
    {"op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test", "x"])},
    optional={
        "path": st.one_of(st.lists(st.sampled_from(["a", "b", "0", "1", "-", "~0"]), max_size=3).map(
            lambda steps: "".join("/" + step for step in steps)), VALUES),
        "from": st.sampled_from(["", "/a", "/b/0", "/a/b"]),
        "value": VALUES,
    },
)  # fmt: skip


@given(OBJECTS, st.lists(OPERATIONS, max_size=5))
def test_any_json_patch_is_applied_or_refused_and_never_changes_its_target(target: Any, operations: Any) -> None:
    before = copy.deepcopy(target)
    try:
        json_patch(target, operations)
    except PatchError:
        pass
    assert target == before
