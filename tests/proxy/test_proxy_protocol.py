"""The PROXY protocol: both versions, whole, cut at every byte, damaged and at random."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.proxy import proxy_protocol
from fairlead.proxy.proxy_protocol import SIGNATURE, V1_MAX, V2_MAX, crc32c, is_trusted, parse_trusted, read, write

V4 = (("192.0.2.1", 4711), ("198.51.100.2", 443))
V6 = (("2001:db8::1", 4711), ("2001:db8::2", 443))


def v2(command: int, family: int, body: bytes, size: int | None = None) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body) if size is None else size) + body


def tlv(kind: int, value: bytes) -> bytes:
    return struct.pack("!BH", kind, len(value)) + value


ADDRESSES = bytes([192, 0, 2, 1, 198, 51, 100, 2]) + struct.pack("!HH", 4711, 443)


def summed(more: bytes = b"") -> bytes:
    """With its checksum, which is computed over itself as zeros."""
    blank = v2(0x21, 0x11, ADDRESSES + tlv(3, bytes(4)) + more)
    at = blank.index(tlv(3, bytes(4))) + 3
    return blank[:at] + crc32c(blank).to_bytes(4, "big") + blank[at + 4 :]


HEADERS = [
    (b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\r\n", *V4),
    (b"PROXY TCP6 2001:db8::1 2001:db8::2 4711 443\r\n", *V6),
    (b"PROXY UNKNOWN\r\n", None, None),
    (b"PROXY UNKNOWN ffff:f...f:ffff ffff:f...f:ffff 65535 65535\r\n", None, None),
    (v2(0x21, 0x11, ADDRESSES), *V4),
    (write(2, *V6), *V6),
    (v2(0x20, 0x00, b""), None, None),
    (v2(0x20, 0x11, ADDRESSES), None, None),
    (v2(0x20, 0x00, b"whatever"), None, None),
    (v2(0x21, 0x00, tlv(4, b"x")), None, None),
    (v2(0x21, 0x31, b"/run/a".ljust(108, b"\0") + b"/run/b".ljust(108, b"\0")), None, None),
    (v2(0x21, 0x11, ADDRESSES + tlv(1, b"h2") + tlv(2, b"example.com") + tlv(4, b"")), *V4),
    (summed(), *V4),
    (summed(tlv(0xE0, b"custom")), *V4),
]


@pytest.mark.parametrize(("data", "source", "destination"), HEADERS)
def test_a_header_is_read_with_what_follows_untouched_and_every_part_of_it_asks_for_more(
    data: bytes, source: object, destination: object
) -> None:
    found = read(data + b"GET / HTTP/1.1\r\n")
    assert found is not None
    header, size = found
    assert (header.source, header.destination, size) == (source, destination, len(data))
    for cut in range(len(data)):
        assert read(data[:cut]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXX",
        b"PROXY\tTCP4",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443 \r\n",
        b"PROXY TCP4  192.0.2.1 198.51.100.2 4711 443\r\n",
        b"PROXY TCP4 192.0.2.01 198.51.100.2 4711 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 04711 443\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 65536\r\n",
        b"PROXY TCP4 192.0.2.1 198.51.100.2 +711 443\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 4711 443\r\n",
        b"PROXY TCP6 fe80::1%eth0 2001:db8::2 4711 443\r\n",
        b"PROXY TCP4 \xff 198.51.100.2 4711 443\r\n",
        b"PROXY UDP4 192.0.2.1 198.51.100.2 4711 443\r\n",
        b"PROXY UNKNOWNISH\r\n",
        b"PROXY UNKNOWN " + b"x" * V1_MAX,
        b"PROXY TCP4 192.0.2.1 198.51.100.2 4711 443\n" + b"x" * V1_MAX,
        v2(0x22, 0x11, ADDRESSES),
        v2(0x11, 0x11, ADDRESSES),
        v2(0x21, 0x12, ADDRESSES),
        v2(0x21, 0x41, ADDRESSES),
        v2(0x21, 0x11, ADDRESSES[:-1]),
        v2(0x21, 0x21, ADDRESSES),
        v2(0x21, 0x11, ADDRESSES + b"\x04"),
        v2(0x21, 0x11, ADDRESSES + b"\x04\x00\x05abc"),
        v2(0x21, 0x11, ADDRESSES + tlv(4, b"") * 65),
        v2(0x21, 0x11, ADDRESSES + tlv(3, b"\0\0\0\0")),
        v2(0x21, 0x11, ADDRESSES + tlv(3, b"\0\0")),
        v2(0x21, 0x11, b"", V2_MAX - 15),
        summed()[:20] + b"\x01" + summed()[21:],
    ],
)
def test_what_is_no_header_is_refused_as_soon_as_that_can_be_told(data: bytes) -> None:
    with pytest.raises(ValueError):
        read(data)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(("source", "destination"), [V4, V6, (V4[0], V6[1]), (None, V4[1]), (("name", 1), V4[1])])
def test_what_is_written_is_what_is_read(version: int, source: object, destination: object) -> None:
    data = write(version, source, destination)  # type: ignore[arg-type]
    found = read(data)
    assert found is not None
    known = (source, destination) if source is not None and source != ("name", 1) else (None, None)
    assert (found[0].source, found[0].destination) == known
    assert found[1] == len(data)


def test_the_checksum_is_the_one_of_the_rfc() -> None:
    assert (crc32c(b"123456789"), crc32c(bytes(32))) == (0xE3069283, 0x8A9136AA)


@given(st.sampled_from([data for data, _, _ in HEADERS]), st.integers(0, 300), st.integers(0, 255))
def test_a_damaged_header_is_read_or_refused_and_nothing_else(data: bytes, at: int, value: int) -> None:
    at %= len(data)
    try:
        read(data[:at] + bytes([value]) + data[at + 1 :])
    except ValueError:
        pass


@given(st.one_of(st.binary(max_size=200), st.binary(max_size=200).map(lambda more: SIGNATURE + more)))
def test_anything_is_told_and_never_takes_more_than_there_is(data: bytes) -> None:
    try:
        found = read(data)
    except ValueError:
        return
    if found is not None:
        assert 0 < found[1] <= len(data)


def test_only_the_networks_named_are_trusted() -> None:
    trusted = parse_trusted("10.0.0.0/8, ::1,127.0.0.1")
    assert is_trusted(trusted, "10.1.2.3")
    assert is_trusted(trusted, "::1")
    assert not is_trusted(trusted, "11.0.0.1")
    assert not is_trusted(trusted, "")
    assert not is_trusted((), "10.1.2.3")
    for wrong in ("10.0.0.1/8", "everybody", ""):
        with pytest.raises(ValueError, match=r"10\.0\.0\.0/8"):
            parse_trusted(wrong)


def test_a_checksum_says_nothing_of_what_follows_the_header() -> None:
    assert proxy_protocol.read(summed() + b"\x00" * 50) is not None
