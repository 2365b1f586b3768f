"""When a source that comes back is looked at twice."""

from __future__ import annotations

import pytest

from fairlead.registry.brake import held


@pytest.mark.parametrize(
    ("before", "after", "holds"),
    [
        ("", "", False),
        ("", "abc", False),
        ("a", "a", False),
        ("a", "", True),
        ("ab", "a", False),
        ("abcd", "ab", False),
        ("abcd", "axyz", True),
        ("abcd", "", True),
    ],
)
def test_more_than_half_missing_asks_for_a_second_look(before: str, after: str, holds: bool) -> None:
    assert bool(held(before, after)) is holds


def test_the_reason_has_the_numbers() -> None:
    assert "3 of 4 are missing" in held("abcd", "a")
