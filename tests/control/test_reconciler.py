"""When a status is written: once where all goes well, and never because sidecars come and go."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fairlead.control.catalog import Catalog
from fairlead.control.conditions import Findings, Seat, condition
from fairlead.control.reconciler import FINDINGS_REPEAT_S, WAITING_TOLD_S, Reconciler, StatusWrite
from fairlead.control.store import Change, Key, Objects, Write
from fairlead.policy.kinds import KINDS

VS = "virtualservices.networking.istio.io"
WEB = Key(VS, "d", "web")


class Mesh:
    """A store in memory, a reconciler over it, and a clock."""

    def __init__(self) -> None:
        self.memory = Objects()
        self.now = 1000.0
        self.reconciler = Reconciler(self.memory, Catalog(KINDS), self.now)
        self.memory.subscribe(self._take)

    def _take(self, changes: Sequence[Change]) -> None:
        self.reconciler.take(changes, self.now)

    def put(self, key: Key = WEB, generation: int = 1, **fields: Any) -> list[Change]:
        body = {"metadata": {"name": key.name, "namespace": key.namespace, "generation": generation}, **fields}
        changes = self.memory.plan([Write(key, body)])
        self.memory.commit(changes)
        return changes

    def work(self, seats: list[Seat], number: int = 1) -> list[StatusWrite]:
        """What is to be written, written."""
        writes = self.reconciler.work(seats, number, self.now)
        for one in writes:
            body = {**one.stored.object(), "status": one.status}
            self.memory.commit(self.memory.plan([Write(one.stored.key, body, one.stored.version)]))
        return writes


def running(count: int, number: int) -> list[Seat]:
    return [Seat(f"d/w{n}", number) for n in range(count)]


def test_where_all_goes_well_there_is_one_write() -> None:
    mesh = Mesh()
    mesh.put(spec={})
    for taken in range(0, 1000, 100):
        assert mesh.work([*running(taken, 1), *[Seat(f"d/x{n}", 0) for n in range(1000 - taken)]]) == []
    (one,) = mesh.work(running(1000, 1))
    assert condition(one.status, "Reconciled")["message"] == "1000/1000 sidecars run it"
    assert one.notices == ()
    assert mesh.reconciler.is_idle


def test_what_was_written_before_any_sidecar_came_is_written_again_when_the_first_have_come() -> None:
    mesh = Mesh()
    mesh.put(spec={})
    (one,) = mesh.work([])
    assert condition(one.status, "Reconciled")["reason"] == "NoSidecars"
    assert mesh.reconciler.unseen == {WEB}
    again = Reconciler(mesh.memory, Catalog(KINDS), mesh.now)
    assert again.unseen == {WEB}, "also after a restart"
    mesh.reconciler.sidecars_are_there(mesh.now)
    (one,) = mesh.work(running(2, 1))
    assert condition(one.status, "Reconciled")["message"] == "2/2 sidecars run it"
    assert mesh.reconciler.is_idle and not mesh.reconciler.unseen


def test_a_thousand_sidecars_that_come_and_go_write_nothing() -> None:
    mesh = Mesh()
    for number in range(1000):
        mesh.put(Key(VS, "d", f"r{number}"), spec={})
    total = 0
    while not mesh.reconciler.is_idle:
        total += len(mesh.work(running(1000, 1)))
    assert total == 1000
    for count in range(0, 1000, 50):
        mesh.now += 60
        assert mesh.work([*running(count, 1), *[Seat(f"d/new{n}", -1) for n in range(1000 - count)]]) == []


def test_control_that_starts_again_writes_nothing_anew() -> None:
    mesh = Mesh()
    mesh.put(spec={})
    mesh.work(running(3, 1))
    assert Reconciler(mesh.memory, Catalog(KINDS), mesh.now).is_idle


def test_who_is_waited_for_is_told_after_a_while_and_then_ever_more_seldom() -> None:
    mesh = Mesh()
    mesh.put(spec={})
    writes: list[StatusWrite] = []
    for _ in range(600):
        mesh.now += 1
        slow = [Seat(f"d/slow{len(writes)}", 0)]  # somebody else each time, so that there would be something to write
        writes += mesh.work([*running(5, 1), *slow])
    assert 5 < len(writes) < 20
    assert condition(writes[0].status, "Reconciled")["reason"] == "Waiting"
    (last,) = mesh.work(running(6, 1))
    assert condition(last.status, "Reconciled")["status"] == "True"
    assert last.notices == (), "it only took long"


def test_a_refusal_is_an_event_once_and_its_end_another() -> None:
    mesh = Mesh()
    mesh.put(spec={})
    refused = Seat("d/old", 0, 1, ("VirtualService d/web: spec.x: unknown",))
    mesh.now += WAITING_TOLD_S
    (one,) = mesh.work([*running(1, 1), refused])
    (notice,) = one.notices
    assert (notice.type, notice.reason) == ("Warning", "Refused")
    assert "d/old" in notice.message and "spec.x: unknown" in notice.message
    mesh.now += 100
    assert mesh.work([*running(1, 1), refused]) == []
    (end,) = mesh.work(running(2, 1))
    assert [(notice.type, notice.reason) for notice in end.notices] == [("Normal", "Reconciled")]


def test_a_new_generation_is_pending_again_and_a_status_is_not() -> None:
    mesh = Mesh()
    mesh.put(spec={})
    mesh.work(running(1, 1))
    assert mesh.reconciler.is_idle
    mesh.put(generation=2, spec={"hosts": ["a"]})
    assert mesh.work(running(1, 1), number=2) == []
    (one,) = mesh.work(running(1, 2), number=2)
    assert one.status["observedGeneration"] == 2


def test_findings_are_written_once_and_no_more_often_than_allowed() -> None:
    mesh = Mesh()
    mesh.put(spec={})
    mesh.work([])
    conflict = Findings(conflicts=(("spec.hosts[0]", "taken"),))
    mesh.reconciler.take_findings({WEB: conflict})
    (one,) = mesh.work([])
    assert [notice.reason for notice in one.notices] == ["Conflicted"]
    mesh.reconciler.take_findings({WEB: Findings()})
    assert mesh.work([]) == [] and not mesh.reconciler.is_idle
    mesh.now += FINDINGS_REPEAT_S
    (two,) = mesh.work([])
    assert condition(two.status, "Conflicted")["status"] == "False"
    mesh.reconciler.take_findings({WEB: Findings(), Key(VS, "d", "only-in-manifests"): conflict})
    assert mesh.work([]) == [] and mesh.reconciler.is_idle


def test_what_is_deleted_is_forgotten() -> None:
    mesh = Mesh()
    mesh.put(spec={})
    mesh.memory.commit(mesh.memory.plan([Write(WEB, None)]))
    assert mesh.reconciler.is_idle
    mesh.reconciler.failed(WEB, mesh.now)
    assert mesh.reconciler.is_idle
