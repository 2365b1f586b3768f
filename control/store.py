"""What a store of objects promises, and the part of it that is the same for every kind of storage.

An object is kept once, whatever API version it was written in: its key is (resource, namespace, name), its body JSON
without `apiVersion` and `kind`. Every change gets the next revision of the whole store, which is also the object's
`metadata.resourceVersion`. Writes are compare-and-swap; a group of writes happens as a whole or not at all. What
`write` has returned from survives `kill -9` and power failure. A bounded log of changes, each with its author, time
and reason, lets a watcher go on from the revision that it has seen, and a reader see the state as it was at an earlier
revision. Where several control planes share a store, revisions are of the store: the same for all of them.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import msgspec
from msgspec import Struct

LOG_ENTRIES = 10_000
"""So many changes can be followed from the past; older ones are compacted away (410 Gone)."""
LOG_BYTES = 64 << 20
"""And so many bytes of bodies among them."""
LOG_AGE_S = 30 * 86400.0
"""And they are not older than this, counted from the latest."""
INTERNAL = ".internal.fairlead.dev"
"""Resources with such names are control's own (tokens, sidecars, ...): no API shows them, nor does the log."""

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode


class Key(NamedTuple):
    resource: str
    """`virtualservices.networking.istio.io`; of the core group just `services`."""
    namespace: str
    """Empty for what has no namespace."""
    name: str


class Stored(Struct, frozen=True):
    """An object at one version."""

    key: Key
    version: int
    body: bytes
    """JSON object without apiVersion and kind; metadata.resourceVersion is `version`."""

    def object(self) -> dict[str, Any]:
        """A fresh copy, for the caller to change."""
        found: dict[str, Any] = decode(self.body)
        return found


class Cause(Struct, frozen=True):
    """Who changes something, and why. `at`: Unix seconds; 0: not known."""

    author: str = ""
    reason: str = ""
    at: float = 0.0


UNKNOWN = Cause()


class Change(Struct, frozen=True):
    """One write, at its revision. `after` None: removed; `last` is then the object as it was, at this revision."""

    revision: int
    key: Key
    before: Stored | None
    after: Stored | None
    cause: Cause = UNKNOWN

    @property
    def last(self) -> Stored:
        if self.after is not None:
            return self.after
        assert self.before is not None
        body = self.before.object()
        body["metadata"]["resourceVersion"] = str(self.revision)
        return Stored(self.key, self.revision, encode(body))


class Write(Struct, frozen=True):
    """`body` None: remove. `expect`: the version that must stand now, 0: there must be none, None: anything."""

    key: Key
    body: dict[str, Any] | None
    expect: int | None = None


class StoreError(Exception):
    """The store cannot do it; nothing was changed. The message says why and what to do."""


class StoreFullError(StoreError):
    """No room left on the disk."""


class StoreTooLargeError(StoreError):
    """The object is larger than what this storage takes."""


class StoreUnavailableError(StoreError):
    """The storage cannot be reached: reads go on, writes do not. `unknown`: the write may have happened none the
    less."""

    def __init__(self, message: str, unknown: bool = False) -> None:
        super().__init__(message)
        self.unknown = unknown


class StoreTrustError(StoreUnavailableError):
    """TLS does not come about: one side does not trust the other. No use to wait for it at the start."""


class ConflictError(StoreError):
    """Another version than expected stands there (`current`; None: none at all)."""

    def __init__(self, key: Key, current: Stored | None) -> None:
        super().__init__(f"{key.resource} {key.namespace}/{key.name} has changed")
        self.key = key
        self.current = current


class CompactedError(StoreError):
    """The revision asked for is older than what the log still holds (or newer than the store)."""

    def __init__(self, asked: int, floor: int) -> None:
        super().__init__(f"too old resource version: {asked} ({floor})")
        self.asked = asked
        self.floor = floor


Subscriber = Callable[[Sequence[Change]], None]


class Store(Protocol):
    """Reading is immediate and never fails; everything is to be called in the loop's thread."""

    memory: Objects
    shared: bool
    """Other control planes may use the same storage: what they write comes into `memory` by itself."""
    url: str
    """What was given for --store, without credentials."""

    async def write(self, writes: Sequence[Write], cause: Cause = UNKNOWN) -> list[Change]:
        """All or nothing; durable when it returns. Raises ConflictError, StoreFullError, StoreUnavailableError,
        StoreError."""
        ...

    async def sync(self) -> None:
        """Return when `memory` has everything that was in the storage when this was called. Raises
        StoreUnavailableError."""
        ...

    def problem(self) -> str:
        """Why the last write failed for want of storage; empty: it did not."""
        ...

    async def probe(self) -> str:
        """Try whether storage can be written again, where it could not; the problem, empty: none."""
        ...

    async def close(self) -> None: ...


class Log:
    """The latest changes in order of revision."""

    def __init__(
        self,
        floor: int = 0,
        entries_max: int = LOG_ENTRIES,
        bytes_max: int = LOG_BYTES,
        age_max_s: float = LOG_AGE_S,
    ) -> None:
        self.floor = floor
        """Changes after this revision are here."""
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._age_max_s = age_max_s
        self._changes: list[Change] = []
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._changes)

    def append(self, change: Change) -> None:
        self._changes.append(change)
        self._bytes += size(change)

    def compact(self) -> int:
        """Drop the oldest where they are too many or too old; the new floor. Done in strides, to be cheap."""
        drop = max(0, len(self._changes) - self._entries_max)
        if drop <= self._entries_max // 8 and self._bytes <= self._bytes_max:
            drop = 0
        if self._changes:
            old = self._changes[-1].cause.at - self._age_max_s
            while drop < len(self._changes) - 1 and 0 < self._changes[drop].cause.at < old:
                drop += 1
        if not drop and self._bytes <= self._bytes_max:
            return self.floor
        left = self._bytes - sum(size(change) for change in self._changes[:drop])
        while left > self._bytes_max * 7 // 8 and drop < len(self._changes) - 1:
            left -= size(self._changes[drop])
            drop += 1
        if drop:
            self.floor = self._changes[drop - 1].revision
            del self._changes[:drop]
            self._bytes = left
        return self.floor

    def after(self, revision: int) -> list[Change]:
        """Changes newer than `revision`, oldest first. Raises CompactedError."""
        if revision < self.floor:
            raise CompactedError(revision, self.floor)
        return self._changes[bisect_right(self._changes, revision, key=lambda change: change.revision) :]

    def all(self) -> Sequence[Change]:
        """Everything that is still here, oldest first; not to be changed."""
        return self._changes


def is_internal(resource: str) -> bool:
    """Whether these objects are control's own."""
    return resource.endswith(INTERNAL)


def size(change: Change) -> int:
    return 200 + len(change.after.body if change.after else b"") + len(change.before.body if change.before else b"")


class Objects:
    """Everything in the store, in memory: what reads are answered from. Holds the logic, no storage."""

    def __init__(self, revision: int = 0, log: Log | None = None) -> None:
        self.revision = revision
        self.log = log if log is not None else Log(revision)
        self.life = 0
        """Grows when what is here does not follow from what was here: whoever has followed must read everything."""
        self._objects: dict[str, dict[tuple[str, str], Stored]] = {}
        self._subscribers: list[Subscriber] = []

    def load(self, stored: Iterable[Stored]) -> None:
        """Fill from storage, at the start."""
        for item in stored:
            self._objects.setdefault(item.key.resource, {})[item.key[1:]] = item

    def get(self, key: Key) -> Stored | None:
        return self._objects.get(key.resource, {}).get((key.namespace, key.name))

    def all(self, resource: str, namespace: str | None = None) -> list[Stored]:
        """Objects in order of (namespace, name); of all namespaces where `namespace` is None."""
        found = self._objects.get(resource, {})
        return [found[key] for key in sorted(found) if namespace is None or key[0] == namespace]

    def all_at(self, resource: str, namespace: str | None, revision: int) -> list[Stored]:
        """The same as it was at an earlier revision. Raises CompactedError."""
        if revision == self.revision:
            return self.all(resource, namespace)
        if revision > self.revision:
            raise CompactedError(revision, self.log.floor)
        found = dict(self._objects.get(resource, {}))
        for change in reversed(self.log.after(revision)):
            if change.key.resource != resource:
                continue
            if change.before is None:
                found.pop(change.key[1:], None)
            else:
                found[change.key[1:]] = change.before
        return [found[key] for key in sorted(found) if namespace is None or key[0] == namespace]

    def resources(self) -> list[str]:
        """Names of the resources of which there is any object."""
        return sorted(resource for resource, found in self._objects.items() if found)

    def subscribe(self, callback: Subscriber) -> Callable[[], None]:
        """Call back with every commit's changes, in the loop's thread; returns how to end that."""
        self._subscribers.append(callback)
        return lambda: self._subscribers.remove(callback) if callback in self._subscribers else None

    def plan(self, writes: Sequence[Write], pending: Sequence[Change] = (), cause: Cause = UNKNOWN) -> list[Change]:
        """What a group of writes would change, on top of `pending` changes. Raises ConflictError; changes nothing."""
        ahead = {change.key: change.after for change in pending}
        revision = pending[-1].revision if pending else self.revision
        changes: list[Change] = []
        for write in writes:
            current = ahead[write.key] if write.key in ahead else self.get(write.key)
            if write.expect is not None and write.expect != (current.version if current else 0):
                raise ConflictError(write.key, current)
            if write.body is None and current is None:
                raise ConflictError(write.key, None)
            revision += 1
            after = None
            if write.body is not None:
                metadata = {**write.body.get("metadata", {}), "resourceVersion": str(revision)}
                after = Stored(write.key, revision, encode({**write.body, "metadata": metadata}))
            changes.append(Change(revision, write.key, current, after, cause))
            ahead[write.key] = after
        return changes

    def commit(self, changes: Sequence[Change]) -> None:
        """Take changes that storage has taken, and tell the subscribers. Raises what the first failing one raised."""
        for change in changes:
            found = self._objects.setdefault(change.key.resource, {})
            if change.after is None:
                found.pop(change.key[1:], None)
            else:
                found[change.key[1:]] = change.after
            self.revision = change.revision
            if not is_internal(change.key.resource):
                self.log.append(change)
        self.log.compact()
        self._tell(changes)

    def replace(self, revision: int, log: Log, objects: dict[Key, Stored]) -> None:
        """Take the storage's state where the log does not lead there from here. Subscribers are told what differs;
        who follows revisions must read everything again (`life`). Raises as `commit`."""
        before = {Key(name, *rest): stored for name, found in self._objects.items() for rest, stored in found.items()}
        differs = [key for key in before.keys() | objects.keys() if before.get(key) != objects.get(key)]
        self._objects = {}
        self.load(objects.values())
        self.revision, self.log = revision, log
        self.life += 1
        self._tell([Change(revision, key, before.get(key), objects.get(key)) for key in sorted(differs)])

    def _tell(self, changes: Sequence[Change]) -> None:
        failed: list[Exception] = []
        for callback in list(self._subscribers):
            try:
                callback(changes)
            except Exception as error:  # the others hear of it all the same
                failed.append(error)
        if failed:
            raise failed[0]
