"""The kinds that the API serves, with their check: schema, meaning, and references to what is stored."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..policy.kinds import BY_NAME, KINDS
from ..policy.parse import Parsed, check_object
from ..registry.documents import load
from ..registry.field_docs import described
from ..registry.schema import Findings, Node, openapi
from ..registry.snapshot import Snapshot
from .api import Parts
from .catalog import Resource
from .references import References, read
from .store import Store

LOOK_UP_BYTES_MAX = 128 << 10
"""What larger objects refer to is not looked up while they are written, which would hold up the loop: their status
tells."""


def parts(store: Store, snapshot: Callable[[], Snapshot] | None = None) -> Parts:
    """What ControlApi is told about kinds. `snapshot`: the registry's, which references are looked up in."""
    references = References(store.memory, KINDS, snapshot)

    def look_up(resource: Resource, found: Findings, size: int) -> list[tuple[str, str]]:
        mine: Parsed | None = found.made
        if mine is None:
            return []
        if size <= LOOK_UP_BYTES_MAX:
            return references.missed(resource, mine)
        references.keep(resource, mine)
        return [("", "what this object refers to was not looked up, as it is large; its status will tell")]

    def schema_of(schema: Node) -> dict[str, Any]:
        return openapi(described(schema))

    return Parts(kinds=KINDS, check=check, look_up=look_up, schema_of=schema_of, load_yaml=load_yaml)


def check(resource: Resource, version: str, body: dict[str, Any]) -> Findings:
    """What schema and meaning say of one object."""
    kind = BY_NAME.get((resource.api_version(version), resource.kind))
    if kind is None:
        return Findings()  # kept without a schema (Event)
    namespace = _namespace(body)
    made, found = check_object(kind, body, namespace, with_metadata=False)
    if not found.errors and not found.unknown:
        found.made = read(resource, body, namespace, (made, found))
    return found


def _namespace(body: dict[str, Any]) -> str:
    metadata = body.get("metadata")
    return str(metadata.get("namespace") or "default") if isinstance(metadata, dict) else "default"


def load_yaml(text: bytes) -> Any:
    """One YAML document to its object; raises ValueError."""
    documents, problems = load(text, "body")
    if problems:
        raise ValueError(str(problems[0]))
    if len(documents) != 1:
        raise ValueError(f"expected one document, got {len(documents)}")
    return documents[0].body
