"""An answer and why."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.dns.explain import explain, question, type_number
from fairlead.registry.model import Endpoint, SourceStatus
from tests.dns.world import HTTP, WORLD, engine, host, service, snapshot


def told(name: str, rtype: str = "A", **fields: Any) -> dict[str, Any]:
    return explain(engine(WORLD, **fields), WORLD, name, rtype, "127.0.0.1")


def left_out(answer: dict[str, Any], number: int = 0) -> dict[str, str]:
    return {one["address"]: one["why"] for one in answer["services"][number]["endpoints"] if not one["given"]}


def test_an_endpoint_that_is_not_ready_is_left_out_with_its_reason() -> None:
    answer = told(host("db"))
    assert answer["status"] == "NOERROR"
    assert f"{host('db')}. 5 IN A 10.1.0.11" in answer["answer"]
    assert left_out(answer) == {"10.1.0.14": "probe failed"}


def test_of_a_virtual_address_no_endpoint_is_given() -> None:
    assert left_out(told(host("web"))) == {"10.1.0.1": "clients are given the service's virtual address"}
    assert told(host("web"))["services"][0]["kind"] == "virtual address"


def test_a_missing_name_says_below_which_service_it_would_lie() -> None:
    answer = told(f"db-3.{host('db')}")
    assert answer["status"] == "NXDOMAIN"
    assert f"no such name; it would lie below the service {host('db')}" in answer["why"]
    assert left_out(answer)["10.1.0.14"] == "probe failed"
    assert left_out(answer)["10.1.0.11"] == "it does not belong to this name"


def test_the_other_family_and_missing_types_are_told() -> None:
    assert set(left_out(told(host("six"))).values()) == {"its address is of the other family"}
    assert "the name exists, but has no record of this type" in told(host("web"), "TXT")["why"]


def test_an_alias_brings_both_services() -> None:
    assert [one["host"] for one in told(host("alias"))["services"]] == [host("alias"), host("web")]


def test_what_goes_upstream_says_so() -> None:
    answer = told(host("outside"), forwards=True)
    assert answer["status"] == "FORWARDED"
    assert answer["answer"] == [f"{host('outside')}. 5 IN CNAME www.example.com."]
    assert "www.example.com. is not ours: upstream servers are asked" in answer["why"]
    assert told("www.example.com")["status"] == "REFUSED"


def test_a_walk_down_the_search_list_is_told() -> None:
    answer = told("cart.shop.default.svc.cluster.local", autopath="question")
    assert "autopath: the client's search list leads to cart.shop.svc.cluster.local." in answer["why"]
    assert answer["services"][-1]["host"] == host("cart", "shop")


def test_source_and_its_age_are_told_and_tags_of_consuls_names() -> None:
    world = snapshot(
        service("web", ports=(HTTP,), source="consul"),
        endpoints={
            host("web"): (
                Endpoint("10.0.0.1", 80, labels={"tag.v1": "true"}, source="consul"),
                Endpoint("10.0.0.2", 80, source="consul"),
            )
        },
    )
    world.sources = {"consul": SourceStatus("consul", "stale", 1000.0, "connection refused")}
    answer = explain(engine(world, consul_domain="consul"), world, "v1.web.service.consul", "SRV", "")
    (found,) = answer["services"]
    assert (found["source"], found["state"], found["confirmedAt"]) == ("consul", "stale", 1000.0)
    assert left_out(answer) == {"10.0.0.2": "it has no tag v1"}
    assert answer["answer"] == ["v1.web.service.consul. 5 IN SRV 1 1 80 0a000001.addr.dc1.consul."]


def test_before_the_first_snapshot_that_is_the_reason() -> None:
    answer = explain(engine(None), WORLD, host("web"), "A")
    assert answer["status"] == "SERVFAIL"
    assert "no snapshot of services has come yet" in answer["why"]


@pytest.mark.parametrize(
    ("name", "rtype", "expected"),
    [
        (
            "cluster.local",
            "SOA",
            "cluster.local. 5 IN SOA ns.dns.cluster.local. hostmaster.cluster.local. 1 7200 1800 86400 5",
        ),
        ("dns-version.cluster.local", "TXT", 'dns-version.cluster.local. 28800 IN TXT "1.1.0"'),
        ("1.0.96.10.in-addr.arpa", "PTR", f"1.0.96.10.in-addr.arpa. 5 IN PTR {host('web')}."),
    ],
)
def test_records_are_written_as_zone_files_have_them(name: str, rtype: str, expected: str) -> None:
    assert told(name, rtype)["answer"] == [expected]


def test_types_are_names_or_numbers_and_the_rest_is_refused() -> None:
    assert (type_number("srv"), type_number("TYPE65"), type_number("https")) == (33, 65, 65)
    for text in ("", "TYPE", "TYPE70000", "x"):
        with pytest.raises(ValueError, match="expected a record type"):
            type_number(text)
    with pytest.raises(ValueError, match="not a DNS name"):
        question("a" * 64, 1)
    with pytest.raises(ValueError, match="dig AXFR"):
        explain(engine(WORLD, allow_transfer=("127.0.0.1",)), WORLD, "cluster.local", "AXFR", "127.0.0.1")
