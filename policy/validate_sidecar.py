"""What Istio refuses of a Sidecar."""

from __future__ import annotations

from typing import Any

from ..registry.schema import Findings
from .validate_values import check_host, invalid, is_dns_label, listed, mapping, warn

Object = dict[str, Any]


def check_sidecar(found: Findings, spec: Object, namespace: str, root: str = "istio-system") -> None:
    selector = mapping(mapping(spec, "workloadSelector"), "labels")
    if spec.get("workloadSelector") is not None and not selector:
        warn(found, "spec.workloadSelector", "is empty: the Sidecar is for all workloads of its namespace")
    if selector and namespace == root:
        invalid(found, "spec.workloadSelector", str(selector), "may not be set in the root namespace")
    seen: set[int] = set()
    for index, listener in enumerate(listed(spec, "egress")):
        path = f"spec.egress[{index}]"
        number = int(mapping(listener, "port").get("number") or 0)
        if number in seen:
            invalid(found, f"{path}.port", str(number or "none"), "stands in another egress listener already")
        seen.add(number)
        if not number and index + 1 < len(listed(spec, "egress")):
            invalid(found, path, "no port", "a listener without a port is the catch-all, and must be the last")
        for place, text in enumerate(listed(listener, "hosts")):
            _check_host(found, f"{path}.hosts[{place}]", str(text))


def _check_host(found: Findings, path: str, text: str) -> None:
    where, slash, name = text.partition("/")
    if not slash:
        invalid(found, path, text, "must be NAMESPACE/HOST, e.g. ./* or */*.example.com")
    elif where not in ("*", ".", "~") and not is_dns_label(where):
        invalid(found, path, text, "the part before '/' must be a namespace, '.', '*' or '~'")
    elif where == "~" and name != "*":
        invalid(found, path, text, "'~' (nothing) goes with '*' alone")
    elif name != "*":
        check_host(found, path, name, partial=False)
