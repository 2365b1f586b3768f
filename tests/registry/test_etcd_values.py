"""etcd's keys and values to facts, and its environment variables to settings."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.registry.etcd_values import facts_of, instance, prefix_end, settings_of

P = "/services/"
WEB = "web.default.svc.cluster.local"


def value(**fields: Any) -> bytes:
    return json.dumps({"host": "10.0.0.1", "port": 8080, **fields}).encode()


def test_the_least_value_has_host_and_port() -> None:
    found = instance("/services/web/web-1", value(), P)
    assert (found.host, found.endpoint.address, found.endpoint.port, found.endpoint.ready) == (
        WEB,
        "10.0.0.1",
        8080,
        True,
    )


@pytest.mark.parametrize(
    ("key", "octets", "said"),
    [
        ("/services/web", value(), "NAME/INSTANCE"),
        ("/services/web/a/b", value(), "NAME/INSTANCE"),
        ("/services//a", value(), "NAME/INSTANCE"),
        ("/services/web/a", b"{", "JSON"),
        ("/services/web/a", b"[" * 100_000, "JSON"),
        ("/services/web/a", b"[]", "object"),
        ("/services/web/a", b'{"port": 80}', "host"),
        ("/services/web/a", value(port=0), "port"),
        ("/services/web/a", value(port=True), "port"),
        ("/services/web/a", value(port="80"), "port"),
        ("/services/web/a", value(ready="yes"), "ready"),
        ("/services/web/a", value(weight=0), "weight"),
        ("/services/web/a", value(labels={"a": 1}), "labels"),
        ("/services/web/a", value(zone=1), "zone"),
    ],
)
def test_what_is_malformed_is_told(key: str, octets: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        instance(key, octets, P)


@given(st.binary(max_size=200))
def test_no_octets_do_more_than_raise(octets: bytes) -> None:
    try:
        instance("/services/web/a", octets, P)
    except ValueError:
        pass


def test_instances_of_one_service_are_its_endpoints() -> None:
    values = {"web/1": value(port=1), "web/2": value(port=2), "db/1": value(namespace="x")}
    made = {P + key: instance(P + key, octets, P) for key, octets in values.items()}
    facts = facts_of(made)
    assert [e.port for e in facts.endpoints[WEB]] == [1, 2]
    assert facts.services[WEB].ports[0].number == 80
    assert facts.services["db.x.svc.cluster.local"].ports[0].number == 8080
    assert set(facts.workloads) == {"default/web-1", "default/web-2", "x/db-1"}


def test_fields_of_others_are_told_of_and_do_no_harm() -> None:
    found = instance("/services/web/web-1", value(prot=1), P)
    assert found.endpoint.port == 8080
    assert "unknown field 'prot'" in found.warning


def test_instances_of_the_same_name_in_two_services_are_two_workloads_unless_they_say_otherwise() -> None:
    def workload(key: str, **fields: Any) -> str:
        return instance(P + key, value(**fields), P).workload.key

    assert (workload("web/1"), workload("db/1")) == ("default/web-1", "default/db-1")
    assert (workload("web/web-1"), workload("web/web"), workload("web/website-1")) == (
        "default/web-1", "default/web", "default/web-website-1",
    )  # fmt: skip
    assert workload("shop/web-1", workload="web-1") == "default/web-1"


def test_names_are_in_lower_case() -> None:
    assert instance("/services/Web/1", value(namespace="Shop"), P).host == "web.shop.svc.cluster.local"


def test_the_end_of_a_prefix() -> None:
    assert prefix_end(b"/a/") == b"/a0"
    assert prefix_end(b"a\xff") == b"b"
    assert prefix_end(b"\xff") == b"\0"


def test_settings_are_those_of_etcdctl() -> None:
    found = settings_of("env", {"ETCDCTL_ENDPOINTS": "a:1,http://b:2/", "ETCDCTL_USER": "u:p", "ETCDCTL_CACERT": "/ca"})
    assert found.endpoints == ("https://a:1", "http://b:2")
    assert (found.user, found.password, found.verify) == ("u", "p", True)
    assert settings_of("env", {"ETCDCTL_INSECURE_SKIP_TLS_VERIFY": "true"}).verify is False
    assert settings_of("env", {}).endpoints == ("http://127.0.0.1:2379",)
