"""Balancers by themselves: shares, keys, draws at their ends."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.tables import ClusterEndpoint, LoadBalancer
from fairlead.proxy import balance
from fairlead.proxy.balance import (
    LeastRequest,
    Maglev,
    PeakEwma,
    RingHash,
    RoundRobin,
    Spread,
    WeightedRandom,
    balancer_for,
    hash64,
)
from fairlead.proxy.host import Host
from fairlead.registry.model import Endpoint
from tests.proxy.queueing import simulate

WEIGHTS = st.lists(st.integers(0, 9), min_size=1, max_size=6)
LAST_DRAW = 1.0 - 2.0**-53
"""The largest number that random() gives."""


def hosts(*weights: int) -> list[Host]:
    return [
        Host(ClusterEndpoint(f"10.0.0.{n}", 80, Endpoint(f"10.0.0.{n}", 80), weight=weight))
        for n, weight in enumerate(weights)
    ]


def draws(*numbers: float) -> Callable[[], float]:
    return iter(numbers).__next__


def test_hashes_are_the_same_in_every_process() -> None:
    assert hash64("user-1") == 0x9AAC5A8621EAE188  # of b2sum --length=64
    assert hash64("user-1") != hash64("user-2")
    assert 0 <= hash64("\udc80 not UTF-8") < 1 << 64


@pytest.mark.parametrize(
    ("settings", "kind"),
    [
        (LoadBalancer(), LeastRequest),
        (LoadBalancer("round_robin"), RoundRobin),
        (LoadBalancer("random"), WeightedRandom),
        (LoadBalancer("ring_hash"), RingHash),
        (LoadBalancer("maglev", table_size=251), Maglev),
        (LoadBalancer("peak_ewma"), PeakEwma),
    ],
)
def test_each_kind_has_its_balancer(settings: LoadBalancer, kind: type) -> None:
    assert type(balancer_for(settings, hosts(1, 1))) is kind


@given(st.integers(1, 20), st.floats(0, LAST_DRAW))
def test_round_robin_begins_anywhere_and_goes_round(count: int, draw: float) -> None:
    made = hosts(*[1] * count)
    picker = RoundRobin(made)
    order = [picker.pick(None, lambda: draw) for _ in range(2 * count)]
    assert set(order[:count]) == set(made)
    assert order[:count] == order[count:]


@given(WEIGHTS, st.sampled_from([0.0, 0.25, 0.5, LAST_DRAW]), st.text(max_size=5) | st.none())
def test_every_draw_and_key_has_a_host_whatever_the_weights(weights: list[int], draw: float, key: str | None) -> None:
    made = hosts(*weights)
    parts = [RoundRobin(made[:1]), WeightedRandom(made)]
    for picker in (
        RoundRobin(made),
        LeastRequest(made),
        PeakEwma(made),
        WeightedRandom(made),
        RingHash(made, 16),
        Maglev(made, 31),
        Spread(parts, [0.1, 99.9]),
    ):
        assert picker.pick(key, lambda: draw) in made


def test_least_request_takes_the_less_busy_of_two_different_hosts() -> None:
    made = hosts(1, 1, 1)
    made[0].active, made[1].active, made[2].active = 2, 1, 0
    picker = LeastRequest(made)
    assert picker.pick(None, draws(0.0, 0.0)) is made[1]  # 0 and the first of the others
    assert picker.pick(None, draws(0.0, 0.99)) is made[2]
    assert picker.pick(None, draws(0.5, 0.0)) is made[1]  # 1 and 0
    assert LeastRequest(made[:1]).pick(None, draws()) is made[0]


def test_least_request_evens_out_what_is_in_flight() -> None:
    made = hosts(*[1] * 5)
    picker = LeastRequest(made)
    draw = random.Random(3).random
    for _ in range(500):
        picker.pick(None, draw).active += 1
    assert max(host.active for host in made) - min(host.active for host in made) <= 5


def test_least_request_under_load_gives_heavy_hosts_their_share() -> None:
    made = hosts(3, 1)
    picker = LeastRequest(made)
    draw = random.Random(4).random
    for _ in range(4000):
        picker.pick(None, draw).active += 1
    assert made[0].active == pytest.approx(3000, rel=0.02)


def test_a_hash_gives_a_key_its_host_in_every_order_of_the_ring() -> None:
    made = hosts(1, 2, 3)
    one, other = RingHash(made, 300), RingHash(made[::-1], 300)
    for n in range(300):
        assert one.pick(f"user-{n}", draws()) is other.pick(f"user-{n}", draws())


@pytest.mark.parametrize("make", [lambda made: RingHash(made, 4096), lambda made: Maglev(made, 4093)])
def test_hashes_share_keys_by_weight(make: Callable[[list[Host]], balance.Balancer]) -> None:
    made = hosts(1, 3)
    picker = make(made)
    seen = Counter(picker.pick(f"user-{n}", draws()).name for n in range(8000))
    assert seen[made[1].name] == pytest.approx(6000, rel=0.08)


def test_maglevs_table_is_full_and_exact_within_one_slot_a_weight() -> None:
    made = hosts(1, 1, 1, 1)
    assert sorted(Counter(Maglev(made, 1021).table).values()) == [255, 255, 255, 256]
    assert set(Maglev(hosts(*[1] * 7), 2).table) == {0, 1}  # more hosts than slots: the first ones only


@pytest.mark.parametrize("make", [lambda made: RingHash(made, 64), lambda made: Maglev(made, 67)])
def test_without_a_key_hashes_choose_at_random(make: Callable[[list[Host]], balance.Balancer]) -> None:
    made = hosts(1, 1)
    picker = make(made)
    assert [picker.pick(None, draws(draw)) for draw in (0.0, 0.49, 0.5, LAST_DRAW)] == [made[0]] * 2 + [made[1]] * 2


def test_a_small_ring_gives_each_host_at_least_one_point() -> None:
    assert set(RingHash(hosts(1, 1, 1, 1, 1, 1, 1, 1), 2).owners) == set(range(8))


def moved(make: Callable[[list[Host]], balance.Balancer], made: list[Host], leaver: int, keys: int) -> tuple[int, int]:
    """(keys of the host that leaves, keys of others that move) when it does."""
    before, after = make(made), make(made[:leaver] + made[leaver + 1 :])
    lost = others = 0
    for n in range(keys):
        host, now = before.pick(f"user-{n}", draws()), after.pick(f"user-{n}", draws())
        if host is made[leaver]:
            lost += 1
        else:
            others += host is not now
    return lost, others


@given(st.integers(2, 12), st.data())
def test_when_a_host_leaves_a_ring_no_key_of_the_others_moves(count: int, data: st.DataObject) -> None:
    # As many points for each host before and after; with a least size for the whole ring, those of others grow, and
    # only take over what lies before the new points.
    made = hosts(*[1] * count)
    leaver = data.draw(st.integers(0, count - 1))
    before, after = RingHash(made, count * 40), RingHash(made[:leaver] + made[leaver + 1 :], (count - 1) * 40)
    for n in range(200):
        host = before.pick(f"user-{n}", draws())
        if host is not made[leaver]:
            assert after.pick(f"user-{n}", draws()) is host


@pytest.mark.parametrize(
    ("make", "most"),
    [
        (lambda made: RingHash(made, 1024), 0.02),
        (lambda made: Maglev(made, 65537), 0.02),
    ],
)
@pytest.mark.parametrize("leaver", [0, 50, 99])
def test_when_one_of_a_hundred_leaves_few_keys_of_the_others_move(
    make: Callable[[list[Host]], balance.Balancer], most: float, leaver: int
) -> None:
    lost, others = moved(make, hosts(*[1] * 100), leaver, 10_000)
    assert 20 <= lost <= 250, "its own share is one in a hundred"
    assert others <= most * 10_000


def test_when_one_of_ten_leaves_a_ring_of_the_default_size_no_key_of_the_others_moves() -> None:
    """128 points a host before and after, where 1024 shared out by ten and by nine moved one key in fourteen."""
    lost, others = moved(lambda made: RingHash(made, 1024), hosts(*[1] * 10), 4, 5_000)
    assert 300 <= lost <= 700
    assert others == 0


def test_peak_ewma_takes_the_one_that_would_answer_first_of_two() -> None:
    made = hosts(1, 1, 1)
    for host, seconds, active in zip(made, (0.1, 0.01, 0.05), (0, 12, 1), strict=True):
        host.took(seconds, 0.0)
        host.active = active
    picker = PeakEwma(made)  # 0.1 * 1, 0.01 * 13, 0.05 * 2
    assert picker.pick(None, draws(0.0, 0.0)) is made[0]
    assert picker.pick(None, draws(0.5, 0.99)) is made[2]
    made[0].active = 1
    assert picker.pick(None, draws(0.0, 0.0)) is made[1]
    assert PeakEwma(made[:1]).pick(None, draws()) is made[0]


@given(
    WEIGHTS, st.lists(st.floats(0, 10), min_size=6, max_size=6), st.lists(st.integers(0, 50), min_size=6, max_size=6)
)
def test_of_two_hosts_peak_ewma_never_takes_the_one_that_would_take_longer(
    weights: list[int], latencies: list[float], active: list[int]
) -> None:
    made = hosts(*weights)[:2]
    for host, seconds, busy in zip(made, latencies, active, strict=False):
        host.latency_s, host.active = seconds, busy

    def cost(host: Host) -> float:
        return host.latency_s * (host.active + 1) / host.weight

    drawn = random.Random(1)
    seen: list[float] = []

    def draw() -> float:
        seen.append(drawn.random())
        return seen[-1]

    picker = PeakEwma(made)
    for _ in range(10):
        seen.clear()
        chosen = picker.pick(None, draw)
        compared = made if picker.random.equal else [picker.random.pick(None, draws(one)) for one in seen]
        assert cost(chosen) <= min(cost(one) for one in compared) * (1 + 1e-9)


def test_of_hosts_that_were_never_measured_peak_ewma_takes_the_less_busy() -> None:
    made = hosts(1, 1)
    made[0].active = 1
    assert all(PeakEwma(made).pick(None, random.random) is made[1] for _ in range(20))


@given(st.lists(st.integers(1, 100), min_size=1, max_size=5))
def test_spread_gives_each_part_its_share_of_the_draws(shares: list[int]) -> None:
    made = hosts(*[1] * len(shares))
    picker = Spread([RoundRobin([host]) for host in made], [float(share) for share in shares])
    total = sum(shares)
    # In the middle of each step, so that rounding at the ends of shares is no matter.
    seen = Counter(picker.pick(None, lambda n=n: (n + 0.5) / total).name for n in range(total))  # type: ignore[misc]
    assert seen == {host.name: share for host, share in zip(made, shares, strict=True)}


@given(st.lists(st.integers(1, 9), min_size=2, max_size=6), st.integers(0, 30))
def test_round_robin_goes_on_where_it_was_when_weights_change(weights: list[int], before: int) -> None:
    made = hosts(*weights)
    picker = RoundRobin(made)
    for _ in range(before):
        picker.pick(None, random.random)
    made[0].weight = 3.5
    picker.reweigh()
    assert picker.total == pytest.approx(3.5 + sum(weights[1:]))
    if picker.equal:
        return
    rounds = 40
    seen = Counter(picker.pick(None, random.random) for _ in range(round(rounds * picker.total)))
    for host in made:
        assert seen[host] == pytest.approx(rounds * host.weight, abs=len(made) + 1)


def test_a_ring_and_a_table_take_weights_that_are_not_the_hosts_own() -> None:
    made = hosts(9, 1)
    for picker in (RingHash(made, 8192, [1.5, 4.5]), Maglev(made, 4093, [1.5, 4.5])):
        seen = Counter(picker.pick(f"user-{n}", draws()) for n in range(4000))
        assert seen[made[1]] == pytest.approx(3000, rel=0.06)
        draw = random.Random(1).random
        seen = Counter(picker.pick(None, draw) for _ in range(4000))
        assert seen[made[1]] == pytest.approx(3000, rel=0.06)


def test_under_least_request_the_worst_of_100_endpoints_holds_within_one_and_a_half_times_the_mean() -> None:
    """At 80 % load; see queueing.py, which prints the figures of all balancers when it is run."""
    told = simulate("least_request", requests=50_000)
    assert told.worst_held < 1.5
    assert told.worst_served < 1.2
    told = simulate("least_request", requests=50_000, clients=10)
    assert told.worst_held < 1.5


def test_the_same_load_is_too_much_for_the_worst_endpoint_under_random_choice() -> None:
    """That the bound above can fail."""
    assert simulate("random", requests=50_000).worst_held > 1.5


def test_peak_ewma_keeps_requests_from_endpoints_that_are_slow() -> None:
    slow = range(5)
    least, peak = (simulate(kind, requests=30_000, slow=slow, slowness=10.0) for kind in ("least_request", "peak_ewma"))
    assert sum(peak.served[n] for n in slow) < 0.5 * sum(least.served[n] for n in slow)
    assert peak.quantile(0.999) < 0.5 * least.quantile(0.999)
