"""The live state of a cluster: its hosts, what each is doing, which are out, and who takes the next request.

Runs compiled (with cluster.pxd) or as it stands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection
from typing import Any, Protocol

from ..policy.tables import Cluster, OutlierPolicy, UpstreamTLS
from . import outlier
from .balance import HASHING, Balancer, Spread, balancer_for
from .host import UNMEASURED_S, Host
from .priorities import Level, hash_weights, levels_of, loads, locality_loads, share_out

EVENTS_KEPT = 100
REPICKS = 5
"""How often another host is drawn where the first was tried before (Envoy's previous-hosts predicate)."""

RETRY_PRIORITIES_EVERY = 2
"""After so many tries, and again after as many, retryRemoteLocalities turns to other priorities (Istio's setting)."""

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
        self.measures = config.load_balancer.kind == "peak_ewma"
        """Hosts are to be told how long their answers took (Host.took)."""
        self._next_sweep = 0.0
        self._warming = False
        self._balancer: Balancer | None = None
        self._levels: list[Level] = []
        self._begin_rates(now)
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
            return self._another(balancer, host, self.usable, draw, exclude)
        return host

    def choose_remote(
        self, key: str | None, draw: Callable[[], float], exclude: Collection[Host], attempted: list[Host]
    ) -> Host | None:
        """As `choose`, for a retry that may go on at priorities of none of the hosts `attempted` (Envoy's
        previous_priorities): after every second try, those tried are left out of the shares. Where that leaves none,
        all count again, and `attempted` is emptied."""
        counted = len(attempted) - len(attempted) % RETRY_PRIORITIES_EVERY
        levels = self._levels
        if not counted or len(levels) < 2:
            return self.choose(key, draw, exclude)
        tried = {host.endpoint.priority for host in attempted[:counted]}
        shares = loads([0 if level.priority in tried else level.available for level in levels])
        if not any(shares):
            attempted.clear()
            return self.choose(key, draw, exclude)
        point = draw() * 100
        at = 0
        while point >= shares[at]:
            point -= shares[at]
            at += 1
        level = levels[at]
        balancer = self._balancer_of(level)
        host = balancer.pick(key, draw)
        return self._another(balancer, host, level.used, draw, exclude) if host in exclude else host

    def _another(
        self,
        balancer: Balancer,
        host: Host,
        usable: list[Host],
        draw: Callable[[], float],
        exclude: Collection[Host],
    ) -> Host:
        """A host that is not excluded, if there is one."""
        for _ in range(REPICKS):
            host = balancer.pick(None, draw)
            if host not in exclude:
                return host
        for other in usable:
            if other not in exclude:
                return other
        return host

    def report(self, host: Host, status: int, local_failure: bool, now: float) -> None:
        """How an attempt ended: its status, or 0 and `local_failure` where there was no answer."""
        policy = self.config.outlier
        if self.measures and (local_failure or status >= 500):
            host.failed(now)
        if policy is None or (
            policy.simple and status and status < 500 and not local_failure and not host.health.consecutive_5xx
        ):
            return
        why = outlier.judge(policy, host.health, status, local_failure)
        if why and self._eject(policy, host, why, now):
            self._rebuild()

    def _eject(self, policy: OutlierPolicy, host: Host, why: str, now: float) -> bool:
        """Take the host out where the policy allows one more; whether it did. The caller rebuilds."""
        if host.health.ejected_until or not outlier.may_eject(policy, self.ejected, len(self.hosts)):
            return False
        outlier.eject(policy, host.health, why, now)
        self.ejected += 1
        self.ejections_total += 1
        self.events.append((now, host.name, f"ejected for {host.health.ejected_until - now:g} s: {why}"))
        if not self._next_sweep:
            self._next_sweep = now + policy.interval_s
        if self.shared is not None:
            self.shared.ejected(self, host)
        return True

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

    def _begin_rates(self, now: float) -> None:
        """Success rates are looked at at every sweep, whether a host is out or not; in all workers at the same moments,
        so that a host that one of them takes out comes back in all at once."""
        policy = self.config.outlier
        if policy is not None and policy.success_hosts:
            self._next_sweep = now - now % policy.interval_s + policy.interval_s

    def wake_at(self) -> float | None:
        """When `sweep` must be called next; None: nothing is out, to be judged or to forget. While hosts warm up or
        latencies are measured, every call of it goes on with that."""
        return self._next_sweep or None

    def sweep(self, now: float) -> None:
        """Let hosts return whose time is over, and judge success rates, at `wake_at`. Called about every second."""
        if self._warming or self.measures:
            warming = self._warming
            self._settle(now)
            for level in self._levels if warming else ():
                if level.balancer is not None:
                    level.balancer.reweigh()
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
            host.warm_from = now
        self.ejected -= len(back)
        changed = bool(back)
        if policy is not None and policy.success_hosts:
            for host, why in outlier.below_mean(policy, self.hosts):
                changed = self._eject(policy, host, why, now) or changed
        busy = any(host.health.ejected_until or host.health.ejections for host in self.hosts)
        self._next_sweep = now + policy.interval_s if policy is not None and busy else 0.0
        self._begin_rates(now)
        if back:
            self._settle(now)
        if changed:
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
        # Of one that is new nothing is known: it is taken for as fast as the others.
        usual_s = sum(host.latency_s for host in self.hosts) / len(self.hosts) if self.hosts else UNMEASURED_S
        for endpoint in config.endpoints:
            known = before.get(f"{endpoint.address}:{endpoint.port}")
            if known:
                host = known.pop()
            else:
                host = Host(endpoint)
                host.warm_from = now
                host.took(usual_s, now)
            if _differ(host.endpoint.tls, endpoint.tls):
                changed.append(host)
                old, host = host, Host(endpoint)
                host.health, host.warm_from = old.health, old.warm_from
                host.took(old.latency_s, now)
            host.endpoint = endpoint
            kept.append(host)
        self.config = config
        self.hosts = kept
        self.measures = config.load_balancer.kind == "peak_ewma"
        if config.outlier is None:
            for host in kept:
                host.health = outlier.Health()
            self._next_sweep = 0.0
        self._begin_rates(now)
        self._settle(now)
        self._rebuild()
        gone = [*changed, *(host for hosts in before.values() for host in hosts)]
        for host in gone:
            host.gone = True
        return gone

    def _rebuild(self) -> None:
        """Share the traffic out among priorities; almost always there is one, and its balancer is asked directly."""
        policy = self.config.outlier
        levels = levels_of(self.hosts)
        share_out(levels, policy.min_health_percent if policy is not None else 0)
        self._levels = levels
        self.ejected = len(self.hosts) - sum(len(level.healthy) for level in levels)
        used = [level for level in levels if level.load and level.used]
        self.usable = [host for level in used for host in level.used]
        if len(used) > 1:
            self._balancer = Spread([self._balancer_of(level) for level in used], [float(one.load) for one in used])
        else:
            self._balancer = self._balancer_of(used[0]) if used else None

    def _balancer_of(self, level: Level) -> Balancer:
        """The balancer of one priority with hosts in use; by locality first where the tables say so."""
        if level.balancer is None:
            settings, hosts = self.config.load_balancer, level.used
            if not hosts[0].endpoint.locality_weight:
                level.balancer = balancer_for(settings, hosts)
            elif settings.kind in HASHING:
                level.balancer = balancer_for(settings, hosts, hash_weights(hosts))
            else:
                parts = locality_loads(level)
                level.balancer = balancer_for(settings, parts[0][0])
                if len(parts) > 1:
                    balancers = [level.balancer, *(balancer_for(settings, hosts) for hosts, _ in parts[1:])]
                    level.balancer = Spread(balancers, [share for _, share in parts])
        return level.balancer

    def _settle(self, now: float) -> None:
        """Set the weights of hosts that warm up, and let latencies fade."""
        warmup = self.config.load_balancer.warmup
        self._warming = False
        for host in self.hosts:
            if host.warm(warmup, now):
                self._warming = True
        if self.measures:
            for host in self.hosts:
                host.fade(now)

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
            if len(self._levels) > 1:
                told["priority"] = str(host.endpoint.priority)
            if host.warm_from >= 0:
                told["warming_up"] = f"{100 * host.weight / max(host.endpoint.weight, 1):.0f} % of its share"
            if self.measures:
                told["latency"] = f"{1000 * host.latency_s:.1f} ms"
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
            "priorities": [
                {
                    "priority": level.priority,
                    "healthy": f"{len(level.healthy)} of {len(level.all)}",
                    "traffic": f"{level.load} %",
                    "panic": level.panic,
                }
                for level in self._levels
            ],
            "events": [
                {"seconds_ago": round(now - at, 1), "host": host, "what": what} for at, host, what in self.events
            ],
            "hosts": hosts,
        }


def _differ(one: UpstreamTLS | None, other: UpstreamTLS | None) -> bool:
    if one is None or other is None:
        return one is not other
    return one is not other and any(getattr(one, name) != getattr(other, name) for name in UpstreamTLS.__slots__)
