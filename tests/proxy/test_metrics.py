"""Istio's metrics of outcomes, read back by a strict parser."""

from __future__ import annotations

from bisect import bisect_left
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.tables import Arrival, Cluster, ClusterEndpoint, Destination
from fairlead.proxy import metrics
from fairlead.proxy.cluster import LiveCluster
from fairlead.proxy.message import Outcome
from fairlead.proxy.metrics import BOUNDS, Metrics, bucket
from fairlead.registry.model import Endpoint, Workload
from tests.proxy.prometheus_text import Sample, parse

CLIENT = Workload("shop", "cart-7f", labels={"app": "cart", "version": "v3"}, service_account="cart")
WEB = "web.default.svc.cluster.local"
IDENTITY = "spiffe://cluster.local/ns/shop/sa/cart"
ENDPOINT = Endpoint(
    "10.0.0.1",
    8080,
    labels={"app.kubernetes.io/name": "web", "service.istio.io/canonical-revision": "r9"},
    workload="default/web-1",
    namespace="default",
    service_account="web",
)


def live(name: str = "outbound|80||" + WEB) -> LiveCluster:
    config = Cluster(name, WEB, 80, "", (), service_name="web", service_namespace="default")
    return LiveCluster(config, 0.0)


def outcome(**fields: Any) -> Outcome:
    """One that went well, on the client's side."""
    made = Outcome()
    made.arrival = Arrival("outbound")
    made.cluster = live()
    made.destination = Destination(made.cluster.config.name, WEB, 80)
    made.endpoint = ClusterEndpoint("10.0.0.1", 15006, ENDPOINT)
    made.upstream_tls = True
    made.status = 200
    made.started_at, made.ended_at = 10.0, 10.012
    for name, value in fields.items():
        setattr(made, name, value)
    return made


def inbound(**fields: Any) -> Outcome:
    own = LiveCluster(Cluster("inbound|8080||", "", 8080, "", ()), 0.0)
    plain = {"arrival": Arrival("inbound"), "cluster": own, "destination": None, "endpoint": None}
    return outcome(**{**plain, **fields})


def scraped(*outcomes: Outcome, of: Metrics | None = None) -> dict[Sample, float]:
    made = of or Metrics(CLIENT)
    for one in outcomes:
        made.done(one)
    return parse(made.lines())[1]


def only(samples: dict[Sample, float], name: str) -> tuple[dict[str, str], float]:
    found = [(dict(labels), value) for (own, labels), value in samples.items() if own == name]
    assert len(found) == 1, found
    return found[0]


def test_a_client_counts_with_istios_labels() -> None:
    labels, value = only(scraped(outcome(), outcome()), "istio_requests_total")
    assert value == 2
    assert labels == {
        "reporter": "source",
        "source_workload": "cart-7f",
        "source_workload_namespace": "shop",
        "source_principal": IDENTITY,
        "source_app": "cart",
        "source_version": "v3",
        "source_cluster": "fairlead",
        "source_canonical_service": "cart",
        "source_canonical_revision": "v3",
        "destination_workload": "web-1",
        "destination_workload_namespace": "default",
        "destination_principal": "spiffe://cluster.local/ns/default/sa/web",
        "destination_app": "web",
        "destination_version": "unknown",
        "destination_cluster": "fairlead",
        "destination_canonical_service": "web",
        "destination_canonical_revision": "r9",
        "destination_service": WEB,
        "destination_service_name": "web",
        "destination_service_namespace": "default",
        "request_protocol": "http",
        "response_code": "200",
        "grpc_response_status": "",
        "response_flags": "-",
        "connection_security_policy": "unknown",
    }


@pytest.mark.parametrize(("identity", "policy"), [(IDENTITY, "mutual_tls"), ("", "none")])
def test_a_server_knows_peers_by_their_verified_identity_alone(identity: str, policy: str) -> None:
    labels, _ = only(scraped(inbound(source_identity=identity)), "istio_requests_total")
    assert labels["reporter"] == "destination"
    assert labels["connection_security_policy"] == policy
    assert labels["source_principal"] == (identity or "unknown")
    assert labels["source_workload"] == "unknown"
    assert labels["source_workload_namespace"] == ("shop" if identity else "unknown")
    assert labels["destination_workload"] == "cart-7f"


def test_a_server_names_the_workload_where_only_one_has_the_identity() -> None:
    made = Metrics(Workload("default", "web-1"))
    made.identities = {IDENTITY: CLIENT}.get
    labels, _ = only(scraped(inbound(source_identity=IDENTITY), of=made), "istio_requests_total")
    assert (labels["source_workload"], labels["source_version"]) == ("cart-7f", "v3")


def test_without_a_cluster_all_of_the_destination_is_unknown() -> None:
    failed = outcome(cluster=None, destination=None, endpoint=None, status=404, flag="NR", reason="FL-NO-ROUTE")
    samples = scraped(failed, failed)
    labels, value = only(samples, "istio_requests_total")
    assert value == 2
    assert {labels[name] for name in labels if name.startswith("destination_")} == {"unknown", "latest"}
    assert (labels["response_code"], labels["response_flags"]) == ("404", "NR")
    assert only(samples, "fairlead_responses_total") == ({"reason": "FL-NO-ROUTE", "response_flags": "NR"}, 2)


def test_requests_differ_by_status_flag_endpoint_and_peer() -> None:
    samples = scraped(
        outcome(),
        outcome(status=503, flag="UC", reason="FL-RESET"),
        outcome(status=503, flag="UF", reason="FL-CONNECT"),
        outcome(endpoint=ClusterEndpoint("10.0.0.2", 80, Endpoint("10.0.0.2", 80, workload="default/web-2"))),
        inbound(source_identity=IDENTITY),
        inbound(source_identity=IDENTITY + "2"),
    )
    counts = [value for (name, _), value in samples.items() if name == "istio_requests_total"]
    assert counts == [1] * 6


@given(st.lists(st.floats(0, 5e6), min_size=1, max_size=30))
def test_durations_fall_into_istios_buckets(milliseconds: list[float]) -> None:
    samples = scraped(*[outcome(started_at=0.0, ended_at=value / 1000) for value in milliseconds])
    exact = [(value / 1000) * 1000.0 for value in milliseconds]
    name = "istio_request_duration_milliseconds"
    for bound in BOUNDS:
        found = [v for (own, labels), v in samples.items() if own == f"{name}_bucket" and ("le", str(bound)) in labels]
        assert found == [sum(value <= bound for value in exact)]
    assert only(samples, f"{name}_sum")[1] == pytest.approx(sum(exact))


def test_sizes_are_counted_in_both_directions() -> None:
    samples = scraped(outcome(received_bytes=100, sent_bytes=2000), outcome(received_bytes=1, sent_bytes=0))
    assert only(samples, "istio_request_bytes_sum")[1] == 101
    assert only(samples, "istio_response_bytes_sum")[1] == 2000
    assert only(samples, "istio_request_bytes_count")[1] == 2


def test_relays_count_bytes_and_connections_without_codes() -> None:
    samples = scraped(outcome(kind="tcp", status=0, received_bytes=5, sent_bytes=70))
    for name, value in (
        ("sent_bytes", 70),
        ("received_bytes", 5),
        ("connections_opened", 1),
        ("connections_closed", 1),
    ):
        labels, found = only(samples, f"istio_tcp_{name}_total")
        assert found == value
        assert labels["request_protocol"] == "tcp"
        assert "response_code" not in labels
    assert not [name for name, _ in samples if name.startswith("istio_request")]


def test_copies_for_mirrors_are_not_counted() -> None:
    assert not [name for name, _ in scraped(outcome(mirrored=True)) if name.startswith("istio_")]


def test_the_number_of_series_is_bounded_and_no_request_is_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SERIES_MAX", 3)
    samples = scraped(*[inbound(source_identity=f"spiffe://cluster.local/ns/a/sa/{n}") for n in range(10)])
    requests = {labels: value for (name, labels), value in samples.items() if name == "istio_requests_total"}
    assert sum(requests.values()) == 10
    assert len(requests) == 4
    assert [value for labels, value in requests.items() if ("source_workload", "other") in labels] == [7]
    assert only(samples, "fairlead_metric_folded_total")[1] == 7
    assert only(samples, "fairlead_metric_series")[1] == 4


def test_labels_of_strangers_cannot_break_the_format() -> None:
    odd = 'a"} 1\nevil_total 5 \\'
    samples = scraped(inbound(source_identity=f"spiffe://cluster.local/ns/{odd}/sa/x"))
    assert only(samples, "istio_requests_total")[0]["source_principal"] == f"spiffe://cluster.local/ns/{odd}/sa/x"


def test_further_lines_are_asked_for_at_each_scrape() -> None:
    made = Metrics(CLIENT)
    asked: list[int] = []

    def more() -> list[str]:
        asked.append(1)
        return ["# TYPE x gauge", f"x {len(asked)}"]

    made.more.append(more)
    assert only(scraped(of=made), "x")[1] == 1
    assert only(scraped(of=made), "x")[1] == 2


def test_octets_of_a_connection_count_while_it_lives_and_once() -> None:
    made = Metrics(CLIENT)
    living = outcome(kind="tcp", status=0)
    made.running = lambda: [(living, 5, 70)]

    def told() -> list[float]:
        _, found = parse(made.lines())
        names = ("received_bytes", "sent_bytes", "connections_opened", "connections_closed")
        return [sum(n for (name, _), n in found.items() if name == f"istio_tcp_{wanted}_total") for wanted in names]

    assert told() == [5, 70, 1, 0]
    assert told() == [5, 70, 1, 0]
    made.running = lambda: [(living, 9, 80)]
    assert told() == [9, 80, 1, 0]
    made.running = list
    living.received_bytes, living.sent_bytes, living.flag = 10, 90, "UC"
    made.done(living)
    assert told() == [10, 90, 1, 1]
    assert not made._folded


def test_the_bucket_of_a_value_is_the_first_whose_bound_is_not_below_it() -> None:
    values = [*BOUNDS, *(bound + step for bound in BOUNDS for step in (-0.25, 0.25)), 0.0, 1e12]
    assert [bucket(value) for value in values] == [bisect_left(BOUNDS, value) for value in values]
