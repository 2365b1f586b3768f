"""What objects and manifests state, with what sidecars tell of themselves laid over it, on its way to the registry.

A change costs what it touches.
"""

from __future__ import annotations

from collections.abc import Container, Iterable

from ..registry.hub import Registry
from ..registry.model import Changed, Facts
from .sidecars import Sidecars

NOTHING: frozenset[str] = frozenset()


class Overlay:
    def __init__(self, registry: Registry, sidecars: Sidecars) -> None:
        self._registry = registry
        self._sidecars = sidecars
        self._given: dict[str, Facts] = {}
        """By source, before anything is laid over."""
        self._laid: dict[str, Facts] = {}
        self._lone: Facts | None = None
        """Of workloads that only their sidecars tell of."""

    def take(self, source: str, facts: Facts, touched: Changed | None = None) -> None:
        """A source's facts; `touched`: what may differ from its last, None: to be found out."""
        self._registry.leave(self._sidecars.left())
        before = self._laid.get(source)
        self._given[source] = facts
        if before is None or touched is None:
            touched = None
            laid = self._sidecars.over(facts)
        elif touched.workloads:
            laid = self._sidecars.over(facts, before, touched.workloads)
        else:
            laid = self._sidecars.over(facts, before, NOTHING) if facts.workloads else facts
        self._laid[source] = laid
        self._registry.update(source, laid, touched)
        if touched is not None and touched.workloads:
            self._lay_over(touched.workloads, source)  # it may be forgotten, and be stated by another source, too
        if touched is None or touched.workloads:  # some of these may be declared now, no more, or forgotten
            self._alone(touched.workloads if touched is not None else None)

    def told(self, workloads: Iterable[str]) -> None:
        """Sidecars of these workloads have told something new."""
        keys = frozenset(workloads)
        self._registry.leave(self._sidecars.left())
        self._lay_over(keys)
        self._alone(keys)

    def _lay_over(self, keys: frozenset[str], without: str = "") -> None:
        for source, facts in self._given.items():
            if source != without and (concerned := keys & facts.workloads.keys()):
                laid = self._laid[source] = self._sidecars.over(facts, self._laid[source], concerned)
                self._registry.update(source, laid, Changed(workloads=concerned))

    def _alone(self, touched: frozenset[str] | None) -> None:
        if self._lone is None:
            touched = None
        self._lone = self._sidecars.alone(_Declared(self._given.values()), self._lone, touched)
        changed = Changed(workloads=touched) if touched is not None else None
        self._registry.update("sidecars", self._lone, changed)


class _Declared(Container[str]):
    """Keys of workloads that a source states."""

    def __init__(self, given: Iterable[Facts]) -> None:
        self._tables = [facts.workloads for facts in given]

    def __contains__(self, key: object) -> bool:
        return any(key in table for table in self._tables)
