"""The simulated sidecars of bench/feed.py read the feed as it comes, and say what the real ones say."""

from __future__ import annotations

from typing import Any

from bench.feed import Sidecar, Stream, address, route, slice_of
from fairlead.registry.documents import Document
from fairlead.registry.facts import facts_of


def test_a_stream_cut_anywhere_gives_the_same_lines() -> None:
    lines = [b'{"version":"e.1","full":true,"set":{},"remove":[]}', b"", b'{"version":"e.2"}']
    text = b"\n".join(lines) + b"\n"
    chunks = [text[at : at + 7] for at in range(0, len(text), 7)]
    octets = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    octets += b"".join(b"%x\r\n%b\r\n" % (len(one), one) for one in chunks)
    for size in (1, 2, 5, len(octets)):
        found: list[bytes] = []
        reader: Any = Sidecar(1, 1, lambda _line, _at: None)
        reader.line = lambda line, _at, found=found: found.append(line)
        stream = Stream(reader)
        for at in range(0, len(octets), size):
            stream.received(octets[at : at + size])
        stream.close()
        assert found == [line for line in lines if line]


def test_its_objects_are_ones_that_control_takes() -> None:
    facts = facts_of([Document.of(slice_of(3, [address(3, 0), address(3, 1)]), "x")], "x")
    assert [one.address for one in facts.endpoints["svc3.default.svc.cluster.local"]] == ["10.0.1.44", "10.0.1.45"]
    assert route("mark")["spec"]["http"][0]["name"] == "mark"
