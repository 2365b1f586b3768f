"""A client's HTTP/2 connection as conversations: an independent client on one side, an HTTP/1 endpoint on the other."""

from __future__ import annotations

from typing import Any

import h2.errors
import h2.settings
import pytest

from fairlead.policy.tables import Cluster, Decision, PoolLimits
from tests.proxy.fakes import World, cluster, lose
from tests.proxy.two import Conversation, Peer

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi"


def one_cluster(*addresses: str, **limits: Any) -> Cluster:
    """Its endpoints speak HTTP/1.1 whatever the client speaks."""
    found = cluster(*(addresses or ("10.0.0.1",)), limits=PoolLimits(**limits))
    found.follows_client = False
    return found


def world_of(*clusters: Cluster, **fields: Any) -> World:
    return World(*(clusters or (one_cluster(),)), **fields)


def client_of(world: World, settings: dict[Any, int] | None = None, step: int = 0, **fields: Any) -> Conversation:
    """A client that has said its preface, in pieces of `step` octets (0: at once)."""
    peer = Peer(True, settings)
    first = world.client(**fields)
    preface = peer.take()
    transport = first.transport
    for at in range(0, len(preface), step or len(preface)):
        transport.protocol.data_received(preface[at : at + (step or len(preface))])
    talk = Conversation(transport.protocol, transport, peer)
    talk.pump()
    return talk


@pytest.mark.parametrize("step", [0, 1, 7])
def test_requests_of_one_connection_go_to_endpoints_at_the_same_time(step: int) -> None:
    world = world_of()
    talk = client_of(world, step=step)
    first, second = talk.peer.request(("x-request-id", "r"), path="/a"), talk.peer.request(path="/b")
    talk.pump()
    one, wire = world.connect()
    other, other_wire = world.connect()
    assert wire.take() == (
        b"GET /a HTTP/1.1\r\nhost: web\r\nx-request-id: r\r\n"
        b"x-forwarded-proto: http\r\nx-envoy-attempt-count: 1\r\n\r\n"
    )
    assert other_wire.take().startswith(b"GET /b HTTP/1.1\r\nhost: web\r\n")
    other.data_received(
        b"HTTP/1.1 404 Not Here\r\nX-Up: 1\r\nConnection: x-hop\r\nX-Hop: 1\r\nContent-Length: 3\r\n\r\nnot"
    )
    one.data_received(OK)
    talk.pump()
    assert talk.peer.heads[first] == {":status": "200", "content-length": "2", "x-envoy-upstream-service-time": "0"}
    assert talk.peer.heads[second] == {
        ":status": "404", "x-up": "1", "content-length": "3", "x-envoy-upstream-service-time": "0",
    }  # fmt: skip
    assert (talk.peer.bodies[first], talk.peer.bodies[second]) == (b"hi", b"not")
    assert talk.peer.ended == {first, second}
    assert [outcome.status for outcome in world.outcomes] == [404, 200]
    assert world.outcomes[0].request.major == 2
    assert world.at_rest()


def test_a_body_without_length_is_chunked_to_http1_and_its_trailers_go_along_both_ways() -> None:
    world = world_of()
    talk = client_of(world)
    number = talk.peer.request(("te", "trailers"), method="POST", end=False)
    talk.peer.data(number, b"ab")
    talk.pump()
    upstream, wire = world.connect()
    assert b"transfer-encoding: chunked\r\n" in wire.written
    assert wire.take().endswith(b"\r\n\r\n2\r\nab\r\n")
    talk.peer.wire.send_headers(number, [("x-sum", "1"), ("authorization", "no")], end_stream=True)
    talk.pump()
    assert wire.take() == b"0\r\nx-sum: 1\r\n\r\n"
    upstream.data_received(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nxyz\r\n0\r\nX-Crc: 7\r\n\r\n")
    talk.pump()
    assert "transfer-encoding" not in talk.peer.heads[number]
    assert talk.peer.bodies[number] == b"xyz"
    assert talk.peer.trailers[number] == {"x-crc": "7"}
    assert number in talk.peer.ended
    assert world.at_rest()


def test_a_client_that_does_not_read_stops_its_endpoint_and_nothing_grows() -> None:
    world = world_of()
    talk = client_of(world)
    talk.peer.acknowledge = False
    number = talk.peer.request()
    talk.pump()
    upstream, wire = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 10000000\r\n\r\n")
    sent = 0
    while not wire.paused:
        upstream.data_received(b"x" * 16384)
        sent += 16384
        talk.pump()
        assert sent < 400_000, "the endpoint is read on and on"
    assert talk.ours.codec.queued <= 128 * 1024
    while wire.paused:
        talk.peer.acknowledge_all()
        talk.pump()
    assert len(talk.peer.bodies[number]) > 65535
    lose(talk.transport)
    assert world.at_rest()


def test_a_client_whose_socket_is_full_stops_all_its_endpoints() -> None:
    world = world_of()
    talk = client_of(world)
    talk.peer.request()
    talk.peer.request()
    talk.pump()
    wires = []
    for _ in range(2):
        upstream, wire = world.connect()
        upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nx")
        wires.append(wire)
    talk.ours.pause_writing()
    assert all(wire.paused for wire in wires)
    talk.ours.resume_writing()
    assert not any(wire.paused for wire in wires)


def test_an_endpoint_that_does_not_read_stops_the_client_by_its_window() -> None:
    world = world_of()
    talk = client_of(world)
    number = talk.peer.request(method="POST", end=False)
    talk.pump()
    upstream, wire = world.connect()
    upstream.pause_writing()
    sent = 0
    while talk.peer.window(number):
        octets = min(talk.peer.window(number), 16384)
        talk.peer.data(number, b"x" * octets)
        sent += octets
        talk.pump()
        assert sent < 4_000_000, "the client may send on and on"
    other = talk.peer.request(path="/other")
    talk.pump()
    assert len(world.dialed) == 1, "other streams go on"
    upstream.resume_writing()
    talk.pump()
    assert talk.peer.window(number) > 0
    talk.peer.data(number, b"", end=True)
    talk.pump()
    assert wire.take().count(b"x" * 1000) >= sent // 1100
    assert other not in talk.peer.ended


def test_a_cancelled_request_takes_the_try_from_its_endpoint() -> None:
    world = world_of()
    talk = client_of(world)
    number = talk.peer.request()
    talk.pump()
    _upstream, wire = world.connect()
    talk.peer.wire.reset_stream(number, h2.errors.ErrorCodes.CANCEL)
    talk.pump()
    assert wire.aborted
    (outcome,) = world.outcomes
    assert (outcome.reason, outcome.flag) == ("FL-CLIENT-GONE", "DC")
    assert "CANCEL" in outcome.why
    assert not talk.transport.closed
    assert world.at_rest()


def test_a_response_cut_short_is_a_reset_and_the_other_streams_go_on() -> None:
    world = world_of()
    talk = client_of(world)
    first, second = talk.peer.request(path="/a"), talk.peer.request(path="/b")
    talk.pump()
    one, wire = world.connect()
    other, _ = world.connect()
    one.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf")
    lose(wire)
    other.data_received(OK)
    talk.pump()
    assert talk.peer.resets == {first: h2.errors.ErrorCodes.INTERNAL_ERROR}
    assert second in talk.peer.ended
    assert world.at_rest()


def test_an_answer_before_the_requests_end_is_whole_and_the_rest_is_not_wanted() -> None:
    world = world_of(decision=Decision("direct-response", status=413, body=b"too much"))
    talk = client_of(world)
    number = talk.peer.request(method="POST", end=False)
    talk.pump()
    assert talk.peer.heads[number][":status"] == "413"
    assert talk.peer.bodies[number] == b"too much"
    assert number in talk.peer.ended
    assert talk.peer.resets[number] == h2.errors.ErrorCodes.NO_ERROR


def test_draining_says_goaway_and_lets_running_requests_end() -> None:
    world = world_of()
    talk = client_of(world)
    number = talk.peer.request()
    talk.pump()
    upstream, _ = world.connect()
    talk.ours.drain()
    talk.pump()
    assert talk.peer.gone
    assert not talk.transport.closed
    upstream.data_received(OK)
    talk.pump()
    assert talk.peer.bodies[number] == b"hi"
    assert talk.transport.closed


def test_an_end_is_announced_before_it_refuses_streams() -> None:
    world = world_of(decision=Decision("direct-response", status=200))
    talk = client_of(world)
    world.pass_time(10)
    talk.ours.drain(world.time - 1.0)
    talk.ours.drain(world.time - 1.0)
    talk.pump()
    assert not talk.transport.closed
    number = talk.peer.request()  # was on its way
    talk.pump()
    assert talk.peer.heads[number][":status"] == "200"
    world.pass_time(11.5)
    talk.ours.drain(world.time - 1.0)
    talk.pump()
    assert talk.transport.closed


def test_an_idle_connection_says_goaway_after_its_time() -> None:
    world = world_of(decision=Decision("direct-response", status=200), idle_timeout_s=60)
    talk = client_of(world)
    talk.peer.request()
    talk.pump()
    world.pass_time(59)
    assert not talk.transport.closed
    world.pass_time(61)
    talk.pump()
    assert talk.transport.closed
    assert talk.peer.gone


def test_a_preface_that_stops_halfway_is_a_408_like_any_head() -> None:
    world = world_of()
    client = world.client(b"PRI * HTTP/2.0\r\n\r\nS")
    world.pass_time(15.1)
    assert client.transport.take().startswith(b"HTTP/1.1 408 ")


def test_what_begins_like_the_preface_may_be_a_request() -> None:
    world = world_of()
    client = world.client(b"P")
    client.data_received(b"OST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n")
    _upstream, wire = world.connect()
    assert wire.take().startswith(b"POST / HTTP/1.1\r\n")


def test_connect_is_refused_with_a_sentence() -> None:
    world = world_of()
    talk = client_of(world)
    number = talk.peer.wire.get_next_available_stream_id()
    talk.peer.wire.send_headers(number, [(":method", "CONNECT"), (":authority", "web:80")])
    talk.pump()
    assert talk.peer.heads[number][":status"] == "501"
    assert b"use HTTP/1.1" in talk.peer.bodies[number]
    assert not talk.transport.closed


def test_interim_heads_reach_the_client() -> None:
    world = world_of()
    talk = client_of(world)
    number = talk.peer.request(("expect", "100-continue"), method="POST", end=False)
    talk.pump()
    upstream, _ = world.connect()
    upstream.data_received(b"HTTP/1.1 100 Continue\r\n\r\n")
    talk.pump()
    assert [head[":status"] for head in talk.peer.interims[number]] == ["100"]
    talk.peer.data(number, b"x", end=True)
    talk.pump()
    upstream.data_received(OK)
    talk.pump()
    assert talk.peer.heads[number][":status"] == "200"


def test_what_breaks_the_protocol_is_told_and_ends_the_connection() -> None:
    world = world_of()
    talk = client_of(world)
    talk.peer.request()
    talk.pump()
    world.connect()
    talk.ours.data_received(b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00")  # a window update of 0
    talk.peer.receive(talk.transport.take())
    assert talk.peer.gone
    assert talk.transport.closed
    assert {outcome.reason for outcome in world.outcomes} == {"FL-MALFORMED"}
    assert world.at_rest()


def test_a_head_response_has_no_body() -> None:
    world = world_of()
    talk = client_of(world)
    number = talk.peer.request(method="HEAD")
    talk.pump()
    upstream, _ = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n")
    talk.pump()
    assert talk.peer.heads[number]["content-length"] == "100"
    assert number in talk.peer.ended
    assert talk.peer.bodies[number] == b""


def test_an_endpoints_connection_that_was_paused_when_its_exchange_ended_is_read_for_the_next_one() -> None:
    world = world_of()
    talk = client_of(world)
    talk.peer.acknowledge = False
    talk.peer.request()
    talk.pump()
    upstream, wire = world.connect()
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 200000\r\n\r\n" + b"x" * 150_000)
    assert wire.paused
    upstream.data_received(b"x" * 50_000)  # was read before it was paused
    assert upstream.host.idle == [upstream] and not wire.paused
