"""Instances of schedulers to facts: settings in labels, ports, names, and what cannot be used."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.registry.listed import Listed, Port, facts_of, name_of, settings_of_tags, stated_ports, wanted
from fairlead.registry.model import ServicePort

WEB = "web.shop.svc.cluster.local"


def listed(**more: Any) -> Listed:
    given: dict[str, Any] = {
        "where": "a", "service": "web", "namespace": "shop", "instance": "web-1", "address": "10.0.0.1",
        "ports": (Port(80, 8080),), "labels": {},
    }  # fmt: skip
    return Listed(**{**given, **more})


def test_an_instance_is_an_endpoint_and_a_workload() -> None:
    settings = {"fairlead.service-account": "web", "fairlead.mesh-port": "15006", "fairlead.weight": "3", "v": "1"}
    facts, problems = facts_of([listed(labels=settings, locality="eu/a")], "nomad")
    assert problems == []
    assert facts.services[WEB].ports == (ServicePort(80),)
    (endpoint,) = facts.endpoints[WEB]
    assert (endpoint.address, endpoint.port, endpoint.ready, endpoint.weight) == ("10.0.0.1", 8080, True, 3)
    assert (endpoint.workload, endpoint.service_account, endpoint.mesh_port) == ("shop/web-1", "web", 15006)
    assert (endpoint.labels, endpoint.locality, endpoint.source) == ({"v": "1"}, "eu/a", "nomad")
    assert facts.workloads["shop/web-1"].service_account == "web"


def test_labels_may_state_name_namespace_and_ports() -> None:
    labels = {"fairlead.service": "Front_End", "fairlead.namespace": "edge", "fairlead.ports": "80:8080/http, 9090"}
    facts, problems = facts_of([listed(labels=labels)], "docker")
    assert problems == []
    host = "front-end.edge.svc.cluster.local"
    assert facts.services[host].ports == (
        ServicePort(80, "port-80", app_protocol="http"), ServicePort(9090, "port-9090"),
    )  # fmt: skip
    assert [(one.port, one.port_name) for one in facts.endpoints[host]] == [(8080, "port-80"), (9090, "port-9090")]


def test_what_cannot_be_used_is_told_by_its_own_name_and_the_rest_is_kept() -> None:
    found = [
        listed(where="b", address="not an address"),
        listed(where="c", ports=()),
        listed(where="d", labels={"fairlead.ports": "http"}),
        listed(where="e", labels={"fairlead.ports": "80/quic"}),
        listed(where="f", labels={"fairlead.protocol": "quic"}),
        listed(where="g", service="---"),
        listed(where="h", ports=(Port(0, 8080),)),
        listed(where="i", address="10.0.0.2"),
        listed(where="a"),
    ]
    facts, problems = facts_of(found, "docker")
    assert {problem.split(":")[0] for problem in problems} == {f"docker {name}" for name in "bcdefghi"} - {
        "docker i"
    } | {"docker a"}
    assert "give each a name" in problems[-1] or any("give each a name" in problem for problem in problems)
    assert len(facts.endpoints[WEB]) == 1


def test_one_instance_may_serve_several_services() -> None:
    facts, problems = facts_of([listed(), listed(where="b", service="api", ports=(Port(81, 8081),))], "nomad")
    assert problems == []
    assert {port.number for port in facts.workloads["shop/web-1"].ports} == {8080, 8081}
    assert set(facts.services) == {WEB, "api.shop.svc.cluster.local"}


def test_what_is_being_stopped_is_serving_but_not_ready() -> None:
    facts, _ = facts_of([listed(terminating=True), listed(instance="web-2", ready=False, why="it fails")], "docker")
    first, second = facts.endpoints[WEB]
    assert (first.ready, first.serving, first.terminating, first.why) == (False, True, True, "it is being stopped")
    assert (second.ready, second.serving, second.why) == (False, False, "it fails")


def test_tags_are_labels_and_names_are_made_fit_for_dns() -> None:
    assert settings_of_tags(["v=1", "blue", "", "=x"]) == {"v": "1", "tag.blue": "true", "tag.=x": "true"}
    assert name_of("Shop_Web.1/x") == "shop-web-1-x"
    assert not wanted({"fairlead.enable": "False"}) and wanted({})
    with pytest.raises(ValueError, match="no DNS label"):
        name_of("___")
    assert stated_ports("80:8080,53/tcp") == (Port(80, 8080), Port(53, 53, protocol="tcp"))


@given(st.text(max_size=30) | st.from_regex(r"[0-9]{1,7}(:[0-9]{1,7})?(/[a-z0-9]{1,5})?", fullmatch=True))
def test_no_text_of_ports_raises_anything_but_what_is_told(text: str) -> None:
    facts, problems = facts_of([listed(labels={"fairlead.ports": text})], "docker")
    assert problems or not text or all(0 < one.port <= 65535 for one in facts.endpoints[WEB])
