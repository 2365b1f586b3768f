"""Parts together are what all of them state, and what was touched is what may differ."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.registry.model import Endpoint, Facts, Service, Workload
from fairlead.registry.parts import Parts

pytestmark = pytest.mark.usefixtures("tables")

HOSTS = ("web", "api")


def part(hosts: list[str], port: int, workloads: list[str]) -> Facts:
    return Facts(
        {host: Service(host, "default", host) for host in hosts},
        {host: (Endpoint("10.0.0.1", port),) for host in hosts},
        {f"default/{name}": Workload("default", name, (f"10.0.0.{port}",)) for name in workloads},
    )


parts = st.builds(
    part,
    st.lists(st.sampled_from(HOSTS), unique=True),
    st.integers(1, 3),
    st.lists(st.sampled_from(["w1", "w2"]), unique=True),
)


@settings(max_examples=300, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), st.none() | parts, st.booleans()), max_size=10))
def test_they_are_united_in_the_order_of_their_names(steps: list[tuple[str, Facts | None, bool]]) -> None:
    kept, held = Parts(), dict[str, Facts]()
    before, _ = kept.take()
    for name, facts, take in steps:
        kept.put(name, facts)
        held.pop(name, None)
        if facts is not None:
            held[name] = facts
        if not take:
            continue
        found, changed = kept.take()
        whole: tuple[dict[str, Service], dict[str, tuple[Endpoint, ...]], dict[str, Workload]] = ({}, {}, {})
        for own in sorted(held):
            whole[0].update(held[own].services)
            whole[1].update(held[own].endpoints)
            whole[2].update(held[own].workloads)
        assert found == Facts(*whole)
        for key in {*before.services, *found.services}:
            same = before.services.get(key) == found.services.get(key)
            assert key in changed.hosts or (same and before.endpoints.get(key) == found.endpoints.get(key))
        for key in {*before.workloads, *found.workloads}:
            assert key in changed.workloads or before.workloads.get(key) == found.workloads.get(key)
        before = found
    assert set(kept.parts) == set(held)
