"""How long an endpoint keeps idle connections: what it says, what it was seen to do, and what is used meanwhile."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.tables import ClusterEndpoint, UpstreamTLS, Warmup
from fairlead.proxy.host import FRESH_S, MARGIN, MARGIN_S, Host
from fairlead.registry.model import Endpoint


def host(tls: str = "") -> Host:
    return Host(ClusterEndpoint("10.0.0.1", 80, Endpoint("10.0.0.1", 80), tls=UpstreamTLS(tls) if tls else None))


def test_while_nothing_is_known_only_what_may_be_sent_again_goes_on_an_old_connection() -> None:
    one = host()
    assert one.fresh_s == FRESH_S
    assert one.may_use(100.0, True)
    assert one.may_use(FRESH_S, False) and not one.may_use(0.9, False), "servers that close after a second exist"


def test_a_connection_that_is_still_open_proves_that_younger_ones_are_kept() -> None:
    one = host()
    one.was_kept(20.0)
    assert one.may_use(17.0, False) and not one.may_use(19.0, False)
    one.closed_idle(8.0, 100.0)
    assert not one.may_use(8.0, False) and one.may_use(7.0, False)
    assert one.may_use(100.0, True), "once is no rule"


def test_what_it_closes_twice_at_about_the_same_time_is_its_rule_and_a_restart_is_none() -> None:
    one = host()
    for _ in range(5):  # all at one moment
        one.closed_idle(5.0, 100.0)
    assert not one.closes_s
    one.closed_idle(5.1, 110.0)
    assert one.closes_s == 5.0
    assert one.may_use(4.4, False) and not one.may_use(4.6, True)
    one.closed_idle(60.0, 200.0)
    assert one.closes_s == 5.0
    one.closed_idle(61.0, 300.0)
    assert one.closes_s == 60.0, "it has changed its mind"


def test_a_rule_is_forgotten_when_a_connection_outlives_it() -> None:
    one = host()
    one.closed_idle(0.4, 100.0)  # two restarts
    one.closed_idle(0.4, 200.0)
    assert one.closes_s == 0.4 and one.fresh_s < FRESH_S
    one.was_kept(1.2)
    assert one.closes_s == 0.4
    one.was_kept(60.0)
    assert not one.closes_s and one.fresh_s == FRESH_S and one.may_use(50.0, False)


def test_what_it_says_counts_at_once() -> None:
    one = host()
    one.says(5.0)
    assert one.may_use(4.4, False) and not one.may_use(4.6, True)
    one.says(0.0)
    assert not one.may_use(0.0, True) and one.fresh_s == 0.0
    one.says(0.6)
    assert one.fresh_s == pytest.approx(0.35)


def test_other_sidecars_keep_connections_for_minutes() -> None:
    assert host("mesh").may_use(200.0, False)
    assert not host("SIMPLE").may_use(200.0, False)


@given(
    st.lists(st.tuples(st.sampled_from(["says", "closed", "kept"]), st.floats(0.0, 1e5)), max_size=12),
    st.floats(0.0, 1e5),
    st.booleans(),
)
def test_nothing_is_used_at_the_moment_at_which_it_is_closed(
    events: list[tuple[str, float]], idle_s: float, again: bool
) -> None:
    one = host()
    for number, (what, seconds) in enumerate(events):
        if what == "says":
            one.says(seconds)
        elif what == "kept":
            one.was_kept(seconds)
        else:
            one.closed_idle(seconds, 10.0 * number)
    assert 0.0 <= one.fresh_s <= FRESH_S
    used = idle_s <= one.fresh_s or one.may_use(idle_s, again)
    if used and one.closes_s:
        assert idle_s <= max(0.0, one.closes_s - max(MARGIN_S, one.closes_s * MARGIN)) + 1e-9


def test_a_higher_latency_counts_at_once_and_a_lower_one_by_and_by() -> None:
    made = host()
    made.took(0.1, 100.0)
    assert made.latency_s == 0.1
    made.took(0.5, 101.0)
    assert made.latency_s == 0.5
    made.took(0.1, 111.0)  # ten seconds later: the past is 1/e of it
    assert made.latency_s == pytest.approx(0.1 + 0.4 / math.e)
    made.fade(121.0)
    assert made.latency_s == pytest.approx((0.1 + 0.4 / math.e) / math.e)


def test_failures_in_a_row_weigh_more_and_more_up_to_a_minute() -> None:
    made = host()
    for seconds in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
        made.failed(5.0)
        assert made.latency_s == seconds


@given(st.floats(0.001, 1e4), st.floats(0, 1), st.floats(0.01, 100), st.lists(st.floats(0, 2e4), max_size=20))
def test_warming_up_never_goes_back_and_ends_at_the_full_weight(
    duration_s: float, minimum: float, aggression: float, ages: list[float]
) -> None:
    made = host()
    made.endpoint.weight = 4
    warmup = Warmup(duration_s, minimum, aggression)
    made.warm_from, before = 1000.0, 0.0
    for age in sorted(ages):
        goes_on = made.warm(warmup, 1000.0 + age)
        assert before <= made.weight <= 4.0
        assert made.weight > 0
        assert goes_on == (made.weight < 4.0 or made.warm_from >= 0)
        before = made.weight
    assert not made.warm(warmup, 1000.0 + 2 * duration_s + 1)
    assert made.weight == 4.0
    assert made.warm_from < 0
