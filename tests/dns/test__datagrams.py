"""Reading and answering batches on a real socket, compiled and as plain Python."""

from __future__ import annotations

import importlib.util
import pickle
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import fairlead.dns
from fairlead.dns import _datagrams
from fairlead.dns._fast import Entry, Finished


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

    def make(message: bytes, source: Any) -> bytes | None:
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
    reader = kind(server, finished, lambda message, _: too_long if message[:1] == b"l" else message, lambda *_: None)
    client.send(b"long")
    client.send(b"short")
    reader.read()
    assert client.recv(100) == b"short"
    assert reader.failed == 1


def test_a_reader_is_not_pickled(kind: type[Any], pair: tuple[socket.socket, socket.socket]) -> None:
    reader = kind(pair[0], Finished(1), lambda *_: None, lambda *_: None)
    with pytest.raises(TypeError):
        pickle.dumps(reader)
