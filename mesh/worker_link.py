"""Shell: what a supervisor and its workers say to each other, over an inherited pair of sockets.

Each message is its length (four octets, big-endian) and msgpack. Keys of certificates travel here and nowhere else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec

MESSAGE_BYTES_MAX = 1 << 30


class Begin(msgspec.Struct, tag=True):
    """To a worker, first of all."""

    options: bytes
    """SidecarOptions, pickled: they come from our own parent, and have types that msgpack does not."""
    number: int
    workers: int
    drain_s: float
    """How long to drain for when the supervisor is gone without a word."""


class Certificate(msgspec.Struct, tag=True):
    """A new certificate; see contexts.Material."""

    certificates: str
    key: str
    roots: str
    issued: float
    ends: float


class Revocations(msgspec.Struct, tag=True):
    """What is revoked of certificates, and why, by the names of revocations.py."""

    items: dict[str, str]


class Items(msgspec.Struct, tag=True):
    """What is new in the world: a line of the feed (update.FeedMessage), and what the supervisor has handed out."""

    line: bytes
    places: dict[str, int]
    """Of clusters with limits, in the shared memory."""
    listen: list[tuple[str, int, str, int]]
    """Loopback addresses: (address, port, service, service's port)."""
    buckets: dict[str, int] = {}
    """Of local rate limits, in the shared memory."""


class Drain(msgspec.Struct, tag=True):
    deadline_s: float
    served_only: bool = False
    """The app's own calls go on."""
    idle_s: float = 1.0


class End(msgspec.Struct, tag=True):
    """Close at once."""


class Ask(msgspec.Struct, tag=True):
    number: int
    what: str
    """metrics, clusters."""


class ReopenLog(msgspec.Struct, tag=True):
    pass


class AppUnready(msgspec.Struct, tag=True):
    """Why the app is not ready; empty: it is. `told`: somebody tells peers so."""

    why: str
    told: bool


class Ejection(msgspec.Struct, tag=True):
    """A host is out; from the worker that found it failing, to all the others."""

    cluster: str
    host: str
    until: float
    """On the machine's monotonic clock."""
    ejections: int
    why: str


class Listening(msgspec.Struct, tag=True):
    """From a worker: it serves, or why it cannot."""

    error: str = ""


class Refused(msgspec.Struct, tag=True):
    """A worker cannot run what the supervisor could; empty: it runs the latest."""

    reasons: list[str]


class Trusting(msgspec.Struct, tag=True):
    """A worker's new connections trust these roots from now on (PEM)."""

    roots: str


class NotListened(msgspec.Struct, tag=True):
    """Loopback addresses that a worker could not listen on: (address, port, why)."""

    failures: list[tuple[str, int, str]]


class Uses(msgspec.Struct, tag=True):
    """Services that a worker was asked for."""

    hosts: list[str]
    missing: bool = False
    """Their endpoints are not known to it, and are waited for."""


class Condition(msgspec.Struct, tag=True):
    """How a worker is, by what it checks; sent when it has changed."""

    problems: dict[str, str]
    """Why it is not ready: by check."""
    notes: dict[str, str]
    """What is not as it should be, and leaves it ready."""
    at: dict[str, str]
    """Where it listens by itself: ports of Gateways."""


class Told(msgspec.Struct, tag=True):
    """The answer to an Ask."""

    number: int
    body: bytes


class Drained(msgspec.Struct, tag=True):
    whole: bool
    """False: the deadline cut something off."""
    cut: list[str] = []
    """What, in words."""
    served_only: bool = False


class Leave(msgspec.Struct, tag=True):
    """Responses say from now on that their connections end."""


Down = Begin | Certificate | Revocations | Items | Leave | Drain | End | Ask | ReopenLog | Ejection | AppUnready
Up = Listening | Refused | Trusting | NotListened | Uses | Condition | Told | Drained | Ejection
_encode = msgspec.msgpack.Encoder().encode


class Link(asyncio.Protocol):
    """One end. `heard(message)` for each message of `kinds`, `ended()` when the other end is gone."""

    def __init__(self, kinds: Any, heard: Callable[[Any], None], ended: Callable[[], None]) -> None:
        self._decode = msgspec.msgpack.Decoder(kinds).decode
        self._heard = heard
        self._ended = ended
        self._buffer = bytearray()
        self._transport: Any = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        buffer = self._buffer
        buffer += data
        while len(buffer) >= 4:
            size = int.from_bytes(buffer[:4], "big")
            if size > MESSAGE_BYTES_MAX:
                raise ValueError(f"a message of {size} bytes")
            if len(buffer) < 4 + size:
                return
            message = self._decode(bytes(buffer[4 : 4 + size]))
            del buffer[: 4 + size]
            self._heard(message)

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self._transport = None
        self._ended()

    def send(self, message: Down | Up) -> None:
        """Once the other end is gone, nothing happens."""
        if self._transport is not None and not self._transport.is_closing():
            body = _encode(message)
            self._transport.write(len(body).to_bytes(4, "big") + body)

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
