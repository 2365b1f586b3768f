"""Bugs of live clusters, balancers, metrics and log formats found by reading and comparing, each by its test."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from fairlead.policy.tables import Cluster, ClusterEndpoint, OutlierPolicy
from fairlead.proxy import access_log, metrics
from fairlead.proxy.balance import LeastRequest, RingHash
from fairlead.proxy.cluster import LiveCluster
from fairlead.proxy.host import Host
from fairlead.proxy.message import Outcome
from fairlead.proxy.metrics import Metrics
from fairlead.registry.model import Endpoint, Workload
from tests.proxy.prometheus_text import parse


def endpoint(n: int, weight: int = 1) -> ClusterEndpoint:
    return ClusterEndpoint(f"10.0.0.{n}", 80, Endpoint(f"10.0.0.{n}", 80), weight=weight)


def hosts(*weights: int) -> list[Host]:
    return [Host(endpoint(n, weight)) for n, weight in enumerate(weights)]


def test_a_shell_that_sweeps_often_changes_nothing_between_intervals() -> None:
    policy = OutlierPolicy(consecutive_5xx=1, interval_s=10, base_ejection_s=3, max_ejection_percent=100)
    live = LiveCluster(Cluster("c", "w", 80, "", (endpoint(0), endpoint(1)), outlier=policy), 0.0)
    live.report(live.hosts[0], 500, False, 100.0)
    for tick in range(101, 110):
        live.sweep(float(tick))
        assert live.ejected == 1
    live.sweep(110.0)
    assert live.ejected == 0
    for tick in range(111, 120):
        live.sweep(float(tick))
    assert live.hosts[0].health.ejections == 1
    live.sweep(120.0)
    assert live.hosts[0].health.ejections == 0
    assert live.wake_at() is None


def test_least_request_keeps_weights_when_idle_and_under_load() -> None:
    made = hosts(3, 1)
    picker, draw = LeastRequest(made), random.Random(1).random
    seen = Counter(picker.pick(None, draw).name for _ in range(8000))
    assert seen[made[0].name] == pytest.approx(6000, rel=0.03)
    for _ in range(4000):
        picker.pick(None, draw).active += 1
    assert made[0].active == pytest.approx(3000, rel=0.02)


def test_a_ring_has_the_points_asked_for_and_not_without_end() -> None:
    assert len(RingHash(hosts(1, 1, 1), 1024).points) >= 1024
    assert len(RingHash(hosts(1, 10**6), 1024).points) <= 2 * 65536


def test_folded_tcp_is_still_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "SERIES_MAX", 1)
    counted = Metrics(Workload("a", "b"))
    for number in range(5):
        outcome = Outcome()
        outcome.kind, outcome.source_identity, outcome.sent_bytes = "tcp", str(number), 7
        counted.done(outcome)
    samples = parse(counted.lines())[1]
    assert sum(value for (name, _), value in samples.items() if name == "istio_tcp_sent_bytes_total") == 35


def test_no_flag_and_a_dash_are_one_series() -> None:
    counted = Metrics(Workload("a", "b"))
    for flag in ("", "-"):
        outcome = Outcome()
        outcome.status, outcome.flag = 503, flag
        counted.done(outcome)
    parse(counted.lines())  # refuses a series that stands twice


def test_two_endpoints_of_one_address_are_both_given_back() -> None:
    live = LiveCluster(Cluster("c", "w", 80, "", (endpoint(1), endpoint(1))), 0.0)
    assert len(live.update(Cluster("c", "w", 80, "", ()), 1.0)) == 2


def test_a_log_format_cuts_to_length_and_knows_literal_percents() -> None:
    outcome = Outcome()
    outcome.request_id = "abcdef"
    assert access_log.text_formatter("%REQ(X-REQUEST-ID):3%")(outcome, 0) == "abc\n"
    assert access_log.text_formatter("%%REASON%% %REASON%")(Outcome(), 0) == "%REASON% -\n"
