"""Large tables of which there is a new version with every change, where a change copies a few hundred entries, not all.

A copy of a dictionary of a hundred thousand is 1 to 2 ms, as is the freeing of the one before, and a change on its way
from a source to an answer made several. `amended` gives the version after a change: of small tables a dictionary, of
large ones `Shards`: 256 small dictionaries by a hash of the key, of which two versions share those in which they do
not differ. So they are compared as fast as they are made.
"""

from __future__ import annotations

from collections.abc import ItemsView, Iterable, Iterator, KeysView, Mapping, ValuesView
from itertools import chain
from typing import Any, TypeVar, overload
from zlib import crc32

V = TypeVar("V")
T = TypeVar("T")
COUNT = 256
"""Dictionaries that make up a table."""
LARGE = 4096
"""From so many entries on a table is put into shards; one that is stays so down to a quarter, lest it go to and fro."""
_MASK = COUNT - 1


class Shards(Mapping[str, V]):
    """Immutable. Equal to any mapping with the same entries. Their order depends on the keys alone: it is not that in
    which they came, but the same in every process."""

    __slots__ = ("_length", "_parts")

    def __init__(self, parts: tuple[dict[str, V], ...], length: int) -> None:
        """`parts`: not to be changed any more."""
        self._parts = parts
        self._length = length

    @classmethod
    def of(cls, given: Mapping[str, V]) -> Shards[V]:
        parts: list[dict[str, V]] = [{} for _ in range(COUNT)]
        for key, value in given.items():
            parts[_place(key)][key] = value
        return cls(tuple(parts), len(given))

    def amended(self, changed: Mapping[str, V | None]) -> Shards[V]:
        """With these put in or (None) taken out."""
        parts, own, length = list(self._parts), set(), self._length
        for key, value in changed.items():
            at = _place(key)
            if at not in own:
                own.add(at)
                parts[at] = parts[at].copy()
            part = parts[at]
            length -= len(part)
            if value is None:
                part.pop(key, None)
            else:
                part[key] = value
            length += len(part)
        return Shards(tuple(parts), length)

    def apart(self, other: Shards[V]) -> Iterator[tuple[dict[str, V], dict[str, V]]]:
        """(ours, theirs) of the dictionaries that are not the same object in both."""
        return (pair for pair in zip(self._parts, other._parts, strict=True) if pair[0] is not pair[1])

    def __getitem__(self, key: str) -> V:
        return self._parts[_place(key)][key]

    @overload
    def get(self, key: str, /) -> V | None: ...
    @overload
    def get(self, key: str, /, default: V | T) -> V | T: ...
    def get(self, key: str, /, default: Any = None) -> Any:
        return self._parts[_place(key)].get(key, default)

    def __contains__(self, key: object) -> bool:
        return isinstance(key, str) and key in self._parts[_place(key)]

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._parts)

    def keys(self) -> KeysView[str]:
        return _Keys(self)

    def values(self) -> ValuesView[V]:
        return _Values(self)

    def items(self) -> ItemsView[str, V]:
        return _Items(self)

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if isinstance(other, Shards):
            return self._length == other._length and all(ours == theirs for ours, theirs in self.apart(other))
        if not isinstance(other, Mapping):
            return NotImplemented
        return self._length == len(other) and all(
            key in other and (value is (its := other[key]) or value == its) for key, value in self.items()
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"{type(self).__name__}({dict(self.items())!r})"


class _Keys(KeysView[str]):
    __slots__ = ()
    _mapping: Shards[Any]

    def __iter__(self) -> Iterator[str]:
        return chain.from_iterable(self._mapping._parts)


class _Values(ValuesView[V]):
    __slots__ = ()
    _mapping: Shards[V]

    def __iter__(self) -> Iterator[V]:
        return chain.from_iterable(map(dict.values, self._mapping._parts))


class _Items(ItemsView[str, V]):
    __slots__ = ()
    _mapping: Shards[V]

    def __iter__(self) -> Iterator[tuple[str, V]]:
        return chain.from_iterable(map(dict.items, self._mapping._parts))


def amended(table: Mapping[str, V], changed: Mapping[str, V | None]) -> Mapping[str, V]:
    """A table with these put in or (None) taken out; the same object where there are none."""
    if not changed:
        return table
    large = isinstance(table, Shards)
    if large or len(table) + len(changed) >= LARGE:  # at once, since a dictionary of all would leave a hole in memory
        made = (table if isinstance(table, Shards) else Shards.of(table)).amended(changed)
        return made if len(made) >= (LARGE // 4 if large else LARGE) else dict(made.items())
    plain = dict(table)
    for key, value in changed.items():
        if value is None:
            plain.pop(key, None)
        else:
            plain[key] = value
    return plain


def sharded(table: Mapping[str, V]) -> Mapping[str, V]:
    """A table that was made anew, as `amended` would have left it."""
    return Shards.of(table) if len(table) >= LARGE and not isinstance(table, Shards) else table


def unlike(old: Mapping[str, Any], new: Mapping[str, Any], among: Iterable[str] | None = None) -> set[str]:
    """Keys (of these) of what is not equal in both, or in one alone; what is the same object is not looked into."""
    if old is new:
        return set()
    if among is not None:
        return {key for key in among if _unlike(old.get(key), new.get(key))}
    if isinstance(old, Shards) and isinstance(new, Shards):
        return {key for before, now in old.apart(new) for key in unlike(before, now)}
    found = {key for key, value in new.items() if _unlike(old.get(key), value)}
    return found.union(key for key in old if key not in new)


def _unlike(old: Any, new: Any) -> bool:
    return old is not new and bool(old != new)


def _place(key: str) -> int:
    return crc32(key.encode("utf-8", "surrogatepass")) & _MASK
