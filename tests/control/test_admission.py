"""The door: envelopes, names, depth, and unknown fields taken out."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.admission import (
    Admission,
    check_envelope,
    check_metadata,
    depth_is_bounded,
    steps_of,
    with_path,
    without,
)
from fairlead.control.catalog import Resource
from fairlead.control.status import StatusError
from fairlead.registry.schema import Findings

SERVICE = Resource("", ("v1",), "Service", "services", "service")
ROLE = Resource("rbac.authorization.k8s.io", ("v1",), "Role", "roles", "role")
NAMESPACE = Resource("", ("v1",), "Namespace", "namespaces", "namespace", namespaced=False)
RULE = Resource("networking.istio.io", ("v1",), "VirtualService", "virtualservices", "virtualservice")


@pytest.mark.parametrize(
    ("path", "steps"),
    [
        ("spec.http[0].match", ["spec", "http", 0, "match"]),
        ('metadata.labels["a.b/c"]', ["metadata", "labels", "a.b/c"]),
        ("spec.headers[x-user].exact", ["spec", "headers", "x-user", "exact"]),
        ("spec", ["spec"]),
        ("", []),
    ],
)
def test_paths_are_taken_apart(path: str, steps: list[Any]) -> None:
    assert steps_of(path) == steps


def test_fields_are_taken_out_of_a_copy() -> None:
    body = {"spec": {"http": [{"a": 1, "b": 2}], "x": 1}, "y": 1}
    assert without(body, ["spec.http[0].a", "y", "spec.none.z", "spec.http[7].a", ""]) == {
        "spec": {"http": [{"b": 2}], "x": 1}
    }
    assert body == {"spec": {"http": [{"a": 1, "b": 2}], "x": 1}, "y": 1}


def test_messages_of_unknown_fields_say_the_whole_path() -> None:
    told = with_path("spec.hsots", 'unknown field "hsots": did you mean "hosts"?')
    assert told == 'unknown field "spec.hsots": did you mean "hosts"?'
    assert with_path("a", "something else") == "something else"
    assert with_path("a\\1", 'unknown field "x"') == 'unknown field "a\\1"'


def test_depth_is_measured_without_recursion() -> None:
    deep: Any = 1
    for _ in range(200_000):
        deep = [deep]
    assert not depth_is_bounded(deep)
    assert depth_is_bounded({"a": [{"b": 1}]}, 3)
    assert not depth_is_bounded({"a": [{"b": 1}]}, 2)
    while isinstance(deep, list):  # take it apart by hand: freeing it at once would recurse
        deep = deep.pop()


@pytest.mark.parametrize(
    ("resource", "name", "good"),
    [
        (SERVICE, "web", True), (SERVICE, "1web", False), (SERVICE, "a" * 64, False), (SERVICE, "web.x", False),
        (SERVICE, "web\n", False), (NAMESPACE, "1shop", True), (NAMESPACE, "a.b", False), (RULE, "a.b-c", True),
        (RULE, "a..b", False), (RULE, "A", False), (RULE, "a" * 254, False), (ROLE, "system:view", True),
        (ROLE, "a/b", False), (ROLE, "..", False), (RULE, "", False),
    ],
)  # fmt: skip
def test_names_follow_the_rules_of_their_kind(resource: Resource, name: str, good: bool) -> None:
    assert (check_metadata(resource, {"name": name}) == []) is good


@pytest.mark.parametrize(
    "metadata",
    [
        {"labels": {"a/b/c": "x"}}, {"labels": {"": "x"}}, {"labels": {"a": "x" * 64}}, {"labels": {"a": "x\n"}},
        {"labels": []}, {"annotations": {"a": None}}, {"finalizers": "x"}, {"finalizers": [""]},
        {"ownerReferences": {}}, {"managedFields": [5]}, {"annotations": {"-": "x"}},
    ],
)  # fmt: skip
def test_metadata_that_is_not_in_order_is_refused(metadata: dict[str, Any]) -> None:
    assert check_metadata(RULE, {"name": "a", **metadata}) != []


def admit(validation: str, body: dict[str, Any], duplicates: list[str]) -> tuple[dict[str, Any], list[str]]:
    def check(_resource: Resource, _version: str, body: dict[str, Any]) -> Findings:
        found = Findings()
        if "frob" in body["spec"]:
            found.unknown.append(("spec.frob", 'unknown field "frob"'))
        found.warnings.append(("spec", "mind this"))
        return found

    return Admission(check).admit(RULE, "v1", body, validation, duplicates)


def test_unknown_and_doubled_fields_are_refused_told_or_dropped() -> None:
    body = {"metadata": {"name": "a"}, "spec": {"frob": 1, "x": 2}}
    with pytest.raises(StatusError, match=r'unknown field "spec\.frob", duplicate field "x"') as refused:
        admit("Strict", body, ["x"])
    assert refused.value.code == 400
    kept, told = admit("Warn", body, ["x"])
    assert kept["spec"] == {"x": 2}
    assert told == ['unknown field "spec.frob"', 'duplicate field "x"', "spec: mind this"]
    assert admit("Ignore", body, ["x"]) == ({"metadata": {"name": "a"}, "spec": {"x": 2}}, ["spec: mind this"])


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(JSON, st.dictionaries(st.sampled_from(["name", "labels", "annotations", "finalizers", "x", "uid"]), JSON))
def test_any_body_is_an_object_in_order_or_a_refusal(body: Any, metadata: dict[str, Any]) -> None:
    for candidate in (body, {"metadata": metadata}, {"metadata": body, "spec": body}):
        try:
            made = check_envelope(RULE, "v1", candidate)
        except StatusError:
            continue
        check_metadata(RULE, made["metadata"])


def test_what_is_fixed_is_refused_with_the_field_and_other_kinds_named_alike_are_not_meant() -> None:
    secrets = Resource("", ("v1",), "Secret", "secrets", "secret")
    before, after = ({"metadata": {"name": "a"}, "immutable": True, "data": {"a": value}} for value in ("eA==", "eQ=="))
    door = Admission(lambda *_: Findings())
    with pytest.raises(StatusError, match="data: Forbidden: field is immutable") as refused:
        door.check_update(secrets, before, after)
    assert (refused.value.code, refused.value.body()["details"]["causes"][0]["field"]) == (422, "data")
    door.check_update(secrets, before, before)
    door.check_update(Resource("example.com", ("v1",), "Secret", "secrets", "secret"), before, after)
