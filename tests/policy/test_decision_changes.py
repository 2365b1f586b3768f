"""Copies of decisions: everything is in them, and the original stays as it was."""

from __future__ import annotations

import ast
from pathlib import Path
from typing import Any

from fairlead.policy.decision_changes import with_changes
from fairlead.policy.tables import Decision, Destination, Fault, HeaderOps, Mirror, RetryPolicy, Verdict


def _fields() -> list[str]:
    """Keyword arguments of a Decision, from the source, since a compiled class does not tell them."""
    source = Path(__file__).resolve().parents[2] / "policy" / "tables.py"
    classes = {one.name: one for one in ast.parse(source.read_text()).body if isinstance(one, ast.ClassDef)}
    made = next(one for one in classes["Decision"].body if isinstance(one, ast.FunctionDef) and one.name == "__init__")
    return [argument.arg for argument in made.args.kwonlyargs]


FIELDS = _fields()


def values(decision: Decision) -> dict[str, Any]:
    return {name: getattr(decision, name) for name in ("verdict", "total_weight", *FIELDS)}


def test_a_copy_has_every_field_also_those_that_will_be_added() -> None:
    marks: dict[str, Any] = {
        "status": 503, "reason": "FL-X", "why": "because", "virtual_service": "default/v", "route": "r",
        "destinations": (Destination("c", "h", 80, weight=3), Destination("d", "h", 80, weight=4)),
        "authority": "other", "path": "/p", "request_headers": HeaderOps(), "response_headers": HeaderOps(),
        "timeout_s": 1.5, "retries": RetryPolicy(2, frozenset({"reset"})), "fault": Fault(0.5, 10.0),
        "mirrors": (Mirror("c", "h", 80),), "location": "/there", "body": b"body", "policy": Verdict(True),
    }  # fmt: skip
    assert list(marks) == FIELDS
    made = Decision("route", **marks)
    assert values(with_changes(made)) == values(made) == {"verdict": "route", "total_weight": 7, **marks}


def test_only_what_is_changed_differs_and_weights_are_summed_anew() -> None:
    made = Decision("route", path="/a", destinations=(Destination("c", "h", 80),))
    other = [Destination("d", "h", 80, weight=7)]
    changed = with_changes(made, path="", destinations=other)
    assert values(changed) == values(made) | {"path": "", "destinations": tuple(other), "total_weight": 7}
    assert (made.path, made.total_weight) == ("/a", 100)
