"""What all rules together make of each: errors, conflicts with other resources, and references to what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ..policy.conflicts import Conflict, Missing
from ..policy.parse import Parsed, parse
from ..policy.validate import Judged
from ..policy.validate_relations import check_relations
from ..registry.documents import Document
from ..registry.snapshot import Snapshot
from .conditions import Findings
from .store import Key


class Relations:
    """Looks again and again; reads again only what is another object than the last time."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[dict[str, Any], Parsed]] = {}
        """By identity of the body, which is kept so that the identity stays taken."""

    def look(self, rules: Mapping[str, dict[str, Any]], snapshot: Snapshot) -> dict[Key, Findings]:
        """`rules`: by item key (`object/RESOURCE/NAMESPACE/NAME`)."""
        seen: dict[int, tuple[dict[str, Any], Parsed]] = {}

        def read(document: Document) -> Parsed:
            known = self._known.get(id(document.body))
            if known is None:
                parsed = parse(document)
                parsed.keep()
                known = (document.body, parsed)
            seen[id(document.body)] = known
            return known[1].again()

        documents = [Document.of(body, f"control:{key}") for key, body in rules.items()]
        judged = Judged(documents, snapshot, read)
        self._known = seen
        check_relations(judged.parsed, judged.resources, judged.snapshot)
        found = {}
        for key, one in zip(rules, judged.parsed, strict=True):
            _, resource, namespace, name = key.split("/", 3)
            found[Key(resource, namespace, name)] = _findings(one)
        return found


def _findings(one: Parsed) -> Findings:
    told = list(dict.fromkeys([*one.references, *one.warnings]))
    return Findings(
        errors=_plain(one.errors),
        conflicts=_plain(pair for pair in told if isinstance(pair[1], Conflict)),
        missing=_plain(pair for pair in told if isinstance(pair[1], Missing)),
        others=_plain(pair for pair in told if not isinstance(pair[1], (Conflict, Missing))),
    )


def _plain(found: Iterable[tuple[str, str]]) -> tuple[tuple[str, str], ...]:
    return tuple((path, str(message)) for path, message in found)
