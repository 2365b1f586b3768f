"""The bench of rules measures what it says, and a mesh of a tenth of its size is far within the goals."""

from __future__ import annotations

from bench.rules import CHANGE_MS, COMPILE_S, DECIDE_US, ROUTES, Mesh, measure, request
from fairlead.policy.decide import decide
from fairlead.policy.tables import Arrival


def test_its_requests_find_the_routes_that_they_are_to_find() -> None:
    mesh = Mesh(3, 12, rules=True)
    tables = mesh.take(mesh.line)
    host = f"{mesh.names[1]}.default.svc.cluster.local"
    first = decide(tables, request("/area-1/x?y=1", host, Arrival("outbound")))
    last = decide(tables, request("/else/x?y=1", host, Arrival("outbound")))
    assert (first.route, last.route) == ("r1", "rest")
    assert len(tables.clusters[f"outbound|80||{host}"].endpoints) == 4
    changed = mesh.take(mesh.change(mesh.names[1], ready=False))
    assert len(changed.clusters[f"outbound|80||{host}"].endpoints) == 3


def test_a_tenth_of_the_size_is_far_within_the_goals() -> None:
    found = measure(100, 1000)
    assert found["compile anew, s"] < COMPILE_S
    assert found["one endpoint's change: feed to tables, median, ms"] < CHANGE_MS
    assert found[f"decide, last of {ROUTES} routes, us"] < DECIDE_US
