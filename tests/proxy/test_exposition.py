"""Prometheus' text format, read back by a strict parser."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.proxy import exposition
from tests.proxy.prometheus_text import parse

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@given(st.dictionaries(st.sampled_from(["a", "b", "le_not", "_c"]), TEXT), st.integers(-(1 << 60), 1 << 60))
def test_any_label_value_comes_back_as_it_was(labels: dict[str, str], value: int) -> None:
    kinds, samples = parse(exposition.family("x_total", "counter", "Text.", [(labels, value)]))
    assert kinds == {"x_total": "counter"}
    assert samples == {("x_total", tuple(sorted(labels.items()))): float(value)}


@given(st.floats(allow_nan=False))
def test_any_number_comes_back_as_it_was(value: float) -> None:
    assert float(exposition.number(value)) == value


@pytest.mark.parametrize(
    ("value", "text"), [(0, "0"), (3.0, "3"), (0.5, "0.5"), (1e15, "1000000000000000.0"), (-0.25, "-0.25")]
)
def test_whole_numbers_have_no_fraction(value: float, text: str) -> None:
    assert exposition.number(value) == text


def test_numbers_that_are_none_are_written_as_prometheus_reads_them() -> None:
    assert math.isnan(float(exposition.number(math.nan)))
    assert float(exposition.number(math.inf)) == math.inf


def test_a_family_without_samples_says_nothing() -> None:
    assert exposition.family("x", "gauge", "Text.", []) == []
    assert exposition.histogram("x", "Text.", (1, 2), []) == []


def test_a_histogram_counts_up_to_its_last_bucket() -> None:
    lines = exposition.histogram("x", "Text.", (0.5, 1, 10), [('a="b"', [1, 0, 2, 4], 99.5), ("", [0, 0, 0, 1], 11)])
    assert lines == [
        "# HELP x Text.",
        "# TYPE x histogram",
        'x_bucket{a="b",le="0.5"} 1',
        'x_bucket{a="b",le="1"} 1',
        'x_bucket{a="b",le="10"} 3',
        'x_bucket{a="b",le="+Inf"} 7',
        'x_sum{a="b"} 99.5',
        'x_count{a="b"} 7',
        'x_bucket{le="0.5"} 0',
        'x_bucket{le="1"} 0',
        'x_bucket{le="10"} 0',
        'x_bucket{le="+Inf"} 1',
        "x_sum 11",
        "x_count 1",
    ]
    assert parse(lines)[0] == {"x": "histogram"}


@pytest.mark.parametrize(
    "lines",
    [
        ["x 1"],
        ["# TYPE x counter", "y 1"],
        ["# TYPE x counter", "x 1", "x 2"],
        ["# TYPE x counter", "x 1", "# TYPE x counter"],
        ["# TYPE x counter", 'x{a="1",a="2"} 1'],
        ["# TYPE x counter", 'x{a="b\\c"} 1'],
        ["# TYPE x counter", "x{} one"],
        ["# TYPE x histogram", 'x_bucket{le="1"} 2', 'x_bucket{le="+Inf"} 1', "x_sum 1", "x_count 1"],
    ],
)
def test_the_parser_of_these_tests_is_strict(lines: list[str]) -> None:
    with pytest.raises(ValueError):
        parse(lines)
