"""Shell: reads questions from a UDP socket and sends the replies, a batch at a time.

Compiled (with _datagrams.pxd) it takes up to 64 datagrams with one recvmmsg and sends all replies with one sendmmsg,
without making Python objects of addresses; as it stands, it goes datagram by datagram.
"""

from __future__ import annotations

import socket
import time
from collections.abc import Callable

from ._fast import Finished

COMPILED = not __file__.endswith((".py", ".pyc"))
BATCH = 64
"""Datagrams read before others get their turn."""
LARGEST_QUERY = 4096
"""Octets; what is longer arrives cut, and is refused as such."""


class Datagrams:
    """Answers what is waiting on a socket: from finished answers, else by `make(message, client)`.

    `make` gives the reply, or None for none (or none yet). `measured(seconds, count)` is told how long each took.
    `failed` counts replies that could not be sent.
    """

    def __init__(
        self,
        sock: socket.socket,
        finished: Finished,
        make: Callable[[bytes, tuple[str, int]], bytes | None],
        measured: Callable[[float, int], None],
    ) -> None:
        self.failed = 0
        self._sock = sock
        self._fd = sock.fileno()
        self._finished = finished
        self._make = make
        self._measured = measured
        self._clock = time.perf_counter
        self._held: list[bytes] = []

    def __reduce__(self) -> str:
        raise TypeError("a reader of a socket cannot be pickled")  # also keeps Cython from trying

    def read(self) -> None:
        """Answer what has arrived, up to BATCH datagrams."""
        start = self._clock()
        count = self._read_batch() if COMPILED else self._read_each()
        if count:
            self._measured((self._clock() - start) / count, count)

    def _read_each(self) -> int:
        receive, send, finished, make = self._sock.recvfrom, self._sock.sendto, self._finished, self._make
        count = 0
        try:
            while count < BATCH:
                message, client = receive(LARGEST_QUERY)
                count += 1
                reply = finished.get(message)
                if reply is None:
                    reply = make(message, client)
                    if reply is None:
                        continue
                try:
                    send(reply, client)
                except OSError:  # the client cannot be reached, or the socket's buffer is full
                    self.failed += 1
        except OSError:  # nothing left to read, or an ICMP error for an earlier reply
            pass
        return count

    def _read_batch(self) -> int:
        """As `_read_each`; the names that are not defined here are C functions of _datagrams.pxd."""
        count = fl_receive(self._batch, self._fd)  # type: ignore[name-defined,attr-defined]  # noqa: F821
        finished, held = self._finished, self._held
        for index in range(count):
            body = None
            if fl_size(self._batch, index) >= 12:  # type: ignore[name-defined,attr-defined]  # noqa: F821
                key = fl_key(self._batch, index)  # type: ignore[name-defined,attr-defined]  # noqa: F821
                body = finished.find(key)
            if body is not None:
                held.append(body)
                fl_reply(self._batch, index, body, 0)  # type: ignore[name-defined,attr-defined]  # noqa: F821
                continue
            body = self._make(
                fl_message(self._batch, index),  # type: ignore[name-defined,attr-defined]  # noqa: F821
                fl_client(self._batch, index),  # type: ignore[name-defined,attr-defined]  # noqa: F821
            )
            if body is not None:
                held.append(body)
                fl_reply(self._batch, index, body, 2)  # type: ignore[name-defined,attr-defined]  # noqa: F821
        if held:
            self.failed += fl_send(self._batch, self._fd)  # type: ignore[name-defined,attr-defined]  # noqa: F821
            held.clear()
        return count  # type: ignore[no-any-return]
