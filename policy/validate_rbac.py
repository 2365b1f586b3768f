"""What must hold of roles and bindings beyond their schema; source: Kubernetes' own validation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..registry.schema import Findings
from .validate_values import check_label_selector, forbidden, invalid, listed, mapping, not_supported, required

Object = Mapping[str, Any]
GROUP = "rbac.authorization.k8s.io"
SUBJECTS = {"User": GROUP, "Group": GROUP, "ServiceAccount": ""}


def check_role(found: Findings, body: Object, namespaced: bool) -> None:
    """Rules for resources or for URLs; the latter in ClusterRoles only; and the labels of what is aggregated."""
    for number, selector in enumerate(listed(mapping(body, "aggregationRule"), "clusterRoleSelectors")):
        check_label_selector(found, f"aggregationRule.clusterRoleSelectors[{number}]", selector)
    for number, rule in enumerate(listed(body, "rules")):
        path = f"rules[{number}]"
        if not listed(rule, "verbs"):
            required(found, f"{path}.verbs")
        if listed(rule, "nonResourceURLs"):
            if namespaced:
                forbidden(found, f"{path}.nonResourceURLs", "namespaced rules cannot apply to non-resource URLs")
            if any(listed(rule, field) for field in ("apiGroups", "resources", "resourceNames")):
                forbidden(found, f"{path}.nonResourceURLs", "a rule is for regular resources or for non-resource URLs")
            continue
        for field in ("apiGroups", "resources"):
            if not listed(rule, field):
                required(found, f"{path}.{field}")


def check_binding(found: Findings, body: Object, namespaced: bool) -> None:
    """Its role and its subjects."""
    reference = mapping(body, "roleRef")
    kinds = ("Role", "ClusterRole") if namespaced else ("ClusterRole",)
    if reference.get("kind") not in kinds:
        not_supported(found, "roleRef.kind", str(reference.get("kind")), kinds)
    if reference.get("apiGroup") not in (None, "", GROUP):
        not_supported(found, "roleRef.apiGroup", str(reference.get("apiGroup")), (GROUP,))
    for number, subject in enumerate(listed(body, "subjects")):
        path = f"subjects[{number}]"
        kind = subject.get("kind")
        if kind not in SUBJECTS:
            not_supported(found, f"{path}.kind", kind, tuple(SUBJECTS))
        elif subject.get("apiGroup") not in (None, "", SUBJECTS[kind]):
            not_supported(found, f"{path}.apiGroup", subject.get("apiGroup"), (SUBJECTS[kind],))
        if not subject.get("name"):
            required(found, f"{path}.name")
        if kind == "ServiceAccount" and not namespaced and not subject.get("namespace"):
            required(found, f"{path}.namespace")
        if kind != "ServiceAccount" and subject.get("namespace"):
            invalid(found, f"{path}.namespace", subject["namespace"], "only service accounts are of a namespace")
