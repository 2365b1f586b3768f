"""Shell: reads questions from a UDP socket and sends the replies, a batch at a time.

Compiled (with _datagrams.pxd) it takes up to 64 datagrams with one recvmmsg and sends all replies with one sendmmsg,
without making Python objects of addresses; as it stands, it goes datagram by datagram. On a socket for all of the
host's addresses a reply leaves from the one that was asked (RFC 2181 section 4).
"""

from __future__ import annotations

import ipaddress
import socket
import time
from collections.abc import Callable
from functools import lru_cache

from ._fast import Finished
from ._limit import PASS, SLIP, Limiter
from .write import slip

COMPILED = not __file__.endswith((".py", ".pyc"))
BATCH = 64
"""Datagrams read before others get their turn."""
LARGEST_QUERY = 4096
"""Octets; what is longer arrives cut, and is refused as such."""
PKTINFO4 = getattr(socket, "IP_PKTINFO", 8)

Client = tuple[str, int]
Make = Callable[[bytes, Client, bytes], "bytes | None"]
Log = Callable[[bytes, Client, bytes], None]


class Datagrams:
    """Answers what is waiting on a socket: from finished answers, else by `make(message, client, local)`.

    `make` gives the reply, or None for none (or none yet); `local` is the address asked, for `send`, empty where the
    socket has only one. `measured(seconds, count)` is told how long each took. `failed` counts replies that could not
    be sent. `limiter` bounds replies; `log(message, client, reply)` hears of each.
    """

    def __init__(
        self, sock: socket.socket, finished: Finished, make: Make, measured: Callable[[float, int], None]
    ) -> None:
        self.failed = 0
        self.limiter: Limiter | None = None
        self.log: Log | None = None
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
        count = self._read_batch(start) if COMPILED else self._read_each(start)
        if count:
            self._measured((self._clock() - start) / count, count)

    def send(self, reply: bytes, client: Client, local: bytes) -> None:
        """A reply that took longer."""
        try:
            if local:
                self._sock.sendmsg([reply], _from(local), 0, client)
            else:
                self._sock.sendto(reply, client)
        except OSError:  # the client cannot be reached, or the socket's buffer is full
            self.failed += 1

    def _read_each(self, start: float) -> int:
        receive, finished, make, limiter = self._sock.recvmsg, self._finished, self._make, self.limiter
        count = 0
        try:
            while count < BATCH:
                message, ancillary, _, client = receive(LARGEST_QUERY, 128)
                count += 1
                local = _asked(ancillary)
                reply = finished.get(message)
                if reply is None:
                    reply = make(message, client, local)
                elif limiter is not None:
                    reply = limited(limiter.take(network_of(client[0]), start), message, reply)
                if reply is not None:
                    if self.log is not None:
                        self.log(message, client, reply)
                    self.send(reply, client, local)
        except OSError:  # nothing left to read, or an ICMP error for an earlier reply
            pass
        return count

    def _read_batch(self, start: float) -> int:
        """As `_read_each`; the names that are not defined here are C functions of _datagrams.pxd."""
        count = fl_receive(self._batch, self._fd)  # type: ignore[name-defined,attr-defined]  # noqa: F821
        finished, held, limiter, log = self._finished, self._held, self.limiter, self.log
        for index in range(count):
            body = None
            skip = 0
            if fl_size(self._batch, index) >= 12:  # type: ignore[name-defined,attr-defined]  # noqa: F821
                key = fl_key(self._batch, index)  # type: ignore[name-defined,attr-defined]  # noqa: F821
                body = finished.find(key)
            if body is None:
                body = self._make(
                    fl_message(self._batch, index),  # type: ignore[name-defined,attr-defined]  # noqa: F821
                    fl_client(self._batch, index),  # type: ignore[name-defined,attr-defined]  # noqa: F821
                    fl_local(self._batch, index),  # type: ignore[name-defined,attr-defined]  # noqa: F821
                )
                skip = 2
            elif limiter is not None:
                network = fl_network(self._batch, index)  # type: ignore[name-defined,attr-defined]  # noqa: F821
                verdict = limiter.take(network, start)
                if verdict != 0:
                    message = fl_message(self._batch, index)  # type: ignore[name-defined,attr-defined]  # noqa: F821
                    body = limited(verdict, message, b"")
                    skip = 2
            if body is not None:
                held.append(body)
                if log is not None:
                    message = fl_message(self._batch, index)  # type: ignore[name-defined,attr-defined]  # noqa: F821
                    client = fl_client(self._batch, index)  # type: ignore[name-defined,attr-defined]  # noqa: F821
                    log(message, client, body if skip else message[:2] + body)
                fl_reply(self._batch, index, body, skip)  # type: ignore[name-defined,attr-defined]  # noqa: F821
        if held:
            self.failed += fl_send(self._batch, self._fd)  # type: ignore[name-defined,attr-defined]  # noqa: F821
            held.clear()
        return count  # type: ignore[no-any-return]


def limited(verdict: int, message: bytes, reply: bytes) -> bytes | None:
    """What a client gets by the limiter's verdict: the reply, one that says to come by TCP, or nothing."""
    if verdict == PASS:
        return reply
    return slip(message) if verdict == SLIP else None


@lru_cache(maxsize=4096)
def network_of(source: str) -> bytes:
    """The network that a client is counted under: /24 or /56."""
    try:
        address = ipaddress.ip_address(source.partition("%")[0])
    except ValueError:
        return b""
    mapped = getattr(address, "ipv4_mapped", None)
    packed = (mapped or address).packed
    return packed[:3] if len(packed) == 4 else packed[:7]


def _asked(ancillary: list[tuple[int, int, bytes]]) -> bytes:
    """The local address that was asked, as `in_pktinfo` or `in6_pktinfo`; empty where the kernel does not say."""
    for level, kind, data in ancillary:
        if level == socket.IPPROTO_IP and kind == PKTINFO4:
            return data[:12]
        if level == socket.IPPROTO_IPV6 and kind == socket.IPV6_PKTINFO:
            return data[:20]
    return b""


def _from(local: bytes) -> list[tuple[int, int, bytes]]:
    """Ancillary data that sends a reply from that address."""
    if len(local) == 12:  # interface, local address (to send from), address in the header
        return [(socket.IPPROTO_IP, PKTINFO4, local[:4] + local[8:12] + bytes(4))]
    return [(socket.IPPROTO_IPV6, socket.IPV6_PKTINFO, local)]
