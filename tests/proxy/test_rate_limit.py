"""Token buckets to the digit, and which request or connection is let through, refused or only counted."""

from __future__ import annotations

import itertools
import mmap
import os
import subprocess
import sys
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy import resources as r
from fairlead.policy.rate_limits import RateLimits, rate_limits
from fairlead.policy.tables import Arrival, Decision
from fairlead.proxy import rate_limit
from fairlead.proxy.http1 import RequestParser
from fairlead.proxy.message import RequestHead
from fairlead.proxy.rate_limit import Bucket, Limiter
from fairlead.registry.model import Workload
from tests.proxy.fakes import World, cluster, route
from tests.proxy.test_connection2 import client_of

APP = Workload("default", "app-1", service_account="app")
GET = b"GET /x HTTP/1.1\r\nHost: web\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def bucket(most: int, every_s: float, fill: int = 1) -> r.TokenBucket:
    return r.TokenBucket(max_tokens=most, tokens_per_fill=fill, fill_interval=every_s)


def rules(*limits: Any, context: str = "SIDECAR_OUTBOUND", connections: Any = (), name: str = "it") -> RateLimits:
    spec = r.LocalRateLimitSpec(context=context, limits=list(limits), connections=list(connections))
    resources = r.Resources(local_rate_limits=(r.LocalRateLimit(r.Meta(name, "default"), spec),))
    made = rate_limits(resources, APP, context == "GATEWAY")
    assert made is not None
    return made


def limit(name: str, most: int, every_s: float = 1.0, **more: Any) -> r.RequestLimit:
    return r.RequestLimit(name, bucket(most, every_s, more.pop("fill", 1)), **more)


def limiter(*limits: Any, **more: Any) -> Limiter:
    made = Limiter()
    made.update(rules(*limits, **more))
    return made


def head_of(path: str, arrival: Arrival) -> RequestHead:
    parser = RequestParser()
    parser.feed(f"GET {path} HTTP/1.1\r\nHost: web\r\n\r\n".encode())
    head = parser.read_head()
    assert head is not None
    head.arrival = arrival
    return head


def asking(made: Limiter, draw: float = 0.0) -> Callable[..., bool]:
    """Whether a request is let through at a time."""

    def ask(now: float, path: str = "/", arrival: Arrival | None = None) -> bool:
        head = head_of(path, arrival or Arrival("outbound", source_ip="10.0.0.9"))
        return made.request(head, Decision("route"), now, lambda: draw) is None

    return ask


# --- buckets ----------------------------------------------------------------------------------------------------------


def test_a_bucket_begins_full_and_is_filled_in_fractions_of_a_token() -> None:
    made = Bucket(2, 0.5)
    assert [made.take(10.0) for _ in range(3)] == [True, True, False]
    assert made.wait_s(10.0) == pytest.approx(0.5)
    assert not made.take(10.25)  # half a token
    assert made.take(10.5)
    assert not made.take(10.75)
    assert [made.take(20.0) for _ in range(3)] == [True, True, False]  # never more than it holds


TIMES = st.lists(st.integers(0, 400), min_size=1, max_size=120)
"""Pauses in milliseconds."""


@given(TIMES, st.integers(1, 20), st.integers(1, 10), st.sampled_from([50, 100, 130, 1000, 7000]))
def test_a_bucket_lets_through_what_exact_arithmetic_does(pauses: list[int], most: int, fill: int, every: int) -> None:
    made = Bucket(most, every / 1000 / fill)
    tokens, at = Fraction(most), 0
    for pause in pauses:
        at += pause
        tokens = min(Fraction(most), tokens + Fraction(pause * fill, every))
        for _ in range(2):
            expected = tokens >= 1
            assert made.take(1000.0 + at / 1000) is expected
            tokens -= expected


@given(TIMES, st.integers(1, 20), st.integers(1, 10))
def test_in_no_window_more_comes_through_than_a_full_bucket_and_what_the_time_brings(
    pauses: list[int], most: int, fill: int
) -> None:
    made = Bucket(most, 0.1 / fill)
    at, taken = 500.0, []
    for pause in pauses:
        at += pause / 1000
        taken += [at] * sum(made.take(at) for _ in range(3))
    for first, begin in enumerate(taken):
        for last in range(first, len(taken)):
            assert last - first + 1 <= most + (taken[last] - begin) * fill / 0.1 + 1e-6


def test_what_is_given_back_can_be_taken_again_and_no_more() -> None:
    made = Bucket(3, 1.0)
    assert made.take(5.0)
    made.give_back()
    assert [made.take(5.0) for _ in range(4)] == [True, True, True, False]


def test_workers_that_share_a_bucket_take_each_token_once() -> None:
    memory = memoryview(bytearray(4 * 8)).cast("d")
    memory[2] = rate_limit.FULL
    one, other = Bucket(5, 0.1, (memory, 2)), Bucket(5, 0.1, (memory, 2))
    got = [worker.take(7.0) for worker in itertools.islice(itertools.cycle((one, other)), 8)]
    assert got == [True] * 5 + [False] * 3
    assert one.wait_s(7.0) == other.wait_s(7.0) == pytest.approx(0.1)
    one.give_back()
    assert other.take(7.0)
    assert not one.take(7.0)
    assert other.take(7.1)
    assert list(memory[:2]) == [0.0, 0.0]


TAKER = """
import mmap, sys
from fairlead.proxy.rate_limit import Bucket
memory = memoryview(mmap.mmap(int(sys.argv[1]), 8)).cast("d")
bucket = Bucket(50_000, 0.001, (memory, 0))
print("ready", flush=True)
sys.stdin.readline()
print(sum(bucket.take(9.0) for _ in range(40_000)))
"""


@pytest.mark.skipif(rate_limit.__file__.endswith(".py"), reason="plain Python has no compare-and-swap")
def test_processes_that_take_at_the_same_time_take_each_token_once() -> None:
    descriptor = os.memfd_create("bucket")
    os.ftruncate(descriptor, 8)
    memory = memoryview(mmap.mmap(descriptor, 8)).cast("d")
    memory[0] = rate_limit.FULL
    takers = [
        subprocess.Popen(
            [sys.executable, "-P", "-c", TAKER, str(descriptor)], pass_fds=[descriptor], text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        )
        for _ in range(3)
    ]  # fmt: skip
    for taker in takers:
        assert taker.stdout is not None
        assert taker.stdout.readline() == "ready\n"
    for taker in takers:
        assert taker.stdin is not None
        taker.stdin.write("go\n")
        taker.stdin.flush()
    taken = [int(taker.communicate()[0]) for taker in takers]
    os.close(descriptor)
    assert sum(taken) == 50_000, taken


# --- limits -----------------------------------------------------------------------------------------------------------


def test_a_request_counts_in_every_limit_that_it_matches_and_takes_no_token_when_one_refuses_it() -> None:
    made = limiter(
        limit("all", 3),
        limit("slow", 1, 10.0, match=r.RateLimitMatch(uri=r.StringMatch(prefix="/slow"))),
    )
    ask = asking(made)
    assert ask(1.0, "/slow")
    assert not ask(1.0, "/slow")  # and has taken none of `all`
    assert [ask(1.0) for _ in range(3)] == [True, True, False]
    every, slow = made.all()
    assert (every.allowed, every.limited) == (3, 1)
    assert (slow.allowed, slow.limited) == (1, 1)


def test_each_client_has_its_bucket_by_identity_or_else_by_address() -> None:
    ask = asking(limiter(limit("each", 1, 60.0, per="CLIENT")))
    one = Arrival("outbound", source_ip="10.0.0.1", identity="spiffe://a")
    same = Arrival("outbound", source_ip="10.0.0.2", identity="spiffe://a")
    nobody = Arrival("outbound", source_ip="10.0.0.1")
    assert ask(1.0, arrival=one)
    assert not ask(1.0, arrival=same)
    assert ask(1.0, arrival=nobody)
    assert not ask(1.0, arrival=Arrival("outbound", source_ip="10.0.0.1"))


def test_the_table_of_clients_is_bounded_and_forgets_none_that_still_owes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rate_limit, "CLIENTS_MAX", most := 50)
    made = limiter(limit("each", 1, 10.0, per="CLIENT"))
    ask = asking(made)
    (live,) = made.all()

    def client(number: int) -> Arrival:
        return Arrival("outbound", source_ip=f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")

    assert all(ask(100.0, arrival=client(number)) for number in range(most))
    assert ask(100.0, arrival=client(most + 1))  # those without room share one bucket
    assert not ask(100.0, arrival=client(most + 2))
    assert len(live.clients) == most
    assert not ask(105.0, arrival=client(0))
    assert ask(110.5, arrival=client(most + 3))  # the others have their tokens back
    assert len(live.clients) == 1
    assert ask(110.5, arrival=client(0))


def test_each_connection_has_its_bucket_and_shares_it_with_all_its_requests() -> None:
    ask = asking(limiter(limit("each", 2, 60.0, per="CONNECTION"), limit("narrow", 1, 60.0, per="CONNECTION")))
    one, other = Arrival("outbound", source_ip="10.0.0.1"), Arrival("outbound", source_ip="10.0.0.1")
    assert [ask(1.0, arrival=arrival) for arrival in (one, one, other, other)] == [True, False, True, False]


def test_what_is_not_enforced_is_counted_and_let_through() -> None:
    made = limiter(limit("shadow", 1, 60.0, enforce=False))
    ask = asking(made)
    assert [ask(1.0) for _ in range(4)] == [True] * 4
    (live,) = made.all()
    assert (live.allowed, live.over, live.limited) == (1, 3, 0)
    text = "\n".join(made.lines())
    assert 'fairlead_local_rate_limit_over_total{limit="default/it/shadow",of="requests"} 3' in text
    assert 'fairlead_local_rate_limit_allowed_total{limit="default/it/shadow",of="requests"} 1' in text


@pytest.mark.parametrize(("draw", "through"), [(0.249, False), (0.25, True)])
def test_of_what_is_over_a_limit_only_its_percentage_is_refused(draw: float, through: bool) -> None:
    ask = asking(limiter(limit("some", 1, 60.0, percentage=r.Percent(25.0))), draw)
    assert ask(1.0)
    assert ask(1.0) is through


def test_a_push_that_does_not_change_a_bucket_keeps_its_tokens_and_counts() -> None:
    made = limiter(limit("kept", 2, 60.0), limit("changed", 5, 60.0))
    ask = asking(made)
    assert ask(1.0)
    assert ask(1.0)
    answer = r.RateLimitResponse(status=503, headers={"X-Why": "busy"})
    made.update(rules(limit("new", 9), limit("kept", 2, 60.0, response=answer), limit("changed", 6, 60.0)))
    refusing = made.request(head_of("/", Arrival("outbound")), Decision("route"), 1.0, lambda: 0.0)
    assert refusing is not None
    assert refusing.limit.status == 503
    assert refusing.lines == b"x-why: busy\r\n"
    assert [(live.limit.name, live.allowed, live.limited) for live in made.all()] == [
        ("new", 0, 0), ("kept", 2, 1), ("changed", 0, 0),
    ]  # fmt: skip


def test_connections_are_limited_by_port_and_source() -> None:
    each = r.ConnectionLimit("db", bucket(1, 60.0), port=5432, per="CLIENT")
    made = limiter(connections=[each], context="SIDECAR_INBOUND")

    def comes(port: int, ip: str = "10.0.0.1") -> bool:
        arrival = Arrival("inbound", source_ip=ip, port=port)
        return made.connection("inbound", arrival, 1.0, lambda: 0.0) is None

    assert [comes(5432), comes(5432), comes(5432, "10.0.0.2"), comes(80), comes(80)] == [True, False, True, True, True]


# --- in an exchange ---------------------------------------------------------------------------------------------------


def world(*limits: Any, **more: Any) -> World:
    made = World(cluster("10.0.0.1"), **more)
    made.limiter = limiter(*limits)
    return made


def test_a_request_over_the_limit_is_answered_with_429_and_the_numbers_and_reaches_no_endpoint() -> None:
    it = world(limit("writes", 1, 5.0, fill=2, response=r.RateLimitResponse(headers={"X-Plan": "free"})))
    client = it.client(GET)
    it.connect()[0].data_received(OK)
    client.transport.take()
    client.data_received(GET)
    head, _, body = client.transport.take().partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert lines[0] == b"HTTP/1.1 429 Too Many Requests"
    for line in (b"x-fairlead-reason: FL-RATE", b"x-envoy-ratelimited: true", b"retry-after: 3", b"x-plan: free"):
        assert line in lines
    why = (
        "LocalRateLimit default/it limit writes lets 1 requests at once, then 2 every 5 s through; "
        "there is a token in 2.5 s."
    )
    assert body.decode() == why + "\n"
    outcome = it.outcomes[-1]
    assert (outcome.status, outcome.reason, outcome.flag, outcome.why) == (429, "FL-RATE", "RL", why)
    assert outcome.details == "local_rate_limited"
    assert not it.dialed
    assert it.at_rest()
    it.pass_time(2.5)
    client.data_received(GET)
    assert client.transport.take() == b""  # on its way


def test_a_retry_after_of_the_rule_stands_in_place_of_ours() -> None:
    it = world(limit("none", 1, 60.0, response=r.RateLimitResponse(status=503, headers={"Retry-After": "7"})))
    client = it.client(GET + GET)
    it.connect()[0].data_received(OK)
    answer = client.transport.take()
    assert b"HTTP/1.1 503 " in answer
    assert answer.count(b"retry-after:") == 1
    assert b"retry-after: 7\r\n" in answer


def test_what_policy_refuses_takes_no_token() -> None:
    it = world(limit("one", 1, 60.0))
    it.decision = Decision("denied", status=403, why="no")
    client = it.client(GET)
    it.decision = route()
    client.data_received(GET)
    it.connect()[0].data_received(OK)
    assert client.transport.take().count(b"200 OK") == 1


def test_tries_of_one_request_take_one_token() -> None:
    it = world(limit("two", 2, 60.0))
    client = it.client(GET)
    it.refuse()
    it.pass_time(1)
    it.connect()[0].data_received(OK)
    client.data_received(GET)
    assert b"429" not in client.transport.take()


@pytest.mark.parametrize(("exhausted", "status"), [(False, "14"), (True, "8")])
def test_a_grpc_call_over_the_limit_is_unavailable_or_resource_exhausted(exhausted: bool, status: str) -> None:
    answer = r.RateLimitResponse(grpc_resource_exhausted=exhausted)
    it = world(limit("calls", 1, 60.0, response=answer))
    near = client_of(it)
    near.peer.call(end=True)
    number = near.peer.call(end=True)
    near.pump()
    head = near.peer.heads[number]
    assert (head[":status"], head["grpc-status"], head["x-envoy-ratelimited"]) == ("200", status, "true")
    assert "limit calls" in head["grpc-message"]
    assert it.outcomes[-1].grpc_status == status
    assert len(it.dialed) == 1
