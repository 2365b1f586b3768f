"""Shell: the verbs that need no running mesh: version, validate, explain, policy matrix."""

from __future__ import annotations

import json
import platform
import sys
from collections.abc import Iterator
from importlib import metadata
from typing import Any

from ..policy.explain import Explainer
from ..policy.explain_query import QueryError
from ..policy.explain_text import render
from ..policy.matrix import matrix as matrix_of
from ..policy.validate import validate as validate_documents
from ..policy.world import World
from ..registry.documents import Document, Problem, load
from .cli_client import failed, print_columns, read_texts
from .settings import SettingError


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
        for report in reports:
            told = report.to_json()
            name = f"{told['kind']} {told['namespace'] + '/' if told['namespace'] else ''}{told['name']}".strip()
            print(f"{'ok   ' if told['valid'] else 'ERROR'} {told['source']} {name}")
            for word, found in (("error", told["errors"]), ("warning", told["warnings"])):
                for one in found:
                    print(f"        {word}: {one['path'] + ': ' if one['path'] else ''}{one['message']}")
        bad = sum(1 for report in reports if not report.valid)
        print(f"{len(reports)} documents, {bad} not valid")
    return 1 if any(not report.valid for report in reports) else 0


def load_world(options: Any) -> World:
    """The world of -f, or of a running control; what is not valid is left out and told on standard error."""
    if bool(options.filename) == bool(getattr(options, "control", None)):
        raise SettingError("give either -f PATH or --control URL")
    if options.filename:
        documents, problems = read(options.filename)
        for problem in problems:
            print(f"left out: {problem}", file=sys.stderr)
        world, reports = World.load(documents)
        for report in reports:
            for told in report.errors:
                where = f"{told.path}: " if told.path else ""
                print(f"left out: {report.source}: {where}{told.message}", file=sys.stderr)
        return world
    return live_world(options)


def live_world(options: Any) -> World:
    """The world of a running control plane. Raises ApiError, UnreachableError."""
    from ..mesh.update import Holdings, build_world
    from .api_client import ApiClient

    holdings = Holdings(build_world)
    holdings.apply(json.dumps(ApiClient.of(options).call("GET", "/fairlead/v1/world")).encode())
    return holdings.world()


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
        world = load_world(options)
    except (ApiError, UnreachableError) as error:
        return failed(str(error))
    code = 0
    explainer = Explainer(world)
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
            print(render(answer))
    return code


def matrix(options: Any) -> int:
    options.control = None
    rows = matrix_of(load_world(options))
    if options.output == "json":
        print(json.dumps(rows, indent=2))
        return 0
    if not rows:
        print("no pair of workloads with a declared port")
        return 0
    lines = [["SOURCE", "DESTINATION", "PORT", "ALLOWED", "BY"]]
    for row in rows:
        port = f"{row['port']}/{row['protocol']}"
        lines.append([row["source"], row["destination"], port, "yes" if row["allowed"] else "no", row["by"] or "-"])
    print_columns(lines)
    return 0
