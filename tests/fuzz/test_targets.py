"""Each fuzz target for a moment, by hypothesis; `make fuzz` runs the same at length, and guided by coverage."""

from __future__ import annotations

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

EXAMPLES = int(os.environ.get("FAIRLEAD_FUZZ_EXAMPLES", "60"))
TOKENS = [
    *(b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b";", b",", b"0", b"1", b"5", b"\xff", b"\x80", b"\x0b", b"_"),
    *(b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"chunked", b" HTTP/1.1\r\n"),
    *(b"\r\n\r\n", b"0\r\n\r\n", b"/../", b"%2e", b"%2F", b"%00", b"\\", b"?", b"#", b"{", b"}", b"[", b"]", b'"'),
    *(b"null", b"true", b"-1", b"1e9", b"\xc0\x0c", b"\x30\x80", b"\x30\x82", b"- ", b"&a", b"*a", b"!!x ", b"---\n"),
]


@st.composite
def mutated(draw: Any, seeds: list[bytes]) -> bytes:
    """A seed with a few things put in, taken out, doubled or cut off."""
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(0, 4))):
        at = draw(st.integers(0, len(data)))
        to = min(len(data), at + draw(st.integers(0, 8)))
        what = draw(st.integers(0, 4))
        if what == 0:
            data = data[:at] + draw(st.sampled_from(TOKENS)) + data[at:]
        elif what == 1:
            data = data[:at] + data[to:]
        elif what == 2:
            data = data[:to] + data[at:]
        elif what == 3:
            data = data[:at] + draw(st.binary(max_size=3)) + data[to:]
        else:
            data = data[:at]
    return bytes(data)


@pytest.mark.parametrize("name", TARGETS)
def test_what_must_hold_holds_of_anything(name: str) -> None:
    run, seeds = TARGETS[name]
    for seed in seeds:
        run(seed)

    @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    @given(st.one_of(mutated(seeds), mutated(seeds), st.binary(max_size=200)))
    def check(data: bytes) -> None:
        run(data)

    check()
