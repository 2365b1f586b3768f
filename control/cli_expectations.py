"""Shell: `fairlead test FILE`: routes and policies held against what their owners expect of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from ..policy.expectations import Case, cases_of, differences, is_tests, manifests_of
from ..policy.explain_places import Places
from ..policy.explain_query import QueryError
from ..policy.explain_text import steps
from ..policy.world import World
from ..registry.documents import Document
from ..registry.styles import Style
from .cli_client import failed
from .cli_offline import explainer_of, live_world, read, style_of
from .settings import SettingError, give_way


class Result:
    def __init__(self, case: Case, wrong: list[str], answer: dict[str, Any] | None) -> None:
        self.case = case
        self.wrong = wrong
        self.answer = answer

    def to_json(self) -> dict[str, Any]:
        return {
            "source": self.case.source,
            "name": self.case.name,
            "passed": not self.wrong,
            "differences": self.wrong,
            "lines": [self.case.line_of(sentence) for sentence in self.wrong],
            "explanation": self.answer,
        }


def main(options: Any) -> int:
    """Exit code 0: all as expected; 1: something is not, or a manifest is not valid; 2: the tests cannot be read."""
    from .api_client import ApiError, UnreachableError

    documents, problems = read(options.files)
    tests = [one for one in documents if is_tests(one)]
    if problems:
        raise SettingError("; ".join(map(str, problems)))
    cases: list[Case] = []
    for document in tests:
        found, wrong = cases_of(document)
        if wrong:
            raise SettingError("; ".join(map(str, wrong)))
        cases += found
    if not cases:
        raise SettingError(f"{', '.join(options.files)}: no tests; a file of tests has a list `tests` at its top")
    manifests = [one for one in documents if not is_tests(one)]
    try:
        world, places, left_out = _world(options, tests, manifests)
    except (ApiError, UnreachableError) as error:
        return failed(str(error))
    results = _run(world, places, cases)
    if options.output == "text":
        _text(results, left_out, style_of(options), options.control or "")
    else:
        {"json": _json, "junit": _junit}[options.output](results, left_out)
    return 1 if left_out or any(result.wrong for result in results) else 0


def _world(options: Any, tests: list[Document], manifests: list[Document]) -> tuple[World, Places, list[str]]:
    """What is tested, and what of the manifests is not valid."""
    paths = list(options.filename)
    options.named = bool(manifests or any(manifests_of(document) for document in tests))
    give_way(options, "control", "filename", "named")
    if options.control:
        if paths:
            raise SettingError("give either -f PATH or --control URL")
        return *live_world(options), []
    if not paths:
        for document in tests:
            paths += [str(Path(document.file).parent / named) for named in manifests_of(document)]
    if not paths and not manifests:
        raise SettingError("no manifests: give -f PATH, --control URL, or `manifests: [PATH]` in the file of tests")
    documents, problems = read(list(dict.fromkeys(paths)))
    documents = [*manifests, *(one for one in documents if not is_tests(one))]
    world, reports = World.load(documents)
    left_out = [str(problem) for problem in problems]
    for report in reports:
        left_out += [
            f"{one.at or report.source}: {f'{one.path}: ' if one.path else ''}{one.message}" for one in report.errors
        ]
    return world, Places(documents), left_out


def _run(world: World, places: Places, cases: list[Case]) -> list[Result]:
    explainer = explainer_of(world, places)
    results = []
    for case in cases:
        try:
            answer = explainer.explain(case.question)
        except QueryError as error:  # a workload that is not there
            results.append(Result(case, [str(error)], None))
            continue
        results.append(Result(case, differences(case.expected, answer), answer))
    return results


def _text(results: list[Result], left_out: list[str], style: Style, control: str) -> None:
    for sentence in left_out:
        print("\n".join(style.lines("ERROR ", sentence, "", "bad")))
    for result in results:
        word, kind = ("FAIL ", "bad") if result.wrong else ("ok   ", "good")
        print("\n".join(style.lines(word, f" {result.case.source} {result.case.name}", "", kind)))
        for sentence in result.wrong:
            where = result.case.at(sentence)
            print("\n".join(style.lines("", sentence, "" if where == result.case.source else where, "", 8)))
        if result.wrong and result.answer is not None:
            print("        how it was decided:")
            print("\n".join(steps(result.answer["trace"], style, 10)))
    bad = sum(1 for result in results if result.wrong)
    told = f"{len(results)} {'test' if len(results) == 1 else 'tests'}, {bad} failed"
    told += f" in the live mesh of {control}" if control else ""
    told += f"; {len(left_out)} {'error' if len(left_out) == 1 else 'errors'} in the manifests" if left_out else ""
    print(style.paint(told, "bad" if bad or left_out else "good"))


def _json(results: list[Result], left_out: list[str]) -> None:
    told = {"passed": not left_out and not any(one.wrong for one in results), "errors": left_out}
    print(json.dumps({**told, "tests": [result.to_json() for result in results]}, indent=2))


def _junit(results: list[Result], left_out: list[str]) -> None:
    bad = sum(1 for result in results if result.wrong)
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        f'<testsuite name="fairlead" tests="{len(results)}" failures="{bad}" errors="{len(left_out)}">',
    ]
    for sentence in left_out:
        lines.append(f'  <testcase classname="manifests" name={_attribute(sentence.partition(": ")[0])}>')
        lines.append(f"    <error message={_attribute(sentence)}/>\n  </testcase>")
    for result in results:
        file, _, line = result.case.source.rpartition(":")
        opened = f"  <testcase classname={_attribute(file)} name={_attribute(result.case.name)}"
        opened += f' file={_attribute(file)} line="{line}"' if line.isdecimal() else ""
        if result.wrong:
            told = "\n".join(f"{result.case.at(sentence)}: {sentence}" for sentence in result.wrong)
            failure = f"<failure message={_attribute('; '.join(result.wrong))}>{escape(_printable(told))}</failure>"
            lines.append(f"{opened}>\n    {failure}\n  </testcase>")
        else:
            lines.append(f"{opened}/>")
    print("\n".join([*lines, "</testsuite>"]))


def _attribute(text: str) -> str:
    return quoteattr(_printable(text))


def _printable(text: str) -> str:
    """What XML 1.0 can hold of a text."""
    return "".join(one if one >= " " or one in "\t\n" else "\N{REPLACEMENT CHARACTER}" for one in text)
