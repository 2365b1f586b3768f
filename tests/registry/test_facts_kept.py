"""Facts that are kept: the same as all objects give, whatever happens, and no more work than a change touches."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.registry.documents import Document
from fairlead.registry.facts import facts_of
from fairlead.registry.facts_kept import KeptFacts

pytestmark = pytest.mark.usefixtures("tables")

RESOURCES = (
    "namespaces", "services", "pods", "endpointslices.discovery.k8s.io", "serviceentries.networking.istio.io",
    "workloadentries.networking.istio.io",
)  # fmt: skip


class Store:
    def __init__(self) -> None:
        self.objects: dict[str, dict[str, Any]] = {}
        self.read: list[str] = []

    def object(self, key: str) -> dict[str, Any] | None:
        self.read.append(key)
        return self.objects.get(key)

    def ordered(self) -> list[tuple[str, dict[str, Any]]]:
        def place(key: str) -> tuple[int, list[str]]:
            resource, *name = key.split("/")[1:]
            return RESOURCES.index(resource), name

        return [(key, self.objects[key]) for key in sorted(self.objects, key=place)]

    def kept(self) -> KeptFacts:
        made = KeptFacts("control", RESOURCES, self.object)
        made.load(self.ordered())
        return made


def service(name: str, port: int = 80) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": "default"},
            "spec": {"ports": [{"port": port}]}}  # fmt: skip


def slice_of(name: str, of: str, *addresses: str) -> dict[str, Any]:
    return {
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"port": 80}],
        "metadata": {"name": name, "namespace": "default", "labels": {"kubernetes.io/service-name": of}},
        "endpoints": [{"addresses": [one]} for one in addresses],
    }  # fmt: skip


def entry(name: str, *hosts: str, created: int = 0, port: int = 80) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1", "kind": "ServiceEntry",
        "metadata": {"name": name, "namespace": "default", "creationTimestamp": f"2026-01-0{created + 1}T00:00:00Z"},
        "spec": {"hosts": list(hosts), "resolution": "DNS", "ports": [{"number": port, "name": f"p{port}",
                                                                     "protocol": "HTTP"}]},
    }  # fmt: skip


def instance(kind: str, name: str, address: str) -> dict[str, Any]:
    meta = {"name": name, "namespace": "default"}
    if kind == "Pod":
        return {"apiVersion": "v1", "kind": "Pod", "metadata": meta, "spec": {}, "status": {"podIP": address}}
    return {"apiVersion": "networking.istio.io/v1", "kind": "WorkloadEntry", "metadata": meta,
            "spec": {"address": address}}  # fmt: skip


WEB, SLICE = "object/services/default/web", "object/endpointslices.discovery.k8s.io/default/web-1"
HOST = "web.default.svc.cluster.local"


def test_a_change_of_one_service_reads_only_what_states_something_of_it() -> None:
    store = Store()
    store.objects = {WEB: service("web"), SLICE: slice_of("web-1", "web", "10.0.0.1")}
    store.objects |= {f"object/services/default/s{n}": service(f"s{n}") for n in range(50)}
    kept = store.kept()
    other = kept.facts.services["s7.default.svc.cluster.local"]
    store.objects[SLICE] = slice_of("web-1", "web", "10.0.0.2")
    changed = kept.take([SLICE])
    assert (changed.hosts, changed.workloads, changed.namespaces) == (frozenset((HOST,)), frozenset(), frozenset())
    assert sorted(store.read) == [SLICE, WEB]
    assert [one.address for one in kept.facts.endpoints[HOST]] == ["10.0.0.2"]
    assert kept.facts.services["s7.default.svc.cluster.local"] is other


def test_a_slice_that_turns_to_another_service_is_taken_from_the_first() -> None:
    store = Store()
    store.objects = {WEB: service("web"), SLICE: slice_of("web-1", "web", "10.0.0.1")}
    kept = store.kept()
    store.objects[SLICE] = slice_of("web-1", "other", "10.0.0.1")
    assert kept.take([SLICE]).hosts == {HOST, "other.default.svc.cluster.local"}
    assert HOST not in kept.facts.endpoints
    del store.objects[SLICE]
    kept.take([SLICE])
    assert kept.facts.endpoints == {}


NAMES = st.sampled_from("abc")
HOSTS = st.lists(st.sampled_from(["a", "b", "x.example", "*.example"]), min_size=1, max_size=3, unique=True)
OBJECTS = st.one_of(
    st.tuples(st.just("services"), NAMES, st.none() | st.integers(80, 82)),
    st.tuples(st.just(RESOURCES[3]), NAMES, st.none() | st.tuples(NAMES, st.sampled_from(["10.0.0.1", "10.0.0.2"]))),
    st.tuples(st.just(RESOURCES[4]), NAMES, st.none() | st.tuples(HOSTS, st.integers(0, 2), st.integers(80, 82))),
    st.tuples(st.just("pods"), NAMES, st.none() | st.sampled_from(["10.0.0.1", "10.0.0.2"])),
    st.tuples(st.just(RESOURCES[5]), NAMES, st.none() | st.sampled_from(["10.0.0.3", "10.0.0.4"])),
    st.tuples(st.just("namespaces"), NAMES, st.none() | st.sampled_from(["x", "y"])),
)


def key_of(resource: str, name: str) -> str:
    return f"object/{resource}/{'' if resource == 'namespaces' else 'default'}/{name}"


def written(resource: str, name: str, what: Any) -> dict[str, Any]:
    if resource == "services":
        return service(name, what)
    if resource == RESOURCES[3]:
        return slice_of(name, *what)
    if resource == RESOURCES[4]:
        return entry(name, *what[0], created=what[1], port=what[2])
    if resource == "namespaces":
        return {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": {"l": what}}}
    return instance("Pod" if resource == "pods" else "WorkloadEntry", name, what)


@settings(max_examples=400, deadline=None)
@given(st.lists(st.lists(OBJECTS, min_size=1, max_size=4), min_size=1, max_size=8), st.integers(0, 3))
def test_after_any_changes_the_facts_are_those_of_all_objects(commits: list[list[Any]], loaded: int) -> None:
    store = Store()
    kept = store.kept()
    for number, commit in enumerate(commits):
        before = kept.facts
        for resource, name, what in commit:
            key = key_of(resource, name)
            if what is None:
                store.objects.pop(key, None)
            else:
                store.objects[key] = written(resource, name, what)
        if number < loaded:
            kept = store.kept()
            continue
        changed = kept.take({key_of(resource, name) for resource, name, _ in commit})
        whole = facts_of([Document.of(body, "x") for _, body in store.ordered()], "control")
        assert kept.facts == whole
        for old, new, told in (
            (before.services, whole.services, changed.hosts),
            (before.endpoints, whole.endpoints, changed.hosts),
            (before.workloads, whole.workloads, changed.workloads),
            (before.namespaces, whole.namespaces, changed.namespaces),
        ):
            assert {key for key in {**old, **new} if old.get(key) != new.get(key)} <= told
