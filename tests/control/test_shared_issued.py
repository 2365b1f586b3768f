"""What control planes have issued is known to all of them, also when one of them has ended."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from fairlead.control.issued import Issued, IssuedLeaf
from fairlead.control.shared_issued import PARTS, SharedIssued, part_of

pytestmark = pytest.mark.asyncio


class Backend:
    """As much of a storage as is needed."""

    value_most = 1000

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}
        self.broken = False
        self.before_delete: Callable[[], None] = lambda: None

    async def put(self, path: str, value: bytes) -> None:
        if self.broken:
            raise OSError
        self.values[path] = value

    async def delete_same(self, path: str, value: bytes) -> bool:
        self.before_delete()
        if self.values.get(path) != value:
            return False
        del self.values[path]
        return True

    async def listed(self, path: str) -> list[tuple[str, bytes]]:
        return [(key.removeprefix(path), value) for key, value in self.values.items()]


def leaf(workload: str, at: float, issuer: str = "aa", ends: float = 100.0) -> IssuedLeaf:
    return IssuedLeaf(f"{int(at):x}", "spiffe://x", workload, issuer, at, ends)


def shared(backend: Any, name: str, *leaves: IssuedLeaf) -> tuple[SharedIssued, Issued]:
    record = Issued()
    for one in leaves:
        record.add(one)
    return SharedIssued(backend, name, record, 0.0), record


async def test_the_last_certificate_of_a_workload_counts_whoever_issued_it() -> None:
    backend = Backend()
    one, _ = shared(backend, "one", leaf("shop/a", 1.0), leaf("shop/b", 5.0, "bb"))
    two, record = shared(backend, "two", leaf("shop/b", 2.0))
    await one.write(0.0)
    await two.write(0.0)
    for plane in (one, two):
        together, whole = await plane.all(6.0)
        assert whole
        assert {(one.workload, one.issuer) for one in together.last(6.0)} == {("shop/a", "aa"), ("shop/b", "bb")}
    record.add(leaf("shop/a", 7.0, "bb"))
    two.note(leaf("shop/a", 7.0, "bb"))
    backend.broken = True
    with pytest.raises(OSError):
        await two.write(8.0)
    backend.broken = False
    await two.write(8.0)  # what could not be written is written later
    together, _ = await one.all(8.0)
    assert {(one.workload, one.issuer) for one in together.last(8.0)} == {("shop/a", "bb"), ("shop/b", "bb")}


async def test_what_has_ended_is_cleared_away_and_what_cannot_be_read_is_not_taken_for_nothing() -> None:
    backend = Backend()
    one, _ = shared(backend, "one", leaf("shop/a", 1.0))
    two, _ = shared(backend, "two")
    await one.write(0.0)
    assert len(backend.values) == 1
    together, whole = await two.all(101.0)
    assert (len(list(together.last(101.0))), whole, backend.values) == (0, True, {})
    backend.values["issued/old/1"] = b"of another version"
    assert (await two.all(0.0))[1] is False


async def test_what_is_issued_anew_while_its_part_is_cleared_away_stays() -> None:
    backend = Backend()
    one, _ = shared(backend, "one", leaf("shop/a", 1.0))
    two, _ = shared(backend, "two")
    await one.write(0.0)
    (path,) = backend.values
    anew, _ = shared(other := Backend(), "one", leaf("shop/a", 101.0, ends=200.0))
    await anew.write(102.0)
    backend.before_delete = lambda: backend.values.update(other.values)
    await two.all(101.0)
    assert backend.values[path] == other.values[path]
    assert [one.workload for one in (await two.all(102.0))[0].last(102.0)] == ["shop/a"]


async def test_more_than_the_store_takes_is_said_to_be_missing() -> None:
    backend = Backend()
    names = [name for name in (f"shop/{n:064x}" for n in range(PARTS * 400)) if part_of(name) == 0]
    one, _ = shared(backend, "one", *(leaf(name, 1.0) for name in names))
    two, _ = shared(backend, "two")
    backend.value_most = 200
    await one.write(0.0)
    assert (await two.all(0.0))[1] is False


async def test_a_revocation_finds_the_older_certificates_of_a_workload_too_or_is_told_that_it_does_not() -> None:
    backend = Backend()
    one, record = shared(backend, "one", *(leaf("shop/a", float(at)) for at in range(1, 4)))
    two, _ = shared(backend, "two")
    await one.write(0.0)
    together, whole = await two.all(6.0, older=True)
    assert whole and [one.serial for one in together.all(6.0)] == ["1", "2", "3"]
    for at in range(1000):
        record.add(leaf("shop/a", 10.0 + at * 7919 % 10007, ends=20_000.0))
    one.note(leaf("shop/a", 5000.0))
    await one.write(0.0)
    together, whole = await two.all(6.0)
    assert whole and len(list(together.last(6.0))) == 1, "a rotation needs only the last"
    assert not (await two.all(6.0, older=True))[1]
