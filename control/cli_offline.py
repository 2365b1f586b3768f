"""Shell: the verbs that need no running mesh: version, validate, explain, policy matrix."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from typing import Any

from ..policy.explain import Explainer
from ..policy.explain_places import Places
from ..policy.explain_query import QueryError
from ..policy.explain_text import render, steps
from ..policy.matrix import matrix as matrix_of
from ..policy.trace import place
from ..policy.validate import Report
from ..policy.validate import validate as validate_documents
from ..policy.world import World
from ..registry.documents import Document, Problem, load
from ..registry.snapshot import Snapshot
from ..registry.styles import Style, wants_colour
from .cli_client import failed, print_columns, read_texts
from .settings import REGISTRIES, SettingError, columns, give_way


def read(paths: list[str]) -> tuple[list[Document], list[Problem]]:
    """All documents below the paths, and everything that could not be read."""
    documents: list[Document] = []
    problems: list[Problem] = []
    for path in paths:
        unreadable: list[str] = []
        for source, text in read_texts(path, unreadable):
            found, wrong = load(text, source)
            documents += found
            problems += wrong
        problems += [Problem(path, sentence.removeprefix(f"{path}: ")) for sentence in unreadable]
    return documents, problems


def version(options: Any) -> int:
    told = {"version": metadata.version("fairlead"), "python": platform.python_version()}
    print(json.dumps(told) if options.output == "json" else f"fairlead {told['version']} (Python {told['python']})")
    return 0


def validate(options: Any) -> int:
    documents, problems = read(options.filename)
    reports = validate_documents(documents, problems)
    if options.output == "json":
        print(json.dumps([report.to_json() for report in reports], indent=2))
    else:
        style = style_of(options)
        said: dict[str, str] = {}
        for report in reports:
            for line in report_lines(report, style, said):
                print(line)
        print(summary(reports, style))
    return 1 if any(not report.valid for report in reports) else 0


def report_lines(report: Report, style: Style, said: dict[str, str]) -> list[str]:
    """What is to be said of one document: whether it is valid, then each error and warning with its line.

    `said`: messages about whole documents and where they were given; each is given in full once.
    """
    name = f"{report.kind} {report.namespace + '/' if report.namespace else ''}{report.name}".strip()
    word, kind = ("ok   ", "good") if report.valid else ("ERROR", "bad")
    if report.valid and report.warnings:
        kind = "warn"
    lines = style.lines(word, f" {report.source} {name}", "", kind)
    for word, kind, found in (("error: ", "bad", report.errors), ("warning: ", "warn", report.warnings)):
        for one in found:
            where = one.at if one.at and one.at != report.source else ""
            text = f"{one.path + ': ' if one.path else ''}{one.message}"
            if not one.path and said.setdefault(text, report.source) != report.source:
                text = f"{text.partition(':')[0]} (as {said[text]})"
            lines += style.lines(word, text, where, kind, 8)
    return lines


def summary(reports: Sequence[Report], style: Style) -> str:
    bad = sum(1 for report in reports if not report.valid)
    warnings = sum(len(report.warnings) for report in reports)
    text = f"{len(reports)} {'document' if len(reports) == 1 else 'documents'}, {bad} not valid"
    text += f", {warnings} {'warning' if warnings == 1 else 'warnings'}" if warnings else ""
    return style.paint(text, "bad" if bad else "warn" if warnings else "good")


def style_of(options: Any) -> Style:
    """How standard output is to be written to: colour as the flag, the environment or the terminal says, and lines of
    the terminal's width where people read them; in a file or a pipe without colour they are left whole."""
    terminal = sys.stdout.isatty()
    colour = wants_colour(getattr(options, "color", "auto"), os.environ, terminal)
    return Style(colour, columns() if terminal or colour else 0)


def load_world(options: Any) -> tuple[World, Places]:
    """The world of -f, with the services of --consul, --etcd and so on beside it, or of a running control, and where
    its objects stand; what is not valid is left out and told on standard error. Raises TimeoutError where a source does
    not answer."""
    give_way(options, "control", "filename", *REGISTRIES)
    direct = any(getattr(options, name, None) for name in REGISTRIES)
    if bool(options.filename or direct) == bool(getattr(options, "control", None)):
        either = "-f PATH, --consul, --etcd or another source," if hasattr(options, "consul") else "-f PATH"
        raise SettingError(f"give either {either} or --control URL")
    if not getattr(options, "control", None) and getattr(options, "at", None):
        raise SettingError("--at: needs --control, which has the history")
    if options.filename or direct:
        from .cli_registry import ask_sources

        snapshot = ask_sources(options) if direct else None
        documents, problems = read(options.filename)
        for problem in problems:
            print(f"left out: {problem}", file=sys.stderr)
        world, reports = World.load(documents, snapshot)
        for report in reports:
            for told in report.errors:
                where = f"{told.path}: " if told.path else ""
                print(f"left out: {told.at or report.source}: {where}{told.message}", file=sys.stderr)
        return world, Places(documents)
    return live_world(options)


def live_world(options: Any) -> tuple[World, Places]:
    """The world of a running control plane, and the revisions of its objects. Raises ApiError, UnreachableError."""
    from ..mesh.update import Holdings, build_world
    from .api_client import ApiClient

    objects: list[Document] = []

    def build(bodies: list[dict[str, Any]], snapshot: Snapshot) -> World:
        objects.extend(Document.of(body, "") for body in bodies)
        return build_world(bodies, snapshot)

    holdings = Holdings(build)
    at = getattr(options, "at", None)
    told = ApiClient.of(options).call("GET", f"/fairlead/v1/world?at={at}" if at else "/fairlead/v1/world")
    holdings.apply(json.dumps(told).encode())
    return holdings.world(), Places(objects, told.get("revisions"))


def explainer_of(world: World, places: Places) -> Explainer:
    """With the steps of DNS, by the zone that would be served."""
    from ..mesh.explain_names import Names

    return Explainer(world, places, Names(world.snapshot, world.resources.mesh.spec.cluster_domain))


def queries(options: Any) -> Iterator[dict[str, Any]]:
    """What is asked: one question of the flags, or one for each line of --requests."""
    if options.requests:
        problems: list[str] = []
        for source, text in read_texts(options.requests, problems):
            for number, line in enumerate(text.decode("utf-8", "replace").splitlines(), 1):
                if not line.strip():
                    continue
                try:
                    query = json.loads(line)
                    json.dumps(query, ensure_ascii=False, allow_nan=False).encode()
                except (ValueError, RecursionError) as error:
                    raise SettingError(f"{source}:{number}: not JSON: {error}") from None
                if not isinstance(query, dict):
                    raise SettingError(f"{source}:{number}: expected a JSON object")
                yield {"_where": f"{source}:{number}", **query}
        if problems:
            raise SettingError(problems[0])
        return
    method, url = options.method, options.url
    if url is None:
        method, url = None, method  # --tcp URL, or a bare URL
    if not url:
        raise SettingError("give METHOD and URL, or --requests FILE")
    flags = {
        "method": method,
        "url": url,
        "headers": [list(pair) for pair in options.header] or None,
        "from": options.from_,
        "from_namespace": options.from_namespace,
        "from_labels": options.from_labels,
        "gateway": options.gateway,
        "port": options.port,
        "source_ip": options.source_ip,
        "plaintext": options.plaintext or None,
        "jwt_claims": options.jwt_claims,
        "tcp": options.tcp or None,
        "sni": options.sni,
    }
    yield {key: value for key, value in flags.items() if value not in (None, "")}


def explain(options: Any) -> int:
    from .api_client import ApiError, UnreachableError

    try:
        world, places = load_world(options)
    except (ApiError, UnreachableError, TimeoutError) as error:
        return failed(str(error))
    code = 0
    explainer, style = explainer_of(world, places), style_of(options)
    for query in queries(options):
        where = query.pop("_where", "")
        try:
            answer = explainer.explain(query)
        except QueryError as error:
            if not where:
                return failed(str(error))
            code = failed(f"{where}: {error}")
            answer = {"error": str(error)}
        if "id" in query:
            answer = {"id": query["id"], **answer}
        if where:
            print(json.dumps(answer))
        elif options.output == "json":
            print(json.dumps(answer, indent=2))
        else:
            print(render(answer, style))
    return code


def matrix(options: Any) -> int:
    from .api_client import ApiError, UnreachableError

    try:
        rows = matrix_of(load_world(options)[0], options.namespace)
    except (ApiError, UnreachableError, TimeoutError) as error:
        return failed(str(error))
    if options.output == "json":
        print(json.dumps(rows, indent=2))
        return 0
    if not rows:
        where = f" in namespace {options.namespace}" if options.namespace else ""
        print(f"no pair of workloads{where} with a declared port")
        return 0
    lines = [["SOURCE", "DESTINATION", "PORT", "ALLOWED", "BY"]]
    for row in rows:
        port = f"{row['port']}/{row['protocol']}"
        lines.append([row["source"], row["destination"], port, "yes" if row["allowed"] else "no", row["by"] or "-"])
    print_columns(lines)
    return 0


def explain_policy(options: Any) -> int:
    """Exit 0 if every port asked about may be reached, 1 if not."""
    from ..policy.explain_pair import PairError, explain_pair
    from .api_client import ApiError, UnreachableError

    destination, colon, port = options.destination.rpartition(":")
    if not colon:
        destination, port = options.destination, "0"
    try:
        if not port.isdigit():
            raise SettingError(f"{options.destination}: expected NS/WORKLOAD or NS/WORKLOAD:PORT")
        world, places = load_world(options)
        answers = explain_pair(world, options.source, destination, int(port), options.plaintext)
    except (ApiError, UnreachableError, PairError, TimeoutError) as error:
        return failed(str(error))
    for entry in (entry for answer in answers for entry in answer["trace"]):
        resource, path = place(entry)
        if resource:
            entry.update(places.at(resource, path))
    if options.output == "json":
        print(json.dumps(answers, indent=2))
    else:
        style = style_of(options)
        for answer in answers:
            word, kind = ("may reach", "good") if answer["allowed"] else ("may not reach", "bad")
            where = f"{answer['destination']} port {answer['port']}/{answer['protocol']}"
            print(f"{answer['source']} {style.paint(word, kind)} {where}: {answer['why']}")
            print("\n".join(steps(answer["trace"], style)))
    return 0 if all(answer["allowed"] for answer in answers) else 1
