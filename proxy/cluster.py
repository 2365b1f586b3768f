"""The live state of a cluster: its hosts, what each is doing, which are out, and who takes the next request.

Runs compiled (with cluster.pxd) or as it stands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Protocol

from ..policy.tables import Cluster, UpstreamTLS
from . import outlier
from .balance import Balancer, balancer_for
from .host import Host

EVENTS_KEPT = 100
REPICKS = 5
"""How often another host is drawn where the first was tried before (Envoy's previous-hosts predicate)."""

ACTIVE, CONNECTIONS, PENDING, RETRYING = range(4)
"""Kinds of counts that workers of one proxy share."""


class Shared(Protocol):
    """What several workers of one proxy know of each other about one cluster; see mesh/shared_counts.py."""

    def publish(self, live: LiveCluster) -> None:
        """Let the others see how much is under way here."""
        ...

    def others(self, kind: int) -> int:
        """How much is under way in all the others."""
        ...

    def ejected(self, live: LiveCluster, host: Host) -> None:
        """Tell the others that this host is out."""
        ...


class LiveCluster:
    """State of one cluster by its tables; survives changes of them (`update`)."""

    def __init__(self, config: Cluster, now: float) -> None:
        self.config = config
        self.hosts: list[Host] = [Host(endpoint) for endpoint in config.endpoints]
        self.usable: list[Host] = []
        self.active = 0
        self.connections = 0
        self.pending = 0
        self.retrying = 0
        self.requests = 0
        self.ejected = 0
        self.ejections_total = 0
        self.events: deque[tuple[float, str, str]] = deque(maxlen=EVENTS_KEPT)
        """(now, host, what happened) of ejections and returns."""
        self.shared: Shared | None = None
        """None: there is one worker, or this cluster has neither limits nor outlier detection."""
        self._next_sweep = 0.0
        self._balancer: Balancer | None = None
        self._rebuild()

    def elsewhere(self, kind: int) -> int:
        """What other workers have under way. Asked for only where there is a limit."""
        return 0 if self.shared is None else self.shared.others(kind)

    def choose(
        self, key: str | None, draw: Callable[[], float], exclude: Collection[Host] | None = None
    ) -> Host | None:
        """The host for the next request; None: none is usable. `exclude`: those tried before, avoided if possible."""
        balancer = self._balancer
        if balancer is None:
            return None
        host = balancer.pick(key, draw)
        if exclude and host in exclude:
            for _ in range(REPICKS):
                host = balancer.pick(None, draw)
                if host not in exclude:
                    return host
            for other in self.usable:
                if other not in exclude:
                    return other
        return host

    def report(self, host: Host, status: int, local_failure: bool, now: float) -> None:
        """How an attempt ended: its status, or 0 and `local_failure` where there was no answer."""
        policy = self.config.outlier
        if policy is None or (
            status and status < 500 and not local_failure and not host.health.consecutive_5xx and not policy.split
        ):
            return
        why = outlier.judge(policy, host.health, status, local_failure)
        if not why or host.health.ejected_until or not outlier.may_eject(policy, self.ejected, len(self.hosts)):
            return
        outlier.eject(policy, host.health, why, now)
        self.ejections_total += 1
        self.events.append((now, host.name, f"ejected for {host.health.ejected_until - now:g} s: {why}"))
        if not self._next_sweep:
            self._next_sweep = now + policy.interval_s
        self._rebuild()
        if self.shared is not None:
            self.shared.ejected(self, host)

    def take_ejection(self, name: str, until: float, ejections: int, why: str, now: float) -> None:
        """Another worker has put the host `name` out until then (this machine's monotonic clock)."""
        policy = self.config.outlier
        for host in self.hosts:
            health = host.health
            if host.name != name or policy is None or until <= max(now, health.ejected_until):
                continue
            health.ejected_at, health.ejected_until, health.why = now, until, why
            health.ejections = max(health.ejections, ejections)
            health.consecutive_5xx = health.consecutive_gateway = health.consecutive_local = 0
            self.events.append((now, name, f"ejected by another worker for {until - now:g} s: {why}"))
            if not self._next_sweep:
                self._next_sweep = now + policy.interval_s
            self._rebuild()

    def wake_at(self) -> float | None:
        """When `sweep` must be called next; None: nothing is out and nothing to forget."""
        return self._next_sweep or None

    def sweep(self, now: float) -> None:
        """Let hosts return whose time is over. Before `wake_at`, nothing happens."""
        if not self._next_sweep or now < self._next_sweep:
            return
        policy = self.config.outlier
        if policy is None:
            back = [host for host in self.hosts if host.health.ejected_until]
            for host in back:
                host.health = outlier.Health()
        else:
            back = outlier.sweep(self.hosts, now)
        for host in back:
            self.events.append((now, host.name, "back"))
        busy = any(host.health.ejected_until or host.health.ejections for host in self.hosts)
        self._next_sweep = now + policy.interval_s if policy is not None and busy else 0.0
        if back:
            self._rebuild()

    def update(self, config: Cluster, now: float) -> list[Host]:
        """Take new tables: the state of endpoints that stay is kept. Returns the hosts that are gone.

        An endpoint whose TLS changes is another host with the same health: no connection of before may be used again.
        """
        if config is self.config:
            return []
        before: dict[str, list[Host]] = {}
        for host in reversed(self.hosts):
            before.setdefault(host.name, []).append(host)
        kept, changed = [], []
        for endpoint in config.endpoints:
            known = before.get(f"{endpoint.address}:{endpoint.port}")
            host = known.pop() if known else Host(endpoint)
            if _differ(host.endpoint.tls, endpoint.tls):
                changed.append(host)
                health, host = host.health, Host(endpoint)
                host.health = health
            host.endpoint = endpoint
            kept.append(host)
        self.config = config
        self.hosts = kept
        if config.outlier is None:
            for host in kept:
                host.health = outlier.Health()
            self._next_sweep = 0.0
        self._rebuild()
        gone = [*changed, *(host for hosts in before.values() for host in hosts)]
        for host in gone:
            host.gone = True
        return gone

    def _rebuild(self) -> None:
        """Usable: the best priority with healthy hosts; all of it where fewer than min_health_percent are healthy."""
        healthy = [host for host in self.hosts if not host.health.ejected_until]
        self.ejected = len(self.hosts) - len(healthy)
        policy = self.config.outlier
        panic = policy is not None and len(healthy) * 100 < policy.min_health_percent * len(self.hosts)
        candidates = self.hosts if panic else healthy
        if candidates:
            best = min([host.endpoint.priority for host in candidates])
            candidates = [host for host in candidates if host.endpoint.priority == best]
        self.usable = candidates
        self._balancer = balancer_for(self.config.load_balancer, candidates) if candidates else None

    def describe(self, now: float) -> dict[str, Any]:
        """For people: every host with what it does, and where it is out, why and for how long."""
        hosts = []
        for host in self.hosts:
            told: dict[str, Any] = {
                "address": host.name,
                "active": host.active,
                "connections": host.connections,
                "idle": len(host.idle),
                "requests": host.requests,
            }
            if host.health.ejected_until:
                told["ejected"] = host.health.why
                told["ejected_for_s"] = round(max(host.health.ejected_until - now, 0.0), 1)
            hosts.append(told)
        return {
            "name": self.config.name,
            "destination_rule": self.config.rule,
            "active": self.active,
            "connections": self.connections,
            "pending": self.pending,
            "retrying": self.retrying,
            "ejections": self.ejections_total,
            "events": [
                {"seconds_ago": round(now - at, 1), "host": host, "what": what} for at, host, what in self.events
            ],
            "hosts": hosts,
        }


def _differ(one: UpstreamTLS | None, other: UpstreamTLS | None) -> bool:
    if one is None or other is None:
        return one is not other
    return one is not other and any(getattr(one, name) != getattr(other, name) for name in UpstreamTLS.__slots__)
