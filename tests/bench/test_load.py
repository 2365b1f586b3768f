"""The bench's own clients count what they are told to, and take no wrong answer for a right one."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from bench import load

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"


@contextlib.contextmanager
def answering(reply: bytes, pieces: int = 1) -> Iterator[int]:
    """A server that answers every request with `reply`, cut into pieces; its port."""

    def serve(one: socket.socket) -> None:
        with contextlib.suppress(OSError), one:
            one.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            while one.recv(65536):
                for at in range(pieces):
                    one.sendall(reply[at * len(reply) // pieces : (at + 1) * len(reply) // pieces])

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)


def test_the_paced_client_sends_its_rate() -> None:
    with answering(OK) as port:
        assert len(load.paced(port, "/", 400, 0.5)) == 200


def test_what_a_proxy_adds_is_its_own_less_what_the_backend_takes_by_itself() -> None:
    with answering(OK) as port:
        found = load.added(port, port, "/", 400, 0.5)
    assert found["requests"] == 200
    assert found["added_p50_ms"] == found["p50_ms"] - found["direct_p50_ms"]
    assert 0 < found["p50_ms"] <= found["p99_ms"]


def test_an_answer_in_pieces_and_one_in_chunks_are_read_whole() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    for reply, pieces in ((OK, len(OK)), (chunked, 7)):
        with answering(reply, pieces) as port:
            assert len(load.paced(port, "/", 100, 0.1, connections=2)) == 10


def test_an_error_or_a_connection_that_ends_is_no_answer() -> None:
    for reply, said in (
        (b"HTTP/1.1 503 No\r\nContent-Length: 0\r\n\r\n", "503"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello", "within a body"),
        (b"HTTP/1.1 2", "within a head"),
    ):
        ours, theirs = socket.socketpair()
        theirs.sendall(reply)
        theirs.close()
        with ours, pytest.raises(load.LoadError, match=said):
            load.answer(ours)


def test_quantiles_are_of_what_was_measured() -> None:
    times = list(range(1, 101))
    assert (load._quantile(times, 0.5), load._quantile(times, 0.99), load._quantile([7], 0.99)) == (51, 100, 7)
    assert load._duration_ms("  50%  120.00us\n  99%    1.50ms\n", "50%") == 0.12
    assert load._duration_ms("  50%  120.00us\n  99%    1.50s\n", "99%") == 1500
