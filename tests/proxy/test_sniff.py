"""First bytes: what they are told to be, whole, cut at every byte, and at random."""

from __future__ import annotations

import ssl

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.proxy import sniff


def hello(name: str = "outbound_.80_._.web", alpn: tuple[str, ...] = ("fairlead", "http/1.1")) -> bytes:
    """A ClientHello as OpenSSL makes it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if alpn:
        context.set_alpn_protocols(list(alpn))
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    with pytest.raises(ssl.SSLWantReadError):
        context.wrap_bio(incoming, outgoing, server_hostname=name or None).do_handshake()
    return outgoing.read()


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        (b"", sniff.MORE),
        (b"\x16\x03\x01", sniff.TLS),
        (b"\x16", sniff.MORE),
        (b"\x16\x02\x01", sniff.OPAQUE),
        (b"GET / HTTP/1.1\r\n", sniff.HTTP1),
        (b"GE", sniff.MORE),
        (b"OPTIONS * HTTP/1.1\r\n", sniff.HTTP1),
        (b"CONNECT web:80 HTTP/1.1", sniff.MORE),
        (b"M-SEARCH / HTTP/1.1\r\nHost", sniff.HTTP1),
        (sniff.PREFACE, sniff.HTTP2),
        (b"PRI * HT", sniff.MORE),
        (b"\x00\x00\x00\x08\x04\xd2\x16\x2f", sniff.OPAQUE),
        (b"*1\r\n$4\r\nPING\r\n", sniff.OPAQUE),
        (b"SSH-2.0-x\r\n", sniff.OPAQUE),
        (b"EHLO me\r\n", sniff.OPAQUE),
        (b"PUB subject 5\r\n", sniff.OPAQUE),
        (b"GET /" + b"x" * 3000, sniff.HTTP1),
    ],
)
def test_first_bytes_tell_the_protocol(first: bytes, expected: str) -> None:
    assert sniff.speaks(first) == expected


def test_a_hello_gives_name_and_alpn_and_every_part_of_it_asks_for_more() -> None:
    data = hello()
    found = sniff.client_hello(data + b"more")
    assert found is not None
    assert (found.sni, found.alpn) == ("outbound_.80_._.web", ("fairlead", "http/1.1"))
    for cut in range(len(data)):
        assert sniff.client_hello(data[:cut]) is None
    bare = sniff.client_hello(hello("", ()))
    assert bare is not None
    assert (bare.sni, bare.alpn) == ("", ())


def test_a_hello_over_several_records_is_put_together() -> None:
    body = hello()[5:]
    pieces = [body[k : k + 50] for k in range(0, len(body), 50)]
    data = b"".join(b"\x16\x03\x01" + len(piece).to_bytes(2, "big") + piece for piece in pieces)
    found = sniff.client_hello(data)
    assert found is not None
    assert found.sni == "outbound_.80_._.web"


@pytest.mark.parametrize(
    "data",
    [b"\x17\x03\x01\x00\x05hello", b"\x16\x03\x01\x00\x00", b"\x16\x03\x01\xff\xff", b"\x16\x03\x01\x00\x05hello"],
)
def test_what_is_no_hello_is_refused(data: bytes) -> None:
    with pytest.raises(ValueError):
        sniff.client_hello(data)


WHOLE = hello()


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 255))
def test_a_damaged_hello_is_read_or_refused_and_nothing_else(at: int, value: int) -> None:
    data = WHOLE[:at] + bytes([value]) + WHOLE[at + 1 :]
    try:
        sniff.client_hello(data)
    except ValueError:
        pass


@given(st.binary(max_size=80))
def test_anything_is_told(data: bytes) -> None:
    assert sniff.speaks(data) in (sniff.TLS, sniff.HTTP1, sniff.HTTP2, sniff.OPAQUE, sniff.MORE)
    try:
        sniff.client_hello(data)
    except ValueError:
        pass
