"""The query log's lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fairlead.dns.query_log import QueryLog, line
from tests.dns.world import engine, host, question, send


def answered(name: str, **fields: Any) -> tuple[bytes, bytes]:
    octets = question(name, **fields)
    reply = send(engine(), octets)
    assert reply is not None
    return octets, reply


def test_a_line_says_who_asked_what_and_what_was_said() -> None:
    octets, reply = answered(host("web"), use_edns=0, payload=1400)
    text = line(octets, ("192.0.2.7", 5353), reply, "udp")
    assert (
        text
        == f'192.0.2.7:5353 - 4660 "A IN {host("web")}. udp {len(octets)} false 1400" NOERROR qr,aa,rd {len(reply)}'
    )
    assert line(*(b"\0" * 12, ("::1", 1), b"\0" * 2 + b"\x80\1" + b"\0" * 8), "tcp").startswith(
        '[::1]:1 - 0 "- - - tcp 12'
    )


@pytest.mark.parametrize(("which", "expected"), [("all", 4), ("denial", 3), ("error", 1)])
def test_only_what_is_asked_for_is_logged(which: str, expected: int) -> None:
    waiting: list[Callable[[], None]] = []
    written: list[str] = []
    log = QueryLog(which, written.append, waiting.append)
    for name, rtype in (("web", "A"), ("web", "TXT"), ("none", "A")):
        octets = question(host(name), rtype)
        log.datagram(octets, ("127.0.0.1", 1), send(engine(), octets) or b"")
    octets, reply = answered("www.example.com")
    log.add(octets, ("127.0.0.1", 1), reply, "tls")
    assert not written, "written after the answers are sent"
    (flush,) = waiting
    flush()
    assert len("".join(written).splitlines()) == expected


def test_a_disk_that_is_full_does_not_stop_answers() -> None:
    def full(_text: str) -> None:
        raise OSError("no space left")

    log = QueryLog("all", full, lambda callback: None)
    octets, reply = answered(host("web"))
    for _ in range(600):
        log.datagram(octets, ("127.0.0.1", 1), reply)
    assert log.failed == 512


def test_a_line_cannot_be_forged_by_a_name() -> None:
    octets = question(host("web")).replace(b"\3web", b'\3a\n"')
    assert "\n" not in line(octets, ("127.0.0.1", 1), octets, "udp")
    with pytest.raises(ValueError, match="expected one of"):
        QueryLog("some", print, print)
