"""A client's HTTP/1.1 connection, as the protocol object of its transport: one exchange after another, in order.

It reads requests with the codec, makes an Exchange for each, and keeps the connection's own deadlines. Runs compiled
(with connection.pxd) or as it stands.
Long because the states of a connection are one machine.
"""

from __future__ import annotations

from typing import Any

from ..registry.reasons import CLIENT_GONE, DENIED, MALFORMED, SLOW, Reason
from .core import Client
from .exchange import Exchange
from .headers import own_response
from .http1 import RequestParser
from .message import Outcome, ProtocolError
from .outbox import PUT_OFF_MOST, Outbox
from .poller import Transport
from .relay import Relay
from .sniff import PREFACE

NEVER = float("inf")


class Downstream(Client):
    """`arrival` goes with every request; `engine` is what exchanges need (engine.py)."""

    def __init__(self, engine: Any, arrival: Any) -> None:
        self.engine = engine
        self.arrival = arrival
        self.transport: Any = None
        settings = engine.settings
        self.parser = RequestParser(settings.max_head_bytes, settings.max_headers, settings.max_target_bytes)
        self.exchange: Any = None
        self.relay: Relay | None = None
        self.switched: Any = None
        """The exchange whose connection became the relay."""
        self.advancing = False
        self.closing = False
        """No further request is read."""
        self.lost = False
        self.lingering = 0
        """Octets that may still be thrown away before the connection is closed; 0: not lingering."""
        self.reading_paused = False
        self.write_paused = False
        """More waits to be written than the transport likes; no further request is begun until it is less."""
        self.stuck_at = 0.0
        """Since when the client has taken nothing of it."""
        self.stuck_size = 0
        self.half_closed = False
        self.requests = 0
        self.since = 0.0
        """Start of the present state: of waiting for a request, of a head, of lingering."""
        self.fresh = True
        """Nothing was read but what may be the beginning of HTTP/2's preface."""
        self.early = b""
        self.mid_head = True
        """A head is awaited with its deadline: on a new connection from the start, later from its first octet on."""
        self.tls = False
        self.local = ""
        self._timer: Any = None
        self._armed_at = NEVER
        self._outbox: Outbox | None = engine.outbox
        self._out: bytes | None = None
        """Waits for the outbox's turn."""
        self._write: Any = None
        self._typed: Transport | None = None
        """The transport, where it is of the data path (tests have others): called directly."""

    # --- the transport's calls

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        self._write = transport.write
        self._typed = transport if isinstance(transport, Transport) else None
        name = transport.get_extra_info("sockname")
        if name:
            self.local = f"{name[0]}:{name[1]}"
        self.tls = transport.get_extra_info("sslcontext") is not None
        engine = self.engine
        engine.connections.add(self)
        self.since = engine.now()
        self.arm(self.since + engine.settings.head_timeout_s)

    def data_received(self, data: bytes) -> None:
        if self.closing:
            if self.lingering:
                self.lingering -= len(data)
                if self.lingering <= 0:
                    self.abort()
            return
        if self.fresh:
            data = self._first(data)
            if not data:
                return
        self.parser.feed(data)
        exchange = self.exchange
        if exchange is None:
            if self.write_paused:
                self.pause_reading()
            else:
                self._advance()
        elif not exchange.request_complete:
            self._read_body(exchange)
        else:
            self.pause_reading()  # pipelined: it waits its turn

    def _first(self, data: bytes) -> bytes:
        """What to read as HTTP/1; empty: it is HTTP/2 (prior knowledge, or as ALPN has it), or may become so."""
        data = self.early + data
        self.early = data
        if not PREFACE.startswith(data[: len(PREFACE)]):
            self.fresh = False
            self.early = b""
            return data
        if len(data) >= len(PREFACE):
            self.detach()
            self.engine.serve_two(self.arrival, self.transport, data)
        return b""

    def eof_received(self) -> bool:
        self.half_closed = True
        self.flush()
        exchange = self.exchange
        if exchange is not None and exchange.request_complete and not self.tls and not self.closing:
            return True  # it still reads
        if exchange is not None and not exchange.request_complete:
            exchange.client_lost(CLIENT_GONE, "The client closed the connection before its request was complete.")
            self.exchange = None
        self.closing = True
        return False

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = True
        self.closing = True
        self.engine.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.client_lost(CLIENT_GONE, "The client closed the connection before it had the whole response.")
        self.engine.client_closed(self)

    def pause_writing(self) -> None:
        self.write_paused = True
        self.stuck_at = self.engine.now()
        self.stuck_size = self.transport.get_write_buffer_size()
        if self.engine.settings.write_timeout_s:
            self.arm(self.stuck_at + self.engine.settings.write_timeout_s)
        exchange = self.exchange  # held, since the call may end it
        if exchange is not None:
            exchange.client_full(True)
        elif not self.closing:
            self.pause_reading()

    def resume_writing(self) -> None:
        self.write_paused = False
        exchange = self.exchange  # held, since the call may end it
        if exchange is not None:
            exchange.client_full(False)
        elif not self.closing:
            if self.parser.unread():
                self._advance()
            elif self.reading_paused:
                self.resume_reading()

    # --- requests

    def _advance(self) -> None:
        """Begin what exchanges can begin; a loop, so that many pipelined requests do not nest."""
        if self.advancing:
            return
        self.advancing = True
        parser = self.parser
        engine = self.engine
        try:
            while self.exchange is None and not self.closing and not self.write_paused:
                head = parser.read_head()
                if head is None:
                    if not self.mid_head and parser.unread():
                        self.mid_head = True
                        self.since = engine.now()
                        self.arm(self.since + engine.settings.head_timeout_s)
                    break
                self.mid_head = False
                self.requests += 1
                head.arrival = self.arrival
                if self.tls and self.arrival.listener != "inbound":
                    head.scheme = "https"
                if head.method == "CONNECT":
                    self._connect(head)
                    break
                body = parser.read_body()  # a malformed one is refused before there is an exchange
                exchange = Exchange(engine, self, head, engine.now())
                self.exchange = exchange
                exchange.start(body, parser.complete)
        except ProtocolError as error:
            self._refuse(error)
        finally:
            self.advancing = False
        if self.exchange is None and not self.closing:
            if self.write_paused:
                self.pause_reading()
            elif self.reading_paused:
                self.resume_reading()

    def _read_body(self, exchange: Any) -> None:
        parser = self.parser
        try:
            body = parser.read_body()
        except ProtocolError as error:
            self.closing = True
            self.exchange = None
            exchange.request_failed(error.reason, f"The request's body is malformed: {error}.", error.status)
            return
        if body or parser.complete:
            exchange.request_body(body, parser.complete)

    def _refuse(self, error: ProtocolError) -> None:
        """Answer what is not a request, and close."""
        self._answer(error.reason, f"Malformed request: {error}.", error.status)

    def _answer(self, reason: Reason, why: str, status: int, lines: bytes = b"") -> None:
        """An answer where no exchange is; the connection ends with it."""
        engine = self.engine
        outcome = self._own_outcome(reason, why, status)
        body = why.encode("utf-8", "replace") + b"\n"
        outcome.sent_bytes = len(body)
        self.write(own_response(status, body, True, reason.code, engine.date_line() + lines))
        self._close_after(True)
        engine.observe(outcome)

    def _own_outcome(self, reason: Reason, why: str, status: int) -> Outcome:
        outcome = Outcome()
        outcome.arrival = self.arrival
        outcome.status = status
        outcome.reason = reason.code
        outcome.flag = reason.flag
        outcome.why = why
        outcome.details = "http1.codec_error" if reason is MALFORMED else "request_headers_failed_strict_check"
        outcome.started_at = self.since
        outcome.ended_at = self.engine.now()
        return outcome

    def _connect(self, head: Any) -> None:
        """CONNECT: from here on a relay, or an answer why not."""
        self.closing = True
        early = self.parser.take_rest()
        if early:
            self._answer(MALFORMED, "CONNECT: octets came before the connection was confirmed.", 400)
            return
        if self.arrival.listener != "outbound":
            allowed = b"allow: GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH\r\n"
            self._answer(DENIED, "CONNECT is for the outbound port.", 405, allowed)
            return
        self.engine.connect_tunnel(self, head)

    # --- the exchange's calls

    def trailers(self) -> bytes:
        """Trailer lines of the request whose body has ended."""
        return self.parser.trailers

    def write(self, data: bytes) -> None:
        if self.lost:
            return
        if self._outbox is None or len(data) > PUT_OFF_MOST:
            if self._out is not None:
                self.flush()
            self._put(data)
        elif self._out is None:
            self._out = data
            self._outbox.add(self)
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
            self._put(data)

    def done(self, exchange: Any, close: bool) -> None:
        """The exchange has ended, and its response, if any, is written."""
        if self.exchange is exchange:
            self.exchange = None
        if self.lost or self.closing:
            if not self.lost and not self.lingering:
                self._close_after(not exchange.request_complete)
            return
        if close or self.half_closed:
            self._close_after(not exchange.request_complete)
            return
        parser = self.parser
        parser.next_message()
        if parser.unread():
            if not self.advancing:
                self._advance()
        else:
            if self.reading_paused and not self.advancing and not self.write_paused:
                self.resume_reading()
            if self._armed_at == NEVER:
                self.since = self.engine.now()
                self.arm(self.since + self.engine.settings.idle_timeout_s)
            else:
                self.since = 0.0

    def running(self) -> list[Any]:
        """The exchanges under way."""
        return [self.exchange] if self.exchange is not None else []

    def last_request(self, exchange: Any) -> bool:
        """Whether the connection must end after this exchange, for the client's or its own reasons."""
        return self.half_closed or self.closing

    def _close_after(self, unread: bool) -> None:
        """Close when all is written; where the client may still be sending (`unread`), read on for a moment, so that
        the kernel does not reset the connection under the answer."""
        self.closing = True
        if self.lost:
            return
        self.flush()
        if not unread or self.half_closed or self.tls:
            self._end_transport()
            return
        settings = self.engine.settings
        self.lingering = settings.max_linger_bytes
        self.since = self.engine.now()
        self.transport.write_eof()
        self.resume_reading()
        self.arm(self.since + settings.linger_s)

    def _end_transport(self) -> None:
        """Close when the client has taken what waits for it; it has as long as for anything."""
        self.closing = True
        self.lingering = 0
        self.transport.close()
        longest = self.engine.settings.write_timeout_s
        if longest and not self.lost:
            self.since = self.engine.now()
            self.arm(self.since + longest)

    def buffered(self) -> int:
        """Octets held for this client: unread, kept, waiting to be written; and those of its endpoint's connection."""
        held: int = self.parser.unread()
        if self._out is not None:
            held += len(self._out)
        if not self.lost:
            held += self.transport.get_write_buffer_size()
        exchange = self.exchange
        if exchange is not None:
            if exchange.body is not None:
                held += exchange.body_size
            if exchange.upstream is not None:
                held += exchange.upstream.buffered()
        return held

    def shares(self) -> int:
        """How often it may hold what the limit `buffer` allows."""
        return 1

    def cut_off(self, reason: Reason, why: str) -> None:
        """Close at once for a reason of ours, which the observer hears."""
        exchange = self.exchange
        if exchange is not None:
            self.exchange = None
            exchange.client_lost(reason, why)
        else:
            self.engine.observe(self._own_outcome(reason, why, 0))
        self.abort()

    def abort(self) -> None:
        """Close at once; what is still to be written is lost, and the client can tell."""
        self.closing = True
        self.exchange = None
        self._out = None
        if not self.lost:
            self.transport.reset()

    def pause_reading(self) -> None:
        if not self.reading_paused and not self.lost:
            self.reading_paused = True
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        if self.reading_paused and not self.lost:
            self.reading_paused = False
            self.transport.resume_reading()

    def switch(self, exchange: Any, upstream: Any, data: bytes) -> None:
        """101: the two transports become a relay. `data`: the response's head and what came behind it."""
        engine = self.engine
        rest = self.parser.take_rest()
        self.exchange = None
        self.closing = True
        self.flush()
        upstream.flush()
        relay = Relay(engine.now(), lambda ended: self._switched_back(ended, exchange, upstream))
        self.relay = relay
        self.switched = exchange
        engine.relays.add(relay)
        upstream.exchange = None
        upstream.usable = False
        relay.client.connection_made(self.transport)
        relay.server.connection_made(upstream.transport)
        self.transport.set_protocol(relay.client)
        upstream.transport.set_protocol(relay.server)
        self._write(data)
        if self.write_paused:
            relay.client.pause_writing()
        if rest:
            relay.client.count += len(rest)
            relay.server.write(rest)
        relay.join()
        self.resume_reading()
        upstream.resume_reading()

    def _switched_back(self, relay: Relay, exchange: Any, upstream: Any) -> None:
        engine = self.engine
        engine.relays.discard(relay)
        if relay.reason is not None:
            exchange.outcome.reason = relay.reason.code
            exchange.outcome.flag = relay.reason.flag
            exchange.outcome.why = relay.why
        self.switched = None
        exchange.relay_ended(relay.client.count, relay.server.count)
        upstream.lost = True
        upstream.pool.closed(upstream)
        self.connection_lost(None)

    # --- time

    def arm(self, at: float) -> None:
        """Wake this connection at `at` or earlier. One timer a connection; one that is early costs a look."""
        if at < self._armed_at:
            if self._timer is not None:
                self._timer.cancel()
            self._armed_at = at
            self._timer = self.engine.later(at - self.engine.now(), self._wake)

    def _wake(self) -> None:
        self._timer = None
        self._armed_at = NEVER
        if self.lost:
            return
        engine = self.engine
        now = engine.now()
        if self.write_paused and self._stuck(now):
            return
        exchange = self.exchange
        if exchange is not None:
            at = exchange.wake(now)
            if at:
                self.arm(at)
            elif self.exchange is not None:
                self.arm(now + engine.settings.idle_timeout_s)
            return
        if self.relay is not None:
            return
        if self.lingering:
            if now >= self.since + engine.settings.linger_s:
                self.abort()
            else:
                self.arm(self.since + engine.settings.linger_s)
        elif self.closing:
            longest = engine.settings.write_timeout_s
            if not longest:
                return
            if now >= self.since + longest:
                self.abort()
            else:
                self.arm(self.since + longest)
        elif self.mid_head:
            self._wake_in_head(now)
        else:
            if not self.since:  # idle since some request's end, not looked at before
                self.since = now
            at = self.since + engine.settings.idle_timeout_s
            if now >= at:
                self._end_transport()
            else:
                self.arm(at)

    def _stuck(self, now: float) -> bool:
        """Whether the client has taken nothing for too long; it is then cut off."""
        longest: float = self.engine.settings.write_timeout_s
        if not longest:
            return False
        size: int = self.transport.get_write_buffer_size()
        if size < self.stuck_size:
            self.stuck_at = now
        self.stuck_size = size
        if now < self.stuck_at + longest:
            self.arm(self.stuck_at + longest)
            return False
        self.cut_off(SLOW, f"The client took no octet for {longest:g} s; {size} octets wait for it.")
        return True

    def _wake_in_head(self, now: float) -> None:
        longest = self.engine.settings.head_timeout_s
        if now < self.since + longest:
            self.arm(self.since + longest)
        elif self.parser.unread() or self.early:
            self._answer(SLOW, f"The request's head was not complete within {longest:g} s.", 408)
        else:
            self._end_transport()

    def detach(self) -> None:
        """Another protocol object serves the transport from here on."""
        self.flush()
        self.closing = True
        self.lost = True
        self.engine.connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def drain(self, before: float = NEVER) -> None:
        """Close when idle (since before `before`); else after the running exchange, whose response says so."""
        if self.exchange is None and self.relay is None and not self.lingering and not self.closing:
            if before != NEVER:
                if not self.since:  # idle since some request's end, not looked at before
                    self.since = self.engine.now()
                if self.since > before or self.parser.unread() or self.early:
                    return
            self.flush()
            self._end_transport()
