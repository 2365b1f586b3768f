"""The registry of a process: precedence, one snapshot for every change, statuses."""

from __future__ import annotations

from fairlead.registry.hub import Registry
from fairlead.registry.model import Facts, Service, SourceStatus, Workload

HOST = "web.default.svc.cluster.local"


def facts(name: str) -> Facts:
    return Facts(services={HOST: Service(HOST, "default", name)})


def test_the_source_first_in_precedence_counts_and_leaves_room_when_it_goes() -> None:
    registry = Registry(("a", "b"))
    registry.update("z", facts("z"))
    registry.update("b", facts("b"))
    assert registry.snapshot.value.services[HOST].name == "b"
    registry.update("a", facts("a"))
    assert registry.snapshot.value.services[HOST].name == "a"
    registry.update("a", Facts())
    assert registry.snapshot.value.services[HOST].name == "b"


def test_who_leaves_makes_a_new_snapshot_once() -> None:
    registry, heard = Registry(), []
    registry.update("a", Facts(workloads={"default/web-1": Workload("default", "web-1")}))
    registry.snapshot.subscribe(lambda snapshot: heard.append(snapshot.workloads["default/web-1"].terminating))
    registry.leave(["default/web-1"])
    registry.leave(["default/web-1"])
    registry.leave([])
    assert heard == [True, False]


def test_who_subscribes_hears_of_each_change_and_of_nothing_else() -> None:
    registry, heard = Registry(), []
    registry.snapshot.subscribe(lambda snapshot: heard.append(snapshot.version))
    registry.update("a", facts("a"))
    registry.update("a", facts("a"))
    registry.status(SourceStatus("a", "live"))
    registry.update("a", facts("b"))
    assert heard == [1, 2]
    assert registry.snapshot.value.sources["a"].state == "live"
