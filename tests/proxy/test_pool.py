"""What becomes of connections whose endpoint has left while they were in use, and who gets those that there may be."""

from __future__ import annotations

from typing import Any

from fairlead.policy.tables import Cluster, ClusterEndpoint, PoolLimits
from fairlead.proxy.cluster import LiveCluster
from fairlead.proxy.pool import Pool, Waiter
from fairlead.registry.model import Endpoint


def cluster(*addresses: str, **limits: Any) -> Cluster:
    made = tuple(ClusterEndpoint(address, 80, Endpoint(address, 80)) for address in addresses)
    return Cluster("outbound|80||web", "web", 80, "", made, limits=PoolLimits(**limits))


class Connection:
    usable = True
    two = asked_two = False

    def __init__(self, pool: Pool, host: Any) -> None:
        self.pool = pool
        self.host = host
        self.closed = False

    def close(self) -> None:
        self.closed = True
        self.usable = False
        if self in self.host.idle:
            self.host.idle.remove(self)
        self.pool.closed(self)


class Waiting(Waiter):
    wants_two = False
    moment = 0.0

    def __init__(self, host: Any) -> None:
        self.host = host
        self.got: list[Any] = []

    def connected(self, upstream: Any) -> None:
        self.got.append(upstream)

    def connect_failed(self, why: str) -> None:
        raise AssertionError(why)


def pool_of(*addresses: str, **limits: Any) -> tuple[Pool, list[Any]]:
    dialled: list[Any] = []
    return Pool(LiveCluster(cluster(*addresses, **limits), 0.0), lambda pool, host, two: dialled.append(host)), dialled


def test_a_connection_in_use_when_its_endpoint_left_is_closed_when_it_is_free_and_counted_no_more() -> None:
    pool, _ = pool_of("10.0.0.1", "10.0.0.2")
    leaving = pool.live.hosts[1]
    used = Connection(pool, leaving)
    pool.count_open(leaving)
    pool.drop_idle(pool.live.update(cluster("10.0.0.1"), 1.0))
    assert not used.closed
    pool.offer(used)
    assert used.closed
    assert leaving.idle == []
    assert pool.live.connections == 0


def test_only_who_waits_for_an_endpoint_that_left_is_given_its_connection() -> None:
    pool, dialled = pool_of("10.0.0.1", "10.0.0.2")
    staying, leaving = pool.live.hosts
    for_staying, for_leaving = Waiting(staying), Waiting(leaving)
    assert pool.acquire(staying, for_staying) is None
    assert pool.acquire(leaving, for_leaving) is None
    assert dialled == [staying, leaving]
    pool.drop_idle(pool.live.update(cluster("10.0.0.1"), 1.0))
    late = Connection(pool, leaving)
    pool.ready(late)
    assert for_staying.got == []
    assert for_leaving.got == [late]
    pool.offer(late)
    assert late.closed
    assert for_staying.got == []


def test_an_idle_connection_elsewhere_makes_way_for_who_waits_where_no_more_may_be_opened() -> None:
    pool, dialled = pool_of("10.0.0.1", "10.0.0.2", max_connections=2)
    here, there = pool.live.hosts
    busy, idle = Connection(pool, here), Connection(pool, there)
    for connection in (busy, idle):
        waiter = Waiting(connection.host)
        assert pool.acquire(connection.host, waiter) is None
        pool.ready(connection)
        assert waiter.got == [connection]
    pool.offer(idle)
    waiter = Waiting(here)
    assert pool.acquire(here, waiter) is None
    assert idle.closed
    assert not busy.closed
    assert dialled == [here, there, here]
    assert pool.live.connections == 2
