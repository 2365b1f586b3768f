"""A world without sockets and clocks for the proxy's cores: transports, an engine, clusters, in the test's hands."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from typing import Any

from fairlead.policy.resources import MeshConfig
from fairlead.policy.tables import (
    Arrival,
    Cluster,
    ClusterEndpoint,
    Decision,
    Destination,
    LoadBalancer,
    PoolLimits,
    RetryPolicy,
    Tables,
    Verdict,
    Viewpoint,
)
from fairlead.proxy.cluster import LiveCluster
from fairlead.proxy.connection import Downstream
from fairlead.proxy.connection2 import Downstream2
from fairlead.proxy.core import Core, Rules
from fairlead.proxy.host import Host
from fairlead.proxy.limits import Settings
from fairlead.proxy.message import Outcome
from fairlead.proxy.mirror import Mirror as MirrorCopy
from fairlead.proxy.pool import Pool
from fairlead.proxy.upstream import Upstream
from fairlead.proxy.upstream2 import Connection2
from fairlead.registry.model import Endpoint, Workload
from fairlead.registry.snapshot import Snapshot


class Transport:
    """What a core does to its transport, written down."""

    def __init__(self, tls: bool = False) -> None:
        self.written = b""
        self.eof = False
        self.closed = False
        self.aborted = False
        self.was_reset = False
        self.paused = False
        self.protocol: Any = None
        self.full_at = 0
        """Octets beyond which the protocol is told to pause; 0: never."""
        self.told_full = False
        self.most = 0
        """Most octets that ever waited here."""
        self.extra = {"sslcontext": object() if tls else None, "peername": ("10.0.0.9", 4711)}

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self.extra.get(name, default)

    def write(self, data: bytes) -> None:
        assert not self.closed, "written after close"
        assert not self.eof, "written after write_eof"
        self.written += data
        self.most = max(self.most, len(self.written))
        if self.full_at and len(self.written) > self.full_at and not self.told_full:
            self.told_full = True
            self.protocol.pause_writing()

    def take(self, most: int = 1 << 60) -> bytes:
        """What was written since the last look; the peer reads it."""
        written, self.written = self.written[:most], self.written[most:]
        if self.told_full and len(self.written) < self.full_at // 4:
            self.told_full = False
            self.protocol.resume_writing()
        return written

    def get_write_buffer_size(self) -> int:
        return len(self.written) if self.full_at else 0

    def write_eof(self) -> None:
        self.eof = True

    def can_write_eof(self) -> bool:
        return self.extra["sslcontext"] is None

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = self.aborted = True

    def flush(self) -> None: ...

    def reset(self) -> None:
        self.was_reset = True
        self.abort()

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol


class Live(LiveCluster):
    """A cluster that takes its hosts in order, and writes down what it was told."""

    def __init__(self, config: Cluster) -> None:
        super().__init__(config, 0.0)
        self.reports: list[tuple[str, int, bool]] = []

    def choose(self, key: str | None, draw: Callable[[], float], exclude: Any = None) -> Host | None:
        left = [host for host in self.hosts if host not in (exclude or ())] or self.hosts
        return left[0] if left else None

    def report(self, host: Host, status: int, local_failure: bool, now: float) -> None:
        self.reports.append((host.endpoint.address, status, local_failure))


class Timer:
    def __init__(self, at: float, callback: Callable[[], None]) -> None:
        self.at = at
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


def cluster(
    *addresses: str,
    limits: PoolLimits | None = None,
    balancer: LoadBalancer | None = None,
    egress: Verdict | None = None,
    name: str = "outbound|80||web",
    priorities: tuple[int, ...] = (),
) -> Cluster:
    """`priorities`: of the addresses, in order; else all have 0."""
    endpoints = tuple(
        ClusterEndpoint(address, 8080, Endpoint(address=address, port=8080), egress=egress, priority=priority)
        for address, priority in zip(addresses, priorities or (0,) * len(addresses), strict=True)
    )
    return Cluster(name, "web", 80, "", endpoints, limits=limits, load_balancer=balancer)


def route(name: str = "outbound|80||web", **fields: Any) -> Decision:
    given: dict[str, Any] = {
        "destinations": (Destination(name, "web", 80),),
        "virtual_service": "default/web",
        "route": "0",
        "retries": RetryPolicy(2, frozenset({"connect-failure"})),
    }
    given.update(fields)
    return Decision("route", **given)


def tables(*clusters: Cluster) -> Tables:
    return Tables(
        "1",
        Viewpoint(Workload(namespace="default", name="app-1", service_account="app")),
        MeshConfig(),
        Snapshot(),
        {found.name: found for found in clusters},
    )


class World(Core):
    """The engine of one test, and the hands that move it."""

    def __init__(self, *clusters: Cluster, decision: Decision | None = None, **settings: Any) -> None:
        own = tables(*(clusters or (cluster("10.0.0.1"),)))
        self.outcomes: list[Outcome] = []
        rules = Rules(
            self._decide,
            self.admit,
            lambda decision, _draw: decision.destinations[0],
            lambda _balancer, _request: None,
            lambda path, _setting: path,
            lambda _tables, _name: 0,
            lambda _tables, _host, _port: None,
        )
        super().__init__(
            own, Settings(**settings), lambda: self.time, lambda: next(self.draws), bytes, rules, self.outcomes.append
        )
        self.time = 1000.0
        self.draws: Iterator[float] = itertools.repeat(0.5)
        self.decision = decision or route()
        self.own_identity = "spiffe://cluster.local/ns/default/sa/app"
        self.connections: set[Any] = set()
        self.relays: set[Any] = set()
        self.sessions: set[Any] = set()
        self.mirrors = 0
        self.date = b""
        self.normalization = "MERGE_SLASHES"
        self.requests: list[Any] = []
        self.dialed: list[tuple[Upstream, Pool, Any]] = []
        self.timers: list[Timer] = []
        self.ids = itertools.count(1)
        self.tunnels: list[Any] = []
        self.endpoints_two = True
        """Endpoints take HTTP/2 where it is offered."""

    # what cores ask for

    def date_line(self) -> bytes:
        return self.date

    def place(self) -> tuple[float, str]:
        return 0.0, "machine"

    def later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self.time + delay_s, callback)
        self.timers.append(timer)
        return timer

    def new_id(self) -> str:
        return f"id-{next(self.ids)}"

    def normalize(self, path: str) -> str:
        from fairlead.policy.path_normalization import normalize_path

        return normalize_path(path, self.normalization)

    def _decide(self, _tables: Tables, request: Any) -> Decision:
        self.requests.append(request)
        return self.decision

    def admit(self, _tables: Tables, arrival: Arrival) -> Verdict:
        return Verdict(True)

    def pool(self, own: Tables, name: str) -> Pool | None:
        if name not in self.pools:
            config = own.clusters.get(name)
            if config is None:
                return None
            live: Any = Live(config)
            self.pools[name] = Pool(live, self._connect)
        return self.pools[name]

    def passthrough(self, arrival: Arrival, authority: str) -> Any:
        return "outside"

    def mirror(self, exchange: Any, mirror: Any) -> None:
        pool = self.pool(self.tables, mirror.cluster)
        assert pool is not None
        MirrorCopy(self, pool, pool.live.hosts[0], exchange, exchange.destination).start()

    def client_closed(self, downstream: Any) -> None: ...

    def connect_tunnel(self, downstream: Any, head: Any) -> None:
        self.tunnels.append((downstream, head))

    def _connect(self, pool: Pool, host: Any, two: bool) -> None:
        upstream: Any = Connection2(pool, host, self.clock) if two and self.endpoints_two else None
        if upstream is None:
            upstream = Upstream(pool, host, self.clock)
            upstream.asked_two = two
        self.dialed.append((upstream, pool, host))

    def serve_two(self, arrival: Arrival, transport: Any, first: bytes) -> None:
        downstream = Downstream2(self, arrival)
        transport.set_protocol(downstream)
        downstream.connection_made(transport)
        downstream.data_received(first)

    # what tests do

    def client(self, data: bytes = b"", listener: str = "outbound", identity: str = "", tls: bool = False) -> Any:
        """A new client connection, on which `data` has come."""
        arrival = Arrival(listener, source_ip="10.0.0.9", source_port=4711, identity=identity, tls=bool(identity))
        downstream = Downstream(self, arrival)
        transport = Transport(tls)
        transport.protocol = downstream
        downstream.connection_made(transport)
        if data:
            downstream.data_received(data)
        return downstream

    def connect(self, which: int = 0) -> tuple[Upstream, Transport]:
        """The connection that was asked for is made."""
        upstream, _pool, _host = self.dialed.pop(which)
        transport = Transport()
        transport.protocol = upstream
        upstream.connection_made(transport)
        upstream.ready()
        return upstream, transport

    def refuse(self, why: str = "No connection to 10.0.0.1:8080: connection refused.") -> None:
        """The connection that was asked for cannot be made."""
        upstream, pool, host = self.dialed.pop(0)
        pool.failed(host, why, upstream.asked_two)

    def pass_time(self, seconds: float) -> None:
        """Time goes by, and whoever asked to be woken is."""
        end = self.time + seconds
        while True:
            due = [timer for timer in self.timers if not timer.cancelled and timer.at <= end]
            if not due:
                break
            timer = min(due, key=lambda one: one.at)
            self.timers.remove(timer)
            self.time = max(self.time, timer.at)
            timer.callback()
        self.time = end

    def at_rest(self) -> bool:
        """Nothing is counted as running any more."""
        return not self.mirrors and all(
            pool.live.active == pool.live.pending == pool.live.retrying == 0
            and not pool.waiting
            and all(host.active == 0 for host in pool.live.hosts)
            and pool.live.connections == sum(host.connections for host in pool.live.hosts)
            for pool in self.pools.values()
        )


def lose(transport: Transport, error: Exception | None = None) -> None:
    """The transport ends, and says so."""
    transport.closed = True
    transport.protocol.connection_lost(error)
