"""Which revision of the store a version of the feed holds, and the other way round.

Versions are each control plane's own, revisions are the store's: what a sidecar of one control plane runs is told to
another as a revision.
"""

from __future__ import annotations

from bisect import bisect_right

MOST = 4096


class Marks:
    """Pairs of (revision, number), both of which only grow."""

    def __init__(self) -> None:
        self._revisions: list[int] = []
        self._numbers: list[int] = []

    def add(self, revision: int, number: int) -> None:
        """The version `number` has everything up to `revision`."""
        if self._revisions and revision < self._revisions[-1]:  # the store was put back: none of it counts any more
            self._revisions.clear()
            self._numbers.clear()
        if self._revisions and revision == self._revisions[-1]:
            return
        self._revisions.append(revision)
        self._numbers.append(number)
        if len(self._revisions) > MOST:
            del self._revisions[: MOST // 2], self._numbers[: MOST // 2]

    def revision_of(self, number: int) -> int:
        """The latest revision that this version has for certain; 0: none is known."""
        at = bisect_right(self._numbers, number)
        return self._revisions[at - 1] if at else 0

    def number_of(self, revision: int) -> int:
        """The latest of our versions that has nothing later than this revision; -1: none is known."""
        at = bisect_right(self._revisions, revision)
        return self._numbers[at - 1] if at else -1
