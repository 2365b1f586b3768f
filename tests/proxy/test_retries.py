"""Retries, sentence by sentence: when, where, after how long, how often, and what is never sent twice."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.compile_http import retry_policy
from fairlead.policy.resources import HTTPRetry
from fairlead.policy.tables import Decision, Fault, PoolLimits
from fairlead.policy.validate_virtual_service import RETRY_ON
from fairlead.proxy import grpc
from tests.policy.worlds import World as Rules
from tests.proxy.fakes import World, cluster, lose, route
from tests.proxy.test_connection2 import client_of
from tests.proxy.test_grpc import call_of, grpc_cluster
from tests.proxy.test_upstream2 import endpoint_of

GET = b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"
POST = b"POST /x HTTP/1.1\r\nHost: web\r\nContent-Length: 5\r\n\r\nhello"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def asking(*conditions: str, attempts: int = 1, **more: Any) -> Decision:
    """A route that retries on these, as Istio's `retryOn` is compiled."""
    view = Rules("kind: Namespace\nmetadata: {name: default}").resources
    written = HTTPRetry(attempts=attempts, retry_on=",".join(conditions), **more)
    policy = retry_policy(type("View", (), {"mesh": view.mesh.spec})(), written)
    return route(retries=policy)


def refused_connection(world: World) -> None:
    world.refuse()


def reset(world: World) -> None:
    lose(world.connect()[1])


def silent(world: World) -> None:
    world.connect()
    world.pass_time(1.01)


def nonsense(world: World) -> None:
    world.connect()[0].data_received(b"what?\r\n\r\n")


def status(number: int, *lines: str) -> Callable[[World], None]:
    def answer(world: World) -> None:
        more = "".join(f"{line}\r\n" for line in lines)
        world.connect()[0].data_received(f"HTTP/1.1 {number} No\r\nContent-Length: 0\r\n{more}\r\n".encode())

    return answer


LIMITED = "x-envoy-ratelimited: true"
FAILURES: dict[str, tuple[Callable[[World], None], set[str]]] = {
    "no connection": (
        refused_connection, {"5xx", "gateway-error", "connect-failure", "reset-before-request"},
    ),
    "reset before an answer": (reset, {"5xx", "gateway-error", "reset"}),
    "perTryTimeout": (silent, {"5xx", "gateway-error", "reset"}),
    "an answer that is none": (nonsense, {"5xx", "gateway-error", "reset"}),
    "500": (status(500), {"5xx"}),
    "502": (status(502), {"5xx", "gateway-error"}),
    "503": (status(503), {"5xx", "gateway-error", "503"}),
    "504": (status(504), {"5xx", "gateway-error"}),
    "409": (status(409), {"retriable-4xx"}),
    "404": (status(404), set()),
    "429": (status(429), set()),
    "429 of a rate limit": (status(429, LIMITED), {"envoy-ratelimited"}),
    "503 of a rate limit": (status(503, LIMITED), {"envoy-ratelimited"}),
}  # fmt: skip
"""What may become of a try, and on which conditions Istio and Envoy try again."""


@pytest.mark.parametrize("method", [GET, POST])
@pytest.mark.parametrize("condition", [*RETRY_ON, "503"])
@pytest.mark.parametrize("failure", FAILURES)
def test_each_condition_retries_on_what_it_means_and_on_nothing_else(
    failure: str, condition: str, method: bytes
) -> None:
    happens, wanted = FAILURES[failure]
    world = World(cluster("10.0.0.1", "10.0.0.2"), decision=asking(condition, per_try_timeout=1.0))
    client = world.client(method)
    happens(world)
    assert world.at_rest() is (condition not in wanted)
    world.pass_time(0.3)
    again = bool(world.dialed) or any(upstream.exchange for upstream in _connections(world))
    assert again is (condition in wanted)
    assert bool(client.transport.take()) is not again


def _connections(world: World) -> list[Any]:
    pool = world.pools["outbound|80||web"]
    return [upstream for host in pool.live.hosts for upstream in host.idle]


@pytest.mark.parametrize(("number", "condition"), [*grpc.RETRY_ON.items()])
def test_a_grpc_status_of_a_rate_limit_is_not_asked_for_again_unless_the_rule_says_so(
    number: int, condition: str
) -> None:
    for conditions, again in (((condition,), False), ((condition, "envoy-ratelimited"), True)):
        world = World(grpc_cluster("10.0.0.1"), decision=asking(*conditions))
        near, stream = call_of(world)
        far = endpoint_of(world)
        far.peer.answer(1, ("content-type", "application/grpc"), ("grpc-status", str(number)), LIMITED_PAIR)
        far.pump()
        world.pass_time(0.3)
        far.pump()
        near.pump()
        assert (stream in near.peer.heads) is not again
        assert (3 in far.peer.heads) is again


LIMITED_PAIR = ("x-envoy-ratelimited", "true")


@given(st.lists(st.floats(0, 1, exclude_max=True), min_size=6, max_size=6), st.sampled_from([0.025, 0.1, 1.0]))
def test_the_pause_before_the_nth_retry_is_drawn_from_zero_to_its_width(draws: list[float], base: float) -> None:
    """(2^N - 1) * base, at most 10 * base."""
    world = World(decision=asking("connect-failure", attempts=6, backoff=base))
    left = iter(draws)
    world.draws = itertools.chain(left, itertools.repeat(0.0))
    world.client(GET)
    for number, draw in enumerate(draws, 1):
        failed_at = world.time
        world.refuse()
        pause = draw * min((2**number - 1) * base, 10 * base)
        due = [timer.at for timer in world.timers if not timer.cancelled]
        world.pass_time(max(pause - 1e-6, 0.0))
        if pause > 1e-5:
            assert not world.dialed, due
        world.pass_time(2e-6 + failed_at + pause - world.time)
        assert len(world.dialed) == 1, (number, pause, due)


def test_without_a_backoff_of_its_own_the_base_is_25_ms() -> None:
    policy = asking("5xx").retries
    assert policy is not None
    assert policy.backoff_s == 0.025


def test_each_try_says_its_number_also_after_one_that_found_no_connection() -> None:
    world = World(cluster("10.0.0.1", "10.0.0.2"), decision=asking("5xx", attempts=3))
    world.client(GET)
    world.refuse()
    world.pass_time(0.3)
    upstream, wire = world.connect()
    assert b"x-envoy-attempt-count: 2\r\n" in wire.take()
    upstream.data_received(b"HTTP/1.1 503 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    lose(wire)
    world.pass_time(0.3)
    _, wire = world.connect()
    assert b"x-envoy-attempt-count: 3\r\n" in wire.take()


def test_a_retry_goes_to_another_endpoint_while_there_is_one() -> None:
    world = World(cluster("10.0.0.1", "10.0.0.2", "10.0.0.3"), decision=asking("connect-failure", attempts=3))
    world.client(GET)
    asked = []
    for _ in range(4):
        asked.append(world.dialed[0][2].endpoint.address)
        world.refuse()
        world.pass_time(0.3)
    assert asked == ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.1"]


def test_a_retry_may_go_back_where_the_rule_says_so() -> None:
    decision = asking("connect-failure", retry_ignore_previous_hosts=False)
    world = World(cluster("10.0.0.1", "10.0.0.2"), decision=decision)
    world.client(GET)
    world.refuse()
    world.pass_time(0.3)
    assert world.dialed[0][2].endpoint.address == "10.0.0.1"


def test_each_try_has_its_own_time_and_the_route_has_all_of_it_together() -> None:
    decision = asking("5xx", attempts=9, per_try_timeout=1.0)
    decision.timeout_s = 2.5
    world = World(cluster("10.0.0.1", "10.0.0.2"), decision=decision)
    client = world.client(GET)
    for _ in range(2):
        world.connect()
        world.pass_time(1.0 + 0.05)
        assert not client.transport.take()
    world.connect()
    world.pass_time(0.39)
    assert not client.transport.take()
    world.pass_time(0.02)
    answer = client.transport.take()
    assert b"within the timeout of 2.5 s" in answer
    world.pass_time(5)
    assert not world.dialed
    assert world.at_rest()


def test_the_routes_timeout_ends_a_pause_between_tries() -> None:
    decision = asking("connect-failure", attempts=3, backoff=10.0)
    decision.timeout_s = 1.0
    world = World(decision=decision)
    client = world.client(GET)
    world.refuse()
    world.pass_time(1.1)
    assert b"FL-TIMEOUT" in client.transport.take()
    world.pass_time(20)
    assert not world.dialed
    assert world.at_rest()


def test_what_is_refused_here_is_never_tried_again() -> None:
    everything = asking(*RETRY_ON, "503", "429", "418", attempts=3)
    for world in (
        World(cluster("10.0.0.1", limits=PoolLimits(max_requests=1)), decision=everything),
        World(cluster("10.0.0.1", limits=PoolLimits(max_pending=1)), decision=everything),
    ):
        world.client(GET)
        client = world.client(GET)
        assert b"FL-OVERFLOW" in client.transport.take()
        world.pass_time(0.3)
        assert len(world.dialed) == 1
    everything.fault = Fault(abort_status=503, abort_percentage=100)
    world = World(decision=everything)
    assert b"FL-FAULT" in world.client(GET).transport.take()
    assert not world.dialed


def test_nothing_is_tried_again_once_the_client_has_part_of_an_answer() -> None:
    world = World(decision=asking(*RETRY_ON, attempts=3))
    client = world.client(GET)
    upstream, wire = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf")
    lose(wire)
    world.pass_time(0.3)
    assert client.transport.aborted
    assert not world.dialed


@given(st.integers(0, 40), st.integers(0, 40), st.integers(0, 40))
def test_a_body_is_sent_again_whole_up_to_the_limit_and_beyond_it_not_at_all(size: int, first: int, limit: int) -> None:
    world = World(cluster("10.0.0.1", "10.0.0.2"), decision=asking("5xx"), replay_bytes=limit)
    body = bytes(65 + number % 26 for number in range(size))
    head = b"POST /x HTTP/1.1\r\nHost: web\r\nContent-Length: %d\r\n\r\n" % size
    client = world.client(head + body[:first])
    upstream, wire = world.connect()
    if body[first:]:
        client.data_received(body[first:])
    assert wire.take().partition(b"\r\n\r\n")[2] == body
    upstream.data_received(b"HTTP/1.1 500 No\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
    lose(wire)
    world.pass_time(0.3)
    again = size <= limit or size == 0
    assert bool(world.dialed) is again
    if again:
        assert world.connect()[1].take().partition(b"\r\n\r\n")[2] == body


def test_a_stream_that_is_refused_by_http2_is_sent_again_and_one_that_was_begun_is_not() -> None:
    world = World(grpc_cluster("10.0.0.1"), decision=asking("refused-stream"))
    near = client_of(world)
    number = near.peer.call(end=True)
    near.pump()
    far = endpoint_of(world)
    far.peer.wire.reset_stream(1, 2)  # INTERNAL_ERROR: something may have been done
    far.pump()
    world.pass_time(0.3)
    far.pump()
    near.pump()
    assert number in near.peer.heads
    assert 3 not in far.peer.heads
