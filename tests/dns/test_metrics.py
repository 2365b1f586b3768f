"""Histograms and labels; the whole text is checked in test_server.py."""

from __future__ import annotations

from fairlead.dns.forward import Upstreams
from fairlead.dns.metrics import Histogram, render
from tests.dns.world import engine, host, question, send


def test_a_value_on_a_bound_is_within_it() -> None:
    histogram = Histogram((1.0, 2.0))
    for value, times in ((0.5, 1), (1.0, 2), (1.5, 1), (9.0, 3)):
        histogram.add(value, times)
    assert list(histogram.lines("x", 'a="b"')) == [
        'x_bucket{a="b",le="1.0"} 3',
        'x_bucket{a="b",le="2.0"} 4',
        'x_bucket{a="b",le="+Inf"} 7',
        'x_sum{a="b"} 31',
        'x_count{a="b"} 7',
    ]


def test_labels_never_come_from_the_clients_hands() -> None:
    server = engine()
    for rtype in range(1000, 1100):
        octets = question(host("web"))
        send(server, octets[:-4] + rtype.to_bytes(2, "big") + octets[-2:])
    send(server, b"\0\0\x28\0" + bytes(8))
    lines = [line for line in render(server, Upstreams(()), "dns://x", "1", 0.0) if "requests_total{" in line]
    mine = [line for line in lines if line.startswith("coredns_dns_requests_total")]
    assert len(mine) == 2
    assert any('type="other"} 100' in line for line in mine)
    assert any('zone="dropped"' in line for line in mine)
