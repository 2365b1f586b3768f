"""The contribution of a source that learns of one service at a time, kept whole: `put` a part, `take` all of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .model import Changed, Facts
from .shards import amended

Several = dict[str, str | tuple[str, ...]]
"""Names by key: one as it is, several in order; a list for each of a hundred thousand would take 10 MB."""


class Parts:
    """Facts by part. Of parts that state the same thing the one last in the order of names counts."""

    def __init__(self) -> None:
        self.parts: dict[str, Facts] = {}
        self._whole = Facts()
        self._owners: tuple[Several, Several, Several] = ({}, {}, {})
        """Names of the parts that have a service, endpoints, a workload."""
        self._touched: tuple[set[str], set[str], set[str]] = (set(), set(), set())

    def put(self, name: str, facts: Facts | None) -> None:
        """The part `name` from now on; None: there is none."""
        old = self.parts.get(name)
        if facts is None:
            self.parts.pop(name, None)
        else:
            self.parts[name] = facts
        for at, (before, now) in enumerate(zip(_tables(old), _tables(facts), strict=True)):
            owners, touched = self._owners[at], self._touched[at]
            for key in before:
                if key not in now:
                    remove(owners, key, name)
                    touched.add(key)
            for key, value in now.items():
                if key not in before:
                    add(owners, key, name)
                    touched.add(key)
                elif before[key] is not value and before[key] != value:
                    touched.add(key)

    def take(self) -> tuple[Facts, Changed]:
        """(everything, what may differ from the last time)."""
        tables = [
            self._merged(at, whole) if touched else whole
            for at, (whole, touched) in enumerate(zip(_tables(self._whole), self._touched, strict=True))
        ]
        services, endpoints, workloads = self._touched
        self._touched = (set(), set(), set())
        self._whole = Facts(services=tables[0], endpoints=tables[1], workloads=tables[2])
        return self._whole, Changed(frozenset(services | endpoints), frozenset(workloads))

    def _merged(self, at: int, whole: Mapping[str, Any]) -> Mapping[str, Any]:
        found: dict[str, Any] = {}
        for key in self._touched[at]:
            owners = self._owners[at].get(key)
            last = owners if isinstance(owners, str) or owners is None else owners[-1]
            found[key] = None if last is None else _tables(self.parts[last])[at][key]
        return amended(whole, found)


def add(table: Several, key: str, name: str) -> None:
    known = table.get(key)
    if known is None:
        table[key] = name
    elif known != name and (isinstance(known, str) or name not in known):
        table[key] = tuple(sorted((*((known,) if isinstance(known, str) else known), name)))


def remove(table: Several, key: str, name: str) -> None:
    known = table.get(key)
    if known == name:
        del table[key]
    elif isinstance(known, tuple):
        left = tuple(one for one in known if one != name)
        table[key] = left[0] if len(left) == 1 else left


def _tables(facts: Facts | None) -> tuple[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]]:
    return (facts.services, facts.endpoints, facts.workloads) if facts is not None else ({}, {}, {})
