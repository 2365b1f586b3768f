"""What the workers of one proxy share about clusters with limits: plain integers in memory that all of them map.

Each worker has a row of its own and is the only one that writes to it, so that nothing is lost without atomic
operations, and the row of a worker that died is set to zero by the supervisor. A limit is compared with the worker's
own count plus the rows of the others, and what is admitted is published at once, in the same turn of the loop. Workers
that look at the same moment may both admit; with N workers a limit can therefore be passed by N - 1, and by no more.
The exception is maxConnections for HTTP: a worker without a connection to an endpoint may always open one.

Behind the rows stand the buckets of local rate limits, one number each, which all workers change (proxy/rate_limit.py).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping

from ..policy.rate_limits import PROXY, Limit
from ..policy.tables import PoolLimits, Tables
from ..proxy.cluster import LiveCluster
from ..proxy.host import Host
from ..proxy.rate_limit import FULL, Cell

CLUSTERS_MAX = 16384
"""Clusters with limits that can share; the memory of those that are not there is never touched."""
KINDS = 4
"""Integers of 64 bits for each worker and cluster: active, connections, pending, retrying (proxy/cluster.py)."""

BUCKETS_MAX = 4096
"""Buckets of local rate limits that can be shared."""


def size(workers: int) -> int:
    """Bytes of the memory."""
    return workers * CLUSTERS_MAX * KINDS * 8 + BUCKETS_MAX * 8


def buckets(memory: memoryview, workers: int) -> memoryview[float]:
    """The part of the memory where buckets are, as doubles."""
    return memory.cast("B")[workers * CLUSTERS_MAX * KINDS * 8 : size(workers)].cast("d")


def bucket_key(limit: Limit) -> str:
    """What a shared bucket goes by: another one where its numbers change."""
    return " ".join(map(str, (limit.label, *limit.shape)))


def wanted_buckets(tables: Tables) -> list[str]:
    rules = tables.rate_limits
    return [] if rules is None else [bucket_key(limit) for limit in rules.all() if limit.per == PROXY]


def limited(limits: PoolLimits) -> bool:
    """Whether there is anything to share."""
    counted = limits.max_requests or limits.max_connections or limits.max_pending or limits.max_retries
    return bool(counted) or limits.retry_percent >= 0


class Places:
    """Which cluster (or bucket) counts where; kept by the supervisor, who tells the workers."""

    def __init__(self, most: int = CLUSTERS_MAX) -> None:
        self._taken: dict[str, int] = {}
        self._free: deque[int] = deque(range(most))
        """A place that was given back is used again last: its requests may still run."""

    def assigned(self) -> Mapping[str, int]:
        return self._taken

    def assign(self, names: Iterable[str]) -> Mapping[str, int]:
        """A place for each; who has one keeps it. Names for which no place is left get none."""
        wanted = dict.fromkeys(names)
        for name in [name for name in self._taken if name not in wanted]:
            self._free.append(self._taken.pop(name))
        for name in wanted:
            if name not in self._taken and self._free:
                self._taken[name] = self._free.popleft()
        return self._taken


Tell = Callable[[str, str, float, int, str], None]
"""(cluster, host, until, ejections, why) of an ejection, to the other workers."""


class ClusterCounts:
    """`Shared` of proxy/cluster.py: one cluster as one worker sees it."""

    __slots__ = ("_memory", "_mine", "_tell", "_theirs")

    def __init__(self, memory: memoryview, mine: int, theirs: tuple[int, ...], tell: Tell) -> None:
        self._memory = memory
        self._mine = mine
        self._theirs = theirs
        self._tell = tell

    def publish(self, live: LiveCluster) -> None:
        if (at := self._mine) >= 0:
            memory = self._memory
            memory[at] = live.active
            memory[at + 1] = live.connections
            memory[at + 2] = live.pending
            memory[at + 3] = live.retrying

    def others(self, kind: int) -> int:
        memory, total = self._memory, 0
        for at in self._theirs:
            total += memory[at + kind]
        return total

    def clear(self) -> None:
        if (at := self._mine) >= 0:
            self._memory[at : at + KINDS] = _ZEROS

    def ejected(self, live: LiveCluster, host: Host) -> None:
        health = host.health
        self._tell(live.config.name, host.name, health.ejected_until, health.ejections, health.why)


_ZEROS = memoryview(bytes(KINDS * 8)).cast("q")


class SharedCounts:
    """All clusters as worker `me` of `workers` sees them. `memory`: `size(workers)` bytes that all of them map."""

    def __init__(self, memory: memoryview, workers: int, me: int, tell: Tell) -> None:
        self._memory = memory.cast("B").cast("q")
        self._workers = workers
        self._me = me
        self._tell = tell
        self.places: Mapping[str, int] = {}
        self.bucket_places: Mapping[str, int] = {}
        self._buckets = buckets(memory, workers)

    def cell_of(self, limit: Limit) -> Cell | None:
        """Where the bucket of a limit is (Engine.share_limits); None: there is no room, so each worker has its own."""
        place = self.bucket_places.get(bucket_key(limit))
        return (self._buckets, place) if place is not None else None

    def share(self, live: LiveCluster) -> None:
        """Let a cluster take part where its limits or its outlier detection ask for it (Engine.share)."""
        config = live.config
        place = self.places.get(config.name, -1) if limited(config.limits) else -1
        before = live.shared
        if place < 0 and config.outlier is None:
            live.shared = None
        else:
            rows = [(worker * CLUSTERS_MAX + place) * KINDS for worker in range(self._workers)] if place >= 0 else []
            mine = rows.pop(self._me) if rows else -1
            live.shared = ClusterCounts(self._memory, mine, tuple(rows), self._tell)
            live.shared.publish(live)
        if isinstance(before, ClusterCounts) and (live.shared is None or before._mine != live.shared._mine):
            before.clear()


class SharedBuckets:
    """The supervisor's side: who has which place, and that each begins full."""

    def __init__(self) -> None:
        self._places = Places(BUCKETS_MAX)
        self._memory: memoryview[float] | None = None

    def begin(self, memory: memoryview, workers: int) -> None:
        """There is memory now; before workers look at it."""
        self._memory = buckets(memory, workers)
        for place in self._places.assigned().values():
            self._memory[place] = FULL

    def assign(self, keys: list[str]) -> bool:
        """A place for each; whether there was room for all."""
        before = set(self._places.assigned())
        places = self._places.assign(keys)
        if self._memory is not None:
            for key in places.keys() - before:
                self._memory[places[key]] = FULL
        return len(places) == len(set(keys))

    def assigned(self) -> Mapping[str, int]:
        return self._places.assigned()


def forget(memory: memoryview, worker: int) -> None:
    """Nothing is under way in a worker that is no more."""
    row = CLUSTERS_MAX * KINDS * 8
    view = memory.cast("B")
    piece = 1 << 16
    zeros = bytes(piece)
    for at in range(worker * row, (worker + 1) * row, piece):
        if any(view[at : at + piece]):  # reading a page that nobody wrote does not make it ours
            view[at : at + piece] = zeros
