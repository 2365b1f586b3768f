"""Entries merged into kubeconfig files: never over what somebody else has put there."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from fairlead.control.kubeconfig import Entries, KubeconfigError, check, entry, merge

OURS = Entries("fairlead", {"server": "https://c:15012"}, "fairlead", {"token": "t"}, "fairlead", "shop")


def theirs() -> dict[str, Any]:
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "preferences": {"colors": True},
        "clusters": [{"name": "prod", "cluster": {"server": "https://prod", "x-unknown": 1}}],
        "users": [{"name": "prod", "user": {"exec": {"command": "aws"}}}],
        "contexts": [{"name": "prod", "context": {"cluster": "prod", "user": "prod"}}],
        "current-context": "prod",
    }


def test_an_empty_file_becomes_a_whole_one() -> None:
    config: dict[str, Any] = {}
    assert merge([("f", config)], 0, OURS) == {0}
    assert config["kind"] == "Config" and config["current-context"] == "fairlead"
    assert entry(config, "context", "fairlead") == {
        "name": "fairlead",
        "context": {"cluster": "fairlead", "user": "fairlead", "namespace": "shop"},
    }


def test_what_is_there_stays_and_so_does_the_current_context() -> None:
    config, before = theirs(), theirs()
    merge([("f", config)], 0, OURS)
    assert config["current-context"] == "prod"
    assert config["preferences"] == before["preferences"]
    for field in ("clusters", "users", "contexts"):
        assert config[field][0] == before[field][0] and len(config[field]) == 2
    merge([("f", config)], 0, OURS, use=True)
    assert config["current-context"] == "fairlead"


def test_a_second_time_changes_nothing() -> None:
    config = theirs()
    merge([("f", config)], 0, OURS)
    assert merge([("f", config)], 0, OURS) == set()


@pytest.mark.parametrize("kind", ["cluster", "user", "context"])
def test_another_of_the_same_name_is_replaced_by_force_only(kind: str) -> None:
    config = theirs()
    merge([("f", config)], 0, OURS)
    stands = entry(config, kind, "fairlead")
    assert stands is not None
    stands[kind] = {"other": "thing"}
    before = copy.deepcopy(config)
    with pytest.raises(KubeconfigError, match=f"f: there is another {kind} of the name fairlead already.*--force"):
        merge([("f", config)], 0, OURS)
    assert config == before
    merge([("f", config)], 0, OURS, force=True)
    assert entry(config, kind, "fairlead") == next(
        {"name": name, own: body} for own, name, body in OURS.listed() if own == kind
    )


def test_of_several_files_the_one_that_has_an_entry_is_changed() -> None:
    first, second = theirs(), {"users": [{"name": "fairlead", "user": {"token": "old"}}]}
    changed = merge([("a", first), ("b", second)], 0, OURS, force=True)
    assert changed == {0, 1}
    assert entry(second, "user", "fairlead") == {"name": "fairlead", "user": {"token": "t"}}
    assert entry(first, "user", "fairlead") is None and entry(first, "cluster", "fairlead") is not None


def test_a_namespace_chosen_later_is_no_other_context() -> None:
    plain = Entries("f", {"server": "s"}, "f", {}, "f")
    config: dict[str, Any] = {}
    merge([("f", config)], 0, plain)
    config["contexts"][0]["context"]["namespace"] = "chosen"
    assert merge([("f", config)], 0, plain) == set()


@pytest.mark.parametrize("config", [[], {"kind": "Pod"}, {"clusters": {}}, {"users": [5]}])
def test_what_is_no_kubeconfig_is_refused(config: Any) -> None:
    with pytest.raises(KubeconfigError, match="here"):
        check(config, "here")
