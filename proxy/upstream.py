"""A connection to an endpoint, as the protocol object of its transport: one exchange after another.

It reads responses with the codec and tells its exchange; between exchanges its pool has it. Whatever an endpoint sends
that nobody asked for closes the connection. Runs compiled (with upstream.pxd) or as it stands.
"""

from __future__ import annotations

from typing import Any

from .http1 import ResponseParser
from .message import BIT, ProtocolError, ResponseHead
from .outbox import PUT_OFF_MOST, Outbox
from .poller import Protocol, Transport

HAS_KEEP_ALIVE = BIT["keep-alive"]


class Upstream(Protocol):
    """`exchange` hears response, response_body, interim, upstream_lost; see exchange.py and mirror.py."""

    def __init__(self, pool: Any, host: Any, clock: Any, outbox: Outbox | None = None) -> None:
        self.pool = pool
        self.host = host
        self.clock = clock
        self.transport: Any = None
        self.parser = ResponseParser()
        self.exchange: Any = None
        self.usable = False
        """Connected, verified, open and in nobody's hands or in its exchange's."""
        self.lost = False
        self.asked_two = False
        """HTTP/2 was offered, and the endpoint did not take it."""
        self.two = False
        """A stream of HTTP/2 (upstream2.py) and not a connection of its own."""
        self.reused = False
        """The running request is not this connection's first."""
        self.answered = False
        """Something came in answer to the running request."""
        self.head: ResponseHead | None = None
        self.requests = 0
        self.last = pool.live.config.limits.max_requests_per_connection == 1
        """The next request is the last that this connection may carry."""
        self.write_paused = False
        self.paused = False
        """The exchange wants nothing more for now."""
        self.opened_at = 0.0
        self.idle_since = 0.0
        self.idle_s = 0.0
        """How long it was idle before the running request."""
        self.local = ""
        self.outbox = outbox
        self._out: bytes | None = None
        """Waits for the outbox's turn."""
        self.unsent = False
        """The head of the running request has not been written: what comes is no answer to it."""
        self._write: Any = None
        self._typed: Transport | None = None
        """The transport, where it is of the data path (tests have others): called directly."""

    # --- the transport's calls

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        name = transport.get_extra_info("sockname")
        if name:
            self.local = f"{name[0]}:{name[1]}"
        self._write = transport.write
        self._typed = transport if isinstance(transport, Transport) else None

    def ready(self) -> None:
        """The connection is made and the peer is who it should be."""
        self.usable = True
        self.opened_at = self.idle_since = self.clock()
        self.pool.ready(self)

    def data_received(self, data: bytes) -> None:
        exchange = self.exchange
        if exchange is None:
            self.close()  # an answer to nothing
            return
        if self.unsent:
            self._lose(f"{self._name()} answered before it was asked", True)
            return
        parser = self.parser
        self.answered = True
        parser.feed(data)
        try:
            head = self.head
            if head is None:
                while True:
                    head = parser.read_head()
                    if head is None:
                        return
                    if head.status >= 200 or head.status == 101:
                        break
                    exchange.interim(head)
                self.head = head
                if self.idle_s > self.host.fresh_s:
                    self.host.was_kept(self.idle_s)
                if head.seen & HAS_KEEP_ALIVE:
                    self._told(head)
                body = parser.read_body()
                exchange.response(head, body, parser.complete)
            else:
                body = parser.read_body()
                if body or parser.complete:
                    exchange.response_body(body, parser.complete)
        except ProtocolError as error:
            self._lose(f"{self._name()} sent what is not HTTP/1.1: {error}", True)

    def eof_received(self) -> bool:
        exchange = self.exchange
        if exchange is not None and self.head is not None and self.head.until_close and self.head.status != 101:
            self.usable = False
            try:
                self.parser.eof()
            except ProtocolError:
                return False
            exchange.response_body(b"", True)
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self.usable and self.exchange is None and self.requests:
            now = self.clock()
            self.host.closed_idle(now - self.idle_since, now)
        self.lost = True
        self.usable = False
        if self.exchange is not None:
            if self.head is not None and self.head.until_close and error is None:
                self.eof_received()
            else:
                after = "after the head of its response" if self.head is not None else "before it answered"
                how = f" ({error})" if error is not None and str(error) else ""
                self._lose(f"{self._name()} closed the connection {after}{how}", False)
        self.pool.closed(self)

    def _told(self, head: ResponseHead) -> None:
        """Keep-Alive (RFC 2068 section 19.7.1): how long the endpoint keeps the connection, in seconds."""
        for part in (head.header("keep-alive") or "").split(","):
            name, _, value = part.partition("=")
            if name.strip().lower() == "timeout" and value.strip().isdigit() and len(value) < 10:
                self.host.says(float(value))

    def pause_writing(self) -> None:
        self.write_paused = True
        exchange = self.exchange  # held, since the call may end it
        if exchange is not None:
            exchange.upstream_full(True)

    def resume_writing(self) -> None:
        self.write_paused = False
        exchange = self.exchange  # held, since the call may end it
        if exchange is not None:
            exchange.upstream_full(False)

    # --- the exchange's calls

    def begin(self, exchange: Any, method: str, data: bytes) -> None:
        """Send `data`, the head of a request and what there is of its body, for this exchange."""
        self.exchange = exchange
        self.reused = self.requests > 0
        self.answered = False
        self.head = None
        self.requests += 1
        self.parser.expect(method)
        self.write(data)
        self.unsent = self._out is not None

    def write(self, data: bytes) -> None:
        if self.outbox is None or len(data) > PUT_OFF_MOST:
            if self._out is not None:
                self.flush()
            self._put(data)
        elif self._out is None:
            self._out = data
            self.outbox.add(self)
        else:
            self._out += data
            if len(self._out) > PUT_OFF_MOST:
                self.flush()

    def _put(self, data: bytes) -> None:
        typed = self._typed
        if typed is not None:
            typed.write(data)
        elif not self.lost and not self.transport.is_closing():
            self._write(data)

    def flush(self) -> None:
        """Write what waits."""
        data = self._out
        if data is not None:
            self._out = None
            self.unsent = False
            self._put(data)

    def end(self, whole: bool, now: float) -> None:
        """The exchange is through with it; `whole`: request and response were sent and read to their ends."""
        self.exchange = None
        head = self.head
        parser = self.parser
        if (
            whole
            and self.usable
            and not self.last
            and head is not None
            and head.keep_alive
            and parser.complete
            and parser.unread() == 0
        ):
            limits = self.pool.live.config.limits
            most = limits.max_requests_per_connection
            if most:
                self.last = self.requests + 1 >= most
            if limits.max_connection_duration_s and now - self.opened_at >= limits.max_connection_duration_s:
                self.close()
                return
            self.idle_since = now
            self.idle_s = 0.0
            if self.paused:  # by a client that was slow to take the end of its response
                self.resume_reading()
            self.pool.offer(self)
        else:
            self.close()

    def buffered(self) -> int:
        """Octets held here: unread, and waiting to be written."""
        held: int = self.parser.unread()
        if self._out is not None:
            held += len(self._out)
        if not self.lost and self.transport is not None:
            held += self.transport.get_write_buffer_size()
        return held

    def trailers(self) -> bytes:
        return self.parser.trailers

    def pause_reading(self) -> None:
        self.paused = True
        if not self.lost:
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        self.paused = False
        if not self.lost:
            self.transport.resume_reading()

    def close(self) -> None:
        """Close it; the pool hears of it when it is closed, and no longer gives it to anybody."""
        self.usable = False
        self._out = None
        try:
            self.host.idle.remove(self)
        except ValueError:
            pass
        if self.transport is not None and not self.lost:
            self.transport.abort()

    def _lose(self, why: str, malformed: bool) -> None:
        exchange = self.exchange
        self.exchange = None
        self.close()
        if exchange is not None:
            exchange.upstream_lost(why + ".", malformed)

    def _name(self) -> str:
        endpoint = self.host.endpoint
        return f"{endpoint.address}:{endpoint.port}"
