"""What an object that is being written refers to and is not there: warnings, because objects may come in any order.

Parsed rules are kept by version, so that a write parses no more than what has changed since the last one.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..policy.parse import RESOURCES, Parsed, parse
from ..policy.validate import resources_of
from ..policy.validate_references import check_references
from ..registry.documents import Document
from ..registry.facts import facts_of
from ..registry.kinds import FACT_KINDS
from ..registry.merge import merge
from ..registry.snapshot import Snapshot
from .catalog import Resource
from .store import Key, Objects, Stored

ASKED = frozenset((*RESOURCES, "Service"))
"""Kinds that refer to others."""
NEWEST = "9999-12-31T23:59:59Z"
"""Age of what has not been written yet."""


class References:
    """Over one store. `snapshot`: the registry's, where there is one; else the facts are those of the store."""

    def __init__(
        self, memory: Callable[[], Objects], kinds: dict[str, Any], snapshot: Callable[[], Snapshot] | None = None
    ) -> None:
        self._memory = memory
        self._rules = {name: kind for name, kind in kinds.items() if kind.kind in RESOURCES or kind.kind == "Gateway"}
        self._fact_names = {kind.name: kind for kind in FACT_KINDS}
        self._parsed: dict[Key, tuple[int, Parsed]] = {}
        self._snapshot = snapshot
        self._own: tuple[int, Snapshot] = (-1, Snapshot())

    def warnings(self, resource: Resource, body: dict[str, Any], namespace: str) -> list[tuple[str, str]]:
        """(path, message) of everything that this object misses. It must have passed its own check."""
        if resource.kind not in ASKED:
            return []
        metadata = {"creationTimestamp": NEWEST, **(body.get("metadata") or {})}
        if not metadata.get("name"):
            return []
        mine = parse(Document.of({**body, "metadata": metadata}, "this object", namespace))
        if not mine.usable:
            return []
        own_key = (resource.name, mine.namespace, metadata["name"])
        told = len(mine.warnings)  # by its own check, and so told already
        others = [one for key, one in self._rules_now().items() if key != own_key]
        resources = resources_of([*others, mine])
        snapshot = self._snapshot() if self._snapshot is not None else self._stored_facts(resources)
        gateways = [one for one in others if one.kind is not None and one.kind.kind == "Gateway"]
        check_references([mine, *gateways], resources, snapshot)
        return [*mine.references, *mine.warnings[told:]]

    def _rules_now(self) -> dict[Key, Parsed]:
        memory, seen = self._memory(), {}
        for name, kind in self._rules.items():
            for stored in memory.all(name):
                kept = self._parsed.get(stored.key)
                if kept is None or kept[0] != stored.version:
                    kept = (stored.version, parse(_document(stored, kind)))
                seen[stored.key] = kept
        self._parsed = seen
        return {key: parsed for key, (_, parsed) in seen.items()}

    def _stored_facts(self, resources: Any) -> Snapshot:
        memory = self._memory()
        if self._own[0] != memory.revision:
            documents = [
                _document(stored, kind) for name, kind in self._fact_names.items() for stored in memory.all(name)
            ]
            facts = facts_of(documents, "control", resources.mesh.spec.cluster_domain)
            self._own = (memory.revision, merge([("control", facts)], {}, Snapshot()))
        return self._own[1]


def _document(stored: Stored, kind: Any) -> Document:
    body = {"apiVersion": kind.api_versions[0], "kind": kind.kind, **stored.object()}
    return Document.of(body, f"{kind.kind} {stored.key.namespace}/{stored.key.name}")
