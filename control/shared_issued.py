"""Shell: what each control plane of a shared store has issued, for a rotation that any of them leads.

Beside the store's objects and not among them, as signs of life are: no history, no revision. A control plane writes the
last certificate of each of its workloads, in parts by the workload's name, a few seconds after it was issued; what it
has written stays when it ends, until the last of these certificates has ended.
"""

from __future__ import annotations

import zlib

import msgspec

from .issued import Issued, IssuedLeaf
from .store_backend import Backend
from .store_entries import pack, unpack

PARTS = 64
FOLDER = "issued/"


class Part(msgspec.Struct, frozen=True, omit_defaults=True):
    leaves: list[IssuedLeaf] = []
    """The last of each workload."""
    older: list[IssuedLeaf] = []
    """Its others that have not ended: a revocation has to know of them."""
    older_cut: bool = False
    """They are more than fits."""
    cut: bool = False
    """There are more than the store takes in one value."""


class SharedIssued:
    """`own`: a name that stays over restarts; `record`: what this control plane has issued."""

    def __init__(self, backend: Backend, own: str, record: Issued, now: float) -> None:
        self._backend = backend
        self._own = own
        self._record = record
        self._dirty = {part_of(leaf.workload) for leaf in record.last(now)}

    def note(self, leaf: IssuedLeaf) -> None:
        self._dirty.add(part_of(leaf.workload))

    async def write(self, now: float) -> None:
        """Write what is new. Raises StoreError: it is tried again."""
        dirty, by_part = set(self._dirty), dict[int, list[IssuedLeaf]]()
        if not dirty:
            return
        for leaf in self._record.last(now):
            if (part := part_of(leaf.workload)) in dirty:
                by_part.setdefault(part, []).append(leaf)
        latest = {leaf.serial for leaves in by_part.values() for leaf in leaves}
        older = dict[int, list[IssuedLeaf]]()
        for leaf in self._record.all(now):
            if (part := part_of(leaf.workload)) in dirty and leaf.serial not in latest:
                older.setdefault(part, []).append(leaf)
        for part in sorted(dirty):
            self._dirty.discard(part)  # before it is written: what is issued meanwhile makes it dirty again
            value = pack(msgspec.json.encode(Part(by_part.get(part, []), older.get(part, []))))
            if len(value) > self._backend.value_most:
                value = pack(msgspec.json.encode(Part(by_part.get(part, []), older_cut=True)))
            if len(value) > self._backend.value_most:
                value = pack(msgspec.json.encode(Part(cut=True)))
            try:
                await self._backend.put(f"{FOLDER}{self._own}/{part}", value)
            except BaseException:
                self._dirty.add(part)
                raise

    async def all(self, now: float, older: bool = False) -> tuple[Issued, bool]:
        """(what all control planes have issued, whether that is known of all). Raises StoreError.

        `older`: of a workload not only the last one has to be known.
        """
        found, whole, ended = list(self._record.all(now)), True, []
        for path, value in await self._backend.listed(FOLDER):
            if path.startswith(f"{self._own}/"):
                continue
            try:
                part = msgspec.json.decode(unpack(value), type=Part)
            except (msgspec.MsgspecError, ValueError):
                whole = False
                continue
            whole = whole and not part.cut and not (older and part.older_cut)
            alive = [leaf for leaf in (*part.leaves, *part.older) if leaf.not_after > now]
            found += alive
            if not alive and not part.cut:
                ended.append((FOLDER + path, value))
        for path, value in ended:  # unless whose it is has written it anew
            await self._backend.delete_same(path, value)
        together = Issued()
        for leaf in sorted(found, key=lambda leaf: leaf.issued_at):
            together.add(leaf)
        return together, whole


def part_of(workload: str) -> int:
    return zlib.crc32(workload.encode()) % PARTS
