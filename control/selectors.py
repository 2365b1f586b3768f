"""Label and field selectors of list, watch and deletecollection requests, as text to predicates.

Grammar: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#api (equality- and set-based),
field selectors: `metadata.name`, `metadata.namespace` and other paths, with =, == and !=.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from .status import bad_request

Predicate = Callable[[Mapping[str, Any]], bool]

_KEY = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9.]*[A-Za-z0-9])?/)?[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?"
_VALUE = r"(?:[A-Za-z0-9](?:[-A-Za-z0-9_.]*[A-Za-z0-9])?)?"
# Blanks are taken possessively (*+): given back one by one, their time would grow with the square of their number.
_EQUALITY = re.compile(rf"\s*+({_KEY})\s*+(==|=|!=)\s*+({_VALUE})\s*+$")
_SET = re.compile(rf"\s*+({_KEY})\s++(in|notin)\s*+\(([^()]*)\)\s*+$")
_EXISTS = re.compile(rf"\s*+(!?)\s*+({_KEY})\s*+$")
_COMPARE = re.compile(rf"\s*+({_KEY})\s*+([<>])\s*+(-?\d{{1,18}})\s*+$")
LENGTH_MAX = 64_000


def label_predicate(text: str) -> Predicate | None:
    """What `labelSelector=` asks of an object; None: nothing. Raises StatusError 400."""
    tests = [_label_test(part) for part in _split(text)] if text.strip() else []
    if not tests:
        return None

    def matches(body: Mapping[str, Any]) -> bool:
        labels = (body.get("metadata") or {}).get("labels") or {}
        return all(test(labels) for test in tests)

    return matches


def _split(text: str) -> list[str]:
    """At commas outside of parentheses."""
    if len(text) > LENGTH_MAX:
        raise bad_request(f"selector: longer than {LENGTH_MAX} characters")
    parts, depth, start = [], 0, 0
    for position, character in enumerate(text):
        if character == "(":
            depth += 1
        elif character == ")":
            depth -= 1
        elif character == "," and depth == 0:
            parts.append(text[start:position])
            start = position + 1
    return [*parts, text[start:]]


def _label_test(part: str) -> Callable[[Mapping[str, str]], bool]:
    if found := _EQUALITY.match(part):
        key, operator, value = found.groups()
        if operator == "!=":
            return lambda labels: labels.get(key) != value
        return lambda labels: labels.get(key) == value
    if found := _SET.match(part):
        key, operator, listed = found.groups()
        values = {value.strip() for value in listed.split(",")}
        if not all(re.fullmatch(_VALUE, value) for value in values):
            raise bad_request(f"unable to parse label selector requirement {part.strip()!r}: not a label value")
        if operator == "notin":
            return lambda labels: labels.get(key) not in values
        return lambda labels: key in labels and labels[key] in values
    if found := _COMPARE.match(part):
        key, operator, bound = found.groups()
        return lambda labels: _compare(labels.get(key), operator, int(bound))
    if found := _EXISTS.match(part):
        negated, key = found.groups()
        return (lambda labels: key not in labels) if negated else (lambda labels: key in labels)
    raise bad_request(
        f"unable to parse label selector requirement {part.strip()!r}: expected key=value, key!=value, "
        "key in (a,b), key notin (a,b), key or !key"
    )


def _compare(value: str | None, operator: str, bound: int) -> bool:
    if value is None or not re.fullmatch(r"-?\d{1,18}", value):
        return False
    return int(value) > bound if operator == ">" else int(value) < bound


def field_predicate(text: str) -> Predicate | None:
    """What `fieldSelector=` asks of an object; None: nothing. Raises StatusError 400."""
    tests: list[tuple[list[str], bool, str]] = []
    for part in _split(text) if text.strip() else []:
        found = re.match(r"\s*([A-Za-z][A-Za-z0-9_.]*)\s*(==|=|!=)(.*)$", part)
        if not found:
            raise bad_request(f"invalid field selector {part.strip()!r}: expected path=value or path!=value")
        tests.append((found[1].split("."), found[2] != "!=", found[3].strip()))
    if not tests:
        return None
    return lambda body: all((_field(body, path) == value) is equal for path, equal, value in tests)


def _field(body: Any, path: list[str]) -> str:
    """The value at a path as text; empty where there is none."""
    for step in path:
        body = body.get(step) if isinstance(body, Mapping) else None
    if body is None or isinstance(body, (dict, list)):
        return ""
    return str(body).lower() if isinstance(body, bool) else str(body)


def both(first: Predicate | None, second: Predicate | None) -> Predicate | None:
    if first is None or second is None:
        return first or second
    one, two = first, second
    return lambda body: one(body) and two(body)


def selector_predicate(selector: Mapping[str, Any]) -> Predicate:
    """What a LabelSelector object (matchLabels, matchExpressions) asks of an object; a part that cannot be read matches
    nothing. An empty selector matches everything."""
    expressions = [one for one in selector.get("matchExpressions") or () if isinstance(one, Mapping)]

    def matches(body: Mapping[str, Any]) -> bool:
        labels = (body.get("metadata") or {}).get("labels") or {}
        return all(labels.get(key) == value for key, value in (selector.get("matchLabels") or {}).items()) and all(
            _expression_holds(one, labels) for one in expressions
        )

    return matches


def _expression_holds(expression: Mapping[str, Any], labels: Mapping[str, str]) -> bool:
    key, operator, values = expression.get("key"), expression.get("operator"), expression.get("values") or ()
    if not isinstance(key, str):
        return False
    if operator == "In":
        return key in labels and labels[key] in values
    if operator == "NotIn":
        return key not in labels or labels[key] not in values
    if operator == "Exists":
        return key in labels
    return operator == "DoesNotExist" and key not in labels
