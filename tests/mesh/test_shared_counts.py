"""What workers share about limits and ejections: how exact it is, and what a worker's death leaves behind."""

from __future__ import annotations

import mmap
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.mesh.shared_counts import (
    BUCKETS_MAX,
    CLUSTERS_MAX,
    KINDS,
    Places,
    SharedBuckets,
    SharedCounts,
    forget,
    size,
    wanted_buckets,
)
from fairlead.policy import resources as r
from fairlead.policy.rate_limits import rate_limits
from fairlead.policy.tables import (
    Arrival,
    Cluster,
    ClusterEndpoint,
    LoadBalancer,
    OutlierPolicy,
    PoolLimits,
    Tables,
    Viewpoint,
    Warmup,
)
from fairlead.proxy.cluster import ACTIVE, CONNECTIONS, PENDING, RETRYING, LiveCluster
from fairlead.proxy.pool import Overflow, Pool, Waiter
from fairlead.proxy.rate_limit import Limiter
from fairlead.registry.model import Endpoint, Workload
from fairlead.registry.snapshot import Snapshot

NAME = "outbound|80||web"


def cluster(limits: PoolLimits | None = None, outlier: OutlierPolicy | None = None, endpoints: int = 1) -> Cluster:
    made = tuple(ClusterEndpoint(f"10.0.0.{n}", 80, Endpoint(f"10.0.0.{n}", 80)) for n in range(endpoints))
    return Cluster(NAME, "web", 80, "", made, limits=limits, outlier=outlier)


class Workers:
    """Workers as they are in one proxy, each with its own LiveCluster and pool."""

    def __init__(self, count: int, config: Cluster, names: tuple[str, ...] = (NAME,)) -> None:
        self.memory = mmap.mmap(-1, size(count))
        self.view = memoryview(self.memory)
        self.opened: list[tuple[int, Any]] = []
        self.lives = [LiveCluster(config, 0.0) for _ in range(count)]
        self.counts = [SharedCounts(self.view, count, n, self._teller(n)) for n in range(count)]
        self.pools = [Pool(live, lambda pool, host, _two: self.opened.append((pool, host))) for live in self.lives]
        places = Places().assign(names)
        for counts, live in zip(self.counts, self.lives, strict=True):
            counts.places = places
            counts.share(live)

    def _teller(self, me: int) -> Any:
        def tell(name: str, host: str, until: float, ejections: int, why: str) -> None:
            for number, live in enumerate(self.lives):
                if number != me:
                    live.take_ejection(host, until, ejections, why, 1.0)

        return tell

    def admit(self, worker: int, limit: int) -> bool:
        """As Exchange does it, in one turn of the worker's loop."""
        if not self.look(worker, limit):
            return False
        self.count(worker)
        return True

    def look(self, worker: int, limit: int) -> bool:
        live = self.lives[worker]
        return live.active + live.elsewhere(ACTIVE) < limit

    def count(self, worker: int, step: int = 1) -> None:
        live = self.lives[worker]
        live.active += step
        assert live.shared is not None
        live.shared.publish(live)

    def in_all(self) -> int:
        return sum(live.active for live in self.lives)


@given(st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=200), st.integers(1, 12))
def test_one_after_another_workers_keep_a_limit_to_the_digit(steps: list[tuple[int, bool]], limit: int) -> None:
    workers = Workers(4, cluster(PoolLimits(max_requests=limit)))
    for worker, begins in steps:
        if begins:
            expected = workers.in_all() < limit
            assert workers.admit(worker, limit) is expected
        elif workers.lives[worker].active:
            workers.count(worker, -1)
        assert workers.in_all() <= limit


@given(st.data(), st.integers(2, 5), st.integers(1, 8))
def test_at_the_same_moment_a_limit_is_passed_by_at_most_one_for_each_further_worker(
    data: st.DataObject, count: int, limit: int
) -> None:
    """Every order of looking and counting: a worker that has looked counts before it looks again."""
    workers = Workers(count, cluster(PoolLimits(max_requests=limit)))
    looked: dict[int, bool] = {}
    for _ in range(60):
        worker = data.draw(st.integers(0, count - 1))
        if worker in looked:
            if looked.pop(worker):
                workers.count(worker)
        else:
            looked[worker] = workers.look(worker, limit)
    for worker, may in looked.items():
        if may:
            workers.count(worker)
    assert workers.in_all() <= limit + count - 1


def test_the_bound_is_reached_when_all_look_at_once() -> None:
    workers = Workers(4, cluster(PoolLimits(max_requests=1)))
    assert [workers.look(worker, 1) for worker in range(4)] == [True] * 4
    for worker in range(4):
        workers.count(worker)
    assert workers.in_all() == 4
    assert not any(workers.look(worker, 1) for worker in range(4))


def test_connections_and_waiting_requests_of_another_worker_count() -> None:
    workers = Workers(2, cluster(PoolLimits(max_connections=1, max_pending=1)))
    first, second = workers.pools
    host = first.live.hosts[0]
    host.connections = 1  # so that the exception for endpoints without any does not apply
    first.live.connections = 1
    first.count_open(host)
    assert second.live.elsewhere(CONNECTIONS) == 2
    second.live.hosts[0].connections = 1
    assert second.acquire(second.live.hosts[0], Waiting(None)) is None
    assert first.live.elsewhere(PENDING) == 1
    assert not workers.opened
    with pytest.raises(Overflow, match="1 request already waits"):
        first.acquire(host, Waiting(None))


def test_a_worker_without_a_connection_to_an_endpoint_may_open_one_whatever_others_have() -> None:
    workers = Workers(3, cluster(PoolLimits(max_connections=1)))
    for pool in workers.pools:
        assert pool.acquire(pool.live.hosts[0], Waiting(None)) is None
    assert len(workers.opened) == 3


class Connection:
    usable = True
    two = False
    idle_since = opened_at = 0.0

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.host = pool.live.hosts[0]
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.pool.closed(self)


class Waiting(Waiter):
    wants_two = False

    def __init__(self, host: Any) -> None:
        self.host = host
        self.got: list[Any] = []

    def connected(self, upstream: Any) -> None:
        self.got.append(upstream)


def test_idle_connections_go_where_requests_wait_for_them() -> None:
    workers = Workers(2, cluster(PoolLimits(max_connections=3)))
    rich, poor = workers.pools
    kept = [Connection(rich) for _ in range(2)]
    for connection in kept:
        rich.count_open(connection.host)
    rich.offer(kept[0])
    host = poor.live.hosts[0]
    poor.acquire(host, Waiting(host))
    poor.acquire(host, Waiting(host))
    assert len(workers.opened) == 1  # three in all: maxConnections
    rich.offer(kept[1])
    assert kept[1].closed  # not kept idle while the other worker waits
    poor.sweep(1.0)
    assert len(workers.opened) == 2


def test_a_sweep_gives_up_what_was_idle_before_others_began_to_wait() -> None:
    workers = Workers(2, cluster(PoolLimits(max_connections=2)))
    rich, poor = workers.pools
    kept = Connection(rich)
    rich.count_open(kept.host)
    rich.offer(kept)
    host = poor.live.hosts[0]
    poor.acquire(host, Waiting(host))
    poor.acquire(host, Waiting(host))
    assert not kept.closed
    rich.sweep(1.0)
    assert kept.closed


def test_all_four_kinds_are_seen_by_the_others_and_not_by_oneself() -> None:
    workers = Workers(3, cluster(PoolLimits(max_retries=3)))
    live = workers.lives[1]
    live.active, live.connections, live.pending, live.retrying = 1, 2, 3, 4
    assert live.shared is not None
    live.shared.publish(live)
    kinds = (ACTIVE, CONNECTIONS, PENDING, RETRYING)
    assert [workers.lives[0].elsewhere(kind) for kind in kinds] == [1, 2, 3, 4]
    assert [workers.lives[2].elsewhere(kind) for kind in kinds] == [1, 2, 3, 4]
    assert [live.elsewhere(kind) for kind in kinds] == [0, 0, 0, 0]


def test_what_a_dead_worker_had_under_way_is_forgotten_and_nothing_else() -> None:
    workers = Workers(3, cluster(PoolLimits(max_requests=9)))
    for worker in range(3):
        workers.count(worker, worker + 1)
    forget(workers.view, 1)
    assert workers.lives[0].elsewhere(ACTIVE) == 3
    assert workers.lives[1].elsewhere(ACTIVE) == 4


def test_a_cluster_without_limits_and_detection_shares_nothing() -> None:
    workers = Workers(2, cluster())
    assert all(live.shared is None for live in workers.lives)
    assert all(live.elsewhere(ACTIVE) == 0 for live in workers.lives)


def test_limits_taken_away_leave_nothing_behind() -> None:
    workers = Workers(2, cluster(PoolLimits(max_requests=5)))
    workers.count(0)
    live = workers.lives[0]
    live.update(cluster(), 0.0)
    workers.counts[0].share(live)
    assert live.shared is None
    assert workers.lives[1].elsewhere(ACTIVE) == 0


def test_a_place_is_kept_and_one_given_back_is_used_again_last() -> None:
    places = Places()
    first = dict(places.assign(["a", "b"]))
    assert len(set(first.values())) == 2
    second = dict(places.assign(["b", "c"]))
    assert second["b"] == first["b"]
    assert second["c"] not in first.values()
    many = places.assign([f"n{n}" for n in range(CLUSTERS_MAX + 5)])
    assert sorted(many.values()) == list(range(CLUSTERS_MAX))


def test_a_cluster_beyond_the_last_place_counts_alone() -> None:
    workers = Workers(2, cluster(PoolLimits(max_requests=1), OutlierPolicy()), names=())
    live = workers.lives[0]
    assert live.shared is not None  # for ejections
    live.active = 1
    live.shared.publish(live)
    assert workers.lives[1].elsewhere(ACTIVE) == 0
    assert not any(bytes(workers.view[: CLUSTERS_MAX * KINDS]))


def test_an_ejection_holds_in_every_worker_and_ends_in_all_at_the_same_moment() -> None:
    policy = OutlierPolicy(consecutive_5xx=2, max_ejection_percent=100, interval_s=1.0, base_ejection_s=30.0)
    workers = Workers(2, cluster(outlier=policy, endpoints=2))
    one, other = workers.lives
    for _ in range(2):
        one.report(one.hosts[0], 500, False, 1.0)
    assert [len(live.usable) for live in workers.lives] == [1, 1]
    assert other.hosts[0].health.ejected_until == one.hosts[0].health.ejected_until == 31.0
    assert "by another worker" in other.events[-1][2]
    for live in workers.lives:
        live.sweep(30.9)
    assert [len(live.usable) for live in workers.lives] == [1, 1]
    for live in workers.lives:
        live.sweep(32.0)
    assert [len(live.usable) for live in workers.lives] == [2, 2]


def test_an_ejection_by_success_rate_is_told_to_the_others_with_its_numbers_and_they_warm_up_alike() -> None:
    policy = OutlierPolicy(
        consecutive_5xx=0, max_ejection_percent=50, interval_s=1.0, base_ejection_s=5.0, success_hosts=3,
        success_volume=10, success_stdev_factor=1000,
    )  # fmt: skip
    config = cluster(outlier=policy, endpoints=4)
    config.load_balancer = LoadBalancer("round_robin", warmup=Warmup(100.0))
    workers = Workers(2, config)
    one, other = workers.lives
    assert LiveCluster(config, 0.7).wake_at() == one.wake_at() == 1.0, "whenever a worker first used the cluster"
    for host in one.hosts:
        for n in range(10):
            one.report(host, 500 if host is one.hosts[3] and n < 8 else 200, False, 0.5)
    for live in workers.lives:
        live.sweep(1.0)
    assert [len(live.usable) for live in workers.lives] == [3, 3]
    assert "success rate 20.0 % of 10 answers" in other.hosts[3].health.why
    for live in workers.lives:
        live.sweep(7.0)
    assert [len(live.usable) for live in workers.lives] == [4, 4]
    assert [live.hosts[3].weight for live in workers.lives] == [0.1, 0.1]


def test_workers_count_failures_apart_so_a_host_can_fail_in_each_before_it_is_out() -> None:
    policy = OutlierPolicy(consecutive_5xx=5, max_ejection_percent=100)
    workers = Workers(3, cluster(outlier=policy, endpoints=2))
    for live in workers.lives:
        for _ in range(4):
            live.report(live.hosts[0], 500, False, 1.0)
    assert all(len(live.usable) == 2 for live in workers.lives)  # 3 * (5 - 1) failures
    workers.lives[2].report(workers.lives[2].hosts[0], 500, False, 1.0)
    assert all(len(live.usable) == 1 for live in workers.lives)


def test_an_ejection_of_a_host_that_is_not_ours_or_that_is_over_changes_nothing() -> None:
    live = LiveCluster(cluster(outlier=OutlierPolicy(), endpoints=2), 0.0)
    live.take_ejection("10.9.9.9:80", 50.0, 1, "", 1.0)
    live.take_ejection("10.0.0.0:80", 0.5, 1, "", 1.0)
    assert len(live.usable) == 2
    live.update(cluster(endpoints=2), 0.0)
    live.take_ejection("10.0.0.0:80", 50.0, 1, "", 1.0)  # no outlierDetection here any more
    assert len(live.usable) == 2


# --- buckets of local rate limits -------------------------------------------------------------------------------------


def limits_of(*limits: r.RequestLimit) -> Tables:
    spec = r.LocalRateLimitSpec(limits=list(limits))
    resources = r.Resources(local_rate_limits=(r.LocalRateLimit(r.Meta("it", "default"), spec),))
    workload = Workload("default", "web-1")
    made = Tables("1", Viewpoint(workload), r.MeshConfig(), Snapshot(), {})
    made.rate_limits = rate_limits(resources, workload, False)
    return made


def limit(name: str, most: int, per: str = "PROXY") -> r.RequestLimit:
    return r.RequestLimit(name, r.TokenBucket(max_tokens=most, fill_interval=3600.0), per=per)


def test_all_workers_take_from_one_bucket_which_begins_full_and_outlives_pushes_that_leave_it_alone() -> None:
    workers = 3
    view = memoryview(mmap.mmap(-1, size(workers)))
    shared = SharedBuckets()
    tables = limits_of(limit("all", 5), limit("each", 1, "CLIENT"))
    assert shared.assign(wanted_buckets(tables))
    assert len(shared.assigned()) == 1  # clients' buckets are each worker's
    shared.begin(view, workers)
    counts = [SharedCounts(view, workers, number, lambda *_: None) for number in range(workers)]

    def limiters(tables: Tables) -> list[Limiter]:
        made = []
        for one in counts:
            one.bucket_places = shared.assigned()
            made.append(Limiter(one.cell_of))
            made[-1].update(tables.rate_limits)
        return made

    def through(limiters: list[Limiter], number: int) -> bool:
        """A request to one of the workers (the first limit's bucket alone)."""
        live = limiters[number % workers].all()[0]
        return live.bucket_of(Arrival("inbound"), 50.0).take(50.0)

    own = limiters(tables)
    assert [through(own, number) for number in range(7)] == [True] * 5 + [False] * 2
    assert shared.assign(wanted_buckets(limits_of(limit("new", 1), limit("all", 5))))
    after = limiters(limits_of(limit("all", 5)))  # as a worker that was started anew
    assert not through(after, 0)
    changed = limits_of(limit("all", 6))
    assert shared.assign(wanted_buckets(changed))
    assert [through(limiters(changed), number) for number in range(7)] == [True] * 6 + [False]


def test_beyond_the_room_for_buckets_a_worker_has_its_own() -> None:
    view = memoryview(mmap.mmap(-1, size(1)))
    shared = SharedBuckets()
    shared.begin(view, 1)
    assert not shared.assign([str(number) for number in range(BUCKETS_MAX + 1)])
    counts = SharedCounts(view, 1, 0, lambda *_: None)
    counts.bucket_places = shared.assigned()
    (found,) = limits_of(limit("late", 1)).rate_limits.all()
    assert counts.cell_of(found) is None
