"""Shell: the verbs that speak to a running mesh: apply, get, delete, status, token, healthcheck."""

from __future__ import annotations

import http.client
import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import yaml

from ..registry.documents import Document, load
from ..registry.styles import CONTROLS
from . import cli_confirm
from .api_client import ApiClient, ApiError, UnreachableError
from .settings import SettingError, counted, why

TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io,application/json"


def failed(message: str) -> int:
    lines = [line.translate(CONTROLS) for line in message.split("\n")]  # names in it may be of others
    print("fairlead: " + "\n".join(lines), file=sys.stderr)
    return 1


def read_documents(paths: list[str], namespace: str) -> tuple[list[Document], list[str]]:
    """All documents below the paths in order, and what could not be read, as sentences."""
    documents: list[Document] = []
    problems: list[str] = []
    for name in paths:
        for source, text in read_texts(name, problems):
            found, wrong = load(text, source, namespace)
            documents += found
            problems += [str(problem) for problem in wrong]
    return documents, problems


def read_texts(name: str, problems: list[str]) -> list[tuple[str, bytes]]:
    """(source, text) of a file, of every manifest in a folder (sorted), or of standard input."""
    if name == "-":
        return [("<stdin>", sys.stdin.buffer.read())]
    path = Path(name)
    if path.is_dir():
        files = sorted(p for p in path.rglob("*") if p.suffix in (".yaml", ".yml", ".json") and p.is_file())
        if not files:
            problems.append(f"{name}: no .yaml, .yml or .json file in this folder")
    else:
        files = [path]
    texts = []
    for file in files:
        try:
            texts.append((str(file), file.read_bytes()))
        except OSError as error:
            problems.append(f"{file}: {error.strerror or error}")
    return texts


def explain_refusal(what: str, error: ApiError) -> str:
    causes = (error.status.get("details") or {}).get("causes") or []
    lines = [f"{what}: {error}"]
    if len(causes) > 1:
        lines += [f"  {cause.get('field', '')}: {cause.get('message', '')}" for cause in causes]
    return "\n".join(lines)


def apply(options: Any) -> int:
    documents, problems = read_documents(options.filename, options.namespace)
    for problem in problems:
        failed(problem)
    if not documents and not problems:
        return failed(f"{', '.join(options.filename)}: no objects to apply")
    code = 1 if problems else 0
    client = ApiClient.of(options)
    client.give_reason(options.reason)
    client.force(options.force)
    under, changed = "", False
    if options.confirm is not None and not options.dry_run:
        if code:
            return code
        try:
            under = cli_confirm.begin(client, options.confirm)
        except (ApiError, UnreachableError) as error:
            return failed(str(error))
    for document in documents:
        what = f"{document.kind} {document.namespace + '/' if document.namespace else ''}{document.name}"
        try:
            word = apply_one(client, document, options.dry_run)
        except ApiError as error:
            code = failed(explain_refusal(f"{document.source}: {what}", error))
            continue
        except UnreachableError as error:
            return failed(str(error))
        for warning in client.warnings:
            print(f"warning: {document.source}: {what}: {warning.translate(CONTROLS)}", file=sys.stderr)
        changed = changed or word != "unchanged"
        print(f"{what} {word}{' (dry run)' if options.dry_run else ''}")
    return cli_confirm.ended(client, under, options.confirm, code, changed) if under else code


def apply_one(client: ApiClient, document: Document, dry_run: bool) -> str:
    """What became of it: `created`, `configured`, `unchanged`. Raises ApiError, UnreachableError."""
    if not document.name:
        raise ApiError(422, {"message": "metadata.name: Required value: name is required"})
    query = {"fieldManager": "fairlead", "force": "true", **({"dryRun": "All"} if dry_run else {})}
    path = client.path_of(document.api_version, document.kind, document.namespace, document.name)
    before = None
    try:
        before = client.call("GET", path)
    except ApiError as error:
        if error.code != 404:
            raise
    after = client.call("PATCH", f"{path}?{urlencode(query)}", document.body, "application/apply-patch+yaml")
    if before is None:
        return "created"
    for body in (before, after):  # who manages which field is no change that anybody asked for
        for field in ("resourceVersion", "managedFields"):
            body["metadata"].pop(field, None)
        body.pop("status", None)
    return "unchanged" if before == after else "configured"


def get(options: Any) -> int:
    try:
        client = ApiClient.of(options)
        entry = client.find(options.kind)
        namespace = None if options.all_namespaces else options.namespace
        path = client.path(entry, namespace, options.name or "")
        if options.selector:
            path += "?" + urlencode({"labelSelector": options.selector})
        answer = client.call("GET", path, accept=TABLE if options.output == "table" else "")
    except (ApiError, UnreachableError) as error:
        return failed(str(error))
    if options.output == "json":
        print(json.dumps(answer, indent=2))
    elif options.output == "yaml":
        print(yaml.safe_dump(answer, sort_keys=False), end="")
    elif options.output == "name":
        for item in answer.get("items", [answer]):
            print(f"{entry['name']}/{item['metadata']['name']}")
    else:
        print_table(answer, with_namespace=bool(options.all_namespaces and entry.get("namespaced")))
    return 0


def print_table(answer: dict[str, Any], with_namespace: bool) -> None:
    columns = [c for c in answer.get("columnDefinitions", []) if not c.get("priority")]
    chosen = [n for n, c in enumerate(answer.get("columnDefinitions", [])) if not c.get("priority")]
    rows = []
    for row in answer.get("rows") or []:
        cells = [str(row["cells"][n]) for n in chosen]
        rows.append(
            [row.get("object", {}).get("metadata", {}).get("namespace", ""), *cells] if with_namespace else cells
        )
    if not rows:
        print("No resources found.", file=sys.stderr)
        return
    names = [column["name"].upper() for column in columns]
    print_columns([["NAMESPACE", *names] if with_namespace else names, *rows])


def print_columns(rows: list[list[str]]) -> None:
    rows = [[cell.translate(CONTROLS) for cell in row] for row in rows]  # others wrote these
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    for row in rows:
        print("   ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def delete(options: Any) -> int:
    if bool(options.filename) == bool(options.kind and options.name):
        raise SettingError("name a kind and an object, or give manifests with -f")
    client = ApiClient.of(options)
    client.give_reason(options.reason)
    client.force(options.force)
    documents, problems = read_documents(options.filename, options.namespace)
    code = 1 if problems else 0
    for problem in problems:
        failed(problem)
    if options.filename and not documents and not problems:
        return failed(f"{', '.join(options.filename)}: no objects to delete")
    try:
        if not options.filename:
            entry = client.find(options.kind)
            client.call("DELETE", client.path(entry, options.namespace, options.name))
            print(f"{entry['kind']} {options.name} deleted")
        for document in documents:
            try:
                client.call(
                    "DELETE", client.path_of(document.api_version, document.kind, document.namespace, document.name)
                )
                print(f"{document.kind} {document.name} deleted")
            except ApiError as error:
                code = failed(f"{document.source}: {error}")
    except (ApiError, UnreachableError) as error:
        return failed(str(error))
    return code


def status(options: Any) -> int:
    try:
        answer = ApiClient.of(options).call("GET", "/fairlead/v1/status")
    except (ApiError, UnreachableError) as error:
        return failed(str(error))
    if options.output == "json":
        print(json.dumps(answer, indent=2))
        return 0
    now = time.time()
    print(f"version {answer['version']}: {counted(answer['items'], 'item')}")
    rows = [["SOURCE", "STATE", "CONFIRMED", "ERROR"]]
    for source in answer["sources"]:
        confirmed = source.get("confirmed_at") or 0
        rows.append([source["name"], source.get("state", "starting"),
                     f"{now - confirmed:.0f} s ago" if confirmed else "never", source.get("error", "")])  # fmt: skip
        rows += [["", "", "", f"skipped: {problem}"] for problem in source.get("problems", [])]
    print_columns(rows)
    rows = [["SIDECAR", "ROLE", "MESH PORT", "RUNS", "APP", "REFUSED"]]
    for member in answer["sidecars"]:
        refused = f"{member['refused']}: {'; '.join(member['reasons'])}" if member["refused"] else ""
        if withheld := member.get("withheld"):
            refused = "; ".join(filter(None, (refused, f"not sent, as its version is older: {', '.join(withheld)}")))
        role = (member.get("proxy") or member["role"]) + (" (draining)" if member.get("leaving") else "")
        rows.append([f"{member['namespace']}/{member['workload']}", role, str(member["mesh_port"] or "-"),
                     member["taken"] or "-", app_of(member), refused])  # fmt: skip
        rows += [["", "", "", "", "", f"not carried out: {text}"] for text in member.get("not_carried_out", [])]
        rows += [["", "", "", "", "", f"not believed: {text}"] for text in member.get("not_believed", [])]
    print_columns(rows)
    return 1 if any(member["refused"] for member in answer["sidecars"]) else 0


def app_of(member: dict[str, Any]) -> str:
    """How a sidecar's app is, as its checks say."""
    if not member.get("checked"):
        return "-"
    return "ready" if member["ready"] else f"not ready: {member['why']}"


def token(options: Any) -> int:
    body = {
        "namespace": options.namespace,
        "serviceAccount": options.service_account,
        "ttlSeconds": int(options.ttl),
        "oneTime": options.one_time,
        "workload": options.workload,
        "labels": options.labels,
        "addresses": [one for one in options.addresses.split(",") if one],
    }
    try:
        answer = ApiClient.of(options).call("POST", "/fairlead/v1/tokens", body)
    except (ApiError, UnreachableError) as error:
        return failed(str(error))
    print(answer["token"])
    return 0


def healthcheck(options: Any) -> int:
    if options.health is None:
        return failed("--health: expected HOST:PORT, got off")
    host, port = options.health
    connection = http.client.HTTPConnection("127.0.0.1" if host == "0.0.0.0" else host, port, timeout=3)
    try:
        connection.request("GET", "/healthz/ready")
        answer = connection.getresponse()
        text = answer.read(2000).decode("utf-8", "replace").strip()
    except OSError as error:
        return failed(f"{host}:{port}: {why(error)}: is the role running, and is this its --health?")
    finally:
        connection.close()
    if answer.status != 200:
        return failed(f"not ready ({answer.status}): {text}")
    print(text or "ready")
    return 0
