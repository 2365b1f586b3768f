"""Priorities: what each takes of the traffic, by Envoy's tables and by what must always hold."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.tables import ClusterEndpoint
from fairlead.proxy.host import Host
from fairlead.proxy.priorities import Level, hash_weights, levels_of, loads, locality_loads, share_out
from fairlead.registry.model import Endpoint

SIZES = st.lists(
    st.integers(1, 30).flatmap(lambda size: st.tuples(st.integers(0, size), st.just(size))), min_size=1, max_size=5
)
"""(healthy, all) of each priority."""


def host(name: str, priority: int = 0, out: bool = False, locality: str = "", share: float = 0.0) -> Host:
    endpoint = Endpoint(name, 80, locality=locality)
    made = Host(ClusterEndpoint(name, 80, endpoint, priority=priority, locality_weight=share))
    made.health.ejected_until = 99.0 if out else 0.0
    return made


def levels(*healthy_of: tuple[int, int], panic: int = 0) -> list[Level]:
    made = levels_of(
        [
            host(f"{priority}-{n}", priority, n >= healthy)
            for priority, (healthy, size) in enumerate(healthy_of)
            for n in range(size)
        ]
    )
    share_out(made, panic)
    return made


@pytest.mark.parametrize(
    ("healthy", "traffic"),
    [
        # Envoy's architecture overview, "Priority levels", with 100 hosts at each.
        ((100, 100), [100, 0]),
        ((72, 100), [100, 0]),
        ((71, 100), [99, 1]),
        ((50, 100), [70, 30]),
        ((25, 100), [35, 65]),
        ((0, 100), [0, 100]),
        ((25, 25), [50, 50]),
        ((100, 100, 100), [100, 0, 0]),
        ((72, 72, 100), [100, 0, 0]),
        ((71, 71, 100), [99, 1, 0]),
        ((50, 50, 100), [70, 30, 0]),
        ((25, 100, 100), [35, 65, 0]),
        ((25, 25, 100), [35, 35, 30]),
        ((25, 25, 20), [36, 36, 28]),
    ],
)
def test_traffic_spills_over_as_in_envoys_tables(healthy: tuple[int, ...], traffic: list[int]) -> None:
    made = levels(*((one, 100) for one in healthy))
    assert [level.load for level in made] == pytest.approx(traffic, abs=1)
    assert sum(level.load for level in made) == 100


@pytest.mark.parametrize(
    ("healthy", "traffic", "panic"),
    [
        # Envoy's architecture overview, "Panic threshold", with the threshold of 50 % that it takes there.
        ((72, 72), [100, 0], [False, False]),
        ((71, 71), [99, 1], [False, False]),
        ((50, 60), [70, 30], [False, False]),
        ((25, 100), [35, 65], [False, False]),
        ((25, 25), [50, 50], [True, True]),
        ((5, 65), [7, 93], [True, False]),
    ],
)
def test_panic_is_that_of_envoys_table(healthy: tuple[int, ...], traffic: list[int], panic: list[bool]) -> None:
    made = levels(*((one, 100) for one in healthy), panic=50)
    assert [level.load for level in made] == pytest.approx(traffic, abs=1)
    assert [level.panic for level in made] == panic
    assert [len(level.used) for level in made] == [
        100 if wild else count for wild, count in zip(panic, healthy, strict=True)
    ]


def test_in_panic_everywhere_traffic_goes_by_numbers_of_hosts() -> None:
    made = levels((0, 30), (1, 10), panic=50)
    assert [(level.load, len(level.used)) for level in made] == [(75, 30), (25, 10)]


def test_a_single_healthy_host_of_many_still_serves() -> None:
    made = levels((0, 200), (1, 200))  # 1.4 * 1 of 200 is less than one percent
    assert [(level.available, level.load) for level in made] == [(0, 0), (0, 100)]


@given(SIZES, st.integers(0, 100))
def test_all_traffic_has_a_place_while_anybody_may_serve(sizes: list[tuple[int, int]], panic: int) -> None:
    made = levels(*sizes, panic=panic)
    healthy = sum(count for count, _ in sizes)
    served = sum(level.load for level in made if level.used)
    if healthy or all(level.panic for level in made):
        assert served == sum(level.load for level in made) == 100
    else:
        assert served == 0
    for level in made:
        assert all(not one.health.ejected_until for one in level.used) or level.panic
        assert not (level.panic and not panic), "0 is never"


@given(SIZES)
def test_a_priority_gets_nothing_before_those_ahead_of_it_are_full(sizes: list[tuple[int, int]]) -> None:
    made = levels(*sizes)
    total = sum(level.available for level in made)
    if total < 100:
        return
    left = 100
    for level in made:
        assert level.load == min(level.available, left)
        left -= level.load


@given(st.lists(st.integers(0, 100), min_size=1, max_size=6))
def test_loads_are_whole_and_only_for_those_that_can_take_any(available: list[int]) -> None:
    found = loads(available)
    assert sum(found) == (100 if any(available) else 0)
    assert all(not load or can for load, can in zip(found, available, strict=True))


def test_a_locality_gets_less_when_more_than_two_in_seven_of_its_hosts_are_out() -> None:
    hosts = [host(f"a{n}", locality="a", share=60.0, out=n < 1) for n in range(2)]
    hosts += [host(f"b{n}", locality="b", share=40.0, out=n < 1) for n in range(4)]
    hosts += [host("c", locality="c", share=1.0, out=True)]
    (level,) = levels_of(hosts)
    share_out([level], 0)
    found = {made[0].endpoint.endpoint.locality: (len(made), share) for made, share in locality_loads(level)}
    assert found == {"a": (1, pytest.approx(42.0)), "b": (3, 40.0)}
    level.panic = True
    assert [len(made) for made, _ in locality_loads(level)] == [7]


def test_weights_for_hashing_add_up_to_the_percentages_of_localities() -> None:
    hosts = [host(f"a{n}", locality="a", share=75.0) for n in range(3)] + [host("b", locality="b", share=25.0)]
    hosts[0].weight = 2.0
    assert hash_weights(hosts) == [37.5, 18.75, 18.75, 25.0]
