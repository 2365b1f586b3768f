"""Locality: who is near, which percentages localities get, and what `explain` says of it."""

from __future__ import annotations

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.locality import TOPOLOGY, arrange, covers, distance, overlap, standing
from fairlead.policy.resources import LocalityDistribute, LocalityFailover, LocalityLbSetting
from fairlead.policy.tables import Cluster, ClusterEndpoint
from fairlead.registry.model import Endpoint, Workload

REGION, ZONE, SUBZONE = TOPOLOGY
NAMES = st.sampled_from(["a", "b"])
FULL = st.tuples(NAMES, NAMES, NAMES).map("/".join)


def endpoints(*localities: str, weights: tuple[int, ...] = ()) -> list[ClusterEndpoint]:
    return [
        ClusterEndpoint(
            f"10.0.0.{n}", 80, Endpoint(f"10.0.0.{n}", 80, locality=locality), weight=weights[n] if weights else 1
        )
        for n, locality in enumerate(localities)
    ]


def client(locality: str = "", **labels: str) -> Workload:
    return Workload("shop", "front", labels=labels, locality=locality)


def labelled(*labels: dict[str, str]) -> list[ClusterEndpoint]:
    return [ClusterEndpoint("10.0.0.1", 80, Endpoint("10.0.0.1", 80, labels=one)) for one in labels]


def priorities(
    made: list[ClusterEndpoint], who: Workload, settings: LocalityLbSetting | None, detects: bool = True
) -> list[int]:
    return [one.priority for one in arrange(made, who, settings, detects)]


@given(FULL, FULL)
def test_distance_is_the_first_part_that_differs(one: str, other: str) -> None:
    differs = next((at for at, (a, b) in enumerate(zip(one.split("/"), other.split("/"), strict=True)) if a != b), 3)
    assert distance(one, other) == 3 - differs


def test_priorities_have_no_gaps_and_need_outlier_detection() -> None:
    made = endpoints("a/z/s", "b/z/s", "a/y/s")
    assert priorities(made, client("a/z/s"), None, detects=False) == [0, 0, 0]
    assert priorities(made, client("a/z/s"), None) == [0, 2, 1]
    assert priorities(endpoints("b/z", "b/y"), client("a/z"), None) == [0, 0]


def test_failover_puts_the_region_named_before_all_others_and_its_first_entry_counts() -> None:
    settings = LocalityLbSetting(failover=[LocalityFailover("a", "c"), LocalityFailover("a", "b")])
    assert priorities(endpoints("a/z", "b/z", "c/z"), client("a/z"), settings) == [0, 2, 1]


def test_failover_priority_counts_labels_up_to_the_first_that_differs() -> None:
    settings = LocalityLbSetting(failover_priority=["version", "network"])
    made = labelled(
        {"version": "1", "network": "n"}, {"version": "1"}, {"network": "n"}, {"version": "2", "network": "n"}
    )
    assert priorities(made, client(version="1", network="n"), settings) == [0, 1, 2, 2]
    # What both lack is alike.
    assert priorities(labelled({}, {"version": ""}, {"version": "1"}), client(), settings) == [0, 0, 1]


def test_failover_priority_may_name_a_value_whatever_the_client_has() -> None:
    settings = LocalityLbSetting(failover_priority=["version=2"])
    assert priorities(labelled({"version": "1"}, {"version": "2"}), client(version="1"), settings) == [1, 0]


def test_topology_labels_that_are_missing_are_those_of_the_locality() -> None:
    settings = LocalityLbSetting(failover_priority=[REGION, ZONE, SUBZONE])
    made = endpoints("a/z/s", "a/z/t", "a/y/s", "b/z/s")
    assert priorities(made, client("a/z/s"), settings) == [0, 1, 2, 3]
    moved = [ClusterEndpoint("10.0.0.9", 80, Endpoint("10.0.0.9", 80, locality="b/z/s", labels={REGION: "a"}))]
    assert priorities([*moved, *endpoints("b/z/s")], client("a/z/s"), settings) == [0, 1]


def test_with_failover_too_localities_order_what_labels_leave_equal() -> None:
    settings = LocalityLbSetting(failover_priority=["version"], failover=[LocalityFailover("a", "c")])
    made = endpoints("b/z", "c/z", "a/z", "a/z")
    made[3].endpoint = Endpoint("10.0.0.3", 80, locality="a/z", labels={"version": "2"})
    assert priorities(made, client("a/z"), settings) == [2, 1, 0, 3]
    alone = LocalityLbSetting(failover_priority=["version"])
    assert priorities(endpoints("a/z", "b/z"), client("a/z"), alone) == [0, 0]


def test_switched_off_nothing_is_arranged() -> None:
    made = endpoints("a/z", "b/z")
    distribute = [LocalityDistribute("*", {"b/*": 100})]
    assert arrange(made, client("a/z"), LocalityLbSetting(distribute, enabled=False), True) == tuple(made)
    assert priorities(made, client("a/z"), LocalityLbSetting(enabled=False)) == [0, 0]


def test_a_distribution_goes_by_the_first_entry_that_covers_the_client() -> None:
    entries = [LocalityDistribute("b", {"*": 100}), LocalityDistribute("a/*", {"a/z": 70, "b/*": 30})]
    found = arrange(endpoints("a/z/s", "b/z", "c/z"), client("a/z"), LocalityLbSetting(entries), False)
    assert [(one.endpoint.locality, one.locality_weight) for one in found] == [("a/z/s", 70.0), ("b/z", 30.0)]
    made = endpoints("a/z", "b/z")
    assert arrange(made, client("d/z"), LocalityLbSetting(entries), True) == tuple(made)
    assert [one.locality_weight for one in made] == [0.0, 0.0]


def test_localities_under_one_pattern_share_its_percentage_by_their_endpoints_weights() -> None:
    made = endpoints("a/z", "a/z", "a/y", "b/z", weights=(1, 2, 1, 1))
    found = arrange(made, client("a"), LocalityLbSetting([LocalityDistribute("a", {"a/*": 80, "b": 20})]), False)
    assert {one.endpoint.locality: one.locality_weight for one in found} == {"a/z": 60.0, "a/y": 20.0, "b/z": 20.0}
    assert [one.weight for one in found] == [1, 2, 1, 1]


@given(st.lists(st.tuples(FULL, st.integers(1, 5)), min_size=1, max_size=8))
def test_percentages_of_all_localities_are_those_of_the_patterns_that_have_any(places: list[tuple[str, int]]) -> None:
    made = endpoints(*(one for one, _ in places), weights=tuple(weight for _, weight in places))
    shares = {"a/*": 60, "b/a": 30, "b/b/*": 10}
    found = arrange(made, client("a"), LocalityLbSetting([LocalityDistribute("*", shares)]), False)
    assert len(found) == len(made)
    by_place = {one.endpoint.locality: one.locality_weight for one in found}
    expected = sum(share for pattern, share in shares.items() if any(covers(pattern, place) for place, _ in places))
    assert sum(by_place.values()) == pytest.approx(expected)


PATTERNS = st.sampled_from(
    ["*", *(f"{a}{rest}" for a in "ab" for rest in ("", "/*", "/a", "/b", "/a/*", "/b/*", "/a/a", "/a/b"))]
)


@given(PATTERNS, PATTERNS)
def test_patterns_overlap_exactly_when_one_locality_is_covered_by_both(one: str, other: str) -> None:
    every = ["/".join(parts) for parts in product("abc", repeat=3)]
    assert overlap(one, other) is any(covers(one, place) and covers(other, place) for place in every)


def test_the_standing_of_an_endpoint_is_told() -> None:
    made = endpoints("a/z", "b/z", "c/z")
    ranked = Cluster("c", "h", 80, "", arrange(made, client("a/z"), LocalityLbSetting(), True))
    assert standing(made[0].endpoint, ranked).startswith("; priority 0 of 0 to 1: takes all traffic while 72 %")
    assert standing(made[1].endpoint, ranked).startswith("; priority 1 of 0 to 1: takes what")
    settings = LocalityLbSetting([LocalityDistribute("*", {"a": 70, "b": 30})])
    made = endpoints("a/z", "b/z", "c/z")
    spread = Cluster("c", "h", 80, "", arrange(made, client("a/z"), settings, True))
    assert standing(made[0].endpoint, spread) == "; locality a/z gets 70 % of the traffic"
    assert standing(made[2].endpoint, spread) == "; distribute gives its locality c/z nothing"
    assert standing(made[0].endpoint, Cluster("c", "h", 80, "", tuple(endpoints("a/z")))) == ""
