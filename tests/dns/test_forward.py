"""One question to the upstreams, as a conversation with a clock of its own."""

from __future__ import annotations

from collections.abc import Callable

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.dns.forward import NEXT_SERVER_S, TOTAL_S, Lookup, Send, Upstreams
from fairlead.dns.message import wire_name

ONE, TWO, THREE = ("192.0.2.1", 53), ("192.0.2.2", 53), ("2001:db8::3", 5353)
KEY = (wire_name("www.example.com"), 1, False, False)


def lookup(*servers: tuple[str, int], upstreams: Upstreams | None = None, now: float = 0.0) -> Lookup:
    idents = iter(range(1000, 2000))
    return Lookup(KEY, upstreams or Upstreams(servers), now, lambda: next(idents))


def sent(one: Lookup) -> list[Send]:
    out, one.outbox = one.outbox, []
    return out


def answer(send: Send, *, rcode: int = 0, change: Callable[[dns.message.Message], None] | None = None) -> bytes:
    reply = dns.message.make_response(dns.message.from_wire(send.octets))
    reply.set_rcode(dns.rcode.Rcode(rcode))
    if not rcode:
        reply.answer.append(dns.rrset.from_text("www.example.com.", 60, "IN", "A", "192.0.2.80"))
    if change:
        change(reply)
    return reply.to_wire()


def test_the_first_servers_answer_is_the_result() -> None:
    one = lookup(ONE, TWO)
    (send,) = sent(one)
    assert (send.server, send.tcp) == (ONE, False)
    query = dns.message.from_wire(send.octets)
    assert query.flags & dns.flags.RD
    assert (query.edns, query.payload, query.id) == (0, 1232, 1000)
    assert one.reply(send.number, ONE, answer(send), 0.01)
    assert one.done
    assert one.result is not None
    assert one.result.answer[0].rdata == (b"\xc0\0\2\x50",)


def test_what_is_not_an_answer_to_the_question_is_ignored() -> None:
    one = lookup(ONE)
    (send,) = sent(one)
    good = answer(send)

    def other(reply: dns.message.Message) -> None:
        reply.question[0].name = dns.name.from_text("www.example.org.")

    forged = [
        (TWO, good),
        (("192.0.2.1", 54), good),
        (ONE, b"\0\0" + good[2:]),
        (ONE, send.octets),
        (ONE, good[:11]),
        (ONE, b""),
        (ONE, answer(send, change=other)),
    ]
    for source, octets in forged:
        assert not one.reply(send.number, source, octets, 0.01)
    assert not one.reply(99, ONE, good, 0.01)
    assert not one.done
    assert one.reply(send.number, ONE, good, 0.02)
    assert one.done


def test_a_silent_server_is_raced_by_the_next() -> None:
    one = lookup(ONE, TWO)
    sent(one)
    assert one.wake_at() == NEXT_SERVER_S
    one.tick(NEXT_SERVER_S)
    (second,) = sent(one)
    assert second.server == TWO
    assert second.octets[:2] != b"\x03\xe8", "an ID of its own"
    one.reply(second.number, TWO, answer(second), 0.3)
    assert one.done


@pytest.mark.parametrize("rcode", [2, 4, 5])
def test_a_server_that_will_not_answer_is_left_for_the_next_at_once(rcode: int) -> None:
    one = lookup(ONE, TWO)
    (first,) = sent(one)
    one.reply(first.number, ONE, answer(first, rcode=rcode), 0.01)
    (second,) = sent(one)
    assert second.server == TWO
    one.reply(second.number, TWO, answer(second, rcode=3), 0.02)
    assert one.result is not None
    assert one.result.rcode == 3


def test_when_all_fail_the_failure_is_the_result_without_waiting() -> None:
    one = lookup(ONE, TWO)
    (first,) = sent(one)
    one.reply(first.number, ONE, answer(first, rcode=5), 0.01)
    (second,) = sent(one)
    one.reply(second.number, TWO, answer(second, rcode=2), 0.02)
    assert one.done
    assert one.result is not None
    assert one.result.rcode == 2


def test_an_unreachable_server_is_left_for_the_next_at_once() -> None:
    one = lookup(ONE, TWO)
    (first,) = sent(one)
    one.failed(first.number, 0.0)
    assert [send.server for send in sent(one)] == [TWO]


def test_silence_ends_before_a_stub_gives_up() -> None:
    one = lookup(ONE)
    tries = len(sent(one))
    for _ in range(20):
        if one.done:
            break
        one.tick(one.wake_at())
        tries += len(sent(one))
    assert one.done
    assert one.result is None
    assert one.wake_at() <= TOTAL_S < 4.5
    assert tries == 4


def test_a_cut_answer_is_asked_again_over_tcp() -> None:
    def cut(reply: dns.message.Message) -> None:
        reply.flags |= dns.flags.TC
        reply.answer.clear()

    one = lookup(ONE)
    (send,) = sent(one)
    one.reply(send.number, ONE, answer(send, change=cut), 0.01)
    (again,) = sent(one)
    assert (again.server, again.tcp) == (ONE, True)
    one.reply(again.number, ONE, answer(again), 0.02)
    assert one.done
    assert one.result is not None
    assert one.result.answer


def test_a_server_that_knows_no_edns_is_asked_without() -> None:
    one = lookup(ONE)
    (send,) = sent(one)
    assert one.reply(send.number, ONE, send.octets[:2] + b"\x81\x81" + bytes(8), 0.01)
    (again,) = sent(one)
    assert dns.message.from_wire(again.octets).edns == -1
    one.reply(again.number, ONE, answer(again), 0.02)
    assert one.done


def test_a_server_that_failed_is_asked_last_for_a_while() -> None:
    upstreams = Upstreams((ONE, TWO))
    one = lookup(upstreams=upstreams)
    (first,) = sent(one)
    one.failed(first.number, 0.0)
    assert upstreams.order(1.0) == [TWO, ONE]
    assert upstreams.order(6.0) == [ONE, TWO]
    assert upstreams.failures[ONE] == 1


def test_records_that_do_not_belong_to_the_question_are_dropped() -> None:
    def add(reply: dns.message.Message) -> None:
        reply.answer.clear()
        for text in (
            "e.example.net. 60 IN A 192.0.2.90",
            "www.example.com. 60 IN CNAME e.example.net.",
            "bank.example. 60 IN A 192.0.2.66",
        ):
            name, ttl, _, rtype, data = text.split(" ", 4)
            reply.answer.append(dns.rrset.from_text(name, int(ttl), "IN", rtype, data))
        reply.additional.append(dns.rrset.from_text("bank.example.", 60, "IN", "A", "192.0.2.66"))
        reply.authority.append(dns.rrset.from_text("bank.example.", 60, "IN", "NS", "evil.example."))

    one = lookup(ONE)
    (send,) = sent(one)
    one.reply(send.number, ONE, answer(send, change=add), 0.01)
    assert one.result is not None
    assert [(r.owner, r.rtype) for r in one.result.answer] == [
        (wire_name("www.example.com"), 5),
        (wire_name("e.example.net"), 1),
    ]
    assert one.result.authority == one.result.additional == []


def test_aliases_in_a_ring_end() -> None:
    def ring(reply: dns.message.Message) -> None:
        reply.answer.clear()
        reply.answer.append(dns.rrset.from_text("www.example.com.", 60, "IN", "CNAME", "b.example.com."))
        reply.answer.append(dns.rrset.from_text("b.example.com.", 60, "IN", "CNAME", "www.example.com."))

    one = lookup(ONE)
    (send,) = sent(one)
    one.reply(send.number, ONE, answer(send, change=ring), 0.01)
    assert one.done


def test_garbage_with_the_right_id_counts_as_a_failure() -> None:
    one = lookup(ONE, TWO)
    (send,) = sent(one)
    assert one.reply(send.number, ONE, send.octets[:2] + b"\x81\x80\0\1\0\1\0\0\0\0\xc0\xff", 0.01)
    assert [again.server for again in sent(one)] == [TWO]


@given(st.binary(max_size=100), st.integers(0, 200), st.integers(0, 255))
def test_no_octets_of_an_upstream_raise(octets: bytes, at: int, octet: int) -> None:
    one = lookup(ONE, THREE)
    (send,) = sent(one)
    one.reply(send.number, ONE, send.octets[:2] + b"\x81" + octets, 0.01)
    other = lookup(ONE)
    (send,) = sent(other)
    changed = bytearray(answer(send))
    changed[at % len(changed)] = octet
    other.reply(send.number, ONE, bytes(changed), 0.01)
    for size in range(len(changed)):
        third = lookup(ONE)
        sent(third)
        third.reply(0, ONE, answer(send)[:size], 0.01)


def test_a_server_that_is_there_and_no_help_is_asked_last() -> None:
    upstreams = Upstreams((ONE, TWO))
    for number in range(3):
        one = lookup(upstreams=upstreams, now=float(number))
        (send,) = sent(one)
        assert send.server == ONE
        one.reply(send.number, ONE, answer(send, rcode=2), number + 0.01)
    assert upstreams.order(3.0) == [TWO, ONE]
    upstreams.answered(ONE, 0, 3.0)
    assert upstreams.order(3.0) == [ONE, TWO]


def test_when_all_fail_all_are_still_asked_and_it_is_counted() -> None:
    upstreams = Upstreams((ONE, TWO))
    for server in (ONE, TWO):
        upstreams.failed(server, 0.0)
    assert upstreams.order(1.0) == [ONE, TWO]
    assert upstreams.broken == 1


def test_without_a_usable_server_a_question_ends_at_once() -> None:
    upstreams = Upstreams((ONE,))
    upstreams.looping.add(ONE)
    one = lookup(upstreams=upstreams)
    assert one.done
    assert one.result is None
    assert not one.outbox


def test_a_server_for_tls_is_never_asked_over_udp() -> None:
    one = lookup(upstreams=Upstreams((ONE,), {ONE: "dns.test"}))
    assert [send.tcp for send in sent(one)] == [True]
