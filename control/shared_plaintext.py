"""Shell: the ledgers of plaintext of all control planes of a store, so that all of them judge a switch to STRICT.

Each writes its own beside the store's objects, where it stays when the control plane ends: who came in plaintext to a
sidecar of one that is dead still comes. What an operator has told to forget is an object, which each applies to its
own ledger, and all to those of others.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from .plaintext import BLOCKS_S, KEPT_S, Forgotten, PlaintextLedger
from .shared_sidecars import OWN
from .store import Change, ConflictError, Key, Write
from .store_entries import pack, unpack
from .store_shared import SharedStore

RESOURCE = "plaintextforgotten.internal.fairlead.dev"
KEY = Key(RESOURCE, "", "all")
FOLDER = "plaintext/"
FORGOTTEN_MOST = 500


class Told(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a control plane says of its ledger."""

    ledger: str = "[]"
    cut: bool = False
    """It is more than the store takes in one value."""


class SharedPlaintext:
    """`own`: a name that stays over restarts; `ledger`: ours."""

    def __init__(
        self, store: SharedStore, own: str, ledger: PlaintextLedger, changed: Callable[[], None],
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._store = store
        self._own = own
        self._ledger = ledger
        self._changed = changed
        self._clock = clock
        self._written = b""
        self._others: dict[str, bytes] = {}
        self._read: list[PlaintextLedger] = []
        self.unknown = "what came to sidecars of other control planes has not been read yet"
        """Why the ledgers of all are not known; empty: they are."""
        self._unsubscribe = store.memory.subscribe(self._heard)
        self._apply()

    def close(self) -> None:
        self._unsubscribe()

    def _heard(self, changes: Sequence[Change]) -> None:
        if any(change.key == KEY for change in changes):
            self._apply()

    def forgotten(self) -> list[Forgotten]:
        stored = self._store.memory.get(KEY)
        return msgspec.convert(stored.object()["forgotten"], list[Forgotten]) if stored is not None else []

    def _apply(self) -> None:
        every = self.forgotten()
        if self._ledger.drop(every):
            self._changed()
        for ledger in self._read:
            ledger.drop(every)

    def ledgers(self) -> list[PlaintextLedger]:
        """Of the other control planes, also of those that have ended."""
        return self._read

    async def beat(self) -> None:
        """Every few seconds: write ours where it has changed, read the others'. Raises StoreError."""
        backend, now = self._store.backend, self._clock()
        dump = self._ledger.dump()
        if dump != self._written:
            value = pack(msgspec.json.encode(Told(dump.decode())))
            if len(value) > backend.value_most:  # those that stand in the way of STRICT are what matters
                value = pack(msgspec.json.encode(Told(self._ledger.dump(now - BLOCKS_S).decode())))
            if len(value) > backend.value_most:
                value = pack(msgspec.json.encode(Told(cut=True)))
            await backend.put(FOLDER + self._own, value)
            self._written = dump
        found = dict(await backend.listed(FOLDER))
        if found.pop(self._own, None) is None:  # another took it for ended before ours was written
            self._written = b""
        if found != self._others or self.unknown:
            await self._take(found, now)

    async def _take(self, found: dict[str, bytes], now: float) -> None:
        read, unknown, ended = [], "", []
        for name, value in found.items():
            try:
                told = msgspec.json.decode(unpack(value), type=Told)
                ledger = PlaintextLedger(told.ledger.encode())
            except (msgspec.MsgspecError, ValueError):
                unknown = "the ledger of another control plane cannot be read: it is of another version"
                continue
            if told.cut:
                unknown = "the ledger of another control plane is too large for the store"
            elif not any(entry.last_seen > now - KEPT_S for entry in ledger.entries()):
                ended.append((FOLDER + name, value))
            ledger.drop(self.forgotten())
            read.append(ledger)
        self._others, self._read, self.unknown = found, read, unknown
        for path, value in ended:
            await self._store.backend.delete_same(path, value)

    async def forget(self, one: Forgotten) -> int:
        """Have all control planes forget this; how many entries. Raises StoreError."""
        count = sum(ledger.count(one) for ledger in (self._ledger, *self._read))
        while True:
            stored = self._store.memory.get(KEY)
            known = [old for old in self.forgotten() if old.at > one.at - KEPT_S][-FORGOTTEN_MOST + 1 :]
            body = {"metadata": {"name": KEY.name}, "forgotten": msgspec.to_builtins([*known, one])}
            try:
                await self._store.write([Write(KEY, body, stored.version if stored is not None else 0)], OWN)
            except ConflictError:
                continue
            return count
