"""Tests of routes and policies as users write them: read, checked, and held against explanations. Pure.

    tests:
    - name: readers get the stable catalogue
      from: default/front-1
      request: GET http://catalogue.default:8080/items
      expect: {to: "catalogue:8080", subset: v1, allowed: true}

Beside `request`, a test has the keys of a question to `explain` (from, from_labels, source_ip, ...); what stands in
`defaults` holds for every test of the file. `expect` names parts of the explanation, or shorter words for them
(SHORTER); what it does not name may be anything.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..registry.documents import Document, Problem
from .explain_query import Query, QueryError

FILE_KEYS = ("tests", "defaults", "manifests")
ANSWER_KEYS = (
    "verdict", "status", "reason", "virtualService", "route", "destinations", "request", "response", "redirect",
    "directResponse", "timeout_s", "retries", "fault", "mirrors", "endpoints", "policy",
)  # fmt: skip
SHORTER: Mapping[str, str] = {
    "to": "HOST or HOST:PORT of the destination, or a list of them, in order; HOST as short as you like",
    "subset": "of the destination, or a list of them; null: none",
    "allowed": "policy.allowed",
    "by": "policy.by, whole or its beginning (kind and name)",
    "path": "request.path",
    "authority": "request.authority",
    "location": "redirect.location",
    "body": "directResponse.body",
}


class Case:
    """One test: a question, and what its answer must have."""

    __slots__ = ("_document", "_path", "expected", "name", "question", "source")

    def __init__(
        self, document: Document, path: str, name: str, question: dict[str, Any], expected: dict[str, Any]
    ) -> None:
        self._document = document
        self._path = path
        self.source = document.at(path)
        """`file.yaml:12`."""
        self.name = name
        self.question = question
        self.expected = expected

    def line_of(self, difference: str) -> int | None:
        """The line of the expectation that a sentence of `differences` is about; None where lines are not known."""
        path = f"{self._path}.expect.{difference.partition(': ')[0]}"
        return self._document.line_of(path) or self._document.line or None

    def at(self, difference: str) -> str:
        """`file.yaml:14` of it."""
        line = self.line_of(difference)
        return f"{self._document.file}:{line}" if line else self._document.file


def is_tests(document: Document) -> bool:
    """Whether a document is a file of tests, and no manifest."""
    return not document.kind and "tests" in document.body


def manifests_of(document: Document) -> list[str]:
    """Paths that the file names, as written."""
    named = document.body.get("manifests") or []
    return [named] if isinstance(named, str) else [one for one in named if isinstance(one, str)]


def cases_of(document: Document) -> tuple[list[Case], list[Problem]]:
    """The tests of a file, and what of it cannot be used."""
    body = document.body
    problems = [_unknown(document, key, key, FILE_KEYS) for key in body if key not in FILE_KEYS]
    named = body.get("manifests") or []
    if not isinstance(named, str) and not (isinstance(named, list) and all(isinstance(one, str) for one in named)):
        problems.append(_problem(document, "manifests", "expected a path or a list of paths"))
    defaults = body.get("defaults") or {}
    if not isinstance(defaults, dict):
        problems.append(_problem(document, "defaults", "expected an object with keys such as `from`"))
        defaults = {}
    tests = body["tests"]
    if not isinstance(tests, list) or not tests:
        problems.append(_problem(document, "tests", "expected a list of tests, with at least one"))
        tests = []
    cases = []
    for number, test in enumerate(tests):
        at = f"tests[{number}]"
        case = _case(document, at, test, defaults, problems)
        if case is not None:
            cases.append(case)
    return cases, problems


def _case(document: Document, at: str, test: Any, defaults: dict[str, Any], problems: list[Problem]) -> Case | None:
    before = len(problems)
    if not isinstance(test, dict):
        problems.append(_problem(document, at, "expected an object with `request` and `expect`"))
        return None
    question = {key: value for key, value in test.items() if key not in ("name", "request", "expect")}
    request, expected, name = test.get("request"), test.get("expect"), test.get("name")
    if isinstance(request, str):
        method, space, url = request.strip().partition(" ")
        question |= {"method": method, "url": url.strip()} if space else {"url": method}
    elif isinstance(request, dict):
        question |= request
    else:
        problems.append(_problem(document, f"{at}.request", "expected `METHOD URL`, or an object with `url`"))
    if not isinstance(expected, dict) or not expected:
        words = ", ".join((*ANSWER_KEYS, *SHORTER))
        problems.append(_problem(document, f"{at}.expect", f"expected an object with at least one of {words}"))
        expected = {}
    for key in expected:
        if key not in ANSWER_KEYS and key not in SHORTER:
            problems.append(_unknown(document, f"{at}.expect.{key}", key, (*ANSWER_KEYS, *SHORTER)))
    if len(problems) == before:
        try:
            question = {**defaults, **question}
            Query(question)
        except QueryError as error:
            problems.append(_problem(document, at, str(error)))
    if len(problems) > before:
        return None
    told = str(name) if name else f"{question.get('method') or 'GET'} {question['url']}"
    return Case(document, at, told, question, expected)


def _problem(document: Document, path: str, message: str) -> Problem:
    return Problem(document.at(path), message, path)


def _unknown(document: Document, path: str, key: str, known: Iterable[str]) -> Problem:
    near = difflib.get_close_matches(str(key), list(known), 1)
    hint = f"did you mean {near[0]}?" if near else f"known are {', '.join(known)}"
    return _problem(document, path, f"unknown; {hint}")


# --- the answer -------------------------------------------------------------------------------------------------------


def differences(expected: Mapping[str, Any], answer: Mapping[str, Any]) -> list[str]:
    """In what an explanation is not as expected, a sentence each; none: it is."""
    found: list[str] = []
    for key, value in expected.items():
        if key == "to":
            _destinations(value, answer, found)
        elif key == "subset":
            got: Any = [one["subset"] for one in answer["destinations"]]
            _compare(key, value, got if isinstance(value, list) else _one(got), found)
        elif key == "by":
            by = answer["policy"]["by"]
            if by != value and not (isinstance(value, str) and by is not None and by.startswith(f"{value} ")):
                found.append(f"by: expected {_shown(value)}, got {_shown(by)} ({answer['policy']['why']})")
        elif key == "endpoints" and isinstance(value, list) and all(isinstance(one, str) for one in value):
            ready = sorted(f"{one['address']}:{one['port']}" for one in answer["endpoints"] if one["ready"])
            if ready != sorted(value):
                found.append(f"endpoints: expected {_shown(sorted(value))} to be ready, got {_shown(ready)}")
        elif key in SHORTER:
            part, _, field = SHORTER[key].partition(".")
            _compare(key, value, (answer[part] or {}).get(field), found)
        else:
            _compare(key, value, answer[key], found)
    return found


def _one(values: list[Any]) -> Any:
    """The only one, whichever of equal ones, or all of them."""
    return values[0] if values and all(value == values[0] for value in values) else values or None


def _destinations(value: Any, answer: Mapping[str, Any], found: list[str]) -> None:
    got = answer["destinations"]
    wanted = value if isinstance(value, list) else [value] * max(1, len(got))
    if len(wanted) == len(got) and all(_is_host(one, other) for one, other in zip(wanted, got, strict=True)):
        return
    told = [f"{one['host']}:{one['port']}" for one in got]
    found.append(f"to: expected {_shown(value)}, got {_shown(_one(told)) if told else 'no destination'}")


def _is_host(wanted: Any, destination: Mapping[str, Any]) -> bool:
    host, colon, port = str(wanted).partition(":")
    own: str = destination["host"]
    return (own == host or own.startswith(f"{host}.")) and (not colon or port == str(destination["port"]))


def _compare(path: str, wanted: Any, got: Any, found: list[str]) -> None:
    """An object must have what is named of it, a list be as long, anything else be equal."""
    if isinstance(wanted, dict) and isinstance(got, Mapping):
        for key, value in wanted.items():
            below = f"{path}.{key}"
            if key in got:
                _compare(below, value, got[key], found)
            elif value is not None:
                found.append(f"{below}: expected {_shown(value)}, there is none (there are {_shown(list(got))})")
    elif isinstance(wanted, list) and isinstance(got, list) and len(wanted) == len(got):
        for number, value in enumerate(wanted):
            _compare(f"{path}[{number}]", value, got[number], found)
    elif wanted != got or isinstance(wanted, bool) != isinstance(got, bool):
        found.append(f"{path}: expected {_shown(wanted)}, got {_shown(got)}")


def _shown(value: Any) -> str:
    """As YAML's flow style has it, near enough."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list):
        return f"[{', '.join(map(_shown, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{key}: {_shown(one)}" for key, one in value.items()) + "}"
    return repr(value) if isinstance(value, str) and _QUOTED.fullmatch(value) else str(value)


_QUOTED = re.compile(r"|\s.*|.*\s|[-+.0-9]+|true|false|null|~", re.DOTALL)
"""Texts that YAML would read as something else."""
