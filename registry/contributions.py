"""What several sources contribute, kept merged: the work of a change grows with what changed.

Gives the same snapshot as `merge` does of everything (a property test says so). A change is looked for object by object
(`is` first), unless the source says what it touched.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import TypeVar

from .merge import NAME_LABEL, left, selected, union
from .model import Changed, Endpoint, Facts, Service, SourceStatus, Workload
from .parts import Several, add, remove
from .shards import amended, unlike
from .snapshot import Snapshot

V = TypeVar("V")
_NOTHING = Facts()


class Contributions:
    """`precedence`: names of sources, highest first; sources not named there come after, by name."""

    def __init__(self, precedence: Sequence[str] = ()) -> None:
        self._precedence = {name: rank for rank, name in enumerate(precedence)}
        self._facts: dict[str, Facts] = {}
        self._ordered: list[Facts] = []
        self._leaving: frozenset[str] = frozenset()
        """Workloads that take no more, whatever sources say of them."""
        self._selecting: dict[str, set[str]] = {}
        """Hosts of services with selectors, by namespace."""
        self._by_label: dict[tuple[str, str, str], dict[str, Workload]] | None = None
        """Workloads by (namespace, label, value); made once a service selects."""
        self._naming: Several = {}
        """By workload, the host or hosts of the listed endpoints that name it."""
        self._used: dict[str, int] = {}
        """How many services and workloads are in a namespace."""
        self.services: Mapping[str, Service] = {}
        self.endpoints: Mapping[str, tuple[Endpoint, ...]] = {}
        self.workloads: Mapping[str, Workload] = {}
        self.namespaces: Mapping[str, Mapping[str, str]] = {}

    def facts(self, source: str) -> Facts | None:
        return self._facts.get(source)

    def take(self, source: str, facts: Facts, touched: Changed | None = None) -> Changed | None:
        """Take a source's whole contribution; what is different in the merged tables, None: nothing.

        `touched`: what may differ from its last one; None: to be found out.
        """
        before = self._facts.get(source, _NOTHING)
        if facts is before and source in self._facts:
            return None
        looked_at = (
            (touched.hosts, touched.workloads, touched.namespaces) if touched is not None else (None, None, None)
        )
        hosts = unlike(before.services, facts.services, looked_at[0])
        hosts |= unlike(before.endpoints, facts.endpoints, looked_at[0])
        workloads = unlike(before.workloads, facts.workloads, looked_at[1])
        namespaces = unlike(before.namespaces, facts.namespaces, looked_at[2])
        self._facts[source] = facts
        ranked = sorted(self._facts, key=lambda name: (self._precedence.get(name, len(self._precedence)), name))
        self._ordered = [self._facts[name] for name in ranked]
        if not hosts and not workloads and not namespaces:
            return None
        return self._merge(hosts, workloads, namespaces)

    def leave(self, workloads: frozenset[str]) -> Changed | None:
        """These, and no others, take no more; what is different, None: nothing."""
        other = workloads ^ self._leaving
        self._leaving = workloads
        hosts = {host for key in other for host in self._naming_hosts(key)}
        return self._merge(hosts, set(other), set()) if other else None

    def snapshot(self, version: int, statuses: Mapping[str, SourceStatus], changed: Changed | None) -> Snapshot:
        return Snapshot(
            version, self.services, self.endpoints, self.workloads, self.namespaces, dict(statuses), changed
        )

    def _merge(self, hosts: set[str], workloads: set[str], namespaces: set[str]) -> Changed | None:
        changed_workloads = self._merge_workloads(workloads)
        changed_services = self._merge_services(hosts)
        looked_at = hosts | {
            host for key in changed_workloads for host in self._concerned(key, *changed_workloads[key])
        }
        changed_endpoints = self._merge_endpoints(looked_at)
        touched = {one.namespace for pair in changed_workloads.values() for one in pair if one is not None}
        touched |= {one.namespace for pair in changed_services.values() for one in pair if one is not None}
        changed_namespaces = self._merge_namespaces(namespaces | touched)
        if not (changed_workloads or changed_services or changed_endpoints or changed_namespaces):
            return None
        return Changed(
            frozenset(changed_services.keys() | changed_endpoints), frozenset(changed_workloads), changed_namespaces
        )

    # --- workloads

    def _merge_workloads(self, keys: set[str]) -> dict[str, tuple[Workload | None, Workload | None]]:
        """(before, now) of those that are different."""
        found: dict[str, tuple[Workload | None, Workload | None]] = {}
        for key in keys:
            old = self.workloads.get(key)
            new = _first(key, (facts.workloads for facts in self._ordered))
            if new is not None and key in self._leaving:
                new = left(new)
            if old != new:
                found[key] = (old, new)
        self.workloads = amended(self.workloads, {key: new for key, (_, new) in found.items()})
        for key, (old, new) in found.items():
            self._count(old, new)
            if self._by_label is not None:
                self._label(key, old, new)
        return found

    def _label(self, key: str, old: Workload | None, new: Workload | None) -> None:
        assert self._by_label is not None
        before, now = _labels(old), _labels(new)
        for labelled in before - now:
            group = self._by_label[labelled]
            del group[key]
            if not group:
                del self._by_label[labelled]
        if new is not None:
            for labelled in now:
                self._by_label.setdefault(labelled, {})[key] = new

    def _concerned(self, key: str, old: Workload | None, new: Workload | None) -> Iterable[str]:
        """Hosts whose endpoints may be others because of a workload."""
        yield from self._naming_hosts(key)
        for one in filter(None, (old, new)):
            for host in self._selecting.get(one.namespace, ()):
                selector = self.services[host].selector or {}
                if all(one.labels.get(label) == value for label, value in selector.items()):
                    yield host

    def _naming_hosts(self, key: str) -> tuple[str, ...]:
        naming = self._naming.get(key, ())
        return (naming,) if isinstance(naming, str) else naming

    # --- services and endpoints

    def _merge_services(self, hosts: set[str]) -> dict[str, tuple[Service | None, Service | None]]:
        """(before, now) of those that are different."""
        found: dict[str, tuple[Service | None, Service | None]] = {}
        for host in hosts:
            old = self.services.get(host)
            new = _first(host, (facts.services for facts in self._ordered))
            if old != new:
                found[host] = (old, new)
                self._count(old, new)
                if old is not None and old.selector:
                    self._selecting[old.namespace].discard(host)
                if new is not None and new.selector:
                    self._selecting.setdefault(new.namespace, set()).add(host)
        self.services = amended(self.services, {host: new for host, (_, new) in found.items()})
        return found

    def _merge_endpoints(self, hosts: set[str]) -> set[str]:
        found: dict[str, tuple[Endpoint, ...] | None] = {}
        for host in hosts:
            old = self.endpoints.get(host)
            groups = [facts.endpoints[host] for facts in self._ordered if host in facts.endpoints]
            service = self.services.get(host)
            self._name(host, old, groups if service is not None else [])
            if service is None:
                if old is not None:
                    found[host] = None
                continue
            if service.selector:
                groups.append(selected(service, self._labelled()))
            new = union(groups, self.workloads, self._leaving, service.publish_not_ready)
            if old is None or old != new:
                found[host] = new
        self.endpoints = amended(self.endpoints, found)
        return set(found)

    def _labelled(self) -> Mapping[tuple[str, str, str], Collection[Workload]]:
        if self._by_label is None:
            self._by_label = {}
            for key, workload in self.workloads.items():
                self._label(key, None, workload)
        return _Values(self._by_label)

    def _name(self, host: str, old: tuple[Endpoint, ...] | None, groups: list[tuple[Endpoint, ...]]) -> None:
        """Keep `_naming` right for a host."""
        before = {one.workload for one in old or () if one.workload}
        now = {one.workload for group in groups for one in group if one.workload}
        for key in before - now:
            remove(self._naming, key, host)
        for key in now:
            add(self._naming, key, host)

    # --- namespaces

    def _count(self, old: Service | Workload | None, new: Service | Workload | None) -> None:
        if new is not None:
            self._used[new.namespace] = self._used.get(new.namespace, 0) + 1
        if old is not None:
            self._used[old.namespace] -= 1
            if not self._used[old.namespace]:
                del self._used[old.namespace]

    def _merge_namespaces(self, names: set[str]) -> frozenset[str]:
        found: dict[str, Mapping[str, str] | None] = {}
        for name in names:
            labels = _first(name, (facts.namespaces for facts in self._ordered))
            new = {**(labels or {}), NAME_LABEL: name} if labels is not None or name in self._used else None
            if self.namespaces.get(name) != new:
                found[name] = new
        self.namespaces = amended(self.namespaces, found)
        return frozenset(found)


class _Values(Mapping[tuple[str, str, str], Collection[Workload]]):
    """Workloads by label, without a copy of them."""

    def __init__(self, given: Mapping[tuple[str, str, str], Mapping[str, Workload]]) -> None:
        self._given = given

    def __getitem__(self, key: tuple[str, str, str]) -> Collection[Workload]:
        return self._given[key].values()

    def __len__(self) -> int:
        return len(self._given)

    def __iter__(self) -> Iterator[tuple[str, str, str]]:
        return iter(self._given)


def _labels(workload: Workload | None) -> set[tuple[str, str, str]]:
    if workload is None:
        return set()
    return {(workload.namespace, label, value) for label, value in workload.labels.items()}


def _first(key: str, tables: Iterable[Mapping[str, V]]) -> V | None:
    for table in tables:
        if key in table:
            return table[key]
    return None
