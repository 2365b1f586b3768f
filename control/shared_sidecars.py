"""Shell: what control planes that share a store tell each other: which are alive, and what sidecars told each of them.

What is known of a sidecar is an object of the store, written by the control plane that it is connected to. A sidecar
that goes is only said to be gone after a moment, in which it usually comes to another control plane. A control plane
that gives no sign of life for a while is dead: sidecars that have not come elsewhere by then are gone with it.

A sign of life says which revision each sidecar there runs or refuses. So a sidecar that drains can wait for those of
other control planes, and one control plane (of the living the first by name) writes into objects what all sidecars
made of them.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

import msgspec

from .conditions import Seat
from .feed_server import FeedServer
from .marks import Marks
from .push import Book
from .rotation import Holder, holders_of
from .sidecars import AWAY_S, Known
from .store import Cause, Change, ConflictError, Key, Stored, StoreError, Write
from .store_entries import pack, unpack
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
TICK_S = 0.25
"""What is in the store for so long is in the feed's version."""
WAIT_S = 0.1
"""Between looks at what others' sidecars run, while somebody waits for that."""
OWN = Cause("fairlead:control")
logger = logging.getLogger("fairlead.control")


class Record(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one control plane says of a sidecar."""

    known: Known
    by: str = ""
    """The control plane that it is connected to; empty: to none."""


def record_of(stored: Stored) -> Record:
    return msgspec.convert(stored.object()["record"], Record)


class Trust(msgspec.Struct, frozen=True, omit_defaults=True):
    """How far a control plane is in a rotation of the root."""

    where: str = ""
    """Host and folder, for people; empty: it does not say."""
    successor: str = ""
    """SHA-256 of the newest root that it has the key of."""
    signer: str = ""
    """Key identifier of the authority that it issues by."""


class Sign(msgspec.Struct, frozen=True):
    """A control plane's sign of life."""

    beat: int
    time: float = 0.0
    """Unix seconds, for people."""
    seats: list[tuple[str, int, int, list[str]]] = []
    """Its sidecars: (namespace/workload, revision that it runs, that it refuses or 0, reasons)."""
    trust: Trust = Trust()
    holders: list[Holder] = []
    """Its sidecars, once more: what they trust and hold."""


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

    def __init__(
        self, store: SharedStore, book: Book, feed: FeedServer, changed: Callable[[], None],
    ) -> None:  # fmt: skip
        self._store = store
        self._book = book
        self._feed = feed
        self.trust: Callable[[], Trust] = Trust
        self.own_holders: Callable[[], list[Holder]] = lambda: holders_of(feed.members)
        self.on_beat: list[Callable[[], Awaitable[None]]] = []
        """Called every few seconds while the store can be reached."""
        self.name = book.epoch
        self._marks = Marks()
        self._others: dict[str, Sign] = {}
        """Signs of the control planes that are alive, without ours."""
        self._looked = False
        self._acknowledged = feed.hear()
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

    async def close(self) -> None:
        """Say no more; the others need not wait to find that out."""
        self._unsubscribe()
        self._feed.deafen(self._acknowledged)
        try:
            await self._store.backend.delete([f"live/{self.name}"])
        except StoreError:
            pass

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
            together.create_task(self._mark())

    async def _mark(self) -> None:
        revision = self._store.memory.revision
        while True:
            await asyncio.sleep(TICK_S)
            self._marks.add(revision, self._book.number)
            revision = self._store.memory.revision

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

    def _sign(self, beat: int) -> Sign:
        seats = []
        for member in self._feed.members.values():
            if member.role not in ("sidecar", "gateway", "dns"):
                continue
            runs, refuses = (
                self._marks.revision_of(number) if (number := self._book.number_of(version)) >= 0 else 0
                for version in (member.taken, member.refused)
            )
            name = f"{member.namespace}/{member.workload}"
            seats.append((name if member.role != "dns" else f"dns/{name}", runs, refuses, list(member.reasons)))
        return Sign(beat, time.time(), sorted(seats), self.trust())

    async def _beat(self) -> None:
        """Give signs of life, at once where our sidecars have acknowledged something, and look for those of others."""
        loop, count, told, look_at = asyncio.get_running_loop(), 0, Sign(0), 0.0
        while True:
            sign = self._sign(count + 1)
            now = loop.time()
            news = (sign.seats, sign.trust) != (told.seats, told.trust)
            if now >= look_at or news:
                try:
                    whole = msgspec.structs.replace(sign, holders=self.own_holders())
                    value = pack(msgspec.json.encode(whole))
                    if len(value) > self._store.backend.value_most:  # being alive is what matters most
                        value = msgspec.json.encode(Sign(sign.beat, sign.time))
                    await self._store.backend.put(f"live/{self.name}", value)
                    count, told = count + 1, sign
                    if now >= look_at:
                        await self._look(now - look_at if look_at else 0.0)
                        look_at = now + BEAT_S
                        await self._on_beat()
                except StoreError:
                    await asyncio.sleep(TICK_S)  # the store says so itself
            self._acknowledged.clear()
            try:
                async with asyncio.timeout(max(look_at - loop.time(), TICK_S)):
                    await self._acknowledged.wait()
                    await asyncio.sleep(TICK_S)
            except TimeoutError:
                pass

    async def _on_beat(self) -> None:
        """One that fails holds up no other. Raises StoreError after the last."""
        failed: StoreError | None = None
        for beat in self.on_beat:
            try:
                await beat()
            except StoreError as error:
                failed = error
        if failed is not None:
            raise failed

    async def _look(self, late_s: float) -> None:
        """Read the others' signs. `late_s`: how long after it was due; raises StoreError."""
        backend = self._store.backend
        listed = dict(await backend.listed("live/"))
        now = asyncio.get_running_loop().time()
        if late_s > BEAT_S:
            self._signs.pause(late_s)
        self._signs.take(listed, now)
        if old := self._signs.forgotten(listed, now):
            await backend.delete([f"live/{name}" for name in old])
        before = self._others.keys()
        self._others = {
            name: read_sign(value)
            for name, value in listed.items()
            if name != self.name and self._signs.alive(name, now)
        }
        self._looked = True
        if lost := before - self._others.keys():
            logger.warning("control plane %s gives no sign of life", ", ".join(sorted(lost)))
            self._changed()

    async def expire(self, declared: Callable[[str], bool], now: float) -> None:
        """The one that leads deletes what is known of workloads that only their sidecars told of, which have been
        nowhere for long (sidecars.AWAY_S). `now`: Unix seconds. Raises StoreError."""
        if not self.leads():
            return
        writes, at = [], asyncio.get_running_loop().time()
        for stored in self._store.memory.all(RESOURCE):
            record = record_of(stored)
            one = record.known
            if one.key in self._members or declared(one.key) or (record.by and self._signs.alive(record.by, at)):
                continue
            if record.by or not one.away:
                writes.append(write_of(Record(msgspec.structs.replace(one, away=now)), stored))
            elif now - one.away > AWAY_S:
                writes.append(Write(stored.key, None, expect=stored.version))
        for some in chunks(writes, WRITES_MOST):
            try:
                await self._store.write(some, OWN)
            except ConflictError:
                continue  # one of them has come back; the others are looked at the next time

    # --- what others' sidecars run ----------------------------------------------------------------------------------

    def leads(self) -> bool:
        """Whether we are the one that does what is to be done once."""
        return self._looked and all(self.name < name for name in self._others)

    def seats(self) -> list[Seat]:
        """Sidecars of the other control planes, as if they were ours."""
        return [
            Seat(name, self._marks.number_of(runs), self._marks.number_of(refuses) if refuses else -1, tuple(reasons))
            for sign in self._others.values()
            for name, runs, refuses, reasons in sign.seats
            if name not in self._members and not name.startswith("dns/")
        ]

    async def look(self) -> None:
        """Hear of the others as they are now. Raises StoreError."""
        await self._look(0.0)

    def holders(self) -> list[Holder]:
        """Sidecars of the other control planes; one that has just come to us is ours."""
        mine = {key for key, member in self._feed.members.items() if member.role != "dns"}
        return [one for sign in self._others.values() for one in sign.holders if one.name not in mine]

    def trusts(self) -> dict[str, Trust]:
        """Of the other living control planes, by name."""
        return {name: sign.trust for name, sign in self._others.items()}

    async def until_run(self, timeout_s: float) -> list[str]:
        """Wait until the sidecars of all other control planes run what the store has now; who does not after
        `timeout_s`."""
        loop = asyncio.get_running_loop()
        end, revision = loop.time() + timeout_s, self._store.memory.revision
        while True:
            try:
                await self._look(0.0)
            except StoreError as error:
                return [f"other control planes ({error})"]
            behind = {
                name
                for sign in self._others.values()
                for name, runs, refuses, _ in sign.seats
                if name not in self._members and max(runs, refuses) < revision
            }
            if not behind or loop.time() >= end:
                return sorted(behind)
            await asyncio.sleep(WAIT_S)

    async def until_known(self, key: str, left: bool, timeout_s: float) -> tuple[int, list[str]]:
        """Wait until the sidecars of all other control planes run a version in which this workload has left, or not.
        (how many they are, those that do not run it after `timeout_s`)."""
        loop = asyncio.get_running_loop()
        end, behind, count = loop.time() + timeout_s, list[str](), 0
        while True:
            stored = self._store.memory.get(key_of(key))
            said = record_of(stored).known.left == left if stored is not None else left
            try:
                await self._look(0.0)
            except StoreError:
                said = False  # others do not hear of anything now
            found = {
                name: runs
                for sign in self._others.values()
                for name, runs, refuses, _ in sign.seats
                if name != key and name not in self._members and not (stored and refuses >= stored.version)
            }
            count = len(found)
            version = stored.version if stored is not None else 0
            behind = sorted(name for name, runs in found.items() if not said or runs < version)
            if not behind or loop.time() >= end:
                return count, behind
            await asyncio.sleep(WAIT_S)


def read_sign(value: bytes) -> Sign:
    """One of another version of Fairlead is a sign of life, whatever it says."""
    try:
        return msgspec.json.decode(unpack(value), type=Sign)
    except (msgspec.MsgspecError, ValueError):
        return Sign(0)


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
