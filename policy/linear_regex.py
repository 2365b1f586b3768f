"""Whole-string matching of regular expressions in time linear in the input, whatever the pattern.

RE2's promise with Python's parser: the pattern becomes a nondeterministic automaton, run as a deterministic one whose
states are made as inputs need them. Short inputs to patterns without dangerous repetition take Python's own engine,
which is faster. What RE2 does not know (look-around, back references) is refused, and word boundaries with it.
"""

from __future__ import annotations

import importlib
import re
import warnings
from typing import Any

_parser: Any = importlib.import_module("re._parser")
_constants: Any = importlib.import_module("re._constants")

PATTERN_CHARACTERS_MAX = 1024
"""As Istio's own limit."""
NODES_MAX = 4000
"""Size of the automaton; counted repetition multiplies."""
STATES_MAX = 1000
"""Deterministic states kept; beyond that the store starts anew."""
QUICK_CHARACTERS_MAX = 512
"""Longest input that Python's backtracking engine is given."""
QUICK_CHOICES_MAX = 3

_POSIX = {
    "alnum": "0-9A-Za-z", "alpha": "A-Za-z", "ascii": "\\x00-\\x7f", "blank": "\\t ", "cntrl": "\\x00-\\x1f\\x7f",
    "digit": "0-9", "graph": "!-~", "lower": "a-z", "print": " -~", "punct": "!-/:-@\\[-`{-~", "space": "\\t-\\r ",
    "upper": "A-Z", "word": "0-9A-Za-z_", "xdigit": "0-9A-Fa-f",
}  # fmt: skip


class RegexError(ValueError):
    """The pattern is not one that can be matched in linear time; `str()` says why."""


class Regex:
    """A pattern for whole strings. `matches(text)` takes time linear in `len(text)`."""

    __slots__ = ("_automaton", "_quick", "pattern")

    def __init__(self, pattern: str) -> None:
        tree = parse(pattern)
        self.pattern = pattern
        self._automaton = _Automaton(tree, bool(tree.state.flags & re.IGNORECASE), bool(tree.state.flags & re.DOTALL))
        choices = _choices(tree, inside=False)
        self._quick: re.Pattern[str] | None = None
        if choices <= QUICK_CHOICES_MAX:
            self._quick = _quietly(pattern, re.compile)

    def matches(self, text: str) -> bool:
        if self._quick is not None and len(text) <= QUICK_CHARACTERS_MAX:
            return self._quick.fullmatch(text) is not None
        return self._automaton.matches(text)


def parse(pattern: str) -> Any:
    """The pattern's tree; raises RegexError where it is not a pattern of RE2 as far as we go."""
    if len(pattern) > PATTERN_CHARACTERS_MAX:
        raise RegexError(f"the pattern is longer than {PATTERN_CHARACTERS_MAX} characters")
    try:
        return _quietly(pattern, _parser.parse)
    except (re.error, RecursionError, OverflowError, ValueError) as error:
        raise RegexError(f"not a regular expression: {error}") from error


def check(pattern: str) -> None:
    """Raises RegexError where `Regex` would; makes nothing that only matching needs."""
    tree = parse(pattern)
    _Automaton(tree, bool(tree.state.flags & re.IGNORECASE), bool(tree.state.flags & re.DOTALL))


def search_pattern(pattern: str) -> re.Pattern[str]:
    """For search and replace, where groups are needed: Python's engine, and only for patterns without danger."""
    tree = parse(pattern)
    if _choices(tree, inside=False) > QUICK_CHOICES_MAX:
        raise RegexError("too many repetitions and alternatives for replacing; at most three, not nested")
    compiled: re.Pattern[str] = _quietly(pattern, re.compile)
    return compiled


def _quietly(pattern: str, make: Any) -> Any:
    if "[" not in pattern:  # it is only about sets that Python warns, and to keep it from that costs as much as a parse
        return make(_translate(pattern), re.ASCII)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return make(_translate(pattern), re.ASCII)


def _translate(pattern: str) -> str:
    """RE2's spelling to Python's: POSIX classes, `\\z`, `\\A`."""
    if "[:" in pattern:
        pattern = re.sub(r"\[:([a-z]+):\]", lambda found: _POSIX.get(found[1], found[0]), pattern)
    return pattern.replace("\\z", "\\Z") if "\\z" in pattern else pattern


def _is_single(body: Any) -> bool:
    kinds = (_constants.LITERAL, _constants.NOT_LITERAL, _constants.IN, _constants.ANY)
    return len(body) == 1 and body[0][0] in kinds


def _choices(tree: Any, inside: bool) -> int:
    """Points at which a backtracking engine may have to try again; a thousand where their number multiplies."""
    total = 0
    for kind, value in tree:
        if kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
            low, high, body = value
            if inside:
                return 1000
            if low != high or not _is_single(body):
                total += 1 if _is_single(body) else 1 + _choices(body, inside=high not in (0, 1))
        elif kind is _constants.BRANCH:
            total += (1000 if inside else 1) + sum(_choices(branch, inside) for branch in value[1])
        elif kind is _constants.SUBPATTERN:
            total += _choices(value[-1], inside)
        elif kind not in (
            _constants.LITERAL,
            _constants.NOT_LITERAL,
            _constants.IN,
            _constants.ANY,
            _constants.AT,
        ):
            total += 1000
    return total


class _State:
    """A deterministic state: a set of the automaton's nodes, and where each character leads."""

    __slots__ = ("accepts", "next", "nodes")

    def __init__(self, nodes: frozenset[int], accepts: bool) -> None:
        self.nodes = nodes
        self.accepts = accepts
        self.next: dict[str, _State] = {}


class _Automaton:
    """Thompson's construction. Node n: `_skip[n]` leads on without a character, `_take[n]` is (test, target)."""

    def __init__(self, tree: Any, ignore_case: bool, dot_all: bool) -> None:
        self._skip: list[list[tuple[int, str]]] = []
        self._take: list[tuple[Any, int] | None] = []
        self._ignore_case = ignore_case
        self._dot_all = dot_all
        start, self._end = self._node(), self._node()
        self._build(tree, start, self._end)
        self._start = start
        self._states: dict[frozenset[int], _State] = {}
        nodes = self._closure({start}, at_start=True, at_end=False)
        self._first = _State(nodes, self._end in self._closure({start}, at_start=True, at_end=True))

    def matches(self, text: str) -> bool:
        state = self._first
        for character in text:
            following = state.next.get(character)
            if following is None:
                following = self._step(state, character)
            if not following.nodes:
                return False
            state = following
        return state.accepts

    def _step(self, state: _State, character: str) -> _State:
        reached = set()
        for node in state.nodes:
            take = self._take[node]
            if take is not None and take[0](character):
                reached.add(take[1])
        nodes = self._closure(reached, at_start=False, at_end=False)
        following = self._states.get(nodes)
        if following is None:
            if len(self._states) >= STATES_MAX:
                self._states.clear()
                self._first.next.clear()
            accepts = self._end in self._closure(reached, at_start=False, at_end=True)
            following = self._states[nodes] = _State(nodes, accepts)
        if len(state.next) < 256:
            state.next[character] = following
        return following

    def _closure(self, nodes: set[int], at_start: bool, at_end: bool) -> frozenset[int]:
        seen, todo = set(nodes), list(nodes)
        while todo:
            for target, condition in self._skip[todo.pop()]:
                if target in seen or (condition == "start" and not at_start) or (condition == "end" and not at_end):
                    continue
                seen.add(target)
                todo.append(target)
        return frozenset(seen)

    def _node(self) -> int:
        if len(self._skip) >= NODES_MAX:
            raise RegexError("the pattern is too large once its counted repetitions are written out")
        self._skip.append([])
        self._take.append(None)
        return len(self._skip) - 1

    def _build(self, tree: Any, start: int, end: int) -> None:
        """Nodes for the sequence `tree` that lead from `start` to `end`."""
        here = start
        for kind, value in tree:
            after = self._node()
            self._item(kind, value, here, after)
            here = after
        self._skip[here].append((end, ""))

    def _item(self, kind: Any, value: Any, start: int, end: int) -> None:
        if kind is _constants.SUBPATTERN:
            _group, added, removed, body = value
            before = self._ignore_case, self._dot_all
            self._ignore_case = bool((self._ignore_case or added & re.IGNORECASE) and not removed & re.IGNORECASE)
            self._dot_all = bool((self._dot_all or added & re.DOTALL) and not removed & re.DOTALL)
            self._build(body, start, end)
            self._ignore_case, self._dot_all = before
        elif kind is _constants.BRANCH:
            for branch in value[1]:
                own = self._node()  # a node takes one character's test only
                self._skip[start].append((own, ""))
                self._build(branch, own, end)
        elif kind in (_constants.MAX_REPEAT, _constants.MIN_REPEAT):
            low, high, body = value
            self._repeat(low, high, body, start, end)
        elif kind is _constants.AT:
            conditions = {
                _constants.AT_BEGINNING: "start",
                _constants.AT_BEGINNING_STRING: "start",
                _constants.AT_END: "end",
                _constants.AT_END_STRING: "end",
            }
            if value not in conditions:
                raise RegexError("word boundaries are not supported")
            self._skip[start].append((end, conditions[value]))
        else:
            self._take[start] = (self._test(kind, value), end)

    def _repeat(self, low: int, high: Any, body: Any, start: int, end: int) -> None:
        here = start
        for _ in range(low):
            after = self._node()
            self._build(body, here, after)
            here = after
        if high is _constants.MAXREPEAT:
            loop, inner = self._node(), self._node()
            self._skip[here].append((loop, ""))
            self._skip[loop] += [(inner, ""), (end, "")]
            self._build(body, inner, loop)
            return
        for _ in range(int(high) - low):
            inner, after = self._node(), self._node()
            self._skip[here] += [(inner, ""), (end, "")]
            self._build(body, inner, after)
            here = after
        self._skip[here].append((end, ""))

    def _test(self, kind: Any, value: Any) -> Any:
        if kind is _constants.LITERAL:
            own = chr(value)
            if self._ignore_case:
                both = (own.lower(), own.upper())
                return lambda character: character in both
            return lambda character: character == own
        if kind is _constants.NOT_LITERAL:
            own = chr(value)
            excluded = {own.lower(), own.upper()} if self._ignore_case else {own}
            return lambda character: character not in excluded
        if kind is _constants.ANY:
            return (lambda character: True) if self._dot_all else (lambda character: character != "\n")
        if kind is _constants.IN:
            return self._class(value)
        raise RegexError(f"{str(kind).lower()} is not supported: it cannot be matched in linear time")

    def _class(self, items: Any) -> Any:
        negate = bool(items) and items[0][0] is _constants.NEGATE
        tests = [_class_item(kind, value) for kind, value in items if kind is not _constants.NEGATE]
        ignore_case = self._ignore_case

        def test(character: str) -> bool:
            forms = (character, character.lower(), character.upper()) if ignore_case else (character,)
            return any(one(form[:1]) for form in forms for one in tests) != negate

        return test


def _class_item(kind: Any, value: Any) -> Any:
    if kind is _constants.LITERAL:
        return lambda character: character == chr(value)
    if kind is _constants.RANGE:
        low, high = chr(value[0]), chr(value[1])
        return lambda character: low <= character <= high
    pattern = {
        _constants.CATEGORY_DIGIT: "[0-9]",
        _constants.CATEGORY_NOT_DIGIT: "[^0-9]",
        _constants.CATEGORY_SPACE: r"[ \t\n\r\f\v]",
        _constants.CATEGORY_NOT_SPACE: r"[^ \t\n\r\f\v]",
        _constants.CATEGORY_WORD: "[0-9A-Za-z_]",
        _constants.CATEGORY_NOT_WORD: "[^0-9A-Za-z_]",
    }.get(value)
    if pattern is None:
        raise RegexError("a class of characters that is not supported")
    compiled = re.compile(pattern)
    return lambda character: compiled.match(character) is not None
