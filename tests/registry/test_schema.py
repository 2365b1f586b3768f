"""Schemas as data: the check, the normalised value, and OpenAPI."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.registry import schema as s

ROUTE = s.obj(
    "A route.",
    required=("host",),
    one_of=(("exact", "prefix"),),
    host=s.text("Name."),
    exact=s.text(),
    prefix=s.text(),
    perTryTimeout=s.duration(),
    weight=s.integer("", 0, 100),
    percent=s.decimal("", 0, 100),
    mode=s.text("", "STRICT", "PERMISSIVE"),
    port=s.int_or_text(),
    on=s.flag(),
    labels=s.STRINGS,
    from_=s.TEXTS,
    hard=s.refused("it is not done here"),
    soft=s.unused(s.integer(), "nobody asks for it"),
    need=s.items(s.text(), 1),
)


def look(value: Any) -> tuple[Any, s.Findings]:
    found = s.Findings()
    return s.check(ROUTE, value, "spec", found), found


def test_a_good_value_comes_back_normalised() -> None:
    made, found = look(
        {"host": "a", "per_try_timeout": "1m0.5s", "weight": 3, "from": ["x"], "port": "http", "on": None}
    )
    assert made == {"host": "a", "perTryTimeout": 60.5, "weight": 3, "from": ["x"], "port": "http"}
    assert (found.errors, found.unknown, found.warnings) == ([], [], [])


def test_everything_that_is_wrong_is_told_at_once_with_its_path() -> None:
    _, found = look(
        {
            "exact": "a", "prefix": "b", "perTryTimeout": "5", "weight": 101, "mode": "strict", "on": "yes",
            "labels": {"v": 1}, "from": "x", "hard": 1, "soft": 1, "wieght": 1, "need": [], "percent": "1", "port": 1.5,
        }
    )  # fmt: skip
    assert dict(found.errors) == {
        "spec": "only one of exact, prefix may be given, got exact and prefix",
        "spec.host": "Required value",
        "spec.perTryTimeout": 'Invalid value: "5": expected a duration with a unit, such as 5s or 100ms',
        "spec.weight": "Invalid value: 101: must be between 0 and 100, inclusive",
        "spec.mode": 'Unsupported value: "strict": supported values: "STRICT", "PERMISSIVE"; did you mean "STRICT"?',
        "spec.on": "expected true or false, got text ('yes')",
        "spec.labels[v]": "expected text in quotes, got a number ('1')",
        "spec.from": "expected a list, got text ('x')",
        "spec.hard": "may not be used: it is not done here",
        "spec.need": "Required value: must have at least one entry",
        "spec.percent": "expected a number, got text ('1')",
        "spec.port": "expected a number or a name, got a number ('1.5')",
    }
    assert found.unknown == [("spec.wieght", 'unknown field "wieght": did you mean "weight"?')]
    assert found.warnings == [("spec.soft", "has no effect: nobody asks for it")]


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5s", 5.0), ("1h2m3.5s", 3723.5), ("100ms", 0.1), ("1.5h", 5400.0), ("0", 0.0), ("-1s", -1.0), ("2us", 2e-6),
     (".5s", 0.5), ("1.s", 1.0)],
)  # fmt: skip
def test_durations_are_go_s(text: str, seconds: float) -> None:
    assert s.parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize("text", ["", "5", "s", "5 s", "1d", "1s1", "+", "-", ".s", "1e3s", "٣s"])
def test_other_text_is_no_duration(text: str) -> None:
    assert s.parse_duration(text) is None


@pytest.mark.parametrize("text", ["0s", "0.5ms", "1.0001s", "-1s"])
def test_durations_out_of_bounds_are_refused(text: str) -> None:
    found = s.Findings()
    assert s.check(s.duration(), text, "t", found) is None
    assert len(found.errors) == 1


def test_a_long_list_of_known_fields_is_named_where_none_is_near() -> None:
    _, found = look({"host": "a", "zzzzzz": 1})
    assert "known here: exact, from, " in found.unknown[0][1]


def test_openapi_allows_what_the_check_allows() -> None:
    made = s.openapi(ROUTE)
    assert made["description"] == "A route."
    assert made["required"] == ["host"]
    fields = made["properties"]
    assert fields["mode"] == {"type": "string", "enum": ["STRICT", "PERMISSIVE"]}
    assert fields["perTryTimeout"] == {"type": "string"}
    assert fields["labels"] == {"type": "object", "additionalProperties": {"type": "string"}}
    assert fields["from"] == {"type": "array", "items": {"type": "string"}}
    assert fields["port"]["x-kubernetes-int-or-string"] is True
    assert fields["weight"]["type"] == "integer"
    assert "nobody asks for it" in fields["soft"]["description"]


@pytest.mark.parametrize("text", ["99999999999999999999h", "315576000001s"])
def test_a_duration_that_no_timer_takes_is_an_error(text: str) -> None:
    _, found = look({"host": "a", "perTryTimeout": text})
    assert [(path, "must be at most" in told) for path, told in found.errors] == [("spec.perTryTimeout", True)]
