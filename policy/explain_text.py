"""An explanation as text for people."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def render(explanation: Mapping[str, Any]) -> str:
    """Several lines without a final newline: the verdict, what becomes of the request, and the steps that led there."""
    lines = [_headline(explanation)]
    for destination in explanation["destinations"]:
        subset = f" subset {destination['subset']}" if destination["subset"] else ""
        share = f", weight {destination['weight']}" if len(explanation["destinations"]) > 1 else ""
        lines.append(f"  to        {destination['host']}:{destination['port']}{subset}{share}")
    rule = explanation["virtualService"]
    if rule:
        route = explanation["route"]
        lines.append(f"  rule      VirtualService {rule}" + (f", route {route}" if route is not None else ""))
    lines += _request_lines(explanation)
    lines += _settings_lines(explanation)
    for endpoint in explanation["endpoints"]:
        why = endpoint["why"] if endpoint["ready"] else f"NOT READY: {endpoint['why']}"
        lines.append(f"  endpoint  {endpoint['address']}:{endpoint['port']} {why}")
    policy = explanation["policy"]
    lines.append(f"  policy    {'allowed' if policy['allowed'] else 'DENIED'}: {policy['why']}")
    lines.append("how it was decided:")
    lines += [f"  {step['result']:<12} {step['object']}: {step['why']}" for step in explanation["trace"]]
    return "\n".join(lines)


def _headline(explanation: Mapping[str, Any]) -> str:
    parts = [explanation["verdict"]]
    if explanation["status"]:
        parts.append(str(explanation["status"]))
    if explanation["reason"]:
        parts.append(explanation["reason"])
    headline = " ".join(parts)
    if explanation["redirect"]:
        headline += f" to {explanation['redirect']['location']}"
    if explanation["directResponse"] and explanation["directResponse"]["body"]:
        headline += f" with body {explanation['directResponse']['body'][:200]!r}"
    return headline


def _request_lines(explanation: Mapping[str, Any]) -> list[str]:
    request, lines = explanation["request"], []
    if request["method"] and explanation["destinations"]:
        lines.append(f"  request   {request['method']} {request['path']} host {request['authority']}")
    for side in ("request", "response"):
        operations = explanation[side]["headers"]
        changes = [f"remove {name}" for name in operations["remove"]]
        changes += [f"set {name}: {value}" for name, value in operations["set"].items()]
        changes += [f"add {name}: {value}" for name, value in operations["add"].items()]
        if changes:
            lines.append(f"  {side:<9} headers: {'; '.join(changes)}")
    return lines


def _settings_lines(explanation: Mapping[str, Any]) -> list[str]:
    lines = []
    if explanation["timeout_s"] is not None:
        lines.append(f"  timeout   {explanation['timeout_s']:g} s")
    retries = explanation["retries"]
    if retries:
        each = f", {retries['perTryTimeout_s']:g} s each" if retries["perTryTimeout_s"] is not None else ""
        lines.append(f"  retries   {retries['attempts']}{each}, on {', '.join(retries['retryOn'])}")
    fault = explanation["fault"] or {}
    if fault.get("delay"):
        lines.append(f"  fault     delay of {fault['delay']['fixedDelay_s']:g} s for {fault['delay']['percentage']:g}%")
    if fault.get("abort"):
        lines.append(f"  fault     abort with {fault['abort']['status']} for {fault['abort']['percentage']:g}%")
    for mirror in explanation["mirrors"]:
        subset = f" subset {mirror['subset']}" if mirror["subset"] else ""
        lines.append(f"  mirror    {mirror['host']}:{mirror['port']}{subset} for {mirror['percentage']:g}%")
    return lines
