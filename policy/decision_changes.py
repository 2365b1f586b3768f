"""Copies of a shared decision, made to fit one request."""

from __future__ import annotations

from collections.abc import Sequence

from .tables import Decision, Destination


def with_changes(
    decision: Decision, *, path: str | None = None, destinations: Sequence[Destination] | None = None
) -> Decision:
    """A copy of a decision with another path or other destinations."""
    return Decision(
        decision.verdict,
        status=decision.status,
        reason=decision.reason,
        why=decision.why,
        virtual_service=decision.virtual_service,
        route=decision.route,
        destinations=decision.destinations if destinations is None else tuple(destinations),
        authority=decision.authority,
        path=decision.path if path is None else path,
        request_headers=decision.request_headers,
        response_headers=decision.response_headers,
        timeout_s=decision.timeout_s,
        retries=decision.retries,
        fault=decision.fault,
        mirrors=decision.mirrors,
        location=decision.location,
        body=decision.body,
        policy=decision.policy,
    )
