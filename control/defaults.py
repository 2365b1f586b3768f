"""Defaults that the Kubernetes API server writes into objects of the built-in kinds, as far as they matter here.

They are written at the door, so that what `get` shows is what is in force, and so that an item of a list of ports has
the `protocol` by which it is told from others. NetworkPolicy: `policyTypes` is fixed when the policy is written; the
`protocol` of its ports is not filled in, as kubectl would take that for a difference each time.
"""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any


def apply_defaults(resource: str, body: dict[str, Any]) -> dict[str, Any]:
    """The object with the defaults of its kind; a body that is not well-formed is left for the schema to refuse."""
    if resource == "secrets":
        return _secret(body)
    fill = DEFAULTS.get(resource)
    spec = body.get("spec")
    if fill is None or not isinstance(spec, dict):
        return body
    return {**body, "spec": fill(dict(spec))}


def fill_items(resource: str, config: dict[str, Any]) -> dict[str, Any]:
    """The same within what is there already: so that what somebody applies compares equal to what is stored, and they
    do not come to own what they have not written."""
    filled, spec = apply_defaults(resource, config), config.get("spec")
    if filled is config or not isinstance(spec, dict):
        return config
    return {**config, "spec": {key: filled["spec"][key] for key in spec}}


def _secret(body: dict[str, Any]) -> dict[str, Any]:
    """`stringData` is for writing only: it becomes part of `data`."""
    body = {"type": "Opaque", **body}
    plain, data = body.get("stringData"), body.get("data") or {}
    if not isinstance(plain, dict) or not isinstance(data, dict):
        return body
    encoded = {key: base64.b64encode(text.encode()).decode() for key, text in plain.items() if isinstance(text, str)}
    return {**{key: value for key, value in body.items() if key != "stringData"}, "data": {**data, **encoded}}


def _service(spec: dict[str, Any]) -> dict[str, Any]:
    spec.setdefault("type", "ClusterIP")
    spec.setdefault("sessionAffinity", "None")
    ports = spec.get("ports")
    if isinstance(ports, list):
        spec["ports"] = [
            {**port, "protocol": port.get("protocol", "TCP"), "targetPort": port.get("targetPort", port["port"])}
            if isinstance(port, dict) and "port" in port
            else port
            for port in ports
        ]
    return spec


def _pod(spec: dict[str, Any]) -> dict[str, Any]:
    for field in ("containers", "initContainers"):
        containers = spec.get(field)
        if isinstance(containers, list):
            spec[field] = [
                {**one, "ports": _protocols(one["ports"])}
                if isinstance(one, dict) and isinstance(one.get("ports"), list)
                else one
                for one in containers
            ]
    return spec


def _network_policy(spec: dict[str, Any]) -> dict[str, Any]:
    spec.setdefault("policyTypes", ["Ingress", *(["Egress"] if spec.get("egress") else [])])
    return spec


def _protocols(ports: list[Any]) -> list[Any]:
    return [{**port, "protocol": port.get("protocol", "TCP")} if isinstance(port, dict) else port for port in ports]


DEFAULTS: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "services": _service,
    "pods": _pod,
    "networkpolicies.networking.k8s.io": _network_policy,
}
