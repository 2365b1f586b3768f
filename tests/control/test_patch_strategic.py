"""Strategic merge patches as kubectl sends them."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.patch import PatchError
from fairlead.control.patch_strategic import rules_of, strategic_patch

SERVICE: dict[str, Any] = {
    "metadata": {"name": "web", "labels": {"a": "b"}, "finalizers": ["x", "y"]},
    "spec": {
        "selector": {"app": "web"},
        "ports": [{"name": "http", "port": 80}, {"name": "https", "port": 443}],
        "externalIPs": ["10.0.0.1"],
    },
}


def patched(patch: Any, resource: str = "services") -> Any:
    before = copy.deepcopy(SERVICE)
    result = strategic_patch(SERVICE, patch, rules_of(resource))
    assert before == SERVICE
    return result


def test_lists_with_a_key_are_merged_by_it_and_others_replaced() -> None:
    result = patched({"spec": {"ports": [{"port": 443, "name": "tls"}, {"port": 90}], "externalIPs": ["10.0.0.2"]}})
    assert result["spec"]["ports"] == [
        {"name": "http", "port": 80},
        {"name": "tls", "port": 443},
        {"port": 90},
    ]
    assert result["spec"]["externalIPs"] == ["10.0.0.2"]


def test_items_and_fields_are_deleted_by_directive_and_by_null() -> None:
    result = patched({"metadata": {"labels": None}, "spec": {"ports": [{"port": 80, "$patch": "delete"}]}})
    assert "labels" not in result["metadata"]
    assert result["spec"]["ports"] == [{"name": "https", "port": 443}]


def test_a_list_can_be_replaced_as_a_whole() -> None:
    result = patched({"spec": {"ports": [{"$patch": "replace"}, {"port": 1}]}})
    assert result["spec"]["ports"] == [{"port": 1}]


def test_an_object_can_be_replaced_and_emptied() -> None:
    assert patched({"metadata": {"labels": {"$patch": "replace", "c": "d"}}})["metadata"]["labels"] == {"c": "d"}
    assert patched({"metadata": {"labels": {"$patch": "delete"}}})["metadata"]["labels"] == {}


def test_the_order_of_a_list_is_set_apart_from_its_items() -> None:
    result = patched(
        {"spec": {"$setElementOrder/ports": [{"port": 443}, {"port": 22}, {"port": 80}], "ports": [{"port": 22}]}}
    )
    assert [port["port"] for port in result["spec"]["ports"]] == [443, 22, 80]


def test_sets_grow_and_shrink_by_value() -> None:
    result = patched({"metadata": {"finalizers": ["y", "z"], "$deleteFromPrimitiveList/finalizers": ["x"]}})
    assert result["metadata"]["finalizers"] == ["y", "z"]


def test_only_retained_keys_stay() -> None:
    result = patched({"spec": {"$retainKeys": ["ports"], "type": "ClusterIP"}})
    assert set(result["spec"]) == {"ports", "type"}


def test_container_ports_below_containers_are_merged_too() -> None:
    pod = {"spec": {"containers": [{"name": "main", "image": "a", "ports": [{"containerPort": 80, "name": "http"}]}]}}
    patch = {"spec": {"containers": [{"name": "main", "ports": [{"containerPort": 90}]}]}}
    result = strategic_patch(pod, patch, rules_of("pods"))
    assert result["spec"]["containers"][0]["ports"] == [{"containerPort": 80, "name": "http"}, {"containerPort": 90}]
    assert result["spec"]["containers"][0]["image"] == "a"


@pytest.mark.parametrize(
    "patch",
    [
        [],
        5,
        {"$patch": "frob"},
        {"spec": {"ports": [{"name": "x"}]}},
        {"spec": {"ports": [5]}},
        {"spec": {"$setElementOrder/ports": 5}},
        {"metadata": {"$deleteFromPrimitiveList/finalizers": {}}},
        {"spec": {"$retainKeys": "x"}},
    ],
)
def test_a_patch_that_makes_no_sense_is_refused(patch: Any) -> None:
    with pytest.raises(PatchError):
        patched(patch)


KEYS = st.sampled_from(
    ["spec", "metadata", "ports", "port", "name", "finalizers", "$patch", "$setElementOrder/ports", "$retainKeys",
     "$deleteFromPrimitiveList/finalizers"]
)  # fmt: skip
ANY = st.recursive(
    st.none() | st.booleans() | st.sampled_from(["delete", "replace", "merge", "x", 80, 443]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)


@given(ANY, ANY)
def test_any_patch_of_anything_is_applied_or_refused(target: Any, patch: Any) -> None:
    before = copy.deepcopy((target, patch))
    try:
        strategic_patch(target, patch, rules_of("services"))
    except PatchError:
        pass
    assert (target, patch) == before
