"""What each of Consul's nodes has, as its watch tells: which services a change concerns.

Of a node and service one number is kept, so that a hundred thousand instances cost a few megabytes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from typing import Any

import msgspec

from .consul_catalog import OWN


class _Node(msgspec.Struct):
    ModifyIndex: int = 0


class _Instance(msgspec.Struct):
    ID: str
    Service: str
    ModifyIndex: int


class OnNode(msgspec.Struct):
    """An answer of /v1/catalog/node/NODE, as far as it is looked at."""

    Node: _Node
    Services: dict[str, _Instance] | None = None


class _Named(msgspec.Struct):
    Node: str


def _mark(own: str, index: int, node_index: int) -> int:
    """A node's own change is its services'."""
    return hash((own, index, node_index))


class NodesSeen:
    """Which services each node has, and in which state."""

    decode: Callable[[bytes], OnNode | None] = staticmethod(msgspec.json.Decoder(OnNode | None).decode)
    """Of /v1/catalog/node/NODE; None: there is no such node. Raises ValueError."""
    _names = staticmethod(msgspec.json.Decoder(list[_Named]).decode)

    def __init__(self) -> None:
        self._by_node: dict[str, dict[str, int]] = {}
        self._nodes_with: dict[str, int] = {}
        """By service, how many nodes have it; those that none has any more stay, at 0."""

    @classmethod
    def decode_nodes(cls, octets: bytes) -> tuple[str, ...]:
        """Of /v1/catalog/nodes, the names. Raises ValueError."""
        return tuple(sorted(one.Node for one in cls._names(octets)))

    def take(self, node: str, told: OnNode | None) -> set[str]:
        """Services of the node with instances that changed, came or went since the last look at it."""
        now: dict[str, int] = {}
        if told is not None:
            for one in (told.Services or {}).values():
                if one.Service == OWN:
                    continue
                mark = _mark(one.ID, one.ModifyIndex, told.Node.ModifyIndex)
                now[one.Service] = now.get(one.Service, 0) ^ mark
        before = self._by_node.get(node, {})
        for name in now.keys() - before.keys():
            self._nodes_with[name] = self._nodes_with.get(name, 0) + 1
        for name in before.keys() - now.keys():
            self._nodes_with[name] -= 1
        if now:
            self._by_node[node] = now
        else:
            self._by_node.pop(node, None)
        return {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)}

    def read(self, service: str, entries: list[dict[str, Any]], nodes: Collection[str]) -> None:
        """What a look at the service shows of these nodes. Their next answers are compared with it, since what came
        and went between two of them, and was read meanwhile, would stay."""
        now: dict[str, int] = {}
        try:
            for entry in entries:
                node, one = entry["Node"], entry["Service"]
                if node["Node"] in nodes:
                    mark = _mark(one["ID"], one["ModifyIndex"], node["ModifyIndex"])
                    now[node["Node"]] = now.get(node["Node"], 0) ^ mark
        except (KeyError, TypeError):  # malformed, as its facts tell
            return
        for name, mark in now.items():
            there = self._by_node.setdefault(name, {})
            if service not in there:
                self._nodes_with[service] = self._nodes_with.get(service, 0) + 1
            there[service] = mark

    def services_of(self, nodes: Iterable[str]) -> set[str]:
        return {name for node in nodes for name in self._by_node.get(node, ())}

    def has(self, service: str) -> bool:
        """Some node has it."""
        return self._nodes_with.get(service, 0) > 0

    def had(self, service: str) -> bool:
        """Some node had it, and none has it any more."""
        return self._nodes_with.get(service) == 0

    def forget(self, services: Collection[str]) -> None:
        """These are not in the catalog any more."""
        for name in services:
            if self.had(name):
                del self._nodes_with[name]
