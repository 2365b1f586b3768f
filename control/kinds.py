"""The kinds that the API serves, with their check: schema, meaning, and references to what is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..policy.kinds import BY_NAME, KINDS
from ..policy.parse import check_object
from ..registry.documents import load
from ..registry.field_docs import described
from ..registry.schema import Findings, Node, openapi
from ..registry.snapshot import Snapshot
from .api import Parts
from .catalog import Resource
from .references import References
from .store import Store


def parts(store: Store, snapshot: Callable[[], Snapshot] | None = None) -> Parts:
    """What ControlApi is told about kinds. `snapshot`: the registry's, which references are looked up in."""
    references = References(store.memory, KINDS, snapshot)

    def judge(resource: Resource, version: str, body: dict[str, Any]) -> Findings:
        return check(resource, version, body, references)

    def schema_of(schema: Node) -> dict[str, Any]:
        return openapi(described(schema))

    return Parts(kinds=KINDS, check=judge, schema_of=schema_of, load_yaml=load_yaml)


def check(resource: Resource, version: str, body: dict[str, Any], references: References | None = None) -> Findings:
    """What schema and meaning say of one object, and what it refers to that is not there."""
    found = Findings()
    kind = BY_NAME.get((resource.api_version(version), resource.kind))
    if kind is None:
        return found  # kept without a schema (Event)
    metadata = body.get("metadata")
    namespace = str(metadata.get("namespace") or "default") if isinstance(metadata, dict) else "default"
    made, told = check_object(kind, body, namespace, with_metadata=False)
    found.errors, found.unknown, found.warnings = told.errors, told.unknown, told.warnings
    if references is not None and not told.errors and not told.unknown:
        found.warnings = [*told.warnings, *references.warnings(resource, body, namespace, (made, told))]
    return found


def load_yaml(text: bytes) -> Any:
    """One YAML document to its object; raises ValueError."""
    documents, problems = load(text, "body")
    if problems:
        raise ValueError(str(problems[0]))
    if len(documents) != 1:
        raise ValueError(f"expected one document, got {len(documents)}")
    return documents[0].body
