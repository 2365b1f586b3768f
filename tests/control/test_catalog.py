"""Discovery: the same resources in every form, and documents that clients can follow."""

from __future__ import annotations

import json
from typing import Any

from fairlead.control import catalog as discovery
from fairlead.control.catalog import Catalog
from fairlead.control.openapi import OpenApi, component_name
from fairlead.policy.kinds import KINDS
from fairlead.registry.schema import openapi

CATALOG = Catalog(KINDS)
CONTRACT = {
    "v1": {"Namespace", "Service", "Pod", "Secret", "Event"},
    "discovery.k8s.io/v1": {"EndpointSlice"},
    "networking.k8s.io/v1": {"NetworkPolicy", "Ingress"},
    **{
        f"networking.istio.io/{version}": {
            "VirtualService", "DestinationRule", "Gateway", "ServiceEntry", "WorkloadEntry", "Sidecar",
        }
        for version in ("v1", "v1beta1", "v1alpha3")
    },
    "security.istio.io/v1": {"PeerAuthentication", "AuthorizationPolicy"},
    "security.istio.io/v1beta1": {"PeerAuthentication", "AuthorizationPolicy"},
    "rbac.authorization.k8s.io/v1": {"Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding"},
    "fairlead.dev/v1": {"MeshConfig"},
}  # fmt: skip


def test_every_kind_of_the_contract_is_served_in_its_versions() -> None:
    for group_version, kinds in CONTRACT.items():
        group, _, version = group_version.rpartition("/")
        found = discovery.resource_list(CATALOG, group, version)
        assert found is not None
        assert kinds <= {entry["kind"] for entry in found["resources"]}
        assert found["groupVersion"] == group_version


def test_both_forms_of_discovery_list_the_same() -> None:
    one: set[tuple[str, str]] = set()
    for group, versions in CATALOG.groups().items():
        for version in versions:
            listed = discovery.resource_list(CATALOG, group, version)
            assert listed is not None
            one |= {(listed["groupVersion"], e["name"]) for e in listed["resources"] if "/" not in e["name"]}
    two: set[tuple[str, str]] = set()
    for core in (True, False):
        for item in discovery.aggregated(CATALOG, core)["items"]:
            for version in item["versions"]:
                name = item["metadata"]["name"]
                group_version = f"{name}/{version['version']}" if name else version["version"]
                two |= {(group_version, resource["resource"]) for resource in version["resources"]}
    assert one == two


def test_what_is_not_served_is_not_listed() -> None:
    assert discovery.resource_list(CATALOG, "gateway.networking.k8s.io", "v1") is None
    assert discovery.resource_list(CATALOG, "networking.istio.io", "v9") is None
    assert discovery.group(CATALOG, "gateway.networking.k8s.io") is None
    assert discovery.group(CATALOG, "") is None
    assert CATALOG.find("", "v1", "frobs") is None


def test_the_preferred_version_is_the_newest() -> None:
    groups = {group["name"]: group for group in discovery.group_list(CATALOG)["groups"]}
    assert groups["networking.istio.io"]["preferredVersion"]["version"] == "v1"


def references(value: Any) -> set[str]:
    if isinstance(value, dict):
        own = {value["$ref"]} if isinstance(value.get("$ref"), str) else set()
        return own.union(*(references(item) for item in value.values()))
    return set().union(*(references(item) for item in value)) if isinstance(value, list) else set()


def test_openapi_documents_hold_everything_that_they_refer_to() -> None:
    api = OpenApi(CATALOG, openapi, "1")
    assert set(api.root()["paths"]) == set(api.paths())
    for path in api.paths():
        document = json.loads(api.document(path)[0])
        schemas = document["components"]["schemas"]
        assert {f"#/components/schemas/{name}" for name in schemas} >= references(document)


def test_kubectl_finds_out_that_the_server_validates() -> None:
    api = OpenApi(CATALOG, openapi, "1")
    for resource in CATALOG.resources:
        for version in resource.versions:
            base = f"apis/{resource.group}/{version}" if resource.group else f"api/{version}"
            document = json.loads(api.document(base)[0])
            place = f"/{base}/namespaces/{{namespace}}" if resource.namespaced else f"/{base}"
            patch = document["paths"][f"{place}/{resource.plural}/{{name}}"]["patch"]
            assert {"fieldValidation", "dryRun"} <= {parameter["name"] for parameter in patch["parameters"]}
            kind = {"group": resource.group, "version": version, "kind": resource.kind}
            assert patch["x-kubernetes-group-version-kind"] == kind
            schema = document["components"]["schemas"][component_name(resource.group, version, resource.kind)]
            assert schema["x-kubernetes-group-version-kind"] == [kind]


def test_component_names_are_those_of_upstream() -> None:
    assert component_name("", "v1", "Service") == "io.k8s.api.core.v1.Service"
    assert component_name("networking.k8s.io", "v1", "Ingress") == "io.k8s.api.networking.v1.Ingress"
    assert component_name("networking.istio.io", "v1", "Sidecar") == "io.istio.networking.v1.Sidecar"
