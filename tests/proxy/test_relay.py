"""Two byte streams joined: half-close, resets, back-pressure, idle time."""

from __future__ import annotations

from fairlead.proxy.message import TruncatedError
from fairlead.proxy.relay import HALF_CLOSED_IDLE_S, Relay
from tests.proxy.fakes import Transport, lose


class Pair:
    def __init__(self, server_tls: bool = False) -> None:
        self.ends = 0
        self.relay = Relay(100.0, self.ended)
        self.client, self.server = Transport(), Transport(server_tls)
        for end, transport in ((self.relay.client, self.client), (self.relay.server, self.server)):
            transport.protocol = end
            end.connection_made(transport)

    def ended(self, relay: Relay) -> None:
        self.ends += 1


def test_bytes_go_both_ways_and_are_counted() -> None:
    pair = Pair()
    pair.relay.client.data_received(b"abc")
    pair.relay.server.data_received(b"de")
    assert (pair.server.take(), pair.client.take()) == (b"abc", b"de")
    assert (pair.relay.client.count, pair.relay.server.count) == (3, 2)


def test_one_side_may_end_while_the_other_goes_on() -> None:
    pair = Pair()
    assert pair.relay.client.eof_received()
    assert pair.server.eof
    pair.relay.server.data_received(b"still")
    assert pair.client.take() == b"still"
    assert not pair.relay.server.eof_received()
    assert pair.client.closed
    lose(pair.server)
    lose(pair.client)
    assert pair.ends == 1


def test_a_reset_stays_a_reset() -> None:
    pair = Pair()
    lose(pair.server, ConnectionResetError())
    assert pair.client.was_reset
    lose(pair.client)
    assert pair.ends == 1


def test_a_tls_peer_that_never_says_where_its_end_is_has_ended_like_any_other() -> None:
    """What it sent is delivered; a sidecar that is cut is a reset (test_tls)."""
    pair = Pair()
    pair.relay.server.data_received(b"all that there is")
    lose(pair.server, TruncatedError())
    assert pair.client.closed and not pair.client.aborted
    assert pair.client.take() == b"all that there is"
    lose(pair.client)
    assert pair.ends == 1


def test_what_is_not_to_be_half_closed_is_closed_when_nothing_moves_any_more() -> None:
    pair = Pair(server_tls=True)
    assert pair.relay.client.eof_received()
    assert not pair.server.eof
    assert not pair.relay.sweep(101.0, 3600)
    assert not pair.relay.sweep(101.0 + HALF_CLOSED_IDLE_S - 0.1, 3600)
    assert pair.relay.sweep(101.0 + HALF_CLOSED_IDLE_S, 3600)


def test_a_full_side_stops_the_other() -> None:
    pair = Pair()
    pair.relay.server.pause_writing()
    assert pair.client.paused
    pair.relay.server.resume_writing()
    assert not pair.client.paused


def test_idle_time_is_counted_from_the_last_octet() -> None:
    pair = Pair()
    assert not pair.relay.sweep(110.0, 60)
    assert not pair.relay.sweep(169.0, 60)
    pair.relay.client.data_received(b"x")
    assert not pair.relay.sweep(170.0, 60)
    assert pair.relay.sweep(230.0, 60)


def test_an_end_without_a_peer_is_over_at_once_and_what_it_sent_is_held() -> None:
    ended: list[Relay] = []
    relay = Relay(100.0, ended.append)
    transport = Transport()
    transport.protocol = relay.client
    relay.client.connection_made(transport)
    relay.client.data_received(b"early")
    assert (relay.client.held, transport.paused) == ([b"early"], True)
    lose(transport)
    assert ended == [relay]


def test_its_own_idle_time_comes_before_the_proxys_and_zero_is_never() -> None:
    pair = Pair()
    pair.relay.idle_s = 5.0
    assert not pair.relay.sweep(110.0, 60)
    assert not pair.relay.sweep(114.9, 60)
    assert pair.relay.sweep(115.0, 60)
    pair.relay.idle_s = 0.0
    assert not pair.relay.sweep(1e9, 60)
    pair.relay.idle_s = -1.0
    assert not pair.relay.sweep(1e9, 0)
    assert pair.relay.sweep(1e9, 60)
    pair.relay.client.eof_received()  # what is half closed has its own time
    assert not pair.relay.sweep(1e9 + 1, 0)
    assert pair.relay.sweep(1e9 + 1 + HALF_CLOSED_IDLE_S, 0)
