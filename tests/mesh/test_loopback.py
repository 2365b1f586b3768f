"""Loopback addresses: within their range, one for each, the same again."""

from __future__ import annotations

import ipaddress

from hypothesis import given
from hypothesis import strategies as st

from fairlead.mesh import loopback

NETWORK = ipaddress.ip_network("127.64.0.0/10")
HOSTS = [f"svc{n}.default.svc.cluster.local" for n in range(2000)]


def test_each_host_has_an_address_of_its_own_in_the_range() -> None:
    found = loopback.assign(HOSTS)
    assert len(set(found.values())) == len(HOSTS)
    assert all(ipaddress.ip_address(address) in NETWORK for address in found.values())


def test_a_restart_gives_the_same_addresses() -> None:
    assert loopback.assign(HOSTS) == loopback.assign(reversed(HOSTS))


@given(st.sets(st.sampled_from(HOSTS[:50])), st.sets(st.sampled_from(HOSTS[:50])))
def test_whoever_has_an_address_keeps_it(first: set[str], second: set[str]) -> None:
    before = loopback.assign(first)
    after = loopback.assign(second, before)
    assert all(after[host] == before[host] for host in first & second)
    assert set(after) == second
    assert len(set(after.values())) == len(after)


def test_two_names_that_meet_get_two_addresses() -> None:
    taken = loopback.assign(["a"])["a"]
    found = loopback.assign(["a", "b"], {"b": taken})
    assert found["b"] == taken
    assert found["a"] != taken
