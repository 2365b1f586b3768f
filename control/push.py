"""What the mesh knows, as versioned items, and the difference that each sidecar needs to catch up.

An item is one key and its JSON value:

    object/PLURAL.GROUP/NAMESPACE/NAME   a resource, as written      (rules, MeshConfig)
    service/HOST                         registry.model.Service
    endpoints/HOST                       list of registry.model.Endpoint
    workload/NAMESPACE/NAME              registry.model.Workload, without its checks
    checks/NAMESPACE/NAME                list of registry.checks.Check, for the sidecar of this workload alone
    namespace/NAME                       labels
    provisional/ID                       until when objects are as they are, and what they were (mesh/provisional.py)

Versions are `EPOCH.NUMBER`; the number grows by one with every change, the epoch names one run of control. Who asks
for what is newer than a version of the same epoch gets the difference; anyone else gets everything. Work per change
grows with what changed: items are encoded once, for all sidecars.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec.structs import replace

from ..registry.model import Workload
from ..registry.snapshot import Snapshot

REMOVALS_KEPT = 10_000
"""How many removals are remembered for catching up; a sidecar further behind gets everything."""

SECRETS = "object/secrets/"
CHECKS = "checks/"
"""They may hold credentials, and commands."""
NONE: frozenset[str] = frozenset()
Holds = tuple[frozenset[str], frozenset[str]]
"""(what a reader holds for certain, what it may hold): keys of Secrets."""
_encode = msgspec.json.Encoder().encode


class Held:
    """The Secrets that one reader has, by what it was sent; kept while control runs, through reconnections."""

    __slots__ = ("perhaps", "sure", "version")

    def __init__(self) -> None:
        self.version = ""
        """Last sent to it."""
        self.sure: frozenset[str] = NONE
        """What it holds at that version."""
        self.perhaps: frozenset[str] = NONE
        """What else it may hold, as it may have missed what was sent last."""

    def at(self, version: str) -> Holds:
        """Where it says that it has this version."""
        return (self.sure, self.sure) if version == self.version else (NONE, self.sure | self.perhaps)

    def sent(self, version: str, wanted: frozenset[str]) -> None:
        self.perhaps |= self.sure
        self.version, self.sure = version, wanted

    def taken(self, version: str) -> None:
        """It has said that it holds this version."""
        if version == self.version:
            self.perhaps = NONE


class Book:
    """All items with the number at which each last changed."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.number = 0
        self._items: dict[str, tuple[int, bytes]] = {}
        self._recent: deque[tuple[int, str]] = deque(maxlen=REMOVALS_KEPT)
        """(number, key) of the latest changes and removals, oldest first."""
        self._floor = 0
        """Differences can be told from this number on."""
        self._snapshot = Snapshot()

    @property
    def version(self) -> str:
        return f"{self.epoch}.{self.number}"

    def __len__(self) -> int:
        return len(self._items)

    def _change(self, changed: Mapping[str, bytes | None]) -> bool:
        real = {
            key: value
            for key, value in changed.items()
            if (key in self._items if value is None else self._items.get(key, (0, None))[1] != value)
        }
        if not real:
            return False
        self.number += 1
        for key, value in real.items():
            if len(self._recent) == self._recent.maxlen:
                self._floor = self._recent[0][0]
            self._recent.append((self.number, key))
            if value is None:
                del self._items[key]
            else:
                self._items[key] = (self.number, value)
        return True

    def objects(self, changed: Mapping[str, Mapping[str, Any] | None]) -> bool:
        """Take resources by item key, None for a removed one; whether anything is new."""
        return self._change({key: None if body is None else _encode(body) for key, body in changed.items()})

    def facts(self, snapshot: Snapshot) -> bool:
        """Take the registry's snapshot; looks only at what is not the same object as before."""
        before = self._snapshot
        told = snapshot.changed if snapshot.version == before.version + 1 else None
        changed: dict[str, bytes | None] = {}
        for prefix, old, new, keys in (
            ("service/", before.services, snapshot.services, told and told.hosts),
            ("endpoints/", before.endpoints, snapshot.endpoints, told and told.hosts),
            ("workload/", before.workloads, snapshot.workloads, told and told.workloads),
            ("namespace/", before.namespaces, snapshot.namespaces, told and told.namespaces),
        ):
            for key in keys if isinstance(keys, frozenset) else {**old, **new}:
                had, value = old.get(key), new.get(key)
                if had is value:
                    continue
                checks = value.checks if isinstance(value, Workload) else ()
                if checks or (isinstance(had, Workload) and had.checks):
                    changed[CHECKS + key] = _encode(checks) if checks else None
                if isinstance(value, Workload) and checks:
                    value = replace(value, checks=())
                if value is not None:
                    changed[prefix + key] = _encode(value)
                else:
                    changed[prefix + key] = None
        self._snapshot = snapshot
        return self._change(changed)

    def message_since(
        self, version: str, secrets: frozenset[str] = NONE, holds: Holds = (NONE, NONE), workload: str = ""
    ) -> bytes | None:
        """The message that brings a sidecar from `version` (empty: nothing yet) to now; None: it is up to date, or
        what is new is not for it. `secrets`: the keys of those Secrets that it is to have, and of no other; those of
        them that it does not hold are sent, whatever their age, and those that it may hold beside them withdrawn.
        Checks are for the sidecar of their own workload (namespace/name).

        One JSON object: {"version", "full": bool, "set": {key: value}, "remove": [keys]}.
        """
        epoch, _, number_text = version.rpartition(".")
        number = int(number_text) if number_text.isdigit() else -1
        if epoch != self.epoch or not self._floor <= number <= self.number:
            everything = [(key, one) for key, (_, one) in self._items.items() if _is_for(key, secrets, workload)]
            return self._message(True, everything, [])
        sure, perhaps = holds
        if number == self.number and sure == secrets == perhaps:
            return None
        keys: dict[str, None] = {}
        for changed_at, key in reversed(self._recent):
            if changed_at <= number:
                break
            if _is_for(key, secrets, workload):
                keys[key] = None
        keys |= dict.fromkeys(sorted(secrets - sure))
        present = [(key, self._items[key][1]) for key in keys if key in self._items]
        removed = [key for key in keys if key not in self._items and (not key.startswith(SECRETS) or key in perhaps)]
        removed += sorted(perhaps - secrets)
        return self._message(False, present, removed) if present or removed else None

    def _message(self, full: bool, present: list[tuple[str, bytes]], removed: list[str]) -> bytes:
        body = b",".join(_encode(key) + b":" + value for key, value in present)
        return (
            b'{"version":%s,"full":%s,"set":{' % (_encode(self.version), b"true" if full else b"false")
            + body
            + b'},"remove":'
            + _encode(removed)
            + b"}\n"
        )


def _is_for(key: str, secrets: frozenset[str], workload: str) -> bool:
    if key.startswith(SECRETS):
        return key in secrets
    return not key.startswith(CHECKS) or key[len(CHECKS) :] == workload
