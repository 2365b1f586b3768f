"""Reading questions strictly, taking answers apart, writing them within a size."""

from __future__ import annotations

import dns.edns
import dns.flags
import dns.message
import dns.name
import dns.rdatatype
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.dns.message import (
    Malformed,
    Query,
    RRset,
    labels_of,
    parents,
    read_message,
    read_query,
    show_name,
    wire_name,
)
from fairlead.dns.write import write_answer
from tests.dns.world import question

HEADER = b"\x12\x34\x01\x00\0\1\0\0\0\0\0\0"
WEB = question("web.default.svc.cluster.local")
EDNS = question("web.default.svc.cluster.local", use_edns=0, payload=1400, want_dnssec=True)


def rcode(reply: bytes) -> int:
    """The code of a refusal, which must be whole and echo no more than the question."""
    assert reply[2] & 0x80
    parsed = dns.message.from_wire(reply)
    assert not parsed.answer
    assert not parsed.authority
    return int(parsed.rcode())


def test_a_question_is_read() -> None:
    query = read_query(EDNS)
    assert isinstance(query, Query)
    assert query.key == wire_name("web.default.svc.cluster.local")
    assert (query.qtype, query.rd, query.edns, query.do, query.payload, query.plain) == (
        1,
        True,
        True,
        True,
        1400,
        True,
    )


def test_short_messages_and_replies_get_nothing() -> None:
    assert all(read_query(WEB[:size]) is None for size in range(12))
    assert read_query(WEB[:2] + b"\x81" + WEB[3:]) is None


@pytest.mark.parametrize("size", range(12, len(WEB)))
def test_a_question_cut_anywhere_is_a_format_error(size: int) -> None:
    reply = read_query(WEB[:size])
    assert isinstance(reply, bytes)
    assert rcode(reply) == 1
    assert reply[:2] == WEB[:2]


@pytest.mark.parametrize("size", range(12, len(EDNS)))
def test_a_question_with_edns_cut_anywhere_is_a_format_error(size: int) -> None:
    reply = read_query(EDNS[:size])
    assert isinstance(reply, bytes)
    assert rcode(reply) == 1


@pytest.mark.parametrize("opcode", [1, 2, 3, 4, 5, 6, 15])
def test_other_opcodes_are_not_implemented(opcode: int) -> None:
    reply = read_query(WEB[:2] + bytes((opcode << 3 | 1,)) + WEB[3:])
    assert isinstance(reply, bytes)
    assert reply[2] == 0x80 | opcode << 3 | 1
    assert rcode(reply) == 4


OPT = b"\0\0\x29\x04\xd0\0\0\0\0\0\0"
NAME = b"\3web\0\0\1\0\1"


@pytest.mark.parametrize(
    ("octets", "expected"),
    [
        (b"\x12\x34\x01\x00\0\0\0\0\0\0\0\0", 1),
        (b"\x12\x34\x01\x00\0\2\0\0\0\0\0\0" + NAME + NAME, 1),
        (HEADER + b"\xc0\x0c\0\1\0\1", 1),
        (HEADER + b"\x40a\0\0\1\0\1", 1),
        (HEADER + b"\x80a\0\0\1\0\1", 1),
        (HEADER + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", 1),
        (HEADER + NAME + b"junk", 1),
        (HEADER[:10] + b"\0\2" + NAME + OPT + OPT, 1),
        (HEADER[:10] + b"\0\1" + NAME + b"\1a" + OPT, 1),
        (HEADER[:6] + b"\0\1\0\0\0\0" + NAME + OPT, 1),
        (HEADER[:10] + b"\0\1" + NAME + OPT[:-2] + b"\0\3\0\3\0", 1),
        (HEADER[:10] + b"\0\1" + NAME + OPT[:-2] + b"\0\4\0\3\0\1", 1),
        (HEADER[:10] + b"\0\1" + NAME + OPT[:-2] + b"\0\x09\0\x0a\0\5abcde", 1),
        (HEADER[:10] + b"\0\1" + NAME + b"\xff\xff" + OPT[1:], 1),
        (HEADER[:10] + b"\0\1" + NAME + OPT[:6] + b"\1\0\0\0\0", 16),
        (HEADER[:10] + b"\0\1" + NAME + OPT[:6] + b"\xff\0\0\0\0", 16),
        (HEADER + b"\3web\0\0\1\0\3", 5),
        (HEADER + b"\3web\0\0\1\0\xff", 5),
    ],
)
def test_what_is_wrong_with_a_question_decides_the_code(octets: bytes, expected: int) -> None:
    reply = read_query(octets)
    assert isinstance(reply, bytes)
    assert rcode(reply) == expected
    assert len(reply) <= len(octets) + 11


def test_empty_and_unknown_options_are_ignored() -> None:
    for options in (b"\0\3\0\0", b"\xff\xe8\0\2ab\0\3\0\0"):
        octets = HEADER[:10] + b"\0\1" + NAME + OPT[:-2] + len(options).to_bytes(2, "big") + options
        query = read_query(octets)
        assert isinstance(query, Query)
        assert not query.plain


def test_a_label_may_hold_any_octets() -> None:
    query = read_query(HEADER + b"\4\xff\0.A\0\0\1\0\1")
    assert isinstance(query, Query)
    assert query.key == b"\4\xff\0.a\0"
    assert show_name(query.key) == "\\255\\000\\.a."


@pytest.mark.parametrize("text", ["a..b", "." + "a", "x" * 64, ".".join(["abcdefg"] * 33)])
def test_what_is_no_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="not a DNS name"):
        wire_name(text)


def test_names_agree_with_dnspython() -> None:
    for text in ("", ".", "a", "A.B.c.", "x" * 63 + ".y"):
        name = wire_name(text)
        assert name == dns.name.from_text(text.lower() or ".").to_wire()
        assert show_name(name) == dns.name.from_text(text.lower() or ".").to_text()
        assert len(labels_of(name)) == len(parents(name))


def addresses(count: int, owner: bytes) -> RRset:
    return RRset(owner, 1, 5, tuple(bytes((10, 0, n >> 8, n & 255)) for n in range(count)))


def written(octets: bytes, *args: object, **fields: object) -> tuple[bytes, dns.message.Message]:
    query = read_query(octets)
    assert isinstance(query, Query)
    reply = octets[:2] + write_answer(query, 0, *args, **fields)  # type: ignore[arg-type]
    return reply, dns.message.from_wire(reply, raise_on_truncation=False)


@given(count=st.integers(0, 60), limit=st.integers(512, 1232), turn=st.integers(0, 70), edns=st.booleans())
def test_an_answer_keeps_to_its_size_and_says_when_it_is_cut(count: int, limit: int, turn: int, edns: bool) -> None:
    octets = EDNS if edns else WEB
    rrset = addresses(count, wire_name("web.default.svc.cluster.local"))
    reply, parsed = written(octets, (rrset,), limit=limit, turn=turn)
    assert len(reply) <= limit
    kept = sum(len(r) for r in parsed.answer)
    assert bool(parsed.flags & dns.flags.TC) == (kept < count)
    if kept < count:
        assert len(reply) + 16 > limit, "one more would have fitted"
        first = parsed.answer[0][0].address
        assert first == f"10.0.0.{turn % count}"
    assert (parsed.edns == 0) == edns
    assert parsed.question


def test_additional_records_left_out_do_not_set_tc() -> None:
    name = wire_name("web.default.svc.cluster.local")
    glue = [addresses(20, wire_name(f"t{n}.example")) for n in range(5)]
    reply, parsed = written(WEB, (addresses(10, name),), (), glue, limit=560)
    assert not parsed.flags & dns.flags.TC
    assert len(parsed.additional) == 1, "a set is given whole or not at all"
    assert len(reply) <= 560


def test_owners_that_are_the_question_keep_its_case() -> None:
    octets = question("wEb.Default.svc.cluster.local")
    reply, parsed = written(octets, (addresses(2, wire_name("web.default.svc.cluster.local")),), limit=512)
    assert parsed.answer[0].name.to_text() == "wEb.Default.svc.cluster.local."
    assert reply.count(b"\xc0\x0c\0\1\0\1") == 2


def test_names_written_past_what_a_pointer_reaches_are_written_out() -> None:
    """16 kB and more: each target twice (SRV and glue), and both readers must agree."""
    name = wire_name("_http._tcp.huge.default.svc.cluster.local")
    targets = [wire_name(f"a-rather-long-endpoint-name-{n}.huge.default.svc.cluster.local") for n in range(400)]
    srv = RRset(name, 33, 5, tuple(b"\0\0\0\1\x1f\x90" + target for target in targets))
    glue = [addresses(1, target) for target in targets]
    reply, parsed = written(question("_http._tcp.huge.default.svc.cluster.local", "SRV"), (srv,), (), glue, limit=65535)
    assert len(reply) > 40000
    assert len(parsed.answer[0]) == 400
    assert {r.name.to_text() for r in parsed.additional} == {show_name(t) for t in targets}
    again = read_message(reply)
    assert [r.owner for r in again.additional] == targets


ZONE_TEXT = """
www.example.com. 300 IN CNAME a.example.com.
a.example.com. 60 IN A 192.0.2.1
a.example.com. 60 IN A 192.0.2.2
example.com. 60 IN MX 10 mail.example.com.
example.com. 60 IN SOA ns.example.com. host.example.com. 1 2 3 4 5
_x._tcp.example.com. 60 IN SRV 1 2 3 target.example.com.
example.com. 60 IN TXT "one" "two"
example.com. 60 IN NAPTR 1 2 "s" "x" "" replacement.example.com.
example.com. 60 IN TYPE65333 \\# 3 010203
example.com. 60 IN CAA 0 issue "ca.example"
"""


def upstream_reply() -> bytes:
    message = dns.message.make_response(dns.message.from_wire(question("www.example.com", use_edns=0)))
    for line in ZONE_TEXT.strip().splitlines():
        name, ttl, _, rtype, data = line.split(" ", 4)
        message.answer.append(dns.rrset.from_text(name, int(ttl), "IN", rtype, data))
    return message.to_wire()


def test_records_of_all_kinds_come_through_unchanged() -> None:
    octets = question("www.example.com", use_edns=0)
    taken = read_message(upstream_reply())
    _, parsed = written(octets, taken.answer, limit=65535)
    before = dns.message.from_wire(upstream_reply())
    assert sorted(r.to_text() for r in parsed.answer) == sorted(r.to_text() for r in before.answer)


def test_an_answer_cut_anywhere_is_refused_whole() -> None:
    whole = upstream_reply()
    for size in range(len(whole) - 11):  # the OPT at the end is not missed
        with pytest.raises(Malformed):
            read_message(whole[:size])


@given(st.binary(max_size=200))
def test_any_octets_are_an_answer_or_malformed(octets: bytes) -> None:
    for message in (octets, HEADER[:2] + b"\x81\x80" + HEADER[4:6] + b"\0\2\0\1\0\1" + octets):
        try:
            read_message(message)
        except Malformed:
            pass


@given(at=st.integers(0, 400), octet=st.integers(0, 255))
def test_an_answer_with_one_octet_changed_is_an_answer_or_malformed(at: int, octet: int) -> None:
    whole = bytearray(upstream_reply())
    whole[at % len(whole)] = octet
    try:
        taken = read_message(bytes(whole))
    except Malformed:
        return
    # Rdata of types we do not look into is passed on as it came, so our own reader is the judge.
    query = read_query(question("www.example.com"))
    assert isinstance(query, Query)
    reply = b"ID" + write_answer(query, 0, taken.answer, taken.authority, taken.additional, limit=65535)
    assert sum(len(r.rdata) for r in read_message(reply).answer) == sum(len(r.rdata) for r in taken.answer)


def test_a_long_chain_of_pointers_ends() -> None:
    chain = b"".join((0xC000 | 12 + 16 + 2 * n).to_bytes(2, "big") for n in range(1500))
    octets = HEADER[:2] + b"\x81\x80\0\1\0\1\0\0\0\0" + b"\1a\0\0\1\0\1" + b"\1b\0" + chain
    with pytest.raises(Malformed):
        read_message(octets)
