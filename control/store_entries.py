"""How a shared store lies in a key-value storage such as etcd or Consul KV: keys, values, and what they mean.

    PREFIX/head                             {"seq", "id", "revision"} of the last commit
    PREFIX/log/SEQ                          one commit: its changes with the objects before and after, author, reason
    PREFIX/objects/RESOURCE/NAMESPACE/NAME  each object as JSON
    PREFIX/parts/ID/N                       pieces of a commit or an object too large for one value
    PREFIX/live/NAME                        a sign of life of each control plane

The head is changed by compare-and-swap in the same transaction as the rest of a commit, so commits of all control
planes stand in one order, and a writer that has not seen the last one starts again. `seq` grows by one with each
commit; `id` is drawn, and each commit names the one before it, by which a storage that was put back to an earlier
state is found out. The log is the truth for what it holds: an object is what its last change says, else what stands
below `objects`. Large values are compressed (zlib).
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from urllib.parse import quote, unquote

import msgspec
from msgspec import Struct

from .store import Cause, Change, Key, Log, Stored, StoreError, is_internal

COMPRESSED = b"z"
PLAIN_MOST = 16 << 10
"""Larger values are compressed."""
OWN_KEPT = 1000
"""Of commits that concern only what is control's own, the last so many are kept, for others to catch up."""


class Head(Struct, frozen=True):
    """The last commit. A storage that was never written to has seq 0."""

    seq: int = 0
    id: str = ""
    revision: int = 0

    def value(self) -> bytes:
        return msgspec.json.encode(self) if self.seq else b""

    @classmethod
    def read(cls, value: bytes | None) -> Head:
        """Raises StoreError."""
        try:
            return msgspec.json.decode(value, type=Head) if value else Head()
        except msgspec.MsgspecError as error:
            raise StoreError(f"the store's head cannot be read ({error}): is something else kept there?") from None


class Line(Struct, frozen=True, array_like=True):
    """One change."""

    resource: str
    namespace: str
    name: str
    revision: int
    before_version: int
    before: bytes | None
    after: bytes | None
    at: float
    author: str
    reason: str


class Entry(Struct, frozen=True, array_like=True):
    """One commit. `parts`: its lines stand in so many values of their own."""

    seq: int
    id: str
    previous: str
    lines: list[Line]
    revision: int
    parts: int = 0
    loose: bool = False
    """Its objects were not written in the same transaction; before it is dropped, they are written once more."""

    @property
    def own(self) -> bool:
        """Only of what is control's own: no history, and nothing for watchers."""
        return bool(self.lines) and all(is_internal(line.resource) for line in self.lines)


_encode_entry = msgspec.msgpack.Encoder().encode
_decode_entry = msgspec.msgpack.Decoder(Entry).decode
_decode_lines = msgspec.msgpack.Decoder(list[Line]).decode


class _Metadata(Struct):
    resourceVersion: str = "0"


class _Body(Struct):
    metadata: _Metadata


_decode_body = msgspec.json.Decoder(_Body).decode


def pack(value: bytes) -> bytes:
    return COMPRESSED + zlib.compress(value, 1) if len(value) > PLAIN_MOST else value


def unpack(value: bytes) -> bytes:
    return zlib.decompress(value[1:]) if value[:1] == COMPRESSED else value


def entry_of(head: Head, id: str, changes: Sequence[Change], loose: bool = False) -> Entry:
    """The commit of these changes, after `head`."""
    lines = [
        Line(
            *change.key, change.revision, change.before.version if change.before else 0,
            change.before.body if change.before else None, change.after.body if change.after else None,
            change.cause.at, change.cause.author, change.cause.reason,
        )
        for change in changes
    ]  # fmt: skip
    return Entry(head.seq + 1, id, head.id, lines, changes[-1].revision if changes else head.revision, 0, loose)


def write_entry(entry: Entry, most: int) -> tuple[bytes, list[bytes]]:
    """The value of a commit, and, where that would be larger than `most` octets, the parts that go before it."""
    value = COMPRESSED + zlib.compress(_encode_entry(entry), 1)
    if len(value) <= most:
        return value, []
    lines = zlib.compress(_encode_entry(entry.lines), 1)
    parts = [lines[start : start + most] for start in range(0, len(lines), most)]
    bare = Entry(entry.seq, entry.id, entry.previous, [], entry.revision, len(parts), entry.loose)
    return COMPRESSED + zlib.compress(_encode_entry(bare), 1), parts


def read_entry(value: bytes) -> Entry:
    """Raises StoreError."""
    try:
        return _decode_entry(unpack(value))
    except (msgspec.MsgspecError, zlib.error) as error:
        raise StoreError(f"a commit in the store's log cannot be read: {error}") from None


def join_parts(entry: Entry, parts: Iterable[bytes]) -> Entry:
    """The commit with its lines, which stood by themselves. Raises StoreError."""
    try:
        lines = _decode_lines(zlib.decompress(b"".join(parts)))
    except (msgspec.MsgspecError, zlib.error) as error:
        raise StoreError(f"commit {entry.seq} in the store's log cannot be read: {error}") from None
    return Entry(entry.seq, entry.id, entry.previous, lines, entry.revision, entry.parts, entry.loose)


def changes_of(entry: Entry, known: dict[Key, Stored]) -> list[Change]:
    """Its changes. `known`: objects as they were last; bodies in it are used again, and the new ones put in."""
    changes = []
    for line in entry.lines:
        key = Key(line.resource, line.namespace, line.name)
        before = None
        if line.before is not None:
            last = known.get(key)
            same = last is not None and last.version == line.before_version
            before = last if same else Stored(key, line.before_version, line.before)
        after = Stored(key, line.revision, line.after) if line.after is not None else None
        if after is None:
            known.pop(key, None)
        else:
            known[key] = after
        changes.append(Change(line.revision, key, before, after, Cause(line.author, line.reason, line.at)))
    return changes


def object_path(key: Key) -> str:
    """Below `objects/`. Where there is no namespace stands `_`, as no namespace is called."""
    return f"{quote(key.resource, safe='.')}/{quote(key.namespace, safe='.') or '_'}/{quote(key.name, safe='.:')}"


def object_key(path: str) -> Key | None:
    parts = path.split("/")
    if len(parts) != 3:
        return None
    return Key(unquote(parts[0]), "" if parts[1] == "_" else unquote(parts[1]), unquote(parts[2]))


def log_path(seq: int) -> str:
    return f"{seq:016d}"


def part_path(id: str, number: int) -> str:
    return f"parts/{id}/{number:06d}"


class State(Struct):
    """Everything read from the storage."""

    head: Head
    objects: dict[Key, Stored]
    log: Log
    entries: list[Kept]
    """Of each commit that is still there, in order."""


class Kept(Struct, frozen=True):
    """What is remembered of a commit in the storage's log."""

    seq: int
    revision: int
    own: bool
    loose: tuple[Key, ...] = ()
    """Keys of its objects, where they were not written with it."""
    paths: tuple[str, ...] = ()
    """Where it stands."""


def kept(entry: Entry) -> Kept:
    keys = tuple(Key(line.resource, line.namespace, line.name) for line in entry.lines) if entry.loose else ()
    parts = (part_path(entry.id, number) for number in range(entry.parts))
    return Kept(entry.seq, entry.revision, entry.own, keys, (f"log/{log_path(entry.seq)}", *parts))


def droppable(entries: Sequence[Kept], floor: int) -> list[Kept]:
    """Commits that nobody needs any more: up to the revision `floor`, and what is control's own earlier than that; the
    last one always stays."""
    last = entries[-1].seq if entries else 0
    return [
        one
        for one in entries[:-1]
        if one.revision <= floor or (one.own and not one.loose and one.seq <= last - OWN_KEPT)
    ]


def state_of(objects: Iterable[tuple[str, bytes]], entries: Sequence[Entry], head: Head, log: Log) -> State:
    """What is in the storage, from the values below `objects`, which may be older, and the log in order. `log`: empty,
    with the bounds that it is to have. Raises StoreError."""
    found: dict[Key, Stored] = {}
    for path, value in objects:
        key = object_key(path)
        if key is None:
            continue
        body = unpack(value)
        try:
            found[key] = Stored(key, int(_decode_body(body).metadata.resourceVersion), body)
        except (msgspec.MsgspecError, ValueError) as error:
            raise StoreError(f"object {path} in the store cannot be read: {error}") from None
    last = entries[-1] if entries else None
    if last is not None and last.seq >= head.seq:
        head = Head(last.seq, last.id, last.revision)
    elif head.seq:
        raise StoreError(
            f"the store's log ends at commit {last.seq if last else 0}, its head is {head.seq}: "
            "restore it from a backup"
        )
    log.floor = head.revision
    if entries:
        log.floor = entries[0].lines[0].revision - 1 if entries[0].lines else entries[0].revision
    for entry in entries:
        for change in changes_of(entry, found):
            if not is_internal(change.key.resource):
                log.append(change)
    log.compact()
    return State(head, found, log, [kept(entry) for entry in entries])
