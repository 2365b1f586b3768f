"""HTTP/2 to endpoints as conversations: an independent server answers what clients of HTTP/1 and HTTP/2 ask."""

from __future__ import annotations

from typing import Any

import h2.errors
import h2.settings
import pytest

from fairlead.policy.tables import Cluster, PoolLimits, RetryPolicy
from fairlead.proxy.upstream2 import ANSWER_S, SILENT_S
from tests.proxy.fakes import World, cluster, lose, route
from tests.proxy.test_connection2 import client_of
from tests.proxy.two import Conversation, Peer

GET = b"GET /x HTTP/1.1\r\nHost: web\r\nX-Request-Id: r\r\n\r\n"
MOST = h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS


def two_cluster(*addresses: str, **limits: Any) -> Cluster:
    """Its endpoints speak HTTP/2."""
    return cluster(*(addresses or ("10.0.0.1",)), limits=PoolLimits(h2_upgrade="UPGRADE", **limits))


def world_of(*clusters: Cluster, **fields: Any) -> World:
    return World(*(clusters or (two_cluster(),)), **fields)


def endpoint_of(world: World, settings: dict[Any, int] | None = None) -> Conversation:
    """The connection that was asked for is made, to a server of HTTP/2."""
    connection: Any
    connection, transport = world.connect()
    talk = Conversation(connection, transport, Peer(False, settings))
    talk.pump()
    return talk


def test_requests_of_many_http1_clients_share_one_connection() -> None:
    world = world_of()
    clients = [world.client(GET.replace(b"/x", b"/%d" % n)) for n in range(3)]
    assert len(world.dialed) == 1
    talk = endpoint_of(world)
    assert talk.peer.heads[1] == {
        ":method": "GET", ":scheme": "http", ":authority": "web", ":path": "/0", "x-request-id": "r",
        "x-forwarded-proto": "http", "x-envoy-attempt-count": "1",
    }  # fmt: skip
    assert talk.peer.ended == {1, 3, 5}
    for number in (5, 1, 3):
        talk.peer.answer(number, ("x-up", "1"), ("content-length", "2"), end=False)
        talk.peer.data(number, b"ok", end=True)
    talk.pump()
    for client in clients:
        assert client.transport.take() == (
            b"HTTP/1.1 200 OK\r\nx-up: 1\r\ncontent-length: 2\r\nx-envoy-upstream-service-time: 0\r\n\r\nok"
        )
    assert world.at_rest()
    assert talk.ours.host.shared == [talk.ours]


def test_a_chunked_body_and_trailers_cross_from_http1_to_http2_and_back() -> None:
    world = world_of()
    client = world.client(
        b"POST / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\nConnection: TE\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n2\r\nab\r\n"
    )
    talk = endpoint_of(world)
    client.data_received(b"1\r\nc\r\n0\r\nX-Sum: 9\r\nHost: evil\r\n\r\n")
    talk.pump()
    assert "transfer-encoding" not in talk.peer.heads[1]
    assert talk.peer.bodies[1] == b"abc"
    assert talk.peer.trailers[1] == {"x-sum": "9"}
    talk.peer.answer(1, end=False)
    talk.peer.data(1, b"xyz")
    talk.peer.wire.send_headers(1, [("x-crc", "7")], end_stream=True)
    talk.pump()
    answer = client.transport.take()
    assert b"transfer-encoding: chunked\r\n" in answer
    assert answer.endswith(b"3\r\nxyz\r\n0\r\nx-crc: 7\r\n\r\n")
    assert world.at_rest()


def test_http2_on_both_sides_streams_in_both_directions() -> None:
    world = world_of()
    near = client_of(world)
    number = near.peer.request(method="POST", end=False)
    near.pump()
    far = endpoint_of(world)
    far.peer.answer(1, end=False)
    for step in range(3):
        near.peer.data(number, b"ask%d" % step)
        near.pump()
        far.pump()
        assert far.peer.bodies[1].endswith(b"ask%d" % step)
        far.peer.data(1, b"say%d" % step)
        far.pump()
        near.pump()
        assert near.peer.bodies[number].endswith(b"say%d" % step)
        world.pass_time(1000)
        near.pump()
        far.peer.ended.clear()
        far.pump()
    near.peer.data(number, b"", end=True)
    near.pump()
    far.pump()
    assert 1 in far.peer.ended
    far.peer.data(1, b"", end=True)
    far.pump()
    near.pump()
    assert number in near.peer.ended
    assert not near.peer.resets
    assert world.at_rest()


def test_a_client_that_does_not_read_stops_the_endpoint_by_its_window() -> None:
    world = world_of()
    near = client_of(world)
    near.peer.acknowledge = False
    number = near.peer.request()
    near.pump()
    far = endpoint_of(world)
    far.peer.answer(1, end=False)
    sent = 0
    while far.peer.window(1):
        octets = min(far.peer.window(1), 16384)
        far.peer.data(1, b"x" * octets)
        sent += octets
        far.pump()
        near.pump()
        assert sent < 4_000_000, "the endpoint may send on and on"
    while len(near.peer.bodies[number]) < sent:
        near.peer.acknowledge_all()
        near.pump()
        far.pump()
    assert far.peer.window(1) > 0
    assert near.ours.codec.queued == 0


def test_an_endpoint_that_does_not_read_stops_an_http1_client() -> None:
    world = world_of()
    client = world.client(b"POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 10000000\r\n\r\n")
    talk = endpoint_of(world)
    talk.peer.acknowledge = False
    sent = 0
    while not client.transport.paused:
        client.data_received(b"x" * 16384)
        sent += 16384
        talk.pump()
        assert sent < 400_000
    while client.transport.paused:
        talk.peer.acknowledge_all()
        talk.pump()
    assert talk.ours.codec.queued <= 64 * 1024


def test_a_client_that_goes_away_is_a_reset_to_the_endpoint() -> None:
    world = world_of()
    client = world.client(GET)
    talk = endpoint_of(world)
    lose(client.transport)
    talk.pump()
    assert talk.peer.resets == {1: h2.errors.ErrorCodes.CANCEL}
    assert not talk.transport.closed
    assert world.at_rest()


@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_a_refused_stream_is_sent_again(method: bytes) -> None:
    world = world_of(decision=route(retries=None))
    client = world.client(GET.replace(b"GET", method))
    talk = endpoint_of(world)
    talk.peer.wire.reset_stream(1, h2.errors.ErrorCodes.REFUSED_STREAM)
    talk.pump()
    talk.peer.answer(3)
    talk.pump()
    assert client.transport.take().startswith(b"HTTP/1.1 200 ")
    assert world.outcomes[0].attempts == 2
    live: Any = world.pools["outbound|80||web"].live
    assert live.reports == [("10.0.0.1", 200, False)]
    assert world.at_rest()


def test_what_goaway_leaves_out_is_sent_on_a_new_connection_and_the_rest_ends_on_the_old() -> None:
    world = world_of()
    first, second = world.client(GET), world.client(GET)
    old = endpoint_of(world)
    old.peer.go_away(1)
    old.pump()
    assert len(world.dialed) == 1
    new = endpoint_of(world)
    new.peer.answer(1)
    new.pump()
    assert second.transport.take().startswith(b"HTTP/1.1 200 ")
    # The old one is not closed before its stream has ended; h2 lets a closed peer send no more, so it is lost here.
    assert not old.transport.closed
    lose(old.transport)
    assert first.transport.take().startswith(b"HTTP/1.1 503 ")
    assert world.at_rest()


def test_a_full_connection_gets_a_second_one_beside_it() -> None:
    world = world_of()
    world.client(GET)
    first = endpoint_of(world, {MOST: 2})
    world.client(GET)
    first.pump()
    assert not world.dialed
    world.client(GET)
    assert len(world.dialed) == 1
    second = endpoint_of(world, {MOST: 2})
    first.pump()
    assert set(first.peer.heads) == {1, 3}
    assert set(second.peer.heads) == {1}


def test_beyond_max_connections_a_request_waits_for_a_stream() -> None:
    world = world_of(two_cluster(max_connections=1, max_streams=1))
    world.client(GET)
    client = world.client(GET.replace(b"/x", b"/second"))
    talk = endpoint_of(world)
    assert set(talk.peer.heads) == {1}
    assert not world.dialed
    talk.peer.answer(1)
    talk.pump()
    assert talk.peer.heads[3][":path"] == "/second"
    talk.peer.answer(3)
    talk.pump()
    assert client.transport.take().startswith(b"HTTP/1.1 200 ")
    assert world.at_rest()


def test_a_connection_carries_no_more_than_max_requests() -> None:
    world = world_of(two_cluster(max_requests_per_connection=2))
    for _ in range(3):
        world.client(GET)
    talk = endpoint_of(world)
    assert set(talk.peer.heads) == {1, 3}
    other = endpoint_of(world)
    assert set(other.peer.heads) == {1}
    for number in (1, 3):
        talk.peer.answer(number)
    talk.pump()
    assert talk.transport.closed
    assert not other.transport.closed


def test_an_endpoint_without_http2_gets_http1_as_its_handshake_says() -> None:
    world = world_of()
    world.endpoints_two = False
    world.client(GET)
    client = world.client(GET)
    assert len(world.dialed) == 1
    upstream, wire = world.connect()
    assert wire.take().startswith(b"GET /x HTTP/1.1\r\n")
    assert len(world.dialed) == 1
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert wire.take().startswith(b"GET /x HTTP/1.1\r\n")
    upstream.data_received(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    assert client.transport.take().startswith(b"HTTP/1.1 200 ")


def test_a_connection_that_cannot_be_made_is_told_to_all_that_wait() -> None:
    world = world_of(decision=route(retries=None))
    clients = [world.client(GET) for _ in range(3)]
    world.refuse()
    assert all(client.transport.take().startswith(b"HTTP/1.1 503 ") for client in clients)
    assert world.at_rest()


def test_a_lost_connection_is_told_to_all_its_exchanges() -> None:
    world = world_of(decision=route(retries=None))
    clients = [world.client(GET) for _ in range(2)]
    talk = endpoint_of(world)
    lose(talk.transport)
    assert all(client.transport.take().startswith(b"HTTP/1.1 503 ") for client in clients)
    assert world.at_rest()
    assert world.pools["outbound|80||web"].live.hosts[0].shared == []


def test_silence_is_asked_by_ping_and_no_answer_ends_the_connection() -> None:
    world = world_of(decision=route(retries=None))
    client = world.client(GET)
    talk = endpoint_of(world)
    pool = world.pools["outbound|80||web"]
    world.time += SILENT_S
    pool.sweep(world.time)
    talk.pump()
    assert not talk.ours.asked_at
    world.time += SILENT_S
    pool.sweep(world.time)
    world.time += ANSWER_S
    pool.sweep(world.time)
    assert talk.transport.aborted
    assert b"PING" in client.transport.take()
    lose(talk.transport)
    assert world.at_rest()


def test_keep_alive_asks_at_its_interval_idle_connections_too_and_waits_for_its_timeout() -> None:
    world = world_of(two_cluster(ping_every_s=10.0, ping_answer_s=3.0))
    world.client(GET)
    talk = endpoint_of(world)
    talk.peer.answer(1)
    talk.pump()
    pool = world.pools["outbound|80||web"]
    begin = world.time
    asked = []
    for second in range(1, 26):  # the endpoint answers: it goes on and on
        world.time = begin + second
        pool.sweep(world.time)
        if talk.ours.asked_at:
            asked.append(second)
        talk.pump()
    assert asked == [10, 20]
    world.time = begin + 30
    pool.sweep(world.time)
    talk.transport.take()  # and now it does not
    world.time += 2.9
    pool.sweep(world.time)
    assert not talk.transport.aborted
    world.time += 0.1
    pool.sweep(world.time)
    assert talk.transport.aborted


def test_an_idle_connection_is_not_asked_by_itself() -> None:
    world = world_of()
    world.client(GET)
    talk = endpoint_of(world)
    talk.peer.answer(1)
    talk.pump()
    world.pools["outbound|80||web"].sweep(world.time + 2 * SILENT_S)
    assert not talk.ours.asked_at


def test_an_idle_connection_is_closed_with_goaway() -> None:
    world = world_of(two_cluster(idle_timeout_s=30))
    world.client(GET)
    talk = endpoint_of(world)
    talk.peer.answer(1)
    talk.pump()
    world.pools["outbound|80||web"].sweep(world.time + 31)
    assert talk.transport.closed
    talk.peer.receive(talk.transport.take())
    assert talk.peer.gone


def test_an_upgrade_goes_over_http1_even_to_an_http2_cluster() -> None:
    world = world_of()
    world.client(GET[:-2] + b"Connection: upgrade\r\nUpgrade: websocket\r\n\r\n")
    _upstream, wire = world.connect()
    assert b"upgrade: websocket\r\n" in wire.take()


def test_an_undeclared_port_speaks_what_its_clients_speak() -> None:
    world = World()
    near = client_of(world)
    near.peer.request()
    near.pump()
    far = endpoint_of(world)
    assert far.peer.heads[1][":path"] == "/x"
    world.client(GET)
    _upstream, wire = world.connect()
    assert wire.take().startswith(b"GET /x HTTP/1.1\r\n")


def test_a_reset_without_a_response_is_retried_by_policy() -> None:
    world = world_of(two_cluster("10.0.0.1", "10.0.0.2"), decision=route(retries=RetryPolicy(1, frozenset({"reset"}))))
    client = world.client(GET)
    talk = endpoint_of(world)
    talk.peer.wire.reset_stream(1, h2.errors.ErrorCodes.INTERNAL_ERROR)
    talk.pump()
    world.pass_time(1)
    other = endpoint_of(world)
    other.peer.answer(1)
    other.pump()
    assert client.transport.take().startswith(b"HTTP/1.1 200 ")
