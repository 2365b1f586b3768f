"""What must hold of a PeerAuthentication or AuthorizationPolicy beyond its schema; source: Istio's webhook."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from ..registry.schema import Findings
from .validate_values import (
    check_header_name,
    check_port,
    check_workload_selector,
    cidr_fault,
    forbidden,
    invalid,
    is_subdomain,
    listed,
    mapping,
    not_supported,
    required,
    warn,
)

Object = Mapping[str, Any]
WHEN_KEYS = (
    "request.headers[NAME]", "source.ip", "remote.ip", "source.namespace", "source.serviceAccount", "source.principal",
    "source.trustDomain", "request.auth.principal", "request.auth.audiences", "request.auth.presenter",
    "request.auth.claims[A]", "destination.ip", "destination.port", "connection.sni",
)  # fmt: skip
HTTP_OPERATIONS = ("hosts", "notHosts", "methods", "notMethods", "paths", "notPaths")
SERVICE_ACCOUNTS_MAX = 16
_CLAIMS = re.compile(r"request\.auth\.claims(?:\[[^\[\]]+\])+")
_HEADER = re.compile(r"request\.headers\[([^\[\]]+)\]")
_TEMPLATE = re.compile(r"\{\*{1,2}\}")


def check_selector(found: Findings, spec: Object) -> dict[str, str]:
    selector = spec.get("selector")
    labels = mapping(selector, "matchLabels") if selector is not None else {}
    if selector is not None:
        check_workload_selector(found, "spec.selector.matchLabels", labels)
        if not labels:
            warn(found, "spec.selector", "is empty: the policy is for all workloads of its namespace")
    return labels


def check_peer_authentication(found: Findings, spec: Object) -> None:
    labels = check_selector(found, spec)
    ports = spec.get("portLevelMtls")
    if ports is None:
        return
    if not labels:
        invalid(found, "spec.portLevelMtls", ", ".join(ports), "needs a selector with labels")
    if not ports:
        required(found, "spec.portLevelMtls", "at least one port; leave the empty map out")
    for port in ports:
        at = f"spec.portLevelMtls[{port}]"
        if not port.isascii() or not port.isdigit() or len(port) > 5:
            invalid(found, at, port, "must be the number of a workload's port")
        else:
            check_port(found, at, int(port))


def check_authorization_policy(found: Findings, spec: Object) -> None:
    check_selector(found, spec)
    action = spec.get("action", "ALLOW")
    rules = listed(spec, "rules")
    if action == "CUSTOM":
        not_supported(found, "spec.action", "CUSTOM", ("ALLOW", "DENY", "AUDIT"))
    if action == "DENY" and not rules:
        required(found, "spec.rules", "a DENY policy without rules has no effect; to deny everything write spec: {}")
    for index, rule in enumerate(rules):
        path = f"spec.rules[{index}]"
        for key, inner in (("from", "source"), ("to", "operation")):
            if rule.get(key) is not None and not rule[key]:
                required(found, f"{path}.{key}", "at least one entry; leave the empty list out")
            for number, entry in enumerate(listed(rule, key)):
                at = f"{path}.{key}[{number}].{inner}"
                if not entry.get(inner):
                    required(found, at, "at least one condition")
                    continue
                (_check_source if inner == "source" else _check_operation)(found, at, entry[inner])
        for number, condition in enumerate(listed(rule, "when")):
            _check_condition(found, f"{path}.when[{number}]", condition)
        if action == "DENY":
            _warn_wide_deny(found, path, rule)


def _check_values(found: Findings, path: str, part: Object) -> None:
    for key, values in part.items():
        if values == []:
            required(found, f"{path}.{key}", "at least one value; leave the empty list out")
        for index, value in enumerate(values):
            if value == "":
                invalid(found, f"{path}.{key}[{index}]", "", "may not be empty")


def _check_source(found: Findings, path: str, source: Object) -> None:
    _check_values(found, path, source)
    for key in ("ipBlocks", "notIpBlocks", "remoteIpBlocks", "notRemoteIpBlocks"):
        _check_blocks(found, f"{path}.{key}", listed(source, key))
    for key in ("serviceAccounts", "notServiceAccounts"):
        accounts = listed(source, key)
        if not accounts:
            continue
        for other in ("principals", "notPrincipals", "namespaces", "notNamespaces"):
            if listed(source, other):
                forbidden(found, f"{path}.{key}", f"may not stand next to {other}")
        if len(accounts) > SERVICE_ACCOUNTS_MAX:
            invalid(found, f"{path}.{key}", len(accounts), f"at most {SERVICE_ACCOUNTS_MAX} values")
        for index, account in enumerate(accounts):
            parts = account.split("/")
            if len(parts) > 2 or not all(is_subdomain(part) for part in parts):
                invalid(found, f"{path}.{key}[{index}]", account, "must be NAME or NAMESPACE/NAME, without wildcards")
    for key in ("principals", "notPrincipals"):
        for index, principal in enumerate(listed(source, key)):
            if principal.startswith("spiffe://"):
                warn(found, f"{path}.{key}[{index}]", "principals are written without spiffe://; this matches nothing")


def _check_blocks(found: Findings, path: str, blocks: list[Any]) -> None:
    for index, block in enumerate(blocks):
        if fault := cidr_fault(block):
            invalid(found, f"{path}[{index}]", block, fault)


def _check_operation(found: Findings, path: str, operation: Object) -> None:
    _check_values(found, path, operation)
    for key in ("ports", "notPorts"):
        for index, port in enumerate(listed(operation, key)):
            at = f"{path}.{key}[{index}]"
            if not port.isascii() or not port.isdigit() or len(port) > 5:
                invalid(found, at, port, "must be the number of a workload's port")
            else:
                check_port(found, at, int(port))
    for key in ("paths", "notPaths"):
        for index, text in enumerate(listed(operation, key)):
            _check_path(found, f"{path}.{key}[{index}]", text)


def _check_path(found: Findings, path: str, text: str) -> None:
    """Templates `{*}` and `{**}` are whole segments; `{**}` is the last."""
    if "{" not in text and "}" not in text:
        return
    segments = text.split("/")
    for index, segment in enumerate(segments):
        if ("{" in segment or "}" in segment) and not _TEMPLATE.fullmatch(segment):
            invalid(found, path, text, "a template is a whole segment, {*} or {**}")
            return
        if segment == "{**}" and any("{" in later for later in segments[index + 1 :]):
            invalid(found, path, text, "{**} must be the last template")
            return
    if "*" in _TEMPLATE.sub("", text):
        invalid(found, path, text, "a template may not be mixed with other wildcards")


def _check_condition(found: Findings, path: str, condition: Object) -> None:
    key, values, negated = condition.get("key", ""), listed(condition, "values"), listed(condition, "notValues")
    if not values and not negated:
        required(found, path, "values or notValues")
    for name, given in (("values", values), ("notValues", negated)):
        for index, value in enumerate(given):
            if value == "":
                invalid(found, f"{path}.{name}[{index}]", "", "may not be empty")
        if key in ("source.ip", "remote.ip", "destination.ip"):
            _check_blocks(found, f"{path}.{name}", given)
        if key == "destination.port":
            for index, value in enumerate(given):
                if not (value.isascii() and value.isdigit() and len(value) <= 5 and 1 <= int(value) <= 65535):
                    invalid(found, f"{path}.{name}[{index}]", value, "must be a port")
    header = _HEADER.fullmatch(key)
    if header:
        check_header_name(found, f"{path}.key", header[1])
    elif not _CLAIMS.fullmatch(key) and key not in WHEN_KEYS:
        not_supported(found, f"{path}.key", key, WHEN_KEYS)


def _warn_wide_deny(found: Findings, path: str, rule: Object) -> None:
    """On TCP ports a DENY goes on without its HTTP conditions, and so denies more than is written."""
    http = [
        f"to[{number}].operation.{key}"
        for number, entry in enumerate(listed(rule, "to"))
        for key in HTTP_OPERATIONS
        if mapping(entry, "operation").get(key)
    ]
    ported = all(mapping(entry, "operation").get("ports") for entry in listed(rule, "to"))
    if http and not ported:
        warn(found, path, f"{http[0]} is about HTTP: on TCP ports the rule denies without it; give ports, too")
