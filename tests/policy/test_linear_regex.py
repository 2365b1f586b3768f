"""Whole-string matching: the same answers as Python's engine, in linear time, RE2's limits."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.policy.linear_regex import Regex, RegexError, _Automaton, parse, search_pattern

PATTERNS = [
    "", "a", ".*", "a|b|", "(a|b)*c", "(?:ab)+", "a{2,3}", "a{0,2}b?", "[a-c]+[^a]", "[^ab]*", r"\d+\w*\s?", "(a*)*b",
    "^ab$", "(?i)aB[c-d]", "a+?b", "((a|ab)(c|bcd)(d*))", r"\.\-x", "(?s).b", "(a{1,2}){2}", "x*y*z*a*b*c*", "a(^b)",
]  # fmt: skip


@pytest.mark.parametrize("pattern", PATTERNS)
@settings(max_examples=150, deadline=None)
@given(text=st.text("abcABCdxyz .-1\n", max_size=10))
def test_the_automaton_agrees_with_pythons_engine(pattern: str, text: str) -> None:
    tree = parse(pattern)
    automaton = _Automaton(tree, bool(tree.state.flags & re.IGNORECASE), bool(tree.state.flags & re.DOTALL))
    expected = re.compile(pattern, re.ASCII).fullmatch(text) is not None
    assert automaton.matches(text) is expected
    assert automaton.matches(text) is expected, "the second time from the states kept"
    assert Regex(pattern).matches(text) is expected


@pytest.mark.parametrize("pattern", ["(a+)+b", "(a|a)*b", "(.*)(.*)(.*)(.*)(.*)(.*)x", "a?" * 25 + "a" * 25, "(a*)*b"])
def test_what_sends_backtracking_engines_astray_takes_no_time(pattern: str) -> None:
    regex = Regex(pattern)
    assert not regex.matches("a" * 20_000 + "!")


def test_many_different_characters_and_states_do_not_pile_up() -> None:
    regex = Regex("(a|b)*a(a|b){12}.*")
    text = "ab" * 3000
    assert regex.matches(text) is (re.fullmatch("(a|b)*a(a|b){12}.*", text) is not None)
    assert not Regex("[0-9]*" * 4).matches("".join(chr(0x4E00 + at) for at in range(2000)))


@pytest.mark.parametrize(
    "pattern", [r"(a)\1", "(?=a)", "(?!a)b", "(?<=a)b", r"\bword", "(", "a{1000}{1000}", "x" * 1025, "(?P<n>a)(?P=n)"]
)
def test_what_re2_does_not_know_is_refused(pattern: str) -> None:
    with pytest.raises(RegexError):
        Regex(pattern)


def test_posix_classes_are_translated() -> None:
    assert Regex("[[:alpha:]]+[[:digit:]]").matches("abc7")
    assert not Regex("[[:alpha:]]+").matches("é")


def test_replacing_takes_only_patterns_without_danger() -> None:
    assert search_pattern("^/user/([^/]+)").sub(r"/u/\1", "/user/amy/x") == "/u/amy/x"
    with pytest.raises(RegexError):
        search_pattern("(a+)+b")
