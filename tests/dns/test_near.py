"""Nearest endpoints first, where a service asks for it."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.dns.engine import Engine
from fairlead.dns.near import distance, wants_near
from fairlead.registry.model import Endpoint, Workload
from tests.dns.world import HTTP, engine, host, question, read, send, service, snapshot

PLACES = {"10.0.0.1": "eu/a", "10.0.0.2": "eu/b", "10.0.0.3": "us/c", "10.0.0.4": "eu/a"}
CLIENTS = {"10.9.0.1": "eu/a", "10.9.0.2": "eu/b", "10.9.0.3": "us/c"}


def serving(**fields: Any) -> Engine:
    fields = fields or {"traffic_distribution": "PreferClose"}
    return engine(
        snapshot(
            service("web", headless=True, ports=(HTTP,), **fields),
            endpoints={host("web"): tuple(Endpoint(a, 8080, "http", locality=p) for a, p in PLACES.items())},
            workloads={f"default/{a}": Workload("default", a, (a,), locality=p) for a, p in CLIENTS.items()},
        )
    )


def order(server: Engine, source: str, draw: float = 0.0) -> list[str]:
    octets = question(host("web"))
    got = read(octets, send(server, octets, source=source, draw=draw))  # type: ignore[arg-type]
    return [str(record) for record in got.answer[0]]


@pytest.mark.parametrize("draw", [0.0, 0.3, 0.6, 0.99])
def test_each_client_gets_those_of_its_zone_then_of_its_region_first(draw: float) -> None:
    server = serving()
    for source, first, last in (
        ("10.9.0.1", {"10.0.0.1", "10.0.0.4"}, "10.0.0.3"),
        ("10.9.0.2", {"10.0.0.2"}, "10.0.0.3"),
        ("10.9.0.3", {"10.0.0.3"}, None),
    ):
        for _ in range(2):  # what one is told is not kept for another
            got = order(server, source, draw)
            assert set(got[: len(first)]) == first
            assert last is None or got[-1] == last
            assert set(got) == set(PLACES)


def test_equals_take_turns() -> None:
    server = serving()
    assert {order(server, "10.9.0.1", draw / 10)[0] for draw in range(10)} == {"10.0.0.1", "10.0.0.4"}


def test_srv_priorities_say_the_distance() -> None:
    server = serving()
    octets = question(f"_http._tcp.{host('web')}", "SRV")
    got = read(octets, send(server, octets, source="10.9.0.2"))  # type: ignore[arg-type]
    priorities = {str(record.target).split(".")[0]: record.priority for record in got.answer[0]}
    assert priorities == {"10-0-0-2": 0, "10-0-0-1": 2, "10-0-0-4": 2, "10-0-0-3": 3}


def test_who_does_not_ask_for_it_is_answered_in_turn_and_from_memory() -> None:
    server = serving(traffic_distribution="")
    order(server, "10.9.0.1")
    assert len(server.udp.young) == 1


def test_after_a_change_the_places_are_those_of_the_change() -> None:
    server = serving()
    order(server, "10.9.0.2")
    server.update(snapshot(service("web", headless=True, ports=(HTTP,)), version=2, endpoints={
        host("web"): (Endpoint("10.0.0.1", 80), Endpoint("10.0.0.2", 80))}))  # fmt: skip
    assert not server.zone.near
    assert order(server, "10.9.0.2")[0] == "10.0.0.1"


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"traffic_distribution": "PreferSameZone"}, True),
        ({"annotations": {"networking.istio.io/traffic-distribution": "PreferClose"}}, True),
        ({"annotations": {"service.kubernetes.io/topology-mode": "Auto"}}, True),
        ({"annotations": {"service.kubernetes.io/topology-aware-hints": "auto"}}, True),
        ({"annotations": {"service.kubernetes.io/topology-mode": "disabled"}}, False),
        ({}, False),
    ],
)
def test_a_service_asks_by_field_or_annotation(fields: dict[str, Any], expected: bool) -> None:
    assert wants_near(service("web", **fields)) is expected


@pytest.mark.parametrize(
    ("client", "endpoint", "expected"),
    [
        ("eu/a/1", "eu/a/1", 0),
        ("eu/a", "eu/a", 0),
        ("eu/a/1", "eu/a/2", 1),
        ("eu/a", "/a", 0),
        ("eu/a", "eu/b", 2),
        ("eu/a", "us/a", 3),
        ("eu", "eu", 2),
        ("/a", "/b", 3),
        ("", "eu/a", 3),
        ("eu/a", "", 3),
    ],
)
def test_distance(client: str, endpoint: str, expected: int) -> None:
    assert distance(client, endpoint) == expected
