"""Pauses between tries."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.registry.backoff import Backoff


def test_pauses_double_up_to_the_longest_and_begin_again_after_a_success() -> None:
    backoff = Backoff(1.0, 8.0)
    assert [backoff.pause(0.9999) for _ in range(6)] == [pytest.approx(n, rel=0.001) for n in (1, 2, 4, 8, 8, 8)]
    backoff.reset()
    assert backoff.pause(0.9999) == pytest.approx(1, rel=0.001)


@given(st.lists(st.floats(0, 1, exclude_max=True), max_size=200))
def test_no_pause_is_longer_than_the_longest_or_shorter_than_half_the_first(draws: list[float]) -> None:
    backoff = Backoff(0.25, 5.0)
    assert all(0.125 <= backoff.pause(draw) <= 5.0 for draw in draws)
