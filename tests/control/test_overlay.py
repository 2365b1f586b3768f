"""What sidecars tell of themselves over what is stated: the same as everything at once, whatever changes in turn."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fairlead.control.overlay import Overlay
from fairlead.control.sidecars import Known, Sidecars
from fairlead.registry.hub import Registry
from fairlead.registry.model import Changed, Facts, Service, Workload

pytestmark = pytest.mark.usefixtures("tables")

NAMES = ("a", "b", "c")
SERVICE = Service("web.default.svc.cluster.local", "default", "web", selector={"app": "web"})
STEPS = st.one_of(
    st.tuples(st.just("state"), st.sampled_from(["control", "manifests"]), st.sampled_from(NAMES), st.booleans()),
    st.tuples(st.just("connected"), st.sets(st.sampled_from(NAMES)), st.booleans(), st.booleans()),
    st.tuples(st.just("leave"), st.sampled_from(NAMES), st.none(), st.none()),
    st.tuples(st.just("forget"), st.sampled_from(NAMES), st.none(), st.none()),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=12))
@example([("state", "manifests", "a", True), ("connected", {"a"}, False, False), ("forget", "a", None, None)])
def test_after_any_changes_the_registry_is_as_if_all_were_told_at_once(steps: list[Any]) -> None:
    registry, sidecars = Registry(("control", "manifests")), Sidecars()
    overlay = Overlay(registry, sidecars)
    stated: dict[str, Facts] = {"control": Facts(services={SERVICE.host: SERVICE}), "manifests": Facts()}
    for source, facts in stated.items():
        overlay.take(source, facts)
    for what, one, two, three in steps:
        if what == "state":
            workloads = dict(stated[one].workloads)
            if three:
                workloads[f"default/{two}"] = Workload("default", two, (f"10.0.{one == 'control':d}.1",),
                                                       labels={"app": "web"})  # fmt: skip
            else:
                workloads.pop(f"default/{two}", None)
            stated[one] = replace(stated[one], workloads=workloads)
            overlay.take(one, stated[one], Changed(workloads=frozenset((f"default/{two}",))))
        elif what == "connected":
            overlay.told(
                sidecars.connected(
                    [Known("default", name, "10.1.0.1", 15006, checked=three, unhealthy="sick" if two and three else "")
                     for name in one]
                )
            )  # fmt: skip
        elif what == "leave" and sidecars.leave(f"default/{one}"):
            overlay.told([f"default/{one}"])
        elif what == "forget":
            workloads = {key: own for key, own in stated["control"].workloads.items() if key != f"default/{one}"}
            sidecars.forget([f"default/{one}"])
            stated["control"] = replace(stated["control"], workloads=workloads)
            overlay.take("control", stated["control"], Changed(workloads=frozenset((f"default/{one}",))))
    whole = Registry(("control", "manifests"))
    whole.leave(sidecars.left())
    for source, facts in stated.items():
        whole.update(source, sidecars.over(facts))
    whole.update("sidecars", sidecars.alone({key for facts in stated.values() for key in facts.workloads}))
    now, wanted = registry.snapshot.value, whole.snapshot.value
    assert (now.workloads, now.endpoints, now.services) == (wanted.workloads, wanted.endpoints, wanted.services)
