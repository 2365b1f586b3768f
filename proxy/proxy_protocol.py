"""The PROXY protocol, versions 1 and 2: who the client of a relayed connection is, said before its first octet.

Source: HAProxy's doc/proxy-protocol.txt (2020/03/05). A header is read only where a listener is set to expect one and
the peer is trusted; then it must be there, since the protocol forbids guessing.
"""

from __future__ import annotations

import ipaddress
import struct
from collections.abc import Callable
from typing import Any

from ..policy.tables import Arrival, ClusterEndpoint, PoolLimits
from .arrive import address_of

SIGNATURE = b"\r\n\r\n\x00\r\nQUIT\n"
V1_MAX = 107
"""Octets of a version 1 header with its line end, the longest there is (section 2.1)."""
V2_MAX = 16 + 4096
"""Of a version 2 header; the format allows 16 + 65535, which nobody needs before a connection is known."""
TLVS_MAX = 64
CRC32C = 0x03
_UNIX = 216
_CASTAGNOLI = 0x82F63B78

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Address = tuple[str, int]


class Header:
    """What a header says."""

    __slots__ = ("destination", "source", "tlvs")

    def __init__(
        self,
        source: Address | None = None,
        destination: Address | None = None,
        tlvs: tuple[tuple[int, bytes], ...] = (),
    ) -> None:
        self.source = source
        """(address, port) of the client; None: the connection is the peer's own (LOCAL, UNKNOWN) or from a UNIX
        socket, and its addresses are those of the connection itself."""
        self.destination = destination
        self.tlvs = tlvs
        """(type, value), version 2."""


def read(data: bytes) -> tuple[Header, int] | None:
    """The header that `data` begins with, and its length; None: not whole yet. ValueError: it is none."""
    if data[:1] == b"P":
        return _read_v1(data)
    if SIGNATURE.startswith(data[:12]):
        return _read_v2(data) if len(data) >= 16 else None
    raise ValueError(f"expected a PROXY protocol header, got octets {data[:16].hex()}")


def _read_v1(data: bytes) -> tuple[Header, int] | None:
    if not b"PROXY ".startswith(data[:6]):
        raise ValueError(f"expected `PROXY `, got octets {data[:6].hex()}")
    end = data.find(b"\r\n", 0, V1_MAX)
    if end < 0:
        if len(data) >= V1_MAX:
            raise ValueError(f"the PROXY line has no end within {V1_MAX} octets")
        return None
    line = data[:end]
    if line == b"PROXY UNKNOWN" or line.startswith(b"PROXY UNKNOWN "):
        return Header(), end + 2
    words = line.split(b" ")
    if len(words) != 6 or words[1] not in (b"TCP4", b"TCP6"):
        raise ValueError(f"expected PROXY TCP4|TCP6 SOURCE DESTINATION PORT PORT, got {line!r}")
    version = 4 if words[1] == b"TCP4" else 6
    source, destination = _address(words[2], version), _address(words[3], version)
    return Header((source, _port(words[4])), (destination, _port(words[5]))), end + 2


def _address(word: bytes, version: int) -> str:
    try:
        found = ipaddress.ip_address(word.decode("ascii"))
    except (ValueError, UnicodeDecodeError):
        raise ValueError(f"{word!r} is not an address") from None
    if found.version != version or b"%" in word:
        raise ValueError(f"{word!r} is not an IPv{version} address")
    return _text(found)


def _text(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> str:
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return str(mapped or address)


def _port(word: bytes) -> int:
    if not word.isdigit() or len(word) > 5 or (word[0] == 0x30 and len(word) > 1) or int(word) > 65535:
        raise ValueError(f"{word!r} is not a port")
    return int(word)


def _read_v2(data: bytes) -> tuple[Header, int] | None:
    command, family, size = struct.unpack_from("!BBH", data, 12)
    if command not in (0x20, 0x21):
        raise ValueError(f"PROXY protocol version and command {command:#04x} are unknown")
    total = 16 + size
    if total > V2_MAX:
        raise ValueError(f"a PROXY header of {total} octets; the limit is {V2_MAX}")
    if family not in (0x00, 0x11, 0x21, 0x31):
        raise ValueError(f"PROXY address family and protocol {family:#04x} are not those of a TCP connection")
    if len(data) < total:
        return None
    taken = {0x00: 0, 0x11: 12, 0x21: 36, 0x31: _UNIX}[family]
    if size < taken:
        if command == 0x21:
            raise ValueError(f"a PROXY header of {size} octets has no room for addresses of family {family:#04x}")
        taken = size
    source = destination = None
    if command == 0x21 and family == 0x11:
        raw = struct.unpack_from("!4s4sHH", data, 16)
        source, destination = _pair(raw)
    elif command == 0x21 and family == 0x21:
        raw = struct.unpack_from("!16s16sHH", data, 16)
        source, destination = _pair(raw)
    tlvs = _tlvs(data[:total], 16 + taken) if command == 0x21 or family else ()
    return Header(source, destination, tlvs), total


def _pair(raw: tuple[Any, ...]) -> tuple[Address, Address]:
    one, other = (_text(ipaddress.ip_address(packed)) for packed in raw[:2])
    return (one, raw[2]), (other, raw[3])


def _tlvs(header: bytes, at: int) -> tuple[tuple[int, bytes], ...]:
    """Type-length-values from `at` on; a CRC32c among them must be right (section 2.2.3)."""
    found = []
    while at < len(header):
        if at + 3 > len(header):
            raise ValueError("a PROXY header's TLV is cut short")
        kind, size = struct.unpack_from("!BH", header, at)
        if at + 3 + size > len(header):
            raise ValueError(f"a PROXY header's TLV {kind:#04x} of {size} octets goes beyond the header")
        value = header[at + 3 : at + 3 + size]
        if kind == CRC32C:
            blank = header[: at + 3] + bytes(size) + header[at + 3 + size :]
            if size != 4 or crc32c(blank) != int.from_bytes(value, "big"):
                raise ValueError("a PROXY header's checksum is wrong")
        found.append((kind, value))
        if len(found) > TLVS_MAX:
            raise ValueError(f"a PROXY header has more than {TLVS_MAX} TLVs")
        at += 3 + size
    return tuple(found)


def _table() -> tuple[int, ...]:
    made = []
    for octet in range(256):
        value = octet
        for _ in range(8):
            value = (value >> 1) ^ (_CASTAGNOLI if value & 1 else 0)
        made.append(value)
    return tuple(made)


_CRC_TABLE = _table()


def crc32c(data: bytes) -> int:
    """RFC 3720 appendix B.4."""
    value = 0xFFFFFFFF
    for octet in data:
        value = _CRC_TABLE[(value ^ octet) & 0xFF] ^ (value >> 8)
    return value ^ 0xFFFFFFFF


def write(version: int, source: Address | None, destination: Address | None) -> bytes:
    """A header for a connection from `source` to `destination`; LOCAL or UNKNOWN where either is not known."""
    one = _parsed(source)
    other = _parsed(destination)
    if one is None or other is None or source is None or destination is None:
        return b"PROXY UNKNOWN\r\n" if version == 1 else SIGNATURE + b"\x20\x00\x00\x00"
    if one.version != other.version:
        one, other = _as_v6(one), _as_v6(other)
    if version == 1:
        return f"PROXY TCP{one.version} {one} {other} {source[1]} {destination[1]}\r\n".encode()
    family = 0x11 if one.version == 4 else 0x21
    body = one.packed + other.packed + struct.pack("!HH", source[1], destination[1])
    return SIGNATURE + struct.pack("!BBH", 0x21, family, len(body)) + body


def _parsed(address: Address | None) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(address[0]) if address is not None else None
    except ValueError:
        return None


def _as_v6(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> ipaddress.IPv6Address:
    if isinstance(address, ipaddress.IPv6Address):
        return address
    return ipaddress.IPv6Address(b"\x00" * 10 + b"\xff\xff" + address.packed)


def parse_trusted(text: str) -> tuple[Network, ...]:
    """Networks as in `10.0.0.0/8,127.0.0.1`. ValueError names what is none."""
    found = []
    for word in text.split(","):
        try:
            found.append(ipaddress.ip_network(word.strip()))
        except ValueError as error:
            raise ValueError(
                f"{word.strip()!r}: expected an address or a network such as 10.0.0.0/8: {error}"
            ) from None
    return tuple(found)


def is_trusted(trusted: tuple[Network, ...], address: str) -> bool:
    """Whether a peer at `address` is to be believed; it then must send a header."""
    if not trusted:
        return False
    found = _parsed((address, 0))
    return found is not None and any(found.version == one.version and found in one for one in trusted)


def proxy_header(
    limits: PoolLimits, endpoint: ClusterEndpoint, source: tuple[str, int] | None, to: tuple[str, int] | None
) -> bytes:
    """The PROXY protocol header that an endpoint is to get; empty where none. None goes to other sidecars, who know
    the client by its identity."""
    if not limits.proxy_protocol or (endpoint.tls is not None and endpoint.tls.mode == "mesh"):
        return b""
    return write(limits.proxy_protocol, source, to)


class Awaited:
    """The protocol object of a trusted peer's new connection until its header has come; then `passed(transport, header,
    rest)`. A header that is none, or late, ends the connection."""

    def __init__(self, engine: Any, passed: Callable[[Any, Header, bytes], None]) -> None:
        self.engine = engine
        self.passed = passed
        self.transport: Any = None
        self.arrival: Arrival | None = None
        """Of the peer itself, by which it is counted."""
        self.data = b""
        self.timer: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        address, port = address_of(transport.get_extra_info("peername"))
        self.arrival = Arrival("outbound", source_ip=address, source_port=port)
        self.engine.entries.add(self)
        self.timer = self.engine.later(self.engine.settings.peek_timeout_s, self._late)

    def data_received(self, data: bytes) -> None:
        self.data += data
        try:
            found = read(self.data)
        except ValueError:
            self._late()
            return
        if found is not None:
            self._leave()
            header, size = found
            self.passed(self.transport, header, self.data[size:])

    def _late(self) -> None:
        self.engine.refused_connections["proxy-protocol"] += 1
        self.transport.abort()

    def _leave(self) -> None:
        self.engine.entries.discard(self)
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._leave()

    def pause_writing(self) -> None: ...

    def resume_writing(self) -> None: ...
