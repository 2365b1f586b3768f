"""Which kinds, fields and words a version of Fairlead knows, for those of another version to tell. Pure.

Each kind has a list of paths: `spec.http[].timeout`, below a map `spec.labels{}`, `spec.mode=STRICT` for each word of
a text that has a list of them (and `spec.mode=` to say that it has), `spec.x*` where anything may stand.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Set
from typing import Any

from msgspec import json

from ..registry.digest import blake2b
from ..registry.schema import Node
from .kinds import KINDS, RULE_KINDS

_SNAKE = re.compile(r"_([a-z0-9])")
PASSED_OVER = ("apiVersion", "kind", "metadata", "status")
UNKNOWN_MOST = 5
"""Of one object that are told."""


def known_fields() -> dict[str, list[str]]:
    """By resource (`virtualservices.networking.istio.io`), of the kinds that travel as they are written."""
    kinds = [*RULE_KINDS, *(one for one in KINDS if one.name == "secrets")]
    return {one.name: sorted(set(_paths(one.schema, ""))) for one in kinds}


def schema_id() -> str:
    """The same for all versions that know the same."""
    return blake2b(json.encode(known_fields()), digest_size=8).hexdigest()


def _paths(node: Node, path: str) -> Iterator[str]:
    if path:
        yield path
    if node.kind == "any" or node.open:
        yield f"{path}*"
    if node.values:
        yield f"{path}="
        yield from (f"{path}={value}" for value in node.values)
    if node.item is not None:
        yield from _paths(node.item, f"{path}[]" if node.kind == "list" else f"{path}{{}}")
    for name, field in node.fields.items():
        if path or name not in PASSED_OVER:
            yield from _paths(field, f"{path}.{name}" if path else name)


class Understanding:
    """What another version knows, by its own lists."""

    def __init__(self, fields: Mapping[str, Collection[str]]) -> None:
        self._fields: dict[str, Set[str]] = {name: frozenset(paths) for name, paths in fields.items()}

    def lacks(self, resource: str, body: Mapping[str, Any]) -> list[str]:
        """What of an object the other does not know, in words; empty: it knows all of it."""
        known = self._fields.get(resource)
        if known is None:
            return ["it does not know this kind"]
        found: list[str] = []
        for name, value in body.items():
            if name not in PASSED_OVER:
                _look(known, value, _named(known, "", name), found)
        return [f"it does not know {path}" for path in found[:UNKNOWN_MOST]]


def _named(known: Set[str], path: str, name: str) -> str:
    """The path of a field, under its usual name where it is written in snake_case."""
    at = f"{path}.{name}" if path else name
    if at in known:
        return at
    usual = _SNAKE.sub(lambda found: found[1].upper(), name)
    return f"{path}.{usual}" if path else usual


def _look(known: Set[str], value: Any, path: str, found: list[str]) -> None:
    if path not in known:
        found.append(path)
    elif f"{path}*" in known:
        return
    elif isinstance(value, dict):
        if f"{path}{{}}" in known:
            for inner in value.values():
                _look(known, inner, f"{path}{{}}", found)
        else:
            for name, inner in value.items():
                _look(known, inner, _named(known, path, name), found)
    elif isinstance(value, list):
        for inner in value:
            _look(known, inner, f"{path}[]", found)
    elif isinstance(value, str) and f"{path}=" in known and f"{path}={value}" not in known:
        found.append(f"{path}={value}")
