"""DNS cookies: SipHash by its own vectors, RFC 9018's examples, and what the server does with them."""

from __future__ import annotations

from struct import unpack

import dns.edns
import dns.message
import dns.rcode
import pytest

from fairlead.dns.cookies import AHEAD_S, OLDEST_S, RENEW_S, Cookies, siphash24
from tests.dns.world import ask, engine, host, question, read, send

KEY = unpack("<QQ", bytes(range(16)))
SECRET = bytes.fromhex("e5e973e5a6b2a43f48e7dc849e37bfcf")
CLIENT = bytes.fromhex("2464c4abcf10c957")
ADDRESS = bytes([198, 51, 100, 100])


@pytest.mark.parametrize(
    ("size", "expected"), [(0, "310e0edd47db6f72"), (1, "fd67dc93c539f874"), (15, "e545be4961ca29a1")]
)
def test_siphash_gives_what_its_authors_published(size: int, expected: str) -> None:
    assert siphash24(KEY, bytes(range(size))).hex() == expected


def test_a_cookie_is_that_of_rfc_9018_appendix_a() -> None:
    made = Cookies((SECRET,)).reply(CLIENT, ADDRESS, 1559731985)
    assert made.hex() == "2464c4abcf10c957010000005cf79f111f8130c3eee29480"


def test_a_good_cookie_comes_back_until_it_is_old() -> None:
    cookies = Cookies((SECRET,))
    made = cookies.reply(CLIENT, ADDRESS, 1000)
    assert cookies.good(made, ADDRESS, 1000 + OLDEST_S)
    assert not cookies.good(made, ADDRESS, 1001 + OLDEST_S)
    assert cookies.good(made, ADDRESS, 1000 - AHEAD_S)
    assert not cookies.good(made, ADDRESS, 999 - AHEAD_S)
    assert cookies.reply(made, ADDRESS, 1000 + RENEW_S - 1) == made
    assert cookies.reply(made, ADDRESS, 1000 + RENEW_S) != made


def test_a_cookie_of_another_address_client_or_secret_is_not_good() -> None:
    cookies = Cookies((SECRET,))
    made = cookies.reply(CLIENT, ADDRESS, 1000)
    assert not cookies.good(made, bytes([198, 51, 100, 101]), 1000)
    assert not cookies.good(b"x" + made[1:], ADDRESS, 1000)
    assert not cookies.good(made[:-1] + b"x", ADDRESS, 1000)
    assert not cookies.good(made + b"x", ADDRESS, 1000)
    assert not Cookies((bytes(16),)).good(made, ADDRESS, 1000)
    assert Cookies((bytes(16), SECRET)).good(made, ADDRESS, 1000), "a secret that is being replaced"


def test_a_secret_of_another_length_is_refused() -> None:
    with pytest.raises(ValueError, match="16 octets"):
        Cookies((b"short",))


def cookie_of(message: dns.message.Message) -> bytes:
    (option,) = [option for option in message.options if int(option.otype) == 10]
    return bytes(option.to_wire() or b"")


def with_cookie(data: bytes, name: str = host("web")) -> bytes:
    return question(name, use_edns=0, options=[dns.edns.GenericOption(dns.edns.OptionType.COOKIE, data)])


def test_a_client_that_sends_one_gets_one_also_with_an_error() -> None:
    server = engine(cookie_secrets=(SECRET,))
    for name in (host("web"), host("none"), "www.example.com"):
        octets = with_cookie(CLIENT, name)
        got = read(octets, send(server, octets))  # type: ignore[arg-type]
        cookie = cookie_of(got)
        assert len(cookie) == 24
        assert cookie[:8] == CLIENT
        assert server.known_client(with_cookie(cookie), "127.0.0.1", 0.0)
        assert not server.known_client(with_cookie(cookie), "127.0.0.2", 0.0)
        assert not server.known_client(octets, "127.0.0.1", 0.0)
        assert not server.known_client(b"x", "127.0.0.1", 0.0)
    assert not ask(server, host("web"), use_edns=0).options, "who sends none gets none"


def test_without_a_question_a_cookie_can_still_be_had() -> None:
    server = engine(cookie_secrets=(SECRET,))
    header = b"ID\1\0\0\0\0\0\0\0\0\1"
    octets = header + b"\0\0\x29\4\xd0\0\0\0\0\0\x0c\0\x0a\0\x08" + CLIENT
    got = dns.message.from_wire(send(server, octets))  # type: ignore[arg-type]
    assert not got.question
    assert got.rcode() == dns.rcode.NOERROR
    assert cookie_of(got)[:8] == CLIENT
    for broken in (
        octets[:-1],
        octets + b"x",
        header + b"\0\0\x29\4\xd0\0\0\0\0\0\0",
        octets.replace(b"\0\x29", b"\0\x2a"),
    ):
        reply = send(server, broken)
        assert reply is not None
        assert reply[3] & 15 == 1
