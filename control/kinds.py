"""The kinds that the API serves, with their check: schema, meaning, and references to what is stored."""

from __future__ import annotations

from typing import Any

from ..policy.kinds import BY_NAME, KINDS
from ..policy.parse import check_object
from ..registry.documents import load
from ..registry.schema import openapi
from .admission import Findings
from .api import Parts
from .catalog import Resource
from .store import Store


def parts(_store: Store) -> Parts:
    """What ControlApi is told about kinds."""
    return Parts(kinds=KINDS, check=check, schema_of=openapi, load_yaml=load_yaml)


def check(resource: Resource, version: str, body: dict[str, Any]) -> Findings:
    """What schema and meaning say of one object."""
    found = Findings()
    kind = BY_NAME.get((resource.api_version(version), resource.kind))
    if kind is None:
        return found  # kept without a schema (Event)
    metadata = body.get("metadata")
    namespace = str(metadata.get("namespace") or "default") if isinstance(metadata, dict) else "default"
    _, told = check_object(kind, body, namespace)
    found.errors, found.unknown, found.warnings = told.errors, told.unknown, told.warnings
    return found


def load_yaml(text: bytes) -> Any:
    """One YAML document to its object; raises ValueError."""
    documents, problems = load(text, "body")
    if problems:
        raise ValueError(str(problems[0]))
    if len(documents) != 1:
        raise ValueError(f"expected one document, got {len(documents)}")
    return documents[0].body
