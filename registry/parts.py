"""The contribution of a source that learns of one service at a time, kept whole: `put` a part, `take` all of it."""

from __future__ import annotations

from typing import Any

from .model import Changed, Facts


class Parts:
    """Facts by part. Of parts that state the same thing the one last in the order of names counts."""

    def __init__(self) -> None:
        self.parts: dict[str, Facts] = {}
        self._whole = Facts()
        self._owners: tuple[dict[str, list[str]], dict[str, list[str]], dict[str, list[str]]] = ({}, {}, {})
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
                    owners[key].remove(name)
                    if not owners[key]:
                        del owners[key]
                    touched.add(key)
            for key, value in now.items():
                if key not in before:
                    owners[key] = sorted([*owners.get(key, ()), name])
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

    def _merged(self, at: int, whole: dict[str, Any]) -> dict[str, Any]:
        made = dict(whole)
        for key in self._touched[at]:
            owners = self._owners[at].get(key)
            if owners:
                made[key] = _tables(self.parts[owners[-1]])[at][key]
            else:
                made.pop(key, None)
        return made


def _tables(facts: Facts | None) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    return (facts.services, facts.endpoints, facts.workloads) if facts is not None else ({}, {}, {})
