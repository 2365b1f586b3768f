"""What the mesh knows, as versioned items, and the difference that each sidecar needs to catch up.

An item is one key and its JSON value:

    object/PLURAL.GROUP/NAMESPACE/NAME   a resource, as written      (rules, MeshConfig)
    service/HOST                         registry.model.Service
    endpoints/HOST                       list of registry.model.Endpoint
    workload/NAMESPACE/NAME              registry.model.Workload, without its checks
    checks/NAMESPACE/NAME                list of registry.checks.Check, for the sidecar of this workload alone
    namespace/NAME                       labels
    provisional/ID                       until when objects are as they are, and what they were (mesh/provisional.py)

Versions are `EPOCH.NUMBER`; the number grows by one with every change, the epoch names one run of control. A reader
(feed_server.py) is sent everything that its View has, then differences: of what has changed, and of its view. One that
comes back with a version of another epoch, or whose view is not everybody's, tells the digests of the items that it
holds, and is sent what it lacks. Work per change grows with what changed: items are encoded once, for all sidecars, and
a message that many need is made once.
"""

from __future__ import annotations

from base64 import b64encode
from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Set
from itertools import chain
from typing import Any, Protocol

import msgspec
from msgspec.structs import replace

from ..registry.digest import item_digest
from ..registry.model import Endpoint, Workload
from ..registry.snapshot import Snapshot

REMOVALS_KEPT = 10_000
"""How many changes are remembered for catching up; a sidecar further behind tells what it holds."""

OBJECT = "object/"
SECRETS = "object/secrets/"
CHECKS = "checks/"
"""They may hold credentials, and commands."""
NONE: frozenset[str] = frozenset()
SHARED_MOST = 256
"""Messages of one version that are kept for others."""
_encode = msgspec.json.Encoder().encode


class Scope:
    """The facts that a reader is to have; None: all of the kind."""

    __slots__ = ("endpoints", "services", "workloads")

    def __init__(
        self, services: Set[str] | None = None, endpoints: Set[str] | None = None, workloads: Set[str] | None = None
    ) -> None:
        self.services = services
        """Hosts."""
        self.endpoints = endpoints
        """Hosts whose endpoints it is to have."""
        self.workloads = workloads
        """Namespace/name."""

    def tables(self) -> tuple[tuple[str, Set[str] | None], ...]:
        return (("service", self.services), ("endpoints", self.endpoints), ("workload", self.workloads))


ALL = Scope()


class Understands(Protocol):
    """What a reader of another version understands."""

    def why_not(self, key: str, number: int, value: bytes) -> str:
        """Why an item (as it changed at `number`) is not for it; empty: it is."""
        ...


class View(msgspec.Struct, frozen=True):
    """What of the book a reader is to have."""

    secrets: frozenset[str] = NONE
    """Item keys of its Secrets."""
    workload: str = ""
    """Whose checks (namespace/name)."""
    scope: Scope = ALL
    understands: Understands | None = None
    """Which objects it understands; None: all."""
    tables: Set[str] | None = None
    """First parts of the keys of items that it understands; None: all."""

    @property
    def plain(self) -> bool:
        """Whether it is everybody's, as far as it does not depend on the reader's name."""
        return self.scope is ALL and not self.secrets and self.understands is None and self.tables is None

    def has(self, key: str) -> bool:
        if key.startswith(OBJECT):
            return not key.startswith(SECRETS) or key in self.secrets
        table, _, name = key.partition("/")
        if self.tables is not None and table not in self.tables:
            return False
        if table == "checks":
            return name == self.workload
        if self.scope is ALL:
            return True
        wanted: Set[str] | None = None
        if table == "endpoints":
            wanted = self.scope.endpoints
        elif table == "service":
            wanted = self.scope.services
        elif table == "workload":
            wanted = self.scope.workloads
        return wanted is None or name in wanted


class Book:
    """All items with the number at which each last changed."""

    def __init__(self, epoch: str) -> None:
        self.epoch = epoch
        self.number = 0
        self.version = f"{epoch}.0"
        self._items: dict[str, tuple[int, bytes]] = {}
        self._recent: deque[tuple[int, str]] = deque(maxlen=REMOVALS_KEPT)
        """(number, key) of the latest changes and removals, oldest first."""
        self._floor = 0
        """Differences can be told from this number on."""
        self._snapshot = Snapshot()
        self.loses = False
        """The latest facts take endpoints away that were ready."""
        self._tables: dict[str, set[str]] = {}
        """Item keys by their first part."""
        self._since: dict[int, tuple[str, ...]] = {}
        """What has changed since a number, as told of this version before."""
        self._shared: dict[tuple[Any, ...], bytes] = {}
        """Messages of this version."""
        self._plain: dict[int, bytes | bool | None] = {}
        """What who has everybody's view lacks since a number; False: it depends on the reader."""
        self._withheld: dict[int, Mapping[str, str]] = {}
        """What is withheld in this version, by the identity of who understands less."""
        self._digests: dict[str, tuple[int, bytes]] = {}
        """(number at which the item changed, digest) of items that were asked for."""

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
        self.version = f"{self.epoch}.{self.number}"
        self._since.clear()
        self._plain.clear()
        self._shared.clear()
        self._withheld.clear()
        for key, value in real.items():
            if len(self._recent) == self._recent.maxlen:
                self._floor = self._recent[0][0]
            self._recent.append((self.number, key))
            if value is None:
                del self._items[key]
                self._tables[key.partition("/")[0]].discard(key)
                self._digests.pop(key, None)
            else:
                if key not in self._items:
                    self._tables.setdefault(key.partition("/")[0], set()).add(key)
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
        self.loses = False
        for prefix, old, new, keys in (
            ("service/", before.services, snapshot.services, told and told.hosts),
            ("endpoints/", before.endpoints, snapshot.endpoints, told and told.hosts),
            ("workload/", before.workloads, snapshot.workloads, told and told.workloads),
            ("namespace/", before.namespaces, snapshot.namespaces, told and told.namespaces),
        ):
            for key in keys if isinstance(keys, frozenset) else dict.fromkeys(chain(old, new)):
                had, value = old.get(key), new.get(key)
                if had is value:
                    continue
                if had and prefix == "endpoints/" and not self.loses:
                    self.loses = not _served(before.endpoints[key]) <= _served(snapshot.endpoints.get(key, ()))
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

    # --- messages: {"version", "full": bool, "set": {key: value}, "remove": [keys]}, and what `compared` adds

    def number_of(self, version: str) -> int:
        """The number from which the differences to this version can be told; -1: they cannot."""
        epoch, _, text = version.rpartition(".")
        number = int(text) if text.isascii() and text.isdigit() else -1
        return number if epoch == self.epoch and self._floor <= number <= self.number else -1

    def everything(self, view: View = View()) -> bytes:
        """The message to who has nothing."""
        shared = view.plain and f"{CHECKS}{view.workload}" not in self._items
        message = self._shared.get(("everything",)) if shared else None
        if message is None:
            message = self._message(b"true", [key for key in self._of(view) if not self.withheld(view, key)], [])
            if shared:
                self._shared[("everything",)] = message
        return message

    def difference(self, number: int, before: View, now: View) -> bytes | None:
        """The message from `number` and the view that a reader had there to now; None: it lacks nothing."""
        if before is now and now.plain:
            found = self._plain.get(number, True)
            if found is True:
                own = any(key.startswith((CHECKS, SECRETS)) for key in self._changed_since(number))
                found = self._plain[number] = False if own else self._difference(number, now, now)
            if not isinstance(found, bool):
                return found
        return self._difference(number, before, now)

    def _difference(self, number: int, before: View, now: View) -> bytes | None:
        keys = dict.fromkeys(key for key in self._changed_since(number) if now.has(key))
        gone: dict[str, None] = {}
        if before is not now:
            keys |= dict.fromkeys(sorted(now.secrets - before.secrets))
            gone |= dict.fromkeys(sorted(before.secrets - now.secrets))
            if before.scope is not now.scope:
                for (table, old), (_, new) in zip(before.scope.tables(), now.scope.tables(), strict=True):
                    keys |= dict.fromkeys(self._beyond(table, new, old, there=True))
                    gone |= dict.fromkeys(self._beyond(table, old, new))
        present = [key for key in keys if key in self._items and not self.withheld(now, key)]
        gone |= dict.fromkeys(
            key for key in keys if key not in self._items and (not key.startswith(SECRETS) or key in before.secrets)
        )
        if not present and not gone:
            return None
        told = (tuple(present), tuple(gone))
        message = self._shared.get(told)
        if message is None:
            message = self._message(b"false", present, list(gone))
            if len(self._shared) < SHARED_MOST:
                self._shared[told] = message
        return message

    def compared(self, view: View, digests: Set[bytes]) -> bytes:
        """The message to who holds the items of these digests, which may be of another epoch or another control plane.

        Besides what others have: "resumed": true, "drop": digests (base64) of what it is not to hold, unless under a
        key that is set, or is in "keep": what it would not understand in its present form.
        """
        present, keep, same = [], [], set()
        for key in self._of(view):
            digest = self._digest(key)
            if digest in digests:
                same.add(digest)
            elif self.withheld(view, key):
                keep.append(key)
            else:
                present.append(key)
        drop = sorted(b64encode(one).decode() for one in digests - same)
        more = b',"resumed":true,"drop":%s,"keep":%s' % (_encode(drop), _encode(keep))
        return self._message(b"false", present, [], more)

    def withheld(self, view: View, key: str) -> str:
        """Why an item is not sent to who understands less than we do; empty: it is."""
        if view.understands is None or not key.startswith(OBJECT):
            return ""
        return view.understands.why_not(key, *self._items[key])

    def withheld_from(self, understands: Understands) -> Mapping[str, str]:
        """Why not, by key, of all objects but Secrets that are withheld from who understands so much."""
        found = self._withheld.get(id(understands))
        if found is None:
            view = View(understands=understands)
            told = {key: self.withheld(view, key) for key in sorted(self._tables.get("object", ())) if view.has(key)}
            found = self._withheld[id(understands)] = {key: why for key, why in told.items() if why}
        return found

    def _of(self, view: View) -> Iterator[str]:
        """The keys that a view has now."""
        if view.scope is ALL:
            yield from (key for key in self._items if view.has(key))
            return
        scoped = dict(view.scope.tables())
        for table, keys in self._tables.items():
            if table in scoped:
                yield from self._beyond(table, scoped[table], NONE, there=True)
            elif table == "checks":
                yield from {f"{CHECKS}{view.workload}"} & keys
            else:
                yield from (key for key in keys if view.has(key))

    def _beyond(self, table: str, names: Set[str] | None, than: Set[str] | None, there: bool = False) -> Iterable[str]:
        """Item keys of what is in one set of names and not in another (None: all that are there are in it)."""
        if names is than or than is None:
            return ()
        if names is None:
            begin = len(table) + 1
            return [key for key in self._tables.get(table, ()) if key[begin:] not in than]
        keys = [f"{table}/{name}" for name in names - than]
        return [key for key in keys if key in self._items] if there else keys

    def _changed_since(self, number: int) -> tuple[str, ...]:
        found = self._since.get(number)
        if found is None:
            keys: dict[str, None] = {}
            for changed_at, key in reversed(self._recent):
                if changed_at <= number:
                    break
                keys[key] = None
            found = self._since[number] = tuple(keys)
        return found

    def _digest(self, key: str) -> bytes:
        number, value = self._items[key]
        known = self._digests.get(key)
        if known is None or known[0] != number:
            known = self._digests[key] = (number, item_digest(key, value))
        return known[1]

    def _message(self, full: bytes, present: list[str], removed: list[str], more: bytes = b"") -> bytes:
        body = b",".join([_encode(key) + b":" + self._items[key][1] for key in present])
        told = (_encode(self.version), full, body, _encode(removed), more)
        return b'{"version":%s,"full":%s,"set":{%s},"remove":%s%s}\n' % told


def _served(endpoints: Iterable[Endpoint]) -> set[tuple[str, int]]:
    """Addresses and ports that are ready."""
    return {(one.address, one.port) for one in endpoints if one.ready}
