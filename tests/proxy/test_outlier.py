"""Outlier detection: what counts towards an ejection, how long it lasts, how the count steps back."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.tables import ClusterEndpoint, OutlierPolicy
from fairlead.proxy import outlier
from fairlead.proxy.host import Host
from fairlead.proxy.outlier import Health
from fairlead.registry.model import Endpoint


def told(policy: OutlierPolicy, *results: int) -> list[bool]:
    """Whether each result in turn asks for an ejection; 0: no answer."""
    health = Health()
    return [bool(outlier.judge(policy, health, status, status == 0)) for status in results]


def host() -> Host:
    return Host(ClusterEndpoint("10.0.0.1", 80, Endpoint("10.0.0.1", 80)))


def test_the_fifth_server_error_in_a_row_is_too_many_by_default() -> None:
    assert told(OutlierPolicy(), 500, 501, 502, 503, 599) == [False, False, False, False, True]
    assert told(OutlierPolicy(), 500, 500, 500, 500, 200, 500) == [False] * 6


def test_gateway_errors_count_by_themselves_and_a_500_starts_them_again() -> None:
    policy = OutlierPolicy(consecutive_5xx=0, consecutive_gateway=2)
    assert told(policy, 502, 504) == [False, True]
    assert told(policy, 503, 500, 503, 503) == [False, False, False, True]
    assert told(policy, 503, 404, 503) == [False, False, False]
    assert told(policy, 500, 500, 500) == [False, False, False]


def test_without_split_no_answer_is_a_gateway_error() -> None:
    assert told(OutlierPolicy(consecutive_5xx=0, consecutive_gateway=3), 0, 502, 0) == [False, False, True]
    assert told(OutlierPolicy(consecutive_5xx=3), 0, 500, 0) == [False, False, True]


def test_with_split_answers_and_failures_to_get_one_are_counted_apart() -> None:
    policy = OutlierPolicy(consecutive_5xx=2, consecutive_local=2, split=True)
    assert told(policy, 0, 0) == [False, True]
    assert told(policy, 500, 0, 500) == [False, False, True]  # no answer neither counts nor starts again
    assert told(policy, 0, 500, 0) == [False, False, False]  # any answer says that it can be reached
    assert told(policy, 0, 200, 0, 0) == [False, False, False, True]


def test_zero_switches_a_detector_off() -> None:
    assert not any(told(OutlierPolicy(consecutive_5xx=0), *[500] * 20))
    assert not any(told(OutlierPolicy(consecutive_5xx=0, consecutive_local=0, split=True), *[0] * 20))


def test_the_reason_has_the_number_in_it() -> None:
    health = Health()
    policy = OutlierPolicy(consecutive_5xx=2)
    outlier.judge(policy, health, 500, False)
    assert outlier.judge(policy, health, 500, False) == "2 server errors in a row"


@given(st.lists(st.sampled_from([0, 200, 302, 404, 500, 502, 503, 504]), max_size=60), st.integers(1, 6))
def test_asks_for_an_ejection_exactly_when_a_run_of_errors_is_long_enough(results: list[int], most: int) -> None:
    run = 0
    expected = []
    for status in results:
        run = run + 1 if status == 0 or status >= 500 else 0
        expected.append(run >= most)
    assert told(OutlierPolicy(consecutive_5xx=most), *results) == expected


@pytest.mark.parametrize(
    ("percent", "ejected", "hosts", "may"),
    [
        (10, 0, 9, False),  # Envoy's quirk: 10 % of nine is nobody
        (10, 0, 10, True),
        (10, 1, 10, False),
        (10, 1, 20, True),
        (50, 0, 1, False),
        (50, 0, 2, True),
        (100, 0, 1, True),
        (0, 0, 1000, False),
    ],
)
def test_never_more_than_the_percentage_may_be_out(percent: int, ejected: int, hosts: int, may: bool) -> None:
    assert outlier.may_eject(OutlierPolicy(max_ejection_percent=percent), ejected, hosts) is may


@pytest.mark.parametrize(
    ("base_s", "lengths"),
    [(30.0, [30, 60, 90, 120]), (120.0, [120, 240, 300, 300]), (400.0, [400, 400, 400, 400])],
)
def test_each_time_in_a_row_lasts_longer_up_to_300_s_or_the_base(base_s: float, lengths: list[float]) -> None:
    policy = OutlierPolicy(base_ejection_s=base_s)
    one = host()
    now = 1000.0
    for length in lengths:
        outlier.eject(policy, one.health, "why", now)
        assert one.health.ejected_until == now + length
        assert outlier.sweep([one], now + length - 0.001) == []
        assert one.health.why == "why"
        assert outlier.sweep([one], now + length) == [one]
        assert (one.health.ejected_until, one.health.why) == (0.0, "")
        now += length


def test_each_healthy_sweep_takes_one_ejection_back() -> None:
    one = host()
    policy = OutlierPolicy(base_ejection_s=10)
    for now in (0.0, 10.0, 30.0):
        outlier.eject(policy, one.health, "why", now)
        outlier.sweep([one], now + 60)
    assert one.health.ejections == 3
    for left in (2, 1, 0, 0):
        assert outlier.sweep([one], 200.0) == []
        assert one.health.ejections == left


def test_after_an_ejection_errors_are_counted_from_nothing() -> None:
    health = Health()
    policy = OutlierPolicy(consecutive_5xx=2)
    for _ in range(2):
        outlier.judge(policy, health, 503, False)
    outlier.eject(policy, health, "why", 0.0)
    assert outlier.judge(policy, health, 503, False) == ""


def test_where_codes_are_given_they_are_the_errors_and_nothing_else_is() -> None:
    policy = OutlierPolicy(consecutive_5xx=2, codes=frozenset((404, 429, 503)))
    assert told(policy, 404, 429) == [False, True]
    assert told(policy, 500, 500, 502) == [False] * 3
    assert told(policy, 503, 500, 503) == [False] * 3, "500 is a success now"
    assert told(policy, 0, 404) == [False, True], "no answer is still a failure"


def test_a_code_below_500_counts_as_500_and_a_gateway_error_stays_one() -> None:
    policy = OutlierPolicy(consecutive_5xx=0, consecutive_gateway=2, codes=frozenset((404, 503)))
    assert told(policy, 503, 404, 503) == [False] * 3
    assert told(policy, 503, 503) == [False, True]


def rated(*rates: tuple[int, int], split: bool = False) -> list[Host]:
    """Hosts with (successes, all) of answers, or of attempts to get one."""
    made = []
    for rate in rates:
        one = host()
        one.health.rate, one.health.local = ((0, 0), rate) if split else (rate, (0, 0))
        made.append(one)
    return made


@given(
    st.lists(st.integers(1, 200).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), max_size=12),
    st.integers(1, 6),
    st.integers(1, 100),
    st.integers(0, 4000),
)
def test_success_rate_judges_by_mean_and_deviation_of_those_with_the_volume(
    rates: list[tuple[int, int]], least: int, volume: int, factor: int
) -> None:
    policy = OutlierPolicy(success_hosts=least, success_volume=volume, success_stdev_factor=factor)
    hosts = rated(*rates)
    found = {one for one, _ in outlier.below_mean(policy, hosts)}
    shares = {one: 100 * good / total for one, (good, total) in zip(hosts, rates, strict=True) if total >= volume}
    if len(shares) < least or not shares:
        assert not found
    else:
        limit = statistics.fmean(shares.values()) - statistics.pstdev(shares.values()) * factor / 1000
        for one, share in shares.items():
            assert (one in found) == (share < limit) or share == pytest.approx(limit)
        assert len(found) < len(shares), "not all can be below their own mean"
    assert all(one.health.rate == (0, 0) for one in hosts), "counted anew"


def test_what_counts_as_a_success_and_who_is_out_is_not_judged() -> None:
    policy = OutlierPolicy(success_hosts=1, success_volume=1, consecutive_5xx=0)
    one = host()
    for status in (200, 404, 499, 500, 503, 0):
        outlier.judge(policy, one.health, status, status == 0)
    assert one.health.rate == (3, 6)
    good = rated((10, 10), (10, 10), (10, 10), (10, 10), (0, 10))
    good[4].health.ejected_until = 5.0
    assert outlier.below_mean(policy, good) == []


def test_with_split_answers_and_attempts_are_judged_apart() -> None:
    policy = OutlierPolicy(success_hosts=3, success_volume=10, split=True, consecutive_local=0, consecutive_5xx=0)
    one = host()
    for status in (200, 500, 0, 0):
        outlier.judge(policy, one.health, status, status == 0)
    assert (one.health.rate, one.health.local) == ((1, 2), (2, 4))
    hosts = rated((10, 10), (10, 10), (10, 10), (10, 10), (10, 10), (1, 10), split=True)
    ((out, why),) = outlier.below_mean(policy, hosts)
    assert out is hosts[5]
    assert "10.0 % of 10 attempts to get an answer" in why
