"""Everything at one version: looked up by address, identity and namespace as a plain search would find it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from fairlead.registry.model import Endpoint, Service, Workload
from fairlead.registry.snapshot import Snapshot

HOST = "web.default.svc.cluster.local"

workloads = st.lists(
    st.builds(
        Workload,
        st.sampled_from(["default", "shop"]),
        st.sampled_from(["a", "b", "c", "d"]),
        st.lists(st.sampled_from(["10.0.0.1", "10.0.0.2", "fd00::1"]), unique=True, max_size=3).map(tuple),
        service_account=st.sampled_from(["default", "web"]),
    ),
    max_size=8,
).map(lambda found: {one.key: one for one in found})


def test_an_empty_one_finds_nothing() -> None:
    empty = Snapshot()
    assert empty.version == 0
    assert (empty.services, empty.endpoints, empty.workloads, empty.namespaces, empty.sources) == ({}, {}, {}, {}, {})
    assert empty.workloads_at("10.0.0.1") == ()
    assert empty.workloads_as("default", "default") == ()


def test_it_holds_what_it_was_given() -> None:
    service, endpoints = (
        Service(HOST, "default", "web"),
        (Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80, ready=False)),
    )
    found = Snapshot(7, {HOST: service}, {HOST: endpoints})
    assert (found.version, found.services[HOST], found.endpoints[HOST]) == (7, service, endpoints)


@given(workloads, st.sampled_from(["10.0.0.1", "fd00::1", "10.0.0.9"]))
def test_by_address_are_all_that_share_it_in_their_order(given_: dict[str, Workload], address: str) -> None:
    found = Snapshot(1, workloads=given_)
    expected = tuple(one for one in given_.values() if address in one.addresses)
    assert found.workloads_at(address) == expected
    assert found.workloads_at(address) is found.workloads_at(address) or not expected


@given(workloads, st.sampled_from(["default", "shop"]), st.sampled_from(["default", "web", "none"]))
def test_by_identity_are_all_of_the_service_account_of_that_namespace_only(
    given_: dict[str, Workload], namespace: str, account: str
) -> None:
    expected = tuple(one for one in given_.values() if (one.namespace, one.service_account) == (namespace, account))
    assert Snapshot(1, workloads=given_).workloads_as(namespace, account) == expected


def test_lookups_of_one_version_do_not_see_another() -> None:
    one = Workload("default", "a", ("10.0.0.1",))
    two = Workload("default", "b", ("10.0.0.1",))
    before, after = Snapshot(1, workloads={one.key: one}), Snapshot(2, workloads={two.key: two})
    assert before.workloads_at("10.0.0.1") == (one,)
    assert after.workloads_at("10.0.0.1") == (two,)


def test_a_namespace_that_nobody_declared_has_its_name_for_a_label() -> None:
    declared = {"kubernetes.io/metadata.name": "shop", "team": "x"}
    found = Snapshot(1, namespaces={"shop": declared})
    assert found.namespace_labels("shop") == declared
    assert found.namespace_labels("other") == {"kubernetes.io/metadata.name": "other"}
    assert "other" not in found.namespaces
