"""Layouts of etcd's keys and values: those known by name, and those that a document states."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.registry.etcd_layout import NAMED, Layout, parse, split_address
from fairlead.registry.etcd_values import Instance


def read(layout: Layout, key: str, value: Any) -> list[Instance]:
    octets = value.encode() if isinstance(value, str) else json.dumps(value).encode()
    return layout.read(layout.prefix + key, octets, layout.prefix)[0]


def short(found: list[Instance]) -> list[tuple[str, str, int]]:
    return [(one.host.removesuffix(".svc.cluster.local"), one.endpoint.address, one.endpoint.port) for one in found]


@pytest.mark.parametrize(
    ("name", "key", "value", "expected"),
    [
        ("fairlead", "web/web-1", {"host": "10.0.0.1", "port": 80}, ("web.default", "10.0.0.1", 80)),
        # github.com/coredns/coredns plugin/etcd; registrator's skydns2 backend; kube2sky's names
        (
            "skydns",
            "rails/1",
            {"host": "10.0.0.2", "port": 8080, "priority": 10, "ttl": 60},
            ("rails.default", "10.0.0.2", 8080),
        ),
        ("skydns", "svc/shop/rails/1", {"host": "10.0.0.2", "port": 81}, ("rails.shop", "10.0.0.2", 81)),
        ("skydns", "rails", {"host": "10.0.0.2", "port": 82}, ("rails.default", "10.0.0.2", 82)),
        ("registrator", "redis/host:redis_1:6379", "10.0.0.3:49153", ("redis.default", "10.0.0.3", 49153)),
        ("go-kit", "foosvc/1.2.3.4:8080", "http://1.2.3.4:8080", ("foosvc.default", "1.2.3.4", 8080)),
        (
            "grpc",
            "foo/bar/my-service/e1",
            {"Addr": "[fd00::1]:7070", "Metadata": None},
            ("foo-bar-my-service.default", "fd00::1", 7070),
        ),
        (
            "go-micro",
            "go.micro.srv.greeter/n-1",
            {
                "name": "go.micro.srv.greeter",
                "nodes": [{"id": "n-1", "address": "10.0.0.4:1234", "metadata": {"transport": "http"}}],
            },
            ("go-micro-srv-greeter.default", "10.0.0.4", 1234),
        ),
        (
            "kitex",
            "echo/10.0.0.5:8888",
            {"network": "tcp", "address": "10.0.0.5:8888", "weight": 10, "tags": {"v": "2"}},
            ("echo.default", "10.0.0.5", 8888),
        ),
    ],
)
def test_layouts_of_others_are_known_by_name(name: str, key: str, value: Any, expected: tuple[str, str, int]) -> None:
    assert short(read(NAMED[name], key, value)) == [expected]


def test_a_name_of_the_layout_brings_weight_labels_and_protocol_with_it() -> None:
    (kitex,) = read(NAMED["kitex"], "echo/x", {"address": "10.0.0.5:8888", "weight": 10, "tags": {"v": "2"}})
    assert (kitex.endpoint.weight, kitex.endpoint.labels) == (10, {"v": "2"})
    (kit,) = read(NAMED["go-kit"], "foo/x", "https://foo.example.com/api")
    assert (kit.endpoint.address, kit.endpoint.port, kit.protocol) == ("foo.example.com", 443, "https")


STATED = """
apiVersion: fairlead.dev/v1
kind: EtcdLayout
spec:
  prefix: /apps/
  key: "{namespace}/{service}/{_}/{instance}"
  fields:
    address: [meta.ip, hostname]
    port: ports.0.number
    weight: share
    tags: tags
    labels: meta.labels
    ready: status
    zone: where
    serviceAccount: account
  readyValues: [UP, passing]
  defaults: {port: 9000}
"""


def test_a_document_says_where_everything_stands() -> None:
    layout = parse(STATED, "layout.yaml")
    assert layout.prefix == "/apps/"
    value = {
        "meta": {"ip": "10.0.0.1", "labels": {"team": "a", "n": 3, "b": True}},
        "ports": [{"number": "8080"}],
        "share": "7",
        "tags": ["canary", "v=2"],
        "status": "UP",
        "where": "z1",
        "account": "web",
    }
    (one,) = read(layout, "shop/pay.api/v1/i-1", value)
    assert one.host == "pay-api.shop.svc.cluster.local"
    end = one.endpoint
    assert (end.address, end.port, end.weight, end.ready, end.locality) == ("10.0.0.1", 8080, 7, True, "/z1")
    assert end.labels == {"tag.canary": "true", "v": "2", "team": "a", "n": "3", "b": "true"}
    assert (end.service_account, end.workload) == ("web", "shop/pay-api-i-1")
    (other,) = read(layout, "shop/pay/v1/i-2", {"hostname": "b.example.com", "status": "DOWN"})
    assert (other.endpoint.address, other.endpoint.port, other.endpoint.ready) == ("b.example.com", 9000, False)
    with pytest.raises(ValueError, match=r"expected a key \{namespace\}"):
        read(layout, "shop/pay", value)
    with pytest.raises(ValueError, match=r"no address: expected one at 'meta\.ip' or 'hostname'"):
        read(layout, "shop/pay/v1/i-1", {})


def test_a_key_for_each_service_may_have_a_list_of_instances() -> None:
    layout = parse("{key: '{service}', instances: nodes, fields: {address: at, labels: /common}}", "x")
    value = {"common": {"v": "1"}, "nodes": [{"at": "10.0.0.1:80"}, {"at": 5, "x": 1}, {"at": "10.0.0.2:80"}]}
    found, problem = layout.read("/services/web", json.dumps(value).encode(), "/services/")
    assert short(found) == [("web.default", "10.0.0.1", 80), ("web.default", "10.0.0.2", 80)]
    assert found[0].endpoint.labels == {"v": "1"}
    assert problem.startswith("[1]: no ")
    assert len({one.workload.key for one in found}) == 2
    texts = parse("{key: '{service}', instances: '', fields: {}}", "x")
    assert short(read(texts, "web", ["10.0.0.1:80", "10.0.0.2:81"])) == [
        ("web.default", "10.0.0.1", 80),
        ("web.default", "10.0.0.2", 81),
    ]
    lines = parse("{key: '{service}', value: text}", "x")
    assert short(read(lines, "web", "10.0.0.1:80\n10.0.0.2:81, 10.0.0.3:82"))[2] == ("web.default", "10.0.0.3", 82)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("kind: Other\nspec: {}", "EtcdLayout"),
        ("[]", "one object"),
        ("{", "not YAML"),
        ("{colour: red}", "unknown field 'colour'"),
        ("{key: '{name}', fields: {address: a}}", "{namespace} {service}"),
        ("{key: '{instance}', fields: {address: a}}", "expected {service}"),
        ("{key: '{service...}/{instance...}', fields: {address: a}}", "only one"),
        ("{fields: {adress: a}}", r"fields\.adress: unknown"),
        ("{fields: {port: a}}", r"fields\.address: needed"),
        ("{fields: {address: [1]}}", "a path such as"),
        ("{value: xml, fields: {address: a}}", "json or text"),
        ("{defaults: {colour: 1}, fields: {address: a}}", r"defaults\.colour"),
        ("{readyValues: UP, fields: {address: a}}", "readyValues"),
    ],
)
def test_a_document_that_cannot_be_used_is_said_with_the_field_and_what_was_expected(text: str, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        parse(text, "layout.yaml")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1:80", ("10.0.0.1", 80, "")),
        ("fd00::1", ("fd00::1", 0, "")),
        ("[fd00::1]:80", ("fd00::1", 80, "")),
        ("grpc://a.example.com:9000?isSecure=false", ("a.example.com", 9000, "grpc")),
        ("http://a/b:80/c", ("a", 80, "http")),
        ("web", ("web", 0, "")),
    ],
)
def test_addresses_with_and_without_port_and_scheme(text: str, expected: tuple[str, int, str]) -> None:
    assert split_address(text) == expected


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=True) | st.text(max_size=12),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(
            st.sampled_from(["host", "port", "weight", "nodes", "address", "Addr", "tags", "id"]), below, max_size=4
        )
    ),
)


@given(st.sampled_from(sorted(NAMED)), st.text(max_size=20), values)
def test_no_key_and_no_value_does_more_than_raise_a_value_error(name: str, key: str, value: Any) -> None:
    layout = NAMED[name]
    try:
        layout.read(layout.prefix + "web/" + key, json.dumps(value).encode(), layout.prefix)
    except ValueError:
        return


@given(st.sampled_from(sorted(NAMED)), st.binary(max_size=100))
def test_no_octets_do_more_than_raise_a_value_error(name: str, octets: bytes) -> None:
    layout = NAMED[name]
    try:
        layout.read(layout.prefix + "web/a", octets, layout.prefix)
    except ValueError:
        return
