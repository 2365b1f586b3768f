"""Reports on manifests as text, for tests of validation."""

from __future__ import annotations

from fairlead.policy.validate import Report, validate
from fairlead.registry.documents import load


def reports(text: str) -> list[Report]:
    documents, problems = load(text, "f.yaml")
    return validate(documents, problems)


def errors(text: str) -> dict[str, str]:
    """Path to message of everything that is wrong with the documents of a text."""
    return {told.path: told.message for report in reports(text) for told in report.errors}


def warnings(text: str) -> dict[str, str]:
    return {told.path: told.message for report in reports(text) for told in report.warnings}


def document(kind: str, spec: str, group: str = "networking.istio.io/v1", name: str = "it") -> str:
    """One document; `spec` in YAML, indented as one likes."""
    lines = spec.strip("\n").split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    body = "\n".join("  " + line[margin:] for line in lines)
    return f"apiVersion: {group}\nkind: {kind}\nmetadata:\n  name: {name}\nspec:\n{body}\n"


def route(text: str) -> str:
    """A VirtualService with one HTTP route, whose fields `text` gives."""
    lines = text.strip("\n").split("\n")
    margin = min((len(line) - len(line.lstrip()) for line in lines if line.strip()), default=0)
    body = "\n".join("    " + line[margin:] for line in lines)
    return document("VirtualService", f"hosts: [web]\nhttp:\n  -\n{body}")
