"""Live clusters: choosing, ejection and return, and what survives a change of the tables."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.tables import Cluster, ClusterEndpoint, LoadBalancer, OutlierPolicy, UpstreamTLS, Warmup
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


# --- priorities and localities


def spread(live: LiveCluster, keys: list[str | None] | None = None, seed: int = 1) -> Counter[int]:
    """How many of 10,000 requests each host gets, by its place in the tables."""
    draw = random.Random(seed).random
    place = {host: n for n, host in enumerate(live.hosts)}
    found: Counter[int] = Counter()
    for key in keys if keys is not None else [None] * 10_000:
        chosen = live.choose(key, draw)
        assert chosen is not None
        found[place[chosen]] += 1
    return found


def located(n: int, locality: str, share: float = 0.0, weight: int = 1) -> ClusterEndpoint:
    address = f"10.1.0.{n}"
    return ClusterEndpoint(address, 80, Endpoint(address, 80, locality=locality), weight=weight, locality_weight=share)


def out(live: LiveCluster, *places: int, now: float = 1.0) -> None:
    for n in places:
        live.report(live.hosts[n], 500, False, now)
        assert live.hosts[n].health.ejected_until


ALL_MAY_GO = OutlierPolicy(consecutive_5xx=1, max_ejection_percent=100)


def test_half_of_the_nearest_out_spills_three_tenths_over() -> None:
    near, far = [endpoint(n) for n in range(4)], [endpoint(n, priority=1) for n in range(4, 6)]
    live = LiveCluster(cluster(*near, *far, kind="least_request", outlier=ALL_MAY_GO), 0.0)
    assert set(spread(live)) == {0, 1, 2, 3}
    out(live, 0)  # 3 of 4, times 1.4, is more than all
    assert set(spread(live)) == {1, 2, 3}
    out(live, 1)
    found = spread(live)
    assert found[2] + found[3] == pytest.approx(7000, rel=0.03)
    assert found[4] + found[5] == pytest.approx(3000, rel=0.05)
    out(live, 2, 3)
    assert set(spread(live)) == {4, 5}
    assert [(one["priority"], one["healthy"], one["traffic"]) for one in live.describe(1.0)["priorities"]] == [
        (0, "0 of 4", "0 %"), (1, "2 of 2", "100 %"),
    ]  # fmt: skip


@pytest.mark.parametrize("kind", ["ring_hash", "maglev"])
def test_a_key_keeps_its_priority_and_host_while_traffic_spills_over(kind: str) -> None:
    tables = cluster(*[endpoint(n, priority=n // 4) for n in range(8)], outlier=ALL_MAY_GO)
    tables.load_balancer = LoadBalancer(kind, "header", "x", 1021)
    live = LiveCluster(tables, 0.0)
    out(live, 0, 1)
    keys: list[str | None] = [f"user-{n}" for n in range(3000)]
    found = spread(live, keys)
    assert sum(found[n] for n in range(4, 8)) == pytest.approx(900, rel=0.1)
    assert found == spread(live, keys, seed=2)


@pytest.mark.parametrize("kind", ["least_request", "round_robin", "random", "peak_ewma", "ring_hash", "maglev"])
def test_localities_get_their_percentages_under_every_balancer_whatever_their_size(kind: str) -> None:
    made = [*(located(n, "a/z", 80.0) for n in range(2)), *(located(n, "b/z", 20.0) for n in range(2, 10))]
    tables = cluster(*made)
    tables.load_balancer = LoadBalancer(kind, "header" if kind in ("ring_hash", "maglev") else "", "x", 8191)
    live = LiveCluster(tables, 0.0)
    live.hosts[0].active = live.hosts[1].active = 50  # busy, and still to have 80 %
    keys: list[str | None] = [f"user-{n}" for n in range(10_000)]
    found = spread(live, keys if kind in ("ring_hash", "maglev") else None)
    assert found[0] + found[1] == pytest.approx(8000, rel=0.06)


def test_a_locality_that_loses_hosts_loses_share_and_one_without_any_loses_all() -> None:
    policy = OutlierPolicy(consecutive_5xx=1, max_ejection_percent=100)
    made = [*(located(n, "a/z", 50.0) for n in range(4)), *(located(n, "b/z", 50.0) for n in range(4, 6))]
    live = LiveCluster(cluster(*made, kind="least_request", outlier=policy), 0.0)
    out(live, 0, 1)
    found = spread(live)
    assert found[2] + found[3] == pytest.approx(10_000 * 35 / 85, rel=0.04)
    out(live, 2, 3)
    assert set(spread(live)) == {4, 5}


def test_below_the_panic_threshold_all_hosts_of_a_priority_are_used() -> None:
    policy = OutlierPolicy(consecutive_5xx=1, max_ejection_percent=100, min_health_percent=50)
    live = LiveCluster(cluster(*[endpoint(n) for n in range(4)], kind="random", outlier=policy), 0.0)
    out(live, 0, 1)
    assert set(spread(live)) == {2, 3}  # exactly 50 % is not below it
    out(live, 2)
    assert set(spread(live)) == {0, 1, 2, 3}
    assert live.describe(1.0)["priorities"][0]["panic"] is True
    assert live.ejected == 3


@given(
    st.lists(st.tuples(st.integers(0, 2), st.booleans()), min_size=1, max_size=12),
    st.sampled_from([0, 30, 100]),
    st.sampled_from(["least_request", "round_robin", "random", "peak_ewma", "ring_hash", "maglev"]),
    st.floats(0, 1, exclude_max=True),
    st.none() | st.text(max_size=4),
)
def test_whatever_is_out_a_host_is_chosen_if_any_may_be(
    hosts: list[tuple[int, bool]], least: int, kind: str, drawn: float, key: str | None
) -> None:
    policy = OutlierPolicy(consecutive_5xx=1, max_ejection_percent=100, min_health_percent=least)
    tables = cluster(*[endpoint(n, 1 + n % 3, priority) for n, (priority, _) in enumerate(hosts)], outlier=policy)
    tables.load_balancer = LoadBalancer(kind, "", "", 31)
    live = LiveCluster(tables, 0.0)
    out(live, *(n for n, (_, healthy) in enumerate(hosts) if not healthy))
    chosen = live.choose(key, lambda: drawn)
    healthy = [host for host in live.hosts if not host.health.ejected_until]
    assert (chosen is None) == (not healthy and not least)
    if chosen is not None:
        assert chosen in live.usable
        assert chosen in healthy or least


# --- retries that go further away


def test_retries_go_on_at_other_priorities_after_two_tries_where_that_is_asked_for() -> None:
    live = LiveCluster(cluster(*[endpoint(n, priority=n // 2) for n in range(6)], kind="random"), 0.0)
    draw = random.Random(1).random
    first, second, third, _, last, _ = live.hosts
    near, all_seen = {first, second}, set()
    for _ in range(50):
        assert live.choose_remote(None, draw, (), [first]) in near
        assert live.choose_remote(None, draw, (), [first, second]) in live.hosts[2:4]
        assert live.choose_remote(None, draw, (), [first, second, third]) in live.hosts[2:4], "as after the second"
        assert live.choose_remote(None, draw, (), [first, second, third, third]) in live.hosts[4:6]
        tried = [first, second, third, third, last, last]
        all_seen.add(live.choose_remote(None, draw, (), tried))
        assert tried == [], "none is left: all count again"
    assert all_seen == near
    for _ in range(50):
        assert live.choose_remote(None, draw, [live.hosts[2]], [first, second]) is live.hosts[3]


def test_with_one_priority_remote_retries_are_like_others() -> None:
    live = LiveCluster(cluster(endpoint(0), endpoint(1)), 0.0)
    draw = random.Random(1).random
    for _ in range(20):
        assert live.choose_remote(None, draw, [live.hosts[0]], live.hosts * 2) is live.hosts[1]


# --- warming up


def warm(kind: str = "round_robin", aggression: float = 1.0, minimum: float = 0.1) -> LiveCluster:
    tables = cluster(endpoint(0), endpoint(1), outlier=ALL_MAY_GO)
    tables.load_balancer = LoadBalancer(kind, warmup=Warmup(100.0, minimum, aggression))
    live = LiveCluster(tables, 0.0)
    more = cluster(endpoint(0), endpoint(1), endpoint(2), outlier=ALL_MAY_GO)
    more.load_balancer = tables.load_balancer
    live.update(more, 1000.0)
    return live


@pytest.mark.parametrize("kind", ["round_robin", "least_request"])
def test_a_new_endpoint_comes_to_its_share_step_by_step(kind: str) -> None:
    live = warm(kind)
    for at, weight in ((1000.0, 0.1), (1005.0, 0.1), (1050.0, 0.5), (1099.0, 0.99), (1100.0, 1.0)):
        live.sweep(at)
        share = spread(live)[2] / 10_000
        assert share == pytest.approx(weight / (2 + weight), abs=0.015), at
    assert "warming_up" not in live.describe(1100.0)["hosts"][2]


def test_those_of_the_first_tables_have_their_full_share_at_once() -> None:
    live = warm()
    assert [host.weight for host in live.hosts] == [1.0, 1.0, 0.1]
    assert live.describe(1000.0)["hosts"][2]["warming_up"] == "10 % of its share"


@pytest.mark.parametrize(("aggression", "half"), [(1.0, 0.5), (2.0, 0.5**0.5), (0.5, 0.25)])
def test_aggression_bends_the_way(aggression: float, half: float) -> None:
    live = warm(aggression=aggression)
    live.sweep(1050.0)
    assert live.hosts[2].weight == pytest.approx(half)


def test_one_that_comes_back_from_ejection_warms_up_too() -> None:
    live = warm()
    live.sweep(1200.0)
    out(live, 0, now=1200.0)
    live.sweep(1240.0)
    assert [host.weight for host in live.hosts] == [0.1, 1.0, 1.0]
    live.sweep(1290.0)
    assert live.hosts[0].weight == pytest.approx(0.5)


def test_endpoints_that_begin_with_nothing_are_still_all_asked() -> None:
    live = warm(minimum=0.0)
    fresh = cluster(endpoint(7), endpoint(8))
    fresh.load_balancer = live.config.load_balancer
    live.update(fresh, 2000.0)
    assert {live.choose(None, random.random) for _ in range(20)} == set(live.hosts)


def test_a_weight_of_the_tables_that_changes_counts_at_once() -> None:
    live = LiveCluster(cluster(endpoint(0), endpoint(1)), 0.0)
    live.update(cluster(endpoint(0, weight=3), endpoint(1)), 1.0)
    assert spread(live) == {0: 7500, 1: 2500}


# --- latency


def test_a_slow_or_failing_host_gets_less_under_peak_ewma_and_is_asked_again_later() -> None:
    live = LiveCluster(cluster(*[endpoint(n) for n in range(4)], kind="peak_ewma"), 0.0)
    assert live.measures
    for host, seconds in zip(live.hosts, (0.01, 0.01, 0.01, 0.2), strict=True):
        host.took(seconds, 0.0)
    assert set(spread(live)) == {0, 1, 2}
    live.report(live.hosts[0], 503, False, 0.0)  # at once, and yet not fast
    assert set(spread(live)) == {1, 2, 3}
    for now in range(1, 100):
        live.sweep(float(now))
        for host in live.hosts[1:3]:
            host.took(0.01, float(now))
    assert set(spread(live)) == {0, 1, 2, 3}
    assert live.describe(99.0)["hosts"][1]["latency"] == "10.0 ms"


def test_a_new_host_is_taken_for_as_fast_as_the_others_under_peak_ewma() -> None:
    live = LiveCluster(cluster(endpoint(0), endpoint(1), kind="peak_ewma"), 0.0)
    live.hosts[0].took(0.2, 1.0)
    live.hosts[1].took(0.4, 1.0)
    live.update(cluster(endpoint(0), endpoint(1), endpoint(2), kind="peak_ewma"), 1.0)
    assert live.hosts[2].latency_s == pytest.approx(0.3)


# --- success rate


def answers(live: LiveCluster, place: int, good: int, bad: int, now: float = 1.0) -> None:
    for n in range(good + bad):
        live.report(live.hosts[place], 200 if n < good else 500, False, now)


RATES = OutlierPolicy(consecutive_5xx=0, interval_s=10.0, max_ejection_percent=50, success_hosts=5, success_volume=100)


def test_a_host_far_below_the_mean_success_rate_is_out_at_the_sweep_with_the_numbers() -> None:
    live = LiveCluster(cluster(*[endpoint(n) for n in range(10)], outlier=RATES), 0.0)
    assert live.wake_at() == 10.0
    for n in range(9):
        answers(live, n, 99, 1)
    answers(live, 9, 60, 40)
    live.sweep(9.9)
    assert live.ejected == 0
    live.sweep(10.0)
    assert [host.health.why for host in live.hosts if host.health.ejected_until] == [
        "success rate 60.0 % of 100 answers is below 72.9 %: "
        "the mean of 10 hosts is 95.1 %, the standard deviation 11.7"
    ]
    assert live.usable == live.hosts[:9]
    assert live.events[-1][2].startswith("ejected for 30 s: success rate 60.0 %")
    live.sweep(20.0)  # counted anew: nothing has come since
    assert live.ejected == 1
    live.sweep(40.0)
    assert live.ejected == 0
    assert live.wake_at() == 50.0


def test_too_few_hosts_or_answers_are_not_judged_by_success_rate() -> None:
    live = LiveCluster(cluster(*[endpoint(n) for n in range(10)], outlier=RATES), 0.0)
    for n in range(10):
        answers(live, n, 99 if n < 4 else 98, 0)
    answers(live, 4, 0, 99)
    live.sweep(10.0)
    assert live.ejected == 0


def test_success_rate_ejects_no_more_than_the_percentage() -> None:
    policy = OutlierPolicy(
        consecutive_5xx=0, max_ejection_percent=10, success_hosts=2, success_volume=10, success_stdev_factor=0
    )
    live = LiveCluster(cluster(*[endpoint(n) for n in range(10)], outlier=policy), 0.0)
    for n in range(10):
        answers(live, n, 10 - n, n)
    live.sweep(10.0)
    assert live.ejected == 1
    assert live.ejections_total == 1
