"""A world: the registry's snapshot and the rules in force, from documents; what cannot be used is left out and told."""

from __future__ import annotations

from collections.abc import Sequence

from ..registry.documents import Document
from ..registry.snapshot import Snapshot
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
        judged = Judged(documents, snapshot)
        return cls(judged.snapshot, judged.resources), judged.reports(strict=False)
