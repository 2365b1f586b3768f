"""An explanation as text for people: the verdict first, then what becomes of the request, then each step to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..registry.styles import Style

_HEADINGS = {
    "source": "who asks", "sidecar": "who asks", "dns": "DNS", "listener": "the way into the proxy",
    "gateway": "gateway",
    "virtual-service": "routing", "host": "routing", "route": "routing", "connection": "routing",
    "rate-limit": "rate limits", "destination-rule": "destination", "destination": "destination", "policy": "policy",
    "network-policy-egress": "policy", "peer-authentication": "policy", "network-policy-ingress": "policy",
    "request-authentication": "policy", "authorization": "policy", "enforcement": "policy",
}  # fmt: skip
_NAMES = {
    "network-policy-egress": "egress of the source",
    "peer-authentication": "mutual TLS of the destination",
    "network-policy-ingress": "ingress of the destination",
    "request-authentication": "tokens of end users",
    "authorization": "authorization of the destination",
}
_GOOD = ("match", "allow", "chosen", "answer", "in force", "workload", "gateway", "route", "service", "merged")
_BAD = ("deny", "no-cluster", "not-found", "denied")
_PASSED_OVER = ("no match", "skipped", "not in force", "no answer")
_VERDICTS = {"route": "good", "redirect": "good", "direct-response": "good", "passthrough": "warn"}


def place_of(entry: Mapping[str, Any]) -> str:
    """`file.yaml:12`, or `revision 7`; empty where it is not known."""
    if "file" in entry:
        return f"{entry['file']}:{entry['line']}" if "line" in entry else str(entry["file"])
    return f"revision {entry['revision']}" if "revision" in entry else ""


def render(explanation: Mapping[str, Any], style: Style | None = None) -> str:
    """Several lines without a final newline."""
    style = style or Style()
    lines = _headline(explanation, style)
    for label, text, where, kind in _facts(explanation):
        lines += style.lines(f"{label:<10}", text, where, kind, 2)
    lines.append("how it was decided:")
    lines += steps(explanation["trace"], style)
    return "\n".join(lines)


def steps(trace: Sequence[Mapping[str, Any]], style: Style, indent: int = 2) -> list[str]:
    """The steps of a trace under headings: + held, - passed over (with the condition that failed), x refused."""
    lines: list[str] = []
    heading = ""
    for entry in trace:
        own = _HEADINGS.get(entry["step"], entry["step"])
        if own != heading:
            heading = own
            lines.append(" " * indent + style.paint(own, "strong"))
        result = entry["result"]
        mark, kind = "  ", ""
        if result in _GOOD:
            mark, kind = "+ ", "good"
        elif result in _BAD:
            mark, kind = "x ", "bad"
        elif result in _PASSED_OVER:
            mark, kind = "- ", "warn"
        about = f"{_NAMES[entry['step']]}: " if entry["step"] in _NAMES else ""
        word = f"{result}: " if result in (*_PASSED_OVER, "merged") and result != "no answer" else ""
        by = f" (delegate {entry['delegate']})" if "delegate" in entry else ""
        text = f"{about}{entry['object']}{by}: {word}{entry['why']}"
        lines += style.lines(mark, text, place_of(entry), kind, indent + 2)
    return lines


def _headline(explanation: Mapping[str, Any], style: Style) -> list[str]:
    parts = [explanation["verdict"]]
    if explanation["status"]:
        parts.append(str(explanation["status"]))
    if explanation["reason"]:
        parts.append(explanation["reason"])
    text = _because(explanation)
    if explanation["redirect"]:
        text = f" to {explanation['redirect']['location']}"
    elif explanation["directResponse"] and explanation["directResponse"]["body"]:
        text = f" with body {explanation['directResponse']['body'][:200]!r}"
    kind = _VERDICTS.get(explanation["verdict"], "bad")
    return style.lines(" ".join(parts), text, "", kind)


def _because(explanation: Mapping[str, Any]) -> str:
    """Why not, in one sentence, where the answer is no."""
    if explanation["verdict"] == "denied":
        return f": {explanation['policy']['why']}"
    if explanation["verdict"] in ("unavailable", "not-found"):
        wanted = ("no-cluster", "not-found", "endpoints")
        found = [one for one in explanation["trace"] if one["result"] in wanted]
        return f": {found[-1]['object']}: {found[-1]['why']}" if found else ""
    return ""


def _facts(explanation: Mapping[str, Any]) -> list[tuple[str, str, str, str]]:
    """(label, text, where it stands, colour) of each line below the headline."""
    found: list[tuple[str, str, str, str]] = []
    for destination in explanation["destinations"]:
        subset = f" subset {destination['subset']}" if destination["subset"] else ""
        share = f", weight {destination['weight']}" if len(explanation["destinations"]) > 1 else ""
        found.append(("to", f"{destination['host']}:{destination['port']}{subset}{share}", "", ""))
    rule = explanation["virtualService"]
    if rule:
        route = explanation["route"]
        took = (one for one in explanation["trace"] if one["step"] == "route" and one["result"] == "match")
        matched: Mapping[str, Any] = next(took, {})
        text = f"VirtualService {rule}" + (f", route {route}" if route is not None else "")
        found.append(("rule", text, place_of(matched), ""))
    found += [("request" if side == "request" else "response", text, "", "") for side, text in _changes(explanation)]
    found += [(label, text, "", "") for label, text in _settings(explanation)]
    for endpoint in explanation["endpoints"]:
        found.append(_endpoint(endpoint))
    policy = explanation["policy"]
    kind = "" if policy["allowed"] else "bad"
    found.append(("policy", f"{'allowed' if policy['allowed'] else 'DENIED'}: {policy['why']}", "", kind))
    return found


def _endpoint(endpoint: Mapping[str, Any]) -> tuple[str, str, str, str]:
    why = endpoint["why"] if endpoint["ready"] else f"NOT READY: {endpoint['why']}"
    told = [endpoint["workload"]] if endpoint.get("workload") else []
    if endpoint.get("locality"):
        told.append(endpoint["locality"])
    if endpoint.get("weight", 1) != 1:
        told.append(f"weight {endpoint['weight']}")
    if endpoint.get("priority"):
        told.append(f"priority {endpoint['priority']}")
    if endpoint.get("tls"):
        told.append("mutual TLS" if endpoint["tls"] == "mesh" else f"TLS ({endpoint['tls']})")
    about = f" ({', '.join(told)})" if told else ""
    kind = "" if endpoint["ready"] and not why.startswith("ready, but") else "warn"
    return "endpoint", f"{endpoint['address']}:{endpoint['port']}{about} {why}", place_of(endpoint), kind


def _changes(explanation: Mapping[str, Any]) -> list[tuple[str, str]]:
    request, lines = explanation["request"], []
    if request["method"] and explanation["destinations"]:
        lines.append(("request", f"{request['method']} {request['path']} host {request['authority']}"))
    for side in ("request", "response"):
        operations = explanation[side]["headers"]
        changes = [f"remove {name}" for name in operations["remove"]]
        changes += [f"set {name}: {value}" for name, value in operations["set"].items()]
        changes += [f"add {name}: {value}" for name, value in operations["add"].items()]
        if changes:
            lines.append((side, f"headers: {'; '.join(changes)}"))
    return lines


def _settings(explanation: Mapping[str, Any]) -> list[tuple[str, str]]:
    lines = []
    if explanation["timeout_s"] is not None:
        lines.append(("timeout", f"{explanation['timeout_s']:g} s"))
    retries = explanation["retries"]
    if retries and explanation["verdict"] == "route":
        each = f", {retries['perTryTimeout_s']:g} s each" if retries["perTryTimeout_s"] is not None else ""
        lines.append(("retries", f"{retries['attempts']}{each}, on {', '.join(retries['retryOn'])}"))
    fault = explanation["fault"] or {}
    if fault.get("delay"):
        lines.append(("fault", f"delay of {fault['delay']['fixedDelay_s']:g} s for {fault['delay']['percentage']:g}%"))
    if fault.get("abort"):
        lines.append(("fault", f"abort with {fault['abort']['status']} for {fault['abort']['percentage']:g}%"))
    for mirror in explanation["mirrors"]:
        subset = f" subset {mirror['subset']}" if mirror["subset"] else ""
        lines.append(("mirror", f"{mirror['host']}:{mirror['port']}{subset} for {mirror['percentage']:g}%"))
    return lines
