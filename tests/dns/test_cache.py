"""How long answers of others are kept, and which go first."""

from __future__ import annotations

from fairlead.dns.cache import STALE_TTL, Cache, Key
from fairlead.dns.message import Message, RRset, wire_name

NAME = wire_name("www.example.com")


def key(name: str = "www.example.com", rtype: int = 1) -> Key:
    return wire_name(name), rtype, False, False


def message(*answer: RRset, rcode: int = 0, soa: tuple[int, int] | None = None, rtype: int = 1) -> Message:
    made = Message(0x8180, rcode, NAME + rtype.to_bytes(2, "big") + b"\0\1")
    made.answer = list(answer)
    if soa:
        data = wire_name("a") + wire_name("b") + bytes(16) + soa[1].to_bytes(4, "big")
        made.authority = [RRset(wire_name("example.com"), 6, soa[0], (data,))]
    return made


def a(ttl: int) -> RRset:
    return RRset(NAME, 1, ttl, (b"\xc0\0\2\1",))


def cname(ttl: int) -> RRset:
    return RRset(NAME, 5, ttl, (wire_name("e.example.net"),))


def test_the_shortest_ttl_of_the_answer_counts_and_each_goes_down() -> None:
    cache = Cache()
    cache.put(key(), message(cname(300), a(20)), 100.0)
    entry = cache.get(key(), 119.9)
    assert entry is not None
    assert [r.ttl for r in entry.at(110.7)[0]] == [290, 10]
    assert cache.get(key(), 120.0) is None


def test_denials_are_kept_for_the_lesser_of_soa_ttl_and_minimum() -> None:
    for soa, expected in (((60, 900), 60.0), ((900, 60), 60.0), ((9000, 9000), 1800.0)):
        assert Cache().lifetime(message(rcode=3, soa=soa)) == expected
        assert Cache().lifetime(message(soa=soa)) == expected
    assert Cache().lifetime(message(rcode=3)) == 0.0, "no SOA: not to be kept"
    assert Cache().lifetime(message()) == 0.0


def test_an_alias_without_its_target_is_kept_only_as_a_denial_or_as_what_was_asked() -> None:
    assert Cache().lifetime(message(cname(300))) == 0.0
    assert Cache().lifetime(message(cname(300), soa=(60, 60))) == 60.0
    assert Cache().lifetime(message(cname(300), rtype=5)) == 300.0


def test_nxdomain_holds_for_every_type_and_ends_when_the_name_appears() -> None:
    cache = Cache()
    cache.put(key(), message(rcode=3, soa=(60, 60)), 0.0)
    assert cache.get(key(rtype=28), 1.0) is not None
    cache.put(key(rtype=28), message(RRset(NAME, 28, 60, (bytes(16),))), 2.0)
    assert cache.get(key(), 3.0) is None


def test_failures_are_kept_for_a_second_and_never_hide_what_can_still_serve() -> None:
    cache = Cache()
    cache.put(key("x.example"), message(rcode=2), 0.0)
    assert cache.get(key("x.example"), 0.9) is not None
    assert cache.get(key("x.example"), 1.0) is None
    cache.put(key(), message(a(10)), 0.0)
    cache.put(key(), message(rcode=2), 20.0)
    stale = cache.stale(key(), 20.0)
    assert stale is not None
    assert [r.ttl for r in stale.at(20.0)[0]] == [STALE_TTL]


def test_stale_answers_end() -> None:
    cache = Cache(stale_s=100.0)
    cache.put(key(), message(a(10)), 0.0)
    assert cache.stale(key(), 109.0) is not None
    assert cache.stale(key(), 110.0) is None


def test_ttls_are_capped_and_zero_is_not_kept() -> None:
    cache = Cache(longest_s=50.0)
    cache.put(key(), message(a(100000)), 0.0)
    assert cache.get(key(), 49.0) is not None
    assert cache.get(key(), 51.0) is None
    cache.put(key(), message(a(0)), 60.0)
    assert cache.get(key(), 60.0) is None


def test_the_least_recently_used_goes_first() -> None:
    cache = Cache(size=3)
    for n in range(3):
        cache.put(key(f"n{n}.example"), message(a(100)), 0.0)
    assert cache.get(key("n0.example"), 1.0) is not None
    cache.put(key("n3.example"), message(a(100)), 1.0)
    assert cache.get(key("n1.example"), 1.0) is None
    assert cache.get(key("n0.example"), 1.0) is not None
    assert (len(cache), cache.evictions) == (3, 1)


def test_memory_is_bounded_by_octets_too() -> None:
    cache = Cache(octets=20_000)
    big = RRset(NAME, 16, 100, tuple(b"x" * 100 for _ in range(10)))
    for n in range(100):
        cache.put(key(f"n{n}.example"), message(big), 0.0)
    assert cache.held <= 20_000
    assert 0 < len(cache) < 20
    cache.put(key(), message(RRset(NAME, 16, 100, (b"x" * 10_000,))), 0.0)
    assert cache.get(key(), 0.0) is None, "one that would push out all others"
    cache.clear()
    assert (len(cache), cache.held) == (0, 0)


def test_names_can_be_forgotten() -> None:
    cache = Cache()
    cache.put(key(), message(a(100)), 0.0)
    cache.put(key("other.example"), message(a(100)), 0.0)
    cache.forget([NAME])
    assert cache.get(key(), 0.0) is None
    assert cache.get(key("other.example"), 0.0) is not None


def test_only_what_is_in_demand_and_near_its_end_is_asked_for_anew_and_once() -> None:
    cache = Cache()
    key = (wire_name("a"), 1, False, False)
    message = Message(0, 0, wire_name("a") + b"\0\1\0\1")
    message.answer = [RRset(wire_name("a"), 1, 100, (b"1234",))]
    cache.put(key, message, 0.0)
    entry = cache.get(key, 95.0)
    assert entry is not None
    assert not cache.fading(entry, 95.0), "asked for once"
    cache.get(key, 96.0)
    assert not cache.fading(entry, 89.0)
    assert cache.fading(entry, 96.0)
    assert not cache.fading(entry, 97.0), "it is on its way"
    message.answer = [RRset(wire_name("a"), 1, 4, (b"1234",))]
    short = cache.put(key, message, 0.0)
    short.asked = 9
    assert not cache.fading(short, 3.9), "it was to be short"
