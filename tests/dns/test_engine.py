"""Octets in, octets out: the whole server but its sockets."""

from __future__ import annotations

from typing import Any

import dns.edns
import dns.flags
import dns.message
import dns.rcode
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.dns.engine import Engine, Pending
from fairlead.dns.message import Message, RRset, read_message, wire_name
from fairlead.registry.model import Endpoint
from fairlead.registry.snapshot import Snapshot
from tests.dns.world import (
    HTTP,
    WORLD,
    ask,
    engine,
    external,
    finish,
    host,
    outcome,
    question,
    read,
    records,
    send,
    service,
    shared,
    snapshot,
)


def test_the_second_asker_is_answered_from_finished_octets() -> None:
    server = engine()
    first = send(server, question(host("web"), ident=1))
    assert server.udp.get(question(host("web"), ident=2)) == b"\0\2" + first[2:]  # type: ignore[index]


def test_what_differs_in_the_question_differs_in_the_answer() -> None:
    server = shared()
    differing: list[dict[str, Any]] = [{"use_edns": 0}, {"use_edns": 0, "want_dnssec": True}, {"flags": 0}, {}]
    for fields in differing:
        for name in (host("web"), host("web").upper()):
            for _ in range(2):
                ask(server, name, tcp=False, **fields)


def test_answers_change_at_once_when_health_changes() -> None:
    def world(version: int, *ready: bool) -> Snapshot:
        endpoints = tuple(Endpoint(f"10.0.0.{n}", 80, "http", ready=is_ready) for n, is_ready in enumerate(ready))
        return snapshot(service("s", headless=True, ports=(HTTP,)), version=version, endpoints={host("s"): endpoints})

    server = engine(world(1, True, True))
    for tcp in (False, True):
        for rtype, name in (("A", host("s")), ("SRV", f"_http._tcp.{host('s')}"), ("A", f"10-0-0-1.{host('s')}")):
            for _ in range(3):
                assert outcome(ask(server, name, rtype, tcp=tcp)) == "NOERROR"
    server.update(world(2, True, False))
    for tcp in (False, True):
        assert records(ask(server, host("s"), tcp=tcp).answer) == [f"{host('s')}. 5 A 10.0.0.0"]
        assert len(ask(server, f"_http._tcp.{host('s')}", "SRV", tcp=tcp).answer[0]) == 1
        assert outcome(ask(server, f"10-0-0-1.{host('s')}", tcp=tcp)) == "NXDOMAIN"
    server.update(world(3, False, False))
    assert outcome(ask(server, host("s"), tcp=False)) == "NXDOMAIN"
    server.update(world(4, False, True))
    assert records(ask(server, host("s"), tcp=False).answer) == [f"{host('s')}. 5 A 10.0.0.1"]


def test_an_answer_that_did_not_change_stays_finished() -> None:
    server = engine()
    send(server, question(host("web")))
    more = (*WORLD.services.values(), service("new", addresses=("10.0.0.1",)))
    server.update(snapshot(*more, version=2, endpoints=dict(WORLD.endpoints)))
    assert server.udp.get(question(host("web"))) is not None


def test_glue_and_aliases_follow_their_targets() -> None:
    server = engine(snapshot(service("a", external_name=host("b")), service("b", addresses=("10.0.0.1",))))
    assert records(ask(server, host("a")).answer)[1].endswith("10.0.0.1")
    server.update(snapshot(service("a", external_name=host("b")), service("b", addresses=("10.0.0.2",)), version=2))
    assert records(ask(server, host("a")).answer)[1].endswith("10.0.0.2")


def test_a_new_wildcard_host_takes_over_names_answered_before() -> None:
    server = engine(snapshot(external("a.example.com", addresses=("10.0.0.1",))))
    assert outcome(ask(server, "b.example.com")) == "REFUSED"
    server.update(snapshot(external("*.example.com", addresses=("10.0.0.2",)), version=2))
    assert records(ask(server, "b.example.com").answer) == ["b.example.com. 5 A 10.0.0.2"]


def test_addresses_take_turns() -> None:
    server = engine()
    firsts = [read(q, send(server, q)).answer[0][0].address for q in [question(host("db"))] * 6]  # type: ignore[arg-type]
    assert sorted(firsts[:3]) == ["10.1.0.11", "10.1.0.12", "10.1.0.13"]
    assert firsts[3:] == firsts[:3]


def test_of_many_addresses_each_comes_to_be_given() -> None:
    server = engine()
    octets = question(host("many"))
    seen = set()
    for step in range(400):
        reply = send(server, octets, draw=step * 0.37 % 1)
        parsed = dns.message.from_wire(reply, raise_on_truncation=False)  # type: ignore[arg-type]
        assert parsed.flags & dns.flags.TC
        seen |= {rdata.address for rdata in parsed.answer[0]}
    assert len(seen) == 100


@pytest.mark.parametrize(("payload", "limit"), [(None, 512), (100, 512), (512, 512), (1232, 1232), (65535, 1232)])
def test_udp_answers_keep_to_what_the_client_takes(payload: int | None, limit: int) -> None:
    octets = question(host("huge")) if payload is None else question(host("huge"), use_edns=0, payload=payload)
    reply = send(shared(), octets)
    assert reply is not None
    assert limit - 16 < len(reply) <= limit
    parsed = dns.message.from_wire(reply, raise_on_truncation=False)
    assert parsed.flags & dns.flags.TC
    assert parsed.question


def test_over_tcp_a_large_answer_is_whole() -> None:
    got = ask(shared(), host("huge"), tcp=True)
    assert len(got.answer[0]) == 2500
    assert not got.flags & dns.flags.TC


def test_over_tcp_more_than_fits_is_cut_with_tc() -> None:
    octets = question(f"_http._tcp.{host('huge')}", "SRV")
    reply = send(shared(), octets, tcp=True)
    assert reply is not None
    parsed = dns.message.from_wire(reply, raise_on_truncation=False)
    assert parsed.flags & dns.flags.TC
    assert 60000 < len(reply) <= 65535


def test_not_yet_synced_our_zone_fails_and_says_why() -> None:
    server = engine(None)
    got = ask(server, host("web"), use_edns=0)
    assert outcome(got) == "SERVFAIL"
    assert [int(option.code) for option in got.options if isinstance(option, dns.edns.EDEOption)] == [14]
    assert outcome(ask(server, "1.0.0.10.in-addr.arpa", "PTR")) == "SERVFAIL"
    server.update(WORLD)
    assert outcome(ask(server, host("web"), use_edns=0)) == "NOERROR"


@pytest.mark.parametrize("rtype", ["AXFR", "IXFR"])
def test_transfers_are_refused(rtype: str) -> None:
    message = dns.message.make_query("cluster.local", "A")
    octets = message.to_wire()
    octets = octets[:-4] + {"AXFR": b"\0\xfc", "IXFR": b"\0\xfb"}[rtype] + octets[-2:]
    reply = send(shared(), octets, tcp=True)
    assert reply is not None
    assert reply[3] & 15 == 5


def test_cookies_and_other_options_are_not_echoed() -> None:
    option = dns.edns.GenericOption(dns.edns.OptionType.COOKIE, b"12345678")
    for _ in range(2):
        got = ask(shared(), host("web"), tcp=False, use_edns=0, options=[option])
        assert got.options == ()
        assert outcome(got) == "NOERROR"


def test_recursion_is_offered_only_where_there_are_upstreams() -> None:
    assert not ask(shared(), host("web")).flags & dns.flags.RA
    assert ask(engine(forwards=True), host("web")).flags & dns.flags.RA


def pending(server: Engine, octets: bytes, **fields: Any) -> Pending:
    made = server.reply(octets, False, "127.0.0.1", 0.0, 0.0, **fields)
    assert isinstance(made, Pending)
    return made


def upstream(name: str, *rrsets: tuple[str, int, str, str], rcode: int = 0, soa: bool = False) -> Message:
    reply = dns.message.make_response(dns.message.make_query(name, "A"))
    reply.set_rcode(dns.rcode.Rcode(rcode))
    for owner, ttl, rtype, data in rrsets:
        reply.answer.append(dns.rrset.from_text(owner, ttl, "IN", rtype, data))
    if soa:
        reply.authority.append(dns.rrset.from_text("example.com.", 900, "IN", "SOA", "a. b. 1 2 3 4 60"))
    return read_message(reply.to_wire())


def test_other_names_are_asked_upstream_and_kept_while_their_ttl_counts_down() -> None:
    server = engine(forwards=True)
    octets = question("wWw.example.com", use_edns=0)
    waiting = pending(server, octets)
    assert waiting.key == (wire_name("www.example.com"), 1, False, False)
    known = server.learn(waiting.key, upstream("www.example.com", ("www.example.com.", 30, "A", "192.0.2.7")), 0.0)
    got = read(octets, finish(server, waiting, known, 0.0, 0.0))
    assert records(got.answer) == ["wWw.example.com. 30 A 192.0.2.7"]
    assert not got.flags & dns.flags.AA
    assert got.flags & dns.flags.RA
    assert server.udp.get(octets) is not None
    server.tick()
    assert server.udp.get(octets) is None, "its TTL has to count down"
    reply = server.reply(octets, False, "127.0.0.1", 12.5, 0.0)
    assert isinstance(reply, bytes)
    assert records(read(octets, reply).answer) == ["wWw.example.com. 18 A 192.0.2.7"]
    server.tick()
    assert isinstance(server.reply(octets, False, "127.0.0.1", 30.0, 0.0), Pending)


def test_an_alias_to_elsewhere_is_joined_with_what_the_upstream_says() -> None:
    server = engine(forwards=True)
    octets = question(host("outside"))
    waiting = pending(server, octets)
    assert waiting.key[0] == wire_name("www.example.com")
    chain = (("www.example.com.", 30, "CNAME", "e.example.net."), ("e.example.net.", 20, "A", "192.0.2.8"))
    known = server.learn(waiting.key, upstream("www.example.com", *chain), 0.0)
    got = read(octets, finish(server, waiting, known, 0.0, 0.0))
    assert [r.name.to_text() for r in got.answer] == [f"{host('outside')}.", "www.example.com.", "e.example.net."]
    assert got.flags & dns.flags.AA


def test_an_alias_to_a_missing_name_elsewhere_is_nxdomain() -> None:
    server = engine(forwards=True)
    octets = question(host("outside"))
    waiting = pending(server, octets)
    known = server.learn(waiting.key, upstream("www.example.com", rcode=3, soa=True), 0.0)
    got = read(octets, finish(server, waiting, known, 0.0, 0.0))
    assert outcome(got) == "NXDOMAIN"
    assert len(got.answer) == 1
    assert got.authority


def test_nxdomain_of_an_upstream_holds_for_all_types() -> None:
    server = engine(forwards=True)
    waiting = pending(server, question("no.example.com"))
    finish(server, waiting, server.learn(waiting.key, upstream("no.example.com", rcode=3, soa=True), 0.0), 0.0, 0.0)
    reply = server.reply(question("no.example.com", "AAAA"), False, "127.0.0.1", 1.0, 0.0)
    assert isinstance(reply, bytes)
    got = dns.message.from_wire(reply)
    assert outcome(got) == "NXDOMAIN"
    assert got.authority[0].ttl == 899


def test_without_an_upstreams_answer_what_has_expired_is_given_and_marked() -> None:
    server = engine(forwards=True)
    octets = question("www.example.com", use_edns=0)
    waiting = pending(server, octets)
    server.learn(waiting.key, upstream("www.example.com", ("www.example.com.", 30, "A", "192.0.2.7")), 0.0)
    late = server.reply(octets, False, "127.0.0.1", 100.0, 0.0)
    assert isinstance(late, Pending)
    got = read(octets, finish(server, late, None, 104.0, 0.0))
    assert records(got.answer) == ["www.example.com. 30 A 192.0.2.7"]
    assert [int(option.code) for option in got.options if isinstance(option, dns.edns.EDEOption)] == [3]
    soon = server.reply(octets, False, "127.0.0.1", 110.0, 0.0)
    assert isinstance(soon, bytes), "no waiting again for a server that is known to be silent"
    assert isinstance(server.reply(octets, False, "127.0.0.1", 140.0, 0.0), Pending)


def test_without_any_answer_it_is_servfail_with_the_reason() -> None:
    server = engine(forwards=True)
    octets = question("www.example.com", use_edns=0)
    got = read(octets, finish(server, pending(server, octets), None, 4.4, 0.0))
    assert outcome(got) == "SERVFAIL"
    assert [int(option.code) for option in got.options if isinstance(option, dns.edns.EDEOption)] == [23]


def test_a_stranger_is_refused_what_is_not_ours() -> None:
    server = engine(forwards=True, everyone=False)
    octets = question("www.example.com")
    for source in ("203.0.113.9", "2001:db8::1", "::ffff:203.0.113.9", ""):
        assert outcome(read(octets, send(server, octets, source=source))) == "REFUSED"  # type: ignore[arg-type]
        assert outcome(read(octets, send(server, octets, source=source))) == "REFUSED"  # type: ignore[arg-type]
    for source in ("10.1.2.3", "::1", "::ffff:192.168.0.1", "fe80::1%eth0"):
        assert isinstance(server.reply(octets, False, source, 0.0, 0.0), Pending)
    waiting = server.reply(octets, False, "10.1.2.3", 0.0, 0.0)
    assert isinstance(waiting, Pending)
    known = server.learn(waiting.key, upstream("www.example.com", ("www.example.com.", 30, "A", "192.0.2.7")), 0.0)
    finish(server, waiting, known, 0.0, 0.0)
    assert outcome(read(octets, send(server, octets, source="203.0.113.9"))) == "REFUSED"  # type: ignore[arg-type]


def test_types_other_than_addresses_of_an_outside_host_go_upstream() -> None:
    server = engine(forwards=True)
    assert isinstance(server.reply(question("api.example.com", "TXT"), False, "127.0.0.1", 0.0, 0.0), Pending)
    assert isinstance(server.reply(question("self.example.com", "A"), False, "127.0.0.1", 0.0, 0.0), Pending)
    assert outcome(ask(server, "api.example.com", "AAAA")) == "NODATA"


def test_private_reverse_names_do_not_leave_unless_told() -> None:
    octets = question("9.9.9.10.in-addr.arpa", "PTR")
    assert outcome(read(octets, send(engine(forwards=True), octets))) == "NXDOMAIN"  # type: ignore[arg-type]
    told = engine(forwards=True, forward_private_reverse=True)
    assert isinstance(told.reply(octets, False, "127.0.0.1", 0.0, 0.0), Pending)


CODES = {0, 1, 3, 4, 5}


def check_any(octets: bytes) -> None:
    server = shared()
    for tcp in (False, True):
        reply = send(server, octets, tcp=tcp)
        if len(octets) < 12 or octets[2] & 0x80:
            assert reply is None
            continue
        assert reply is not None
        assert reply[:2] == octets[:2]
        assert reply[2] & 0x80
        parsed = dns.message.from_wire(reply, raise_on_truncation=False)
        assert int(parsed.rcode()) in CODES | {16}
        assert parsed.opcode() == octets[2] >> 3 & 15


@given(st.binary(max_size=80))
def test_any_octets_get_a_valid_reply_or_none(octets: bytes) -> None:
    check_any(octets)


@given(
    flags=st.binary(min_size=2, max_size=2),
    counts=st.lists(st.integers(0, 2), min_size=4, max_size=4),
    rest=st.binary(max_size=120),
)
def test_any_octets_behind_a_header_get_a_valid_reply_or_none(flags: bytes, counts: list[int], rest: bytes) -> None:
    check_any(b"ID" + flags + b"".join(n.to_bytes(2, "big") for n in counts) + rest)


@given(
    at=st.integers(0, 200),
    octet=st.integers(0, 255),
    edns=st.booleans(),
    name=st.sampled_from(["web", "db", "alias", "no"]),
)
def test_a_question_with_one_octet_changed_gets_a_valid_reply_or_none(
    at: int, octet: int, edns: bool, name: str
) -> None:
    octets = bytearray(question(host(name), use_edns=0 if edns else -1))
    octets[at % len(octets)] = octet
    check_any(bytes(octets))


@given(st.integers(0, 65535), st.sampled_from(["web", "db", "six", "no", "_http._tcp.web", "alias"]))
def test_every_type_gets_noerror_or_nxdomain(rtype: int, name: str) -> None:
    octets = question(host(name))
    octets = octets[:-4] + rtype.to_bytes(2, "big") + octets[-2:]
    reply = send(shared(), octets)
    assert reply is not None
    assert reply[3] & 15 in ((5,) if rtype in (251, 252) else (0, 3))


def test_finished_answers_are_bounded_and_counted() -> None:
    server = engine(finished=50)
    for n in range(500):
        send(server, question(f"no{n}.default.svc.cluster.local"))
        send(server, question(host("web")))
    assert len(server.udp.young) + len(server.udp.old) <= 100
    assert len(server.udp._young_names) + len(server.udp._old_names) <= 100
    counted = sum(server.udp.counted().values()) + sum(server.metrics.replies.values())
    assert counted == 1000


def test_a_fault_of_ours_costs_one_servfail() -> None:
    server = engine()
    server.zone.lookup = None  # type: ignore[method-assign,assignment]
    reply = server.reply(question(host("web")), False, "127.0.0.1", 0.0, 0.0)
    assert isinstance(reply, bytes)
    assert reply[3] & 15 == 2
    assert server.metrics.panics == 1


def test_record_sets_compare_by_value() -> None:
    entry = RRset(wire_name("a"), 1, 5, (b"1234",))
    assert entry != RRset(wire_name("a"), 1, 6, (b"1234",))
    assert hash(entry) == hash(RRset(wire_name("a"), 1, 6, (b"1234",)))
