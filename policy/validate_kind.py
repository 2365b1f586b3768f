"""The checks of an object's metadata, and of its meaning by kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from ..registry.kinds import Kind
from ..registry.schema import STRINGS, Findings, check
from .network_policy import DRY_RUN
from .validate_destination_rule import check_destination_rule
from .validate_entries import (
    check_endpoint_slice,
    check_gateway,
    check_mesh_config,
    check_pod,
    check_service,
    check_service_entry,
    check_workload,
    check_workload_group,
)
from .validate_ingress import check_ingress
from .validate_names import label_faults, label_value_faults, qualified_name_faults, subdomain_faults
from .validate_network_policy import check_network_policy
from .validate_rate_limit import check_local_rate_limit
from .validate_rbac import check_binding, check_role
from .validate_security import check_authorization_policy, check_peer_authentication
from .validate_sidecar import check_sidecar
from .validate_tokens import check_request_authentication
from .validate_values import (
    invalid,
    is_dns_label,
    mapping,
    required,
    warn,
)
from .validate_virtual_service import check_virtual_service

METADATA_TEXTS = frozenset(("name", "generateName", "namespace", "uid", "resourceVersion", "creationTimestamp",
                            "deletionTimestamp", "selfLink"))  # fmt: skip
METADATA = METADATA_TEXTS | {"labels", "annotations", "generation", "deletionGracePeriodSeconds", "finalizers",
                             "ownerReferences", "managedFields"}  # fmt: skip

Object = Mapping[str, Any]


def check_metadata(found: Findings, metadata: Mapping[str, Any], kind: Kind) -> dict[str, Any]:
    """The metadata with labels and annotations as text to text; unknown fields and wrong types are noted."""
    made: dict[str, Any] = {}
    for key, value in metadata.items():
        path = f"metadata.{key}"
        if key not in METADATA:
            found.unknown.append((path, f'unknown field "{key}"; labels and annotations hold what is one\'s own'))
        elif value is None:
            continue
        elif key in ("labels", "annotations"):
            made[key] = check(STRINGS, value, path, found) or {}
        elif key in METADATA_TEXTS and not isinstance(value, str):
            found.errors.append((path, f"expected text, got {str(value)[:60]!r}; put it in quotes"))
        else:
            made[key] = value
    for key, value in mapping(made, "labels").items():
        for fault in qualified_name_faults(key):
            invalid(found, "metadata.labels", key, fault)
        for fault in label_value_faults(value):
            invalid(found, "metadata.labels", value, fault)
    for key in mapping(made, "annotations"):
        for fault in qualified_name_faults(key.lower()):
            invalid(found, "metadata.annotations", key, fault)
    _check_names(found, made, kind)
    return made


def _check_names(found: Findings, metadata: Mapping[str, Any], kind: Kind) -> None:
    name, namespace, created = (metadata.get(key) for key in ("name", "namespace", "creationTimestamp"))
    if name and kind.group == "rbac.authorization.k8s.io":
        if len(name) > 253 or name in (".", "..") or "/" in name or "%" in name:
            invalid(found, "metadata.name", name, "may not be '.' or '..', or contain '/' or '%'")
    elif name and kind.kind not in ("Namespace", "Service", "Gateway"):
        for fault in subdomain_faults(name):
            invalid(found, "metadata.name", name, fault)
    for fault in label_faults(namespace) if namespace else ():
        invalid(found, "metadata.namespace", namespace, fault)
    if created:
        try:
            datetime.fromisoformat(created.replace("Z", "+00:00"))
        except ValueError:
            invalid(found, "metadata.creationTimestamp", created, "must be a time such as 2026-01-31T12:00:00Z")


def check_meaning(found: Findings, kind: Kind, body: Object, namespace: str) -> None:
    """What the schema cannot say, for one normalised object by itself."""
    known = _CHECKS.get((kind.group, kind.kind))
    if known is not None:
        known(found, body, namespace)


def _spec(body: Object) -> dict[str, Any]:
    return mapping(body, "spec")


def _name(body: Object) -> str:
    return str(mapping(body, "metadata").get("name") or "")


def _dry_run(found: Findings, body: Object) -> None:
    annotations = mapping(mapping(body, "metadata"), "annotations")
    for name in DRY_RUN:
        value = annotations.get(name, "false")
        if value.lower() == "true":
            warn(found, f"metadata.annotations[{name}]", "is a dry run: it refuses nothing, and counts what it would")
        elif value.lower() != "false":
            invalid(found, f"metadata.annotations[{name}]", value, "must be true or false")


def _authorization_policy(found: Findings, body: Object, namespace: str) -> None:
    _dry_run(found, body)
    check_authorization_policy(found, _spec(body))


def _network_policy(found: Findings, body: Object, namespace: str) -> None:
    _dry_run(found, body)
    check_network_policy(found, _spec(body))


def _namespace(found: Findings, body: Object, namespace: str) -> None:
    name = _name(body)
    if name and not is_dns_label(name):
        invalid(found, "metadata.name", name, "must be a label of lower-case letters, digits and '-'")


def _service(found: Findings, body: Object, namespace: str) -> None:
    name = _name(body)
    if name and (not is_dns_label(name) or name[:1].isdigit()):
        invalid(found, "metadata.name", name, "must be a label of lower-case letters, digits and '-', a letter first")
    if body.get("spec") is None:
        required(found, "spec")
    else:
        check_service(found, _spec(body))


def _secret(found: Findings, body: Object, namespace: str) -> None:
    from .validate_secret import check_secret  # few proxies have any

    check_secret(found, body)


def _config_map(found: Findings, body: Object, namespace: str) -> None:
    from .validate_secret import check_config_map

    check_config_map(found, body)


_CHECKS: dict[tuple[str, str], Callable[[Findings, Object, str], None]] = {
    ("networking.istio.io", "VirtualService"): lambda f, b, n: check_virtual_service(f, _spec(b), n),
    ("networking.istio.io", "DestinationRule"): lambda f, b, n: check_destination_rule(f, _spec(b), n),
    ("networking.istio.io", "Gateway"): lambda f, b, n: check_gateway(f, _spec(b), _name(b)),
    ("networking.istio.io", "Sidecar"): lambda f, b, n: check_sidecar(f, _spec(b), n),
    ("networking.istio.io", "ServiceEntry"): lambda f, b, n: check_service_entry(f, _spec(b), n),
    ("networking.istio.io", "WorkloadEntry"): lambda f, b, n: check_workload(f, "spec", _spec(b)),
    ("networking.istio.io", "WorkloadGroup"): lambda f, b, n: check_workload_group(f, b),
    ("networking.k8s.io", "NetworkPolicy"): _network_policy,
    ("networking.k8s.io", "Ingress"): lambda f, b, n: check_ingress(
        f, _spec(b), mapping(mapping(b, "metadata"), "annotations")
    ),
    ("security.istio.io", "PeerAuthentication"): lambda f, b, n: check_peer_authentication(f, _spec(b)),
    ("security.istio.io", "AuthorizationPolicy"): _authorization_policy,
    ("security.istio.io", "RequestAuthentication"): lambda f, b, n: check_request_authentication(f, _spec(b)),
    ("rbac.authorization.k8s.io", "Role"): lambda f, b, n: check_role(f, b, True),
    ("rbac.authorization.k8s.io", "ClusterRole"): lambda f, b, n: check_role(f, b, False),
    ("rbac.authorization.k8s.io", "RoleBinding"): lambda f, b, n: check_binding(f, b, True),
    ("rbac.authorization.k8s.io", "ClusterRoleBinding"): lambda f, b, n: check_binding(f, b, False),
    ("", "Namespace"): _namespace,
    ("", "Service"): _service,
    ("", "Secret"): _secret,
    ("", "ConfigMap"): _config_map,
    ("", "Pod"): lambda f, b, n: check_pod(f, b),
    ("discovery.k8s.io", "EndpointSlice"): lambda f, b, n: check_endpoint_slice(f, b),
    ("fairlead.dev", "MeshConfig"): lambda f, b, n: check_mesh_config(f, _spec(b)),
    ("fairlead.dev", "LocalRateLimit"): lambda f, b, n: check_local_rate_limit(f, _spec(b)),
}  # fmt: skip
