"""A client's HTTP/2 connection, as the protocol object of its transport: many exchanges at a time, one a stream.

Back-pressure is the windows': what the endpoint does not take now is not acknowledged to the client, and an endpoint
is not read while its client's window is full. Nothing is held but what the windows allow.
Long because a connection and its streams are one thing.
"""

from __future__ import annotations

from typing import Any

from ..registry.reasons import CLIENT_GONE, MALFORMED, SLOW, TOO_LARGE, Reason
from .core import Client
from .exchange import Exchange
from .headers import own_response
from .http2 import CANCEL, INTERNAL_ERROR, NO_ERROR, Http2, Http2Error, Http2Limits
from .message import Outcome, RequestHead, ResponseHead

NEVER = float("inf")
FULL_OCTETS = 64 * 1024
"""Octets of a response that wait for the client's window, above which its endpoint is not read."""
FULL_IN_ALL = 512 * 1024
"""Octets of all streams of a connection that wait so, above which each that has any is full."""
TURN_MOST = 256 * 1024
"""Octets put off to a turn's end, above which they are written at once: back-pressure must be felt within it."""
UNREAD_MOST = 4 * 1024 * 1024
"""Octets written to a client that does not read, above which its connection is cut."""
STREAMS_A_SHARE = 8
"""Streams that together may hold (windows, heads, bodies kept for retries) what one connection of HTTP/1 may."""
FROM_SIDECAR = Http2Limits(resets=10_000)
CONNECT_WHY = "CONNECT is not carried over HTTP/2: use HTTP/1.1 for tunnels."


class ClientStream(Client):
    """One stream: what a Downstream is for its Exchange, without a connection of its own."""

    def __init__(self, connection: Downstream2, stream: Any) -> None:
        self.connection = connection
        self.stream = stream
        self.exchange: Any = None
        self.reading_paused = False
        self.full = False
        """The exchange was told to send no more for now."""
        self.ended = False
        """Nothing more is sent on it."""
        self.local = connection.local
        self._held = 0
        """Octets of the body that came and are not acknowledged."""
        self._trailers = b""
        self._timer: Any = None
        self._armed_at = NEVER
        self._watched: Any = None
        self._size = 0

    # --- the exchange's calls

    def respond(self, text: bytes, end: bool) -> None:
        """A response's head, as text of HTTP/1.1; also an interim one."""
        if not self.ended:
            self.ended = end
            self.connection.codec.respond(self.stream, text, end)
            self.connection.send_soon()
            if self.connection.write_paused:
                self._look()

    def send(self, data: bytes, end: bool) -> None:
        if not self.ended:
            self.ended = end
            connection = self.connection
            connection.codec.send(self.stream, data, end)
            if connection.codec.pending > TURN_MOST:
                connection.flush()
            else:
                connection.send_soon()
            self._look()

    def finish(self, trailers: bytes) -> None:
        """The response ends, with these trailer lines."""
        if not self.ended:
            self.ended = True
            self.connection.codec.send_trailers(self.stream, trailers)
            self.connection.send_soon()

    def trailers(self) -> bytes:
        """Trailer lines of the request."""
        return self._trailers

    def last_request(self, exchange: Any) -> bool:
        return False

    def done(self, exchange: Any, close: bool) -> None:
        """The exchange has ended, and its response, if any, is written."""
        connection = self.connection
        self._stop()
        if self.stream.queued:  # the client has as long as for anything to take the rest
            self._watch()
        if not exchange.request_complete and not connection.lost:
            if self.ended:  # RFC 9113 section 8.1: the answer is whole, the rest of the request is not wanted
                connection.codec.reset(self.stream, NO_ERROR)
            else:
                connection.codec.reset(self.stream, INTERNAL_ERROR)
            connection.send_soon()
        connection.ended(self)

    def abort(self) -> None:
        """The response cannot be ended well: the client can tell."""
        connection = self.connection
        self._stop()
        self.ended = True
        if not connection.lost:
            connection.codec.reset(self.stream, INTERNAL_ERROR)
            connection.send_soon()
        connection.ended(self)

    def buffered(self) -> int:
        """Octets held for this stream beside what its connection holds."""
        exchange = self.exchange
        if exchange is None:
            return 0
        held: int = len(exchange.head.raw)  # which may be much longer than what came of it (HPACK)
        if exchange.body is not None:
            held += exchange.body_size
        if exchange.upstream is not None:
            held += exchange.upstream.buffered()
        return held

    def pause_reading(self) -> None:
        self.reading_paused = True

    def resume_reading(self) -> None:
        self.reading_paused = False
        held = self._held
        if held and not self.connection.lost:
            self._held = 0
            self.connection.codec.consumed(self.stream, held)
            self.connection.send_soon()

    def arm(self, at: float) -> None:
        """Wake the exchange at `at` or earlier."""
        if at < self._armed_at:
            if self._timer is not None:
                self._timer.cancel()
            engine = self.connection.engine
            self._armed_at = at
            self._timer = engine.later(at - engine.now(), self._wake)

    # --- the connection's calls

    def body(self, data: bytes, end: bool) -> None:
        exchange = self.exchange
        if exchange is not None:
            exchange.request_body(data, end)
        if data:
            if self.reading_paused and self.exchange is not None:
                self._held += len(data)
            else:
                self.connection.codec.consumed(self.stream, len(data))

    def end_with(self, trailers: bytes) -> None:
        self._trailers = trailers
        exchange = self.exchange  # held, since the call may end it
        if exchange is not None:
            exchange.request_body(b"", True)

    def lose(self, reason: Reason, why: str) -> None:
        self._stop()
        self.ended = True
        exchange = self.exchange
        self.exchange = None
        if exchange is not None:
            exchange.client_lost(reason, why)

    def look(self) -> None:
        """Tell the exchange whether more may be sent."""
        self._look()

    def _look(self) -> None:
        connection = self.connection
        queued = self.stream.queued
        full = connection.write_paused or queued > FULL_OCTETS or (queued > 0 and connection.codec.queued > FULL_IN_ALL)
        if full != self.full:
            self.full = full
            if full:
                self._watch()
            exchange = self.exchange  # held, since the call may end it
            if exchange is not None:
                exchange.client_full(full)

    def drained(self) -> None:
        """All that waited for the window is sent."""
        self._look()
        self.connection.close_if_done()

    def _watch(self) -> None:
        """From now on the client must take something of what waits."""
        engine = self.connection.engine
        longest = engine.settings.write_timeout_s
        if longest and self._watched is None:
            self._size = self.stream.queued
            self._watched = engine.later(longest, self._stuck)

    def _stuck(self) -> None:
        self._watched = None
        connection = self.connection
        size = self.stream.queued
        if connection.lost or not size:
            return
        if size < self._size or (self.exchange is not None and not self.full):
            self._watch()
            return
        longest = connection.engine.settings.write_timeout_s
        connection.codec.reset(self.stream, CANCEL)
        connection.send_soon()
        self.lose(SLOW, f"The client's window took no octet for {longest:g} s; {size} octets wait for it.")
        connection.ended(self)

    def _stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._armed_at = NEVER

    def _wake(self) -> None:
        self._timer = None
        self._armed_at = NEVER
        exchange = self.exchange
        if exchange is not None:
            at = exchange.wake(self.connection.engine.now())
            if at and self.exchange is not None:
                self.arm(at)


class Downstream2:
    """`arrival` goes with every request; `engine` is what exchanges need (engine.py). The codec's handler."""

    def __init__(self, engine: Any, arrival: Any) -> None:
        self.engine = engine
        self.arrival = arrival
        self.transport: Any = None
        # A sidecar's connection is shared by its clients, whom it has counted one by one.
        self.codec = Http2(self, False, FROM_SIDECAR if arrival.listener == "inbound" and arrival.identity else None)
        self.lost = False
        self.closing = False
        """No further request is taken."""
        self.write_paused = False
        self.streams: set[ClientStream] = set()
        """Those with an exchange under way."""
        self.tls = False
        self.local = ""
        self.since = 0.0
        """Since when there is no exchange, or nothing came."""
        self._heard_at = 0.0
        self._announced_at = 0.0
        self._leaving = False
        """It is closed, and the timer is that of what still waits to be written."""
        self._pending = False
        self._outbox: Any = engine.outbox
        self._unread = 0
        self._watched: Any = None
        self._size = 0
        self._timer: Any = None

    # --- the transport's calls

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        name = transport.get_extra_info("sockname")
        if name:
            self.local = f"{name[0]}:{name[1]}"
        self.tls = transport.get_extra_info("sslcontext") is not None
        engine = self.engine
        engine.connections.add(self)
        self.since = self._heard_at = engine.now()
        self._arm(engine.settings.head_timeout_s)
        self.codec.start()
        self.flush()

    def data_received(self, data: bytes) -> None:
        if self.lost:
            return
        now = self.engine.now()
        self.codec.calm(now - self._heard_at)
        self._heard_at = now
        try:
            self.codec.receive(data)
        except Http2Error as error:
            self._broken(error)
            return
        self.send_soon()
        self.close_if_done()

    def eof_received(self) -> bool:
        self.closing = True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        if self.lost:
            return
        self.lost = True
        self.closing = True
        self.engine.connections.discard(self)
        for timer in (self._timer, self._watched):
            if timer is not None:
                timer.cancel()
        self._timer = self._watched = None
        streams, self.streams = self.streams, set()
        for stream in streams:
            stream.lose(CLIENT_GONE, "The client closed the connection before it had the whole response.")
        self.engine.client_closed(self)

    def pause_writing(self) -> None:
        self.write_paused = True
        longest = self.engine.settings.write_timeout_s
        if longest and self._watched is None:
            self._size = self.transport.get_write_buffer_size()
            self._watched = self.engine.later(longest, self._stuck)
        for stream in list(self.streams):
            stream.look()

    def resume_writing(self) -> None:
        self.write_paused = False
        self._unread = 0
        if self._watched is not None:
            self._watched.cancel()
            self._watched = None
        for stream in list(self.streams):
            stream.look()

    def _stuck(self) -> None:
        """Cut off a client that has taken nothing for too long."""
        self._watched = None
        if self.lost:
            return
        size = self.transport.get_write_buffer_size()
        longest = self.engine.settings.write_timeout_s
        if size < self._size:
            self._size = size
            self._watched = self.engine.later(longest, self._stuck)
        else:
            self.cut_off(SLOW, f"The client took no octet for {longest:g} s; {size} octets wait for it.")

    # --- the codec's calls

    def head(self, stream: Any, head: RequestHead, end: bool) -> None:
        engine = self.engine
        head.arrival = self.arrival
        if self.tls and self.arrival.listener != "inbound":
            head.scheme = "https"
        else:
            head.scheme = "http"
        client = ClientStream(self, stream)
        stream.owner = client
        self.streams.add(client)
        if head.method == "CONNECT":
            self._refuse(client, head)
            return
        exchange = Exchange(engine, client, head, engine.now())
        client.exchange = exchange
        exchange.start(b"", end)

    def data(self, stream: Any, data: bytes, end: bool) -> None:
        stream.owner.body(data, end)

    def trailers(self, stream: Any, block: bytes) -> None:
        stream.owner.end_with(block)

    def interim(self, stream: Any, head: ResponseHead) -> None: ...

    def reset(self, stream: Any, code: int, why: str) -> None:
        client = stream.owner
        if client is None:
            return
        self.streams.discard(client)
        if code == CANCEL:
            client.lose(CLIENT_GONE, "The client cancelled the request (RST_STREAM CANCEL).")
        else:
            client.lose(CLIENT_GONE, f"The client's stream was reset with code {code}{f': {why}' if why else ''}.")
        self._idle()

    def refused(self, why: str, large: bool) -> None:
        """A request that came to no exchange: the codec has reset its stream, or answered."""
        outcome = self._own_outcome(TOO_LARGE if large else MALFORMED, f"HTTP/2: {why}.")
        outcome.status = 431 if large else 0
        outcome.details = "http2.codec_error"
        outcome.started_at = outcome.ended_at
        self.engine.observe(outcome)

    def writable(self, stream: Any) -> None:
        if stream.owner is not None:
            stream.owner.drained()

    def goaway(self, last_id: int, code: int, debug: bytes) -> None:
        self.closing = True

    def pong(self, payload: bytes) -> None: ...

    def settings_changed(self) -> None: ...

    # --- writing

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
                self.abort()
                return
        self.transport.write(data)

    # --- endings

    def ended(self, client: ClientStream) -> None:
        """A stream's exchange is over."""
        client.exchange = None
        self.streams.discard(client)
        self._idle()

    def _idle(self) -> None:
        if self.streams or self.lost:
            return
        self.since = self.engine.now()
        if self._timer is None:
            self._arm(self.engine.settings.idle_timeout_s)
        self.close_if_done()

    def close_if_done(self) -> None:
        if self.closing and not self.streams and not self.lost and not self.codec.queued:
            self.flush()
            self.transport.close()

    def _refuse(self, client: ClientStream, head: RequestHead) -> None:
        outcome = Outcome()
        outcome.request = head
        outcome.arrival = self.arrival
        outcome.status = 501
        outcome.reason = MALFORMED.code
        outcome.flag = MALFORMED.flag
        outcome.why = CONNECT_WHY
        outcome.started_at = outcome.ended_at = self.engine.now()
        body = CONNECT_WHY.encode() + b"\n"
        client.respond(own_response(501, body, False, MALFORMED.code, self.engine.date_line(), True), False)
        client.send(body, True)
        self.ended(client)
        self.engine.observe(outcome)

    def _broken(self, error: Http2Error) -> None:
        """The client broke the protocol: the codec has put a GOAWAY into its output."""
        outcome = self._own_outcome(MALFORMED, f"HTTP/2: {error}.")
        outcome.details = "http2.codec_error"
        self.closing = True
        self.flush()
        streams, self.streams = self.streams, set()
        for stream in streams:
            stream.lose(MALFORMED, outcome.why)
        if not self.lost:
            self.transport.close()
        self.engine.observe(outcome)

    def _own_outcome(self, reason: Reason, why: str) -> Outcome:
        outcome = Outcome()
        outcome.arrival = self.arrival
        outcome.reason = reason.code
        outcome.flag = reason.flag
        outcome.why = why
        outcome.started_at = self.since
        outcome.ended_at = self.engine.now()
        return outcome

    def abort(self) -> None:
        """Close at once."""
        self.closing = True
        streams, self.streams = self.streams, set()
        for stream in streams:
            stream.lose(CLIENT_GONE, "The connection was cut.")
        if not self.lost:
            self.transport.abort()

    def buffered(self) -> int:
        """Octets held for this client and its endpoints."""
        held: int = self.codec.queued
        if not self.lost:
            held += self.transport.get_write_buffer_size()
        for stream in self.streams:
            held += stream.buffered()
        return held

    def shares(self) -> int:
        """For how many connections of HTTP/1 it stands in the limit `buffer`."""
        return 1 + len(self.streams) // STREAMS_A_SHARE

    def cut_off(self, reason: Reason, why: str) -> None:
        """Close at once for a reason of ours, which the observer hears."""
        streams, self.streams = self.streams, set()
        for stream in streams:
            stream.lose(reason, why)
        if not streams:
            self.engine.observe(self._own_outcome(reason, why))
        self.abort()

    def running(self) -> list[Any]:
        """The exchanges under way."""
        return [stream.exchange for stream in self.streams if stream.exchange is not None]

    def drain(self, before: float = NEVER) -> None:
        """Say that the connection ends; what runs may end, also for long. `before`: first announce it, which leaves the
        client time to send no more; end it once that was said before then (RFC 9113 section 6.8)."""
        if self.closing or self.lost:
            return
        if before != NEVER:
            if not self._announced_at:
                self._announced_at = self.engine.now()
                self.codec.announce_end()
                self.send_soon()
            if self._announced_at > before:
                return
        self.closing = True
        self.codec.shutdown()
        self.flush()
        self.close_if_done()

    # --- time

    def _arm(self, delay_s: float) -> None:
        self._timer = self.engine.later(delay_s, self._wake)

    def _wake(self) -> None:
        self._timer = None
        if self.lost:
            return
        now = self.engine.now()
        settings = self.engine.settings
        longest = settings.idle_timeout_s if self.codec.peer_settings_seen else settings.head_timeout_s
        if self.streams or self.codec.queued:  # what is taken too slowly is somebody else's to end (`_stuck`)
            self._arm(longest)
        elif self.transport.is_closing():
            if self._leaving:
                self.transport.abort()  # it had its time to take the rest
            else:
                self._leaving = True
                self._arm(settings.write_timeout_s or longest)
        elif now >= self.since + longest or self.closing:
            self.closing = self._leaving = True
            self._arm(settings.write_timeout_s or longest)
            if not self.codec.goaway_sent:
                self.codec.shutdown()
            self.flush()
            self.transport.close()
        else:
            self._arm(self.since + longest - now)
