"""Virtual hosts of compiled tables as Envoy's routes (RDS): matches, actions, headers, retries, faults, CORS, mirrors.

What istiod makes of a VirtualService is the model (pilot/pkg/networking/core/route); which rule, route and destination
counts for this client was decided by `policy/compile*`, so an arm here is an arm there. What xDS cannot do is told to
`note`, and where leaving it out would let more through, the route is answered with 503 or left out.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Mapping, Sequence

from ..policy.header_operations import AUTHORITY
from ..policy.match import Arm
from ..policy.resources import (
    CorsPolicy,
    HeaderOperations,
    Headers,
    HTTPMatchRequest,
    HTTPRedirect,
    HTTPRoute,
    StringMatch,
    VirtualService,
)
from ..policy.tables import Cluster, Decision, Destination, Fault, LoadBalancer, RetryPolicy
from .xds_clusters import DYNAMIC
from .xds_node import GRPC, JSON, Node, Notes, seconds, typed

CLAIMS = "@request.auth.claims"
BODY_MAX = 1 << 20
MILLION = 1_000_000
FAULT, CORS = "envoy.filters.http.fault", "envoy.filters.http.cors"
_CODES = {
    301: "MOVED_PERMANENTLY", 302: "FOUND", 303: "SEE_OTHER", 307: "TEMPORARY_REDIRECT", 308: "PERMANENT_REDIRECT",
}  # fmt: skip
_GRPC_RETRIES = frozenset(("cancelled", "deadline-exceeded", "internal", "resource-exhausted", "unavailable"))
_PREDICATE: JSON = {
    "name": "envoy.retry_host_predicates.previous_hosts",
    "typed_config": typed("retry.host.previous_hosts.v3.PreviousHostsPredicate"),
}
_PRIORITIES: JSON = {
    "name": "envoy.retry_priorities.previous_priorities",
    "typed_config": typed("retry.priority.previous_priorities.v3.PreviousPrioritiesConfig", update_frequency=2),
}
_GRPC_STATUS = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip


class Routes:
    """Makes routes for one client; `clusters`: those that it has."""

    def __init__(self, clusters: Mapping[str, Cluster], node: Node, note: Notes, forwards: bool) -> None:
        """`forwards`: hosts that are not known may be gone to by their names (DYNAMIC)."""
        self._clusters = clusters
        self._node = node
        self._note = note
        self._forwards = forwards

    def of(self, arms: Iterable[Arm], rule: VirtualService | None, port: int) -> list[JSON]:
        """The routes of a virtual host, in order."""
        found = []
        for arm in arms:
            route = rule.spec.http[arm.index] if rule is not None else None
            made = self._one(arm, route, rule, port)
            if made is not None:
                found.append(made)
        return found

    def _one(self, arm: Arm, route: HTTPRoute | None, rule: VirtualService | None, port: int) -> JSON | None:
        where = f"VirtualService {rule.meta.key} route {arm.label}" if rule is not None else ""
        block = route.match[arm.match.number] if route is not None and arm.match.number >= 0 else None
        match = self._match(block, where)
        if match is None:
            return None
        made: JSON = {"match": match}
        if route is not None and (route.name or arm.match.name):
            made["name"] = arm.label
        decision = arm.decision
        if self._node.kind == GRPC and route is not None:
            self._grpc_notes(route, where)
        if decision.verdict == "redirect" and route is not None and route.redirect is not None:
            made["redirect"] = _redirect(route.redirect, decision.status, port)
        elif decision.verdict == "direct-response" and route is not None and route.direct_response is not None:
            made["direct_response"] = _direct(route)
        elif decision.verdict == "passthrough":
            made.update(self._passthrough(decision, where))
        elif not decision.destinations or decision.status:
            made["direct_response"] = {"status": decision.status or 503}
        else:
            made["route"] = self._action(decision, route)
        if route is not None:
            self._headers(made, route)
            self._filters(made, route, decision, where)
        return made

    def _grpc_notes(self, route: HTTPRoute, where: str) -> None:
        told = (
            ("rewrite", route.rewrite), ("redirect", route.redirect), ("directResponse", route.direct_response),
            ("mirrors", route.mirrors or route.mirror), ("corsPolicy", route.cors_policy), ("headers", route.headers),
        )  # fmt: skip
        for name, value in told:
            if value:
                self._note(f"{where}: `{name}` is not carried out by gRPC")
        if any(one.headers for one in route.route):
            self._note(f"{where}: `headers` of destinations are not carried out by gRPC")

    # --- matches ----------------------------------------------------------------------------------------------------

    def _match(self, block: HTTPMatchRequest | None, where: str) -> JSON | None:
        if block is None:
            return {"prefix": "/"} if self._node.kind != GRPC else {"prefix": ""}
        made: JSON = {"case_sensitive": not block.ignore_uri_case}
        uri = block.uri
        if uri is not None and uri.exact is not None:
            made["path"] = uri.exact
        elif uri is not None and uri.regex is not None:
            made["safe_regex"] = {"regex": uri.regex}
            made.pop("case_sensitive")
        else:
            made["prefix"] = uri.prefix if uri is not None and uri.prefix is not None else "/"
        headers = []
        for name, match in (("method", block.method), ("scheme", block.scheme), ("authority", block.authority)):
            if match is not None and string_match(match) is not None:
                headers.append({"name": f":{name}", "string_match": string_match(match)})
        for name, match in block.headers.items():
            if name.startswith(CLAIMS):
                self._note(f"{where}: {CLAIMS} is not carried out by xDS; the route is left out")
                return None
            if match.regex == "*":
                return None  # never holds
            headers.append(matched(name, match))
        for name, match in block.without_headers.items():
            if name.startswith(CLAIMS):
                self._note(f"{where}: {CLAIMS} is not carried out by xDS; the route is left out")
                return None
            headers.append(_without(name, match))
        if headers:
            made["headers"] = headers
        if block.query_params:
            made["query_parameters"] = [matched(name, one) for name, one in block.query_params.items()]
            if self._node.kind == GRPC:
                self._note(f"{where}: queryParams have no meaning for gRPC; the route is left out")
                return None
        return made

    # --- actions ----------------------------------------------------------------------------------------------------

    def _passthrough(self, decision: Decision, where: str) -> JSON:
        if self._forwards and self._node.kind != GRPC:
            return {"route": {"cluster": DYNAMIC, "timeout": "0s"}}
        self._note(f"{where or decision.why}: the client's own destination cannot be passed on here; answered with 502")
        return {"direct_response": {"status": 502}}

    def _action(self, decision: Decision, route: HTTPRoute | None) -> JSON:
        timeout = seconds(decision.timeout_s or 0.0)
        # Deprecated, but as istiod has it: with its successor Envoy tells endpoints no x-envoy-expected-rq-timeout-ms.
        made: JSON = {"timeout": timeout, "max_grpc_timeout": timeout}
        if self._node.kind == GRPC:
            made = {"max_stream_duration": {"max_stream_duration": timeout}} if decision.timeout_s else {}
        destinations = decision.destinations
        if len(destinations) == 1 and (route is None or len(route.route) <= 1):
            made["cluster"] = destinations[0].cluster
        else:
            chosen = [one for one in route.route if one.weight > 0] if route is not None else []
            made["weighted_clusters"] = {
                "clusters": [
                    self._weighted(one, chosen[index].headers if index < len(chosen) else None)
                    for index, one in enumerate(destinations)
                ]
            }
        retries = _retries(decision.retries, self._node.kind == GRPC)
        if retries is not None:
            made["retry_policy"] = retries
        hashes = self._hash_policy(destinations)
        if hashes:
            made["hash_policy"] = hashes
        if self._node.kind == GRPC:
            return made
        if decision.authority is not None:
            made["host_rewrite_literal"] = decision.authority
        rewrite = route.rewrite if route is not None else None
        if rewrite is not None and rewrite.uri_regex_rewrite is not None:
            regex = rewrite.uri_regex_rewrite
            made["regex_rewrite"] = {
                "pattern": {"regex": regex.get("match", "")}, "substitution": regex.get("rewrite", ""),
            }  # fmt: skip
        elif rewrite is not None and rewrite.uri:
            made["prefix_rewrite"] = rewrite.uri
        if decision.mirrors:
            made["request_mirror_policies"] = [
                {"cluster": one.cluster, "runtime_fraction": {"default_value": _fraction(one.percentage)}}
                for one in decision.mirrors
            ]
        return made

    def _weighted(self, one: Destination, headers: Headers | None) -> JSON:
        made: JSON = {"name": one.cluster, "weight": one.weight}
        if self._node.kind == GRPC:
            return made
        if one.authority is not None:
            made["host_rewrite_literal"] = one.authority
        if headers is not None:
            _operations(made, "request", [headers.request])
            _operations(made, "response", [headers.response])
        return made

    def _hash_policy(self, destinations: Sequence[Destination]) -> list[JSON]:
        for one in destinations:
            cluster = self._clusters.get(one.cluster)
            if cluster is not None and cluster.load_balancer.hash_on:
                return _hash_policy(cluster.load_balancer, self._node, self._note)
        return []

    # --- what stands beside the action --------------------------------------------------------------------------------

    def _headers(self, made: JSON, route: HTTPRoute) -> None:
        if self._node.kind == GRPC:
            return
        levels = [route.headers]
        if len(route.route) == 1:
            levels.append(route.route[0].headers)
        _operations(made, "request", [one.request if one is not None else None for one in levels])
        _operations(made, "response", [one.response if one is not None else None for one in levels])

    def _filters(self, made: JSON, route: HTTPRoute, decision: Decision, where: str) -> None:
        config: JSON = {}
        if decision.fault is not None and decision.verdict == "route":
            made_fault = self._fault(decision.fault, where)
            if made_fault:
                config[FAULT] = typed("filters.http.fault.v3.HTTPFault", **made_fault)
        if route.cors_policy is not None and self._node.kind != GRPC and decision.verdict == "route":
            config[CORS] = typed("filters.http.cors.v3.CorsPolicy", **_cors(route.cors_policy))
        if config:
            made["typed_per_filter_config"] = config

    def _fault(self, fault: Fault, where: str) -> JSON:
        made: JSON = {}
        if fault.delay_s:
            made["delay"] = {"fixed_delay": seconds(fault.delay_s), "percentage": _fraction(fault.delay_percentage)}
        share = _fraction(fault.abort_percentage)
        if fault.abort_status:
            made["abort"] = {"http_status": fault.abort_status, "percentage": share}
        elif fault.abort_grpc_status:
            name = fault.abort_grpc_status
            number = int(name) if name.isdigit() else _GRPC_STATUS.index(name) if name in _GRPC_STATUS else -1
            if number < 0:
                self._note(f"{where}: gRPC status {name} is not known; the fault is left out")
            else:
                made["abort"] = {"grpc_status": number, "percentage": share}
        return made


def string_match(match: StringMatch) -> JSON | None:
    """None: presence is all that is asked."""
    if match.exact is not None:
        return {"exact": match.exact}
    if match.prefix is not None:
        return {"prefix": match.prefix}
    if match.regex is not None:
        return {"safe_regex": {"regex": match.regex}}
    return None


def matched(name: str, match: StringMatch) -> JSON:
    """A condition on a header, or a query parameter."""
    wanted = string_match(match)
    return {"name": name, "string_match": wanted} if wanted is not None else {"name": name, "present_match": True}


def _without(name: str, match: StringMatch) -> JSON:
    wanted = string_match(match)
    if wanted is None or match.regex == "*":
        return {"name": name, "present_match": True, "invert_match": True}
    return {"name": name, "string_match": wanted, "invert_match": True, "treat_missing_header_as_empty": True}


def _fraction(percent: float) -> JSON:
    return {"numerator": round(percent * MILLION / 100), "denominator": "MILLION"}


def _retries(policy: RetryPolicy | None, grpc: bool) -> JSON | None:
    if policy is None:
        return None
    conditions = [one for one in policy.retry_on if not one.isdigit()]
    if policy.status_codes and "retriable-status-codes" not in conditions:
        conditions.append("retriable-status-codes")
    if grpc:
        usable = [one for one in conditions if one in _GRPC_RETRIES]
        return {"retry_on": ",".join(usable), "num_retries": policy.attempts} if usable else None
    made: JSON = {"retry_on": ",".join(conditions), "num_retries": policy.attempts}
    if policy.status_codes:
        made["retriable_status_codes"] = sorted(policy.status_codes)
    if policy.per_try_timeout_s:
        made["per_try_timeout"] = seconds(policy.per_try_timeout_s)
    if policy.backoff_s != 0.025:
        made["retry_back_off"] = {"base_interval": seconds(policy.backoff_s)}
    if policy.ignore_previous_hosts:
        made["retry_host_predicate"] = [_PREDICATE]
        made["host_selection_retry_max_attempts"] = 5
    if policy.remote:
        made["retry_priority"] = _PRIORITIES
    return made


def _hash_policy(balancer: LoadBalancer, node: Node, note: Notes) -> list[JSON]:
    kind, name = balancer.hash_on, balancer.hash_name
    if kind == "header":
        return [{"header": {"header_name": name}}]
    if node.kind == GRPC:
        note(f"a hash of the {kind} is not carried out by gRPC; each channel draws its own")
        return []
    if kind == "cookie":
        cookie: JSON = {"name": name}
        if balancer.cookie_ttl_s is not None:
            cookie["ttl"] = seconds(balancer.cookie_ttl_s)
        if balancer.cookie_path:
            cookie["path"] = balancer.cookie_path
        return [{"cookie": cookie}]
    if kind == "query":
        return [{"query_parameter": {"name": name}}]
    return [{"connection_properties": {"source_ip": True}}]


def _redirect(redirect: HTTPRedirect, status: int, port: int) -> JSON:
    """As istiod's ApplyRedirect: a port that the scheme implies is left out."""
    made: JSON = {"response_code": _CODES[status]}
    if redirect.authority:
        made["host_redirect"] = redirect.authority
    if redirect.scheme:
        made["scheme_redirect"] = redirect.scheme
    if redirect.prefix_rewrite:
        made["prefix_rewrite"] = redirect.prefix_rewrite
    elif redirect.uri:
        made["path_redirect"] = redirect.uri
    wanted = redirect.port
    if redirect.derive_port == "FROM_REQUEST_PORT":
        wanted = port
    implied = {"http": 80, "https": 443}.get(redirect.scheme or "http")
    if wanted is not None and wanted != implied:
        made["port_redirect"] = wanted
    return made


def _direct(route: HTTPRoute) -> JSON:
    assert route.direct_response is not None
    made: JSON = {"status": route.direct_response.status}
    body = route.direct_response.body
    if body is not None and body.string is not None:
        made["body"] = {"inline_string": body.string}
    elif body is not None and body.bytes is not None:
        made["body"] = {"inline_bytes": base64.b64decode(body.bytes)}
    return made


def _operations(made: JSON, side: str, levels: Sequence[HeaderOperations | None]) -> None:
    """Header operations in Istio's order: what is set before what is added, level by level; names sorted."""
    added: list[JSON] = []
    removed: list[str] = []
    for level in levels:
        if level is None:
            continue
        for values, action in ((level.set, "OVERWRITE_IF_EXISTS_OR_ADD"), (level.add, "APPEND_IF_EXISTS_OR_ADD")):
            for name, value in sorted(values.items()):
                if value and name.lower() not in AUTHORITY:
                    added.append({"header": {"key": name, "value": value}, "append_action": action})
        removed += level.remove
    if added:
        made[f"{side}_headers_to_add"] = added
    if removed:
        made[f"{side}_headers_to_remove"] = removed


def _cors(policy: CorsPolicy) -> JSON:
    made: JSON = {
        "allow_origin_string_match": [one for one in map(string_match, policy.allow_origins) if one is not None],
        "filter_enabled": {"default_value": {"numerator": 100}},
        "forward_not_matching_preflights": policy.unmatched_preflights != "IGNORE",
    }
    for name, values in (
        ("allow_methods", policy.allow_methods),
        ("allow_headers", policy.allow_headers),
        ("expose_headers", policy.expose_headers),
    ):
        if values:
            made[name] = ",".join(values)
    if policy.max_age is not None:
        made["max_age"] = str(int(policy.max_age))
    if policy.allow_credentials is not None:
        made["allow_credentials"] = policy.allow_credentials
    return made
