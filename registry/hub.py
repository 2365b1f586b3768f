"""The registry of one process: takes what sources contribute, publishes one snapshot; a merge for every update."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from .merge import merge
from .model import Facts, SourceStatus
from .snapshot import Snapshot
from .watch import Cell


class Registry:
    """`precedence`: names of sources, highest first; sources not named there come after, by name."""

    def __init__(self, precedence: Sequence[str] = ()) -> None:
        self.snapshot: Cell[Snapshot] = Cell(Snapshot())
        self._precedence = {name: rank for rank, name in enumerate(precedence)}
        self._facts: dict[str, Facts] = {}
        self._statuses: dict[str, SourceStatus] = {}
        self._leaving: frozenset[str] = frozenset()

    def update(self, source: str, facts: Facts) -> None:
        """Take a source's whole contribution; publishes a new snapshot unless it is the one we have."""
        if self._facts.get(source) == facts:
            return
        self._facts[source] = facts
        self._publish()

    def status(self, status: SourceStatus) -> None:
        """Take how a source is doing; changes no version, since no answer depends on it."""
        self._statuses[status.name] = status
        self.snapshot.value.sources = dict(self._statuses)

    def leave(self, workloads: Iterable[str]) -> None:
        """These (namespace/name), and no others, take no more, whatever sources say of them."""
        leaving = frozenset(workloads)
        if leaving != self._leaving:
            self._leaving = leaving
            self._publish()

    def facts(self, source: str) -> Facts | None:
        return self._facts.get(source)

    def _publish(self) -> None:
        ranked = sorted(
            self._facts.items(), key=lambda item: (self._precedence.get(item[0], len(self._precedence)), item[0])
        )
        self.snapshot.set(merge(ranked, self._statuses, self.snapshot.value, self._leaving))
