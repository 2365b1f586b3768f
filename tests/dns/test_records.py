"""What one object contributes; the whole zone is in test_zone.py."""

from __future__ import annotations

import pytest

from fairlead.dns.message import AAAA, CNAME, A, wire_name
from fairlead.dns.records import (
    ZoneOptions,
    address_record,
    dashed,
    endpoint_label,
    reverse_name,
    service_records,
    service_ttl,
)
from fairlead.registry.model import Endpoint, Service
from tests.dns.world import external, host, service

OPTIONS = ZoneOptions()


@pytest.mark.parametrize(
    ("address", "label"),
    [("10.1.2.3", "10-1-2-3"), ("fd00::1", "fd00--1"), ("fd00::", "fd00--0"), ("2001:DB8::A", "2001-db8--a")],
)
def test_addresses_as_labels(address: str, label: str) -> None:
    assert dashed(address) == label


@pytest.mark.parametrize("hostname", ["", "with.dot", "x" * 64])
def test_a_hostname_that_is_no_label_gives_way_to_the_address(hostname: str) -> None:
    assert endpoint_label(Endpoint("10.0.0.1", 1, hostname=hostname)) == "10-0-0-1"
    assert endpoint_label(Endpoint("10.0.0.1", 1, hostname="Web-0")) == "web-0"


def test_addresses_are_told_from_names() -> None:
    assert address_record("10.0.0.1") == (A, b"\x0a\0\0\1")
    assert address_record("::1") == (AAAA, bytes(15) + b"\1")
    for text in ("10.0.0.0/8", "name.example", "", "10.1", "fe80::1%eth0", "010.0.0.1"):
        assert address_record(text) is None


def test_reverse_names_have_all_their_nibbles() -> None:
    assert reverse_name(bytes((10, 1, 2, 3))) == wire_name("3.2.1.10.in-addr.arpa")
    assert reverse_name(b"\xfd" + bytes(14) + b"\1").count(b"\1") >= 32


@pytest.mark.parametrize(("text", "ttl"), [("0", 0), ("60", 60), ("99999999", 604800), ("x", 5), ("-5", 5), ("", 5)])
def test_a_service_may_set_its_ttl(text: str, ttl: int) -> None:
    assert service_ttl(service("a", annotations={"fairlead.dev/dns-ttl": text}), OPTIONS) == ttl


def test_endpoints_that_are_names_make_one_alias() -> None:
    ends = (Endpoint("one.example.net", 80), Endpoint("two.example.net", 80))
    records = service_records(external("db.example.com"), ends, (), OPTIONS)
    assert records[wire_name("db.example.com")][CNAME].rdata == (wire_name("one.example.net"),)
    mixed = (*ends, Endpoint("192.0.2.1", 80))
    records = service_records(external("db.example.com"), mixed, (), OPTIONS)
    assert set(records[wire_name("db.example.com")]) == {A}, "an alias stands alone or not at all"


def test_a_host_of_somebody_elses_zone_gets_addresses_only() -> None:
    records = service_records(external("api.example.com", addresses=("192.0.2.1", "192.0.2.0/24")), (), (), OPTIONS)
    assert list(records) == [wire_name("api.example.com")]
    assert records[wire_name("api.example.com")][A].rdata == (b"\xc0\0\2\1",)


def test_names_below_a_service_that_grow_too_long_are_an_error() -> None:
    options = ZoneOptions("c" * 60 + ".internal")
    one = Service(f"{'a' * 63}.{'b' * 63}.svc.{options.cluster_domain}", "b" * 63, "a" * 63, headless=True)
    with pytest.raises(ValueError, match="longer than 255"):
        service_records(one, (Endpoint("10.0.0.1", 1, hostname="h" * 63),), (), options)


def test_an_endpoint_that_is_not_ready_is_not_there() -> None:
    ends = (Endpoint("10.0.0.1", 1, ready=False),)
    assert service_records(service("a", headless=True), ends, (), OPTIONS) == {}
    assert wire_name(host("a")) in service_records(
        service("a", headless=True, publish_not_ready=True), ends, (), OPTIONS
    )
