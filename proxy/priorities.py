"""Which priorities of a cluster's hosts take how much of the traffic: spill-over and panic, as Envoy computes them.

A priority whose healthy share, times the overprovisioning factor of 1.4, is at least 1 takes all that comes to it; what
it cannot take spills over to the next. Where all of them together cannot take 100 %, what they can take is scaled up to
it. Below the panic threshold (minHealthPercent; 0 is never) a priority's hosts are all used, whatever their health,
unless the others make up for it; where every priority is in panic, traffic is shared by numbers of hosts.
Source: Envoy's architecture overview, "Priority levels", "Panic threshold", and LoadBalancerBase.
"""

from __future__ import annotations

from .balance import Balancer
from .host import Host

OVERPROVISIONING = 140
"""Percent."""


class Level:
    """The hosts of one priority."""

    __slots__ = ("all", "available", "balancer", "healthy", "load", "panic", "priority")

    def __init__(self, priority: int, hosts: list[Host]) -> None:
        self.priority = priority
        self.all = hosts
        self.healthy = [host for host in hosts if not host.health.ejected_until]
        self.available = min(100, OVERPROVISIONING * len(self.healthy) // len(hosts))
        """Percent of the traffic that it can take."""
        self.load = 0
        """Percent of the traffic that it takes."""
        self.panic = False
        self.balancer: Balancer | None = None
        """Made when it is first needed."""

    @property
    def used(self) -> list[Host]:
        return self.all if self.panic else self.healthy


def levels_of(hosts: list[Host]) -> list[Level]:
    """Hosts by priority, the nearest first."""
    by_priority: dict[int, list[Host]] = {}
    for host in hosts:
        by_priority.setdefault(host.endpoint.priority, []).append(host)
    return [Level(priority, by_priority[priority]) for priority in sorted(by_priority)]


def loads(available: list[int]) -> list[int]:
    """Percent of the traffic for each priority by what it can take; all 0 where none can take any."""
    total = min(sum(available), 100)
    found = [0] * len(available)
    if not total:
        return found
    left = 100
    for at, percent in enumerate(available):
        found[at] = min(left, percent * 100 // total)
        left -= found[at]
    # What rounding has left over.
    found[next(at for at, percent in enumerate(available) if percent)] += left
    return found


def share_out(levels: list[Level], panic_percent: int) -> None:
    """Set load and panic of every priority."""
    total = min(sum(level.available for level in levels), 100)
    for level in levels:
        level.panic = total < 100 and len(level.healthy) * 100 < panic_percent * len(level.all)
    if levels and all(level.panic for level in levels):
        hosts = sum(len(level.all) for level in levels)
        for level in levels:
            level.load = 100 * len(level.all) // hosts
        levels[0].load += 100 - sum(level.load for level in levels)
        return
    for level, load in zip(levels, loads([level.available for level in levels]), strict=True):
        level.load = load
    if not total:
        # So few are healthy that rounding leaves nothing (one of 141): still better than no answer.
        some = next((level for level in levels if level.healthy), None)
        if some is not None:
            some.load = 100


def locality_loads(level: Level) -> list[tuple[list[Host], float]]:
    """The hosts in use of each locality with its weight, less where more than 2 in 7 of its hosts are out (Envoy's
    locality weighted load balancing); in panic all hosts as one, by Envoy's rule."""
    if level.panic:
        return [(level.all, 1.0)]
    known: dict[str, list[Host]] = {}
    for host in level.all:
        known.setdefault(host.endpoint.endpoint.locality, []).append(host)
    found = []
    for hosts in known.values():
        healthy = [host for host in hosts if not host.health.ejected_until]
        if healthy:
            available = min(1.0, OVERPROVISIONING / 100 * len(healthy) / len(hosts))
            found.append((healthy, hosts[0].endpoint.locality_weight * available))
    return found


def hash_weights(hosts: list[Host]) -> list[float]:
    """Weights of hosts by which one ring or table for all gives each locality its percentage (as in Envoy)."""
    sums: dict[str, float] = {}
    for host in hosts:
        place = host.endpoint.endpoint.locality
        sums[place] = sums.get(place, 0.0) + host.weight
    return [host.weight * host.endpoint.locality_weight / sums[host.endpoint.endpoint.locality] for host in hosts]
