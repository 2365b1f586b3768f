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
from fairlead.proxy.balance import LeastRequest, Maglev, RingHash, RoundRobin, WeightedRandom, balancer_for, hash64
from fairlead.proxy.host import Host
from fairlead.registry.model import Endpoint

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
    for picker in (RoundRobin(made), LeastRequest(made), WeightedRandom(made), RingHash(made, 16), Maglev(made, 31)):
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
