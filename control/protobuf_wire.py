"""Protobuf's wire format: what its messages share (protobuf.dev, Encoding)."""

from __future__ import annotations

VARINT, LENGTH = 0, 2
"""Wire types."""
_SMALL = tuple(bytes((number,)) for number in range(128))


class WireError(ValueError):
    """Octets that are no message."""


def varint(number: int) -> bytes:
    """Of an integer of up to 64 bits; negative ones as int64 has them."""
    if 0 <= number < 128:
        return _SMALL[number]
    if number < 0:
        number += 1 << 64
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def framed(number: int, data: bytes) -> bytes:
    """Field `number` with octets of a length: text, a message, packed numbers."""
    return varint(number << 3 | LENGTH) + varint(len(data)) + data


def read_varint(data: bytes, at: int) -> tuple[int, int]:
    """(number, where it ends). Raises WireError where it is cut off, or longer than 64 bits."""
    number = shift = 0
    while True:
        if at >= len(data) or shift > 63:
            raise WireError("a number is cut off, or too long")
        octet = data[at]
        at += 1
        number |= (octet & 0x7F) << shift
        if octet < 0x80:
            return number & (1 << 64) - 1, at
        shift += 7
