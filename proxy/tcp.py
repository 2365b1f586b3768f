"""One opaque connection's life: verdict, decision, endpoint, relay, outcome; also of a CONNECT.

A core: `engine.dial` makes the connection to the endpoint and calls back. Where it is not known yet whether a client
speaks HTTP, `look_ahead` decides and connects as for an opaque connection, so that a server may speak first. Until the
client joins (`start`), not one octet goes either way; where it turns out to speak HTTP, the session is abandoned and
leaves no outcome.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..policy.tables import Arrival, SimpleRequest, Verdict
from ..registry.reasons import (
    CLIENT_GONE,
    CONNECT,
    DENIED,
    NO_CLUSTER,
    NO_HEALTHY,
    NO_ROUTE,
    OVERFLOW,
    PLAINTEXT,
    REASONS,
    Reason,
)
from .arrive import address_of
from .cluster import CONNECTIONS
from .message import Outcome
from .proxy_protocol import proxy_header
from .relay import End, Relay

MAX_TRIES = 3
"""Endpoints tried before a connection is given up; nothing was sent to any of them."""


class Session:
    """Made for an opaque connection; `client` is its transport's protocol from `start` on.

    `refuse(reason, why)` tells the client (CONNECT), or None: the connection is closed. `confirm` is written when the
    endpoint is connected.
    """

    def __init__(
        self,
        engine: Any,
        arrival: Arrival,
        transport: Any = None,
        refuse: Callable[[Reason, str], None] | None = None,
        confirm: bytes = b"",
        on_end: Callable[[], None] | None = None,
    ) -> None:
        self.engine = engine
        self.tables = engine.tables
        self.arrival = arrival
        self.transport = transport
        self.refuse = refuse
        self.confirm = confirm
        self.on_end = on_end
        self.pool: Any = None
        self.host: Any = None
        self.tried: list[Any] = []
        self.dialled_at = 0.0
        """Set where latencies are measured (LiveCluster.measures)."""
        self.ahead = False
        """The client has not joined yet."""
        self.abandoned = False
        self.failure: tuple[Reason, str] | None = None
        """Why there is no connection, kept until the client joins."""
        self.gone = False
        """The endpoint closed the connection before the client joined."""
        self.local: tuple[str, int] | None = None
        """Where the client connected to, as a PROXY protocol header says it to the endpoint."""
        self.on_spoken: Callable[[], None] | None = None
        self.on_failed: Callable[[], None] | None = None
        self._dialing: Any = None
        now = engine.clock()
        self.relay = Relay(now, self._ended)
        self.relay_running = False
        self.asked = False
        """The endpoints of its service were not known, and have been waited for."""
        self.outcome = Outcome()
        self.outcome.kind = "tcp"
        self.outcome.arrival = arrival
        self.outcome.started_at = now
        self.outcome.source_identity = arrival.identity

    @property
    def client(self) -> End:
        return self.relay.client

    # --- before the client joins

    def look_ahead(self) -> None:
        """Decide and connect. `on_spoken()`: the endpoint has said something, which is held; `on_failed()`: see
        `failure` and `gone`. Either may be called at once."""
        self.ahead = True
        self.relay.on_held = self._heard
        self._route()

    @property
    def spoken(self) -> bool:
        """The endpoint has said something."""
        return bool(self.relay.server.held)

    def _heard(self, end: End) -> None:
        if self.ahead and end is self.relay.server and self.on_spoken is not None:
            self.on_spoken()

    def still_good(self) -> bool:
        """Whether what was decided ahead is what would be decided now: tables, and the server name if one came."""
        if self.abandoned or self.engine.tables is not self.tables:
            return False
        before = self.outcome.decision
        if not self.arrival.sni or self.arrival.listener == "inbound" or before is None:
            return True
        now = self.engine.decide(self.tables, SimpleRequest(self.arrival))
        return now is before or (now.verdict == before.verdict == "passthrough" and bool(self.arrival.destination_ip))

    def abandon(self) -> None:
        """The client needs no such connection."""
        self.abandoned = True
        self._uncount()
        if self._dialing is not None:
            self._dialing.cancel()
        self.relay.server.close()

    def _fail_ahead(self) -> None:
        if self.on_failed is not None and not self.abandoned:
            self.on_failed()

    # --- with the client

    def start(self, first: bytes = b"", transport: Any = None) -> None:
        """The client is there. `first`: what was read of it already."""
        if transport is not None:
            self.transport = transport
        client = self.relay.client
        client.connection_made(self.transport)
        self.transport.set_protocol(client)
        self.engine.sessions.add(self)
        if first:
            client.count += len(first)
            client.held.append(first)
        if not self.ahead:
            self.transport.pause_reading()  # until there is somebody to send it to
            self._route()
            return
        self.ahead = False
        if self.failure is not None:
            self._fail(*self.failure)
        elif self.gone:
            self.relay_running = True
            self.relay.over = False
            self.relay.server.release()
            client.close()
        elif self.relay.server.transport is not None:
            self._join()
        else:
            self.transport.pause_reading()

    def _route(self) -> None:
        engine = self.engine
        tables = self.tables
        arrival = self.arrival
        if arrival.listener == "inbound":
            verdict = engine.admit(tables, arrival)
            if not verdict.allowed:
                plain = not arrival.tls and "PeerAuthentication" in verdict.by
                self.outcome.policy = verdict.by
                self._fail(PLAINTEXT if plain else DENIED, verdict.why or f"{verdict.by} does not allow it.")
                return
        decision = engine.decide(tables, SimpleRequest(arrival))
        self.outcome.decision = decision
        verdict_word = decision.verdict
        if verdict_word == "route":
            destinations = decision.destinations
            destination = destinations[0] if len(destinations) == 1 else engine.pick(decision, engine.draw())
            self.outcome.destination = destination
            self.pool = engine.pool(tables, destination.cluster)
            if self.pool is None:
                self._fail(NO_CLUSTER, f"{destination.host} port {destination.port} is not in the registry.")
                return
        elif verdict_word == "passthrough":
            pool = engine.passthrough(arrival, f"{arrival.host}:{arrival.port}" if arrival.host else "")
            if isinstance(pool, str):
                self._fail(NO_ROUTE, pool)
                return
            if isinstance(pool, Verdict):
                self.outcome.policy = pool.by
                self._fail(DENIED, pool.why or pool.by)
                return
            self.pool = pool
        else:
            reason = REASONS.get(decision.reason) or (DENIED if verdict_word == "denied" else NO_ROUTE)
            self._fail(reason, decision.why or "No rule routes this connection.")
            return
        self.outcome.cluster = self.pool.live
        self._try()

    def _try(self) -> None:
        engine = self.engine
        pool = self.pool
        live = pool.live
        balancer = live.config.load_balancer
        key = None
        if balancer.hash_on:
            key = engine.hash_input(balancer, SimpleRequest(self.arrival))
        host = live.choose(key, engine.draw, self.tried)
        if host is None:
            if self.tried:
                self._fail(CONNECT, self.outcome.why)
            elif not self.asked and engine.awaits(live, self._endpoints_told):
                self.asked = True
            else:
                self._fail(
                    NO_HEALTHY,
                    f"{live.config.host} port {live.config.port} has no endpoint that may be used: "
                    f"{len(live.hosts)} known.",
                )
            return
        endpoint = host.endpoint
        self.outcome.endpoint = endpoint
        self.outcome.upstream_tls = endpoint.tls is not None
        if endpoint.egress is not None and not endpoint.egress.allowed:
            self.outcome.policy = endpoint.egress.by
            self._fail(DENIED, endpoint.egress.why or f"{endpoint.egress.by} does not allow it.")
            return
        limits = live.config.limits
        if limits.max_connections and live.connections + live.elsewhere(CONNECTIONS) >= limits.max_connections:
            self._fail(
                OVERFLOW,
                f"{live.connections + live.elsewhere(CONNECTIONS)} connections to {live.config.host}:"
                f"{live.config.port} are open; maxConnections is {limits.max_connections}.",
            )
            return
        self.host = host
        self.tried.append(host)
        pool.count_open(host)
        host.active += 1
        host.requests += 1
        live.active += 1
        live.requests += 1
        self.outcome.attempts += 1
        header = self._header(endpoint, limits) if limits.proxy_protocol else b""
        if live.measures:
            self.dialled_at = engine.clock()
        self._dialing = engine.dial(endpoint, limits, self.relay.server, self._connected, self._not_connected, header)

    def _endpoints_told(self) -> None:
        """The endpoints of its service have come, or have been waited for long enough."""
        if self.abandoned:
            return
        if self.relay.client.lost:
            self._finish()
        else:
            self._try()

    def _header(self, endpoint: Any, limits: Any) -> bytes:
        arrival = self.arrival
        to = (arrival.destination_ip, arrival.port) if arrival.destination_ip else self.local
        if to is None and self.transport is not None:
            to = address_of(self.transport.get_extra_info("sockname"))
        return proxy_header(limits, endpoint, (arrival.source_ip, arrival.source_port), to)

    def _uncount(self) -> None:
        if self.host is not None:
            self.pool.count_closed(self.host)
            self.host.active -= 1
            self.pool.live.active -= 1
            self.host = None

    def _connected(self) -> None:
        self._dialing = None
        engine = self.engine
        relay = self.relay
        if relay.client.lost or self.abandoned:
            self._uncount()
            relay.server.close()
            if not self.abandoned:
                self._finish()
            return
        if self.pool.live.measures:
            now = engine.clock()
            self.host.took(now - self.dialled_at, now)
        self.pool.live.report(self.host, 200, False, engine.clock())
        self.outcome.sent_at = self.outcome.first_at = engine.clock()
        if not self.ahead:
            self._join()

    def _join(self) -> None:
        """Both sides are there."""
        relay = self.relay
        self.relay_running = True
        limits = self.pool.live.config.limits
        relay.idle_s = limits.tcp_idle_timeout_s
        if limits.max_connection_duration_s:
            relay.lasts_s = limits.max_connection_duration_s
            relay.ends_at = self.engine.clock() + relay.lasts_s
        self.engine.relays.add(relay)
        if self.confirm:
            relay.client.write(self.confirm)
        relay.client.release()
        relay.server.release()
        relay.join()

    def _not_connected(self, why: str) -> None:
        self._dialing = None
        if self.abandoned:
            return
        engine = self.engine
        host = self.host
        self._uncount()
        self.pool.live.report(host, 0, True, engine.clock())
        self.outcome.why = why
        if self.relay.client.lost:
            self._finish()
        elif len(self.tried) < MAX_TRIES:
            self._try()
        else:
            self._fail(CONNECT, why)

    def _fail(self, reason: Reason, why: str) -> None:
        if self.ahead:
            self.failure = (reason, why)
            self._fail_ahead()
            return
        outcome = self.outcome
        outcome.reason = reason.code
        outcome.flag = reason.flag
        outcome.why = why
        if self.refuse is not None and not self.relay.client.lost:
            outcome.status = reason.status
            self.refuse(reason, why)
        elif self.relay.client.lost:
            self._finish()
            return
        else:
            self.relay.client.close()
        if self.relay.client.transport is None:
            self._finish()

    def _ended(self, relay: Relay) -> None:
        if self.abandoned:
            return
        if self.ahead:  # the endpoint's side
            self.gone = True
            self._uncount()
            self._fail_ahead()
            return
        if self.relay_running:
            self._uncount()
        elif self.host is not None:
            return  # still connecting: _connected or _not_connected ends it
        self._finish()

    def _finish(self) -> None:
        engine = self.engine
        if self not in engine.sessions:
            return
        engine.sessions.discard(self)
        engine.relays.discard(self.relay)
        outcome = self.outcome
        outcome.received_bytes = self.relay.client.count
        outcome.sent_bytes = self.relay.server.count
        outcome.ended_at = engine.clock()
        if self.relay.reason is not None:
            outcome.reason = self.relay.reason.code
            outcome.flag = self.relay.reason.flag
            outcome.why = self.relay.why
        elif not self.relay_running and not outcome.reason:
            outcome.reason = CLIENT_GONE.code
            outcome.flag = CLIENT_GONE.flag
            outcome.why = "The client closed the connection before the endpoint was connected."
        if self.on_end is not None:
            self.on_end()
        engine.observe(outcome)
