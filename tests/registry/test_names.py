"""Names of services and workloads: what is built comes apart again, and what is none is told from one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.registry.names import full_name, service_host, split_full_name, split_service_host

label = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?", fullmatch=True)
domain = st.lists(label, min_size=1, max_size=3).map(".".join)


@given(label, label, domain)
def test_a_service_host_comes_apart_as_it_was_built(namespace: str, name: str, cluster: str) -> None:
    host = service_host(namespace, name, cluster)
    assert host == f"{name}.{namespace}.svc.{cluster}"
    assert split_service_host(host, cluster) == (namespace, name)


@pytest.mark.parametrize(
    "host",
    ["", "web", "web.default", "web.default.svc", "web.default.svc.other.local", "svc.cluster.local", "example.com",
     ".svc.cluster.local", "web.svc.cluster.local", ".default.svc.cluster.local", "web..svc.cluster.local",
     "db-0.web.default.svc.cluster.local", "web.default.svc.cluster.local.", "web.default.svcXcluster.local"],
)  # fmt: skip
def test_what_is_not_the_host_of_a_service_of_this_cluster_is_none(host: str) -> None:
    assert split_service_host(host) is None


def test_another_cluster_domain_is_another_cluster() -> None:
    assert split_service_host("web.default.svc.cluster.local", "example.org") is None
    assert split_service_host("web.default.svc.example.org", "example.org") == ("default", "web")


@given(st.text(max_size=80), st.sampled_from(["cluster.local", "a", "b.c.d"]))
def test_any_text_is_a_host_that_builds_itself_again_or_none(text: str, cluster: str) -> None:
    for host in (text, f"{text}.svc.{cluster}"):
        parts = split_service_host(host, cluster)
        assert parts is None or service_host(*parts, cluster) == host


@given(label, label)
def test_a_full_name_comes_apart_as_it_was_built(namespace: str, name: str) -> None:
    assert split_full_name(full_name(namespace, name)) == (namespace, name)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("web", ("default", "web")), ("shop/web", ("shop", "web")), ("a/b/c", ("a", "b/c")), ("/web", ("", "web")),
     ("shop/", ("shop", "")), ("", ("default", ""))],
)  # fmt: skip
def test_a_bare_name_is_in_the_default_namespace(text: str, expected: tuple[str, str]) -> None:
    assert split_full_name(text) == expected


def test_the_default_namespace_may_be_another() -> None:
    assert split_full_name("web", "shop") == ("shop", "web")
    assert split_full_name("default/web", "shop") == ("default", "web")
