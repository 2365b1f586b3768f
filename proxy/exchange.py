"""One HTTP request's life: decision, endpoint, tries, response, outcome.

A core: it is told what happens (`start`, `request_body`, `connected`, `connect_failed`, `response`, `response_body`,
`upstream_lost`, `wake`, `client_lost`) and calls `write`, `arm`, `pause_reading` ... of the two connections that it
stands between.
`engine` gives it tables, rules, pools, clock and draws. Either connection may be HTTP/1 (`write`, with our framing) or
one stream of HTTP/2 (`respond`, `send`, `finish`; flags `two` and `upstream_two`). Runs compiled (with exchange.pxd) or
as it stands.
Long because a request's whole life is easier to follow on one page.
"""

from __future__ import annotations

from typing import Any

from ..policy.tables import Decision, Destination, Verdict
from ..registry.reasons import (
    CONNECT,
    DENIED,
    FAULT,
    NO_CLUSTER,
    NO_HEALTHY,
    NO_ROUTE,
    OVERFLOW,
    RATE,
    REASONS,
    RESET,
    SLOW,
    TIMEOUT,
    TOKEN,
    UP_MALFORMED,
    Reason,
)
from . import grpc
from .cluster import ACTIVE, RETRYING
from .headers import (
    announced,
    at_edge,
    clean,
    count_forwards,
    own_response,
    prepared,
    request_bytes,
    response_bytes,
    safe_trailers,
    without,
)
from .http1 import LAST_CHUNK, chunk
from .message import BIT, Outcome, RequestHead, ResponseHead, needle
from .pool import Overflow, Pool, Waiter

IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE", "TRACE"})
HAS_ID = BIT["x-request-id"]
HAS_PROTO = BIT["x-forwarded-proto"]
HAS_TRAILER = BIT["trailer"]
HAS_DATE = BIT["date"]
DETAILS = {
    "FL-NO-ROUTE": "route_not_found",
    "FL-NO-CLUSTER": "cluster_not_found",
    "FL-NO-HEALTHY": "no_healthy_upstream",
    "FL-OVERFLOW": "upstream_reset_before_response_started{overflow}",
    "FL-CONNECT": "upstream_reset_before_response_started{connection_failure}",
    "FL-RESET": "upstream_reset_before_response_started{connection_termination}",
    "FL-TIMEOUT": "response_timeout",
    "FL-DENIED": "rbac_access_denied",
    "FL-FAULT": "fault_filter_abort",
    "FL-UP-MALFORMED": "upstream_reset_before_response_started{protocol_error}",
    "FL-SLOW": "request_body_timeout",
    "FL-RATE": "local_rate_limited",
}

# Phases.
NEW, PAUSED, WAITING, SENT, ANSWERED, ENDED, CHECKING = range(7)


class Exchange(Waiter):
    """See the module. Made for each request by the client's connection, which it outlives by no more than a call."""

    def __init__(self, engine: Any, client: Any, head: RequestHead, now: float) -> None:
        self.engine = engine
        self.client = client
        self.head = head
        self.tables = self.engine.tables
        self.phase = NEW
        self.decision: Any = None
        self.destination: Any = None
        self.pool: Any = None
        self.host: Any = None
        self.upstream: Any = None
        self.key: str | None = None
        self.path = ""
        self.cookie = b""
        self.body: list[bytes] | None = None
        """Body octets so far, kept until they are sent, or until no other try can need them."""
        self.body_size = 0
        self.replayable = True
        """`body` holds the whole of the body that came so far."""
        self.request_complete = False
        self.response_started = False
        self.response_chunked = False
        self.continued = False
        """The client was told to go on with its body."""
        self.client_close = False
        self.two = self.head.major == 2
        """The client's connection is HTTP/2."""
        self.upstream_two = False
        """So is the endpoint's."""
        self.grpc = self.two and grpc.is_call(head)
        self.retries = 0
        self.retried_stale = False
        self.wants_two = False
        """The endpoint is to be asked by HTTP/2, where it can."""
        self.counts_as_retry = False
        self.tried: Any = None
        self.attempted: Any = None
        self.abort_grpc = -1
        """gRPC status of a fault or rate limit; -1: none."""
        self.resume_at = 0.0
        self.asked = False
        """The endpoints of its service were not known, and have been waited for."""
        self.route_deadline = 0.0
        self.call_deadline = 0.0
        """By grpc-timeout; 0: none."""
        self.try_deadline = 0.0
        self.moment = now
        """When the last thing came that began a try: for what follows at once."""
        self.body_at = now
        self.rate_at = now
        """Since when rate_bytes of the body had come: for its least rate."""
        self.rate_bytes = 0
        outcome = Outcome()
        outcome.request = head
        arrival = self.head.arrival
        outcome.arrival = arrival
        outcome.started_at = now
        outcome.authority = self.head.authority
        outcome.source_identity = arrival.identity
        outcome.local_address = self.client.local
        if self.grpc:
            outcome.grpc = True
        self.outcome = outcome

    # --- the request

    def start(self, body: bytes, complete: bool) -> None:
        """The head is read; `body` is what has come of the body."""
        head = self.head
        engine = self.engine
        if complete:
            self.request_complete = True
            if body:
                self._keep(body)
        else:
            if body:
                self._keep(body)
            self.client.arm(self._body_due(self.body_at))
        if not self.outcome.source_identity and head.arrival.listener != "outbound":
            at_edge(head, head.arrival.source_ip, engine.settings.trusted_proxies)
        if (head.method == "OPTIONS" or head.method == "TRACE") and self._last_stop():
            return
        path = head.path
        if "%" in path or "//" in path or "/." in path or "\\" in path:
            try:
                normal = engine.normalize(path)
            except ValueError as error:
                self._reply(REASONS["FL-MALFORMED"], f"The path cannot be normalised: {error}.", 400)
                return
            if normal is None:
                self._reply(REASONS["FL-MALFORMED"], "The path cannot be normalised.", 400)
                return
            head.path = normal
        if engine.tokens is not None and head.arrival.listener != "outbound":
            result = engine.tokens.look(head, self.token_judged)
            if result is None:
                self.phase = CHECKING
                return
            if self._refuses_token(result):
                return
        self._decide()

    def token_judged(self, result: Any) -> None:
        """The keys that the request's token waited for are there, or cannot be had."""
        if self.phase != CHECKING:
            return
        self.phase = NEW
        self.moment = self.engine.now()
        if not self._refuses_token(result):
            self._decide()

    def _refuses_token(self, result: Any) -> bool:
        """Whether the request's token, which cannot be proved, ends the exchange."""
        refusal = result.refusal
        if refusal is None:
            self.head.claims = result.claims
            return False
        self.outcome.policy = refusal.by
        self.outcome.details = f"jwt_authn_access_denied{{{refusal.why.replace(' ', '_')}}}"
        lines = b""
        if refusal.status == 401:  # RFC 6750 section 3
            lines = b'www-authenticate: Bearer realm="%b", error="invalid_token"\r\n' % realm(self.head)
        told = refusal.why if self.head.arrival.listener == "gateway" else f"{refusal.why} ({refusal.by})."
        self._reply(TOKEN, told, refusal.status, lines)
        return True

    def _decide(self) -> None:
        engine = self.engine
        decision = engine.decide(self.tables, self.head)
        self.decision = decision
        self.outcome.decision = decision
        if engine.limiter is not None and self._limited(decision):
            return
        if decision.fault is not None and self._fault(decision):
            return
        self._carry_out(decision)

    def _last_stop(self) -> bool:
        """Whether a TRACE or OPTIONS request may go no further than here; it is then answered."""
        head = self.head
        try:
            left = count_forwards(head)
        except ValueError as error:
            self._reply(REASONS["FL-MALFORMED"], f"Malformed request: {error}.", 400)
            return True
        if left == 0:
            status, lines = (200, b"") if head.method == "OPTIONS" else (405, b"allow: OPTIONS\r\n")
            self._own(status, b"", "", lines, None)
        return left == 0

    def _limited(self, decision: Decision) -> bool:
        """Whether a local rate limit ends the exchange. What policy refuses takes no tokens."""
        engine = self.engine
        limiter = engine.limiter
        if decision.verdict == "denied":
            return False
        now = engine.now()
        refusing = limiter.request(self.head, decision, now, engine.draw)
        if refusing is None:
            return False
        arrival = self.head.arrival
        limit = refusing.limit
        wait = refusing.bucket_of(arrival, now).wait_s(now)
        lines = b"x-envoy-ratelimited: true\r\n" + refusing.lines
        if b"retry-after:" not in lines:
            # Envoy sends none; but what common clients do without it is to try again at once. In whole seconds
            # (RFC 9110 section 10.2.3), rounded up.
            lines += b"retry-after: %d\r\n" % max(1, -int(-wait // 1))
        if limit.exhausted:
            self.abort_grpc = grpc.RESOURCE_EXHAUSTED
        self._reply(RATE, refusing.why(arrival, now), limit.status, lines)
        return True

    def _fault(self, decision: Decision) -> bool:
        """Whether a fault delays or ends the exchange."""
        fault = decision.fault
        assert fault is not None
        if fault.delay_s > 0 and self.engine.draw() * 100 < fault.delay_percentage:
            self.phase = PAUSED
            self.outcome.flag = "DI"
            self.resume_at = self.engine.now() + fault.delay_s
            self.client.arm(self.resume_at)
            return True
        return self._abort(decision)

    def _abort(self, decision: Decision) -> bool:
        fault = decision.fault
        if fault is None or not (fault.abort_status or fault.abort_grpc_status):
            return False
        if self.engine.draw() * 100 >= fault.abort_percentage:
            return False
        status = fault.abort_status
        if not status:
            self.abort_grpc = grpc.number(fault.abort_grpc_status)
            status = grpc.http_status(self.abort_grpc)
        self._reply(
            FAULT,
            f"A fault of {decision.virtual_service} route {decision.route} aborts {fault.abort_percentage:g}% of its "
            f"requests with {fault.abort_status or fault.abort_grpc_status}.",
            status,
        )
        return True

    def _carry_out(self, decision: Decision) -> None:
        verdict = decision.verdict
        head = self.head
        if verdict == "route":
            destinations = decision.destinations
            destination = destinations[0] if len(destinations) == 1 else self.engine.pick(decision, self.engine.draw())
            self.destination = destination
            self.outcome.destination = destination
            pool = self.engine.pool(self.tables, destination.cluster)
            if pool is None:
                self._reply(
                    NO_CLUSTER,
                    f"{destination.host} port {destination.port}"
                    + (f" subset {destination.subset}" if destination.subset else "")
                    + " is not in the registry.",
                )
                return
            self._send_to(pool)
        elif verdict == "passthrough":
            pool = self.engine.passthrough(head.arrival, head.authority)
            if isinstance(pool, str):
                self._reply(NO_ROUTE, pool, 502)
            elif isinstance(pool, Verdict):
                self.outcome.policy = pool.by
                self._reply(DENIED, pool.why or pool.by)
            else:
                self._send_to(pool)
        elif verdict == "redirect":
            location = b"location: " + clean(decision.location) + b"\r\n"
            self._own(decision.status or 301, b"", "", location, decision.response_headers)
        elif verdict == "direct-response":
            status = decision.status or 200
            kind = b"content-type: text/plain\r\n" if decision.body and status not in (204, 304) else b""
            self._own(status, decision.body, "", kind, decision.response_headers)
        else:
            reason = REASONS.get(decision.reason) or (
                DENIED if verdict == "denied" else NO_ROUTE if verdict == "not-found" else NO_CLUSTER
            )
            self._reply(reason, decision.why or f"No rule allows {head.method} {head.authority}.", decision.status)

    def _send_to(self, pool: Pool) -> None:
        decision = self.decision
        head = self.head
        self.pool = pool
        self.outcome.cluster = pool.live
        if decision.path is None:
            self.path = head.path
        else:
            self.path = decision.path
            self.outcome.original_path = head.path
        balancer = pool.live.config.load_balancer
        if balancer.hash_on:
            self._hash(balancer)
        if not self.request_complete and not self._wanted_later():
            self.replayable = False
        if self.grpc:
            seconds = grpc.timeout_s(head)
            if seconds is not None:
                self.call_deadline = self.outcome.started_at + seconds
                self.route_deadline = self.call_deadline
                self.client.arm(self.route_deadline)
        self._attempt()
        if self.request_complete and self.phase != ENDED:
            self._request_ended()

    def _hash(self, balancer: Any) -> None:
        self.key = self.engine.hash_input(balancer, self.head)
        if self.key is None and balancer.hash_on == "cookie" and balancer.cookie_ttl_s is not None:
            self.key = self.engine.new_id()
            self.cookie = b"set-cookie: %b=%b%b; Path=%b; HttpOnly\r\n" % (
                clean(balancer.hash_name),
                self.key.encode(),
                b"; Max-Age=%d" % balancer.cookie_ttl_s if balancer.cookie_ttl_s else b"",
                clean(balancer.cookie_path or "/"),
            )

    def _wanted_later(self) -> bool:
        """Whether the body may have to be sent again."""
        decision = self.decision
        return (decision.retries is not None and decision.retries.attempts > 0) or bool(decision.mirrors)

    def _keep(self, body: bytes) -> None:
        self.outcome.received_bytes += len(body)
        if self.body is None:
            self.body = [body]
        else:
            self.body.append(body)
        self.body_size += len(body)

    def request_body(self, body: bytes, complete: bool) -> None:
        """More of the request's body, or its end, or both."""
        if self.phase == ENDED:
            return
        if body:
            if self.replayable or self.upstream is None:
                self._keep(body)
                if self.upstream is not None and self.body_size > self.engine.settings.replay_bytes:
                    self.replayable = False
                    self.body = None
            else:
                self.outcome.received_bytes += len(body)
            if self.upstream is not None:
                if self.upstream_two:
                    self.upstream.send(body, False)
                else:
                    self.upstream.write(chunk(body) if self.head.chunked else body)
            elif self.body_size > self.engine.settings.hold_bytes:
                self.client.pause_reading()
        if complete:
            self.request_complete = True
            if self.upstream is not None:
                if self.upstream_two:
                    self.upstream.finish(safe_trailers(self.client.trailers()))
                elif self.head.chunked:
                    self.upstream.write(self._last_request_chunk())
            self._request_ended()
        else:
            self.body_at = self.engine.now()

    def _request_ended(self) -> None:
        """The request is complete: the route's timeout begins, mirrors get their copies."""
        decision = self.decision
        if self.pool is None:
            return
        if decision.timeout_s:
            at = self.engine.now() + decision.timeout_s
            if not self.route_deadline or at < self.route_deadline:
                self.route_deadline = at
                self.client.arm(at)
        retries = decision.retries
        if retries is not None and retries.per_try_timeout_s and self.phase in (WAITING, SENT):
            self.try_deadline = self.engine.now() + retries.per_try_timeout_s
            self.client.arm(self.try_deadline)
        if decision.mirrors and self.replayable:
            for mirror in decision.mirrors:
                if self.engine.draw() * 100 < mirror.percentage:
                    self.engine.mirror(self, mirror)

    # --- a try

    def _attempt(self) -> None:
        pool = self.pool
        live = pool.live
        if self.attempted is None:
            host = live.choose(self.key, self.engine.draw, self.tried or ())
        else:
            host = live.choose_remote(self.key, self.engine.draw, self.tried or (), self.attempted)
        if host is None:
            if not self.asked and self.engine.awaits(live, self.endpoints_told):
                self.asked = True
                self.phase = PAUSED
                self.resume_at = self.moment + 3600.0  # `endpoints_told` comes long before
                return
            total = len(live.hosts)
            self._reply(
                NO_HEALTHY,
                f"{live.config.host} port {live.config.port} has no endpoint that may be used: {total} known"
                + (", all ejected or tried" if total else "")
                + ".",
            )
            return
        endpoint = host.endpoint
        self.host = host
        self.outcome.endpoint = endpoint
        if endpoint.egress is not None and not endpoint.egress.allowed:
            verdict = endpoint.egress
            self.outcome.policy = verdict.by
            self._reply(DENIED, verdict.why or f"{verdict.by} does not allow {endpoint.address}:{endpoint.port}.")
            return
        limits = live.config.limits
        if limits.max_requests and live.active + live.elsewhere(ACTIVE) >= limits.max_requests:
            self._reply(
                OVERFLOW,
                f"{live.active + live.elsewhere(ACTIVE)} requests to {live.config.host}:{live.config.port} are in "
                f"flight; http2MaxRequests is {limits.max_requests}.",
            )
            return
        config = live.config
        if config.http2 or self.two:
            # An undeclared port speaks what its clients speak; between sidecars HTTP/2 stays HTTP/2.
            self.wants_two = (
                config.http2
                or config.follows_client
                or (endpoint.tls is not None and endpoint.tls.mode == "mesh" and not config.http1)
            ) and not head_upgrades(self.head)
        self.phase = WAITING
        self.outcome.attempts += 1
        live.active += 1
        live.requests += 1
        host.active += 1
        host.requests += 1
        if live.shared is not None:
            live.shared.publish(live)
        try:
            upstream = pool.acquire(host, self)
        except Overflow as error:
            self._uncount()
            self._reply(OVERFLOW, f"{error}.")
            return
        if upstream is not None:
            self._begin(upstream, self.moment)

    def may_be_sent_again(self) -> bool:
        """Whether a connection that is closed before it answers is followed by another try (`upstream_lost`)."""
        decision = self.decision
        return (
            not self.retried_stale
            and self.replayable
            and self.head.method in IDEMPOTENT
            and decision.retries is not None
            and decision.retries.attempts > 0
        )

    def connected(self, upstream: Any) -> None:
        """There is a connection for this try, which waited for it."""
        self._begin(upstream, self.engine.now())

    def _begin(self, upstream: Any, now: float) -> None:
        """Send what there is of the request."""
        if upstream.host is not self.host:  # waited for one, got another
            self.host.active -= 1
            self.host = upstream.host
            self.host.active += 1
            self.outcome.endpoint = self.host.endpoint
        self.phase = SENT
        self.upstream = upstream
        outcome = self.outcome
        outcome.sent_at = now
        outcome.upstream_local = upstream.local
        outcome.upstream_tls = self.host.endpoint.tls is not None
        self.upstream_two = upstream.two
        data = self._request_head(upstream)
        body = self.body
        if self.upstream_two:
            self._begin_two(upstream, data)
            return
        if body is not None:
            if self.head.chunked:
                data += b"".join([chunk(piece) for piece in body if piece])
            elif len(body) == 1:
                data += body[0]
            else:
                data += b"".join(body)
            if not self.replayable or self.body_size > self.engine.settings.replay_bytes:
                self.replayable = False
                self.body = None
        if self.request_complete and self.head.chunked:
            data += self._last_request_chunk()
        upstream.begin(self, self.head.method, data)
        if not self.request_complete and not upstream.write_paused:
            self._resume_reading()

    def _last_request_chunk(self) -> bytes:
        if self.two or self.head.te_trailers:
            trailers: bytes = self.client.trailers()
            if trailers:
                return b"0\r\n" + safe_trailers(trailers) + b"\r\n"
        return LAST_CHUNK

    def _begin_two(self, upstream: Any, text: bytes) -> None:
        """The same on a stream of HTTP/2."""
        head = self.head
        body = self.body
        if not self.replayable or self.body_size > self.engine.settings.replay_bytes:
            self.replayable = False
            self.body = None
        trailers = safe_trailers(self.client.trailers()) if self.request_complete and head.chunked else b""
        ended = self.request_complete and not body and not trailers
        upstream.open(self, head, text, ended)
        if ended:
            return
        if body is not None:
            for piece in body:
                if self.upstream is not upstream:  # lost while it was written to
                    return
                upstream.send(piece, False)
        if self.request_complete:
            upstream.finish(trailers)
        elif not upstream.write_paused:
            self._resume_reading()

    def _request_head(self, upstream: Any) -> bytes:
        head = self.head
        outcome = self.outcome
        decision = self.decision
        engine = self.engine
        arrival = head.arrival
        inbound = arrival.listener == "inbound"
        extra = b""
        if head.chunked:
            extra = b"transfer-encoding: chunked\r\n"
        elif head.upgrade and self._upgrading():
            extra = b"connection: upgrade\r\nupgrade: websocket\r\n"
        if upstream.last:
            extra += b"connection: close\r\n"
        if head.te_trailers:
            extra += b"te: trailers\r\nconnection: te\r\n"
            if head.chunked and head.seen & HAS_TRAILER:
                extra += announced(head.header("trailer") or "")
        if engine.settings.via:
            extra += (
                (b"via: 1.%d %b\r\n" % (head.minor, engine.settings.via.encode()))
                if head.major == 1
                else (b"via: 2 %b\r\n" % engine.settings.via.encode())
            )
        if not head.seen & HAS_ID:
            if not outcome.request_id:
                outcome.request_id = engine.new_id()
            extra = b"".join((extra, b"x-request-id: ", outcome.request_id.encode(), b"\r\n"))
        if not head.seen & HAS_PROTO:
            secure = head.scheme == "https" or (inbound and arrival.identity)
            extra += b"x-forwarded-proto: https\r\n" if secure else b"x-forwarded-proto: http\r\n"
        if inbound:
            if arrival.identity:
                own, peer = engine.own_identity.encode(), arrival.identity.encode()
                extra = b"".join((extra, b"x-forwarded-client-cert: By=", own, b";URI=", peer, b"\r\n"))
        else:
            if outcome.attempts == 1:
                extra += b"x-envoy-attempt-count: 1\r\n"
            else:
                extra += b"x-envoy-attempt-count: %d\r\n" % outcome.attempts
            retries = decision.retries
            if retries is not None and retries.per_try_timeout_s:
                extra += self._expected(retries.per_try_timeout_s)
            elif decision.timeout_s:
                extra += self._expected(0.0)
            if outcome.original_path:
                extra += b"x-envoy-original-path: %b\r\n" % clean(outcome.original_path)
        destination: Destination | None = self.destination
        authority = decision.authority
        ops = None
        if destination is not None:
            ops = self._filled(destination.request_headers)
            if destination.authority is not None:
                authority = destination.authority
        if not head.authority and not authority:  # HTTP/1.0 without Host
            authority = self.pool.live.config.host
        elif authority and head.authority and not inbound:
            extra += b"x-envoy-original-host: %b\r\n" % clean(head.authority)
        return request_bytes(head, self.path, authority or "", ops, inbound, extra)

    def _filled(self, ops: Any) -> Any:
        """Header operations with the values of this exchange in the place of format operators."""
        if ops is None:
            return None
        formatted = prepared(ops).formatted
        if formatted is None:
            return ops
        skew, host = self.engine.place()
        return formatted.filled(self.outcome, skew, host)

    def _expected(self, per_try_s: float) -> bytes:
        """How long this try may take, for the endpoint: what is left of the route's timeout, or less."""
        if not self.engine.settings.expected_timeout_header:
            return b""
        whole: float = self.decision.timeout_s or 0.0
        if whole and self.outcome.attempts > 1 and self.route_deadline:
            left = max(self.route_deadline - self.outcome.sent_at, 0.001)
            if not per_try_s or left < per_try_s:  # of no use to others: not kept
                return b"x-envoy-expected-rq-timeout-ms: %d\r\n" % (left * 1000)
        return _timeout_line(whole if whole and (not per_try_s or whole < per_try_s) else per_try_s)

    def _upgrading(self) -> bool:
        head = self.head
        return head.upgrade == "websocket" and head.method == "GET" and not head.chunked and head.content_length <= 0

    def connect_failed(self, why: str) -> None:
        """The connection that this try waited for could not be made."""
        live = self.pool.live
        self._uncount()
        live.report(self.host, 0, True, self.engine.now())
        self._failed("connect", CONNECT, why)

    def upstream_lost(self, why: str, malformed: bool = False, refused: bool = False) -> None:
        """The endpoint's connection ended, or made no sense, before the response did.

        `refused`: the endpoint says that it has done nothing for this request (RFC 9113 section 8.7).
        """
        upstream = self.upstream
        self.upstream = None
        now = self.engine.now()
        self.moment = now
        if self.response_started:
            self._uncount()
            self.pool.live.report(self.host, 0 if not malformed else 502, not malformed, now)
            self._cut(UP_MALFORMED if malformed else RESET, why)
            return
        live = self.pool.live
        stale = upstream.reused and not upstream.answered and not malformed
        if not stale and not refused:
            live.report(self.host, 502 if malformed else 0, not malformed, now)
        self._uncount()
        if refused and not self.retried_stale and self.replayable:
            self.retried_stale = True
            self._attempt()
            return
        if stale and self.may_be_sent_again():
            # The endpoint closed a connection that we kept; the request is safe to send once more.
            self.retried_stale = True
            self._attempt()
            return
        self._failed("refused" if refused else "reset", UP_MALFORMED if malformed else RESET, why)

    def _failed(self, kind: str, reason: Reason, why: str) -> None:
        """A try ended without a response: again, or an answer of ours."""
        retries = self.decision.retries
        if retries is not None and retries.attempts > 0:
            conditions = retries.conditions
            wanted = "5xx" in conditions or "gateway-error" in conditions
            if kind == "connect":
                wanted = wanted or "connect-failure" in conditions or "reset-before-request" in conditions
            else:
                wanted = wanted or "reset" in conditions or (kind == "refused" and "refused-stream" in conditions)
            if wanted and self._retry():
                return
        self._reply(reason, why)

    def _retry(self) -> bool:
        """Whether another try is allowed; it is then under way."""
        retries = self.decision.retries
        live = self.pool.live
        if self.retries >= retries.attempts:
            if self.retries:
                self.outcome.flag = "URX"
            return False
        if not self.replayable or not self._retry_fits():
            return False
        if retries.ignore_previous_hosts and self.host is not None:
            if self.tried is None:
                self.tried = []
            self.tried.append(self.host)
        if retries.remote and self.host is not None:
            if self.attempted is None:
                self.attempted = []
            self.attempted.append(self.host)
        live.retrying += 1
        if live.shared is not None:
            live.shared.publish(live)
        self.counts_as_retry = True
        self.try_deadline = 0.0
        self.retries += 1
        widest = min((2**self.retries - 1) * retries.backoff_s, 10 * retries.backoff_s)
        self.phase = PAUSED
        self.resume_at = self.engine.now() + self.engine.draw() * widest
        self.client.arm(self.resume_at)
        return True

    def _retry_fits(self) -> bool:
        """Whether the limits of the cluster have room for one more retry."""
        live = self.pool.live
        limits = live.config.limits
        running = live.retrying + live.elsewhere(RETRYING)
        if limits.retry_percent >= 0:
            share = (live.active + live.elsewhere(ACTIVE)) * limits.retry_percent / 100
            return bool(running < max(limits.retry_least, share))
        return not limits.max_retries or bool(running < limits.max_retries)

    def _uncount(self) -> None:
        """The try is over."""
        live = self.pool.live
        live.active -= 1
        self.host.active -= 1
        if self.counts_as_retry:
            self.counts_as_retry = False
            live.retrying -= 1
        if live.shared is not None:
            live.shared.publish(live)

    # --- the response

    def interim(self, head: ResponseHead) -> None:
        """A 1xx head before the final one."""
        if self.response_started:
            return
        if self.head.minor == 1:
            if head.status == 100:
                if self.continued:  # an earlier try's endpoint said so
                    return
                self.continued = True
            if self.two:
                self.client.respond(response_bytes(head, None, b""), False)
                return
            self.client.write(response_bytes(head, None, b""))

    def response(self, head: ResponseHead, body: bytes, complete: bool) -> None:
        """The response's head, with what has come of its body. Long because each step of a usual answer is one call."""
        engine = self.engine
        now = engine.now()
        outcome = self.outcome
        outcome.first_at = now
        outcome.response = head
        status = head.status
        live = self.pool.live
        if live.measures:
            self.host.took(now - outcome.sent_at, now)
        if self.grpc:
            self._grpc_answer(head, complete)
            if complete and self.outcome.grpc_status:
                status = grpc.http_status(int(self.outcome.grpc_status))
        live.report(self.host, status, False, now)
        if status >= 400 and self._retry_status(status, complete):
            return
        if self.two:
            self._respond_two(head, body, complete)
            return
        request = self.head
        if status == 101:
            self._switch(head, body)
            return
        extra = _service_time(now - outcome.sent_at)
        close = not request.keep_alive or engine.draining or not self.request_complete or self.client.last_request(self)
        if request.upgrade and self._upgrading():
            close = True  # RFC 9931: what follows a refused upgrade may be of the other protocol, and is no request
        if head.chunked or head.until_close:
            if request.method == "HEAD":
                pass
            elif request.minor == 1:
                self.response_chunked = True
                extra += b"transfer-encoding: chunked\r\n"
                if head.seen & HAS_TRAILER and request.te_trailers:
                    extra += announced(head.header("trailer") or "")
            else:
                close = True
        if close:
            extra += b"connection: close\r\n"
            self.client_close = True
        elif request.minor == 0:
            extra += b"connection: keep-alive\r\n"
        if not head.seen & HAS_DATE:
            extra += engine.date_line()
        if engine.settings.via:
            extra += (
                (b"via: 1.%d %b\r\n" % (head.minor, engine.settings.via.encode()))
                if head.major == 1
                else (b"via: 2 %b\r\n" % engine.settings.via.encode())
            )
        if self.cookie:
            extra += self.cookie
        destination = self.destination
        outcome.status = status
        ops = self._filled(destination.response_headers) if destination is not None else None
        data = response_bytes(head, ops, extra)
        self.response_started = True
        self.try_deadline = 0.0
        self.phase = ANSWERED
        if body:
            outcome.sent_bytes += len(body)
            data += chunk(body) if self.response_chunked else body
        if complete:
            if self.response_chunked:
                data += self._last_chunk()
            self.client.write(data)
            self._finish(now)
        else:
            self.client.write(data)

    def _respond_two(self, head: ResponseHead, body: bytes, complete: bool) -> None:
        """The response to a client of HTTP/2."""
        outcome = self.outcome
        if head.status == 101:
            self._switch(head, body)
            return
        extra = _service_time(outcome.first_at - outcome.sent_at)
        if self.cookie:
            extra += self.cookie
        if not head.seen & HAS_DATE:
            extra += self.engine.date_line()
        if self.engine.settings.via:
            extra += b"via: %d %b\r\n" % (head.major, self.engine.settings.via.encode())
        if head.seen & HAS_TRAILER:
            extra += announced(head.header("trailer") or "")
        destination = self.destination
        outcome.status = head.status
        ops = self._filled(destination.response_headers) if destination is not None else None
        text = response_bytes(head, ops, extra)
        self.response_started = True
        self.try_deadline = 0.0
        self.phase = ANSWERED
        trailers = self._response_trailers() if complete else b""
        ended = complete and not body and not trailers
        self.client.respond(text, ended)
        if body:
            outcome.sent_bytes += len(body)
            self.client.send(body, complete and not trailers)
        if trailers:
            self.client.finish(trailers)
        if complete:
            self._finish(outcome.first_at)

    def _response_trailers(self) -> bytes:
        trailers: bytes = self.upstream.trailers()
        if not trailers:
            return trailers
        if self.grpc:
            self.outcome.grpc_status = grpc.status_in(trailers) or self.outcome.grpc_status
        return safe_trailers(trailers)

    def _grpc_answer(self, head: ResponseHead, complete: bool) -> None:
        """A status in the head is the call's only if nothing follows (a trailers-only answer)."""
        said = head.header("grpc-status") if complete else None
        if said is not None and said.isdigit() and len(said) < 4:
            self.outcome.grpc_status = said
        elif complete and head.status != 200:
            self.outcome.grpc_status = str(grpc.of_http(head.status))
        else:
            self.outcome.grpc_status = ""

    def _last_chunk(self) -> bytes:
        trailers: bytes = self.upstream.trailers()
        if trailers and self.head.te_trailers:
            return b"0\r\n" + safe_trailers(trailers) + b"\r\n"
        return LAST_CHUNK

    def response_body(self, body: bytes, complete: bool) -> None:
        """More of the response's body, or its end, or both."""
        if self.two:
            self.outcome.sent_bytes += len(body)
            trailers = self._response_trailers() if complete else b""
            if not self.request_complete:
                self.body_at = self.engine.now()
            if body or (complete and not trailers):
                self.client.send(body, complete and not trailers)
            if trailers:
                self.client.finish(trailers)
            if complete and self.phase != ENDED:
                self._finish(self.engine.now())
            return
        if not self.request_complete:
            self.body_at = self.engine.now()
        if body:
            self.outcome.sent_bytes += len(body)
            if self.response_chunked:
                body = chunk(body)
        if complete:
            if self.response_chunked:
                body += self._last_chunk()
            if body:
                self.client.write(body)
            self._finish(self.engine.now())
        elif body:
            self.client.write(body)

    def _retry_status(self, status: int, complete: bool) -> bool:
        retries = self.decision.retries
        if retries is None or retries.attempts <= 0:
            return False
        conditions = retries.conditions
        wanted = (
            status in retries.status_codes
            or (status >= 500 and "5xx" in conditions)
            or (status in (502, 503, 504) and "gateway-error" in conditions)
            or (status == 409 and "retriable-4xx" in conditions)
        )
        if self.grpc and self.outcome.grpc_status and self.outcome.response.status == 200:
            wanted = grpc.RETRY_ON.get(int(self.outcome.grpc_status), "-") in conditions
        if self.outcome.response.header("x-envoy-ratelimited") is not None:  # as Envoy: it must not be asked the more
            wanted = "envoy-ratelimited" in conditions
        if not wanted:
            return False
        upstream = self.upstream
        counted = self.counts_as_retry
        if counted:  # this try is over; let it not stand in its own successor's way
            self.pool.live.retrying -= 1
            self.counts_as_retry = False
        if not self._retry():
            if counted:
                self.pool.live.retrying += 1
                self.counts_as_retry = True
            return False
        self.upstream = None
        retrying = self.counts_as_retry
        self.counts_as_retry = False
        self._uncount()
        self.counts_as_retry = retrying
        upstream.end(complete and self.request_complete, self.engine.now())
        return True

    def _switch(self, head: ResponseHead, body: bytes) -> None:
        """101: from here on both connections are a pair of byte streams; `body`: the first of the endpoint's."""
        if not self._upgrading() or head.upgrade != "websocket":
            upstream = self.upstream
            self.upstream = None
            self._uncount()
            upstream.end(False, self.engine.now())
            self._reply(UP_MALFORMED, "The endpoint switched protocols without having been asked to.")
            return
        destination = self.destination
        self.outcome.status = 101
        ops = self._filled(destination.response_headers) if destination is not None else None
        data = response_bytes(head, ops, b"connection: upgrade\r\nupgrade: websocket\r\n")
        self.outcome.sent_bytes += len(body)
        self.response_started = True
        self.phase = ANSWERED
        self.route_deadline = 0.0
        self.client.switch(self, self.upstream, data + body)

    def relay_ended(self, received: int, sent: int) -> None:
        """The pair of byte streams after a 101 is over; connections are the relay's business."""
        self.outcome.received_bytes += received
        self.outcome.sent_bytes += sent
        self.upstream = None
        self._uncount()
        self.client_close = True
        self._done(self.engine.now())

    def _finish(self, now: float) -> None:
        """The whole response is with the client."""
        upstream = self.upstream
        self.upstream = None
        self._uncount()
        upstream.end(self.request_complete, now)
        self.outcome.details = "via_upstream"
        self._done(now)

    def _end(self) -> None:
        self.phase = ENDED
        self.body = None
        if self.counts_as_retry:
            self.counts_as_retry = False
            self.pool.live.retrying -= 1

    def _done(self, now: float) -> None:
        self._end()
        outcome = self.outcome
        outcome.ended_at = now
        self.client.done(self, self.client_close or not self.request_complete)
        self.engine.observe(outcome)

    # --- back-pressure

    def upstream_full(self, full: bool) -> None:
        """The endpoint's connection takes no more for now, or takes more again."""
        if self.request_complete:
            return
        if full:
            self.client.pause_reading()
        else:
            self._resume_reading()

    def _resume_reading(self) -> None:
        self.client.resume_reading()
        self.rate_at = self.body_at = self.engine.now()  # what passed while nobody read is not the client's
        self.rate_bytes = self.outcome.received_bytes

    def client_full(self, full: bool) -> None:
        """The client's connection takes no more for now, or takes more again."""
        if self.upstream is not None:
            if full:
                self.upstream.pause_reading()
            else:
                self.upstream.resume_reading()

    # --- endings that are ours

    def _reply(self, reason: Reason, why: str, status: int = 0, lines: bytes = b"") -> None:
        """Answer with a reason of ours; `why` is one sentence with the numbers in it; `lines`: more header lines."""
        outcome = self.outcome
        outcome.reason = reason.code
        outcome.why = why
        outcome.flag = f"{outcome.flag},{reason.flag}" if outcome.flag and reason.flag != "-" else reason.flag
        if not outcome.details:
            outcome.details = DETAILS.get(reason.code, "")
        if reason is OVERFLOW:
            lines = b"x-envoy-overloaded: true\r\n"
        decision = self.decision
        ops = decision.response_headers if decision is not None else None
        told = why
        if reason is UP_MALFORMED:
            told = "The endpoint's answer was malformed; the access log says how."
        elif reason is DENIED and self.head.arrival.listener == "gateway" and not outcome.source_identity:
            told = "RBAC: access denied"  # which policy it was is nothing for strangers
        self._own(status or reason.status, told.encode("utf-8", "replace") + b"\n", reason.code, lines, ops)

    def _own(self, status: int, body: bytes, code: str, lines: bytes, ops: Any) -> None:
        request = self.head
        close = not request.keep_alive or self.engine.draining or not self.request_complete or bool(request.upgrade)
        self.outcome.status = status
        if ops is not None:
            ops = self._filled(ops)
            wire = prepared(ops)
            if b"\r\ncontent-type:" in wire.lower:
                lines = without(lines, (needle("content-type"),))
            lines = without(lines, wire.gone) + wire.added
        if ops is None or b"\r\ndate:" not in wire.lower:
            lines += self.engine.date_line()
        if not close and request.minor == 0:
            lines += b"connection: keep-alive\r\n"
        if not self.outcome.details:
            self.outcome.details = "direct_response"
        self.outcome.sent_bytes += len(body)
        self.client_close = close
        self.response_started = True
        if self.two:
            self._own_two(status, body, code, lines)
        else:
            self.client.write(own_response(status, body, close, code, lines, request.method == "HEAD"))
        self._done(self.engine.now())

    def _own_two(self, status: int, body: bytes, code: str, lines: bytes) -> None:
        outcome = self.outcome
        if self.grpc and code:
            number = self.abort_grpc
            if number < 0:
                number = grpc.DEADLINE_EXCEEDED if code == TIMEOUT.code else grpc.of_http(status)
            outcome.status = 200
            outcome.grpc_status = str(number)
            outcome.sent_bytes = 0
            self.client.respond(grpc.own_answer(number, outcome.why, code, lines), True)
            return
        none = self.head.method == "HEAD" or status in (204, 304) or not body
        self.client.respond(own_response(status, body, False, code, lines, True), none)
        if not none:
            self.client.send(body, True)

    def _cut(self, reason: Reason, why: str) -> None:
        """The response has begun and cannot be ended well: the client must see that it is cut short."""
        outcome = self.outcome
        outcome.reason = reason.code
        outcome.flag = reason.flag
        outcome.why = why
        self._end()
        outcome.ended_at = self.engine.now()
        self.client.abort()
        self.engine.observe(outcome)

    def _drop_upstream(self) -> None:
        """Let go of the try: its connection is of no more use, or it still waits for one."""
        if self.phase == WAITING:
            self.pool.cancel(self)
            self._uncount()
        elif self.upstream is not None:
            upstream = self.upstream
            self.upstream = None
            self._uncount()
            upstream.end(False, self.engine.now())

    def client_lost(self, reason: Reason, why: str) -> None:
        """The client's connection is gone, or must go (`reason`)."""
        if self.phase == ENDED:
            return
        self._drop_upstream()
        outcome = self.outcome
        outcome.reason = reason.code
        outcome.flag = reason.flag
        outcome.why = why
        self._end()
        outcome.ended_at = self.engine.now()
        self.engine.observe(outcome)

    def request_failed(self, reason: Reason, why: str, status: int) -> None:
        """The request's body is malformed or too slow: nothing of it may count as whole."""
        if self.phase == ENDED:
            return
        self._drop_upstream()
        if self.response_started:
            self._cut(reason, why)
        else:
            self._reply(reason, why, status)

    def endpoints_told(self) -> None:
        """The endpoints of its service have come, or have been waited for long enough."""
        if self.phase == PAUSED:
            self.resume_at = self.engine.now()
            self.client.arm(self.resume_at)

    def wake(self, now: float) -> float:
        """Do what is due; when to be woken next, 0: no need."""
        self.moment = now
        if self.phase == PAUSED and self.resume_at <= now:
            self.phase = NEW
            if self.pool is None:
                if not self._abort(self.decision):
                    self._carry_out(self.decision)
            else:
                self._attempt()
                retries = self.decision.retries
                if (
                    retries is not None
                    and retries.per_try_timeout_s
                    and self.request_complete
                    and self.phase in (WAITING, SENT)
                ):
                    self.try_deadline = now + retries.per_try_timeout_s
        if self.phase == ENDED:
            return 0.0
        if self.route_deadline and self.route_deadline <= now:
            self._timed_out()
            return 0.0
        if self.try_deadline and self.try_deadline <= now and self.phase in (WAITING, SENT):
            self._try_timed_out(now)
            if self.phase == ENDED:
                return 0.0
        if not self.request_complete:
            why = self._too_slow(now)
            if why:
                self.request_failed(SLOW, why, 408)
                return 0.0
        return self._wake_at(now)

    def _too_slow(self, now: float) -> str:
        """Why the request's body comes too slowly; empty: it does not."""
        settings = self.engine.settings
        longest = settings.request_timeout_s
        if longest and self.outcome.started_at + longest <= now:
            return f"The request was not complete within {longest:g} s."
        if self.client.reading_paused:
            return ""
        longest = self._longest_pause()
        if longest and self.body_at + longest <= now:
            return f"No octet of the request's body came for {longest:g} s."
        least, window = settings.body_min_rate, settings.body_rate_window_s
        if least and window and self.head.content_length > 0 and self.rate_at + window <= now:
            came = self.outcome.received_bytes - self.rate_bytes
            if came < least * (now - self.rate_at):
                passed = now - self.rate_at
                return f"{came} octets of the request's body came in {passed:g} s; at least {least} a second must."
            self.rate_at = now
            self.rate_bytes = self.outcome.received_bytes
        return ""

    def _body_due(self, now: float) -> float:
        """When to look at the pace of the request's body next."""
        settings = self.engine.settings
        due = now + 3600.0
        longest = self._longest_pause()
        if longest:
            due = self.body_at + longest
        if settings.body_min_rate and settings.body_rate_window_s and self.head.content_length > 0:
            due = min(due, self.rate_at + settings.body_rate_window_s)
        if settings.request_timeout_s:
            due = min(due, self.outcome.started_at + settings.request_timeout_s)
        return due

    def _wake_at(self, now: float) -> float:
        next_at = 0.0
        for at in (
            self.resume_at if self.phase == PAUSED else 0.0,
            self.route_deadline,
            self.try_deadline,
            0.0 if self.request_complete else max(self._body_due(now), now + 1.0),
        ):
            if at and (not next_at or at < next_at):
                next_at = at
        return next_at

    def _longest_pause(self) -> float:
        """Of a request's body. A stream on which both sides talk, or a call, is only idle when both are silent."""
        settings = self.engine.settings
        longest: float = settings.body_timeout_s
        if self.response_started or (self.two and self.grpc):
            longest = settings.relay_idle_timeout_s
        return longest

    def _timed_out(self) -> None:
        decision = self.decision
        if self.call_deadline and self.route_deadline == self.call_deadline:
            limit = f"grpc-timeout of {self.call_deadline - self.outcome.started_at:g} s that the call sets."
        else:
            limit = f"timeout of {decision.timeout_s:g} s" + (
                f" that {decision.virtual_service} route {decision.route} sets." if decision.virtual_service else "."
            )
        failing = "did not end its response" if self.response_started else "gave no response"
        why = f"{self.pool.live.config.host}:{self.pool.live.config.port} {failing} within the {limit}"
        if self.host is not None and self.phase == SENT:
            self.pool.live.report(self.host, 504, True, self.engine.now())
        self._drop_upstream()
        if self.response_started:
            self._cut(TIMEOUT, why)
        else:
            self._reply(TIMEOUT, why)

    def _try_timed_out(self, now: float) -> None:
        self.try_deadline = 0.0
        self.pool.live.report(self.host, 504, True, now)
        self._drop_upstream()
        limit = self.decision.retries.per_try_timeout_s
        self.outcome.details = "upstream_per_try_timeout"
        self._failed(
            "timeout",
            TIMEOUT,
            f"{self.host.endpoint.address}:{self.host.endpoint.port} gave no response within perTryTimeout {limit:g} s,"
            f" try {self.retries + 1} of {self.decision.retries.attempts + 1}.",
        )


_SERVICE_TIMES = [b"x-envoy-upstream-service-time: %d\r\n" % ms for ms in range(256)]
_timeout_lines: dict[float, bytes] = {}


def _service_time(seconds: float) -> bytes:
    ms = int(seconds * 1000)
    return _SERVICE_TIMES[ms] if 0 <= ms < 256 else b"x-envoy-upstream-service-time: %d\r\n" % ms


def _timeout_line(seconds: float) -> bytes:
    line = _timeout_lines.get(seconds)
    if line is None:
        line = b"x-envoy-expected-rq-timeout-ms: %d\r\n" % (seconds * 1000)
        if len(_timeout_lines) < 1024:
            _timeout_lines[seconds] = line
    return line


def realm(head: RequestHead) -> bytes:
    """What a challenge names: the URL asked for without its query, as far as it can stand in quotes."""
    text = f"{head.scheme}://{head.authority}{head.path.partition('?')[0]}"
    return "".join(c for c in text if " " < c <= "~" and c not in '"\\').encode()


def head_upgrades(head: RequestHead) -> bool:
    """Whether a request asks for another protocol on its connection, which HTTP/2 has no way to say."""
    return head.upgrade != ""
