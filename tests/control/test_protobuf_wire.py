"""Protobuf's wire format: numbers and frames, there and back."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.protobuf_wire import WireError, framed, read_varint, varint


@given(st.integers(-(1 << 63), (1 << 64) - 1), st.binary(max_size=3))
def test_a_number_comes_back_and_cut_anywhere_it_is_an_error(number: int, more: bytes) -> None:
    octets = varint(number)
    assert read_varint(octets + more, 0) == (number % (1 << 64), len(octets))
    for end in range(len(octets)):
        with pytest.raises(WireError, match="cut off"):
            read_varint(octets[:end], 0)


def test_numbers_stand_as_the_specification_has_them() -> None:
    assert varint(150) == b"\x96\x01"
    assert framed(2, b"testing") == b"\x12\x07testing"
    with pytest.raises(WireError, match="too long"):
        read_varint(b"\xff" * 11, 0)
