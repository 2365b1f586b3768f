"""Shell: a store as one file and back, and from one storage to another: with its history, at the same revisions.

The file is lines of JSON: a head, then the objects, then the changes of the history (oldest first), then a line that
says how many there were, by which a file that was cut off is found out. Values that are not JSON are base64.
"""

from __future__ import annotations

import asyncio
import base64
import errno
import gzip
import json
import math
import os
import secrets
import sqlite3
import time
import zlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import msgspec

from .store import Cause, Change, Key, Store, Stored, StoreError, StoreTooLargeError
from .store_backend import Backend
from .store_entries import Entry, Head, entry_of, log_path, object_path, pack, part_path, write_entry
from .store_open import backend_of, open_store, split
from .store_sqlite import SqliteStore

FORMAT = 1
NO_BOUND = 1 << 60
COMMIT_CHANGES = 50
"""Changes of the history in one commit of a shared store that is filled."""
LOOK_S = 4.0
"""Longer than control planes take from one sign of life to the next."""
LEFT_OUT = ("sidecars.internal.fairlead.dev", "authorities.internal.fairlead.dev")
"""What is of control planes that are running, not of the mesh."""


class Content(msgspec.Struct):
    """All of a store."""

    revision: int
    objects: list[Stored]
    floor: int
    changes: list[Change]


def content_of(store: Store) -> Content:
    memory = store.memory
    objects = [one for name in memory.resources() if name not in LEFT_OUT for one in memory.all(name)]
    return Content(memory.revision, objects, memory.log.floor, list(memory.log.all()))


async def read_store(text: str, environment: Mapping[str, str]) -> Content:
    """All of a store that may be in use. Raises SettingError, StoreError."""
    scheme, path, _ = split(text)
    if scheme == "sqlite":
        return _read_sqlite(Path(path))
    store = await open_store(text, environment, log_entries=NO_BOUND, log_age_s=math.inf)
    try:
        return content_of(store)
    finally:
        await store.close()


def _read_sqlite(path: Path) -> Content:
    """A snapshot of the file, though a control plane has it open (its lock keeps out writers, and we only read)."""
    if not path.exists():
        raise StoreError(f"store {path}: there is no such file")
    try:
        database = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    except sqlite3.Error as error:
        raise StoreError(f"store {path}: {error}") from error
    try:
        reader = SqliteStore(path, log_entries=NO_BOUND)
        database.execute("BEGIN")  # one state, whatever is written meanwhile
        reader.read(database)
        return content_of(reader)
    except sqlite3.Error as error:
        raise StoreError(f"store {path}: {error}") from error
    finally:
        database.close()


# --- filling --------------------------------------------------------------------------------------------------------


async def fill(text: str, content: Content, environment: Mapping[str, str], force: bool) -> None:
    """Put all of it into a store that is empty, or that is replaced. Raises SettingError, StoreError."""
    scheme, path, _ = split(text)
    if scheme == "sqlite":
        await _fill_sqlite(Path(path), content, force)
        return
    backend = backend_of(text, environment)
    try:
        await _fill_shared(backend, content, force)
    finally:
        await backend.close()


def not_empty(where: str) -> StoreError:
    return StoreError(f"store {where} is not empty: name another place, or give --force to replace what is there")


async def _fill_sqlite(path: Path, content: Content, force: bool) -> None:
    if path.exists() and not force:
        found = await SqliteStore.open(path)
        await found.close()
        if found.memory.revision:
            raise not_empty(str(path))
    held = SqliteStore(path)
    try:
        held.lock()  # it is not read: by force also what is damaged is replaced
        await _replace_sqlite(path, content)
    finally:
        await held.close()


async def _replace_sqlite(path: Path, content: Content) -> None:
    draft = path.with_name(f"{path.name}.restoring")
    _remove(draft)
    store = await SqliteStore.open(draft, log_entries=NO_BOUND)
    try:
        store.fill(content.revision, content.objects, content.floor, content.changes)
    finally:
        await store.close()
    for suffix in ("-wal", "-shm"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)
    draft.replace(path)
    _remove(draft)


def _remove(path: Path) -> None:
    for suffix in ("", "-wal", "-shm", ".lock"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


async def _fill_shared(backend: Backend, content: Content, force: bool) -> None:
    before = await backend.head()
    if before.seq and not force:
        raise not_empty(backend.url)
    signs = await backend.listed("live/")
    if signs:
        await asyncio.sleep(LOOK_S)
        if await backend.listed("live/") != signs:
            raise StoreError(f"store {backend.url}: control planes are running on it; stop them first")
    old = [f"{below}{path}" for below in ("log/", "parts/") for path, _ in await backend.listed(below)]
    names = {object_path(one.key) for one in content.objects}
    stale = [f"objects/{path}" for path, _ in await backend.listed("objects/") if path not in names]
    # The head moves last: until then those who follow see the old log, after it one that does not follow from theirs.
    entries = _entries(content, before.seq)
    last = entries[-1]
    for entry in entries:
        value, parts = write_entry(entry, backend.value_most)
        for number, part in enumerate(parts):
            await backend.put(part_path(entry.id, number), part)
        await backend.put(f"log/{log_path(entry.seq)}", value)
    for start in range(0, len(content.objects), 32):
        chunk = content.objects[start : start + 32]
        await asyncio.gather(*(_put_object(backend, one) for one in chunk))
    await backend.delete([*stale, *old])
    if not await backend.commit(before, Head(last.seq, last.id, last.revision), [], []):
        raise StoreError(f"store {backend.url}: somebody wrote to it meanwhile; stop control planes, and try again")


async def _put_object(backend: Backend, one: Stored) -> None:
    value = pack(one.body)
    if len(value) > backend.value_most:
        raise StoreTooLargeError(
            f"{one.key.resource} {one.key.namespace}/{one.key.name} is too large for {backend.url}: {len(value)} bytes "
            f"compressed, the limit is {backend.value_most}"
        )
    await backend.put(f"objects/{object_path(one.key)}", value)


def _entries(content: Content, seq: int) -> list[Entry]:
    """The history as commits; the first only says from where on it is complete."""
    head = Head(seq, secrets.token_hex(8), content.floor)
    made = [Entry(seq + 1, secrets.token_hex(8), head.id, [], content.floor)]
    for start in range(0, len(content.changes), COMMIT_CHANGES):
        last = made[-1]
        chunk = content.changes[start : start + COMMIT_CHANGES]
        made.append(entry_of(Head(last.seq, last.id, last.revision), secrets.token_hex(8), chunk))
    last = made[-1]
    if last.revision < content.revision:  # what came after was control's own
        made.append(Entry(last.seq + 1, secrets.token_hex(8), last.id, [], content.revision))
    return made


# --- files ----------------------------------------------------------------------------------------------------------


def write_file(path: Path, content: Content) -> None:
    """Whole or not at all; only its owner may read it. Raises OSError."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    draft = path.with_name(path.name + ".new")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        with gzip.GzipFile(fileobj=file, mode="wb", compresslevel=5, mtime=0) as packed:
            for line in _lines(content):
                packed.write(json.dumps(line, separators=(",", ":")).encode() + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.replace(path)


def _lines(content: Content) -> Iterator[Any]:
    yield {"fairlead": "store", "format": FORMAT, "revision": content.revision, "floor": content.floor,
           "time": time.time()}  # fmt: skip
    for one in content.objects:
        yield {"key": list(one.key), "version": one.version, "body": _text(one.body)}
    for change in content.changes:
        before = change.before
        yield {
            "change": change.revision, "key": list(change.key), "before": before and _text(before.body),
            "beforeVersion": before.version if before else 0, "after": change.after and _text(change.after.body),
            "cause": [change.cause.author, change.cause.reason, change.cause.at],
        }  # fmt: skip
    yield {"end": len(content.objects) + len(content.changes)}


def _text(body: bytes) -> str:
    return base64.b64encode(body).decode()


def read_file(path: Path) -> Content:
    """Raises StoreError, OSError."""
    with path.open("rb") as file:
        try:
            return _read_lines(file)
        except (EOFError, gzip.BadGzipFile, ValueError, KeyError, TypeError, zlib.error) as error:
            raise StoreError(f"{path}: not a whole backup of a store: {error}") from None


def _read_lines(file: BinaryIO) -> Content:
    lines: Iterable[Any] = (json.loads(line) for line in gzip.GzipFile(fileobj=file).read().splitlines())
    found: Content | None = None
    count = 0
    for line in lines:
        if found is None:
            if line.get("fairlead") != "store" or line.get("format") != FORMAT:
                raise ValueError("it does not begin as one, or is of another version")
            found = Content(int(line["revision"]), [], int(line["floor"]), [])
        elif "end" in line:
            if line["end"] != count:
                raise ValueError(f"{line['end']} entries were written, {count} are there")
            return found
        else:
            count += 1
            key = Key(*line["key"])
            if "change" in line:
                found.changes.append(_change(key, line))
            else:
                found.objects.append(Stored(key, int(line["version"]), base64.b64decode(line["body"])))
    raise ValueError("its end is missing")


def _change(key: Key, line: Mapping[str, Any]) -> Change:
    revision = int(line["change"])
    before = Stored(key, int(line["beforeVersion"]), base64.b64decode(line["before"])) if line["before"] else None
    after = Stored(key, revision, base64.b64decode(line["after"])) if line["after"] else None
    return Change(revision, key, before, after, Cause(*line["cause"]))
