"""What runs and may run no more: connections and exchanges whose permission a new version of the rules withdraws.

Those that may go on are left alone. What came in (to a sidecar, or a gateway) is judged as a new connection would be;
what goes out, by the egress verdict of the endpoint that it uses. A request that has no answer yet gets one that says
why; where the answer has begun, it is cut short.
"""

from __future__ import annotations

from typing import Any

from ..policy.tables import Tables
from ..registry.reasons import DENIED

WITHDRAWN = "Permission was withdrawn: "


def withdraw(engine: Any, tables: Tables) -> None:
    """End what `tables`, which are in force by now, do not permit."""
    for downstream in list(engine.connections):
        upgraded = getattr(downstream, "relay", None)  # HTTP/2 has none
        running = downstream.running()
        if upgraded is None and not running:
            continue
        if downstream.arrival.listener != "outbound":
            verdict = engine.admit(tables, downstream.arrival)
            if not verdict.allowed:
                why = WITHDRAWN + (verdict.why or verdict.by)
                if upgraded is not None:
                    _name(downstream.switched, verdict.by)
                    upgraded.abort(DENIED, why)
                for exchange in running:
                    _name(exchange, verdict.by)
                    exchange.client_lost(DENIED, why)
                if upgraded is None:
                    downstream.abort()
                continue
        if upgraded is not None:
            verdict = egress_of(engine, tables, downstream.switched)
            if verdict is not None:
                _name(downstream.switched, verdict.by)
                upgraded.abort(DENIED, WITHDRAWN + (verdict.why or verdict.by))
        for exchange in running:
            verdict = egress_of(engine, tables, exchange) if exchange.upstream is not None else None
            if verdict is not None:
                _name(exchange, verdict.by)
                exchange.request_failed(DENIED, WITHDRAWN + (verdict.why or verdict.by), 403)
    for session in list(engine.sessions):
        verdict = _session(engine, tables, session)
        if verdict is not None:
            session.outcome.policy = verdict.by
            session.relay.abort(DENIED, WITHDRAWN + (verdict.why or verdict.by))


def _name(exchange: Any, by: str) -> None:
    exchange.outcome.policy = by


def _session(engine: Any, tables: Tables, session: Any) -> Any:
    if session.arrival.listener != "outbound":
        verdict = engine.admit(tables, session.arrival)
        if not verdict.allowed:
            return verdict
    return egress_of(engine, tables, session)


def egress_of(engine: Any, tables: Tables, running: Any) -> Any:
    """The verdict that forbids an exchange or a session the endpoint that it uses; None: it may go on. An endpoint that
    is gone keeps its permission: that it has gone says nothing of policy."""
    endpoint, pool = running.outcome.endpoint, running.pool
    if endpoint is None or pool is None or tables.egress is None:
        return None
    config = tables.clusters.get(pool.live.config.name)
    for now in config.endpoints if config is not None else ():
        if (now.address, now.port) == (endpoint.address, endpoint.port):
            egress = now.egress
            return egress if egress is not None and not egress.allowed else None
    if endpoint.endpoint.source == "passthrough":
        verdict = engine.egress_verdict(tables, endpoint.address, endpoint.port)
        return verdict if verdict is not None and not verdict.allowed else None
    return None
