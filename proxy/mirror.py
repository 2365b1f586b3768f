"""Copies of requests for mirrors: sent, and forgotten; they change nothing for the client."""

from __future__ import annotations

from typing import Any

from .headers import clean, request_bytes
from .http1 import LAST_CHUNK, chunk
from .message import BIT, Outcome
from .pool import Overflow, Waiter

MIRROR_TIMEOUT_S = 15.0


class Mirror(Waiter):
    """One copy under way; for its connection it is what an Exchange is."""

    def __init__(self, engine: Any, pool: Any, host: Any, exchange: Any, destination: Any) -> None:
        self.engine = engine
        self.pool = pool
        self.host = host
        self.head = exchange.head
        self.upstream: Any = None
        self.ended = False
        config = pool.live.config
        self.wants_two = config.http2 or (exchange.two and config.follows_client)
        extra = b""
        if self.head.chunked:
            extra = b"transfer-encoding: chunked\r\n"
        if not self.head.seen & BIT["x-request-id"]:
            if not exchange.outcome.request_id:  # the request itself still waits for a connection
                exchange.outcome.request_id = engine.new_id()
            extra += b"x-request-id: %b\r\n" % exchange.outcome.request_id.encode()
        if not self.head.seen & BIT["x-forwarded-proto"]:
            extra += b"x-forwarded-proto: %b\r\n" % self.head.scheme.encode()
        extra += b"x-envoy-attempt-count: 1\r\n"
        authority = destination.authority or exchange.decision.authority or ""
        if exchange.outcome.original_path:
            extra += b"x-envoy-original-path: %b\r\n" % clean(exchange.outcome.original_path)
        if authority and self.head.authority:
            extra += b"x-envoy-original-host: %b\r\n" % clean(self.head.authority)
        self.data = request_bytes(
            self.head, exchange.path, authority, exchange._filled(destination.request_headers), False, extra
        )
        self.body = list(exchange.body or ())
        self.outcome = Outcome()
        self.outcome.mirrored = True
        self.outcome.request = self.head
        self.outcome.arrival = self.head.arrival
        self.outcome.decision = exchange.decision
        self.outcome.cluster = pool.live
        self.moment = self.outcome.started_at = engine.clock()
        self.timer: Any = None

    def may_be_sent_again(self) -> bool:
        """A copy that is lost is no loss."""
        return True

    def start(self) -> None:
        engine = self.engine
        self.pool.live.active += 1
        self.host.active += 1
        if self.pool.live.shared is not None:
            self.pool.live.shared.publish(self.pool.live)
        engine.mirrors += 1
        self.timer = engine.later(MIRROR_TIMEOUT_S, self._timed_out)
        try:
            upstream = self.pool.acquire(self.host, self)
        except Overflow as error:
            self._end(str(error))
            return
        if upstream is not None:
            self.connected(upstream)

    def connected(self, upstream: Any) -> None:
        if upstream.host is not self.host:
            self.host.active -= 1
            self.host = upstream.host
            self.host.active += 1
        self.upstream = upstream
        self.outcome.attempts = 1
        data, body = self.data, self.body
        self.data, self.body = b"", []
        if upstream.two:
            upstream.open(self, self.head, data, not body)
            for number, piece in enumerate(body, 1):
                if self.upstream is upstream:
                    upstream.send(piece, number == len(body))
            return
        for piece in body:
            data += chunk(piece) if self.head.chunked else piece
        if self.head.chunked:
            data += LAST_CHUNK
        upstream.begin(self, self.head.method, data)

    def connect_failed(self, why: str) -> None:
        self._end(why)

    def interim(self, head: Any) -> None: ...

    def response(self, head: Any, body: bytes, complete: bool) -> None:
        self.outcome.status = head.status
        if head.status == 101:
            self._end("the mirror switched protocols")
        elif complete:
            self._end("", True)

    def response_body(self, body: bytes, complete: bool) -> None:
        if complete:
            self._end("", True)

    def upstream_lost(self, why: str, malformed: bool = False, refused: bool = False) -> None:
        self.upstream = None
        self._end(why)

    def upstream_full(self, full: bool) -> None: ...

    def _timed_out(self) -> None:
        self._end(f"no response within {MIRROR_TIMEOUT_S:g} s")

    def _end(self, why: str, whole: bool = False) -> None:
        if self.ended:
            return
        self.ended = True
        engine = self.engine
        self.timer.cancel()
        engine.mirrors -= 1
        self.pool.live.active -= 1
        self.host.active -= 1
        if self.pool.live.shared is not None:
            self.pool.live.shared.publish(self.pool.live)
        self.outcome.why = why
        self.outcome.ended_at = engine.clock()
        if self.upstream is not None:
            self.upstream.end(whole, self.engine.clock())
        else:
            self.pool.cancel(self)
        engine.observe(self.outcome)
