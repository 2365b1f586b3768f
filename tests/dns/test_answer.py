"""Names that never leave the host, rotation, and the short way to say no."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import dns.flags
import dns.message
import pytest

from fairlead.dns.answer import VARIANTS, from_upstream, from_zone, rotations, size_limit, special
from fairlead.dns.cache import Entry
from fairlead.dns.message import AAAA, NOERROR, NXDOMAIN, PTR, SOA, TXT, A, Query, RRset, read_query, wire_name
from fairlead.dns.records import Found
from fairlead.dns.write import write_denial
from tests.dns.world import host, question, shared


@pytest.mark.parametrize("name", ["www.example.com", "example", "localhost.example.com", ".", "in-addr.arpa", "local"])
def test_other_names_are_not_special(name: str) -> None:
    assert special(wire_name(name), 1) is None


@pytest.mark.parametrize(
    ("name", "qtype", "rcode", "answers"),
    [
        ("localhost", A, NOERROR, [b"\x7f\0\0\1"]),
        ("a.b.localhost", AAAA, NOERROR, [bytes(15) + b"\1"]),
        ("localhost", TXT, NOERROR, []),
        ("1.0.0.127.in-addr.arpa", PTR, NOERROR, [wire_name("localhost")]),
        ("1.0.0.127.in-addr.arpa", A, NOERROR, []),
        ("invalid", A, NOERROR, []),
        ("a.invalid", A, NXDOMAIN, []),
        ("x.onion", A, NXDOMAIN, []),
        ("www.test", AAAA, NXDOMAIN, []),
        ("alt", A, NOERROR, []),
        ("resolver.arpa", A, NOERROR, []),
        ("_dns.resolver.arpa", A, NOERROR, []),
        ("x.resolver.arpa", A, NXDOMAIN, []),
    ],
)  # fmt: skip
def test_what_every_resolver_answers_itself(name: str, qtype: int, rcode: int, answers: list[bytes]) -> None:
    found = special(wire_name(name), qtype)
    assert found is not None
    assert (found.rcode, [data for rrset in found.answer for data in rrset.rdata]) == (rcode, answers)
    assert [rrset.rtype for rrset in found.authority] == ([] if answers else [SOA]), "a denial can be kept"
    assert found.depends == (wire_name(name),)


@pytest.mark.parametrize(
    ("alias", "upstream_ad", "wants", "aa", "ad"),
    [
        (False, True, {"want_dnssec": True}, False, True),
        (False, True, {}, False, False),
        (False, False, {"want_dnssec": True}, False, False),
        (True, True, {"want_dnssec": True}, True, False),
    ],
)
def test_what_an_upstream_proved_is_told_to_who_asks_for_it_and_never_of_names_of_ours(
    alias: bool, upstream_ad: bool, wants: dict[str, Any], aa: bool, ad: bool
) -> None:
    octets = question("a.example", "A", **wants)
    query = read_query(octets)
    assert isinstance(query, Query)
    told: Any = SimpleNamespace(rcode=0, flags=0x20 if upstream_ad else 0, authority=[], additional=[],
                                answer=[RRset(wire_name("a.example"), A, 60, (bytes(4),))])  # fmt: skip
    found = Found(NOERROR, (), depends=()) if alias else None
    made = octets[:2] + from_upstream(query, found, Entry(told, 0.0, 60.0), 10.0, tcp=False)
    reply = dns.message.from_wire(made)
    assert (bool(reply.flags & dns.flags.AA), bool(reply.flags & dns.flags.AD)) == (aa, ad)
    assert reply.answer[0].ttl == 50


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
    most = (RRset(b"\0", 1, 5, tuple(bytes((n,)) * 4 for n in range(VARIANTS))),)
    assert rotations(most, 0.0) == (list(range(VARIANTS)), True)
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
