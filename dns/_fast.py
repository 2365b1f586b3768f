"""Finished answers by the octets of their questions: what nearly every query is answered from.

The key is all that follows the ID: flags, question and EDNS, so an answer found here is right for RD, for the case of
the name, for the payload size and for DO. What a change in the registry would change is forgotten by name. Runs
compiled (with _fast.pxd) or as it stands.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

AGING = b""
"""Stands in `depends` of answers whose TTLs are counting down; `forget((AGING,))` once a second makes them anew."""


class Entry:
    """One finished answer, in as many rotations as it has."""

    def __init__(self, variants: tuple[bytes, ...], depends: tuple[bytes, ...], label: object, whole: bool) -> None:
        self.variants = variants
        """Each is the reply after its ID."""
        self.turn = 0
        self.hits = 0
        self.depends = depends
        self.label = label
        self.whole = whole
        """The variants are all there are; else they are made anew when each has been used."""

    def next(self) -> bytes | None:
        """The variant whose turn it is; None where all have been used and others should be made."""
        turn = self.turn
        if turn >= len(self.variants):
            if not self.whole:
                return None
            turn = 0
        self.turn = turn + 1
        self.hits += 1
        body: bytes = self.variants[turn]
        return body


class Finished:
    """Two generations of at most `size` entries each: what the older one still has in use moves to the younger."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.young: dict[bytes, Entry] = {}
        self.old: dict[bytes, Entry] = {}
        # Keys by name: one key as it is, several in a set.
        self._young_names: dict[bytes, object] = {}
        self._old_names: dict[bytes, object] = {}
        self._counts: dict[tuple[object, int], int] = {}

    def get(self, message: bytes) -> bytes | None:
        """The reply to a message, or None where it has to be made."""
        body = self.find(message[2:])
        return None if body is None else message[:2] + body

    def find(self, key: bytes) -> bytes | None:
        """What follows the ID in the reply, by what follows it in the message."""
        entry = self.young.get(key)
        if entry is None:
            entry = self._promote(key)
            if entry is None:
                return None
        body = entry.next()
        if body is None:
            self._drop(key)
        return body

    def put(self, message: bytes, entry: Entry) -> None:
        """Keep the reply to a message (of more than 12 octets, of a kind that is always answered the same)."""
        if len(self.young) >= self.size:
            for left in self.old.values():
                self._count(left)
            self.old = self.young
            self._old_names = self._young_names
            self.young = {}
            self._young_names = {}
        self._keep(message[2:], entry)

    def forget(self, names: Iterable[bytes]) -> None:
        """Drop the answers that depend on any of these names."""
        for name in names:
            for index in (self._young_names, self._old_names):
                keys = index.pop(name, None)
                if keys is not None:
                    for key in tuple(keys) if isinstance(keys, set) else (keys,):
                        self._drop(key)

    def clear(self) -> None:
        for entry in self.entries():
            self._count(entry)
        self.young = {}
        self.old = {}
        self._young_names = {}
        self._old_names = {}

    def entries(self) -> Iterator[Entry]:
        yield from self.young.values()
        yield from self.old.values()

    def counted(self) -> dict[tuple[object, int], int]:
        """Replies sent so far, by (label, octets of one)."""
        for entry in self.entries():
            self._count(entry)
        return self._counts

    def _count(self, entry: Entry) -> None:
        if entry.hits:
            key = (entry.label, len(entry.variants[0]) + 2)
            self._counts[key] = self._counts.get(key, 0) + entry.hits
            entry.hits = 0

    def _keep(self, key: bytes, entry: Entry) -> None:
        self.young[key] = entry
        for name in entry.depends:
            keys = self._young_names.get(name)
            if keys is None:
                self._young_names[name] = key
            elif isinstance(keys, set):
                keys.add(key)
            elif keys != key:
                self._young_names[name] = {keys, key}

    def _promote(self, key: bytes) -> Entry | None:
        entry = self.old.pop(key, None)
        if entry is not None:
            self._keep(key, entry)
        return entry

    def _drop(self, key: bytes) -> None:
        for generation in (self.young, self.old):
            entry = generation.pop(key, None)
            if entry is not None:
                self._count(entry)
