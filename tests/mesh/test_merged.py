"""Metrics and clusters of several workers as those of one."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairlead.mesh import merged
from fairlead.proxy import exposition

ONE = """# HELP istio_requests_total Finished requests.
# TYPE istio_requests_total counter
istio_requests_total{reporter="source",path="a b"} 3
istio_requests_total{reporter="destination"} 1
# HELP d Duration.
# TYPE d histogram
d_bucket{le="1"} 1
d_bucket{le="+Inf"} 2
d_sum 4.5
d_count 2
# HELP fairlead_connections Client connections.
# TYPE fairlead_connections gauge
fairlead_connections 7
# HELP fairlead_ready 1 if ready.
# TYPE fairlead_ready gauge
fairlead_ready 1"""
OTHER = """# HELP istio_requests_total Finished requests.
# TYPE istio_requests_total counter
istio_requests_total{reporter="source",path="a b"} 2
# HELP d Duration.
# TYPE d histogram
d_bucket{le="1"} 1
d_bucket{le="+Inf"} 1
d_sum 0.5
d_count 1
# HELP fairlead_connections Client connections.
# TYPE fairlead_connections gauge
fairlead_connections 1
# HELP fairlead_ready 1 if ready.
# TYPE fairlead_ready gauge
fairlead_ready 0"""


def total(*texts: str) -> merged.Families:
    found: merged.Families = {}
    for text in texts:
        merged.add(found, merged.read(text))
    return found


def test_what_is_read_is_written_the_same() -> None:
    assert "\n".join(merged.lines(merged.read(ONE))) == ONE


def test_counters_histograms_and_gauges_add_up_and_readiness_is_the_least() -> None:
    text = "\n".join(merged.lines(total(ONE, OTHER)))
    for line in (
        'istio_requests_total{reporter="source",path="a b"} 5', 'istio_requests_total{reporter="destination"} 1',
        'd_bucket{le="1"} 2', 'd_bucket{le="+Inf"} 3', "d_sum 5", "d_count 3", "fairlead_connections 8",
        "fairlead_ready 0",
    ):  # fmt: skip
        assert line in text.split("\n")


def test_of_a_process_that_is_no_more_only_counters_stay() -> None:
    gone: merged.Families = {}
    merged.add(gone, merged.read(ONE), counters_only=True)
    assert set(gone) == {"istio_requests_total", "d"}


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 9), st.booleans()), max_size=60))
def test_counters_never_go_back_however_workers_die_and_count(steps: list[tuple[int, int, bool]]) -> None:
    """Each step: a worker counts, is asked, and perhaps dies after it was asked."""
    counts, gone = [0, 0, 0], merged.Families()
    told: list[merged.Families] = [{}, {}, {}]
    shown = 0.0
    for worker, more, dies in steps:
        counts[worker] += more
        for number, count in enumerate(counts):
            told[number] = merged.read("\n".join(exposition.family("x_total", "counter", "X.", [({}, count)])))
        if dies:
            merged.add(gone, told[worker], counters_only=True)
            told[worker], counts[worker] = {}, 0
        now: merged.Families = {}
        for families in (gone, *told):
            merged.add(now, families)
        value = now["x_total"].samples["x_total"]
        assert value >= shown
        shown = value
    assert shown == sum(more for _, more, _ in steps)


def described(name: str, active: int, hosts: list[dict[str, Any]], ago: float = 1.0) -> dict[str, Any]:
    return {
        "name": name, "destination_rule": "", "active": active, "connections": active, "pending": 0, "retrying": 0,
        "ejections": 1, "events": [{"seconds_ago": ago, "host": "h", "what": "back"}], "hosts": hosts,
    }  # fmt: skip


def test_clusters_add_up_by_name_and_host_and_an_ejection_in_one_is_seen() -> None:
    one = [described("a", 1, [{"address": "h1", "requests": 2}])]
    other = [
        described("a", 2, [{"address": "h1", "requests": 3, "ejected": "why", "ejected_for_s": 9.0},
                           {"address": "h2", "requests": 1}], ago=5.0),
        described("b", 4, []),
    ]  # fmt: skip
    found = merged.clusters([one, other])
    assert [(told["name"], told["active"], told["ejections"]) for told in found] == [
        ("a", 3, 2),
        ("b", 4, 1),
    ]
    assert found[0]["hosts"] == [
        {"address": "h1", "requests": 5, "ejected": "why", "ejected_for_s": 9.0}, {"address": "h2", "requests": 1},
    ]  # fmt: skip
    assert [event["seconds_ago"] for event in found[0]["events"]] == [5.0, 1.0]
    assert one[0]["active"] == 1, "what was told is not changed"


def test_two_ejections_of_a_host_show_the_longer_and_do_not_add_their_times() -> None:
    host = {"address": "h1", "requests": 1, "ejected": "why", "ejected_for_s": 9.0}
    found = merged.clusters([[described("a", 0, [host])], [described("a", 0, [host | {"ejected_for_s": 8.0}])]])
    assert found[0]["hosts"][0]["ejected_for_s"] == 9.0
