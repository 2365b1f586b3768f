"""An HTTP/2 connection to an endpoint, as the protocol object of its transport: many exchanges at a time, one a stream.

Its pool keeps it in `host.shared` as long as it takes new streams. What a client does not take now is not acknowledged
to the endpoint. After silence the endpoint is asked by PING whether it is still there.
"""

from __future__ import annotations

from typing import Any

from .http2 import CANCEL, NO_ERROR, REFUSED_STREAM, Http2, Http2Error
from .message import RequestHead, ResponseHead
from .upstream import Upstream

FULL_OCTETS = 64 * 1024
"""Octets of a request that wait for the endpoint's window, above which its client is not read."""
UNREAD_MOST = 1024 * 1024
"""Octets written to an endpoint that does not read, above which its connection is lost."""
STREAMS_MOST = 100
"""Streams at a time before the endpoint has said how many it takes."""
SILENT_S = 60.0
"""After so long without an octet a connection with streams is asked by PING."""
ANSWER_S = 20.0
"""For the answer to PING; then the connection is lost."""
IDS_MOST = (1 << 31) - 16
_PING = b"fairlead"


class EndpointStream(Upstream):
    """One stream: what an Upstream is for its Exchange, without a connection of its own."""

    def __init__(self, connection: Connection2) -> None:
        super().__init__(connection.pool, connection.host, connection.clock)
        self.two = True
        self.connection = connection
        self.stream: Any = None
        self.usable = True
        self.local = connection.local
        self.reused = connection.requests > 0
        self.last = False
        self.complete = False
        """The response has ended."""
        self.reading_paused = False
        self._held = 0
        self._trailers = b""

    # --- the exchange's calls

    def open(self, exchange: Any, head: RequestHead, text: bytes, end: bool) -> None:
        """Send a request's head, given as text of HTTP/1.1; `end`: there is no body."""
        self.exchange = exchange
        connection = self.connection
        connection.requests += 1
        connection.taken.add(self)
        self.stream = connection.codec.open(text, connection.scheme, end, self)
        connection.send_soon()

    def send(self, data: bytes, end: bool) -> None:
        connection = self.connection
        if self.stream is not None and not connection.lost:
            connection.codec.send(self.stream, data, end)
            connection.send_soon()
            self.look()

    def finish(self, trailers: bytes) -> None:
        """The request ends, with these trailer lines, if any."""
        connection = self.connection
        if self.stream is None or connection.lost:
            return
        if trailers:
            connection.codec.send_trailers(self.stream, trailers)
        else:
            connection.codec.send(self.stream, b"", True)
        connection.send_soon()

    def end(self, whole: bool, now: float) -> None:
        """The exchange is through with it; `whole`: request and response were sent and read to their ends."""
        self.exchange = None
        connection = self.connection
        if self.stream is not None and not connection.lost and not (whole and self.complete):
            connection.codec.reset(self.stream, NO_ERROR if self.complete else CANCEL)
            connection.send_soon()
        self._give_back()
        connection.left(self)

    def trailers(self) -> bytes:
        return self._trailers

    def buffered(self) -> int:
        """Octets held here: waiting for the endpoint's window."""
        return self.stream.queued if self.stream is not None else 0

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False
        self._give_back()

    def close(self) -> None:
        self.end(False, self.connection.clock())

    # --- the connection's calls

    def body(self, data: bytes, end: bool) -> None:
        exchange = self.exchange
        self.complete = end
        if exchange is not None:
            exchange.response_body(data, end)
        if data:
            self._held += len(data)
            if not self.reading_paused or self.exchange is None:
                self._give_back()

    def respond(self, head: ResponseHead, end: bool) -> None:
        self.answered = True
        self.complete = end
        exchange = self.exchange  # held, since the call may end it
        if exchange is not None:
            exchange.response(head, b"", end)

    def end_with(self, trailers: bytes) -> None:
        self._trailers = trailers
        self.complete = True
        exchange = self.exchange  # held, since the call may end it
        if exchange is not None:
            exchange.response_body(b"", True)

    def lose(self, why: str, malformed: bool = False, refused: bool = False) -> None:
        exchange = self.exchange
        self.exchange = None
        self.stream = None
        self.usable = False
        if exchange is not None:
            exchange.upstream_lost(why, malformed, refused)

    def look(self) -> None:
        """Tell the exchange whether more may be sent."""
        full = self.connection.write_paused or (self.stream is not None and self.stream.queued > FULL_OCTETS)
        if full != self.write_paused:
            self.write_paused = full
            exchange = self.exchange  # held, since the call may end it
            if exchange is not None:
                exchange.upstream_full(full)

    def _give_back(self) -> None:
        held = self._held
        connection = self.connection
        if held and self.stream is not None and not connection.lost:
            self._held = 0
            connection.codec.consumed(self.stream, held)
            connection.send_soon()


class Connection2:
    """The codec's handler, and what its pool sees of it."""

    def __init__(self, pool: Any, host: Any, clock: Any, outbox: Any = None) -> None:
        self.two = True
        self.asked_two = True
        self.pool = pool
        self.host = host
        self.clock = clock
        self.transport: Any = None
        self.codec = Http2(self, True)
        self.scheme = "http"
        self.lost = False
        self.usable = False
        """New streams may be opened."""
        self.write_paused = False
        self.taken: set[EndpointStream] = set()
        """Streams with an exchange."""
        self.requests = 0
        self.local = ""
        self.opened_at = 0.0
        self.heard_at = 0.0
        self.idle_since = 0.0
        self.asked_at = 0.0
        """When a PING was sent that is not answered yet; 0: none."""
        self.pinged_at = 0.0
        """When the last was sent, or the connection made."""
        self._outbox = outbox
        self._pending = False
        self._unread = 0
        """Octets written since the endpoint takes no more."""

    # --- the pool's calls

    def room(self) -> bool:
        """Whether one more request fits."""
        if not self.usable:
            return False
        limits = self.pool.live.config.limits
        codec = self.codec
        most = codec.peer_max_concurrent if codec.peer_settings_seen else STREAMS_MOST
        if limits.max_streams and limits.max_streams < most:
            most = limits.max_streams
        if len(self.taken) >= most or self.requests * 2 >= IDS_MOST:
            return False
        per_connection = limits.max_requests_per_connection
        return not per_connection or self.requests < per_connection

    def stream(self) -> EndpointStream:
        """A stream that is not opened yet; to be begun at once."""
        return EndpointStream(self)

    def retire(self) -> None:
        """No new streams; it is closed when those there are have ended."""
        self.usable = False
        if not self.taken:
            self.close()

    def sweep(self, now: float) -> None:
        """Once a second: close what was idle or open for too long, ask what is silent."""
        limits = self.pool.live.config.limits
        if self.asked_at:
            patience = limits.ping_answer_s or ANSWER_S
            if now - self.asked_at >= patience:
                self._lose(f"{self._name()} did not answer PING within {patience:g} s")
            return
        if limits.max_connection_duration_s and now - self.opened_at >= limits.max_connection_duration_s:
            self.retire()
            return
        if not self.taken and limits.idle_timeout_s and now - self.idle_since >= limits.idle_timeout_s:
            self.retire()
            return
        every = limits.ping_every_s
        due = now - self.pinged_at >= every if every else bool(self.taken) and now - self.heard_at >= SILENT_S
        if due:
            self.asked_at = self.pinged_at = now
            self.codec.ping(_PING)
            self.flush()

    # --- the transport's calls

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        name = transport.get_extra_info("sockname")
        if name:
            self.local = f"{name[0]}:{name[1]}"
        if transport.get_extra_info("sslcontext") is not None:
            self.scheme = "https"
        self.codec.start()

    def ready(self) -> None:
        """The connection is made and the peer is who it should be."""
        self.usable = True
        self.opened_at = self.heard_at = self.idle_since = self.pinged_at = self.clock()
        self.flush()
        self.pool.ready(self)

    def data_received(self, data: bytes) -> None:
        now = self.clock()
        self.codec.calm(now - self.heard_at)
        self.heard_at = now
        self.asked_at = 0.0
        try:
            self.codec.receive(data)
        except Http2Error as error:
            self.flush()  # GOAWAY
            self.transport.flush()
            self._lose(f"{self._name()} broke HTTP/2: {error}", True)
            return
        self.send_soon()

    def eof_received(self) -> bool:
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self.usable = False
        how = f" ({error})" if error is not None and str(error) else ""
        self._lose(f"{self._name()} closed the connection{how}")
        self.pool.closed(self)

    def pause_writing(self) -> None:
        self.write_paused = True
        for stream in list(self.taken):
            stream.look()

    def resume_writing(self) -> None:
        self.write_paused = False
        self._unread = 0
        for stream in list(self.taken):
            stream.look()

    # --- the codec's calls

    def head(self, stream: Any, head: ResponseHead, end: bool) -> None:
        if stream.owner is not None:
            stream.owner.respond(head, end)

    def interim(self, stream: Any, head: ResponseHead) -> None:
        owner = stream.owner
        exchange = owner.exchange if owner is not None else None
        if exchange is not None and head.status != 101:
            owner.answered = True
            exchange.interim(head)

    def data(self, stream: Any, data: bytes, end: bool) -> None:
        if stream.owner is not None:
            stream.owner.body(data, end)

    def trailers(self, stream: Any, block: bytes) -> None:
        if stream.owner is not None:
            stream.owner.end_with(block)

    def reset(self, stream: Any, code: int, why: str) -> None:
        owner = stream.owner
        if owner is None:
            return
        self.left(owner)
        if owner.complete and code == NO_ERROR:  # RFC 9113 section 8.1: the rest of the request is not wanted
            return
        said = f": {why}" if why else ""
        owner.lose(f"{self._name()} reset the stream with code {code}{said}.", False, code == REFUSED_STREAM)

    def writable(self, stream: Any) -> None:
        if stream.owner is not None:
            stream.owner.look()

    def goaway(self, last_id: int, code: int, debug: bytes) -> None:
        """No new streams; those above `last_id` were not looked at, and may be sent again."""
        self.usable = False
        name = self._name()
        for owner in list(self.taken):
            stream = owner.stream
            if stream is not None and stream.id > last_id:
                self.taken.discard(owner)
                self.codec.reset(stream, CANCEL)
                owner.lose(f"{name} is going away (GOAWAY with code {code}).", False, True)
        if not self.taken:
            self.close()

    def pong(self, payload: bytes) -> None: ...

    def settings_changed(self) -> None:
        if not self.codec.peer_max_concurrent:  # of no use, and not to be kept beside those made instead
            self.retire()
            return
        self.pool.give(self)

    # --- writing and ending

    def send_soon(self) -> None:
        """Write what the codec has, with everything else of this turn."""
        if self._pending or self.lost:
            return
        if self._outbox is None:
            self.flush()
        else:
            self._pending = True
            self._outbox.add(self)

    def flush(self) -> None:
        self._pending = False
        data = self.codec.output()
        if not data or self.lost or self.transport.is_closing():
            return
        if self.write_paused:
            self._unread += len(data)
            if self._unread > UNREAD_MOST:
                self._lose(f"{self._name()} takes nothing, and {self._unread} octets wait for it")
                return
        self.transport.write(data)

    def left(self, owner: EndpointStream) -> None:
        """A stream's exchange is over."""
        self.taken.discard(owner)
        if not self.taken:
            self.idle_since = self.clock()
            limits = self.pool.live.config.limits
            most = limits.max_requests_per_connection
            if not self.usable or self.pool.retired or (most and self.requests >= most):
                self.close()
                return
        if self.usable:
            self.pool.give(self)

    def close(self) -> None:
        """Close it; the pool hears of it when it is closed, and no longer gives it to anybody."""
        self.usable = False
        if self.transport is not None and not self.lost and not self.transport.is_closing():
            if not self.codec.goaway_sent:
                self.codec.shutdown()
            self.flush()
            self.transport.close()

    def _lose(self, why: str, malformed: bool = False) -> None:
        self.usable = False
        taken, self.taken = self.taken, set()
        if self.transport is not None and not self.lost:
            self.transport.abort()
        for owner in taken:
            owner.lose(why + ".", malformed)

    def _name(self) -> str:
        endpoint = self.host.endpoint
        return f"{endpoint.address}:{endpoint.port}"
