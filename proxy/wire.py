"""Shell: TCP connections of the data path as transports.

A Wire is an asyncio transport in all that protocols of the data path use; its Poller tells it what is ready. Two of
them can pass their octets on to each other without a protocol (`pass_to`). Runs compiled (with wire.pxd, whose
functions read and write in C) or as it stands.
"""

from __future__ import annotations

import os
import socket
import struct
from typing import Any

from .poller import EPOLLIN, EPOLLOUT, Poller, Protocol, Transport

READ_MOST = 256 * 1024
"""Octets read at a time."""
READS_A_TURN = 4
"""Of one connection, while each fills the buffer."""
HIGH_WATER, LOW_WATER = 64 * 1024, 16 * 1024
"""Octets that wait to be written, above which and below which a protocol is told."""
PUT_OFF_MOST = 16 * 1024
"""Octets: a longer piece is written at once, so that back-pressure is felt within the turn."""
COMPILED = not __file__.endswith((".py", ".pyc"))
# For the .pxd, which hides what it types.
_IN, _OUT, _PUT_OFF, _READ, _READS = EPOLLIN, EPOLLOUT, PUT_OFF_MOST, READ_MOST, READS_A_TURN
_NO_LINGER = struct.pack("ii", 1, 0)


class Tally(Protocol):
    """What came from a connection whose octets go straight to another (`Wire.pass_to`)."""

    def __init__(self) -> None:
        self.count = 0
        """Octets."""
        self.moved = False
        """There were some since somebody set this to False."""


class Wire(Transport):
    """A connected TCP socket as a transport. `begin()` calls `connection_made` and reads on.

    As with asyncio's: `connection_lost` comes once, and never within a call of the protocol's own; what `write` cannot
    send at once waits, and above HIGH_WATER the protocol is told to pause.
    """

    def __init__(self, poller: Poller, sock: socket.socket, protocol: Any) -> None:
        self.poller = poller
        self.sock = sock
        self.protocol = protocol
        self._typed: Protocol | None = protocol if isinstance(protocol, Protocol) else None
        self.closing = False
        self.paused = False
        self.high = HIGH_WATER
        self.low = LOW_WATER
        self._peer: Wire | None = None
        self._tally: Tally | None = None
        self._fd = sock.fileno()
        self._watched = 0
        """What the poller watches for; 0: it does not know us."""
        self._ended = False
        """The peer's end came."""
        self._put_off: bytes | None = None
        self._waiting: list[bytes] = []
        self._at = 0
        """Octets of the first that are sent."""
        self._size = 0
        """Octets that wait."""
        self._told_full = False
        self._eof = False
        """To be half-closed when all is written."""
        self._error: Exception | None = None
        self._over = False
        self._extra: dict[str, Any] = {}

    def __reduce__(self) -> str:
        raise TypeError("a connection cannot be pickled")

    def begin(self) -> None:
        """Tell the protocol, and read."""
        self.protocol.connection_made(self)
        if not self.closing and not self.paused and not self._watched:
            self._watch(_IN)

    def begin_connected(self) -> None:
        """As `begin`, of a socket that the poller watches for whoever connected it."""
        self.poller.give(self._fd, self)
        self._watched = _OUT
        self.protocol.connection_made(self)
        if not self.closing:
            self._watch((0 if self.paused else _IN) | (_OUT if self._size else 0))

    def _watch(self, events: int) -> None:
        watched = self._watched
        if events == watched:
            return
        self._watched = events
        poller = self.poller
        if not watched:
            poller.watch(self._fd, self, events)
        elif events:
            poller.change(self._fd, events)
        else:
            poller.forget(self._fd)

    # --- reading

    def readable(self) -> None:
        if self.paused or self.closing or self._ended:
            self._watch(self._watched & _OUT)
            return
        left = _READS
        while left:
            left -= 1
            peer = self._peer
            if peer is not None and not peer._size and peer._put_off is None and not (peer.closing or peer._eof):
                if self._pass(peer):
                    continue
                return
            try:
                if COMPILED:
                    data = fl_receive(self._fd)  # type: ignore[name-defined]  # noqa: F821
                else:
                    data = self.sock.recv(_READ)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self._fail(error)
                return
            if not data:
                self._end()
                return
            typed = self._typed
            if typed is not None:
                typed.data_received(data)
            else:
                self.protocol.data_received(data)
            if len(data) < _READ or self.paused or self.closing:
                return

    def pass_to(self, peer: Wire, tally: Tally) -> None:
        """From now on what comes goes straight to `peer`, as long as that takes it, and is counted in `tally`; no
        protocol sees it. What it does not take at once is written to it, with all that follows from that."""
        if COMPILED:
            self._peer = peer
            self._tally = tally

    def _pass(self, peer: Wire) -> bool:
        """Whether there may be more to pass; the names that are not defined here are C functions of wire.pxd."""
        try:
            have = fl_pass(self._fd, peer._fd)  # type: ignore[name-defined]  # noqa: F821
        except BlockingIOError:
            return False
        except OSError as error:
            self._fail(error)
            return False
        if not have:
            self._end()
            return False
        tally = self._tally
        assert tally is not None
        tally.count += have
        tally.moved = True
        code = fl_error()  # type: ignore[name-defined]  # noqa: F821
        if code:
            peer._fail(OSError(code, os.strerror(code)))
            return False
        if fl_short():  # type: ignore[name-defined]  # noqa: F821
            peer._keep(fl_rest(), 0)  # type: ignore[name-defined]  # noqa: F821
        return have == _READ and not self.paused and not self.closing

    def _end(self) -> None:
        self._ended = True
        self._watch(self._watched & _OUT)
        if not self.protocol.eof_received() and not self.closing:
            self.close()

    def pause_reading(self) -> None:
        self.paused = True  # what it is watched for changes when something comes

    def resume_reading(self) -> None:
        self.paused = False
        if not self.closing and not self._ended:
            self._watch(self._watched | _IN)

    def is_reading(self) -> bool:
        return not self.paused and not self.closing

    # --- writing

    def write(self, data: bytes) -> None:
        """While the poller hands out what is ready, small writes wait for its turn's end (Poller.turn says why)."""
        if self.closing or self._eof or self._error is not None:
            return
        put_off = self._put_off
        if put_off is not None:
            data = put_off + data
            if len(data) <= _PUT_OFF:
                self._put_off = data
                return
            self._put_off = None
        elif self.poller.gathering and not self._size and len(data) <= _PUT_OFF:
            self._put_off = data
            self.poller.flushes.append(self)
            return
        self._send(data)

    def flush(self) -> None:
        """Send what was put off."""
        data = self._put_off
        if data is not None:
            self._put_off = None
            self._send(data)

    def _send(self, data: bytes) -> None:
        if self._size:
            self._keep(data, 0)
            return
        size = len(data)
        try:
            if COMPILED:
                sent = fl_send(self._fd, data, 0)  # type: ignore[name-defined]  # noqa: F821
            else:
                sent = self.sock.send(data)
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            self._fail(error)
            return
        if sent < size:
            self._keep(data, sent)

    def _keep(self, data: bytes, at: int) -> None:
        """What could not be sent."""
        if not self._waiting:
            self._at = at
        self._waiting.append(data)
        self._size += len(data) - at
        self._watch(self._watched | _OUT)
        if self._size > self.high and not self._told_full:
            self._told_full = True
            self.protocol.pause_writing()

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def writable(self) -> None:
        waiting = self._waiting
        at = self._at
        done = 0
        try:
            while done < len(waiting):
                data = waiting[done]
                if COMPILED:
                    sent = fl_send(self._fd, data, at)  # type: ignore[name-defined]  # noqa: F821
                else:
                    sent = self.sock.send(memoryview(data)[at:] if at else data)
                self._size -= sent
                at += sent
                if at < len(data):
                    break
                done += 1
                at = 0
        except (BlockingIOError, InterruptedError):
            pass
        except OSError as error:
            self._fail(error)
            return
        del waiting[:done]
        self._at = at
        if not waiting:
            self._watch(self._watched & _IN)
            if self._eof and not self._over:
                self._shut()
            if self.closing:
                self._finish()
                return
        if self._told_full and self._size <= self.low:
            self._told_full = False
            self.protocol.resume_writing()

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """Half-close, after what is written."""
        if self._eof or self.closing:
            return
        self.flush()
        self._eof = True
        if not self._waiting:
            self._shut()

    def _shut(self) -> None:
        try:
            self.sock.shutdown(socket.SHUT_WR)
        except OSError as error:
            self._fail(error)

    def get_write_buffer_size(self) -> int:
        return self._size if self._put_off is None else self._size + len(self._put_off)

    def get_write_buffer_limits(self) -> tuple[int, int]:
        return self.low, self.high

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.high = HIGH_WATER if high is None else high
        self.low = self.high // 4 if low is None else low

    # --- the end

    def close(self) -> None:
        """After what is written."""
        if self.closing:
            return
        self.flush()
        self.closing = True
        if self._waiting:
            self._watch(_OUT)
        else:
            self._finish()

    def abort(self) -> None:
        """At once."""
        self.closing = True
        self._finish()

    def reset(self) -> None:
        """At once, and so that the peer sees that it was not the end (RFC 9293 section 3.10.7.1)."""
        if not self._over:
            try:
                self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            except OSError:
                pass
        self.abort()

    def broken(self, error: Exception) -> None:
        self._fail(error)

    def _fail(self, error: Exception) -> None:
        if self._error is None and not self._over:
            self._error = error
        self.abort()

    def _finish(self) -> None:
        if not self._over:
            self._over = True
            if self._watched:
                self.poller.give(self._fd, None)
            self._put_off = None
            self._waiting = []
            self._size = 0
            self.poller.soon(self._lost)

    def _lost(self) -> None:
        self.sock.close()
        protocol, self.protocol = self.protocol, None
        self._peer = self._tally = self._typed = None
        self._extra.clear()
        protocol.connection_lost(self._error)

    def is_closing(self) -> bool:
        return self.closing

    # --- what it is

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol
        self._typed = protocol if isinstance(protocol, Protocol) else None

    def get_protocol(self) -> Any:
        return self.protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """`socket`, `peername`, `sockname`."""
        if name == "socket":
            return self.sock
        if name not in ("peername", "sockname"):
            return default
        found = self._extra.get(name)
        if found is None:
            try:
                found = self.sock.getpeername() if name == "peername" else self.sock.getsockname()
            except OSError:
                return default
            self._extra[name] = found
        return found

    def know(self, name: str, value: Any) -> None:
        """Something of `get_extra_info` that is known already."""
        self._extra[name] = value
