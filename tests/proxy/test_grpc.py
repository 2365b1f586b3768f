"""gRPC through the proxy as conversations: statuses, deadlines, retries, faults, and what people and metrics see."""

from __future__ import annotations

from typing import Any

import h2.errors
import pytest

from fairlead.policy.tables import Cluster, Decision, Fault, PoolLimits, RetryPolicy
from fairlead.proxy import grpc
from fairlead.proxy.access_log import text_formatter
from fairlead.proxy.message import RequestHead
from fairlead.proxy.metrics import Metrics
from fairlead.registry.model import Workload
from tests.proxy.fakes import World, cluster, route
from tests.proxy.test_connection2 import client_of
from tests.proxy.test_upstream2 import endpoint_of
from tests.proxy.two import Conversation

MESSAGE = b"\x00\x00\x00\x00\x02hi"


def grpc_cluster(*addresses: str, **limits: Any) -> Cluster:
    found = cluster(*(addresses or ("10.0.0.1",)), limits=PoolLimits(**limits))
    found.http2 = True
    return found


def world_of(*clusters: Cluster, **fields: Any) -> World:
    return World(*(clusters or (grpc_cluster(),)), **fields)


def call_of(world: World, *headers: tuple[str, str], end: bool = True) -> tuple[Conversation, int]:
    """A call with one message."""
    near = client_of(world)
    number = near.peer.call(*headers)
    near.peer.data(number, MESSAGE, end=end)
    near.pump()
    return near, number


def trailers_only(far: Conversation, stream: int, status: int) -> None:
    far.peer.answer(stream, ("content-type", "application/grpc"), ("grpc-status", str(status)), ("grpc-message", "no"))
    far.pump()


def test_a_call_goes_through_with_its_message_and_its_status() -> None:
    world = world_of()
    near, number = call_of(world)
    far = endpoint_of(world)
    assert far.peer.heads[1]["te"] == "trailers"
    assert far.peer.heads[1]["content-type"] == "application/grpc"
    assert far.peer.bodies[1] == MESSAGE
    far.peer.answer(1, ("content-type", "application/grpc"), end=False)
    far.peer.data(1, MESSAGE)
    far.peer.wire.send_headers(1, [("grpc-status", "0"), ("grpc-message", "fine"), ("x-more", "1")], end_stream=True)
    far.pump()
    near.pump()
    assert near.peer.bodies[number] == MESSAGE
    assert near.peer.trailers[number] == {"grpc-status": "0", "grpc-message": "fine", "x-more": "1"}
    (outcome,) = world.outcomes
    assert (outcome.grpc, outcome.grpc_status, outcome.status) == (True, "0", 200)
    assert world.at_rest()


def test_a_trailers_only_answer_stays_one() -> None:
    world = world_of()
    near, number = call_of(world)
    far = endpoint_of(world)
    trailers_only(far, 1, 5)
    near.pump()
    assert near.peer.heads[number]["grpc-status"] == "5"
    assert number in near.peer.ended
    assert world.outcomes[0].grpc_status == "5"
    live: Any = world.pools["outbound|80||web"].live
    assert live.reports == [("10.0.0.1", 404, False)]


@pytest.mark.parametrize(
    ("decision", "status", "reason"),
    [
        (Decision("denied", status=403, reason="FL-DENIED", why='No rule allows "it": 100% é.'), "7", "FL-DENIED"),
        (Decision("not-found", status=404, reason="FL-NO-ROUTE"), "12", "FL-NO-ROUTE"),
        (route(name="outbound|80||nowhere"), "14", "FL-NO-CLUSTER"),
    ],
)
def test_an_answer_of_our_own_is_a_status_that_clients_understand(decision: Decision, status: str, reason: str) -> None:
    world = world_of(decision=decision)
    near, number = call_of(world)
    head = near.peer.heads[number]
    assert (head[":status"], head["grpc-status"], head["x-fairlead-reason"]) == ("200", status, reason)
    assert head["content-type"] == "application/grpc"
    assert head["grpc-message"].isascii()
    assert number in near.peer.ended
    assert near.peer.bodies[number] == b""
    assert world.outcomes[0].grpc_status == status


def test_a_grpc_message_is_percent_encoded() -> None:
    assert grpc.encoded("100% é\n") == b"100%25 %C3%A9%0A"


def test_a_call_without_an_answer_ends_with_deadline_exceeded() -> None:
    world = world_of()
    near, number = call_of(world, ("grpc-timeout", "250m"))
    far = endpoint_of(world)
    assert far.peer.heads[1]["grpc-timeout"] == "250m"
    world.pass_time(0.2)
    near.pump()
    assert number not in near.peer.heads
    world.pass_time(0.1)
    near.pump()
    far.pump()
    head = near.peer.heads[number]
    assert (head[":status"], head["grpc-status"]) == ("200", "4")
    assert "grpc-timeout of 0.25 s" in head["grpc-message"]
    assert far.peer.resets == {1: h2.errors.ErrorCodes.CANCEL}
    assert world.outcomes[0].flag == "UT"
    assert world.at_rest()


@pytest.mark.parametrize(("sent", "passes"), [("10S", 2.0), ("1S", 1.0)])
def test_the_shorter_of_deadline_and_the_routes_timeout_holds(sent: str, passes: float) -> None:
    world = world_of(decision=route(timeout_s=2.0))
    near, number = call_of(world, ("grpc-timeout", sent))
    endpoint_of(world)
    world.pass_time(passes - 0.1)
    near.pump()
    assert number not in near.peer.heads
    world.pass_time(0.2)
    near.pump()
    assert near.peer.heads[number]["grpc-status"] == "4"


def test_a_deadline_counts_while_the_client_still_sends() -> None:
    world = world_of()
    near, number = call_of(world, ("grpc-timeout", "1S"), end=False)
    far = endpoint_of(world)
    world.pass_time(1.1)
    near.pump()
    far.pump()
    assert near.peer.heads[number]["grpc-status"] == "4"
    assert far.peer.resets == {1: h2.errors.ErrorCodes.CANCEL}
    assert world.at_rest()


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("1H", 3600.0), ("2M", 120.0), ("3S", 3.0), ("5m", 0.005), ("7u", 7e-6), ("00000009n", 9e-9), ("1", None),
     ("123456789S", None), ("1x", None), ("-1S", None), ("", None), ("²S", None)],
)  # fmt: skip
def test_grpc_timeout_is_read_as_its_specification_says(text: str, seconds: float | None) -> None:
    head = RequestHead()
    head.raw = b"POST / HTTP/1.1\r\ngrpc-timeout: " + text.encode("latin-1") + b"\r\n\r\n"
    head.first = 17
    found = grpc.timeout_s(head)
    assert found is None if seconds is None else found == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("condition", "status"),
    [("cancelled", 1), ("deadline-exceeded", 4), ("resource-exhausted", 8), ("internal", 13), ("unavailable", 14)],
)
def test_a_status_that_the_route_names_is_tried_again_elsewhere(condition: str, status: int) -> None:
    world = world_of(
        grpc_cluster("10.0.0.1", "10.0.0.2"), decision=route(retries=RetryPolicy(1, frozenset({condition})))
    )
    near, number = call_of(world)
    far = endpoint_of(world)
    trailers_only(far, 1, status)
    world.pass_time(1)
    other = endpoint_of(world)
    assert other.peer.bodies[1] == MESSAGE
    trailers_only(other, 1, 0)
    near.pump()
    assert near.peer.heads[number]["grpc-status"] == "0"
    assert world.outcomes[0].attempts == 2
    assert world.at_rest()


def test_a_status_that_the_route_does_not_name_is_the_clients() -> None:
    world = world_of(decision=route(retries=RetryPolicy(1, frozenset({"unavailable", "5xx"}))))
    near, number = call_of(world)
    far = endpoint_of(world)
    trailers_only(far, 1, 13)
    near.pump()
    assert near.peer.heads[number]["grpc-status"] == "13"


def test_a_status_after_messages_is_never_tried_again() -> None:
    world = world_of(decision=route(retries=RetryPolicy(1, frozenset({"unavailable"}))))
    near, number = call_of(world)
    far = endpoint_of(world)
    far.peer.answer(1, end=False)
    far.peer.data(1, MESSAGE)
    far.peer.wire.send_headers(1, [("grpc-status", "14")], end_stream=True)
    far.pump()
    near.pump()
    assert near.peer.trailers[number]["grpc-status"] == "14"


def test_a_fault_can_be_a_grpc_status() -> None:
    fault = Fault(abort_percentage=100, abort_grpc_status="RESOURCE_EXHAUSTED")
    world = world_of(decision=route(fault=fault))
    near, number = call_of(world)
    assert near.peer.heads[number]["grpc-status"] == "8"
    plain = world.client(b"GET / HTTP/1.1\r\nHost: web\r\n\r\n")
    assert plain.transport.take().startswith(b"HTTP/1.1 429 ")


def test_a_call_that_is_cancelled_is_cancelled_at_the_endpoint() -> None:
    world = world_of()
    near, number = call_of(world, end=False)
    far = endpoint_of(world)
    near.peer.wire.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
    near.pump()
    far.pump()
    assert far.peer.resets == {1: h2.errors.ErrorCodes.CANCEL}
    assert world.at_rest()


def test_a_silent_stream_lives_for_long_and_ends_after_the_idle_time() -> None:
    world = world_of(body_timeout_s=10, relay_idle_timeout_s=3600)
    near, number = call_of(world, end=False)
    far = endpoint_of(world)
    far.peer.answer(1, end=False)
    far.pump()
    world.pass_time(3000)
    far.peer.data(1, MESSAGE)
    far.pump()
    world.pass_time(3000)
    near.pump()
    assert not near.peer.resets
    world.pass_time(700)
    near.pump()
    assert number in near.peer.resets


def test_metrics_and_the_access_log_tell_of_a_call() -> None:
    world = world_of()
    near, _ = call_of(world)
    far = endpoint_of(world)
    trailers_only(far, 1, 14)
    near.pump()
    (outcome,) = world.outcomes
    line = text_formatter("%PROTOCOL% %RESPONSE_CODE% %GRPC_STATUS% %GRPC_STATUS_NUMBER%")(outcome, 0.0)
    assert line == "HTTP/2 200 Unavailable 14\n"
    metrics = Metrics(Workload(namespace="default", name="app-1"))
    outcome.cluster = None
    metrics.done(outcome)
    (total,) = [line for line in metrics.lines() if line.startswith("istio_requests_total{")]
    assert 'request_protocol="grpc"' in total
    assert 'response_code="200"' in total
    assert 'grpc_response_status="14"' in total


def test_the_routes_timeout_of_a_stream_begins_when_the_client_has_sent_all() -> None:
    world = world_of(decision=route(timeout_s=2.0))
    near, number = call_of(world, end=False)
    far = endpoint_of(world)
    far.peer.answer(1, ("content-type", "application/grpc"), end=False)
    for _ in range(3):
        world.pass_time(5)
        near.peer.data(number, MESSAGE)
        near.pump()
        far.peer.data(1, MESSAGE)
        far.pump()
        near.pump()
    assert near.peer.bodies[number] == MESSAGE * 3
    near.peer.data(number, b"", end=True)
    near.pump()
    world.pass_time(1.9)
    near.pump()
    assert not near.peer.resets
    world.pass_time(0.2)
    near.pump()
    assert number in near.peer.resets
    assert world.outcomes[0].flag == "UT"
