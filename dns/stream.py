"""Shell: one client over TCP or TLS: questions in a row, replies as they are ready, a zone where it may be had."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

from .engine import Pending
from .transfer import Transfer

if TYPE_CHECKING:
    from .server import DnsServer

_WRITE_HIGH = 256 << 10
_PENDING_PER_CONNECTION = 64
_MESSAGES_A_TURN = 4
_draw = random.random


class Stream(asyncio.Protocol):
    """One TCP client: questions in a row, each with its length before it; replies as they are ready."""

    def __init__(self, server: DnsServer, secure: bool = False) -> None:
        self.active = server.now()
        self.waiting = 0
        """Questions that are with upstreams."""
        self._server = server
        self._secure = secure
        self._transport: asyncio.Transport | None = None
        self._peer: tuple[str, int] = ("", 0)
        self._source = ""
        self._buffer = bytearray()
        self._writable = True
        self._reading = True
        self._ended = False
        self._transfer: Iterator[bytes] | None = None
        """A zone on its way; what else was asked waits for its end."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # uvloop's is one in all but class
        assert self._transport is not None
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        peer = transport.get_extra_info("peername")
        self._peer = peer[:2] if peer else ("", 0)
        self._source = self._peer[0]
        self._server.opened(self)

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        self._server.closed(self)

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    def check_idle(self, now: float, idle_s: float) -> None:
        """Close when nothing came or went for too long: a client that is idle, that trickles, or that does not read."""
        if self._transport is None or now - self.active < idle_s or (self.waiting and self._writable):
            return
        if self._writable and not self._buffer:
            self._transport.close()
        else:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        self._work()

    def eof_received(self) -> bool:
        """The client has asked all it wants; it still gets its answers."""
        self._ended = True
        self._close_if_done()
        return True

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self.active = self._server.now()
        self._work()

    def _work(self) -> None:
        """Answer whole questions while the client takes the answers; stop reading while it does not."""
        buffer, at = self._buffer, 0
        replies: list[bytes] = []
        size = 0
        while (
            self._transport is not None
            and self._writable
            and self._transfer is None
            and self.waiting < _PENDING_PER_CONNECTION
        ):
            if len(buffer) - at < 2:
                break
            end = at + 2 + (buffer[at] << 8 | buffer[at + 1])
            if len(buffer) < end:
                break
            reply = self._answer(bytes(buffer[at + 2 : end]))
            at = end
            if reply is not None:
                replies.append(len(reply).to_bytes(2, "big") + reply)
                size += len(reply)
                if size >= 65536:
                    self._transport.write(b"".join(replies))
                    replies, size = [], 0
        if at:
            self.active = self._server.now()
            del buffer[:at]
        if self._transport is None:
            return
        if replies:
            self._transport.write(b"".join(replies))
        if self._transfer is not None and self._writable:
            self._send_zone()
        if self._transport is None:
            return
        blocked = not self._writable or self._transfer is not None or self.waiting >= _PENDING_PER_CONNECTION
        if blocked == self._reading:
            self._reading = not blocked
            (self._transport.pause_reading if blocked else self._transport.resume_reading)()
        self._close_if_done()

    def _answer(self, message: bytes) -> bytes | None:
        engine = self._server.engine
        reply = engine.tcp.get(message)
        if reply is not None:
            return self._logged(message, reply)
        made = engine.reply(message, True, self._source, self._server.now(), _draw(), self._secure)
        if isinstance(made, Transfer):
            self._transfer = made.messages()
            return None
        if not isinstance(made, Pending):
            return self._logged(message, made)
        self.waiting += 1
        if not self._server.forward(made, lambda late: self._late(message, late)):
            self.waiting -= 1
            return self._logged(message, engine.give_up(made))
        return None

    def _logged(self, message: bytes, reply: bytes | None) -> bytes | None:
        log = self._server.log
        if log is not None and reply is not None:
            log.add(message, self._peer, reply, "tls" if self._secure else "tcp")
        return reply

    def _send_zone(self) -> None:
        """The next few messages of a zone; others get their turn in between."""
        assert self._transfer is not None
        for _ in range(_MESSAGES_A_TURN):
            message = next(self._transfer, None)
            if message is None or self._transport is None:
                self._transfer = None
                break
            self.active = self._server.now()
            self._transport.write(len(message).to_bytes(2, "big") + message)
            if not self._writable:
                return
        asyncio.get_running_loop().call_soon(self._work)

    def _late(self, message: bytes, reply: bytes) -> None:
        self.waiting -= 1
        self._logged(message, reply)
        if self._transport is not None:
            self.active = self._server.now()
            self._transport.write(len(reply).to_bytes(2, "big") + reply)
            if not self._reading:
                self._work()
            self._close_if_done()

    def _close_if_done(self) -> None:
        whole = len(self._buffer) >= 2 and len(self._buffer) >= 2 + (self._buffer[0] << 8 | self._buffer[1])
        if self._ended and not self.waiting and not whole and self._transfer is None and self._transport is not None:
            self._transport.close()
