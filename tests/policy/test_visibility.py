"""Who sees a rule: exportTo, subsets of labels, references to gateways."""

from __future__ import annotations

import pytest

from fairlead.policy.visibility import exported, gateway_name, labels_hold


@pytest.mark.parametrize(
    ("export_to", "client", "seen"),
    [
        ([], "b", True), (["*"], "b", True), (["."], "b", False), (["."], "a", True), (["b"], "b", True),
        (["a"], "b", False), (["x", "."], "a", True), (["~"], "a", False), ([""], "b", False),
    ],
)  # fmt: skip
def test_a_rule_of_a_is_seen_where_it_is_exported_to(export_to: list[str], client: str, seen: bool) -> None:
    assert exported(export_to, "a", client) is seen


def test_labels_hold_where_all_that_are_wanted_are_there() -> None:
    assert labels_hold({}, {})
    assert labels_hold({"a": "x"}, {"a": "x", "b": "y"})
    assert not labels_hold({"a": "x", "b": "y"}, {"a": "x"})
    assert not labels_hold({"a": ""}, {})


def test_a_gateway_without_a_namespace_is_of_the_rules_own() -> None:
    assert [gateway_name(one, "d") for one in ("mesh", "edge", "infra/edge")] == ["mesh", "d/edge", "infra/edge"]
