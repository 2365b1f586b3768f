"""Shell: what control planes that share a store tell each other: which are alive, and what sidecars told each of them.

What is known of a sidecar is an object of the store, written by the control plane that it is connected to. A sidecar
that goes is only said to be gone after a moment, in which it usually comes to another control plane. A control plane
that gives no sign of life for a while is dead: sidecars that have not come elsewhere by then are gone with it.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from .sidecars import Known
from .store import Cause, Change, ConflictError, Key, Stored, StoreError, Write
from .store_shared import SharedStore

RESOURCE = "sidecars.internal.fairlead.dev"
AUTHORITY = Key("authorities.internal.fairlead.dev", "", "roots")
BEAT_S = 3.0
DEAD_S = 12.0
FORGOTTEN_S = 3600.0
"""After so long without a sign of life a control plane's last one is deleted."""
MOVE_S = 2.0
"""So long a sidecar that went may take to come to another control plane."""
WRITES_MOST = 50
OWN = Cause("fairlead:control")
logger = logging.getLogger("fairlead.control")


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one control plane says of a sidecar."""

    known: Known
    by: str = ""
    """The control plane that it is connected to; empty: to none."""


def record_of(stored: Stored) -> Record:
    return msgspec.convert(stored.object()["record"], Record)


class Signs:
    """Who is alive, judged by when its sign last changed as we saw it: no clock is compared with another."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[bytes, float]] = {}
        """(the last sign, when we first saw it) by control plane."""

    def take(self, signs: Mapping[str, bytes], now: float) -> None:
        for name, sign in signs.items():
            if name not in self._seen or self._seen[name][0] != sign:
                self._seen[name] = (sign, now)

    def pause(self, seconds: float) -> None:
        """We could not look for so long, so that nobody can be blamed for it."""
        self._seen = {name: (sign, at + seconds) for name, (sign, at) in self._seen.items()}

    def alive(self, name: str, now: float) -> bool:
        """Whoever we have never heard of gets the benefit of the doubt, from now on."""
        _, at = self._seen.setdefault(name, (b"", now))
        return now - at < DEAD_S

    def forgotten(self, signs: Iterable[str], now: float) -> list[str]:
        return [name for name in signs if name in self._seen and now - self._seen[name][1] > FORGOTTEN_S]


class SharedSidecars:
    """One per control plane; `name` is drawn anew with each run. `changed()` is called when others' sidecars may be
    others than before."""

    def __init__(self, store: SharedStore, name: str, changed: Callable[[], None]) -> None:
        self._store = store
        self.name = name
        self._changed = changed
        self._members: dict[str, Known] = {}
        """Connected here, by namespace/workload."""
        self._went: dict[str, float] = {}
        """Those that we say are connected here and are not, and since when (loop time)."""
        self._forget: set[str] = set()
        self._left: set[str] = set()
        self._signs = Signs()
        self._news = asyncio.Event()
        self._unsubscribe = store.memory.subscribe(self._heard)

    def close(self) -> None:
        self._unsubscribe()

    # --- what others say --------------------------------------------------------------------------------------------

    def _heard(self, changes: Sequence[Change]) -> None:
        if any(change.key.resource == RESOURCE for change in changes):
            self._changed()

    def elsewhere(self) -> tuple[list[Known], list[Known]]:
        """(connected to other control planes, not connected anywhere)."""
        now = asyncio.get_running_loop().time()
        there: list[Known] = []
        nowhere: list[Known] = []
        for stored in self._store.memory.all(RESOURCE):
            record = record_of(stored)
            if record.known.key in self._members:
                continue
            if record.by == self.name:
                continue  # it has just gone from here; what is known of it stays as it is
            (there if record.by and self._signs.alive(record.by, now) else nowhere).append(record.known)
        return there, nowhere

    # --- what we say ------------------------------------------------------------------------------------------------

    def connected(self, members: Iterable[Known]) -> None:
        """These are connected here, now."""
        self._members = {one.key: one for one in members}
        self._news.set()

    def forget(self, keys: Iterable[str]) -> None:
        """The declarations of these workloads were removed."""
        self._forget |= set(keys)
        self._news.set()

    def leave(self, key: str) -> None:
        """This workload's sidecar drains, and is not connected here."""
        self._left.add(key)
        self._news.set()

    async def run(self) -> None:
        """Tell and listen, for ever."""
        async with asyncio.TaskGroup() as together:
            together.create_task(self._tell())
            together.create_task(self._beat())

    async def _tell(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            wait_s = min((at + MOVE_S - loop.time() for at in self._went.values()), default=None)
            try:
                async with asyncio.timeout(None if wait_s is None else max(wait_s, 0.0)):
                    await self._news.wait()
            except TimeoutError:
                pass
            self._news.clear()
            for writes in chunks(self._wanted(loop.time()), WRITES_MOST):
                try:
                    await self._store.write(writes, OWN)
                except ConflictError:
                    self._news.set()  # another control plane was faster: look again
                except StoreError as error:
                    logger.warning("other control planes do not hear of sidecars yet: %s", error)
                    self._news.set()
                    await asyncio.sleep(BEAT_S)
                    break
            await asyncio.sleep(0.02)  # a burst becomes one commit

    def _wanted(self, now: float) -> list[Write]:
        """What has to be written, so that the store says what we know."""
        memory, writes = self._store.memory, []
        for key, one in self._members.items():
            self._went.pop(key, None)
            stored = memory.get(key_of(key))
            before = record_of(stored) if stored is not None else None
            if before is not None and not (one.mesh_port or one.gateway) and before.known.mesh_port:
                one = msgspec.structs.replace(one, mesh_port=before.known.mesh_port)
            if before is None or before != Record(one, self.name):
                writes.append(write_of(Record(one, self.name), stored))
        left, self._left = self._left, set()
        gone = [stored for stored in memory.all(RESOURCE) if record_of(stored).by == self.name]
        for stored in gone:
            record = record_of(stored)
            if record.known.key in self._members:
                continue
            if now >= self._went.setdefault(record.known.key, now) + MOVE_S:
                del self._went[record.known.key]
                writes.append(write_of(msgspec.structs.replace(record, by=""), stored))
        still = {record_of(stored).known.key for stored in gone}
        self._went = {key: at for key, at in self._went.items() if key in still}
        for key in left:
            stored = memory.get(key_of(key))
            if stored is not None and not (record := record_of(stored)).known.left:
                known = msgspec.structs.replace(record.known, left=True)
                writes.append(write_of(Record(known, record.by), stored))
        there = {one.key for one in self.elsewhere()[0]}
        for key in [key for key in self._forget if key not in self._members and key not in there]:
            stored = memory.get(key_of(key))
            if stored is not None:
                writes.append(Write(stored.key, None, expect=stored.version))
        self._forget = set()
        return writes

    async def _beat(self) -> None:
        """Give signs of life, and look for those of others."""
        loop, count, looked = asyncio.get_running_loop(), 0, 0.0
        backend, before = self._store.backend, set[str]()
        while True:
            count += 1
            try:
                sign = msgspec.json.encode({"beat": count, "time": time.time()})
                await backend.put(f"live/{self.name}", sign)
                signs = dict(await backend.listed("live/"))
                now = loop.time()
                if looked and now - looked > 2 * BEAT_S:
                    self._signs.pause(now - looked)
                looked = now
                self._signs.take(signs, now)
                if old := self._signs.forgotten(signs, now):
                    await backend.delete([f"live/{name}" for name in old])
                alive = {name for name in signs if self._signs.alive(name, now)}
                if before - alive:
                    logger.warning("control plane %s gives no sign of life", ", ".join(sorted(before - alive)))
                    self._changed()
                before = alive
            except StoreError:
                pass  # the store says so itself
            await asyncio.sleep(BEAT_S)


def key_of(key: str) -> Key:
    namespace, _, name = key.partition("/")
    return Key(RESOURCE, namespace, name)


def write_of(record: Record, stored: Stored | None) -> Write:
    body: dict[str, Any] = {
        "metadata": {"namespace": record.known.namespace, "name": record.known.workload},
        "record": msgspec.to_builtins(record),
    }
    return Write(key_of(record.known.key), body, expect=stored.version if stored is not None else 0)


def chunks(writes: Sequence[Write], most: int) -> list[Sequence[Write]]:
    return [writes[start : start + most] for start in range(0, len(writes), most)]


def certificates(pem: str) -> list[str]:
    """Each certificate of a PEM text."""
    mark = "-----BEGIN CERTIFICATE-----"
    return ["".join((mark, part.strip(), "\n")) for part in pem.split(mark)[1:]]


async def agree_on_authority(store: SharedStore, roots: str, where: str) -> None:
    """Control planes of one store must be of one certificate authority: who moves from one to another must be believed
    there. Raises ValueError that says what to do, StoreError."""
    mine = certificates(roots)
    while True:
        stored = store.memory.get(AUTHORITY)
        theirs = stored.object()["certificates"] if stored is not None else []
        if stored is not None and not set(mine) & set(theirs):
            raise ValueError(
                f"{where} has another certificate authority than the control planes that share {store.url}: copy "
                "ca-key.pem and ca.pem from the data directory of one of them in place of those here"
            )
        union = [*theirs, *(one for one in mine if one not in theirs)]
        if union == theirs:
            return
        body = {"metadata": {"name": AUTHORITY.name}, "certificates": union}
        try:
            await store.write([Write(AUTHORITY, body, stored.version if stored is not None else 0)], OWN)
            return
        except ConflictError:
            continue
