"""Endpoints that take time, requests that come at random, and a balancer between them, under a simulated clock."""

from __future__ import annotations

import heapq
import random
from collections.abc import Sequence

from fairlead.policy.tables import Cluster, ClusterEndpoint, LoadBalancer
from fairlead.proxy.cluster import LiveCluster
from fairlead.registry.model import Endpoint

SERVICE_S = 0.01
"""What an endpoint takes for a request, on average."""


class Load:
    """What each endpoint did while it was measured."""

    def __init__(self, count: int) -> None:
        self.served = [0] * count
        self.held = [0.0] * count
        """Requests held (waiting and served), integrated over time."""
        self.latencies: list[float] = []

    @property
    def worst_served(self) -> float:
        """Requests of the endpoint with most, over the mean."""
        return max(self.served) * len(self.served) / sum(self.served)

    @property
    def worst_held(self) -> float:
        """Requests held on average by the endpoint with most, over the mean of all."""
        return max(self.held) * len(self.held) / sum(self.held)

    def quantile(self, share: float) -> float:
        return sorted(self.latencies)[int(share * len(self.latencies))]


def simulate(
    kind: str,
    *,
    endpoints: int = 100,
    load: float = 0.8,
    requests: int = 100_000,
    clients: int = 1,
    slow: Sequence[int] = (),
    slowness: float = 3.0,
    seed: int = 1,
) -> Load:
    """Poisson arrivals, endpoints that serve one request at a time for an exponential time (`slow` ones: so many times
    as long), each client with a LiveCluster of its own. The first fifth of the requests is not measured."""
    draws = random.Random(seed)
    tables = tuple(ClusterEndpoint(f"10.0.0.{n}", 80, Endpoint(f"10.0.0.{n}", 80)) for n in range(endpoints))
    config = Cluster("outbound|80||web", "web", 80, "", tables, load_balancer=LoadBalancer(kind))
    lives = [LiveCluster(config, 0.0) for _ in range(clients)]
    place = {host.name: n for n, host in enumerate(lives[0].hosts)}
    free_at = [0.0] * endpoints
    ends: list[tuple[float, int, int, float]] = []
    found, now, measured_from, swept = Load(endpoints), 0.0, -1.0, 0.0
    capacity = sum(1 / slowness if n in slow else 1.0 for n in range(endpoints))
    for number in range(requests):
        now += draws.expovariate(load * capacity / SERVICE_S)
        while ends and ends[0][0] <= now:
            _end(heapq.heappop(ends), lives, found, measured_from)
        if now - swept >= 1.0:
            swept = now
            for live in lives:
                live.sweep(now)
        if number == requests // 5:
            measured_from = now
        client = draws.randrange(clients) if clients > 1 else 0
        host = lives[client].choose(None, draws.random)
        assert host is not None
        host.active += 1
        at = place[host.name]
        begins = max(now, free_at[at])
        free_at[at] = begins + draws.expovariate(1 / (SERVICE_S * (slowness if at in slow else 1.0)))
        heapq.heappush(ends, (free_at[at], client, at, now))
    return found


def _end(end: tuple[float, int, int, float], lives: list[LiveCluster], found: Load, measured_from: float) -> None:
    ended, client, at, began = end
    live = lives[client]
    host = live.hosts[at]
    host.active -= 1
    if live.measures:
        host.took(ended - began, ended)
    if measured_from >= 0 and began >= measured_from:
        found.served[at] += 1
        found.held[at] += ended - began
        found.latencies.append(ended - began)


def show(name: str, told: Load, more: str = "") -> None:
    times = ", ".join(f"p{100 * share:g} {1000 * told.quantile(share):.0f} ms" for share in (0.5, 0.99, 0.999))
    print(f"  {name:14} served {told.worst_served:.3f}, held {told.worst_held:.3f}; {times}{more}")


if __name__ == "__main__":
    KINDS = ("least_request", "peak_ewma", "round_robin", "random")
    print("100 endpoints, 80 % load, 100,000 requests. Worst endpoint over the mean: served, held on average.")
    for count in (1, 10):
        print(f"{count} clients")
        for one in KINDS:
            show(one, simulate(one, clients=count))
    print("1 client, 5 of the endpoints ten times as slow")
    for one in KINDS:
        result = simulate(one, slow=range(5), slowness=10.0)
        show(one, result, f"; to the slow ones {sum(result.served[:5]) / sum(result.served):.2%}")
