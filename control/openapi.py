"""OpenAPI v3 documents: what `kubectl` reads to validate, to explain, and to know what a server can do.

One document per group and version, as https://kubernetes.io/docs/concepts/overview/kubernetes-api/#openapi-v3 .
The operations carry no more than clients look at: the kind, the verbs, and the query parameters (`fieldValidation`
and `dryRun` on PATCH are how kubectl finds out that the server validates by itself).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import msgspec

from .catalog import Catalog, Resource
from .patch_strategic import ListRule, rules_of

SchemaOf = Callable[[Any], dict[str, Any]]
META = "io.k8s.apimachinery.pkg.apis.meta.v1"

_STRINGS = {"type": "object", "additionalProperties": {"type": "string", "default": ""}}
OBJECT_META: dict[str, Any] = {
    "type": "object",
    "description": "ObjectMeta is metadata that all persisted resources must have.",
    "properties": {
        "name": {"type": "string", "description": "Name must be unique within a namespace. Cannot be updated."},
        "generateName": {
            "type": "string",
            "description": "A prefix, used by the server to make a unique name if `name` is not given.",
        },
        "namespace": {"type": "string", "description": "The space within which the name must be unique."},
        "labels": {**_STRINGS, "description": "Keys and values by which objects are organised and selected."},
        "annotations": {**_STRINGS, "description": "Keys and values for tools and people; not used to select."},
        "uid": {"type": "string", "description": "Unique in time and space; set by the server."},
        "resourceVersion": {
            "type": "string",
            "description": "Opaque version of the object, for optimistic concurrency and watches; set by the server.",
        },
        "generation": {
            "type": "integer",
            "format": "int64",
            "description": "Grows by one with every change of the desired state; set by the server.",
        },
        "creationTimestamp": {"type": "string", "format": "date-time", "description": "Set by the server."},
        "deletionTimestamp": {"type": "string", "format": "date-time", "description": "Set by the server."},
        "deletionGracePeriodSeconds": {"type": "integer", "format": "int64", "description": "Set by the server."},
        "finalizers": {
            "type": "array",
            "items": {"type": "string", "default": ""},
            "description": "Must be empty before the object is removed.",
            "x-kubernetes-list-type": "set",
            "x-kubernetes-patch-strategy": "merge",
        },
        "ownerReferences": {
            "type": "array",
            "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "description": "Objects that this one depends on.",
            "x-kubernetes-list-map-keys": ["uid"],
            "x-kubernetes-list-type": "map",
            "x-kubernetes-patch-merge-key": "uid",
            "x-kubernetes-patch-strategy": "merge",
        },
        "managedFields": {
            "type": "array",
            "items": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
            "description": "Which manager set which field; kept by the server.",
        },
        "selfLink": {"type": "string", "description": "Not used any more."},
    },
}

_READ = [("fieldSelector", "string"), ("labelSelector", "string"), ("limit", "integer"), ("continue", "string"),
         ("resourceVersion", "string"), ("resourceVersionMatch", "string"), ("sendInitialEvents", "boolean"),
         ("allowWatchBookmarks", "boolean"), ("timeoutSeconds", "integer"), ("watch", "boolean")]  # fmt: skip
_WRITE = [("dryRun", "string"), ("fieldManager", "string"), ("fieldValidation", "string")]
_DELETE = [("dryRun", "string"), ("gracePeriodSeconds", "integer"), ("propagationPolicy", "string")]


def _parameters(listed: list[tuple[str, str]]) -> list[dict[str, Any]]:
    return [{"name": name, "in": "query", "schema": {"type": kind, "uniqueItems": True}} for name, kind in listed]


def component_name(group: str, version: str, kind: str) -> str:
    """`io.istio.networking.v1.VirtualService`, `io.k8s.api.core.v1.Service`."""
    if not group:
        return f"io.k8s.api.core.{version}.{kind}"
    if group.endswith(".k8s.io") or "." not in group:
        return f"io.k8s.api.{group.split('.')[0]}.{version}.{kind}"
    return f"{'.'.join(reversed(group.split('.')))}.{version}.{kind}"


class OpenApi:
    """Documents made once, at the first request. `schema_of` is registry.schema's `openapi`."""

    def __init__(self, catalog: Catalog, schema_of: SchemaOf, version: str) -> None:
        self._catalog = catalog
        self._schema_of = schema_of
        self.version = version
        self._made: dict[str, tuple[bytes, str]] = {}

    def paths(self) -> list[str]:
        """`api/v1`, `apis/networking.istio.io/v1`, ..."""
        return [
            f"apis/{group}/{version}" if group else f"api/{version}"
            for group, versions in sorted(self._catalog.groups().items())
            for version in versions
        ]

    def root(self) -> dict[str, Any]:
        """GET /openapi/v3."""
        return {
            "paths": {
                path: {"serverRelativeURL": f"/openapi/v3/{path}?hash={self.document(path)[1]}"}
                for path in self.paths()
            }
        }

    def document(self, path: str) -> tuple[bytes, str]:
        """The document of `apis/GROUP/VERSION` and its hash. KeyError where there is none."""
        if path not in self._made:
            if path not in self.paths():
                raise KeyError(path)
            group, _, version = path.removeprefix("apis/").removeprefix("api/").rpartition("/")
            body = msgspec.json.encode(self._build(group, version))
            self._made[path] = (body, hashlib.sha256(body).hexdigest()[:32].upper())
        return self._made[path]

    def _build(self, group: str, version: str) -> dict[str, Any]:
        schemas: dict[str, Any] = {f"{META}.ObjectMeta": OBJECT_META}
        paths: dict[str, Any] = {}
        for resource in self._catalog.in_version(group, version):
            schemas.update(self._schemas(resource, version))
            paths.update(_paths(resource, version))
        return {
            "openapi": "3.0.0",
            "info": {"title": "Fairlead", "version": self.version},
            "paths": paths,
            "components": {"schemas": schemas},
        }

    def _schemas(self, resource: Resource, version: str) -> dict[str, Any]:
        name = component_name(resource.group, version, resource.kind)
        if resource.schema is None:
            schema: dict[str, Any] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        else:
            schema = dict(self._schema_of(resource.schema))
        properties = {
            "apiVersion": {"type": "string", "description": "APIVersion defines the versioned schema of this object."},
            "kind": {"type": "string", "description": "Kind is the resource that this object represents."},
            **schema.get("properties", {}),
            "metadata": {
                "allOf": [{"$ref": f"#/components/schemas/{META}.ObjectMeta"}],
                "default": {},
                "description": "Name, namespace, labels, annotations, and what the server keeps.",
            },
        }
        if resource.has_status and "status" not in properties:
            properties["status"] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
        kind = {"group": resource.group, "version": version, "kind": resource.kind}
        made = {**schema, "type": "object", "properties": properties, "x-kubernetes-group-version-kind": [kind]}
        for path, rule in rules_of(resource.name).items():
            mark_list(made, path, rule)
        items = {"type": "array", "items": {"allOf": [{"$ref": f"#/components/schemas/{name}"}], "default": {}}}
        return {
            name: made,
            f"{name}List": {
                "type": "object",
                "required": ["items"],
                "properties": {
                    "apiVersion": properties["apiVersion"],
                    "kind": properties["kind"],
                    "items": items,
                    "metadata": {"type": "object"},
                },
                "x-kubernetes-group-version-kind": [{**kind, "kind": f"{resource.kind}List"}],
            },
        }


def mark_list(schema: dict[str, Any], path: tuple[str, ...], rule: ListRule) -> None:
    """Say at the list of this path how its items are told apart, by which kubectl makes strategic patches."""
    node: Any = schema
    for step in path:
        node = (node.get("items") or node).get("properties", {}).get(step)
        if not isinstance(node, dict):
            return  # the schema takes any fields there, or it is metadata, whose own schema says it
    if node.get("type") != "array":
        return
    node |= {"x-kubernetes-list-type": "map" if rule.keys else "set", "x-kubernetes-patch-strategy": "merge"}
    if rule.keys:
        node |= {"x-kubernetes-list-map-keys": list(rule.keys), "x-kubernetes-patch-merge-key": rule.key}


def _paths(resource: Resource, version: str) -> dict[str, Any]:
    base = f"/apis/{resource.group}/{version}" if resource.group else f"/api/{version}"
    schema = {"$ref": f"#/components/schemas/{component_name(resource.group, version, resource.kind)}"}
    list_schema = {"$ref": schema["$ref"] + "List"}
    kind = {"group": resource.group, "version": version, "kind": resource.kind}

    def operation(action: str, parameters: list[tuple[str, str]], answer: dict[str, str], body: Any = None) -> Any:
        made: dict[str, Any] = {
            "operationId": f"{action}{resource.group.title().replace('.', '')}{version.title()}{resource.kind}",
            "parameters": _parameters(parameters),
            "responses": {"200": {"description": "OK", "content": {"application/json": {"schema": answer}}}},
            "x-kubernetes-action": action,
            "x-kubernetes-group-version-kind": kind,
        }
        if body:
            made["requestBody"] = {"content": {content: {"schema": of} for content, of in body.items()}}
        return made

    anything = {"type": "object"}
    patches = {"application/apply-patch+yaml": anything, "application/json-patch+json": {"type": "array"},
               "application/merge-patch+json": anything}  # fmt: skip
    collection = {
        "get": operation("list", _READ, list_schema),
        "post": operation("post", _WRITE, schema, {"application/json": schema}),
        "delete": operation("deletecollection", _READ + _DELETE, anything),
    }
    single = {
        "get": operation("get", [], schema),
        "put": operation("put", _WRITE, schema, {"application/json": schema}),
        "patch": operation("patch", [*_WRITE, ("force", "boolean")], schema, patches),
        "delete": operation("delete", _DELETE, anything),
    }
    place = f"{base}/namespaces/{{namespace}}" if resource.namespaced else base
    found: dict[str, Any] = {
        f"{place}/{resource.plural}": collection,
        f"{place}/{resource.plural}/{{name}}": single,
    }
    if resource.has_status:
        found[f"{place}/{resource.plural}/{{name}}/status"] = {key: single[key] for key in ("get", "put", "patch")}
    if resource.namespaced:
        found[f"{base}/{resource.plural}"] = {"get": operation("list", _READ, list_schema)}
    return found
