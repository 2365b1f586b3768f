"""Replies over UDP by network and second."""

from __future__ import annotations

import pytest

from fairlead.dns import _limit
from fairlead.dns._datagrams import limited, network_of
from fairlead.dns._limit import DROP, PASS, SLIP, Limiter


def test_within_the_limit_all_pass_and_beyond_it_every_second_slips() -> None:
    limiter = Limiter(3)
    assert [limiter.take(b"net", 10.1) for _ in range(8)] == [PASS, PASS, PASS, DROP, SLIP, DROP, SLIP, DROP]
    assert (limiter.slipped, limiter.dropped) == (2, 3)


def test_networks_and_seconds_are_counted_apart() -> None:
    limiter = Limiter(1)
    assert [limiter.take(net, 5.0) for net in (b"a", b"b", b"a")] == [PASS, PASS, DROP]
    assert limiter.take(b"a", 6.0) == PASS


def test_networks_without_end_do_not_take_memory_without_end(monkeypatch: pytest.MonkeyPatch) -> None:
    most = 50 if _limit.__file__.endswith(".py") else _limit.NETWORKS_MOST
    monkeypatch.setattr(_limit, "NETWORKS_MOST", most)
    limiter = Limiter(1)
    for number in range(most + 10):
        assert limiter.take(number.to_bytes(4, "big"), 1.0) == PASS
    assert limiter.take((0).to_bytes(4, "big"), 1.0) == DROP, "who was counted still is"
    assert limiter.take((most + 5).to_bytes(4, "big"), 1.0) == PASS


def test_a_network_is_a_24_or_a_56() -> None:
    assert network_of("192.0.2.77") == network_of("192.0.2.1") == network_of("::ffff:192.0.2.9") == b"\xc0\0\2"
    assert network_of("2001:db8:1:2ff::1") == network_of("2001:db8:1:200::") != network_of("2001:db8:1:300::")
    assert network_of("fe80::1%eth0") == b"\xfe\x80" + bytes(5)
    assert network_of("nonsense") == b""


def test_what_is_no_question_gets_nothing_when_limited() -> None:
    assert limited(SLIP, b"short", b"reply") is None
    assert limited(DROP, b"short", b"reply") is None
    assert limited(PASS, b"short", b"reply") == b"reply"
