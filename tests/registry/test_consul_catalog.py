"""Consul's answers to facts, and its environment variables to settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.registry.consul_catalog import (
    CHECK_OCTETS_MAX,
    ChecksSeen,
    facts_of_service,
    labels_of,
    readiness,
    settings_of,
)

WEB = "web.default.svc.cluster.local"


def entry(own: str = "web-1", port: Any = 8080, node: str = "10.0.0.9", **service: Any) -> dict[str, Any]:
    return {"Node": {"Address": node}, "Service": {"ID": own, "Service": "web", "Port": port, **service}, "Checks": []}


def test_the_services_address_comes_before_its_nodes() -> None:
    facts, problems = facts_of_service("web", [entry("a"), entry("b", Address="10.0.0.1")], "default")
    assert [e.address for e in facts.endpoints[WEB]] == ["10.0.0.1", "10.0.0.9"]
    assert problems == []


@pytest.mark.parametrize(
    ("entries", "port"),
    [
        ([entry("a", 8080), entry("b", 8080)], 8080),
        ([entry("a", 8080), entry("b", 9090)], 80),
        ([entry("a", 8080, Meta={"fairlead-port": "8000"}), entry("b", 9090)], 8000),
    ],
)
def test_the_services_port_is_the_one_stated_else_the_one_shared_else_80(entries: list[Any], port: int) -> None:
    assert facts_of_service("web", entries, "default")[0].services[WEB].ports[0].number == port


def test_workloads_are_told_apart_where_agents_use_the_same_id() -> None:
    entries = [entry("web", node="10.0.0.1"), entry("web", node="10.0.0.2"), entry("web-3")]
    for number, one in enumerate(entries):
        one["Node"]["Node"] = f"node{number}"
    facts, _ = facts_of_service("Web", entries, "default")
    assert set(facts.workloads) == {"default/web-node0", "default/web-node1", "default/web-3"}
    assert list(facts.services) == [WEB]
    named = [entry("x", Meta={"fairlead-workload": "web-7"})]
    assert set(facts_of_service("web", named, "default")[0].workloads) == {"default/web-7"}


def test_a_tagged_address_counts_where_it_is_asked_for_and_there() -> None:
    wan = {"lan": {"Address": "10.0.0.1", "Port": 8080}, "wan": {"Address": "198.51.100.1", "Port": 80}}
    entries = [entry("a", Address="10.0.0.1", TaggedAddresses=wan), entry("b"), entry("c", Address="10.0.0.3")]
    for one in entries:
        one["Node"]["TaggedAddresses"] = {"wan": "198.51.100.9", "lan": "10.0.0.9"}
    facts, problems = facts_of_service("web", entries, "default", tag="wan")
    assert problems == []
    assert {(e.address, e.port) for e in facts.endpoints[WEB]} == {
        ("198.51.100.1", 80), ("198.51.100.9", 8080), ("10.0.0.3", 8080),
    }  # fmt: skip
    plain = facts_of_service("web", entries, "default")[0].endpoints[WEB]
    assert {e.address for e in plain} == {"10.0.0.1", "10.0.0.9", "10.0.0.3"}
    assert facts_of_service("web", [entry("a", TaggedAddresses=["x"])], "default", tag="wan")[1]


def test_namespace_and_partition_of_the_environment_go_with_every_query() -> None:
    told = settings_of("", {"CONSUL_NAMESPACE": "team a", "CONSUL_PARTITION": "p", "CONSUL_CAPATH": "/etc/ca"})
    assert (told.scope, told.ca_path) == ("&ns=team%20a&partition=p", "/etc/ca")
    assert settings_of("", {}).scope == ""


@pytest.mark.parametrize("size", [1, 7, 100, 100_000])
def test_of_all_checks_those_that_changed_came_or_went_name_their_services(size: int) -> None:
    """However an answer is cut."""
    seen = ChecksSeen()

    def taken(*told: tuple[str, str, int]) -> tuple[set[str], set[str]]:
        checks = [
            {"Node": "n", "CheckID": own, "Output": '},{"Node":"', "ServiceName": name, "ModifyIndex": at, "Other": 1}
            for own, name, at in told
        ]
        octets = json.dumps(checks, separators=(",", ":")).encode()
        for at in range(0, len(octets), size):
            seen.add(octets[at : at + size])
        seen.end()
        return seen.take()

    assert taken(("a", "web", 1), ("b", "api", 2), ("c", "api", 3)) == ({"web", "api"}, set())
    assert taken(("a", "web", 1), ("b", "api", 2), ("c", "api", 3)) == (set(), set())
    assert taken(("a", "web", 4), ("b", "api", 2), ("c", "api", 3)) == ({"web"}, set())
    assert taken(("a", "web", 4), ("b", "api", 2), ("d", "new", 9)) == ({"api", "new"}, set())
    assert taken(("a", "web", 4), ("serf", "", 5)) == ({"api", "new"}, {"n"})
    for bad in (b"{}", b"[1]", b"", b'[{"Node":"n","CheckID":"c"}'):
        seen.add(bad)
        with pytest.raises(ValueError):
            seen.end()
        seen.drop()
    with pytest.raises(ValueError, match="no check ends"):
        seen.add(b"[" + b" " * CHECK_OCTETS_MAX)


def test_meta_can_state_the_namespace() -> None:
    facts, _ = facts_of_service("web", [entry(Meta={"fairlead-namespace": "shop"})], "default")
    assert list(facts.services) == ["web.shop.svc.cluster.local"]


def test_tags_and_meta_become_labels_and_settings_do_not() -> None:
    assert labels_of(["v=1", "primary", "=x", ""], {"team": "a", "fairlead-port": "1"}) == {
        "v": "1", "tag.primary": "true", "tag.=x": "true", "team": "a",
    }  # fmt: skip


def test_warning_is_ready_critical_and_maintenance_are_not() -> None:
    assert readiness([{"Status": "passing"}, {"Status": "warning"}]) == (True, "")
    ready, why = readiness([{"Status": "critical", "Name": "disk", "Output": "full\nmore"}])
    assert (ready, why) == (False, "check disk is critical: full")
    assert readiness([{"Status": "passing", "CheckID": "_node_maintenance"}])[0] is False


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(max_size=5),
                    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(
                        st.sampled_from(["Service", "Node", "Checks", "ID", "Port", "Meta", "Tags", "Weights",
                                         "Address"]),
                        inner, max_size=5), max_leaves=12))  # fmt: skip
def test_no_answer_does_more_than_be_told_of(value: Any) -> None:
    facts, problems = facts_of_service("web", [value], "default") if isinstance(value, dict) else (None, [""])
    assert problems or facts is not None


def test_settings_are_those_of_consuls_own_tools() -> None:
    environment = {
        "CONSUL_HTTP_ADDR": "consul.example:8501", "CONSUL_HTTP_SSL": "true", "CONSUL_HTTP_TOKEN": "t",
        "CONSUL_CACERT": "/ca", "CONSUL_HTTP_SSL_VERIFY": "false", "CONSUL_HTTP_AUTH": "u:p",
    }  # fmt: skip
    found = settings_of("env", environment)
    assert (found.url, found.token, found.ca_file, found.verify, found.auth) == (
        "https://consul.example:8501", "t", "/ca", False, "u:p",
    )  # fmt: skip
    assert found.headers == {"X-Consul-Token": "t", "Authorization": "Basic dTpw"}
    assert settings_of("env", {}).headers == {}
    assert settings_of("env", {}).url == "http://127.0.0.1:8500"
    assert settings_of("http://other:1/", environment).url == "http://other:1"
