"""A world: the registry's snapshot and the rules in force, from documents; what cannot be used is left out and told."""

from __future__ import annotations

from collections.abc import Sequence
from operator import is_
from typing import Any

from ..registry.documents import Document
from ..registry.snapshot import Snapshot
from .parse import Parsed, parse
from .resources import Resources
from .validate import Judged, Report


class World:
    """Everything that decisions depend on, at one moment."""

    __slots__ = ("resources", "snapshot")

    def __init__(self, snapshot: Snapshot, resources: Resources) -> None:
        self.snapshot = snapshot
        self.resources = resources

    @classmethod
    def load(cls, documents: Sequence[Document], snapshot: Snapshot | None = None) -> tuple[World, list[Report]]:
        """(world, a report for each document in order). Documents with errors are left out of the world.

        `snapshot`: facts besides those of the documents, which come first. A reference to something missing is a
        warning here, not an error as in `validate`: the object stays in force, and only the route concerned fails.
        """
        return Loader().load(documents, snapshot)


class Loader:
    """Loads one world after another, reading again only what changed.

    A document counts as unchanged while its `body` is the same object and its source the same text. While no rule
    changed, `World.resources` is the same object, by which `compile` knows that it may keep what it has.
    """

    def __init__(self) -> None:
        self._known: dict[int, Parsed] = {}
        self._seen: dict[int, Parsed] = {}
        self._resources = Resources()
        self._bodies: list[dict[str, Any]] | None = None
        """Of the documents loaded last, where they were rules alone and all of them usable."""

    def load(
        self, documents: Sequence[Document], snapshot: Snapshot | None = None, references: bool = True
    ) -> tuple[World, list[Report]]:
        """As `World.load`. Without `references`, nothing is said of references to what is missing."""
        self._seen = {}
        judged = Judged(documents, snapshot, self._read, references)
        self._known = self._seen
        rules = judged.only_rules and all(one.usable for one in judged.parsed)
        self._bodies = [document.body for document in documents] if rules else None
        if not _same(judged.resources, self._resources):
            self._resources = judged.resources
        return World(judged.snapshot, self._resources), judged.reports(strict=False)

    def again(self, bodies: Sequence[dict[str, Any]], snapshot: Snapshot) -> World | None:
        """The world of the rules loaded last with other facts; None unless `bodies` are the very same objects."""
        known = self._bodies
        if known is None or len(known) != len(bodies) or not all(map(is_, known, bodies)):
            return None
        return World(snapshot, self._resources)

    def _read(self, document: Document) -> Parsed:
        key = id(document.body)
        known = self._known.get(key)
        if known is None or not _unchanged(known.document, document):
            known = parse(document)
            known.keep()
        self._seen[key] = known
        return known.again()


def _unchanged(old: Document, new: Document) -> bool:
    return old.body is new.body and old.source == new.source and old.namespace == new.namespace


def _same(new: Resources, old: Resources) -> bool:
    """Whether the rules are the very same objects."""
    if new.mesh != old.mesh:
        return False
    for name in new.__struct_fields__:
        if name == "mesh":
            continue
        one, other = getattr(new, name), getattr(old, name)
        if len(one) != len(other) or any(a is not b for a, b in zip(one, other, strict=True)):
            return False
    return True
