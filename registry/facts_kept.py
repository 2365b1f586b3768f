"""The facts of a store's objects, kept: a change costs what it touches.

Gives the same as `facts_of` does of all objects (a property test says so). Objects themselves are not kept: those that
state something of a host that a change touches are read again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar

from .documents import Document
from .facts import facts_of, stated_by
from .model import Changed, Facts
from .names import CLUSTER_DOMAIN
from .shards import amended, sharded

V = TypeVar("V")


class KeptFacts:
    """`read(key)`: the object of an item key (`object/RESOURCE/NAMESPACE/NAME`) as it is now, None: there is none.

    `resources`: in the order in which they count where several state the same.
    """

    def __init__(
        self,
        source: str,
        resources: Iterable[str],
        read: Callable[[str], dict[str, Any] | None],
        cluster_domain: str = CLUSTER_DOMAIN,
    ) -> None:
        self._source = source
        self._rank = {name: rank for rank, name in enumerate(resources)}
        self._read = read
        self._domain = cluster_domain
        self._states: dict[str, tuple[str, tuple[str, ...]]] = {}
        """By item key: the table, and the keys in it."""
        self._stated: dict[str, dict[str, tuple[str, ...]]] = {"hosts": {}, "workloads": {}, "namespaces": {}}
        """By table and key in it: the item keys of who states it."""
        self.facts = Facts()

    def load(self, objects: Iterable[tuple[str, Mapping[str, Any]]]) -> None:
        """Take everything, at the start: (item key, object), of which none is kept; by resource, namespace, name."""

        def documents() -> Iterable[Document]:
            for key, body in objects:
                document = self._document(key, body)
                self._index(key, stated_by(document, self._domain))
                yield document

        made = facts_of(documents(), self._source, self._domain)
        self.facts = Facts(sharded(made.services), sharded(made.endpoints), sharded(made.workloads), made.namespaces)

    def take(self, keys: Iterable[str]) -> Changed:
        """These objects are new, changed or gone; what may be different in `facts`."""
        touched: dict[str, set[str]] = {"hosts": set(), "workloads": set(), "namespaces": set()}
        read: dict[str, Document | None] = {}
        for key in keys:
            document = read[key] = self._document_of(key)
            before = self._states.get(key, ("", ()))
            now = stated_by(document, self._domain) if document is not None else ("", ())
            for table, names in (before, now):
                if table:
                    touched[table].update(names)
            if before != now:
                self._index(key, now)
        who = {key for table, names in touched.items() for name in names for key in self._stated[table].get(name, ())}
        documents = []
        for key in sorted(who, key=self._place):
            one = read[key] if key in read else self._document_of(key)
            if one is not None:
                documents.append(one)
        made, old = facts_of(documents, self._source, self._domain), self.facts
        hosts, workloads, namespaces = touched["hosts"], touched["workloads"], touched["namespaces"]
        self.facts = Facts(
            _with(old.services, made.services, hosts),
            _with(old.endpoints, made.endpoints, hosts),
            _with(old.workloads, made.workloads, workloads),
            _with(old.namespaces, made.namespaces, namespaces),
        )
        return Changed(frozenset(hosts), frozenset(workloads), frozenset(namespaces))

    def _document_of(self, key: str) -> Document | None:
        body = self._read(key)
        return self._document(key, body) if body is not None else None

    def _document(self, key: str, body: Mapping[str, Any]) -> Document:
        return Document.of(dict(body), f"{self._source}:{key.removeprefix('object/')}")

    def _place(self, key: str) -> tuple[int, list[str]]:
        """Where an object stands among all."""
        resource, *name = key.split("/")[1:]
        return self._rank[resource], name

    def _index(self, key: str, states: tuple[str, tuple[str, ...]]) -> None:
        table, names = self._states.pop(key, ("", ()))
        for name in names:
            left = tuple(one for one in self._stated[table][name] if one != key)
            if left:
                self._stated[table][name] = left
            else:
                del self._stated[table][name]
        table, names = states
        if table:
            self._states[key] = states
            for name in names:
                self._stated[table][name] = (*self._stated[table].get(name, ()), key)


def _with(old: Mapping[str, V], made: Mapping[str, V], touched: set[str]) -> Mapping[str, V]:
    """The old table with what is touched as it is made now."""
    return amended(old, {key: made.get(key) for key in touched})
