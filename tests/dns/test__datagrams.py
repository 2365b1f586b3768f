"""Reading and answering batches on a real socket, compiled and as plain Python."""

from __future__ import annotations

import importlib.util
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dns.flags
import dns.message
import pytest

import fairlead.dns
from fairlead.dns import _datagrams
from fairlead.dns._fast import Entry, Finished
from fairlead.dns._limit import Limiter
from tests.dns.world import host, question


@pytest.fixture(params=["as installed", "plain"])
def kind(request: pytest.FixtureRequest) -> type[Any]:
    if request.param == "as installed":
        return _datagrams.Datagrams
    source = Path(next(iter(fairlead.dns.__path__))) / "_datagrams.py"
    spec = importlib.util.spec_from_file_location("fairlead.dns.plain_datagrams", source)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert not module.COMPILED
    return module.Datagrams  # type: ignore[no-any-return]


@pytest.fixture(params=[socket.AF_INET, socket.AF_INET6])
def pair(request: pytest.FixtureRequest) -> Iterator[tuple[socket.socket, socket.socket]]:
    host = "127.0.0.1" if request.param == socket.AF_INET else "::1"
    with (
        socket.socket(request.param, socket.SOCK_DGRAM) as server,
        socket.socket(request.param, socket.SOCK_DGRAM) as client,
    ):
        server.bind((host, 0))
        server.setblocking(False)
        client.connect(server.getsockname())
        client.settimeout(5)
        yield server, client


def test_a_batch_is_answered_each_to_its_own(kind: type[Any], pair: tuple[socket.socket, socket.socket]) -> None:
    server, client = pair
    finished = Finished(10)
    finished.put(b"..known-question", Entry((b" finished",), (), "label", True))
    made: list[tuple[bytes, Any]] = []
    measured: list[int] = []

    def make(message: bytes, source: Any, local: bytes) -> bytes | None:
        assert local == b""
        made.append((message, source))
        return None if message.startswith(b"no") else message[:2] + b" made"

    reader = kind(server, finished, make, lambda _seconds, count: measured.append(count))
    sent = [b"%02dknown-question" % n if n % 2 else b"%02dnew" % n for n in range(30)]
    for octets in (*sent, b"", b"x", b"no reply", b"y" * 5000):
        client.send(octets)
    while sum(measured) < 34:
        reader.read()
    replies = [client.recv(100) for _ in range(33)]
    assert replies[:30] == [b"%02d" % n + (b" finished" if n % 2 else b" made") for n in range(30)]
    assert {source[:2] for _, source in made} == {client.getsockname()[:2]}
    assert b"" in [message for message, _ in made]
    assert max(len(message) for message, _ in made) == _datagrams.LARGEST_QUERY
    reader.read()
    assert sum(measured) == 34, "nothing waits, nothing is measured"
    assert reader.failed == 0


def test_a_client_that_cannot_be_reached_is_counted_and_the_next_is_served(
    kind: type[Any], pair: tuple[socket.socket, socket.socket]
) -> None:
    server, client = pair
    too_long = b"z" * 70000
    finished = Finished(10)
    reader = kind(server, finished, lambda message, *_: too_long if message[:1] == b"l" else message, lambda *_: None)
    client.send(b"long")
    client.send(b"short")
    reader.read()
    assert client.recv(100) == b"short"
    assert reader.failed == 1


def test_a_reader_is_not_pickled(kind: type[Any], pair: tuple[socket.socket, socket.socket]) -> None:
    reader = kind(pair[0], Finished(1), lambda *_: None, lambda *_: None)
    with pytest.raises(TypeError):
        pickle.dumps(reader)


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("address", ["127.0.0.1", "127.8.8.8"])
def test_on_all_addresses_a_reply_leaves_from_the_one_that_was_asked(kind: type[Any], address: str, late: bool) -> None:
    finished = Finished(10)
    finished.put(question(host("web")), Entry((b" finished",), (), "label", True))
    waiting: list[tuple[Any, bytes]] = []

    def make(message: bytes, source: Any, local: bytes) -> bytes | None:
        waiting.append((source, local))
        return None if late else message[:2] + b" made"

    with socket.socket(type=socket.SOCK_DGRAM) as server, socket.socket(type=socket.SOCK_DGRAM) as client:
        server.setsockopt(socket.IPPROTO_IP, _datagrams.PKTINFO4, 1)
        server.bind(("0.0.0.0", 0))
        server.setblocking(False)
        client.settimeout(5)
        where = (address, server.getsockname()[1])
        reader = kind(server, finished, make, lambda *_: None)
        client.sendto(question(host("web")), where)
        client.sendto(b"a new question", where)
        for _ in range(2):
            reader.read()
        for source, local in waiting:
            assert local
            if late:
                reader.send(b"a  made", source, local)
        assert [client.recvfrom(100) for _ in range(2)] == [(b"\x124 finished", where), (b"a  made", where)]


def test_beyond_the_limit_every_second_reply_says_to_come_by_tcp_and_the_others_are_left_out(
    kind: type[Any], pair: tuple[socket.socket, socket.socket]
) -> None:
    server, client = pair
    octets = question(host("web"))
    finished = Finished(10)
    finished.put(octets, Entry((b"finished",), (), "label", True))
    reader = kind(server, finished, lambda *_: None, lambda *_: None)
    reader.limiter = Limiter(5)
    heard: list[bytes] = []
    reader.log = lambda message, source, reply: heard.append(reply)
    for _ in range(15):
        client.send(octets)
    reader.read()
    replies = [client.recv(500) for _ in range(10)]
    assert (reader.limiter.slipped, reader.limiter.dropped) == (5, 5)
    assert replies[:5] == [octets[:2] + b"finished"] * 5
    for reply in replies[5:]:
        got = dns.message.from_wire(reply)
        assert got.flags & dns.flags.TC
        assert not got.answer
    assert heard == replies
