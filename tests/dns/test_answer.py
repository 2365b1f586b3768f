"""Names that never leave the host, rotation, and the short way to say no."""

from __future__ import annotations

import dns.message
import pytest

from fairlead.dns.answer import VARIANTS, from_zone, rotations, size_limit, special
from fairlead.dns.message import Query, RRset, read_query, wire_name
from fairlead.dns.write import write_denial
from tests.dns.world import host, question, shared


@pytest.mark.parametrize("name", ["www.example.com", "example", "localhost.example.com", ".", "in-addr.arpa", "local"])
def test_other_names_are_not_special(name: str) -> None:
    assert special(wire_name(name), 1) is None


@pytest.mark.parametrize("edns", [-1, 0])
@pytest.mark.parametrize(
    "name", [host("no"), "a." * 100 + host("no"), host("web"), "cluster.local", "svc.cluster.LOCAL"]
)
def test_the_short_way_to_say_no_says_the_same(name: str, edns: int) -> None:
    server = shared()
    octets = question(name, "TXT", use_edns=edns, want_dnssec=edns == 0)
    query = read_query(octets)
    assert isinstance(query, Query)
    found = server.zone.lookup(query.key, query.qtype, False)
    assert found is not None
    assert server.zone.is_plain_denial(found)
    long = octets[:2] + from_zone(query, found, tcp=False, ra=False)
    short = octets[:2] + write_denial(query, found.rcode, server.zone.start_behind(query.question), ra=False)
    assert dns.message.from_wire(short).to_text() == dns.message.from_wire(long).to_text()
    assert len(short) <= len(long)


def test_small_sets_turn_whole_and_large_ones_in_samples() -> None:
    small = (RRset(b"\0", 1, 5, tuple(bytes((n,)) * 4 for n in range(3))),)
    assert rotations(small, 0.0) == ([0, 1, 2], True)
    assert rotations(small, 0.99) == ([2, 0, 1], True)
    large = (RRset(b"\0", 1, 5, tuple(n.to_bytes(4, "big") for n in range(1000))),)
    starts, whole = rotations(large, 0.5)
    assert (len(starts), starts[0], whole) == (VARIANTS, 500, False)
    assert rotations((), 0.5) == ([0], True)
    assert rotations((RRset(b"\0", 16, 5, (b"a", b"b")),), 0.5) == ([0], True), "texts keep their order"


def test_size_follows_transport_and_client() -> None:
    query = read_query(question("a.example"))
    assert isinstance(query, Query)
    assert (size_limit(query, False), size_limit(query, True)) == (512, 65535)
    query.payload = 4096
    assert size_limit(query, False) == 1232
