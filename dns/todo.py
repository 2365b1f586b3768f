"""What of a registry has changed and is not yet answered from, to be taken over in slices."""

from __future__ import annotations

from itertools import islice

from ..registry.model import Changed


class Todo:
    """True while something is left."""

    def __init__(self) -> None:
        self._all = False
        self._hosts: dict[str, None] = {}
        self._workloads: dict[str, None] = {}
        self._namespaces: dict[str, None] = {}

    def __bool__(self) -> bool:
        return self._all or bool(self._hosts) or bool(self._workloads) or bool(self._namespaces)

    def add(self, changed: Changed | None) -> None:
        """This may be different, too; None: anything may."""
        if changed is None:
            self._all = True
        elif not self._all:
            self._hosts |= dict.fromkeys(changed.hosts)
            self._workloads |= dict.fromkeys(changed.workloads)
            self._namespaces |= dict.fromkeys(changed.namespaces)

    def take(self, most: int) -> Changed | None:
        """The next `most` objects, the longest waiting first, and all namespaces; None: everything, at once."""
        if self._all:
            self._all = False
            for table in (self._hosts, self._workloads, self._namespaces):
                table.clear()
            return None
        hosts = _first(self._hosts, most)
        workloads = _first(self._workloads, most - len(hosts))
        namespaces, self._namespaces = frozenset(self._namespaces), {}
        return Changed(hosts, workloads, namespaces)


def _first(table: dict[str, None], most: int) -> frozenset[str]:
    found = frozenset(islice(table, max(most, 0)))
    for key in found:
        del table[key]
    return found
