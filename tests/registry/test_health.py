"""The health of an app from results of checks, with a clock in the test's hands."""

from __future__ import annotations

from math import inf

from hypothesis import given
from hypothesis import strategies as st

from fairlead.registry.checks import OUTPUT_MOST, Check
from fairlead.registry.health import JITTER, Health, described

READY = Check("readiness", "tcp", port=1, failure_threshold=2, success_threshold=2)
ALIVE = Check("liveness", "tcp", port=2, failure_threshold=3)
STARTED = Check("startup", "tcp", port=3, failure_threshold=3)


def once(health: Health, now: float, purpose: str, passed: bool, output: str = "") -> bool:
    """The check of this purpose is run now, with this result."""
    one = next(one for one in health.due(now) if one.check.purpose == purpose)
    return health.done(one, one.turn, passed, output, now, 1000.0 + now, 0.5)


def test_without_checks_an_app_is_ready_when_it_runs() -> None:
    health = Health(())
    assert (health.ready, health.why) == (False, "the app is not started yet")
    health.app_started(0.0)
    assert health.ready
    assert health.wake_at() == inf
    health.app_ended("it ended with exit code 3")
    assert (health.ready, health.why) == (False, "it ended with exit code 3")


def test_an_app_that_others_have_found_ready_is_so_until_its_own_checks_fail() -> None:
    health = Health([STARTED, READY])
    health.app_started(0.0, ready=True)
    assert health.ready
    assert [one.check.purpose for one in health.due(0.0)] == ["readiness"]
    health.done(health.checks[1], health.checks[1].turn, False, "no", 0.0, 0.0, 0.5)
    assert health.ready
    assert once(health, 10.0, "readiness", False, "no")
    assert not health.ready


def test_readiness_begins_unready_and_needs_its_successes_and_failures_in_a_row() -> None:
    health = Health([READY])
    health.app_started(0.0)
    assert not health.ready
    assert "has not passed yet" in health.why
    assert not once(health, 0.0, "readiness", True)
    assert once(health, 10.0, "readiness", True)
    assert (health.ready, health.why) == (True, "")
    assert not once(health, 20.0, "readiness", False, "refused")
    assert not once(health, 30.0, "readiness", True)
    assert not once(health, 40.0, "readiness", False, "refused")
    assert health.ready
    assert once(health, 50.0, "readiness", False, "HTTP 503\nwhy")
    assert (health.ready, health.why) == (False, "readiness tcp :1: HTTP 503 why")
    assert not health.doomed


def test_the_reason_stays_while_outputs_change_and_the_last_output_is_kept() -> None:
    health = Health([Check("readiness", "tcp", port=1, failure_threshold=1)])
    health.app_started(0.0)
    assert once(health, 0.0, "readiness", False, "at 12:00:00")
    assert not once(health, 10.0, "readiness", False, "at 12:00:10" + "x" * 10_000)
    assert health.why == "readiness tcp :1: at 12:00:00"
    (told,) = described(health, 1012.0)
    assert (told["state"], told["age_s"], told["runs"], told["failures"]) == ("failing", 2.0, 2, 2)
    assert str(told["output"]).startswith("at 12:00:10")
    assert len(str(told["output"])) == OUTPUT_MOST


def test_liveness_dooms_after_its_failures_and_a_restart_begins_again() -> None:
    health = Health([ALIVE, READY])
    health.app_started(0.0)
    for number in range(3):
        assert not health.doomed
        once(health, 10.0 * number, "liveness", False, "hung")
    assert health.doomed == "liveness tcp :2: hung"
    assert not health.ready
    health.app_ended("restarting")
    assert health.wake_at() == inf
    health.app_started(100.0)
    assert not health.doomed
    assert health.wake_at() == 100.0
    assert not once(health, 100.0, "liveness", False), "failures count from the start again"


def test_an_app_that_nobody_restarts_may_come_back_alive() -> None:
    health = Health([Check("liveness", "tcp", port=2, failure_threshold=1)])
    health.app_started(0.0)
    assert health.ready
    assert once(health, 0.0, "liveness", False, "hung")
    assert once(health, 10.0, "liveness", True)
    assert (health.ready, health.doomed) == (True, "")


def test_startup_gates_the_others_which_follow_at_once() -> None:
    health = Health([READY, ALIVE, STARTED])
    health.app_started(0.0)
    assert [one.check.purpose for one in health.due(0.0)] == ["startup"]
    (startup,) = [one for one in health.checks if one.check.purpose == "startup"]
    health.done(startup, startup.turn, False, "no", 0.1, 0.0, 0.5)
    assert not health.doomed
    assert once(health, 10.0, "startup", True), "the reason is now that readiness has not passed"
    assert {one.check.purpose for one in health.due(10.0)} == {"readiness", "liveness"}
    assert startup.due == inf, "startup is not checked again"


def test_startup_that_fails_for_good_dooms() -> None:
    health = Health([STARTED, READY])
    health.app_started(0.0)
    for number in range(3):
        once(health, 10.0 * number, "startup", False, "no")
    assert health.doomed == "startup tcp :3: no"


def test_the_initial_delay_counts_from_the_start_of_the_app() -> None:
    slow = Check("readiness", "tcp", port=1, initial_delay_s=30)
    health = Health([slow, STARTED])
    health.app_started(5.0)
    once(health, 5.0, "startup", True)
    assert health.wake_at() == 35.0
    assert not health.due(34.9)


def test_a_result_of_an_earlier_start_does_not_count() -> None:
    health = Health([Check("readiness", "tcp", port=1)])
    health.app_started(0.0)
    (one,) = health.due(0.0)
    turn = one.turn
    health.app_ended("it ended")
    health.app_started(1.0)
    assert not health.done(one, turn, True, "", 1.5, 0.0, 0.5)
    assert not health.ready


def test_a_check_runs_once_at_a_time_and_catches_up_when_it_took_long() -> None:
    health = Health([Check("readiness", "tcp", port=1)])
    health.app_started(0.0)
    (one,) = health.due(0.0)
    assert health.due(25.0) == []
    health.done(one, one.turn, True, "", 25.0, 0.0, 0.5)
    assert one.due == 25.0
    assert one.took_s == 25.0


def test_marathons_grace_forgives_until_the_first_success() -> None:
    graced = Check("readiness", "tcp", port=1, failure_threshold=1, grace_s=100)
    health = Health([graced])
    health.app_started(0.0)
    assert not once(health, 0.0, "readiness", False, "starting")
    assert "has not passed yet" in health.why
    assert once(health, 10.0, "readiness", True)
    assert once(health, 20.0, "readiness", False, "broken"), "after the first success nothing is forgiven"
    health.app_started(200.0)
    once(health, 200.0, "readiness", False)
    assert once(health, 301.0, "readiness", False, "never came up")


def test_what_consul_calls_passing_is_ready_until_it_fails() -> None:
    health = Health([Check("readiness", "tcp", port=1, passing_at_first=True)])
    health.app_started(0.0)
    assert health.ready


def test_other_checks_leave_those_that_stay_as_they_are() -> None:
    health = Health([Check("readiness", "tcp", port=1), ALIVE])
    health.app_started(0.0)
    once(health, 0.0, "readiness", True)
    after = health.replaced([Check("readiness", "tcp", port=1)], 5.0)
    assert after.ready
    assert after.wake_at() == 10.0
    more = after.replaced(
        [Check("readiness", "tcp", port=1), Check("readiness", "tcp", port=9, initial_delay_s=3)], 6.0
    )
    assert not more.ready
    assert more.wake_at() == 6.0, "3 s after the start of the app are over"


@given(
    st.lists(st.booleans(), max_size=40),
    st.integers(1, 4),
    st.integers(1, 4),
    st.lists(st.floats(0, 1, exclude_max=True), min_size=40, max_size=40),
)
def test_ready_is_what_the_last_long_enough_run_of_results_says(
    results: list[bool], successes: int, failures: int, draws: list[float]
) -> None:
    health = Health([Check("readiness", "tcp", port=1, success_threshold=successes, failure_threshold=failures)])
    health.app_started(0.0)
    expected, now, last_due = False, 0.0, 0.0
    for number, passed in enumerate(results):
        now = health.wake_at()
        if number:
            assert abs(now - last_due - 10.0) <= 10.0 * JITTER / 2 + 1e-9
        last_due = now
        (one,) = health.due(now)
        health.done(one, one.turn, passed, "", now, 0.0, draws[number])
        run = next((n for n, old in enumerate(reversed(results[: number + 1])) if old is not passed), number + 1)
        if run >= (successes if passed else failures):
            expected = passed
        assert health.ready is expected
