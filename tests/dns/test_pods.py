"""Names of workloads by address; more is in test_zone.py."""

from __future__ import annotations

from fairlead.dns.message import show_name, wire_name
from fairlead.dns.pods import Pods
from fairlead.dns.records import ZoneOptions
from fairlead.registry.model import Workload


def test_who_shares_an_address_is_found_until_the_last_has_gone() -> None:
    pods = Pods(ZoneOptions(), lambda label: False)
    one, two = (
        Workload("a", "one", ("10.0.0.1", "10.0.0.1")),
        Workload("b", "two", ("10.0.0.1", "fd00::1", "no address")),
    )
    changed: set[bytes] = set()
    pods.place("a/one", one, changed)
    pods.place("b/two", two, changed)
    assert pods.at("10.0.0.1") == (one, two)
    assert pods.at("fd00:0::1") == (two,), "however it is written"
    assert pods.at("no address") == ()
    assert {show_name(name) for name, _ in pods.names()} == {
        "a.pod.cluster.local.",
        "b.pod.cluster.local.",
        "10-0-0-1.a.pod.cluster.local.",
        "10-0-0-1.b.pod.cluster.local.",
        "fd00--1.b.pod.cluster.local.",
    }
    changed.clear()
    pods.place("a/one", None, changed)
    assert pods.at("10.0.0.1") == (two,)
    found = pods.lookup(wire_name("10-0-0-1.a.pod.cluster.local"), 1)
    assert found is not None
    assert found.rcode == 3
    assert set(found.depends) & changed, "what was kept of it is dropped"
    pods.place("b/two", None, changed)
    assert pods.at("10.0.0.1") == ()
    assert not list(pods.names())
