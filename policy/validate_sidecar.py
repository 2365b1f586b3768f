"""What Istio refuses of a Sidecar."""

from __future__ import annotations

from typing import Any

from ..registry.kinds import ENTRY_PROTOCOLS
from ..registry.schema import Findings
from .sidecars import read_endpoint
from .validate_values import (
    check_host,
    check_port,
    invalid,
    is_dns_label,
    listed,
    mapping,
    not_supported,
    warn,
)

Object = dict[str, Any]


def check_sidecar(found: Findings, spec: Object, namespace: str, root: str = "istio-system") -> None:
    selector = mapping(mapping(spec, "workloadSelector"), "labels")
    if spec.get("workloadSelector") is not None and not selector:
        warn(found, "spec.workloadSelector", "is empty: the Sidecar is for all workloads of its namespace")
    if selector and namespace == root:
        invalid(found, "spec.workloadSelector", str(selector), "may not be set in the root namespace")
    _check_ingress(found, spec)
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


def _check_ingress(found: Findings, spec: Object) -> None:
    seen: set[int] = set()
    for index, listener in enumerate(listed(spec, "ingress")):
        path = f"spec.ingress[{index}]"
        port = mapping(listener, "port")
        number, protocol = int(port.get("number") or 0), str(port.get("protocol") or "")
        check_port(found, f"{path}.port.number", number)
        if number in seen:
            invalid(found, f"{path}.port", str(number), "stands in another ingress listener already")
        seen.add(number)
        if protocol and protocol.upper() not in ENTRY_PROTOCOLS:
            not_supported(found, f"{path}.port.protocol", protocol, ENTRY_PROTOCOLS)
        endpoint = str(listener.get("defaultEndpoint") or "")
        if endpoint and read_endpoint(endpoint) is None:
            told = "must be 127.0.0.1:PORT, [::1]:PORT, 0.0.0.0:PORT, [::]:PORT or unix:///PATH"
            invalid(found, f"{path}.defaultEndpoint", endpoint, told)


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
