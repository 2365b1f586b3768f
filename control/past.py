"""The world as it was at an earlier revision of the store, for `fairlead explain --at`.

Objects are those of that revision. What manifests, sidecars and other sources say is not kept over time: it is as it
is now.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from ..registry.documents import Document
from ..registry.facts import facts_of
from ..registry.hub import Registry
from ..registry.model import Facts
from .api import ControlApi, item_key
from .history import changed_since
from .push import Book


def objects_at(api: ControlApi, resources: Collection[str], revision: int) -> dict[str, dict[str, Any]]:
    """As `ControlApi.objects`, of this revision. Raises CompactedError."""
    found = api.objects(resources)
    for key, stored in changed_since(api.store.memory, revision).items():
        if key.resource not in resources or key.resource not in api.catalog.by_name:
            continue
        if stored is None:
            found.pop(item_key(key), None)
        else:
            found[item_key(key)] = api.shown(stored)
    return found


def world_at(
    rules: Mapping[str, Mapping[str, Any]],
    facts: Mapping[str, dict[str, Any]],
    others: Sequence[tuple[str, Facts]],
    precedence: Sequence[str],
) -> bytes:
    """One feed message with everything: rules by item key, what these objects state, and what `others` say now."""
    registry = Registry(precedence)
    documents = [Document.of(body, f"control:{key.removeprefix('object/')}") for key, body in facts.items()]
    registry.update("control", facts_of(documents, "control"))
    for source, said in others:
        registry.update(source, said)
    book = Book("past")
    book.objects(dict(rules))
    book.facts(registry.snapshot.value)
    return book.everything()
