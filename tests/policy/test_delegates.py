"""Delegates: how the conditions and settings of two rules become those of one route (Istio's merging)."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from fairlead.policy.delegates import merged_from, with_delegates
from fairlead.policy.resources import Meta, VirtualService, VirtualServiceSpec


def rule(name: str, *http: dict[str, Any], namespace: str = "team", **spec: Any) -> VirtualService:
    return VirtualService(Meta(name, namespace), msgspec.convert({"http": list(http), **spec}, VirtualServiceSpec))


TO = {"route": [{"destination": {"host": "web"}}]}


def merged(outer: dict[str, Any], *inner: dict[str, Any], **spec: Any) -> list[Any]:
    root = rule("root", {**outer, "delegate": {"name": "part", "namespace": "team"}}, namespace="shop", hosts=["web"])
    return with_delegates(root, [root, rule("part", *inner, **spec)], "cluster.local").spec.http


def matches(outer: dict[str, Any], inner: dict[str, Any]) -> Any:
    """The one condition of the merged route; None: the route is left out."""
    found = merged({"match": [outer]}, {"match": [inner], **TO})
    return found[0].match[0] if found else None


@pytest.mark.parametrize(
    ("outer", "inner", "fits"),
    [
        ({"uri": {"prefix": "/a"}}, {"uri": {"prefix": "/a/b"}}, True),
        ({"uri": {"prefix": "/a"}}, {"uri": {"exact": "/a"}}, True),
        ({"uri": {"prefix": "/a/b"}}, {"uri": {"prefix": "/a"}}, False),
        ({"uri": {"exact": "/a"}}, {"uri": {"exact": "/a"}}, True),
        ({"uri": {"exact": "/a"}}, {"uri": {"prefix": "/a"}}, False),
        ({"uri": {"regex": ".*"}}, {"uri": {"exact": "/a"}}, False),
        ({"uri": {"prefix": "/"}}, {"uri": {"regex": ".*"}}, False),
        ({"method": {"exact": "GET"}}, {"method": {"exact": "PUT"}}, False),
        ({"headers": {"x": {"exact": "1"}}}, {"headers": {"y": {"exact": "2"}}}, True),
        ({"headers": {"x": {"exact": "1"}}}, {"headers": {"x": {"exact": "2"}}}, False),
        ({"queryParams": {"x": {"prefix": "1"}}}, {"queryParams": {"x": {"exact": "12"}}}, True),
        ({"withoutHeaders": {"x": {"exact": "1"}}}, {"withoutHeaders": {"x": {"exact": "2"}}}, False),
        ({"ignoreUriCase": True}, {}, False),
        ({"port": 80}, {"port": 80}, True),
        ({"port": 80}, {"port": 81}, False),
        ({"port": 80}, {}, True),
        ({"sourceNamespace": "a"}, {"sourceNamespace": "a"}, True),
        ({"sourceNamespace": "a"}, {}, False),
        ({}, {"sourceNamespace": "a"}, True),
        ({"sourceLabels": {"a": "x"}}, {"sourceLabels": {"a": "y"}}, False),
        ({"sourceLabels": {"a": "x"}}, {"sourceLabels": {"b": "y"}}, True),
        ({"gateways": ["a", "b"]}, {"gateways": ["a"]}, True),
        ({"gateways": ["a"]}, {"gateways": ["a", "b"]}, False),
    ],
)
def test_a_condition_of_the_delegate_must_lie_within_the_roots(
    outer: dict[str, Any], inner: dict[str, Any], fits: bool
) -> None:
    assert (matches(outer, inner) is not None) is fits


def test_the_merged_condition_asks_for_both() -> None:
    made = matches(
        {
            "name": "o",
            "uri": {"prefix": "/a"},
            "method": {"exact": "GET"},
            "headers": {"x": {"exact": "1"}},
            "port": 80,
        },
        {"name": "i", "uri": {"exact": "/a/b"}, "headers": {"y": {"exact": "2"}}, "sourceNamespace": "n"},
    )
    assert (made.name, made.uri.exact, made.method.exact, made.port) == ("o-i", "/a/b", "GET", 80)
    assert (sorted(made.headers), made.source_namespace) == (["x", "y"], "n")


def test_one_block_that_fits_nowhere_leaves_the_whole_route_out() -> None:
    blocks = [{"uri": {"prefix": "/a/b"}}, {"uri": {"prefix": "/c"}}]
    assert merged({"match": [{"uri": {"prefix": "/a"}}]}, {"match": blocks, **TO}) == []


def test_settings_are_the_delegates_own_else_the_roots_and_short_names_are_of_the_delegates_namespace() -> None:
    outer = {"name": "outer", "timeout": 3.0, "headers": {"request": {"set": {"a": "1"}}}}
    mirror = {"mirrors": [{"destination": {"host": "copy"}}]}
    [one, two] = merged(outer, {**TO, **mirror, "timeout": 1.0}, {"name": "two", **TO})
    assert (one.name, one.timeout, two.name, two.timeout) == ("outer", 1.0, "outer-two", 3.0)
    assert one.headers is not None
    assert one.route[0].destination.host == "web.team.svc.cluster.local"
    assert one.mirrors[0].destination.host == "copy.team.svc.cluster.local"


@pytest.mark.parametrize("spec", [{"hosts": ["own"]}, {"exportTo": ["."]}])
def test_what_has_hosts_of_its_own_or_is_not_exported_is_no_delegate(spec: dict[str, Any]) -> None:
    [left] = merged({}, TO, **spec)
    assert left.delegate.name == "part"


def test_a_delegate_does_not_delegate_again() -> None:
    assert len(merged({}, {"delegate": {"name": "x"}}, TO)) == 1


def test_where_each_merged_route_comes_from_is_told_in_the_same_order() -> None:
    inner: list[dict[str, Any]] = [{"delegate": {"name": "x"}}, {"match": [{"port": 81}], **TO}, {"name": "last", **TO}]
    part = rule("part", *inner)
    http: list[dict[str, Any]] = [
        TO,
        {"match": [{"port": 80}], "delegate": {"name": "part", "namespace": "team"}},
        {"delegate": {"name": "?"}},
    ]
    root = rule("root", *http, namespace="shop", hosts=["web"])
    found = merged_from(root, [root, part], "cluster.local")
    assert found == [(0, None, 0), (1, part, 2), (2, None, 2)]
    assert len(found) == len(with_delegates(root, [root, part], "cluster.local").spec.http)
