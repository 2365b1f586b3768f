"""Shell: the verbs that speak of changes: history, diff, rollback."""

from __future__ import annotations

import json
import sys
from datetime import datetime
from typing import Any
from urllib.parse import urlencode

import yaml

from .api_client import ApiClient, ApiError, UnreachableError
from .cli_client import failed, print_columns, read_documents
from .history import to_be_seen, unified
from .settings import SettingError
from .store import Key

PATH = "/fairlead/v1/history"
ERROR = 2
"""Exit code of `diff` where it could not be found out."""


def resource_of(entry: dict[str, Any]) -> str:
    """`virtualservices.networking.istio.io`, of a discovery entry."""
    group, slash, _ = entry["groupVersion"].partition("/")
    return f"{entry['name']}.{group}" if slash else str(entry["name"])


def scope_of(client: ApiClient, kind: str | None, name: str, namespace: str | None) -> dict[str, str]:
    """The objects that are meant, as the API's parameters."""
    found: dict[str, str] = {"namespace": namespace or ""}
    if kind:
        entry = client.find(kind)
        found["resource"] = resource_of(entry)
        if name and not namespace and entry.get("namespaced"):
            found["namespace"] = "default"
    elif name:
        raise SettingError("a name needs a kind before it")
    return {key: value for key, value in {**found, "name": name}.items() if value}


def history(options: Any) -> int:
    try:
        client = ApiClient.of(options)
        query = {**scope_of(client, options.kind, options.name, options.namespace), "limit": str(options.limit)}
        if options.author:
            query["author"] = options.author
        answer = client.call("GET", f"{PATH}?{urlencode(query)}")
    except (ApiError, UnreachableError) as error:
        return failed(str(error))
    if options.output == "json":
        print(json.dumps(answer, indent=2))
        return 0
    rows = [["REVISION", "TIME", "AUTHOR", "CHANGE", "RESULT", "REASON"]]
    for one in answer["changes"]:
        result = one["result"]
        told = result["state"] + (f": {result['message']}" if result.get("message") else "")
        where = f"{one['namespace']}/{one['name']}" if one["namespace"] else one["name"]
        rows.append([str(one["revision"]), time_of(one["time"]), one["author"],
                     f"{one['verb']} {one['resource'].partition('.')[0]} {where}", told, one["reason"]])  # fmt: skip
    print_columns(rows)
    print(f"the history goes from revision {answer['from']} to {answer['to']}", file=sys.stderr)
    return 0


def time_of(seconds: float) -> str:
    return datetime.fromtimestamp(seconds).astimezone().isoformat(" ", "seconds") if seconds else "-"


def diff(options: Any) -> int:
    if bool(options.filename) == bool(options.revisions) or len(options.revisions) > 2:
        raise SettingError("give one or two revisions, or manifests with -f")
    try:
        client = ApiClient.of(options)
        found = _of_files(client, options) if options.filename else _of_revisions(client, options)
    except (ApiError, UnreachableError) as error:
        failed(str(error))
        return ERROR
    if found is None:
        return ERROR
    if options.output == "json":
        print(json.dumps(found, indent=2))
    else:
        for one in found:
            name = "/".join(part for part in (one["kind"], one["namespace"], one["name"]) if part)
            print(unified(name, text_of(one["before"]), text_of(one["after"])), end="")
    return 1 if found else 0


def text_of(body: Any) -> str:
    return "" if body is None else str(yaml.safe_dump(body, sort_keys=True, allow_unicode=True))


def _of_revisions(client: ApiClient, options: Any) -> list[dict[str, Any]]:
    first, last = options.revisions[0], options.revisions[-1]
    if len(options.revisions) == 1:
        first -= 1
    scope = scope_of(client, options.kind, options.name, options.namespace)
    query = {**scope, "from": str(max(first, 0)), "to": str(last)}
    found: list[dict[str, Any]] = client.call("GET", f"{PATH}/diff?{urlencode(query)}")["differences"]
    return found


def _of_files(client: ApiClient, options: Any) -> list[dict[str, Any]] | None:
    """What `apply` would change; None: something could not be read, or would be refused."""
    documents, problems = read_documents(options.filename, options.namespace or "default")
    for problem in problems:
        failed(problem)
    found: list[dict[str, Any]] = []
    refused = bool(problems)
    query = urlencode({"fieldManager": "fairlead", "force": "true", "dryRun": "All"})
    for document in documents:
        path = client.path_of(document.api_version, document.kind, document.namespace, document.name)
        before = None
        try:
            try:
                before = client.call("GET", path)
            except ApiError as error:
                if error.code != 404:
                    raise
            after = client.call("PATCH", f"{path}?{query}", document.body, "application/apply-patch+yaml")
        except ApiError as error:
            failed(f"{document.source}: {document.kind} {document.name}: {error}")
            refused = True
            continue
        plural = "secrets" if document.kind == "Secret" else document.kind
        one, two = to_be_seen(Key(plural, document.namespace, document.name), before, after)
        if one != two:
            found.append({"kind": document.kind, "namespace": document.namespace, "name": document.name,
                          "before": one, "after": two})  # fmt: skip
    return None if refused else found


def rollback(options: Any) -> int:
    try:
        client = ApiClient.of(options)
        client.give_reason(options.reason)
        client.force(options.force)
        body = {**scope_of(client, options.kind, options.name, options.namespace), "revision": options.revision,
                "dryRun": options.dry_run}  # fmt: skip
        answer = client.call("POST", f"{PATH}/rollback", body)
    except (ApiError, UnreachableError) as error:
        return failed(str(error))
    for step in answer["changes"]:
        where = f"{step['namespace']}/{step['name']}" if step["namespace"] else step["name"]
        print(f"{step['resource'].partition('.')[0]} {where} {step['verb']}{' (dry run)' if options.dry_run else ''}")
    if not answer["changes"]:
        print(f"nothing to do: it is as it was at revision {options.revision}")
    elif not options.dry_run:
        print(f"rolled back to revision {options.revision} as revision {answer['revision']}")
    return 0
