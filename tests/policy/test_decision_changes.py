"""Copies of decisions: everything is in them, and the original stays as it was."""

from __future__ import annotations

import inspect
from typing import Any

from fairlead.policy.decision_changes import with_changes
from fairlead.policy.tables import Decision, Destination

FIELDS = [name for name in inspect.signature(Decision.__init__).parameters if name not in ("self", "verdict")]


def values(decision: Decision) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in ("verdict", "total_weight", *FIELDS)}


def test_a_copy_has_every_field_also_those_that_will_be_added() -> None:
    marks: dict[str, Any] = {name: object() for name in FIELDS}
    marks["destinations"] = (Destination("c", "h", 80, weight=3), Destination("d", "h", 80, weight=4))
    made = Decision("route", **marks)
    assert values(with_changes(made)) == values(made)


def test_only_what_is_changed_differs_and_weights_are_summed_anew() -> None:
    made = Decision("route", path="/a", destinations=(Destination("c", "h", 80),))
    other = [Destination("d", "h", 80, weight=7)]
    changed = with_changes(made, path="", destinations=other)
    assert values(changed) == values(made) | {"path": "", "destinations": tuple(other), "total_weight": 7}
    assert (made.path, made.total_weight) == ("/a", 100)
