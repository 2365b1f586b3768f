"""The values that rules are made of: which are taken, which are not."""

from __future__ import annotations

import pytest

from fairlead.policy import validate_values as v
from fairlead.registry.schema import Findings


@pytest.mark.parametrize(
    "host", ["web", "a.b", "A-1.b.c", "a.b.", "*", "*.a.b", "*-x.a.b", "*x.b", "10.0.0.1", "fd00::1", "a" * 63 + ".b"]
)
def test_legal_hosts(host: str) -> None:
    assert v.host_fault(host) == ""


@pytest.mark.parametrize(
    "host",
    ["", ".", "a..b", "-a.b", "a-.b", "a_b", "a b", "a:80", "http://a", "a/b", "a.*.b", "**", "a.123", "a" * 64 + ".b",
     ".".join(["a" * 60] * 5), "*.", "é.b"],
)  # fmt: skip
def test_illegal_hosts(host: str) -> None:
    assert v.host_fault(host)


def test_wildcards_and_addresses_only_where_they_are_taken() -> None:
    assert v.host_fault("*.a", wildcard=False)
    assert v.host_fault("*a.b", partial=False)
    assert v.host_fault("10.0.0.1", ip=False)


@pytest.mark.parametrize(
    ("entries", "nobody", "good"),
    [
        ([], False, True), (["."], False, True), (["*"], False, True), (["a", "b"], False, True), (["~"], True, True),
        (["~"], False, False), (["~", "."], True, False), (["*", "."], False, False), (["a", "a"], False, False),
        ([".", "own"], False, False), (["A"], False, False), ([""], False, False),
    ],
)  # fmt: skip
def test_export_to(entries: list[str], nobody: bool, good: bool) -> None:
    found = Findings()
    v.check_export_to(found, "p", entries, "own", nobody)
    assert (found.errors == []) is good


@pytest.mark.parametrize(
    ("reference", "good"),
    [("mesh", True), ("edge", True), ("ns/edge", True), ("ns/*", False), ("*/edge", False), ("a/b/c", False),
     ("", False), ("/a", False), ("a/", False), ("A", False)],
)  # fmt: skip
def test_gateway_references(reference: str, good: bool) -> None:
    found = Findings()
    v.check_gateways(found, "p", [reference])
    assert (found.errors == []) is good


def test_a_dotted_gateway_is_the_old_form() -> None:
    found = Findings()
    v.check_gateways(found, "p", ["edge.ns.svc.cluster.local"])
    assert (found.errors, len(found.warnings)) == ([], 1)


@pytest.mark.parametrize("value", [0, 0.0001, 50, 100, None])
def test_percentages_that_istio_takes(value: float | None) -> None:
    found = Findings()
    v.check_percent(found, "p", value)
    assert found.errors == []


@pytest.mark.parametrize("pattern", ["a+", "(?i)abc", "[[:alpha:]]+", "a{2,3}", "(a|b)*", "^/x$", r"\d+\.\w*"])
def test_expressions_that_can_be_matched(pattern: str) -> None:
    found = Findings()
    v.check_regex(found, "p", pattern)
    assert found.errors == []


@pytest.mark.parametrize("pattern", ["(", "a**", "(?=a)", "(?<!a)b", r"(a)\1", "(?P=x)", "a" * 1025, "[", "(?>a)"])
def test_expressions_that_cannot(pattern: str) -> None:
    found = Findings()
    v.check_regex(found, "p", pattern)
    assert len(found.errors) == 1


def test_blocks_of_addresses() -> None:
    for good in ("10.0.0.0/8", "10.0.0.1", "fd00::/8", "10.0.0.1/8"):
        assert v.cidr_fault(good) == ""
    for bad in ("10.0.0.0/33", "x", "", "10.0.0"):
        assert v.cidr_fault(bad)
