"""The registry of one process: takes what sources contribute, publishes one snapshot for every change."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .contributions import Contributions
from .model import Changed, Facts, SourceStatus
from .snapshot import Snapshot
from .watch import Cell


class Registry:
    """`precedence`: names of sources, highest first; sources not named there come after, by name."""

    def __init__(self, precedence: Sequence[str] = ()) -> None:
        self.snapshot: Cell[Snapshot] = Cell(Snapshot())
        self._contributions = Contributions(precedence)
        self._statuses: dict[str, SourceStatus] = {}

    def update(self, source: str, facts: Facts, touched: Changed | None = None) -> None:
        """Take a source's whole contribution; publishes a new snapshot unless it is the one we have.

        `touched`: what may differ from its last contribution, where the source knows.
        """
        self._publish(self._contributions.take(source, facts, touched))

    def status(self, status: SourceStatus) -> None:
        """Take how a source is doing; changes no version, since no answer depends on it."""
        self._statuses[status.name] = status
        self.snapshot.value.sources = dict(self._statuses)

    def leave(self, workloads: Iterable[str]) -> None:
        """These (namespace/name), and no others, take no more, whatever sources say of them."""
        self._publish(self._contributions.leave(frozenset(workloads)))

    def facts(self, source: str) -> Facts | None:
        return self._contributions.facts(source)

    def _publish(self, changed: Changed | None) -> None:
        if changed is not None:
            version = self.snapshot.value.version + 1
            self.snapshot.set(self._contributions.snapshot(version, self._statuses, changed))
