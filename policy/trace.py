"""The trace of a decision: each rule that was looked at, what came of it, why, and which field of which object."""

from __future__ import annotations

import re
from typing import Any

Trace = list[dict[str, Any]]
"""Steps with `step`, `object`, `result`, `why`; where an object of the user's says so also `resource` (`Kind ns/name`)
and `path` (of the field), from which `file` and `line`, or `revision`, are found."""

_RULE = re.compile(r"^([A-Z]\w+ [^\s/]+/\S+)(?: rule (\d+)| port (\d+))?$")


def note(
    trace: Trace, step: str, object_: str, result: str, why: str, resource: str = "", path: str = ""
) -> dict[str, Any]:
    """Add a step; the entry, so that a caller may add to it."""
    entry: dict[str, Any] = {"step": step, "object": object_, "result": result, "why": why}
    if resource:
        entry["resource"] = resource
        if path:
            entry["path"] = path
    trace.append(entry)
    return entry


def place(entry: dict[str, Any]) -> tuple[str, str]:
    """(resource, path of the field) of a step; where it does not tell them, as the name of its object has them."""
    if "resource" in entry:
        return entry["resource"], entry.get("path", "")
    found = _RULE.match(entry["object"])
    if found is None:
        return "", ""
    resource, rule, port = found.groups()
    return resource, entry.get("path") or _field(resource.partition(" ")[0], entry["step"], rule, port)


def _field(kind: str, step: str, rule: str | None, port: str | None) -> str:
    if kind == "AuthorizationPolicy" and rule:
        return f"spec.rules[{rule}]"
    if kind == "NetworkPolicy":
        side = "egress" if step.endswith("egress") else "ingress"
        return f"spec.{side}[{rule}]" if rule else f"spec.{side}"
    if kind == "PeerAuthentication":
        return f"spec.portLevelMtls[{port}]" if port else "spec.mtls"
    return ""
