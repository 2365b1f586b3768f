"""What must hold of a LocalRateLimit beyond its schema, and what it refers to that is not there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from ..registry.schema import Findings
from ..registry.snapshot import Snapshot
from .host_names import complete
from .rate_limits import selects
from .resources import LocalRateLimit, VirtualService
from .validate_values import (
    check_header_name,
    check_host,
    check_percent,
    check_string_match,
    check_workload_selector,
    invalid,
    mapping,
    required,
    warn,
)

if TYPE_CHECKING:
    from .parse import Parsed

FILL_INTERVAL_LEAST_S = 0.05
"""Envoy's."""
_NAME = re.compile(r"[A-Za-z0-9](?:[-._A-Za-z0-9]{0,61}[A-Za-z0-9])?")
_METHOD = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
_FRAMING = frozenset(
    ("connection", "content-length", "transfer-encoding", "keep-alive", "upgrade", "te", "trailer", "date")
)

Object = Mapping[str, Any]


def check_local_rate_limit(found: Findings, spec: Object) -> None:
    check_workload_selector(found, "spec.selector.matchLabels", mapping(mapping(spec, "selector"), "matchLabels"))
    context = spec.get("context") or "SIDECAR_INBOUND"
    limits, connections = spec.get("limits") or [], spec.get("connections") or []
    if not limits and not connections:
        required(found, "spec.limits", "limits (of requests), connections, or both")
    for key, entries in (("limits", limits), ("connections", connections)):
        names: set[str] = set()
        for index, entry in enumerate(entries):
            path = f"spec.{key}[{index}]"
            name = entry.get("name") or ""
            if not _NAME.fullmatch(name):
                invalid(found, f"{path}.name", name, "must be letters, digits, '-', '_' and '.', at most 63")
            elif name in names:
                found.errors.append((f"{path}.name", f'Duplicate value: "{name}"'))
            names.add(name)
            _check_bucket(found, f"{path}.tokenBucket", mapping(entry, "tokenBucket"))
            _check_reached(found, path, entry, entries[:index], entries[index + 1 :])
            if key == "limits":
                _check_match(found, f"{path}.match", mapping(entry, "match"), context)
                _check_answer(found, path, entry)


def _check_bucket(found: Findings, path: str, bucket: Object) -> None:
    interval = bucket.get("fillInterval")
    if interval is not None and interval < FILL_INTERVAL_LEAST_S:
        often = FILL_INTERVAL_LEAST_S / interval * (bucket.get("tokensPerFill") or 1)
        remedy = f"the same rate is tokensPerFill: {often:g}, fillInterval: 50ms" if often == int(often) else ""
        why = "must be 50ms or more, as in Envoy" + (f"; {remedy}" if remedy else "")
        invalid(found, f"{path}.fillInterval", f"{interval * 1000:g}ms", why)


def _check_reached(found: Findings, path: str, entry: Object, before: list[Object], after: list[Object]) -> None:
    """A limit beside a narrower one for the same requests never refuses anything."""
    for other in (*before, *after):
        alike = all((entry.get(key) or None) == (other.get(key) or None) for key in ("match", "port"))
        same = (entry.get("per") or "PROXY") == (other.get("per") or "PROXY")
        partly = other.get("enforce") is False or (other.get("percentage") or {}).get("value", 100) < 100
        if alike and same and not partly and _narrower(mapping(other, "tokenBucket"), mapping(entry, "tokenBucket")):
            warn(found, path, f"is never reached: {other.get('name')} counts the same and lets less through")
            return


def _narrower(one: Object, other: Object) -> bool:
    """Whether the first lets less through at every time."""
    try:
        least, most = one["maxTokens"], other["maxTokens"]
        slow = (one.get("tokensPerFill") or 1) / one["fillInterval"]
        fast = (other.get("tokensPerFill") or 1) / other["fillInterval"]
    except (KeyError, TypeError, ZeroDivisionError):
        return False
    return least <= most and slow <= fast and (least, slow) != (most, fast)


def _check_match(found: Findings, path: str, match: Object, context: str) -> None:
    for index, host in enumerate(match.get("hosts") or ()):
        if host != "*":
            check_host(found, f"{path}.hosts[{index}]", host)
    route = match.get("route")
    if route is not None:
        rule = route.get("virtualService") or ""
        if rule.count("/") > 1 or not all(rule.split("/")):
            invalid(found, f"{path}.route.virtualService", rule, "must be name, or namespace/name")
        if context == "SIDECAR_INBOUND":
            why = "matches nothing: routes are chosen where requests are sent; use context SIDECAR_OUTBOUND or GATEWAY"
            found.errors.append((f"{path}.route", why))
    for index, method in enumerate(match.get("methods") or ()):
        at = f"{path}.methods[{index}]"
        if not _METHOD.fullmatch(method):
            invalid(found, at, method, "is not an HTTP method")
        elif method == "CONNECT":
            warn(found, at, "matches nothing: CONNECT counts as a connection (spec.connections)")
        elif method != method.upper():
            warn(found, at, f"methods have a case (RFC 9110 section 9.1): {method.upper()} is another one")
    if match.get("uri") is not None:
        if not match["uri"]:
            required(found, f"{path}.uri", "exact, prefix or regex")
        check_string_match(found, f"{path}.uri", match["uri"])
    for name, value in (match.get("headers") or {}).items():
        check_header_name(found, f"{path}.headers", name)
        check_string_match(found, f"{path}.headers[{name}]", value)


def _check_answer(found: Findings, path: str, entry: Object) -> None:
    percentage = entry.get("percentage")
    if percentage is not None:
        check_percent(found, f"{path}.percentage.value", percentage.get("value"))
        if entry.get("enforce") is False:
            warn(found, f"{path}.percentage", "has no effect: enforce is false")
        elif percentage.get("value") is None:
            required(found, f"{path}.percentage.value", "from 0 to 100")
        elif percentage["value"] == 0:
            warn(found, f"{path}.percentage.value", "0 refuses nothing, as enforce: false does")
    for name, value in (mapping(entry, "response").get("headers") or {}).items():
        at = f"{path}.response.headers[{name}]"
        check_header_name(found, at, name)
        if name.startswith(":") or name.lower() in _FRAMING:
            invalid(found, at, name, "is the proxy's own to write")
        if any((ord(letter) < 32 and letter != "\t") or ord(letter) == 127 for letter in value):
            invalid(found, at, value, "may have no control characters")


def check_references_of(
    one: Parsed, rule: LocalRateLimit, rules: Mapping[str, VirtualService], snapshot: Snapshot, root: str, domain: str
) -> None:
    """Routes, ports and services that are not there. `rules`: VirtualServices by namespace/name."""
    chosen = [workload for workload in snapshot.workloads.values() if selects(rule, workload, root)]
    inbound = rule.spec.context == "SIDECAR_INBOUND"
    ports = {port.number for workload in chosen for port in workload.ports}
    asked = [(f"spec.limits[{index}].match", limit.match.port) for index, limit in enumerate(rule.spec.limits)]
    asked += [(f"spec.connections[{index}]", limit.port) for index, limit in enumerate(rule.spec.connections)]
    for path, port in asked:
        if inbound and port and ports and port not in ports:
            have = ", ".join(map(str, sorted(ports)))
            message = f"no workload that it selects declares port {port}; they have {have}"
            one.warnings.append((f"{path}.port", message))
    for index, limit in enumerate(rule.spec.limits):
        path = f"spec.limits[{index}].match"
        for number, host in enumerate(limit.match.hosts):
            full = complete(host, one.namespace, domain)
            if full.endswith(f".svc.{domain}") and "*" not in full and full not in snapshot.services:
                one.warnings.append((f"{path}.hosts[{number}]", f"no service {full} is known; it matches nothing"))
        if limit.match.route is not None:
            _check_route(one, f"{path}.route", limit.match.route.virtual_service, limit.match.route.name, rules)


def _check_route(one: Parsed, path: str, name: str, route: str, rules: Mapping[str, VirtualService]) -> None:
    key = name if "/" in name else f"{one.namespace}/{name}"
    rule = rules.get(key)
    if rule is None:
        one.references.append((f"{path}.virtualService", f"no VirtualService {key} is known; the limit counts nothing"))
        return
    labels = [own.name or str(index) for index, own in enumerate(rule.spec.http)]
    # With a delegate the routes are another rule's, under names that are joined.
    if route and route not in labels and not any(own.delegate is not None for own in rule.spec.http):
        have = ", ".join(labels[:20]) or "none"
        message = (
            f'VirtualService {key} has no http route "{route}"; it has {have} (a route without name goes by its number)'
        )
        one.references.append((f"{path}.name", message))
