"""HTTP routes of a VirtualService, compiled: arms in order, each a match and a decision that is made beforehand.

What depends on the request (a rewritten path, a redirect's location, CORS) stands beside the decision as a `change`.
Long because every field of an HTTP route is turned here.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable, Mapping

from .compile_view import View, cluster_name
from .cors import Cors
from .decision_changes import with_changes
from .header_operations import merged, new_authority
from .linear_regex import RegexError, search_pattern
from .match import Arm, HttpMatch, scheme_of
from .resources import (
    DestinationRef,
    HTTPFaultInjection,
    HTTPMatchRequest,
    HTTPRedirect,
    HTTPRetry,
    HTTPRewrite,
    HTTPRoute,
    HTTPRouteDestination,
    Percent,
    VirtualService,
)
from .rewrite import redirect_location, rewrite_target
from .tables import Decision, Destination, Fault, HeaderOps, Mirror, Request, RetryPolicy
from .visibility import gateway_name, labels_hold

DEFAULT_RETRY_ON = ("connect-failure", "refused-stream", "unavailable", "cancelled")
BACKOFF_S = 0.025
CARRIED_OUT = (301, 302, 303, 307, 308)

Change = Callable[[Decision, Request, HttpMatch], Decision]
Dropped = tuple[str, str, str, str]
"""(rule, route, why, path of the field) of a route or block that this client can never reach; for explain."""


class CompiledRule:
    """The HTTP part of a VirtualService for one client and port. No arms: it does not apply."""

    __slots__ = ("arms", "dropped")

    def __init__(self, arms: tuple[Arm, ...], dropped: tuple[Dropped, ...]) -> None:
        self.arms = arms
        self.dropped = dropped


def compile_rule(view: View, service: VirtualService, port: int) -> CompiledRule:
    """The routes of `service` as this client sees them on `port`; a catch-all ends the list."""
    arms: list[Arm] = []
    dropped: list[Dropped] = []
    namespace, key = service.meta.namespace, service.meta.key
    for index, route in enumerate(service.spec.http):
        label, path = route.name or str(index), f"spec.http[{index}]"
        if arms and arms[-1].match.catches_all:
            dropped.append((key, label, f"route {arms[-1].label} before it catches everything", path))
            continue
        matches = []
        for number, block in enumerate(route.match):
            why = static_failure(view, block, service, port)
            if why:
                dropped.append((key, label, why, f"{path}.match[{number}]"))
            else:
                matches.append(HttpMatch(block, number))
        if not route.match:
            matches.append(HttpMatch(None))
        if not matches:
            continue
        if route.delegate is not None:
            dropped.append((key, label, delegate_problem(route), f"{path}.delegate"))
            continue
        if route.redirect is not None and route.redirect.redirect_code not in CARRIED_OUT:
            why = f"redirectCode {route.redirect.redirect_code} is not carried out"
            dropped.append((key, label, why, f"{path}.redirect.redirectCode"))
            continue
        maker = _RouteMaker(view, service, route, port, namespace)
        for match in matches:
            name = f"{label}.{match.name}" if match.name and route.name else (route.name or match.name or str(index))
            arms.append(Arm(match, maker.decision(name), maker.change, index, name))
            if match.catches_all:
                break
    return CompiledRule(tuple(arms), tuple(dropped))


def delegate_problem(route: HTTPRoute) -> str:
    name = route.delegate.name if route.delegate is not None else ""
    return f"delegate {name} is missing, or not visible to this rule's namespace"


def static_failure(view: View, block: HTTPMatchRequest, service: VirtualService, port: int) -> str:
    """Why this client on this port can never satisfy the block; empty where it may.

    With `gateways` in the block, source labels and namespace are not looked at (Istio).
    """
    if block.port and block.port != port:
        return f"it is for port {block.port}, not {port}"
    if block.gateways:
        own = view.gateway or "mesh"
        if own not in [gateway_name(name, service.meta.namespace) for name in block.gateways]:
            return f"it is for gateways {', '.join(block.gateways)}, not {own}"
        return ""
    if block.source_namespace and block.source_namespace != view.namespace:
        return f"it is for clients in namespace {block.source_namespace}, not {view.namespace}"
    if not labels_hold(block.source_labels, view.workload.labels):
        own_labels = view.workload.labels
        return f"it is for clients with labels {_pairs(block.source_labels)}; this one has " + _pairs(
            {key: own_labels[key] for key in block.source_labels if key in own_labels}
        )
    return ""


def _pairs(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items()) or "none of them"


class _RouteMaker:
    """Everything that the arms of one route share."""

    def __init__(self, view: View, service: VirtualService, route: HTTPRoute, port: int, namespace: str) -> None:
        self._view = view
        self._service = service
        self._route = route
        self._port = port
        self._namespace = namespace
        self._destinations, self._authority = self._all_destinations()
        own = route.headers
        self._request_headers = merged([own.request if own else None], True)
        self._response_headers = merged([own.response if own else None], True)
        self._timeout_s = route.timeout
        self._retries = retry_policy(view, route.retries, self._hashes())
        self._fault = fault(route.fault)
        self._mirrors = self._all_mirrors()
        self.change = self._change()

    def decision(self, name: str) -> Decision:
        route, key = self._route, self._service.meta.key
        if route.redirect is not None:
            return Decision(
                "redirect",
                status=route.redirect.redirect_code,
                virtual_service=key,
                route=name,
                response_headers=self._response_headers,
            )
        if route.direct_response is not None:
            body = route.direct_response.body
            content = b""
            if body is not None and body.string is not None:
                content = body.string.encode()
            elif body is not None and body.bytes is not None:
                content = base64.b64decode(body.bytes)
            return Decision(
                "direct-response",
                status=route.direct_response.status,
                virtual_service=key,
                route=name,
                body=content,
                response_headers=self._response_headers,
            )
        return Decision(
            "route",
            virtual_service=key,
            route=name,
            destinations=self._destinations,
            authority=self._authority,
            request_headers=self._request_headers,
            response_headers=self._response_headers,
            timeout_s=self._timeout_s,
            retries=self._retries,
            fault=self._fault,
            mirrors=self._mirrors,
        )

    def _all_destinations(self) -> tuple[tuple[Destination, ...], str | None]:
        """Destinations with headers merged, and the authority where it is the same for all of them."""
        route = self._route
        chosen = route.route if len(route.route) <= 1 else [one for one in route.route if one.weight > 0]
        single = len(route.route) == 1
        rewritten = route.rewrite.authority if route.rewrite is not None else ""
        own_request = route.headers.request if route.headers else None
        authorities = [
            rewritten or new_authority(own_request, one.headers.request if one.headers else None) for one in chosen
        ]
        common = authorities[0] if authorities and all(one == authorities[0] for one in authorities) else None
        found = []
        for one, authority in zip(chosen, authorities, strict=True):
            request, response = self._headers(one, single)
            host, port = self._target(one.destination)
            subset = one.destination.subset or ""
            found.append(
                Destination(
                    cluster_name(port, subset, host),
                    host,
                    port,
                    subset,
                    100 if single else one.weight,
                    request,
                    response,
                    authority if authority != common else None,
                )
            )
        return tuple(found), common or None

    def _headers(self, one: HTTPRouteDestination, single: bool) -> tuple[HeaderOps | None, HeaderOps | None]:
        """One destination: one list, route then destination. Several: destination's level first, then the route's."""
        route, own = self._route.headers, one.headers
        request = [route.request if route else None, own.request if own else None]
        response = [route.response if route else None, own.response if own else None]
        if not single:
            request.reverse()
            response.reverse()
        return merged(request, single), merged(response, single)

    def _target(self, reference: DestinationRef) -> tuple[str, int]:
        """Host and port. Left out, the port is the one dialled; on a gateway the service's only one comes first."""
        host = self._view.destination_host(reference, self._namespace)
        if reference.port is not None and reference.port.number:
            return host, reference.port.number
        service = self._view.services.get(host)
        if self._view.gateway and service is not None and len(service.ports) == 1:
            return host, service.ports[0].number
        return host, self._port

    def _hashes(self) -> bool:
        clusters = [self._view.clusters.get(one.cluster) for one in self._destinations]
        return any(one is not None and one.load_balancer.hash_on for one in clusters)

    def _all_mirrors(self) -> tuple[Mirror, ...]:
        """Targets that do not exist are skipped without a word, as in Istio; so are those of 0 percent."""
        route = self._route
        wanted: list[tuple[DestinationRef, float]] = []
        if route.mirror is not None:
            percent = 100.0 if route.mirror_percent is None else float(route.mirror_percent)
            wanted.append((route.mirror, percent if route.mirror_percentage is None else route.mirror_percentage.value))
        wanted += [
            (one.destination, 100.0 if one.percentage is None else one.percentage.value) for one in route.mirrors
        ]
        found = []
        for reference, share in wanted:
            host, port = self._target(reference)
            name = cluster_name(port, reference.subset or "", host)
            if share > 0 and name in self._view.clusters:
                found.append(Mirror(name, host, port, reference.subset or "", share))
        return tuple(found)

    def _change(self) -> Change | None:
        route = self._route
        if route.redirect is not None:
            return _redirecting(route.redirect, self._port)
        if route.direct_response is not None:
            return None
        steps: list[Change] = []
        if route.rewrite is not None and (route.rewrite.uri or route.rewrite.uri_regex_rewrite):
            steps.append(_rewriting(route.rewrite))
        if route.cors_policy is not None:
            steps.append(Cors(route.cors_policy).change)
        if len(steps) < 2:
            return steps[0] if steps else None
        first, second = steps
        return lambda decision, request, match: second(first(decision, request, match), request, match)


def https_redirect(port: int, gateway: str) -> tuple[Decision, Change]:
    """What a Gateway's httpsRedirect does with every request."""
    redirect = HTTPRedirect(scheme="https", redirect_code=301)
    why = f"Gateway {gateway} redirects its clients on port {port} to https"
    return Decision("redirect", status=301, route="httpsRedirect", why=why), _redirecting(redirect, port)


def _redirecting(redirect: HTTPRedirect, port: int) -> Change:
    def change(decision: Decision, request: Request, match: HttpMatch) -> Decision:
        location = redirect_location(redirect, match, request.path, request.authority, scheme_of(request), port)
        return Decision(
            "redirect",
            status=decision.status,
            virtual_service=decision.virtual_service,
            route=decision.route,
            response_headers=decision.response_headers,
            location=location,
        )

    return change


def _rewriting(rewrite: HTTPRewrite) -> Change:
    pattern: re.Pattern[str] | None = None
    readable = True
    if rewrite.uri_regex_rewrite is not None:
        try:
            pattern = search_pattern(rewrite.uri_regex_rewrite.get("match", ""))
        except RegexError:
            readable = False  # refused by validation; where it comes this far, the path stays as it is

    def change(decision: Decision, request: Request, match: HttpMatch) -> Decision:
        path = rewrite_target(request.path, match, rewrite, pattern) if readable else request.path
        return with_changes(decision, path=path)

    return change


_RETRIES = {
    hashes: RetryPolicy(2, frozenset(DEFAULT_RETRY_ON), ignore_previous_hosts=not hashes, retry_on=DEFAULT_RETRY_ON)
    for hashes in (False, True)
}
"""Where nothing is said: the same for all services."""


def retry_policy(view: View, retries: HTTPRetry | None, hashes: bool = False) -> RetryPolicy | None:
    """Two retries unless the route or the mesh says otherwise; None switches them off.

    With consistent hashing a retry goes back to an endpoint already tried unless the rule asks for another one.
    """
    wanted = retries if retries is not None else view.mesh.default_http_retry_policy
    if wanted is None:
        return _RETRIES[hashes]
    if wanted.attempts <= 0:
        return None
    listed = tuple(wanted.retry_on.split(",")) if wanted.retry_on else DEFAULT_RETRY_ON
    codes = frozenset(int(one) for one in listed if one.isascii() and one.isdigit())
    conditions = frozenset(one for one in listed if not one.isdigit())
    ignore_previous = wanted.retry_ignore_previous_hosts
    return RetryPolicy(
        wanted.attempts,
        conditions | {"retriable-status-codes"} if codes else conditions,
        codes,
        wanted.per_try_timeout,
        wanted.backoff if wanted.backoff is not None else BACKOFF_S,
        not hashes if ignore_previous is None else ignore_previous,
        retry_on=listed,
        remote=bool(wanted.retry_remote_localities),
    )


def fault(injection: HTTPFaultInjection | None) -> Fault | None:
    """A percentage left out is 0: it never fires. A delay or abort without its value does nothing."""
    if injection is None:
        return None
    found = Fault()
    delay, abort = injection.delay, injection.abort
    if delay is not None and delay.fixed_delay:
        found.delay_s = delay.fixed_delay
        found.delay_percentage = _percentage(delay.percentage, delay.percent)
    if abort is not None and (abort.http_status or abort.grpc_status):
        found.abort_status = abort.http_status or 0
        found.abort_grpc_status = abort.grpc_status or ""
        found.abort_percentage = _percentage(abort.percentage, None)
    return found if found.delay_s or found.abort_status or found.abort_grpc_status else None


def _percentage(percentage: Percent | None, old: int | None) -> float:
    return percentage.value if percentage is not None else float(old or 0)
