"""What must hold of a VirtualService beyond its schema; source: Istio's webhook and CRD rules.

Fields are taken from the normalised object, whose types the schema has checked.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..registry.schema import Findings
from .format_operators import FormatError, Template, fault, left_out, read
from .host_names import covers
from .validate_shadows import check_shadows
from .validate_values import (
    SUBSET_RULE,
    check_export_to,
    check_gateways,
    check_header_name,
    check_host,
    check_labels,
    check_percent,
    check_port,
    check_regex,
    check_string_match,
    cidr_fault,
    forbidden,
    invalid,
    is_ip,
    is_label,
    listed,
    mapping,
    not_supported,
    required,
    warn,
)

RETRY_ON = (
    "5xx", "gateway-error", "reset", "reset-before-request", "connect-failure", "refused-stream", "retriable-4xx",
    "retriable-status-codes", "retriable-headers", "envoy-ratelimited", "http3-post-connect-failure", "cancelled",
    "deadline-exceeded", "internal", "resource-exhausted", "unavailable",
)  # fmt: skip
GRPC_STATUSES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
METHODS = ("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH")
REDIRECTS_DONE = (301, 302, 303, 307, 308)
BODY_BYTES_MAX = 1 << 20
BODY_BYTES_LARGE = 100_000
_CLAIM = re.compile(r"@request\.auth\.claims(?:\.[^\[\]]+|(?:\[[^\[\]]+\])+)", re.IGNORECASE)
_DATAPLANE_SNI = re.compile(r"outbound_\.\d+_\.[^_]*_\..+")

Path = str
Object = Mapping[str, Any]


def check_virtual_service(found: Findings, spec: Object, namespace: str) -> None:
    hosts, gateways = listed(spec, "hosts"), listed(spec, "gateways")
    http, tls, tcp = listed(spec, "http"), listed(spec, "tls"), listed(spec, "tcp")
    in_mesh = not gateways or "mesh" in gateways
    check_gateways(found, "spec.gateways", gateways)
    check_export_to(found, "spec.exportTo", listed(spec, "exportTo"), namespace)
    if not hosts:
        _check_delegate(found, spec)
    _check_hosts(found, hosts, in_mesh)
    if not (http or tls or tcp):
        required(found, "spec", "http, tls or tcp must be provided in virtual service")
    for index, route in enumerate(http):
        check_http_route(found, f"spec.http[{index}]", route, in_mesh, delegate=not hosts)
    for index, route in enumerate(tls):
        _check_tls_route(found, f"spec.tls[{index}]", route, hosts, in_mesh)
    for index, route in enumerate(tcp):
        _check_tcp_route(found, f"spec.tcp[{index}]", route)
    for kind, routes in (("http", http), ("tls", tls), ("tcp", tcp)):
        check_shadows(found, kind, routes, gateways)


def _check_hosts(found: Findings, hosts: list[str], in_mesh: bool) -> None:
    for index, host in enumerate(hosts):
        path = f"spec.hosts[{index}]"
        if host == "*" and in_mesh:
            invalid(found, path, host, "'*' is not taken for a rule of the mesh; name hosts, or set gateways")
        elif check_host(found, path, host):
            lower = host.lower()
            for earlier in hosts[:index]:
                other = earlier.lower()
                if lower == other:
                    found.errors.append((path, f'Duplicate value: "{host}"'))
                elif covers(lower, other) or covers(other, lower):
                    invalid(found, path, host, f"overlaps with {earlier} of the same rule")


def _check_delegate(found: Findings, spec: Object) -> None:
    for key in ("gateways", "tls", "tcp"):
        if spec.get(key):
            forbidden(found, f"spec.{key}", "a rule without hosts is a delegate, which has http routes only")


# --- HTTP -----------------------------------------------------------------------------------------------------------


def check_http_route(found: Findings, path: Path, route: Object, in_mesh: bool, delegate: bool) -> None:
    """One entry of spec.http."""
    destinations = listed(route, "route")
    _check_action(found, path, route)
    for index, match in enumerate(listed(route, "match")):
        check_match(found, f"{path}.match[{index}]", match, in_mesh)
    _check_destinations(found, f"{path}.route", destinations, http=True)
    for key, check in _PARTS.items():
        if route.get(key) is not None:
            check(found, f"{path}.{key}", route[key])
    if route.get("timeout") and route.get("retries"):
        _check_times(found, path, route["timeout"], route["retries"])
    if route.get("redirect") is not None:
        _check_redirect(found, f"{path}.redirect", route["redirect"], listed(route, "match"))
    if delegate and route.get("delegate") is not None:
        forbidden(found, f"{path}.delegate", "a delegate may not delegate again")
    _check_mirrors(found, path, route)
    _check_one_authority(found, path, route)


def _check_action(found: Findings, path: Path, route: Object) -> None:
    def has(key: str) -> bool:
        return bool(route[key]) if key in ("route",) else route.get(key) is not None

    given = {key for key in ("redirect", "directResponse", "delegate") if has(key)}
    routed = bool(listed(route, "route"))
    if not given and not routed:
        required(found, f"{path}.route", "a route, a redirect, a directResponse or a delegate")
    together = {
        "redirect": ("fault", "rewrite", "directResponse"),
        "directResponse": ("fault", "rewrite"),
        "delegate": ("redirect", "directResponse"),
    }
    for key in sorted(given):
        if routed:
            forbidden(found, f"{path}.{key}", f"a route may not have both route and {key}")
        for other in together[key]:
            if route.get(other) is not None:
                forbidden(found, f"{path}.{key}", f"a route may not have both {key} and {other}")


def check_match(found: Findings, path: Path, match: Object, in_mesh: bool) -> None:
    """One entry of an HTTP route's `match`."""
    if match.get("uri") is not None:
        check_string_match(found, f"{path}.uri", match["uri"], empty_prefix=True)
    for key in ("method", "scheme", "authority"):
        if match.get(key) is not None:
            check_string_match(found, f"{path}.{key}", match[key])
    for key, star in (("headers", False), ("withoutHeaders", True), ("queryParams", False)):
        for name, value in mapping(match, key).items():
            at = f"{path}.{key}[{name}]"
            if key == "queryParams":
                if not name:
                    invalid(found, at, name, "a query parameter's name may not be empty")
            elif name.lower().startswith("@request.auth.claims"):
                _check_claim(found, at, name, in_mesh)
            else:
                check_header_name(found, at, name)
            if value.get("regex") == "*":
                if not star:
                    invalid(found, f"{at}.regex", "*", "is not a regular expression; for presence write {}")
                continue
            check_string_match(found, at, value)
    if match.get("port"):
        check_port(found, f"{path}.port", match["port"])
    check_labels(found, f"{path}.sourceLabels", mapping(match, "sourceLabels"))
    check_gateways(found, f"{path}.gateways", listed(match, "gateways"))
    if match.get("gateways") and (match.get("sourceLabels") or match.get("sourceNamespace")):
        warn(found, path, "where gateways is given, sourceLabels and sourceNamespace are not looked at (as Istio does)")


def _check_claim(found: Findings, path: Path, name: str, in_mesh: bool) -> None:
    if in_mesh:
        invalid(found, path, name, "claims are known at a gateway only; set gateways, without mesh")
    elif not _CLAIM.fullmatch(name):
        invalid(found, path, name, "write @request.auth.claims.A.B or @request.auth.claims[A][B]")


def check_destination(found: Findings, path: Path, destination: Object) -> None:
    host = destination.get("host", "")
    if host == "*":
        invalid(found, f"{path}.host", host, "a destination must name a host")
    elif host:
        check_host(found, f"{path}.host", host)
    else:
        required(found, f"{path}.host", "the name of a service")
    subset = destination.get("subset")
    if subset and not is_label(subset):
        invalid(found, f"{path}.subset", subset, SUBSET_RULE)
    if destination.get("port") is not None:
        check_port(found, f"{path}.port.number", destination["port"].get("number", 0))


def _check_destinations(found: Findings, path: Path, destinations: list[Any], http: bool) -> None:
    total = 0
    for index, one in enumerate(destinations):
        at = f"{path}[{index}]"
        if one.get("destination") is None:
            required(found, f"{at}.destination")
        else:
            check_destination(found, f"{at}.destination", one["destination"])
        weight = one.get("weight", 0)
        if weight < 0:
            invalid(found, f"{at}.weight", weight, "must be 0 or more")
        total += max(weight, 0)
        if http and one.get("headers") is not None:
            _check_headers(found, f"{at}.headers", one["headers"])
    if len(destinations) > 1 and total == 0:
        invalid(found, path, 0, "the weights of several destinations may not all be 0 (a missing weight is 0)")
    elif len(destinations) > 1 and total != 100:
        shares = ", ".join(f"{100 * max(one.get('weight', 0), 0) / total:.3g} %" for one in destinations)
        warn(found, path, f"the weights add up to {total}, not 100: the shares are {shares}; write what is meant")
    elif len(destinations) == 1 and destinations[0].get("weight", 100) not in (0, 100):
        told = "it is the only destination and gets everything; add the one that gets the rest, or leave weight out"
        warn(found, f"{path}[0].weight", f"{destinations[0]['weight']} has no effect: {told}")


def _check_rewrite(found: Findings, path: Path, rewrite: Object) -> None:
    regex = rewrite.get("uriRegexRewrite")
    if not rewrite.get("uri") and not rewrite.get("authority") and regex is None:
        required(found, path, "uri, authority or uriRegexRewrite")
    if regex is None:
        return
    if rewrite.get("uri"):
        forbidden(found, f"{path}.uriRegexRewrite", "may not stand next to uri")
    for key in ("match", "rewrite"):
        if not regex.get(key):
            required(found, f"{path}.uriRegexRewrite.{key}")
    if regex.get("match"):
        check_regex(found, f"{path}.uriRegexRewrite.match", regex["match"])


def _check_redirect(found: Findings, path: Path, redirect: Object, matches: list[Any]) -> None:
    if not any(redirect.get(key) for key in ("uri", "prefixRewrite", "authority", "scheme", "port", "derivePort")):
        required(found, path, "uri, prefixRewrite, authority, port or scheme")
    if redirect.get("uri") and redirect.get("prefixRewrite"):
        forbidden(found, f"{path}.prefixRewrite", "may not stand next to uri")
    if redirect.get("prefixRewrite") and any(
        mapping(match, "uri").get("exact") is not None or mapping(match, "uri").get("regex") is not None
        for match in matches
    ):
        invalid(found, f"{path}.prefixRewrite", redirect["prefixRewrite"], "needs matches of the uri by prefix")
    if redirect.get("port") is not None and redirect.get("derivePort"):
        forbidden(found, f"{path}.derivePort", "may not stand next to port")
    if redirect.get("port") is not None:
        check_port(found, f"{path}.port", redirect["port"], low=0)
    if redirect.get("scheme") and redirect["scheme"] not in ("http", "https"):
        not_supported(found, f"{path}.scheme", redirect["scheme"], ("http", "https"))
    code = redirect.get("redirectCode")
    if code is not None and code != 0:
        if not 300 <= code <= 399:
            invalid(found, f"{path}.redirectCode", code, "must be from 300 to 399")
        elif code not in REDIRECTS_DONE:
            warn(found, f"{path}.redirectCode", f"{code} is not carried out; 301, 302, 303, 307 and 308 are")


def _check_direct_response(found: Findings, path: Path, response: Object) -> None:
    status = response.get("status", 0)
    if not 200 <= status <= 600:
        invalid(found, f"{path}.status", status, "must be from 200 to 599")
    body = mapping(response, "body")
    if body.get("string") is not None and body.get("bytes") is not None:
        forbidden(found, f"{path}.body", "only one of string and bytes may be given")
    text = body.get("string") if body.get("string") is not None else body.get("bytes")
    size = len(str(text or "").encode("utf-8", "replace"))
    if size > BODY_BYTES_MAX:
        invalid(found, f"{path}.body", f"{size} bytes", f"must be at most {BODY_BYTES_MAX} bytes")
    elif size > BODY_BYTES_LARGE:
        warn(found, f"{path}.body", f"{size} bytes: every sidecar holds this body; above 100 kB is not advised")


def _check_retries(found: Findings, path: Path, retries: Object) -> None:
    attempts = retries.get("attempts", 0)
    if attempts < 0:
        invalid(found, f"{path}.attempts", attempts, "must be 0 or more")
    if attempts == 0:
        for key in ("perTryTimeout", "retryOn", "retryRemoteLocalities"):
            if retries.get(key):
                invalid(found, f"{path}.attempts", attempts, f"{key} may not be given where attempts is 0")
    if retries.get("retryOn"):
        for item in retries["retryOn"].split(","):
            if item not in RETRY_ON and not (item.isascii() and item.isdigit() and 100 <= int(item[:9]) <= 599):
                detail = "is not a retry condition or status code"
                if item.strip() in RETRY_ON or item.strip().isdigit():
                    detail += "; items are not trimmed, write no blanks after commas"
                elif item.lower() in RETRY_ON:
                    detail += f'; did you mean "{item.lower()}"?'
                invalid(found, f"{path}.retryOn", item, detail)


def _check_times(found: Findings, path: Path, timeout: float, retries: Object) -> None:
    """Whether the tries that are asked for fit into the whole."""
    attempts, each = retries.get("attempts", 0), retries.get("perTryTimeout")
    if not attempts or not each:
        return
    need = each * (attempts + 1)
    if each >= timeout:
        told = f"{each:g} s is no less than the route's timeout, {timeout:g} s: a try that times out is never repeated"
        warn(found, f"{path}.retries.perTryTimeout", f"{told}; shorten it, or lengthen timeout to {need:g}s")
    elif need > timeout:
        told = f"{timeout:g} s is shorter than what its retries need: {attempts + 1} tries of {each:g} s are {need:g} s"
        fits = max(1, int(timeout / each))
        warn(found, f"{path}.timeout", f"{told}; {fits} of them fit; write timeout: {need:g}s, or fewer attempts")


def _check_fault(found: Findings, path: Path, fault: Object) -> None:
    delay, abort = fault.get("delay"), fault.get("abort")
    if delay is None and abort is None:
        required(found, path, "delay, abort or both")
    for key, part in (("delay", delay), ("abort", abort)):
        if part is None:
            continue
        if part.get("percentage") is not None:
            check_percent(found, f"{path}.{key}.percentage.value", part["percentage"].get("value"))
        if part.get("percent") is not None and not 0 <= part["percent"] <= 100:
            invalid(found, f"{path}.{key}.percent", part["percent"], "must be from 0 to 100")
        if part.get("percentage") is None and part.get("percent") is None:
            warn(found, f"{path}.{key}", "without percentage it never happens (as Istio does); write percentage.value")
    if delay is not None and delay.get("fixedDelay") is None:
        warn(found, f"{path}.delay", "without fixedDelay it does nothing")
    if abort is not None:
        _check_abort(found, f"{path}.abort", abort)


def _check_abort(found: Findings, path: Path, abort: Object) -> None:
    status, grpc = abort.get("httpStatus"), abort.get("grpcStatus")
    if status is not None and grpc:
        forbidden(found, path, "only one of httpStatus and grpcStatus may be given")
    if status is not None and not 200 <= status <= 600:
        invalid(found, f"{path}.httpStatus", status, "must be from 200 to 599")
    if grpc and grpc.upper() not in GRPC_STATUSES:
        not_supported(found, f"{path}.grpcStatus", grpc, GRPC_STATUSES)
    if status is None and not grpc:
        warn(found, path, "without httpStatus or grpcStatus it does nothing")


def _check_mirrors(found: Findings, path: Path, route: Object) -> None:
    mirror, mirrors = route.get("mirror"), listed(route, "mirrors")
    if mirror is not None and mirrors:
        forbidden(found, f"{path}.mirrors", "may not stand next to mirror")
    if mirror is not None:
        check_destination(found, f"{path}.mirror", mirror)
    for index, one in enumerate(mirrors):
        at = f"{path}.mirrors[{index}]"
        if one.get("destination") is None:
            required(found, f"{at}.destination")
        else:
            check_destination(found, f"{at}.destination", one["destination"])
        _check_mirror_percent(found, f"{at}.percentage.value", mapping(one, "percentage").get("value"))
    _check_mirror_percent(found, f"{path}.mirrorPercentage.value", mapping(route, "mirrorPercentage").get("value"))
    if route.get("mirrorPercent") is not None:
        _check_mirror_percent(found, f"{path}.mirrorPercent", route["mirrorPercent"])
        warn(found, f"{path}.mirrorPercent", "is deprecated: write mirrorPercentage.value")


def _check_mirror_percent(found: Findings, path: Path, value: float | None) -> None:
    if value is not None and not 0 <= value <= 100:
        invalid(found, path, value, "must be from 0 to 100")


def _check_cors(found: Findings, path: Path, cors: Object) -> None:
    for index, origin in enumerate(listed(cors, "allowOrigins")):
        at = f"{path}.allowOrigins[{index}]"
        if not any(origin.get(key) is not None for key in ("exact", "prefix", "regex")):
            required(found, at, "exact, prefix or regex")
        check_string_match(found, at, origin)
    for index, method in enumerate(listed(cors, "allowMethods")):
        if method not in METHODS and method != "*":
            not_supported(found, f"{path}.allowMethods[{index}]", method, (*METHODS, "*"))
    for key in ("allowHeaders", "exposeHeaders"):
        for index, name in enumerate(listed(cors, key)):
            check_header_name(found, f"{path}.{key}[{index}]", name)
    age = cors.get("maxAge")
    if age is not None and (age != int(age) or age <= 0):
        invalid(found, f"{path}.maxAge", age, "must be whole seconds, at least 1s")


# --- header operations ----------------------------------------------------------------------------------------------


def _check_headers(found: Findings, path: Path, headers: Object) -> None:
    for side in ("request", "response"):
        operations = mapping(headers, side)
        for key in ("set", "add"):
            for name, value in mapping(operations, key).items():
                at = f"{path}.{side}.{key}[{name}]"
                _check_operation_name(found, at, name, host_allowed=side == "request")
                _check_header_value(found, at, value)
        for index, name in enumerate(listed(operations, "remove")):
            _check_operation_name(found, f"{path}.{side}.remove[{index}]", name, host_allowed=False)


def _check_operation_name(found: Findings, path: Path, name: str, host_allowed: bool) -> None:
    lower = name.lower()
    if lower in ("host", ":authority"):
        if not host_allowed:
            invalid(found, path, name, "Host may only be set or added in requests")
    elif name.startswith(":"):
        invalid(found, path, name, "names that begin with ':' may not be changed")
    else:
        check_header_name(found, path, name)


def _check_header_value(found: Findings, path: Path, value: str) -> None:
    if any(character in value for character in "\r\n\0"):
        invalid(found, path, value, "a header's value may not have line breaks")
    try:
        made = read(value)
    except FormatError as error:
        invalid(found, path, value, str(error))
        return
    for piece in made.pieces if isinstance(made, Template) else ():
        if isinstance(piece, str):
            continue
        if problem := fault(piece):
            invalid(found, path, value, problem)
        elif why := left_out(piece):
            warn(found, path, f"the format operator %{piece.name}% has no value: {why}")


def _check_one_authority(found: Findings, path: Path, route: Object) -> None:
    """The new Host may be given once among rewrite, headers.request.set and .add of the route."""
    if route.get("headers") is None:
        return
    given = ["rewrite.authority"] if mapping(route, "rewrite").get("authority") else []
    request = mapping(mapping(route, "headers"), "request")
    for key in ("set", "add"):
        given += [f"headers.request.{key}" for name in mapping(request, key) if name.lower() in ("host", ":authority")]
    if len(given) > 1:
        forbidden(found, path, f"the authority is given more than once: {', '.join(given)}")


# --- TLS and TCP ----------------------------------------------------------------------------------------------------


def _check_l4_match(found: Findings, path: Path, match: Object) -> None:
    for index, subnet in enumerate(listed(match, "destinationSubnets")):
        if fault := cidr_fault(subnet):
            invalid(found, f"{path}.destinationSubnets[{index}]", subnet, fault)
    if match.get("sourceSubnet") and (fault := cidr_fault(match["sourceSubnet"])):
        invalid(found, f"{path}.sourceSubnet", match["sourceSubnet"], fault)
    if match.get("port"):
        check_port(found, f"{path}.port", match["port"])
    check_labels(found, f"{path}.sourceLabels", mapping(match, "sourceLabels"))
    check_gateways(found, f"{path}.gateways", listed(match, "gateways"))


def _check_tcp_route(found: Findings, path: Path, route: Object) -> None:
    for index, match in enumerate(listed(route, "match")):
        _check_l4_match(found, f"{path}.match[{index}]", match)
    if not listed(route, "route"):
        required(found, f"{path}.route", "at least one destination")
    _check_destinations(found, f"{path}.route", listed(route, "route"), http=False)


def _check_tls_route(found: Findings, path: Path, route: Object, hosts: list[str], in_mesh: bool) -> None:
    if not listed(route, "match"):
        required(found, f"{path}.match", "a TLS route needs a match with sniHosts")
    for index, match in enumerate(listed(route, "match")):
        at = f"{path}.match[{index}]"
        _check_l4_match(found, at, match)
        if not listed(match, "sniHosts"):
            required(found, f"{at}.sniHosts")
        for number, name in enumerate(listed(match, "sniHosts")):
            _check_sni(found, f"{at}.sniHosts[{number}]", name, hosts, in_mesh)
    if not listed(route, "route"):
        required(found, f"{path}.route", "at least one destination")
    _check_destinations(found, f"{path}.route", listed(route, "route"), http=False)


def _check_sni(found: Findings, path: Path, name: str, hosts: list[str], in_mesh: bool) -> None:
    if _DATAPLANE_SNI.fullmatch(name):
        if in_mesh:
            invalid(found, path, name, "generated names of the mesh are taken on gateways only")
        return
    if is_ip(name):
        warn(found, path, f"{name} is an IP address, which TLS clients do not send as SNI")
    elif not check_host(found, path, name):
        return
    lower = name.lower()
    if not any(covers(host.lower(), lower) or host.lower() == lower for host in hosts):
        invalid(found, path, name, f"is not covered by the rule's hosts ({', '.join(hosts)[:200]})")


_PARTS: dict[str, Callable[[Findings, Path, Any], None]] = {
    "rewrite": _check_rewrite,
    "directResponse": _check_direct_response,
    "retries": _check_retries,
    "fault": _check_fault,
    "corsPolicy": _check_cors,
    "headers": _check_headers,
}
