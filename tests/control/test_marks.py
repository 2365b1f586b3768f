"""Revisions and versions of the feed, told as each other: never more than is certain."""

from __future__ import annotations

from fairlead.control.marks import Marks


def test_a_version_has_the_latest_revision_that_was_there_before_it() -> None:
    marks = Marks()
    marks.add(10, 1)
    marks.add(15, 1)
    marks.add(20, 4)
    assert [marks.revision_of(number) for number in (0, 1, 3, 4, 9)] == [0, 15, 15, 20, 20]
    assert [marks.number_of(revision) for revision in (9, 10, 16, 20, 99)] == [-1, 1, 1, 4, 4]


def test_a_store_that_was_put_back_makes_all_earlier_marks_void() -> None:
    marks = Marks()
    marks.add(10, 1)
    marks.add(20, 2)
    marks.add(12, 3)
    assert marks.revision_of(2) == 0
    assert marks.revision_of(3) == 12


def test_only_so_many_are_kept() -> None:
    marks = Marks()
    for n in range(10_000):
        marks.add(n, n)
    assert marks.revision_of(9_999) == 9_999
    assert marks.revision_of(100) == 0
