"""How much one user may ask, on a clock of the test."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control import api_limits
from fairlead.control.api_limits import FAILURES_BURST, ApiLimits, Buckets, Limits
from fairlead.control.status import StatusError


def refused(limits: ApiLimits, user: str = "ann", master: bool = False, watch: bool = False, now: float = 0.0) -> str:
    """Why; empty: it is counted in."""
    try:
        limits.begin(user, master, watch, now)
    except StatusError as error:
        told = error
    else:
        return ""
    assert told.code == 429
    assert told.retry_after_s >= 1
    return told.message


@given(st.lists(st.floats(0.0, 3.0), max_size=60))
def test_a_bucket_gives_no_more_than_its_burst_and_its_rate(pauses: list[float]) -> None:
    buckets, now, taken = Buckets(2.0, 4.0), 100.0, 0
    for pause in pauses:
        now += pause
        waits = buckets.would_wait("a", now)
        wait = buckets.take("a", now)
        assert wait == pytest.approx(waits)
        taken += not wait
        assert taken <= 4 + 2 * (now - 100.0) + 1e-6
        if wait:
            assert buckets.would_wait("a", now + wait + 1e-6) == 0.0
            assert buckets.would_wait("a", now + wait - 1e-3) > 0.0


def test_the_bucket_that_was_used_least_lately_is_forgotten_first(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(api_limits, "USERS_MAX", 2)
    buckets = Buckets(1.0, 1.0)
    for key in ("a", "b", "a", "c"):
        buckets.take(key, 0.0)
    assert [buckets.would_wait(key, 0.0) > 0 for key in "abc"] == [False, True, True]


def test_requests_under_way_have_a_limit_for_each_user_alone() -> None:
    limits = ApiLimits(Limits(in_flight=2), 10)
    assert not refused(limits)
    assert not refused(limits)
    assert "2 requests of user ann are under way, the limit is 2" in refused(limits)
    assert not refused(limits, "bob")
    assert not refused(limits, master=True), "an administrator is not held up"
    for _ in range(2):
        limits.end("ann", False)
    assert not refused(limits)
    assert limits.refused == 1


def test_a_refused_request_costs_its_user_nothing() -> None:
    limits = ApiLimits(Limits(requests_per_second=1, burst=1, in_flight=1), 10)
    assert not refused(limits)
    assert "under way" in refused(limits)
    limits.end("ann", False)
    assert "more than 1 requests a second" in refused(limits, now=0.5)
    assert not refused(limits, now=1.0)


def test_processor_time_is_charged_when_it_is_spent_and_who_owes_waits() -> None:
    limits = ApiLimits(Limits(work=0.25, work_burst_s=10), 10)
    limits.worked("ann", False, 9.9, 0.0)
    assert not refused(limits), "within what may be taken at once"
    limits.worked("ann", False, 5.1, 0.0)
    assert "user ann have taken more processor time than 0.25 s a second (10 s at once)" in refused(limits)
    with pytest.raises(StatusError) as told:
        limits.check_work("ann", False, 0.0)
    assert (told.value.code, told.value.retry_after_s) == (429, 21), "5 s are owed"
    assert refused(limits, now=19.9, watch=True)
    assert not refused(limits, now=20.0)
    assert not refused(limits, "bob")
    limits.worked("root", True, 1000, 0.0)
    assert not refused(limits, "root", master=True)


def test_somebody_who_works_at_the_rate_for_ever_never_waits() -> None:
    limits = ApiLimits(Limits(work=0.25, work_burst_s=1), 10)
    for second in range(1000):
        assert not refused(limits, now=second)
        limits.end("ann", False)
        limits.worked("ann", False, 0.25, second)


def test_without_a_rate_processor_time_is_nobodys_concern() -> None:
    limits = ApiLimits(Limits(work=0), 10)
    limits.worked("ann", False, 1e9, 0.0)
    assert not refused(limits)


def test_watches_are_counted_for_all_with_a_share_kept_for_administrators() -> None:
    limits = ApiLimits(Limits(watches=6), 10)
    for _ in range(6):
        assert not refused(limits, watch=True)
    assert "user ann has 6 watches open, the limit is 6" in refused(limits, watch=True)
    for _ in range(3):
        assert not refused(limits, "bob", watch=True)
    assert "9 watches are open already" in refused(limits, "bob", watch=True)
    assert not refused(limits, "root", master=True, watch=True)
    assert "10 watches are open already" in refused(limits, "root", master=True, watch=True)
    assert not refused(limits), "requests are another matter"
    limits.end("bob", True)
    limits.end("root", True)
    assert limits.watching == 8
    assert not refused(limits, "bob", watch=True)


def test_who_shows_bad_credentials_is_slowed_down_by_address() -> None:
    limits = ApiLimits(Limits(), 10)
    for _ in range(int(FAILURES_BURST)):
        limits.check_address("10.0.0.1", 0.0)
        limits.failed("10.0.0.1", 0.0)
    with pytest.raises(StatusError, match="bad credentials"):
        limits.check_address("10.0.0.1", 0.0)
    limits.check_address("10.0.0.2", 0.0)
    limits.check_address("10.0.0.1", 0.3)
