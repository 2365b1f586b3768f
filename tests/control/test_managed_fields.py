"""Ownership of fields, and server-side apply."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.managed_fields import ApplyConflict, after_update, fields_of, read_owners, server_side_apply

NOW = "2026-01-01T00:00:00Z"


def apply(
    live: dict[str, Any] | None, config: dict[str, Any], manager: str = "me", force: bool = False, now: str = NOW
) -> dict[str, Any]:
    config = {"metadata": {"name": "web"}, **config}
    return server_side_apply(live, config, "services", manager, force, "v1", now)


def test_what_is_applied_first_becomes_the_object_and_is_owned() -> None:
    made = apply(None, {"spec": {"type": "ClusterIP", "ports": [{"port": 80, "name": "http"}]}})
    assert made["spec"]["ports"] == [{"port": 80, "name": "http"}]
    entry = made["metadata"]["managedFields"][0]
    assert entry["manager"] == "me"
    assert entry["operation"] == "Apply"
    assert entry["fieldsV1"] == {
        "f:spec": {
            "f:type": {},
            "f:ports": {'k:{"port":80,"protocol":"TCP"}': {".": {}, "f:port": {}, "f:name": {}}},
        }
    }


def test_a_field_that_its_manager_no_longer_applies_goes() -> None:
    made = apply(None, {"spec": {"type": "ClusterIP", "sessionAffinity": "None"}})
    made = apply(made, {"spec": {"type": "ClusterIP"}})
    assert made["spec"] == {"type": "ClusterIP"}


def test_a_list_item_that_its_manager_no_longer_applies_goes_and_others_items_stay() -> None:
    made = apply(None, {"spec": {"ports": [{"port": 80}, {"port": 90}]}})
    made = apply(made, {"spec": {"ports": [{"port": 443}]}}, "other")
    assert [port["port"] for port in made["spec"]["ports"]] == [443, 80, 90]
    made = apply(made, {"spec": {"ports": [{"port": 80}]}})
    assert sorted(port["port"] for port in made["spec"]["ports"]) == [80, 443]


def test_a_field_shared_with_another_manager_stays_until_both_drop_it() -> None:
    made = apply(None, {"spec": {"type": "ClusterIP", "a": 1}})
    made = apply(made, {"spec": {"type": "ClusterIP"}}, "other")
    made = apply(made, {"spec": {"a": 1}})
    assert made["spec"] == {"type": "ClusterIP", "a": 1}
    made = apply(made, {}, "other")
    assert made["spec"] == {"a": 1}


def test_another_managers_value_is_a_conflict_and_force_takes_it() -> None:
    made = apply(None, {"spec": {"type": "ClusterIP"}})
    with pytest.raises(ApplyConflict) as refused:
        apply(made, {"spec": {"type": "NodePort"}}, "other")
    assert refused.value.conflicts == [("me", ".spec.type")]
    made = apply(made, {"spec": {"type": "NodePort"}}, "other", force=True)
    assert made["spec"] == {"type": "NodePort"}
    owners = read_owners(made["metadata"])
    assert ("me", "Apply", "") not in owners
    assert ("f:spec", "f:type") in owners["other", "Apply", ""]


def test_applying_the_same_again_changes_nothing_at_all() -> None:
    made = apply(None, {"spec": {"ports": [{"port": 80}]}, "metadata": {"name": "web", "labels": {"a": "b"}}})
    again = apply(
        made, {"spec": {"ports": [{"port": 80}]}, "metadata": {"name": "web", "labels": {"a": "b"}}}, now="later"
    )
    assert again == made


def test_an_update_takes_what_it_changes_from_those_who_had_it() -> None:
    made = apply(None, {"spec": {"type": "ClusterIP", "a": 1}})
    updated = {**made, "spec": {"type": "ClusterIP", "a": 2}, "metadata": dict(made["metadata"])}
    after_update(made, updated, "services", ("editor", "Update", ""), "v1", NOW)
    metadata: Any = updated["metadata"]
    owners = read_owners(metadata)
    assert owners["me", "Apply", ""] == {("f:spec", "f:type")}
    assert owners["editor", "Update", ""] == {("f:spec", "f:a")}
    with pytest.raises(ApplyConflict):
        apply(updated, {"spec": {"type": "ClusterIP", "a": 1}})


def test_an_update_without_a_change_leaves_no_trace() -> None:
    made = apply(None, {"spec": {"type": "ClusterIP"}})
    same = {**made, "metadata": dict(made["metadata"])}
    after_update(made, same, "services", ("editor", "Update", ""), "v1", "later")
    assert same == made


@pytest.mark.parametrize(
    "nonsense",
    [5, [5], [{}], [{"manager": 5, "fieldsV1": {"f:spec": 5}}], [{"manager": "me", "operation": "Apply",
     "fieldsV1": {"f:spec": {"f:ports": {"k:{broken": {}, "k:5": {}, "v:x": {}}}}}]],
)  # fmt: skip
def test_nonsense_in_managed_fields_does_no_harm(nonsense: Any) -> None:
    live = {"metadata": {"name": "web", "managedFields": nonsense}, "spec": {"ports": [{"port": 80}]}}
    assert apply(live, {"spec": {"ports": [{"port": 80}]}})["spec"] == {"ports": [{"port": 80}]}


def port_number(port: Any) -> int:
    number: int = port["port"]
    return number


SPECS = st.fixed_dictionaries(
    {},
    optional={
        "type": st.sampled_from(["ClusterIP", "NodePort"]),
        "selector": st.dictionaries(st.sampled_from("ab"), st.sampled_from("xy"), max_size=2),
        "ports": st.lists(
            st.fixed_dictionaries({"port": st.integers(1, 3)}, optional={"name": st.sampled_from("pq")}),
            max_size=3,
            unique_by=port_number,
        ),
    },
)


@given(st.lists(SPECS, min_size=1, max_size=4))
def test_one_manager_alone_always_gets_exactly_what_it_applies(specs: list[Any]) -> None:
    live: dict[str, Any] | None = None
    for spec in specs:
        live = apply(live, {"spec": spec})
        left = fields_of({"spec": spec}, "services")
        assert {
            p: v for p, v in fields_of({"spec": live.get("spec", {})}, "services").items() if v not in ({}, [])
        } == {p: v for p, v in left.items() if v not in ({}, [])}


def test_who_owns_what_is_written_again_as_it_was_read_but_nothing_that_is_no_set_of_fields() -> None:
    def entry(manager: str, fields: dict[str, Any]) -> dict[str, Any]:
        return {"manager": manager, "operation": "Update", "apiVersion": "v1", "time": "t", "fieldsType": "FieldsV1",
                "fieldsV1": fields}  # fmt: skip

    kept: dict[str, Any] = {"f:spec": {"f:b": {}, "f:a": {}}}
    listed = [entry("one", kept), entry("two", {"f:spec": {"f:c": 5, "f:d": {"f:e": "x"}}})]
    before: dict[str, Any] = {"metadata": {"managedFields": listed}, "spec": {"a": 1, "b": 2}}
    after: dict[str, Any] = {"metadata": {"managedFields": listed}, "spec": {"a": 1, "b": 2, "z": 3}}
    after_update(before, after, "services", ("three", "Update", ""), "v1", "now")
    trees = {one["manager"]: one["fieldsV1"] for one in after["metadata"]["managedFields"]}
    assert trees["one"] == kept
    assert trees["two"] == {"f:spec": {"f:c": {}, "f:d": {"f:e": {}}}}
    assert trees["three"] == {"f:spec": {"f:z": {}}}
