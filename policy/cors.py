"""CORS: preflights answered here, and the headers that let a browser read an answer. It never blocks a request."""

from __future__ import annotations

from .decision_changes import with_changes
from .match import HttpMatch, TextTest
from .resources import CorsPolicy
from .tables import Decision, Destination, HeaderOps, Request


class Cors:
    """A route's corsPolicy. The origin of the request is echoed, never `*`."""

    __slots__ = ("_credentials", "_exposed", "_headers", "_ignores", "_max_age", "_methods", "_origins")

    def __init__(self, policy: CorsPolicy) -> None:
        self._origins = [TextTest(match) for match in policy.allow_origins]
        self._methods = ",".join(policy.allow_methods)
        self._headers = ",".join(policy.allow_headers)
        self._exposed = ",".join(policy.expose_headers)
        self._max_age = "" if policy.max_age is None else str(int(policy.max_age))
        self._credentials = bool(policy.allow_credentials)
        self._ignores = policy.unmatched_preflights == "IGNORE"

    def change(self, decision: Decision, request: Request, match: HttpMatch) -> Decision:
        origin = request.header("origin")
        if origin is None:
            return decision
        allowed = any(
            (test.kind == "exact" and test.value == "*") or (test.kind != "any" and test.holds(origin))
            for test in self._origins
        )
        asked = request.header("access-control-request-method")
        if request.method == "OPTIONS" and asked is not None:
            if allowed:
                return self._answer(decision, self._preflight(request, origin, asked))
            return self._answer(decision, ()) if self._ignores else decision
        return _with_response_headers(decision, self._actual(origin)) if allowed else decision

    def _actual(self, origin: str) -> tuple[tuple[str, str], ...]:
        found = [("access-control-allow-origin", origin)]
        if self._credentials:
            found.append(("access-control-allow-credentials", "true"))
        if self._exposed:
            found.append(("access-control-expose-headers", self._exposed))
        return tuple(found)

    def _preflight(self, request: Request, origin: str, asked: str) -> tuple[tuple[str, str], ...]:
        found = [("access-control-allow-origin", origin)]
        if self._credentials:
            found.append(("access-control-allow-credentials", "true"))
        methods = asked if self._methods == "*" else self._methods
        headers = (request.header("access-control-request-headers") or "") if self._headers == "*" else self._headers
        for name, value in (("methods", methods), ("headers", headers)):
            if value:
                found.append((f"access-control-allow-{name}", value))
        if self._exposed:
            found.append(("access-control-expose-headers", self._exposed))
        if self._max_age:
            found.append(("access-control-max-age", self._max_age))
        return tuple(found)

    def _answer(self, decision: Decision, headers: tuple[tuple[str, str], ...]) -> Decision:
        return Decision(
            "direct-response",
            status=200,
            why="answered as a CORS preflight",
            virtual_service=decision.virtual_service,
            route=decision.route,
            response_headers=HeaderOps(set=headers) if headers else None,
        )


def _with_response_headers(decision: Decision, headers: tuple[tuple[str, str], ...]) -> Decision:
    changed = [
        Destination(
            one.cluster,
            one.host,
            one.port,
            one.subset,
            one.weight,
            one.request_headers,
            _added(one.response_headers, headers),
            one.authority,
        )
        for one in decision.destinations
    ]
    found = with_changes(decision, destinations=changed)
    found.response_headers = _added(decision.response_headers, headers)
    return found


def _added(operations: HeaderOps | None, headers: tuple[tuple[str, str], ...]) -> HeaderOps:
    if operations is None:
        return HeaderOps(set=headers)
    return HeaderOps(set=(*headers, *operations.set), add=operations.add, remove=operations.remove)
