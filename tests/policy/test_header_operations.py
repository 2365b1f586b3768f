"""Merged header operations have the effect of the levels applied one after the other."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.header_operations import merged, new_authority
from fairlead.policy.resources import HeaderOperations
from fairlead.policy.tables import HeaderOps

names = st.sampled_from(["a", "B", "c"])
levels = st.builds(
    HeaderOperations,
    set=st.dictionaries(names, st.sampled_from(["1", "2", ""]), max_size=2),
    add=st.dictionaries(names, st.sampled_from(["3", "4"]), max_size=2),
    remove=st.lists(names, max_size=2),
)


def put(headers: list[tuple[str, str]], level: HeaderOperations, remove: bool = True) -> list[tuple[str, str]]:
    if remove:
        gone = [name.lower() for name in level.remove]
        headers = [pair for pair in headers if pair[0] not in gone]
    for name, value in level.set.items():
        if value:
            headers = [pair for pair in headers if pair[0] != name.lower()] + [(name.lower(), value)]
    return headers + [(name.lower(), value) for name, value in level.add.items() if value]


def carried_out(headers: list[tuple[str, str]], operations: HeaderOps | None) -> list[tuple[str, str]]:
    if operations is None:
        return headers
    gone = {*operations.remove, *(name for name, _ in operations.set)}
    return [pair for pair in headers if pair[0] not in gone] + [*operations.set, *operations.add]


@given(
    st.lists(levels, max_size=3), st.booleans(), st.lists(st.tuples(st.sampled_from("abc"), st.just("0")), max_size=3)
)
def test_one_level_stands_for_several(
    several: list[HeaderOperations], removals_first: bool, headers: list[tuple[str, str]]
) -> None:
    expected = headers
    if removals_first:
        gone = {name.lower() for level in several for name in level.remove}
        expected = [pair for pair in expected if pair[0] not in gone]
    for level in several:
        expected = put(expected, level, remove=not removals_first)
    assert sorted(carried_out(headers, merged(several, removals_first))) == sorted(expected)


def test_nothing_to_do_is_none_and_percent_signs_are_unescaped() -> None:
    assert merged([None, HeaderOperations(set={"x": ""}, add={"Host": "h"})], True) is None
    made = merged([HeaderOperations(set={"X": "100%%"})], True)
    assert made is not None
    assert made.set == (("x", "100%"),)


def test_the_authority_of_earlier_levels_and_of_set_comes_first() -> None:
    route = HeaderOperations(add={"host": "added"}, set={})
    own = HeaderOperations(set={":Authority": "own"})
    assert new_authority(route, own) == "added"
    assert new_authority(None, own) == "own"
    assert new_authority(HeaderOperations(add={"host": "a"}, set={"Host": "s"})) == "s"
    assert new_authority(None, HeaderOperations(set={"x": "y"})) is None
