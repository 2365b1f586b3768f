"""Balancers: which of a cluster's hosts takes the next request. Pure classes; draws are numbers in [0, 1).

Runs compiled (with balance.pxd) or as it stands.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable
from itertools import accumulate
from math import ceil, inf, log2
from typing import TYPE_CHECKING

from ..registry.digest import blake2b
from .host import Host

if TYPE_CHECKING:
    from ..policy.tables import LoadBalancer

Draw = Callable[[], float]
RING_POINTS_MAX = 1 << 16
HASHING = ("ring_hash", "maglev")


class Balancer:
    """Made anew for every change of the set of usable hosts."""

    def pick(self, key: str | None, draw: Draw) -> Host:
        raise NotImplementedError

    def reweigh(self) -> None:
        """Weights of hosts have changed (they warm up): go on with the new ones. Only where Warmup is for this kind."""


def hash64(text: str) -> int:
    """A number of 64 bits that is the same in every process."""
    return int.from_bytes(blake2b(text.encode("utf-8", "surrogateescape"), digest_size=8).digest(), "big")


class RoundRobin(Balancer):
    """Smooth weighted round robin: each host in its share, evenly spread (nginx's algorithm)."""

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts
        self.current = [0.0] * len(hosts)
        self.turn = -1
        self.reweigh()

    def reweigh(self) -> None:
        self.weights = [host.weight for host in self.hosts]
        self.equal = len(set(self.weights)) <= 1
        self.total = sum(self.weights)

    def pick(self, key: str | None, draw: Draw) -> Host:
        if self.equal:
            if self.turn < 0:
                self.turn = int(draw() * len(self.hosts))  # so that many clients do not all begin with the first
            self.turn += 1
            if self.turn >= len(self.hosts):
                self.turn = 0
            return self.hosts[self.turn]
        weights, current = self.weights, self.current
        best, most = 0, -inf
        for index in range(len(weights)):
            value = current[index] + weights[index]
            current[index] = value
            if value > most:
                best, most = index, value
        current[best] = most - self.total
        return self.hosts[best]


class LeastRequest(Balancer):
    """Two hosts at random, and of these the one with fewer requests in flight; with weights, per weight.

    Envoy's P2C for equal weights. With weights, the draws are by weight and the comparison is of requests per weight.
    """

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts
        self.random = WeightedRandom(hosts)

    def reweigh(self) -> None:
        self.random = WeightedRandom(self.hosts)

    def pick(self, key: str | None, draw: Draw) -> Host:
        hosts = self.hosts
        count = len(hosts)
        if count == 1:
            return hosts[0]
        if self.random.equal:
            first = int(draw() * count)
            second = int(draw() * (count - 1))
            if second >= first:
                second += 1
            one, other = hosts[first], hosts[second]
            return one if one.active <= other.active else other
        one, other = self.random.pick(None, draw), self.random.pick(None, draw)
        # Equally busy: the first, which was drawn by weight; so shares keep to the weights without load, too.
        return one if one.active * other.weight <= other.active * one.weight else other


class PeakEwma(Balancer):
    """Two hosts at random, and of these the one that would answer first: latency, times requests in flight and one.

    The latency (Host.took) is a moving average that takes any higher value at once and forgets it in seconds. As in
    Finagle and Linkerd; Envoy has no such balancer.
    """

    def __init__(self, hosts: list[Host]) -> None:
        self.hosts = hosts
        self.random = WeightedRandom(hosts)

    def pick(self, key: str | None, draw: Draw) -> Host:
        hosts = self.hosts
        count = len(hosts)
        if count == 1:
            return hosts[0]
        if self.random.equal:
            first = int(draw() * count)
            second = int(draw() * (count - 1))
            if second >= first:
                second += 1
            one, other = hosts[first], hosts[second]
        else:
            one, other = self.random.pick(None, draw), self.random.pick(None, draw)
        left = one.latency_s * (one.active + 1) * other.weight
        right = other.latency_s * (other.active + 1) * one.weight
        return one if left <= right else other


class WeightedRandom(Balancer):
    def __init__(self, hosts: list[Host], weights: list[float] | None = None) -> None:
        """`weights`: others than the hosts' own."""
        self.hosts = hosts
        self.sums = list(accumulate(weights if weights is not None else [host.weight for host in hosts]))
        self.equal = len({*weights} if weights is not None else {host.weight for host in hosts}) <= 1

    def pick(self, key: str | None, draw: Draw) -> Host:
        if self.equal:
            return self.hosts[int(draw() * len(self.hosts))]
        sums = self.sums
        # Sums are exclusive upper ends; a draw next to 1 may be rounded up to the last of them.
        at = bisect_right(sums, draw() * sums[-1])
        return self.hosts[at if at < len(sums) else at - 1]


class Spread(Balancer):
    """Several balancers, each with its share of the requests: of priorities, and of localities."""

    def __init__(self, parts: list[Balancer], shares: list[float]) -> None:
        self.parts = parts
        self.ends = list(accumulate(shares))

    def reweigh(self) -> None:
        for part in self.parts:
            part.reweigh()

    def pick(self, key: str | None, draw: Draw) -> Host:
        # A key stays with one priority, too, while shares are the same.
        point = draw() if key is None else hash64(key) % 100 / 100
        ends = self.ends
        at = bisect_right(ends, point * ends[-1])
        part: Balancer = self.parts[at if at < len(ends) else at - 1]
        return part.pick(key, draw)


class RingHash(Balancer):
    """Consistent hashing on a ring of at least `size` points, shared out by weight (`weights`: not the hosts' own)."""

    def __init__(self, hosts: list[Host], size: int, weights: list[float] | None = None) -> None:
        self.hosts = hosts
        weights = weights if weights is not None else [host.weight for host in hosts]
        self.random = WeightedRandom(hosts, weights)
        least, total = min(weights), sum(weights)
        points: list[tuple[int, int]] = []
        # A power of two, so that it is mostly the same when a host comes or goes: then no key of the others moves.
        scale = min(2.0 ** ceil(log2(max(size / total, 1 / least))), RING_POINTS_MAX / total)
        for index, (host, weight) in enumerate(zip(hosts, weights, strict=True)):
            name = host.name
            points += [(hash64(f"{name}_{n}"), index) for n in range(max(ceil(weight * scale), 1))]
        points.sort()
        self.points = [point for point, _ in points]
        self.owners = [index for _, index in points]

    def pick(self, key: str | None, draw: Draw) -> Host:
        if key is None:
            return self.random.pick(None, draw)
        at = bisect_left(self.points, hash64(key))
        return self.hosts[self.owners[at if at < len(self.owners) else 0]]


class Maglev(Balancer):
    """Maglev's table: even shares, and little disruption when a host comes or goes (Eisenbud et al., NSDI 2016)."""

    def __init__(self, hosts: list[Host], size: int, weights: list[float] | None = None) -> None:
        """`weights`: others than the hosts' own."""
        self.hosts = hosts
        weights = weights if weights is not None else [host.weight for host in hosts]
        self.random = WeightedRandom(hosts, weights)
        self.table = [-1] * size
        most = max(weights)
        offsets = [hash64(host.name) % size for host in hosts]
        skips = [hash64("skip_" + host.name) % (size - 1) + 1 for host in hosts]
        upcoming = [0] * len(hosts)
        credit = [0.0] * len(hosts)
        filled = 0
        while filled < size:
            for index, weight in enumerate(weights):
                credit[index] += weight / most
                if credit[index] < 1.0:
                    continue
                credit[index] -= 1.0
                while True:
                    slot = (offsets[index] + upcoming[index] * skips[index]) % size
                    upcoming[index] += 1
                    if self.table[slot] < 0:
                        break
                self.table[slot] = index
                filled += 1
                if filled == size:
                    break

    def pick(self, key: str | None, draw: Draw) -> Host:
        if key is None:
            return self.random.pick(None, draw)
        return self.hosts[self.table[hash64(key) % len(self.table)]]


def balancer_for(settings: LoadBalancer, hosts: list[Host], weights: list[float] | None = None) -> Balancer:
    """The balancer that a DestinationRule asks for, over a non-empty set of hosts; `weights`: of HASHING."""
    if settings.kind == "round_robin":
        return RoundRobin(hosts)
    if settings.kind == "random":
        return WeightedRandom(hosts)
    if settings.kind == "ring_hash":
        return RingHash(hosts, settings.table_size, weights)
    if settings.kind == "maglev":
        return Maglev(hosts, settings.table_size, weights)
    if settings.kind == "peak_ewma":
        return PeakEwma(hosts)
    return LeastRequest(hosts)
