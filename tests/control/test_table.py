"""Rows for people."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.control.table import COLUMNS, age, selector_text, table


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [(0, "0s"), (-5, "0s"), (119, "119s"), (120, "2m"), (185, "3m5s"), (3600, "60m"), (10860, "3h1m"), (10800, "3h"),
     (90000, "25h"), (172800, "2d"), (86400 * 800, "2y")],
)  # fmt: skip
def test_ages_are_as_kubectl_shows_them(seconds: int, shown: str) -> None:
    assert age("2026-01-01T00:00:00Z", 1767225600.0 + seconds) == shown


@pytest.mark.parametrize("stamp", [None, "", "yesterday", 5, "9" * 30])
def test_an_age_that_is_not_known_is_so_shown(stamp: Any) -> None:
    assert age(stamp, 0.0) == "<unknown>"


def test_selectors_are_shown_on_one_line() -> None:
    assert selector_text({"app": "web"}) == "app=web"
    assert selector_text({}) == "<none>"
    assert selector_text(None) == "<none>"
    selector = {
        "matchLabels": {"a": "b"},
        "matchExpressions": [
            {"key": "t", "operator": "In", "values": ["x", "y"]},
            {"key": "u", "operator": "DoesNotExist"},
        ],
    }
    assert selector_text(selector) == "a=b,t in (x,y),!u"


VALUES = st.recursive(
    st.none() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(
        st.sampled_from(["spec", "ports", "selector", "metadata", "annotations", "status", "endpoints", "rules",
                         "matchExpressions", "containers", "conditions", "addresses", "data", "name"]),
        inner, max_size=4,
    ),
)  # fmt: skip


@settings(max_examples=200)
@given(
    resource=st.sampled_from([*COLUMNS, "others"]),
    body=st.dictionaries(st.sampled_from(["spec", "metadata", "status", "endpoints", "data", "roleRef"]), VALUES),
)
def test_whatever_was_stored_a_row_can_be_made_of_it(resource: str, body: dict[str, Any]) -> None:
    shown = table(resource, [{"metadata": {}, **body}], {}, 0.0)
    assert len(shown["rows"][0]["cells"]) == len(shown["columnDefinitions"])
