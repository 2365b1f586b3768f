"""Completion, spellings, authorities, and the search for the most specific host."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.host_names import Domains, complete, covers, split_authority


@pytest.mark.parametrize(
    ("host", "full"),
    [
        ("Reviews", "reviews.shop.svc.cluster.local"),
        ("reviews.prod", "reviews.prod"),
        ("*", "*"),
        ("*.Example", "*.example"),
        ("example.com.", "example.com"),
        ("10.0.0.1", "10.0.0.1"),
        ("::1", "::1"),
    ],
)
def test_only_names_without_a_dot_are_completed(host: str, full: str) -> None:
    assert complete(host, "shop", "cluster.local") == full


@pytest.mark.parametrize(
    ("authority", "split"),
    [
        ("Web:80", ("web", 80)),
        ("web.", ("web", 0)),
        ("web.:80", ("web", 80)),
        ("[::1]:80", ("::1", 80)),
        ("[::1]", ("::1", 0)),
        ("::1", ("::1", 0)),
        ("web:", ("web", 0)),
        ("web:x", ("web", 0)),
        ("", ("", 0)),
        ("web:٣", ("web", 0)),
    ],
)
def test_authorities_are_taken_apart(authority: str, split: tuple[str, int]) -> None:
    assert split_authority(authority) == split


@given(st.text(max_size=40))
def test_any_authority_can_be_taken_apart(authority: str) -> None:
    host, port = split_authority(authority)
    assert host == host.lower() and 0 <= port <= 99999


def test_the_most_specific_domain_is_found() -> None:
    domains: Domains[str] = Domains()
    for host in ("a.foo.com", "*.foo.com", "*.com", "*-x.foo.com", "*"):
        assert domains.claim(host, host)
        assert not domains.claim(host, "later")
        assert domains.get(host) == host
    for host, found in (
        ("a.foo.com", "a.foo.com"), ("b.foo.com", "*.foo.com"), ("b.c.foo.com", "*.foo.com"), ("foo.com", "*.com"),
        ("b-x.foo.com", "*-x.foo.com"), ("com", "*"), ("", "*"), ("other", "*"),
    ):  # fmt: skip
        assert domains.find(host) == found, host
    assert len(list(domains.values())) == 5


HOSTS = st.lists(st.sampled_from(["a", "b", "x-a", "com"]), min_size=1, max_size=4).map(".".join)
PATTERNS = st.one_of(HOSTS, HOSTS.map("*.{}".format), HOSTS.map("*{}".format), st.just("*"))


@given(st.lists(PATTERNS, max_size=6, unique=True), HOSTS)
def test_find_agrees_with_the_longest_pattern_that_covers(patterns: list[str], host: str) -> None:
    domains: Domains[str] = Domains()
    for pattern in patterns:
        domains.claim(pattern, pattern)
    covering = [pattern for pattern in patterns if covers(pattern, host)]
    expected = host if host in covering else max(covering, key=len, default=None)
    assert domains.find(host) == expected
