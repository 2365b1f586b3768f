"""Two byte streams joined: half-close, back-pressure, idle time, and what went through.

A core on two transports, whose protocol objects its ends are. TLS between sidecars is half-closed like TCP. Other TLS
is not: a client's end is closed when its server has ended; a server's, when its client has ended and nothing has moved
for `HALF_CLOSED_IDLE_S`. A connection that was reset, or cut before its end, is a reset for the other side too; a TLS
peer that never says where its end is (`TruncatedError`) has ended like any other.
Runs compiled (with relay.pxd) or as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .message import TruncatedError
from .poller import Transport
from .wire import Tally, Wire

HALF_CLOSED_IDLE_S = 10.0


class End(Tally):
    """One side of a relay: the protocol object of its transport."""

    def __init__(self, relay: Relay) -> None:
        self.relay = relay
        self.peer: Any = None
        self.transport: Any = None
        self.count = 0
        self.moved = False
        self.held: list[bytes] = []
        """What came from here before there was a peer to take it."""
        self.ended = False
        """It will send no more."""
        self.lost = False
        self.whole = False
        """Its transport cannot be half-closed."""
        self._write: Any = None
        self._typed: Transport | None = None
        """The transport, where it is of the data path (tests have others): called directly."""

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self.whole = not transport.can_write_eof()
        self._write = transport.write
        self._typed = transport if isinstance(transport, Transport) else None

    def data_received(self, data: bytes) -> None:
        self.count += len(data)
        self.moved = True
        peer = self.peer
        if peer.transport is None:  # no peer yet; a new transport may read on although it is paused
            self.held.append(data)
            self.transport.pause_reading()
            if self.relay.on_held is not None:
                self.relay.on_held(self)
        else:
            peer.write(data)

    def write(self, data: bytes) -> None:
        if self.lost:
            return
        typed = self._typed
        if typed is not None:
            typed.write(data)
        else:
            self._write(data)

    def release(self) -> None:
        """Give the peer, which is there by now, what was held for it; then its end, if that has come, too."""
        held, self.held = self.held, []
        if not self.lost:
            self.transport.resume_reading()
        for data in held:
            self.peer.write(data)
        if self.ended and not self.lost:
            self.relay.half_closed(self)

    def eof_received(self) -> bool:
        self.ended = True
        return self.relay.half_closed(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self.ended = True
        self.relay.closed(self, error)

    def pause_writing(self) -> None:
        if not self.peer.lost and self.peer.transport is not None:
            self.peer.transport.pause_reading()

    def resume_writing(self) -> None:
        if not self.peer.lost and self.peer.transport is not None:
            self.peer.transport.resume_reading()

    def close(self) -> None:
        """After what is still to be written."""
        if self.transport is not None and not self.lost:
            self.transport.close()

    def abort(self) -> None:
        """At once, and the peer sees that it was not the end."""
        if self.transport is not None and not self.lost:
            self.transport.reset()


class Relay:
    """`on_end(relay)` is called once, when both sides are closed."""

    def __init__(self, now: float, on_end: Callable[[Relay], None]) -> None:
        self.client = End(self)
        self.server = End(self)
        self.client.peer = self.server
        self.server.peer = self.client
        self.on_end = on_end
        self.on_held: Callable[[End], None] | None = None
        """Told of each piece that an end has to hold."""
        self.over = False
        self.moved = True
        """Something went through since `idle_since` was looked at."""
        self.idle_since = now
        self.idle_s = -1.0
        """Seconds without an octet after which it is over; 0: never; below 0: as `sweep` is told."""
        self.ends_at = 0.0
        """When it is over whatever moves; 0: never."""
        self.lasts_s = 0.0
        """How long it was given by that."""
        self.reason: Any = None
        """Reason (registry/reasons.py) where it was ended from outside."""
        self.why = ""

    def join(self) -> None:
        """Both transports are there and nothing is held: without TLS, octets need not come by here."""
        client, server = self.client.transport, self.server.transport
        if isinstance(client, Wire) and isinstance(server, Wire):
            client.pass_to(server, self.client)
            server.pass_to(client, self.server)

    def half_closed(self, end: End) -> bool:
        """`end` sends no more. Whether its transport stays open for what still goes to it."""
        peer = end.peer
        if peer.transport is None:
            return not end.whole  # told to the peer when there is one
        if peer.lost:
            return False
        self.moved = True
        if peer.ended:
            peer.close()
            return False
        if peer.transport.can_write_eof():
            peer.transport.write_eof()
        elif end is self.server:
            peer.close()  # servers that close are done, and clients wait for it
            return False
        return not end.whole

    def closed(self, end: End, error: Exception | None) -> None:
        peer = end.peer
        if not peer.lost:
            if error is not None and not isinstance(error, TruncatedError):
                peer.abort()  # a reset stays a reset
            else:
                peer.close()
            if peer.transport is not None:
                return
        if not self.over:
            self.over = True
            self.on_end(self)

    def abort(self, reason: Any = None, why: str = "") -> None:
        """End both sides at once."""
        if self.reason is None:
            self.reason = reason
            self.why = why
        self.client.abort()
        self.server.abort()

    def sweep(self, now: float, idle_s: float) -> bool:
        """Whether nothing has moved for too long (0: nothing is too long); called now and then."""
        if self.moved or self.client.moved or self.server.moved:
            self.moved = self.client.moved = self.server.moved = False
            self.idle_since = now
            return False
        if self.idle_s >= 0:
            idle_s = self.idle_s
        if self.client.ended or self.server.ended:
            idle_s = min(idle_s, HALF_CLOSED_IDLE_S) if idle_s else HALF_CLOSED_IDLE_S
        return bool(idle_s) and now - self.idle_since >= idle_s
