"""Objects as rows for people: the `Table` that `kubectl get` and `fairlead get` print.

https://kubernetes.io/docs/reference/using-api/api-concepts/#receiving-resources-as-tables . Columns of the Istio kinds
are those of Istio's own definitions. Columns of priority 1 are shown with `-o wide` only.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

Body = Mapping[str, Any]


class Column(Struct, frozen=True):
    name: str
    cell: Callable[[Body, float], Any]
    """(object, now in Unix seconds) to text or a number."""
    priority: int = 0
    type: str = "string"
    format: str = ""
    description: str = ""


def at(body: Any, *path: str) -> Any:
    """The value at a path of field names; None where there is none, or something else than an object on the way."""
    for step in path:
        body = body.get(step) if isinstance(body, Mapping) else None
    return body


def items_at(body: Any, *path: str) -> list[Any]:
    found = at(body, *path)
    return found if isinstance(found, list) else []


def _text(*path: str, default: str = "") -> Callable[[Body, float], Any]:
    def cell(body: Body, _now: float) -> Any:
        value = at(body, *path)
        return default if value is None else value if isinstance(value, str) else json.dumps(value)

    return cell


def _name(body: Body, _now: float) -> str:
    return str(at(body, "metadata", "name"))


def _age(body: Body, now: float) -> str:
    return age(at(body, "metadata", "creationTimestamp"), now)


def age(timestamp: Any, now: float) -> str:
    """`45s`, `12m`, `3h20m`, `5d`: the time since an RFC 3339 timestamp, as kubectl shows durations."""
    try:
        seconds = int(now - datetime.fromisoformat(timestamp).timestamp())
    except (TypeError, ValueError, OverflowError):
        return "<unknown>"
    if seconds < 0:
        return "0s"
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        return f"{minutes}m{seconds % 60}s" if seconds % 60 else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return f"{hours}h{minutes % 60}m" if minutes % 60 else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    return f"{days}d" if days < 730 else f"{days // 365}y"


def selector_text(selector: Any, nothing: str = "<none>") -> str:
    """A label selector, or a plain map of labels, on one line."""
    if not isinstance(selector, Mapping):
        return nothing
    labels = selector
    if "matchLabels" in selector or "matchExpressions" in selector:
        labels = at(selector, "matchLabels") or {}
    parts = [f"{key}={value}" for key, value in labels.items()]
    for rule in items_at(selector, "matchExpressions"):
        operator, values = at(rule, "operator"), ",".join(map(str, items_at(rule, "values")))
        parts.append(
            {"Exists": f"{at(rule, 'key')}", "DoesNotExist": f"!{at(rule, 'key')}"}.get(
                str(operator), f"{at(rule, 'key')} {str(operator).lower()} ({values})"
            )
        )
    return ",".join(parts) or nothing


# --- cells of the built-in kinds ------------------------------------------------------------------------------------


def _cluster_ip(body: Body, _now: float) -> str:
    return str(at(body, "spec", "clusterIP") or "<none>") if _service_type(body, 0) != "ExternalName" else "<none>"


def _service_type(body: Body, _now: float) -> str:
    return str(at(body, "spec", "type") or "ClusterIP")


def _external_ip(body: Body, _now: float) -> str:
    if at(body, "spec", "externalName"):
        return str(at(body, "spec", "externalName"))
    return ",".join(map(str, items_at(body, "spec", "externalIPs"))) or "<none>"


def _service_ports(body: Body, _now: float) -> str:
    ports = items_at(body, "spec", "ports")
    return ",".join(f"{at(port, 'port')}/{at(port, 'protocol') or 'TCP'}" for port in ports) or "<none>"


def _service_selector(body: Body, _now: float) -> str:
    return selector_text(at(body, "spec", "selector"))


def _pod_is_ready(body: Body) -> bool:
    """Absent means ready, as everywhere for declared workloads."""
    conditions = items_at(body, "status", "conditions")
    return all(at(one, "status") == "True" for one in conditions if at(one, "type") == "Ready")


def _pod_ready(body: Body, _now: float) -> str:
    containers = max(1, len(items_at(body, "spec", "containers")))
    return f"{containers if _pod_is_ready(body) else 0}/{containers}"


def _pod_status(body: Body, _now: float) -> str:
    if at(body, "metadata", "deletionTimestamp"):
        return "Terminating"
    return str(at(body, "status", "phase") or ("Running" if _pod_is_ready(body) else "NotReady"))


def _pod_address(body: Body, _now: float) -> str:
    declared = at(body, "metadata", "annotations", "fairlead.dev/address")
    return str(at(body, "status", "podIP") or declared or "<none>")


def _policy_selector(body: Body, _now: float) -> str:
    return selector_text(at(body, "spec", "podSelector"))


def _policy_types(body: Body, _now: float) -> str:
    given = items_at(body, "spec", "policyTypes")
    default = ["Ingress", *(["Egress"] if at(body, "spec", "egress") else [])]
    return ",".join(map(str, given or default))


def _slice_ports(body: Body, _now: float) -> str:
    return ",".join(str(at(port, "port")) for port in items_at(body, "ports")) or "<unset>"


def _slice_endpoints(body: Body, _now: float) -> str:
    addresses = [str(a) for endpoint in items_at(body, "endpoints") for a in items_at(endpoint, "addresses")]
    more = f" + {len(addresses) - 3} more..." if len(addresses) > 3 else ""
    return ",".join(addresses[:3]) + more or "<unset>"


def _ingress_hosts(body: Body, _now: float) -> str:
    hosts = [str(at(rule, "host") or "*") for rule in items_at(body, "spec", "rules")]
    return ",".join(hosts[:3]) + (f" + {len(hosts) - 3} more..." if len(hosts) > 3 else "") or "*"


def _role_ref(body: Body, _now: float) -> str:
    return f"{at(body, 'roleRef', 'kind')}/{at(body, 'roleRef', 'name')}"


def _subjects(body: Body, _now: float) -> str:
    return ",".join(f"{at(one, 'kind')}/{at(one, 'name')}" for one in items_at(body, "subjects"))


def _data_count(body: Body, _now: float) -> int:
    return len(at(body, "data") or {}) if isinstance(at(body, "data"), Mapping) else 0


def _event_object(body: Body, _now: float) -> str:
    about = at(body, "involvedObject") or at(body, "regarding")
    return f"{str(at(about, 'kind') or '').lower()}/{at(about, 'name')}"


def _event_message(body: Body, _now: float) -> str:
    return str(at(body, "message") or at(body, "note") or "")


def _nobody(body: Body, _now: float) -> str:
    """Of a Deployment and the like: Fairlead starts nothing, and the table says so."""
    return "<nobody: see fairlead run>"


def _scale_target(body: Body, _now: float) -> str:
    return f"{at(body, 'spec', 'scaleTargetRef', 'kind')}/{at(body, 'spec', 'scaleTargetRef', 'name')}"


def _event_seen(body: Body, now: float) -> str:
    last = at(body, "series", "lastObservedTime") or at(body, "lastTimestamp") or at(body, "deprecatedLastTimestamp")
    return age(last or at(body, "eventTime") or at(body, "metadata", "creationTimestamp"), now)


def _state(body: Body, _now: float) -> str:
    """What most needs to be looked at: Refused, Conflicted, Waiting, RefNotFound; else Reconciled."""
    conditions = {str(at(one, "type")): one for one in items_at(body, "status", "conditions")}
    accepted, reconciled = conditions.get("Accepted"), conditions.get("Reconciled")
    if reconciled is None and accepted is None:
        return ""
    if at(reconciled, "observedGeneration") != at(body, "metadata", "generation"):
        return "Pending"
    if at(accepted, "status") == "False" or at(reconciled, "status") == "False":
        return str(at(accepted if at(accepted, "status") == "False" else reconciled, "reason"))
    if at(conditions.get("Conflicted"), "status") == "True":
        return "Conflicted"
    if at(reconciled, "status") != "True":
        return str(at(reconciled, "reason"))
    return "RefNotFound" if at(conditions.get("ResolvedRefs"), "status") == "False" else "Reconciled"


def _sidecars(body: Body, _now: float) -> str:
    """`11/12`: how many ran it when its status last changed."""
    counts = at(body, "status", "sidecars")
    return f"{at(counts, 'running')}/{at(counts, 'total')}" if isinstance(counts, Mapping) else ""


def _message(body: Body, now: float) -> str:
    """The message of the condition that `_state` shows."""
    state = _state(body, now)
    found = (at(one, "message") for one in items_at(body, "status", "conditions") if at(one, "reason") == state)
    return str(next(found, "")) if state not in ("Reconciled", "Pending", "") else ""


STATUS = (
    Column("State", _state, description="Whether it is in force, or what is in the way."),
    Column("Sidecars", _sidecars, description="How many of the connected sidecars ran it when its state changed."),
)
MESSAGE = Column("Message", _message, 1, description="What is in the way.")
NAME = Column("Name", _name, format="name", description="Name must be unique within a namespace.")
AGE = Column("Age", _age, description="Time since the object was created.")

COLUMNS: dict[str, tuple[Column, ...]] = {
    "services": (
        Column("Type", _service_type),
        Column("Cluster-IP", _cluster_ip),
        Column("External-IP", _external_ip),
        Column("Port(s)", _service_ports),
        AGE,
        Column("Selector", _service_selector, 1),
    ),
    "pods": (
        Column("Ready", _pod_ready),
        Column("Status", _pod_status),
        Column("IP", _pod_address),
        AGE,
        Column("Service-Account", _text("spec", "serviceAccountName", default="default"), 1),
        Column("Mesh-Port", _text("metadata", "annotations", "fairlead.dev/mesh-port", default="<none>"), 1),
        Column("Node", _text("spec", "nodeName", default="<none>"), 1),
    ),
    "namespaces": (Column("Status", _text("status", "phase", default="Active")), AGE),
    "secrets": (Column("Type", _text("type", default="Opaque")), Column("Data", _data_count, type="integer"), AGE),
    "events": (
        Column("Last Seen", _event_seen),
        Column("Type", _text("type")),
        Column("Reason", _text("reason")),
        Column("Object", _event_object),
        Column("Message", _event_message),
    ),
    "endpointslices.discovery.k8s.io": (
        Column("AddressType", _text("addressType")),
        Column("Ports", _slice_ports),
        Column("Endpoints", _slice_endpoints),
        AGE,
    ),
    "networkpolicies.networking.k8s.io": (
        Column("Pod-Selector", _policy_selector),
        *STATUS,
        AGE,
        Column("Policy-Types", _policy_types, 1),
        MESSAGE,
    ),
    "ingresses.networking.k8s.io": (
        Column("Class", _text("spec", "ingressClassName", default="<none>")),
        Column("Hosts", _ingress_hosts),
        *STATUS,
        AGE,
        MESSAGE,
    ),
    "rolebindings.rbac.authorization.k8s.io": (Column("Role", _role_ref), AGE, Column("Subjects", _subjects, 1)),
    "clusterrolebindings.rbac.authorization.k8s.io": (
        Column("Role", _role_ref),
        AGE,
        Column("Subjects", _subjects, 1),
    ),
    "virtualservices.networking.istio.io": (
        Column("Gateways", _text("spec", "gateways")),
        Column("Hosts", _text("spec", "hosts")),
        *STATUS,
        AGE,
        MESSAGE,
    ),
    "destinationrules.networking.istio.io": (Column("Host", _text("spec", "host")), *STATUS, AGE, MESSAGE),
    "serviceentries.networking.istio.io": (
        Column("Hosts", _text("spec", "hosts")),
        Column("Location", _text("spec", "location")),
        Column("Resolution", _text("spec", "resolution")),
        *STATUS,
        AGE,
        MESSAGE,
    ),
    "workloadentries.networking.istio.io": (AGE, Column("Address", _text("spec", "address"))),
    "workloadgroups.networking.istio.io": (Column("Account", _text("spec", "template", "serviceAccount")), AGE),
    "gateways.networking.istio.io": (*STATUS, AGE, Column("Selector", _service_selector, 1), MESSAGE),
    "sidecars.networking.istio.io": (*STATUS, AGE, MESSAGE),
    "peerauthentications.security.istio.io": (Column("Mode", _text("spec", "mtls", "mode")), *STATUS, AGE, MESSAGE),
    "authorizationpolicies.security.istio.io": (
        Column("Action", _text("spec", "action", default="ALLOW")),
        *STATUS,
        AGE,
        Column("Selector", lambda body, _now: selector_text(at(body, "spec", "selector"), "<all>"), 1),
        MESSAGE,
    ),
    "requestauthentications.security.istio.io": (
        *STATUS,
        AGE,
        Column("Selector", lambda body, _now: selector_text(at(body, "spec", "selector"), "<all>"), 1),
        MESSAGE,
    ),
    "localratelimits.fairlead.dev": (
        Column("Context", _text("spec", "context", default="SIDECAR_INBOUND")),
        *STATUS,
        AGE,
        Column("Selector", lambda body, _now: selector_text(at(body, "spec", "selector"), "<all>"), 1),
        MESSAGE,
    ),
    **{f"{name}.apps": (Column("Desired", _text("spec", "replicas", default="1")), Column("Started by", _nobody), AGE)
       for name in ("deployments", "statefulsets", "replicasets")},
    "replicationcontrollers": (
        Column("Desired", _text("spec", "replicas", default="1")),
        Column("Started by", _nobody),
        AGE,
    ),
    "daemonsets.apps": (Column("Started by", _nobody), AGE),
    "jobs.batch": (Column("Started by", _nobody), AGE),
    "cronjobs.batch": (Column("Schedule", _text("spec", "schedule")), Column("Started by", _nobody), AGE),
    "persistentvolumeclaims": (Column("Storageclass", _text("spec", "storageClassName")), AGE),
    "horizontalpodautoscalers.autoscaling": (
        Column("Reference", _scale_target),
        Column("MinPods", _text("spec", "minReplicas", default="1")),
        Column("MaxPods", _text("spec", "maxReplicas")),
        AGE,
    ),
    "meshconfigs.fairlead.dev": (
        Column("Trust-Domain", _text("spec", "trustDomain", default="cluster.local")),
        Column("Outbound", _text("spec", "outboundTrafficPolicy", "mode", default="ALLOW_ANY")),
        AGE,
    ),
}  # fmt: skip


def columns_of(resource: str) -> tuple[Column, ...]:
    return (NAME, *COLUMNS.get(resource, (AGE,)))


def definitions(resource: str) -> list[dict[str, Any]]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description or column.name,
            "priority": column.priority,
        }
        for column in columns_of(resource)
    ]


def table(
    resource: str,
    bodies: Iterable[dict[str, Any]],
    metadata: Mapping[str, Any],
    now: float,
    include: str = "Metadata",
    with_definitions: bool = True,
) -> dict[str, Any]:
    """A Table of objects. `include`: what of each object goes with its row: None, Metadata or Object."""
    columns = columns_of(resource)
    rows = []
    for body in bodies:
        row: dict[str, Any] = {"cells": [_safe(column, body, now) for column in columns]}
        if include == "Object":
            row["object"] = body
        elif include != "None":
            row["object"] = partial(body)
        rows.append(row)
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": dict(metadata),
        "columnDefinitions": definitions(resource) if with_definitions else [],
        "rows": rows,
    }


def _safe(column: Column, body: Body, now: float) -> Any:
    try:
        return column.cell(body, now)
    except (TypeError, AttributeError, KeyError, ValueError):
        return "<invalid>"  # what was stored before a stricter check must not hide the rest of the list


def partial(body: Mapping[str, Any]) -> dict[str, Any]:
    """PartialObjectMetadata of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": body.get("metadata", {})}
