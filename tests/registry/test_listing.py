"""Rows of services, endpoints and sources: origin, age, health."""

from __future__ import annotations

from fairlead.registry import listing
from fairlead.registry.model import Endpoint, Service, ServicePort, SourceStatus, Workload
from fairlead.registry.snapshot import Snapshot

HOST = "web.default.svc.cluster.local"
SNAPSHOT = Snapshot(
    1,
    {HOST: Service(HOST, "default", "web", (ServicePort(80, "http", target=8080),), source="control")},
    {HOST: (Endpoint("10.0.0.2", 8080, "http", source="consul", ready=False, why="check web is critical: 500"),
            Endpoint("10.0.0.1", 8080, "http", source="consul", workload="default/web-1"))},
    {"default/web-1": Workload("default", "web-1", source="consul")},
)  # fmt: skip
STATUSES = {
    "consul": SourceStatus("consul", "stale", 900.0, "refused", ("consul bad/1: no port",), ("raise the limit",)),
    "etcd": SourceStatus("etcd", "starting"),
}


def test_a_service_shows_how_many_of_its_endpoints_are_ready_and_where_it_is_from() -> None:
    (row,) = listing.services(SNAPSHOT, STATUSES, 1000.0)
    assert (row["ready"], row["endpoints"], row["source"], row["sources"]) == (1, 2, "control", ["consul", "control"])
    assert (row["age_s"], row["stale"], row["type"]) == (None, False, "ClusterIP")
    assert row["ports"] == [{"port": 80, "name": "http", "protocol": "TCP", "target": 8080}]


def test_an_endpoint_is_as_old_as_the_last_word_of_its_source_and_says_why_it_is_not_ready() -> None:
    first, second = listing.endpoints(SNAPSHOT, STATUSES, 1000.0)
    assert (first["address"], first["ready"], first["used"], first["why"]) == ("10.0.0.1", True, True, "")
    assert (second["address"], second["ready"], second["why"]) == ("10.0.0.2", False, "check web is critical: 500")
    for row in (first, second):
        assert (row["source"], row["age_s"], row["stale"]) == ("consul", 100.0, True)


def test_sources_have_their_state_their_age_and_what_is_of_them() -> None:
    rows = {row["source"]: row for row in listing.sources(SNAPSHOT, STATUSES, 1000.0)}
    assert set(rows) == {"consul", "control", "etcd"}
    consul = rows["consul"]
    assert (consul["state"], consul["age_s"], consul["error"]) == ("stale", 100.0, "refused")
    assert (consul["services"], consul["endpoints"], consul["workloads"]) == (0, 2, 1)
    assert (consul["problems"], consul["notes"]) == (["consul bad/1: no port"], ["raise the limit"])
    assert (rows["etcd"]["state"], rows["etcd"]["age_s"]) == ("starting", None)
    assert rows["control"]["state"] == "live"
