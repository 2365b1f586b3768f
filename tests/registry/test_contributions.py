"""Contributions kept merged give what a merge of everything gives, whatever happens to them in whatever order."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from fairlead.registry.contributions import Contributions
from fairlead.registry.merge import merge
from fairlead.registry.model import Changed, Endpoint, Facts, Service, ServicePort, Workload
from fairlead.registry.snapshot import Snapshot

pytestmark = pytest.mark.usefixtures("tables")

HOSTS = [f"{name}.default.svc.cluster.local" for name in ("web", "api", "db")]
PRECEDENCE = ("a", "b")

labels = st.dictionaries(st.sampled_from(["app", "v"]), st.sampled_from(["1", "2"]), max_size=2)
services = st.builds(
    lambda host, selector, ports: Service(host, "default", host.partition(".")[0], ports, selector=selector),
    st.sampled_from(HOSTS),
    st.none() | labels,
    st.sampled_from([(), (ServicePort(80),), (ServicePort(80), ServicePort(81, "x"))]),
)
endpoints = st.builds(
    lambda host, address, workload, own: (host, Endpoint(address, 80, workload=workload, labels=own)),
    st.sampled_from(HOSTS),
    st.sampled_from(["10.0.0.1", "10.0.0.2"]),
    st.sampled_from(["", "default/w1", "default/w2", "shop/w1"]),
    labels,
)
workloads = st.builds(
    lambda namespace, name, own, ready: Workload(namespace, name, ("10.0.1.1",), labels=own, ready=ready),
    st.sampled_from(["default", "shop"]),
    st.sampled_from(["w1", "w2"]),
    labels,
    st.booleans(),
)


def facts_of(
    made: tuple[list[Service], list[tuple[str, Endpoint]], list[Workload], dict[str, dict[str, str]]],
) -> Facts:
    grouped: dict[str, tuple[Endpoint, ...]] = {}
    for host, endpoint in made[1]:
        grouped[host] = (*grouped.get(host, ()), endpoint)
    return Facts({one.host: one for one in made[0]}, grouped, {one.key: one for one in made[2]}, made[3])


facts = st.tuples(
    st.lists(services, max_size=3),
    st.lists(endpoints, max_size=4),
    st.lists(workloads, max_size=3),
    st.dictionaries(st.sampled_from(["default", "shop", "empty"]), labels, max_size=2),
).map(facts_of)
leaving = st.frozensets(st.sampled_from(["default/w1", "default/w2", "shop/w1"]))
steps = st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), facts, st.booleans()) | leaving, min_size=1, max_size=7)


def seen(snapshot: Snapshot) -> Any:
    """All of it, without the orders of endpoints and of their labels that different ways may give."""
    ends = {
        host: sorted(repr(replace(one, labels=dict(sorted(one.labels.items())))) for one in found)
        for host, found in snapshot.endpoints.items()
    }
    return snapshot.services, ends, snapshot.workloads, snapshot.namespaces


def touched_by(before: Facts, now: Facts) -> Changed:
    """What a source may say that it touched: all keys of both."""
    hosts = {*before.services, *now.services, *before.endpoints, *now.endpoints}
    return Changed(
        frozenset(hosts),
        frozenset({*before.workloads, *now.workloads}),
        frozenset({*before.namespaces, *now.namespaces}),
    )


@settings(max_examples=300, deadline=None)
@given(steps)
def test_step_by_step_is_the_same_as_all_at_once(steps: list[tuple[str, Facts, bool] | frozenset[str]]) -> None:
    kept = Contributions(PRECEDENCE)
    held: dict[str, Facts] = {}
    last = kept.snapshot(0, {}, None)
    gone: frozenset[str] = frozenset()
    for number, step in enumerate(steps, 1):
        if isinstance(step, frozenset):
            gone = step
            changed = kept.leave(gone)
        else:
            source, now, says = step
            changed = kept.take(source, now, touched_by(held.get(source, Facts()), now) if says else None)
            held[source] = now
        ranked = sorted(held.items(), key=lambda item: {"a": 0, "b": 1}.get(item[0], 2))
        whole = merge(ranked, {}, Snapshot(), gone)
        made = kept.snapshot(number, {}, changed)
        assert seen(made) == seen(whole)
        differ = {
            host for host in {*last.services, *made.services} if last.services.get(host) != made.services.get(host)
        }
        differ |= {
            host for host in {*last.endpoints, *made.endpoints} if last.endpoints.get(host) != made.endpoints.get(host)
        }
        people = {
            key for key in {*last.workloads, *made.workloads} if last.workloads.get(key) != made.workloads.get(key)
        }
        spaces = {
            name
            for name in {*last.namespaces, *made.namespaces}
            if last.namespaces.get(name) != made.namespaces.get(name)
        }
        assert differ == (set(changed.hosts) if changed is not None else set())
        assert people == (set(changed.workloads) if changed is not None else set())
        assert spaces == (set(changed.namespaces) if changed is not None else set())
        assert all(
            made.services[host] is last.services[host]
            for host in made.services
            if host not in differ and host in last.services
        )
        last = made


def test_the_same_contribution_again_is_no_change() -> None:
    kept = Contributions()
    one = Facts({HOSTS[0]: Service(HOSTS[0], "default", "web")})
    assert kept.take("a", one) is not None
    assert kept.take("a", one) is None
    assert kept.take("a", Facts(dict(one.services))) is None
    assert kept.take("b", one) is None, "the first source that has it defines it"
    assert kept.facts("b") is one and kept.facts("c") is None
