"""Roles and bindings that every control plane has, as Kubernetes has them: cluster-admin, admin, edit, view, and what
all may do who have shown who they are.

They are ordinary objects, written at the start where they are missing. `admin`, `edit` and `view` gather the rules of
ClusterRoles with the label `rbac.authorization.k8s.io/aggregate-to-NAME: "true"`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from .rbac import AUTHENTICATED, CLUSTER_ROLE_BINDINGS, CLUSTER_ROLES, GROUP, MASTERS
from .store import Key, Objects, Write

LABELS = {"kubernetes.io/bootstrapping": "rbac-defaults"}
AUTOUPDATE = f"{GROUP}/autoupdate"
"""Of a default that is brought up to date at the start; set it to "false" to keep what you have made of it."""
ANNOTATIONS = {AUTOUPDATE: "true"}
READ = ["get", "list", "watch"]
WRITE = ["create", "delete", "deletecollection", "patch", "update"]
DISCOVERY = ["/", "/api", "/api/*", "/apis", "/apis/*", "/healthz", "/healthz/*", "/livez", "/readyz", "/openapi",
             "/openapi/*", "/version", "/version/"]  # fmt: skip
CONFIRMATIONS = ["/fairlead/v1/confirmations", "/fairlead/v1/confirmations/*"]
"""Everybody confirms and takes back only what they have applied themselves."""

Named = tuple[str, str, dict[str, Any]]
"""(resource, name, body)."""


def _rule(groups: Iterable[str], resources: Iterable[str], verbs: Iterable[str]) -> dict[str, Any]:
    return {"apiGroups": list(groups), "resources": list(resources), "verbs": list(verbs)}


def _role(name: str, rules: list[dict[str, Any]], gathers: str = "", to: Iterable[str] = ()) -> Named:
    labels = {**LABELS, **{f"{GROUP}/aggregate-to-{one}": "true" for one in to}}
    body: dict[str, Any] = {"metadata": {"name": name, "labels": labels, "annotations": ANNOTATIONS}, "rules": rules}
    if gathers:
        chosen = {"matchLabels": {f"{GROUP}/aggregate-to-{gathers}": "true"}}
        body["aggregationRule"] = {"clusterRoleSelectors": [chosen]}
    return CLUSTER_ROLES, name, body


def _binding(name: str, group: str) -> Named:
    return CLUSTER_ROLE_BINDINGS, name, {
        "metadata": {"name": name, "labels": LABELS, "annotations": ANNOTATIONS},
        "roleRef": {"apiGroup": GROUP, "kind": "ClusterRole", "name": name},
        "subjects": [{"apiGroup": GROUP, "kind": "Group", "name": group}],
    }  # fmt: skip


def defaults(resources: Iterable[tuple[str, str, bool]]) -> list[Named]:
    """`resources`: (group, plural, namespaced) of everything that is served. Secrets are for `edit`, and roles for
    `admin`, as upstream; what has no namespace is for administrators of the whole, but may be seen."""
    ordinary: dict[str, list[str]] = {}
    seen: dict[str, list[str]] = {}
    for group, plural, namespaced in resources:
        if group == GROUP or (group, plural) == ("", "secrets"):
            continue
        if namespaced:
            ordinary.setdefault(group, []).append(plural)
        if namespaced or (group, plural) == ("", "namespaces"):
            seen.setdefault(group, []).append(plural)
    view = [_rule([group], sorted([*names, *(f"{n}/status" for n in names)]), READ) for group, names in seen.items()]
    edit = [_rule([group], sorted(names), WRITE) for group, names in ordinary.items()]
    edit.append(_rule([""], ["secrets"], [*READ, *WRITE]))
    admin = [
        _rule([GROUP], ["roles", "rolebindings"], [*READ, *WRITE]),
        _rule(["authorization.k8s.io"], ["localsubjectaccessreviews"], ["create"]),
    ]
    reviews = ["selfsubjectaccessreviews", "selfsubjectrulesreviews"]
    every = ["*"]
    return [
        _role("cluster-admin", [_rule(every, every, every), {"nonResourceURLs": every, "verbs": every}]),
        _role("admin", [], "admin"),
        _role("edit", [], "edit", ["admin"]),
        _role("view", [], "view", ["edit"]),
        _role("system:aggregate-to-admin", admin, to=["admin"]),
        _role("system:aggregate-to-edit", edit, to=["edit"]),
        _role("system:aggregate-to-view", view, to=["view"]),
        _role(
            "system:basic-user",
            [_rule(["authorization.k8s.io"], reviews, ["create"]),
             _rule(["authentication.k8s.io"], ["selfsubjectreviews"], ["create"]),
             {"nonResourceURLs": CONFIRMATIONS, "verbs": ["get", "post", "delete"]}],
        ),
        _role("system:discovery", [{"nonResourceURLs": DISCOVERY, "verbs": ["get"]}]),
        _binding("cluster-admin", MASTERS),
        _binding("system:basic-user", AUTHENTICATED),
        _binding("system:discovery", AUTHENTICATED),
    ]  # fmt: skip


def missing(memory: Objects, served: Iterable[tuple[str, str, bool]], uid: Callable[[], str], now: str) -> list[Write]:
    """What writes the defaults that are not there, or are those of an earlier version: a resource that is new is
    missing in them."""
    writes = []
    for resource, name, body in defaults(served):
        key = Key(resource, "", name)
        stored = memory.get(key)
        if stored is None:
            born = {"uid": uid(), "creationTimestamp": now, **body["metadata"]}
            writes.append(Write(key, {**body, "metadata": born}, expect=0))
            continue
        had = stored.object()
        if (had["metadata"].get("annotations") or {}).get(AUTOUPDATE) != "true":
            continue
        changed = {k: v for k, v in body.items() if k in ("rules", "aggregationRule") and had.get(k) != v}
        if changed:
            writes.append(Write(key, {**had, **changed}, expect=stored.version))
    return writes
