"""The API's objects that state facts, as KeptFacts wants them: one by one, by item key."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import Any

from ..registry.facts_kept import KeptFacts
from .api import ControlApi, item_key
from .store import Key


def kept_facts(api: ControlApi, resources: Collection[str]) -> KeptFacts:
    """The facts of the objects of these resources, kept from now on."""
    memory = api.store.memory

    def read(key: str) -> dict[str, Any] | None:
        _, resource, namespace, name = key.split("/", 3)
        stored = memory.get(Key(resource, namespace, name))
        return api.shown(stored) if stored is not None else None

    def each() -> Iterator[tuple[str, dict[str, Any]]]:
        for resource in order:
            for stored in memory.all(resource):
                yield item_key(stored.key), api.shown(stored)

    order = [one.name for one in api.catalog.resources if one.name in resources]
    made = KeptFacts("control", order, read)
    made.load(each())
    return made
