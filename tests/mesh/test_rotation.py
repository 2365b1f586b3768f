"""When to renew, and what follows failures."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairlead.mesh.rotation import is_alarming, reissue_in, renew_at, retry_in, skewed


@given(st.floats(5, 1e7), st.floats(0, 1, exclude_max=True))
def test_renewal_falls_between_half_and_two_thirds_of_life(life: float, draw: float) -> None:
    at = renew_at(1000.0, 1000.0 + life, draw)
    assert 1000.0 + life * 0.499 <= at <= 1000.0 + life * 0.667


@given(st.integers(1, 10_000), st.floats(5, 1e7), st.floats(0, 1, exclude_max=True))
def test_retries_are_bounded_and_many_fit_into_what_is_left(failures: int, life: float, draw: float) -> None:
    pause = retry_in(failures, life, draw)
    assert 0 < pause <= 60
    assert pause <= max(life / 20, 0.1)


def test_less_than_a_third_left_is_an_alarm() -> None:
    assert not is_alarming(0.0, 90.0, 59.0)
    assert is_alarming(0.0, 90.0, 61.0)


@given(st.floats(5, 1e7), st.floats(0, 1, exclude_max=True))
def test_certificates_of_a_new_authority_are_asked_for_soon_and_not_all_at_once(life: float, draw: float) -> None:
    assert 0 <= reissue_in(life, draw) <= min(30.0, life / 10)
    assert reissue_in(life, 0.75) > reissue_in(life, 0.25)


def test_a_clock_that_is_off_is_named_with_its_direction() -> None:
    assert skewed(0.0) == skewed(60.0) == skewed(-60.0) == ""
    assert "is 90 s ahead of control's" in skewed(90.0)
    assert "is 3600 s behind control's" in skewed(-3600.0)
