"""Faults: exact in their percentage, drawn one by one, and outside of every timeout of the route."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.compile_http import fault as compiled
from fairlead.policy.resources import FaultAbort, FaultDelay, HTTPFaultInjection, Percent
from fairlead.policy.tables import Fault, RetryPolicy
from tests.proxy.fakes import World, route

GET = b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"
STEPS = 1_000_000
"""Of 0.0001 %, the smallest share that Istio takes."""
HIGHEST = 1 - 2**-53
"""The largest draw that there is."""


def of(*draws: float, **fields: Any) -> World:
    """A world that has drawn these for its next requests; no more may be drawn."""
    world = World(decision=route(fault=Fault(**fields), retries=None))
    world.draws = itertools.chain(iter(draws))
    return world


def aborts(percentage: float, draw: float) -> bool:
    return b"FL-FAULT" in of(draw, abort_status=418, abort_percentage=percentage).client(GET).transport.take()


def delays(percentage: float, draw: float) -> bool:
    world = of(draw, delay_s=5.0, delay_percentage=percentage)
    world.client(GET)
    return not world.dialed


def written(value: float) -> float:
    """A percentage on its way from a manifest to the decision."""
    delay = FaultDelay(fixed_delay=1.0, percentage=Percent(value))
    made = compiled(HTTPFaultInjection(delay=delay, abort=FaultAbort(http_status=500, percentage=Percent(value))))
    assert made is not None
    assert made.abort_percentage == made.delay_percentage
    return made.delay_percentage


@given(st.integers(1, STEPS - 1))
def test_a_percentage_fires_for_exactly_its_share_of_all_draws(step: int) -> None:
    """The share of [0, 1) in which it fires ends within half of 0.0001 % of where it should, at every step."""
    percentage = written(step / 10_000)
    for fires in (aborts, delays):
        assert fires(percentage, (step - 0.5) / STEPS)
        assert not fires(percentage, (step + 0.5) / STEPS)


@pytest.mark.parametrize("fires", [aborts, delays])
def test_a_hundred_is_always_and_zero_never_whatever_is_drawn(fires: Any) -> None:
    for draw in (0.0, 0.5, HIGHEST):
        assert fires(written(100), draw)
        assert not fires(written(0), draw)
    assert fires(written(0.0001), 0.0)
    assert not fires(written(99.9999), HIGHEST)


@given(st.integers(0, 400))
def test_of_evenly_spread_draws_so_many_fire_as_the_percentage_says(quarter: int) -> None:
    percentage = quarter / 4
    fired = sum(aborts(percentage, (number + 0.5) / 400) for number in range(400))
    assert fired == quarter


def test_delay_and_abort_are_drawn_independently_and_the_delay_comes_first() -> None:
    for delay, abort in itertools.product((0.29, 0.31), (0.69, 0.71)):
        world = of(delay, abort, delay_s=3.0, delay_percentage=30, abort_status=418, abort_percentage=70)
        client = world.client(GET)
        if delay < 0.3:
            assert not world.dialed
            assert not client.transport.take()
            world.pass_time(2.99)
            assert not client.transport.take()
            world.pass_time(0.02)
        aborted = b"FL-FAULT" in client.transport.take()
        assert aborted is (abort < 0.7)
        assert bool(world.dialed) is not aborted
        if aborted:
            assert world.outcomes[0].flag == ("DI,FI" if delay < 0.3 else "FI")


def test_in_a_simulation_the_four_outcomes_have_the_product_of_their_shares() -> None:
    random_ = random.Random(7)
    requests = 4000
    seen = {(delayed, aborted): 0 for delayed in (False, True) for aborted in (False, True)}
    world = World(decision=route(fault=Fault(2.0, 25.0, 418, 40.0), retries=None))
    world.draws = iter(random_.random, None)
    for _ in range(requests):
        client = world.client(GET)
        delayed = not world.dialed and not client.transport.written
        if delayed:
            world.pass_time(2.1)
        aborted = b"FL-FAULT" in client.transport.take()
        seen[(delayed, aborted)] += 1
        world.dialed.clear()
        world.pools.clear()
    for (delayed, aborted), count in seen.items():
        share = (0.25 if delayed else 0.75) * (0.4 if aborted else 0.6)
        deviation = (requests * share * (1 - share)) ** 0.5
        assert abs(count - requests * share) < 4 * deviation


def test_a_delay_is_no_part_of_the_routes_timeout_nor_of_a_trys() -> None:
    world = of(0.0, 0.9, 0.9, delay_s=60.0, delay_percentage=100)
    world.decision.timeout_s = 2.0
    world.decision.retries = RetryPolicy(0, frozenset(), per_try_timeout_s=1.0)
    client = world.client(GET)
    world.pass_time(60.1)
    upstream, _ = world.connect()
    world.pass_time(0.8)
    assert not client.transport.take()
    upstream.data_received(OK)
    assert client.transport.take().startswith(b"HTTP/1.1 200 ")
    assert (world.outcomes[0].flag, world.outcomes[0].reason) == ("DI", "")
    assert world.outcomes[0].ended_at - world.outcomes[0].started_at > 60


def test_a_delay_holds_the_body_and_sends_it_whole() -> None:
    world = of(0.0, delay_s=1.0, delay_percentage=100)
    client = world.client(b"POST /x HTTP/1.1\r\nHost: web\r\nContent-Length: 6\r\n\r\nabc")
    client.data_received(b"def")
    world.pass_time(1.1)
    _, wire = world.connect()
    assert wire.take().endswith(b"\r\n\r\nabcdef")


def test_a_client_that_leaves_within_its_delay_leaves_nothing() -> None:
    world = of(0.0, delay_s=1.0, delay_percentage=100)
    client = world.client(GET)
    client.connection_lost(None)
    world.pass_time(5)
    assert not world.dialed
    assert world.at_rest()
    assert world.outcomes[0].reason == "FL-CLIENT-GONE"


def test_an_abort_is_never_tried_again_and_reaches_no_endpoint() -> None:
    world = of(0.0, abort_status=503, abort_percentage=100)
    world.decision.retries = RetryPolicy(3, frozenset({"5xx"}))
    answer = world.client(GET).transport.take()
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"A fault of default/web route 0 aborts 100% of its requests with 503." in answer
    world.pass_time(5)
    assert not world.dialed


@pytest.mark.parametrize(("name", "status"), [("UNAVAILABLE", 503), ("NOT_FOUND", 404), ("OK", 200), ("INTERNAL", 500)])
def test_a_grpc_status_is_an_http_status_to_who_does_not_speak_grpc(name: str, status: int) -> None:
    answer = of(0.0, abort_grpc_status=name, abort_percentage=100).client(GET).transport.take()
    assert answer.startswith(b"HTTP/1.1 %d " % status)
