"""The checks of metadata, and the way from a kind to its own check."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.policy.kinds import BY_NAME
from fairlead.policy.parse import check_object
from fairlead.policy.validate_kind import check_metadata
from fairlead.registry.schema import Findings

SERVICE = BY_NAME["v1", "Service"]
ROLE = BY_NAME["rbac.authorization.k8s.io/v1", "Role"]
RULE = BY_NAME["networking.istio.io/v1", "VirtualService"]


def look(metadata: dict[str, Any], kind: Any = RULE) -> list[str]:
    found = Findings()
    check_metadata(found, metadata, kind)
    return [path for path, _ in found.errors + found.unknown]


def test_metadata_as_the_api_server_writes_it_is_taken() -> None:
    whole = {
        "name": "a.b-c", "namespace": "shop", "uid": "x", "resourceVersion": "1", "generation": 3, "labels": {"a": "b"},
        "creationTimestamp": "2026-01-31T12:00:00Z", "annotations": {"Example.com/Key": "any: thing\n"},
        "managedFields": [{}], "ownerReferences": [{}], "finalizers": ["a"], "deletionTimestamp": None,
    }  # fmt: skip
    assert look(whole) == []


@pytest.mark.parametrize(
    ("metadata", "path"),
    [
        ({"name": "A"}, "metadata.name"),
        ({"name": 1}, "metadata.name"),
        ({"name": "a", "namespace": "a.b"}, "metadata.namespace"),
        ({"name": "a", "labels": []}, "metadata.labels"),
        ({"name": "a", "labels": {"a": None, "b": True}}, "metadata.labels[b]"),
        ({"name": "a", "annotations": {"a b": "c"}}, "metadata.annotations"),
        ({"name": "a", "creationTimestamp": "yesterday"}, "metadata.creationTimestamp"),
        ({"name": "a", "nmae": "b"}, "metadata.nmae"),
    ],
)
def test_what_is_wrong_in_metadata_is_told_with_its_path(metadata: dict[str, Any], path: str) -> None:
    assert look(metadata) == [path]


def test_names_are_those_of_the_kind() -> None:
    assert look({"name": "system:node"}, ROLE) == []
    assert look({"name": "a/b"}, ROLE) == ["metadata.name"]
    _, found = check_object(SERVICE, {"metadata": {"name": "1a"}, "spec": {"ports": [{"port": 1}]}}, "default")
    assert [path for path, _ in found.errors] == ["metadata.name"]


def test_meaning_is_judged_only_where_the_schema_is_content() -> None:
    _, found = check_object(RULE, {"metadata": {"name": "a"}, "spec": {"hosts": 3, "http": []}}, "default")
    assert [path for path, _ in found.errors] == ["spec.hosts"]


def test_metadata_may_be_left_to_the_caller() -> None:
    body = {"metadata": {"name": "A"}, "spec": {"ports": [{"port": 1}]}}
    made, found = check_object(
        BY_NAME["networking.istio.io/v1", "Sidecar"], body | {"spec": {}}, "x", with_metadata=False
    )
    assert found.errors == []
    assert made["metadata"] == {"name": "A"}
