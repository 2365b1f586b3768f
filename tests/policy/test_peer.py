"""Who a peer may be: by identity, by address, and not at all; every doubt makes it fewer things, never more."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.peer import as_peer, identify, identity_of, split_identity
from fairlead.policy.resources import MeshConfigSpec
from fairlead.registry.model import Workload
from fairlead.registry.snapshot import Snapshot

MESH = MeshConfigSpec(trust_domain="cluster.local", trust_domain_aliases=["old.example"])
ONE = Workload("d", "one", ("10.0.0.1",), labels={"v": "1"}, service_account="web")
TWO = Workload("d", "two", ("10.0.0.2",), labels={"v": "2"}, service_account="web")
OTHER = Workload("d", "other", ("10.0.0.3",), service_account="db")
NODE = Workload("d", "node", ("10.0.0.9",), service_account="agent", host_network=True)
BESIDE = Workload("d", "beside", ("10.0.0.9",), service_account="web")
ALL = {one.key: one for one in (ONE, TWO, OTHER, NODE, BESIDE)}
SNAPSHOT = Snapshot(workloads=ALL, namespaces={"d": {"team": "x"}})
WEB = "spiffe://cluster.local/ns/d/sa/web"


def known(identity: str, ip: str) -> set[str]:
    return {workload.name for workload in identify(SNAPSHOT, MESH, identity, ip).workloads}


@pytest.mark.parametrize(
    ("identity", "ip", "names"),
    [
        (WEB, "10.0.0.1", {"one"}),
        (WEB, "10.0.0.3", {"one", "two", "beside"}),  # another's address: the identity counts, all of its workloads
        (WEB, "", {"one", "two", "beside"}),
        (WEB, "10.0.0.9", {"beside"}),
        ("", "10.0.0.1", {"one"}),
        ("", "10.0.0.9", set()),  # it may be the node
        ("", "10.9.9.9", set()),
        ("", "", set()),
        ("spiffe://cluster.local/ns/d/sa/agent", "10.0.0.9", set()),
        ("spiffe://cluster.local/ns/d/sa/none", "10.0.0.1", set()),
        ("spiffe://old.example/ns/d/sa/web", "10.0.0.1", {"one"}),
        ("spiffe://elsewhere/ns/d/sa/web", "10.0.0.1", set()),
    ],
)
def test_a_peer_is_all_that_it_may_be(identity: str, ip: str, names: set[str]) -> None:
    assert known(identity, ip) == names


def test_the_namespace_is_that_of_a_proved_identity_alone_and_not_of_a_node() -> None:
    def namespace(identity: str, ip: str = "10.0.0.1") -> str:
        return identify(SNAPSHOT, MESH, identity, ip).namespace

    assert namespace(WEB) == "d"
    assert namespace("spiffe://cluster.local/ns/new/sa/web") == "new", "proved, though nobody is known there"
    assert namespace("spiffe://elsewhere/ns/d/sa/web") == ""
    assert namespace("") == ""
    assert namespace("spiffe://cluster.local/ns/d/sa/agent") == ""
    assert identify(SNAPSHOT, MESH, WEB, "").namespace_labels["team"] == "x"


def test_a_workload_that_we_imagine_is_as_it_would_be() -> None:
    for workload in (ONE, NODE):
        real = identify(SNAPSHOT, MESH, identity_of("cluster.local", "d", workload.service_account),
                        workload.addresses[0])  # fmt: skip
        made = as_peer(SNAPSHOT, MESH, workload)
        for name in ("ip", "identity", "namespace", "service_account", "workloads", "namespace_labels", "label"):
            assert getattr(made, name) == getattr(real, name), name


@given(st.lists(st.sampled_from(["spiffe:", "", "ns", "sa", "a", "b/c"]), max_size=8).map("/".join))
def test_only_istios_form_is_taken_apart(text: str) -> None:
    found = split_identity(text)
    if found is not None:
        assert text == "spiffe://{}/ns/{}/sa/{}".format(*found)
        assert all(found)


def test_the_form_goes_both_ways_and_an_account_without_a_name_is_default() -> None:
    assert split_identity(identity_of("t", "n", "a")) == ("t", "n", "a")
    assert split_identity(identity_of("t", "n", "")) == ("t", "n", "default")
    for wrong in ("", "spiffe://t/ns/n", "spiffe://t/ns/n/sa/a/x", "SPIFFE://t/ns/n/sa/a", "spiffe://t/ns//sa/a"):
        assert split_identity(wrong) is None
