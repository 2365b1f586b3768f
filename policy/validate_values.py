"""Values that rules are made of: hosts, labels, ports, expressions. Each check adds what is wrong to the findings.

Rules: Istio's and Kubernetes' own validation; messages in the form of the Kubernetes API server.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ..registry.schema import Findings
from .linear_regex import RegexError
from .linear_regex import check as check_pattern
from .validate_names import label_value_faults, qualified_name_faults

_LABEL = re.compile(r"[a-zA-Z0-9](?:[-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?")
_PLAIN_HOST = re.compile(
    r"(?:[a-zA-Z0-9](?:[-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?\.)*[a-zA-Z](?:[-a-zA-Z0-9]{0,61}[a-zA-Z0-9])?"
)
"""What most hosts are: no address, no wildcard, and a last label that begins with a letter."""
_DNS_1123 = re.compile(r"[a-z0-9](?:[-a-z0-9]{0,61}[a-z0-9])?")
_PORT_NAME = re.compile(r"[a-z0-9]+(?:-[a-z0-9]+)*")
_QUALIFIED = re.compile(r"[A-Za-z0-9](?:[-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
_HEADER = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")

SUBSET_RULE = "a subset name is one label of letters, digits and '-'"


def required(found: Findings, path: str, detail: str = "") -> None:
    found.errors.append((path, f"Required value: {detail}" if detail else "Required value"))


def invalid(found: Findings, path: str, value: Any, detail: str) -> None:
    shown = f'"{value[:120]}"' if isinstance(value, str) else str(value)
    found.errors.append((path, f"Invalid value: {shown}: {detail}"))


def forbidden(found: Findings, path: str, detail: str) -> None:
    found.errors.append((path, f"Forbidden: {detail}"))


def not_supported(found: Findings, path: str, value: str, supported: Iterable[str]) -> None:
    listed = ", ".join(f'"{one}"' for one in supported)
    found.errors.append((path, f'Unsupported value: "{value[:120]}": supported values: {listed}'))


def warn(found: Findings, path: str, message: str) -> None:
    found.warnings.append((path, message))


def mapping(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The object at `key`, or an empty one."""
    found = value.get(key)
    return found if isinstance(found, dict) else {}


def listed(value: Mapping[str, Any], key: str) -> list[Any]:
    """The list at `key`, or an empty one."""
    found = value.get(key)
    return found if isinstance(found, list) else []


# --- names ----------------------------------------------------------------------------------------------------------


def is_label(text: str) -> bool:
    return _LABEL.fullmatch(text) is not None


def is_dns_label(text: str) -> bool:
    return _DNS_1123.fullmatch(text) is not None


def is_subdomain(text: str) -> bool:
    """Kubernetes' DNS-1123 subdomain: the name of most objects."""
    return len(text) <= 253 and all(is_dns_label(part) for part in text.split("."))


def is_ip(text: str) -> bool:
    if ":" not in text and not text[-1:].isdigit():
        return False  # at once, as for most hosts
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return "%" not in text


def host_fault(host: str, *, wildcard: bool = True, partial: bool = True, ip: bool = True) -> str:
    """Why `host` is not one; empty where it is. `partial`: `*-x.a.b` too, not only `*.a.b`."""
    if len(host) <= 255 and _PLAIN_HOST.fullmatch(host):
        return ""
    if not host:
        return "a host may not be empty"
    if is_ip(host):
        return "" if ip else "an IP address is not taken here"
    if len(host) > 255:
        return "a host has at most 255 characters"
    body = host
    if host.startswith("*"):
        if not wildcard:
            return "a wildcard is not taken here"
        if host == "*":
            return ""
        body = host[1:]
        if body.startswith("."):
            body = body[1:]
        elif not partial:
            return "a wildcard must be a whole label, as in *.example.com"
        else:
            body = "x" + body
    if "*" in body:
        return "a wildcard may only be the first character"
    if body.endswith("."):
        body = body[:-1]
    labels = body.split(".")
    for label in labels:
        if not is_label(label):
            return f"the label {label[:70]!r} is not of letters, digits and '-', at most 63, with '-' inside only"
    if len(labels) > 1 and labels[-1].isdigit():
        return "the last label may not be all digits"
    return ""


def check_host(found: Findings, path: str, host: str, **allowed: bool) -> bool:
    fault = host_fault(host, **allowed)
    if fault:
        invalid(found, path, host, fault)
    return not fault


def check_export_to(found: Findings, path: str, entries: Sequence[str], namespace: str, nobody: bool = False) -> None:
    """`exportTo`: `.`, `*` or namespaces; `~` (nobody) where the kind allows it, and then alone."""
    seen: set[str] = set()
    for index, entry in enumerate(entries):
        at = f"{path}[{index}]"
        if entry == "~" and nobody:
            if len(entries) > 1:
                invalid(found, at, entry, "'~' must stand alone")
        elif entry not in (".", "*") and not is_dns_label(entry):
            invalid(found, at, entry, "must be '.', '*' or the name of a namespace")
        resolved = namespace if entry == "." and namespace else entry
        if resolved in seen:
            found.errors.append((at, f'Duplicate value: "{entry}"'))
        seen.add(resolved)
    if "*" in entries and len(entries) > 1:
        invalid(found, path, ", ".join(entries), "'*' must stand alone, it already means every namespace")


def check_gateways(found: Findings, path: str, references: Sequence[str]) -> None:
    for index, reference in enumerate(references):
        at = f"{path}[{index}]"
        parts = reference.split("/")
        if reference == "mesh":
            continue
        if len(parts) > 2 or not all(parts) or "*" in reference or (len(parts) == 2 and not is_dns_label(parts[0])):
            invalid(found, at, reference, "must be 'mesh', NAME or NAMESPACE/NAME of a Gateway")
        elif "." in parts[-1]:
            warn(found, at, f'"{reference}" is the old dotted form of a Gateway reference; write NAMESPACE/NAME')
        elif not is_dns_label(parts[-1]):
            invalid(found, at, reference, "is not the name of a Gateway")


# --- labels ---------------------------------------------------------------------------------------------------------


def check_labels(found: Findings, path: str, labels: Mapping[str, str]) -> None:
    for key, value in labels.items():
        for fault in qualified_name_faults(key):
            invalid(found, path, key, fault)
        for fault in label_value_faults(value):
            invalid(found, path, value, fault)


def check_workload_selector(found: Findings, path: str, labels: Mapping[str, str]) -> None:
    """Istio's selectors: labels without wildcards."""
    for key, value in labels.items():
        if not key:
            invalid(found, path, key, "a label's key may not be empty")
        elif "*" in key or "*" in value:
            invalid(found, path, f"{key}={value}", "wildcards are not taken in a selector")
        else:
            check_labels(found, path, {key: value})


def check_label_selector(found: Findings, path: str, selector: Mapping[str, Any]) -> None:
    """A Kubernetes LabelSelector, whose messages these are."""
    check_labels(found, f"{path}.matchLabels", mapping(selector, "matchLabels"))
    for index, expression in enumerate(listed(selector, "matchExpressions")):
        at = f"{path}.matchExpressions[{index}]"
        operator, values = expression.get("operator", ""), listed(expression, "values")
        if operator in ("In", "NotIn"):
            if not values:
                required(found, f"{at}.values", "must be specified when `operator` is 'In' or 'NotIn'")
        elif operator in ("Exists", "DoesNotExist"):
            if values:
                forbidden(found, f"{at}.values", "may not be specified when `operator` is 'Exists' or 'DoesNotExist'")
        else:
            invalid(found, f"{at}.operator", operator, "not a valid selector operator")
        for fault in qualified_name_faults(expression.get("key", "")):
            invalid(found, f"{at}.key", expression.get("key", ""), fault)
        for number, value in enumerate(values):
            for fault in label_value_faults(value):
                invalid(found, f"{at}.values[{number}]", value, fault)


# --- numbers --------------------------------------------------------------------------------------------------------


def check_port(found: Findings, path: str, port: int, low: int = 1) -> bool:
    if low <= port <= 65535:
        return True
    invalid(found, path, port, f"must be between {low} and 65535, inclusive")
    return False


def check_percent(found: Findings, path: str, value: float | None) -> None:
    """Istio's Percent: 0, or 0.0001 to 100."""
    if value is None or value == 0:
        return
    if not 0.0001 <= value <= 100:
        invalid(found, path, value, "a percentage is 0, or from 0.0001 to 100")


# --- expressions and headers ----------------------------------------------------------------------------------------


def check_regex(found: Findings, path: str, pattern: str) -> None:
    try:
        check_pattern(pattern)
    except RegexError as error:
        invalid(found, path, pattern, f"{error} (RE2 syntax, without look-around and back references)")


def check_string_match(found: Findings, path: str, match: Mapping[str, Any], *, empty_prefix: bool = False) -> None:
    """exact, prefix or regex; `{}` is the caller's to judge."""
    given = [key for key in ("exact", "prefix", "regex") if match.get(key) is not None]
    if len(given) > 1:
        found.errors.append((path, f"only one of exact, prefix, regex may be given, got {' and '.join(given)}"))
    if match.get("prefix") == "" and not empty_prefix:
        invalid(found, f"{path}.prefix", "", "may not be empty")
    if match.get("regex") is not None:
        if match["regex"] == "":
            invalid(found, f"{path}.regex", "", "may not be empty")
        else:
            check_regex(found, f"{path}.regex", match["regex"])


def check_header_name(found: Findings, path: str, name: str) -> None:
    if not name:
        invalid(found, path, name, "a header's name may not be empty")
    elif not _HEADER.fullmatch(name.removeprefix(":")):
        invalid(found, path, name, "is not the name of a header")


def cidr_fault(text: str, *, host_bits: bool = True) -> str:
    """Why `text` is not an address block (or, with Istio, a lone address); empty where it is."""
    try:
        ipaddress.ip_network(text, strict=not host_bits)
    except ValueError as error:
        return f"is not an IP address or CIDR block ({error})"
    return ""
