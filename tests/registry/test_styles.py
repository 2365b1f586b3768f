"""Text for people: when it is coloured, how it is wrapped, and that what strangers wrote cannot steer a terminal."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.registry.styles import CONTROLS, WIDTH_MIN, Style, wants_colour

ANSI = re.compile(r"\x1b\[[0-9;]*m")


@pytest.mark.parametrize(
    ("choice", "environment", "terminal", "wanted"),
    [
        ("auto", {}, True, True),
        ("auto", {}, False, False),
        ("auto", {"NO_COLOR": "1"}, True, False),
        ("auto", {"NO_COLOR": ""}, True, True),
        ("auto", {"FORCE_COLOR": "1"}, False, True),
        ("auto", {"FORCE_COLOR": "0"}, False, False),
        ("auto", {"NO_COLOR": "1", "FORCE_COLOR": "1"}, True, False),
        ("auto", {"TERM": "dumb"}, True, False),
        ("always", {"NO_COLOR": "1"}, False, True),
        ("never", {"FORCE_COLOR": "1"}, True, False),
    ],
)
def test_the_flag_comes_before_the_environment_and_that_before_the_terminal(
    choice: str, environment: dict[str, str], terminal: bool, wanted: bool
) -> None:
    assert wants_colour(choice, environment, terminal) is wanted


def test_without_a_width_a_line_stays_whole_and_its_place_stands_at_its_end() -> None:
    assert Style().lines("+ ", "x " * 200 + "y", "a.yaml:3", "good", 2) == ["  + " + "x " * 200 + "y  a.yaml:3"]


def test_a_long_line_is_wrapped_beside_its_mark() -> None:
    lines = Style(width=40).lines("- ", "one two three four five six seven eight nine ten", "a.yaml:12", "", 4)
    assert lines == ["    - one two three four five six seven", "      eight nine ten  a.yaml:12"]


def test_control_characters_are_shown_and_not_obeyed() -> None:
    (line,) = Style(colour=True).lines("", "evil\x1b[2J\r\n\x9b", "f\x07.yaml")
    assert "\x1b[2J" not in line and "evil\\x1b[2J\\r\\n\\x9b" in line and "\\x07" in line


@given(text=st.text(st.sampled_from("ab -:/"), max_size=300), where=st.sampled_from(["", "a.yaml:1"]),
       width=st.integers(1, 120), indent=st.integers(0, 8))  # fmt: skip
def test_colour_adds_no_column_and_wrapping_loses_no_word(text: str, where: str, width: int, indent: int) -> None:
    plain = Style(width=width).lines("+ ", text, where, "good", indent)
    coloured = Style(True, width).lines("+ ", text, where, "good", indent)
    assert [ANSI.sub("", line) for line in coloured] == plain
    words = " ".join(plain).split()
    assert words == ["+", *text.split(), *([where] if where else [])]
    longest = max((len(word) for word in words), default=0)
    assert all(len(line) <= max(width, WIDTH_MIN, longest + indent + 2, 22 + indent) for line in plain)


def test_text_that_would_be_shown_in_another_order_is_written_out() -> None:
    assert "a\u202eb\u2066c\u200f\td".translate(CONTROLS) == "a\\u202eb\\u2066c\\u200f\td"
