"""Live clusters: choosing, ejection and return, and what survives a change of the tables."""

from __future__ import annotations

import random
from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.tables import Cluster, ClusterEndpoint, LoadBalancer, OutlierPolicy, UpstreamTLS
from fairlead.proxy.balance import Maglev, RingHash, RoundRobin, WeightedRandom
from fairlead.proxy.cluster import LiveCluster
from fairlead.proxy.host import Host
from fairlead.registry.model import Endpoint


def endpoint(n: int, weight: int = 1, priority: int = 0) -> ClusterEndpoint:
    address = f"10.0.{n // 250}.{n % 250}"
    return ClusterEndpoint(address, 80, Endpoint(address, 80), weight=weight, priority=priority)


def cluster(*endpoints: ClusterEndpoint, kind: str = "round_robin", outlier: OutlierPolicy | None = None) -> Cluster:
    return Cluster(
        "outbound|80||web", "web", 80, "", tuple(endpoints), load_balancer=LoadBalancer(kind), outlier=outlier
    )


def hosts(*weights: int) -> list[Host]:
    return [Host(endpoint(n, weight)) for n, weight in enumerate(weights)]


def test_round_robin_gives_each_its_weight_and_spreads_it() -> None:
    picker = RoundRobin(hosts(5, 1, 1))
    order = [picker.pick(None, random.random).name for _ in range(7)]
    assert order == [f"10.0.0.{n}:80" for n in (0, 0, 1, 0, 2, 0, 0)]


@given(st.lists(st.integers(1, 20), min_size=1, max_size=8))
def test_in_one_cycle_round_robin_is_exact(weights: list[int]) -> None:
    made = hosts(*weights)
    picker = RoundRobin(made)
    seen = Counter(picker.pick(None, random.random).name for _ in range(sum(weights)))
    if len(set(weights)) > 1:
        assert seen == Counter({host.name: weight for host, weight in zip(made, weights, strict=True)})


def test_random_follows_weights_for_every_draw() -> None:
    picker = WeightedRandom(hosts(3, 1))
    seen = Counter(picker.pick(None, lambda n=n: n / 400).name for n in range(400))  # type: ignore[misc]
    assert seen == {"10.0.0.0:80": 300, "10.0.0.1:80": 100}


def test_least_request_never_takes_the_busiest_of_three() -> None:
    live = LiveCluster(cluster(endpoint(0), endpoint(1), endpoint(2), kind="least_request"), 0.0)
    live.hosts[1].active = 5
    draw = random.Random(1).random
    assert all(live.choose(None, draw) is not live.hosts[1] for _ in range(200))


def test_a_key_stays_with_its_host_and_few_keys_move_when_another_leaves() -> None:
    keys = [f"user-{n}" for n in range(2000)]
    for make in (lambda made: RingHash(made, 1024), lambda made: Maglev(made, 1021)):
        all_hosts = hosts(*[1] * 10)
        before = {key: make(all_hosts).pick(key, random.random).name for key in keys[:1]}
        picker = make(all_hosts)
        before = {key: picker.pick(key, random.random).name for key in keys}
        assert set(before.values()) == {host.name for host in all_hosts}
        fewer = make(all_hosts[:9])
        moved = sum(1 for key in keys if before[key] != fewer.pick(key, random.random).name)
        lost = sum(1 for name in before.values() if name == all_hosts[9].name)
        assert lost <= moved <= lost + len(keys) * 0.09


def test_a_host_is_out_after_three_failures_and_comes_back_at_a_sweep() -> None:
    policy = OutlierPolicy(consecutive_5xx=3, interval_s=1, base_ejection_s=2, max_ejection_percent=50)
    live = LiveCluster(cluster(endpoint(0), endpoint(1), outlier=policy), 0.0)
    bad, good = live.hosts
    for _ in range(3):
        live.report(bad, 500, False, 10.0)
    assert {live.choose(None, random.random) for _ in range(10)} == {good}
    assert "3 server errors" in live.describe(10.0)["hosts"][0]["ejected"]
    assert live.wake_at() == 11.0
    live.sweep(11.0)
    assert live.usable == [good]
    live.sweep(12.0)
    assert set(live.usable) == {bad, good}
    for _ in range(3):
        live.report(bad, 503, False, 12.5)
    assert bad.health.ejected_until == 12.5 + 4  # the second time in a row: twice as long


def test_success_in_between_starts_the_count_again() -> None:
    policy = OutlierPolicy(consecutive_5xx=2, max_ejection_percent=100)
    live = LiveCluster(cluster(endpoint(0), outlier=policy), 0.0)
    for status in (500, 200, 500, 404, 500, 200):
        live.report(live.hosts[0], status, False, 1.0)
    assert live.ejected == 0


def test_failures_to_connect_count_as_server_errors_unless_split() -> None:
    live = LiveCluster(
        cluster(endpoint(0), endpoint(1), outlier=OutlierPolicy(consecutive_5xx=2, max_ejection_percent=50)), 0
    )
    live.report(live.hosts[0], 0, True, 1.0)
    live.report(live.hosts[0], 0, True, 1.0)
    assert live.ejected == 1
    split = OutlierPolicy(consecutive_5xx=2, consecutive_local=3, split=True, max_ejection_percent=50)
    live = LiveCluster(cluster(endpoint(0), endpoint(1), outlier=split), 0)
    for expected in (0, 0, 1):
        live.report(live.hosts[0], 0, True, 1.0)
        assert live.ejected == expected


def test_at_the_default_percentage_fewer_than_ten_hosts_lose_none() -> None:
    live = LiveCluster(cluster(*[endpoint(n) for n in range(9)], outlier=OutlierPolicy(consecutive_5xx=1)), 0.0)
    live.report(live.hosts[0], 500, False, 1.0)
    assert live.ejected == 0
    live = LiveCluster(cluster(*[endpoint(n) for n in range(10)], outlier=OutlierPolicy(consecutive_5xx=1)), 0.0)
    live.report(live.hosts[0], 500, False, 1.0)
    assert live.ejected == 1


def test_with_all_out_nobody_is_chosen_unless_panic_is_asked_for() -> None:
    for least, expected in ((0, 0), (50, 1)):
        policy = OutlierPolicy(consecutive_5xx=1, max_ejection_percent=100, min_health_percent=least)
        live = LiveCluster(cluster(endpoint(0), outlier=policy), 0.0)
        live.report(live.hosts[0], 500, False, 1.0)
        assert len(live.usable) == expected
        assert (live.choose(None, random.random) is None) == (expected == 0)


def test_a_lower_priority_serves_only_when_the_higher_is_gone() -> None:
    policy = OutlierPolicy(consecutive_5xx=1, max_ejection_percent=100)
    live = LiveCluster(cluster(endpoint(0, priority=0), endpoint(1, priority=1), outlier=policy), 0.0)
    assert live.choose(None, random.random) is live.hosts[0]
    live.report(live.hosts[0], 500, False, 1.0)
    assert live.choose(None, random.random) is live.hosts[1]


def test_a_retry_avoids_the_host_that_failed_where_there_is_another() -> None:
    live = LiveCluster(cluster(endpoint(0), endpoint(1)), 0.0)
    assert all(live.choose(None, random.random, [live.hosts[0]]) is live.hosts[1] for _ in range(20))
    alone = LiveCluster(cluster(endpoint(0)), 0.0)
    assert alone.choose(None, random.random, [alone.hosts[0]]) is alone.hosts[0]


def test_new_tables_keep_the_state_of_what_stays_and_name_what_is_gone() -> None:
    policy = OutlierPolicy(consecutive_5xx=1, max_ejection_percent=100)
    live = LiveCluster(cluster(endpoint(0), endpoint(1), outlier=policy), 0.0)
    live.report(live.hosts[0], 500, False, 1.0)
    live.hosts[0].active = 3
    gone = live.update(cluster(endpoint(0), endpoint(2), outlier=policy), 2.0)
    assert [host.name for host in gone] == ["10.0.0.1:80"]
    assert live.hosts[0].active == 3
    assert live.usable == [live.hosts[1]]
    live.update(cluster(endpoint(0), endpoint(2)), 3.0)
    assert len(live.usable) == 2  # the policy is gone, and with it its ejections


@given(st.lists(st.tuples(st.integers(0, 4), st.sampled_from([0, 200, 404, 500, 503])), max_size=200))
def test_never_more_are_out_than_the_percentage_allows(results: list[tuple[int, int]]) -> None:
    policy = OutlierPolicy(
        consecutive_5xx=2, consecutive_gateway=1, max_ejection_percent=40, interval_s=1, base_ejection_s=1
    )
    live = LiveCluster(cluster(*[endpoint(n) for n in range(5)], outlier=policy), 0.0)
    now = 0.0
    for index, status in results:
        now += 0.3
        live.report(live.hosts[index], status, status == 0, now)
        at = live.wake_at()
        if at is not None and at <= now:
            live.sweep(now)
        assert live.ejected <= 2
        assert live.ejected == 5 - len(live.usable)


def test_an_endpoint_that_leaves_or_whose_tls_changes_is_told_to_be_gone() -> None:
    policy = OutlierPolicy()
    live = LiveCluster(cluster(endpoint(0), endpoint(1), endpoint(2), outlier=policy), 0.0)
    first, second, third = live.hosts
    secured = endpoint(1)
    secured.tls = UpstreamTLS("mesh", sni="web", identities=("spiffe://a/ns/b/sa/c",))
    second.health.ejections = 3
    gone = live.update(cluster(endpoint(0), secured, outlier=policy), 1.0)
    assert set(gone) == {second, third}
    assert [host.gone for host in (first, second, third)] == [False, True, True]
    assert live.hosts[0] is first
    assert live.hosts[1].health.ejections == 3, "how it fared does not depend on how it is reached"
    same = endpoint(1)
    same.tls = UpstreamTLS("mesh", sni="web", identities=("spiffe://a/ns/b/sa/c",))
    kept = live.hosts[1]
    assert live.update(cluster(endpoint(0), same, outlier=policy), 2.0) == []
    assert live.hosts[1] is kept
