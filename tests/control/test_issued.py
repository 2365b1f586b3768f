"""The record of what was issued."""

from __future__ import annotations

from msgspec.structs import replace

from fairlead.control.issued import LEAVES_PER_WORKLOAD, Issued, IssuedLeaf, line_of, read


def leaf(serial: str, workload: str = "default/web", at: float = 0.0, ends: float = 100.0) -> IssuedLeaf:
    return IssuedLeaf(serial, "spiffe://a/ns/default/sa/web", workload, "aa", at, ends)


def test_of_each_workload_the_last_that_has_not_ended_counts() -> None:
    record = Issued()
    for one in (leaf("1"), leaf("2", at=50, ends=150), leaf("3", "default/db", ends=60)):
        record.add(one)
    assert [one.serial for one in record.last(55)] == ["2", "3"]
    assert [one.serial for one in record.last(70)] == ["2"]
    assert [one.serial for one in record.all(70)] == ["1", "2"]
    record.forget(120)
    assert len(record) == 1


def test_one_that_asks_without_end_takes_no_memory_without_end() -> None:
    record = Issued()
    for number in range(2000):
        record.add(leaf(str(number)))
    assert [one.serial for one in record.all(0)] == [str(number) for number in range(2000 - LEAVES_PER_WORKLOAD, 2000)]


def test_a_line_cut_off_by_a_crash_costs_itself_alone() -> None:
    lines = [line_of(leaf("1")), line_of(leaf("2"))[:20], line_of(leaf("3", ends=5)), line_of(leaf("4")), b"\n"]
    record, damaged = read(lines, 10)
    assert [one.serial for one in record.all(10)] == ["1", "4"]
    assert damaged == 1


def test_what_another_account_got_under_a_workloads_name_hides_nothing_of_it() -> None:
    """A low token asks for a certificate and says that it is somebody else's workload: a rotation would take that one
    to be done."""
    issued = Issued()
    own, forged = leaf("1"), replace(leaf("2", at=5.0), identity="spiffe://a/ns/default/sa/batch", issuer="new")
    issued.add(own)
    issued.add(forged)
    assert list(issued.last(10.0)) == [own, forged]
