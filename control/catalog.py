"""The resources that the API serves, by group, version and plural, and the discovery documents that list them."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

VERBS = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
STATUS_VERBS = ["get", "patch", "update"]
WITHOUT_STATUS = frozenset(("secrets", "events", "endpointslices", "roles", "rolebindings", "clusterroles",
                            "clusterrolebindings", "meshconfigs", "configmaps", "serviceaccounts",
                            "limitranges", "storageclasses", "endpoints", "priorityclasses"))  # fmt: skip
"""Kinds that have no status upstream either."""


class Resource(Struct, frozen=True):
    """One kind of object, in all its API versions."""

    group: str
    versions: tuple[str, ...]
    """The preferred one first."""
    kind: str
    plural: str
    singular: str
    short_names: tuple[str, ...] = ()
    namespaced: bool = True
    categories: tuple[str, ...] = ()
    schema: Any = None
    """registry.schema's description of the kind; None: any fields."""
    stored_as: str = ""
    """Name of the resource whose objects these are, under another group."""

    name: str = ""
    """`virtualservices.networking.istio.io`, `services`: the resource of a store key. Made of the others."""

    def __post_init__(self) -> None:
        name = self.stored_as or (f"{self.plural}.{self.group}" if self.group else self.plural)
        msgspec.structs.force_setattr(self, "name", name)

    @property
    def has_status(self) -> bool:
        return self.plural not in WITHOUT_STATUS

    def api_version(self, version: str = "") -> str:
        version = version or self.versions[0]
        return f"{self.group}/{version}" if self.group else version


EVENT = Resource("", ("v1",), "Event", "events", "event", ("ev",))
"""`kubectl describe` asks for events; they are kept like any object, without a schema."""
NEW_EVENT = Resource("events.k8s.io", ("v1",), "Event", "events", "event", ("ev",), stored_as="events")
"""The same events with the field names of their newer group (control/events.py)."""


class Catalog:
    """All resources. `kinds` have the fields of Resource (registry's and policy's Kind do)."""

    def __init__(self, kinds: Iterable[Any]) -> None:
        self.resources: list[Resource] = []
        for kind in (*kinds, EVENT, NEW_EVENT):
            made = kind if isinstance(kind, Resource) else Resource(
                kind.group, tuple(kind.versions), kind.kind, kind.plural, kind.singular, tuple(kind.short_names),
                kind.namespaced, tuple(kind.categories), kind.schema,
            )  # fmt: skip
            if all((made.name, made.group) != (other.name, other.group) for other in self.resources):
                self.resources.append(made)
        self.by_name = {resource.name: resource for resource in self.resources if not resource.stored_as}
        self._by_path = {(r.group, version, r.plural): r for r in self.resources for version in r.versions}

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        return self._by_path.get((group, version, plural))

    def of_kind(self, api_version: str, kind: str) -> Resource | None:
        group, _, version = api_version.rpartition("/")
        for resource in self.resources:
            if resource.kind == kind and resource.group == group and version in resource.versions:
                return resource
        return None

    def groups(self) -> dict[str, list[str]]:
        """Versions by group name, the preferred one first; the core group is the empty name."""
        found: dict[str, list[str]] = {}
        for resource in self.resources:
            versions = found.setdefault(resource.group, [])
            versions += [version for version in resource.versions if version not in versions]
        for group, listed in VIRTUAL_GROUPS.items():
            found.setdefault(group, list(listed))
        return found

    def in_version(self, group: str, version: str) -> list[Resource]:
        return [r for r in self.resources if r.group == group and version in r.versions]


VIRTUAL_GROUPS = {"authentication.k8s.io": ("v1",), "authorization.k8s.io": ("v1",)}
"""Groups of questions that are answered at once and not stored: (plural, kind)."""
VIRTUAL = {
    "authentication.k8s.io": (("selfsubjectreviews", "SelfSubjectReview"),),
    "authorization.k8s.io": (
        ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
        ("selfsubjectrulesreviews", "SelfSubjectRulesReview"),
        ("subjectaccessreviews", "SubjectAccessReview"),
        ("localsubjectaccessreviews", "LocalSubjectAccessReview"),
    ),
}

LOCAL = frozenset(("LocalSubjectAccessReview",))
"""Those that are asked within a namespace."""


def api_versions(address: str) -> dict[str, Any]:
    """GET /api."""
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def _group(name: str, versions: list[str]) -> dict[str, Any]:
    listed = [{"groupVersion": f"{name}/{version}", "version": version} for version in versions]
    return {"name": name, "versions": listed, "preferredVersion": listed[0]}


def group_list(catalog: Catalog) -> dict[str, Any]:
    """GET /apis."""
    groups = [_group(name, versions) for name, versions in sorted(catalog.groups().items()) if name]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}


def group(catalog: Catalog, name: str) -> dict[str, Any] | None:
    """GET /apis/GROUP."""
    versions = catalog.groups().get(name)
    return {"kind": "APIGroup", "apiVersion": "v1", **_group(name, versions)} if versions and name else None


def resource_list(catalog: Catalog, group: str, version: str) -> dict[str, Any] | None:
    """GET /api/v1, /apis/GROUP/VERSION."""
    if version not in catalog.groups().get(group, ()):
        return None
    listed: list[dict[str, Any]] = []
    for resource in sorted(catalog.in_version(group, version), key=lambda one: one.plural):
        entry: dict[str, Any] = {
            "name": resource.plural,
            "singularName": resource.singular,
            "namespaced": resource.namespaced,
            "kind": resource.kind,
            "verbs": VERBS,
            "storageVersionHash": storage_hash(resource),
        }
        if resource.short_names:
            entry["shortNames"] = list(resource.short_names)
        if resource.categories:
            entry["categories"] = list(resource.categories)
        listed.append(entry)
        if resource.has_status:
            listed.append({"name": f"{resource.plural}/status", "singularName": "", "namespaced": resource.namespaced,
                           "kind": resource.kind, "verbs": STATUS_VERBS})  # fmt: skip
    for plural, kind in VIRTUAL.get(group, ()):
        listed.append({"name": plural, "singularName": kind.lower(), "namespaced": kind in LOCAL, "kind": kind,
                       "verbs": ["create"]})  # fmt: skip
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": listed,
    }


def storage_hash(resource: Resource) -> str:
    """Tells a client that two versions share their storage; the same for all versions, as there is one copy."""
    digest = hashlib.sha256(f"{resource.group}/{resource.kind}".encode()).digest()
    return base64.b64encode(digest[:8]).decode()


AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


def aggregated(catalog: Catalog, core: bool) -> dict[str, Any]:
    """GET /api and /apis in the aggregated form: all resource lists in one answer."""
    items = []
    for name, versions in sorted(catalog.groups().items()):
        if bool(name) == core:
            continue
        items.append(
            {
                "metadata": {"name": name or None, "creationTimestamp": None},
                "versions": [_aggregated_version(catalog, name, version) for version in versions],
            }
        )
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": "apidiscovery.k8s.io/v2",
        "metadata": {},
        "items": items,
    }


def _aggregated_version(catalog: Catalog, group: str, version: str) -> dict[str, Any]:
    resources = []
    for resource in sorted(catalog.in_version(group, version), key=lambda one: one.plural):
        kind = {"group": resource.group, "version": version, "kind": resource.kind}
        entry: dict[str, Any] = {
            "resource": resource.plural,
            "responseKind": kind,
            "scope": "Namespaced" if resource.namespaced else "Cluster",
            "singularResource": resource.singular,
            "verbs": VERBS,
            "shortNames": list(resource.short_names),
            "categories": list(resource.categories),
        }
        if resource.has_status:
            entry["subresources"] = [{"subresource": "status", "responseKind": kind, "verbs": STATUS_VERBS}]
        resources.append(entry)
    for plural, kind_name in VIRTUAL.get(group, ()):
        resources.append(
            {
                "resource": plural,
                "responseKind": {"group": group, "version": version, "kind": kind_name},
                "scope": "Namespaced" if kind_name in LOCAL else "Cluster",
                "singularResource": kind_name.lower(),
                "verbs": ["create"],
            }
        )
    return {"version": version, "resources": resources, "freshness": "Current"}
