"""Shell: TLS of the data path as bytes: to the raw transport below a protocol, to the protocol above a transport.

Of the world it touches OpenSSL's randomness alone: no socket, no clock. Only whole records (RFC 8446 section 5.1) are
given to OpenSSL, so that reads seldom ask for more, which would be an exception. Half-close is TLS 1.3's (section 6.1):
`write_eof` sends close_notify and reading goes on. Runs compiled (with tls.pxd) or as it stands.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from typing import Any

from .message import TruncatedError
from .poller import Protocol, Transport

RECORD_MAX = 16 * 1024
"""Octets of plaintext in a record."""
WIRE_MAX = RECORD_MAX + 2048
"""Octets of a record's body that its header may announce (TLS 1.2; 1.3 allows fewer)."""
FIRST_RECORD = 1300
"""Octets: a record that one packet holds, so that a peer can begin before the rest has come."""
FIRST_OCTETS = 16 * 1024
"""So many of a connection go in such records; then in the longest, which cost least."""
PORTION = 128
"""Records given to OpenSSL at a time: it reads on by itself over those that carry nothing."""
EMPTY_MOST = 64
"""Records without application data (KeyUpdate, tickets) beyond those that do carry some. RFC 8446 section 4.6.3 limits
no one; each KeyUpdate costs as much as thousands of octets, and an answer."""
SIDECAR_ALPN = "fairlead"
"""A peer that chose it goes on sending after our close_notify; many others close."""


class Tls(Transport):
    """Made for a raw connection; `made(None)` is called when the handshake is over, before the protocol's
    `connection_made`; `made(error)` where it failed (ssl.SSLError, OSError, TimeoutError), then nothing else is.

    `soon(callback)` calls back in the loop's next turn. Whoever made it limits the handshake's time: `give_up`.
    """

    def __init__(
        self,
        protocol: Any,
        context: Any,
        made: Callable[[Exception | None], Any] | None,
        soon: Callable[[Callable[[], None]], Any],
        server_side: bool = False,
        server_hostname: str | None = None,
    ) -> None:
        self.protocol = protocol
        self._typed: Protocol | None = protocol if isinstance(protocol, Protocol) else None
        self.context = context
        self.made = made
        self.soon = soon
        self.server_side = server_side
        self.server_hostname = server_hostname
        self.raw: Any = None
        self.incoming: Any = ssl.MemoryBIO()
        self.outgoing: Any = ssl.MemoryBIO()
        self.wire: Any = None
        """The ssl.SSLObject."""
        self._read: Any = None
        self._write: Any = None
        self._below: Transport | None = None
        self.part = b""
        """The beginning of a record."""
        self.shaken = False
        """The handshake is over."""
        self.failed = False
        """The handshake failed, and `made` was told."""
        self.paused = False
        self.closing = False
        self.ended = False
        """The peer's close_notify came."""
        self.cut = False
        """The raw connection's end came."""
        self.said = False
        """Our close_notify went."""
        self.half = False
        self.reading = False
        """Within `_read_on`."""
        self.records = 0
        """Given to OpenSSL, less those that carried something."""
        self.error: Exception | None = None
        self.first = 0

    # To the raw transport

    def connection_made(self, raw: Any) -> None:
        self.raw = raw
        try:
            self.wire = self.context.wrap_bio(self.incoming, self.outgoing, self.server_side, self.server_hostname)
        except (ValueError, ssl.SSLError) as error:
            self.give_up(error)
            return
        # SSLObject's methods are Python around those of the object within, which is all that reads and writes need.
        inner = getattr(self.wire, "_sslobj", self.wire)
        self._read, self._write = inner.read, inner.write
        self._below = raw
        self._shake()

    def data_received(self, data: bytes) -> None:
        if self.shaken:
            if not (self.closing or self.ended):
                self._take(data)
        elif not self.failed:
            self.incoming.write(data)
            self._shake()

    def eof_received(self) -> bool:
        if not self.shaken:
            self.give_up(ConnectionResetError())
            return False
        self.cut = True
        if self.closing:
            return False
        if self.incoming.pending or self.reading:
            return True  # what came before is read first
        return self._cut_off()

    def connection_lost(self, error: Exception | None) -> None:
        self.closing = True
        if not self.shaken:
            self.give_up(error or ConnectionResetError())
            return
        protocol, self.protocol = self.protocol, None
        self._typed = None
        if protocol is not None:
            protocol.connection_lost(self.error or error)
        # OpenSSL's part is large, and no collector knows: it goes now, whoever still holds this.
        self.wire = self.incoming = self.outgoing = self._read = self._write = self._below = None

    def pause_writing(self) -> None:
        if self.shaken and self.protocol is not None:
            self.protocol.pause_writing()

    def resume_writing(self) -> None:
        if self.shaken and self.protocol is not None:
            self.protocol.resume_writing()

    # The handshake

    def _shake(self) -> None:
        try:
            self.wire.do_handshake()
        except ssl.SSLWantReadError:
            self._send()
            return
        except (ssl.SSLError, ValueError) as error:
            self._send()  # the alert
            self.give_up(error)
            return
        self._send()
        self.shaken = True
        self.half = self.wire.version() == "TLSv1.3" and self.wire.selected_alpn_protocol() == SIDECAR_ALPN
        rest = self.incoming.read()
        self._told(None)
        if self.closing:
            return
        self.protocol.connection_made(self)
        if rest and not self.closing:
            self._take(rest)

    def give_up(self, error: Exception) -> None:
        """End a handshake that is not over; harmless where it is."""
        if self.shaken or self.failed:
            return
        self.failed = True
        self.closing = True
        raw = self.raw
        if raw is not None:
            raw.flush()  # the alert
            if raw.get_write_buffer_size():
                raw.abort()
            else:
                raw.close()
        self._told(error)

    def _told(self, error: Exception | None) -> None:
        made, self.made = self.made, None  # it most often knows this object
        if made is not None:
            made(error)

    # Reading

    def _take(self, data: bytes) -> None:
        """Give OpenSSL the whole records, keep the beginning of the next, and read."""
        if self.part:
            data = self.part + data
            self.part = b""
        end = len(data)
        at = begin = records = 0
        while end - at >= 5:
            size = (data[at + 3] << 8) | data[at + 4]
            if size > WIRE_MAX or data[at + 1] != 3 or not 20 <= data[at] <= 23:
                at = end  # OpenSSL says what is wrong with it
                break
            if at + 5 + size > end:
                break
            at += 5 + size
            records += 1
            if records == PORTION and at < end:
                self.incoming.write(data[begin:at])
                self.records += records
                begin = at
                records = 0
                if not self.reading:
                    self._read_on()
                if self.closing or self.ended:
                    return
        self.records += records
        if at < end:
            self.part = data[at:] if at else data
            if at == begin:
                return
        self.incoming.write(data if begin == 0 and at == end else data[begin:at])
        if not self.reading:
            self._read_on()

    def _read_on(self) -> None:
        incoming = self.incoming
        self.reading = True
        try:
            while not (self.paused or self.closing or self.ended):
                size = incoming.pending
                if not size:  # each read took a whole record, whose plaintext is never longer than what is asked for
                    break
                data = self._read(size if size < RECORD_MAX else RECORD_MAX)
                if data:
                    if self.records > 1:
                        self.records -= 2  # one more than it counted: what is rare is forgiven
                    else:
                        self.records = 0
                    typed = self._typed
                    if typed is not None:
                        typed.data_received(data)
                    else:
                        self.protocol.data_received(data)
                else:
                    self._end()
        except ssl.SSLWantReadError:
            self._send()  # the last was a ticket, or a new key, to be answered with ours
        except ssl.SSLZeroReturnError:
            self._end()
        except ssl.SSLError as error:
            self.reading = False
            self._fail(error)
            return
        finally:
            self.reading = False
        if self.records > EMPTY_MOST and not self.closing and not self.incoming.pending:
            self._fail(ssl.SSLError(1, f"more than {EMPTY_MOST} records without data"))
            return
        if self.cut and not self.closing and not self.paused and not self._cut_off():
            self.raw.close()

    def _end(self) -> None:
        """The peer sends no more; what comes after its close_notify is not looked at (RFC 8446 section 6.1)."""
        self.ended = True
        if not self.protocol.eof_received() and not self.closing:
            self.close()

    def _cut_off(self) -> bool:
        """The raw connection ended. Whether it is kept for what still goes out."""
        if self.ended:
            return True
        # A sidecar always says where its end is; many servers don't, which only what they send can tell from a cut.
        kind = ConnectionResetError if self.wire.selected_alpn_protocol() == SIDECAR_ALPN else TruncatedError
        self.error = kind("the peer closed without close_notify")
        self.closing = True
        return False

    def _fail(self, error: Exception) -> None:
        self._send()  # the alert
        self.error = error
        self.closing = True
        self.raw.flush()
        if self.raw.get_write_buffer_size():
            self.raw.abort()
        else:
            self.raw.close()

    def pause_reading(self) -> None:
        if not self.paused and not self.closing:
            self.paused = True
            self.raw.pause_reading()

    def resume_reading(self) -> None:
        if self.paused and not self.closing:
            self.paused = False
            if not self.reading and (self.incoming.pending or self.cut):
                self.soon(self._resume)
            else:
                self.raw.resume_reading()

    def _resume(self) -> None:
        if not self.paused and not self.closing:
            self._read_on()
            if not self.paused and not self.closing:
                self.raw.resume_reading()

    def is_reading(self) -> bool:
        return not self.paused and not self.closing

    # Writing

    def write(self, data: bytes) -> None:
        """Any length; what is written after `close` or `write_eof` is dropped."""
        if self.closing or self.said or not data:
            return
        try:
            if self.first < FIRST_OCTETS:
                size = len(data)
                if size <= FIRST_RECORD:
                    self._write(data)
                else:
                    self._first(memoryview(data))
                self.first += size
            else:
                self._write(data)
        except ssl.SSLError as error:
            self._fail(error)
            return
        below = self._below
        if below is not None:
            below.write(self.outgoing.read())

    def _first(self, data: memoryview) -> None:
        at = 0
        left = FIRST_OCTETS - self.first
        while at < len(data) and at < left:
            self.wire.write(data[at : at + FIRST_RECORD])
            at += FIRST_RECORD
        if at < len(data):
            self.wire.write(data[at:])

    def writelines(self, pieces: Any) -> None:
        self.write(b"".join(pieces))

    def _send(self) -> None:
        if self.outgoing is not None and self.outgoing.pending and not self.raw.is_closing():
            self.raw.write(self.outgoing.read())

    def can_write_eof(self) -> bool:
        """Whether the peer is known to go on sending after our close_notify."""
        return self.half

    def write_eof(self) -> None:
        if self.closing or self.said:
            return
        self.said = True
        # What waits to be read is none of `unwrap`'s business: it would take it for an error.
        waiting = self.incoming.read()
        try:
            self.wire.unwrap()
        except (ssl.SSLError, ValueError):
            pass  # it wants the peer's, which is read when it comes
        if waiting:
            self.incoming.write(waiting)
        self._send()

    def close(self) -> None:
        """After what is written; the peer's close_notify is not waited for."""
        if self.closing:
            return
        self.write_eof()
        self.closing = True
        self.raw.close()

    def abort(self) -> None:
        self.closing = True
        self.raw.abort()

    def flush(self) -> None:
        """Send what was put off to the end of the poller's turn."""
        self.raw.flush()

    def reset(self) -> None:
        """At once, and so that the peer sees that it was not the end."""
        self.closing = True
        self.raw.reset()

    def is_closing(self) -> bool:
        return self.closing or bool(self.raw.is_closing())

    def get_write_buffer_size(self) -> int:
        return int(self.raw.get_write_buffer_size())

    def get_write_buffer_limits(self) -> Any:
        return self.raw.get_write_buffer_limits()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self.raw.set_write_buffer_limits(high, low)

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol
        self._typed = protocol if isinstance(protocol, Protocol) else None

    def get_protocol(self) -> Any:
        return self.protocol

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        if name == "ssl_object":
            return self.wire
        if name == "sslcontext":
            return self.context
        if name == "peercert":
            return self.wire.getpeercert() if self.wire is not None else default
        if name == "cipher":
            return self.wire.cipher() if self.wire is not None else default
        return self.raw.get_extra_info(name, default)
