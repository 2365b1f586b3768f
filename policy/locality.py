"""Locality: endpoint priorities for failover, and shares of localities for a distribution, as Istio sets them.

What the proxy makes of priorities (spill-over, panic) and of shares is in proxy/priorities.py.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..registry.model import Endpoint, Workload
from .resources import LocalityDistribute, LocalityFailover, LocalityLbSetting
from .tables import Cluster, ClusterEndpoint

OTHER = 3
FAR = 4
RANKS = FAR + 1
TOPOLOGY = ("topology.kubernetes.io/region", "topology.kubernetes.io/zone", "topology.istio.io/subzone")
"""Labels for region, zone and subzone, which Istio gives to every workload that lacks them."""
_NONE = LocalityLbSetting()


def levels(locality: str) -> tuple[str, str, str]:
    """(region, zone, subzone) of `region/zone/subzone`, empty where not known."""
    parts = [*locality.split("/"), "", ""]
    return parts[0], parts[1], parts[2]


def distance(client: str, endpoint: str) -> int:
    """0 same subzone, 1 same zone, 2 same region, 3 elsewhere."""
    own, other = levels(client), levels(endpoint)
    if own[0] != other[0]:
        return OTHER
    if own[1] != other[1]:
        return 2
    return 1 if own[2] != other[2] else 0


def arrange(
    endpoints: Sequence[ClusterEndpoint], client: Workload, settings: LocalityLbSetting | None, detects_outliers: bool
) -> tuple[ClusterEndpoint, ...]:
    """The endpoints with priorities, or with weights of their localities. Failover takes effect with outlier detection
    only; with `failoverPriority`, localities order what its labels leave equal if `failover` is given too (Istio)."""
    wanted = settings if settings is not None else _NONE
    if wanted.enabled is False:
        return tuple(endpoints)
    if wanted.distribute:
        return _distributed(endpoints, client, wanted.distribute)
    if not detects_outliers or (not client.locality and not wanted.failover_priority):
        return tuple(endpoints)
    ranks = [0] * len(endpoints)
    if wanted.failover_priority:
        ranks = [_label_rank(client, one.endpoint, wanted.failover_priority) for one in endpoints]
    if wanted.failover or not wanted.failover_priority:
        places = [_rank(client.locality, one.endpoint.locality, wanted.failover) for one in endpoints]
        ranks = [rank * RANKS + place for rank, place in zip(ranks, places, strict=True)]
    order = {rank: priority for priority, rank in enumerate(sorted(set(ranks)))}
    for one, rank in zip(endpoints, ranks, strict=True):
        one.priority = order[rank]
    return tuple(endpoints)


def _rank(client: str, endpoint: str, failover: Sequence[LocalityFailover]) -> int:
    rank = distance(client, endpoint)
    if rank == OTHER:
        own = levels(client)[0]
        entry = next((entry for entry in failover if entry.from_ == own), None)
        if entry is not None and levels(endpoint)[0] != entry.to:
            return FAR
    return rank


def _label_rank(client: Workload, endpoint: Endpoint, labels: Sequence[str]) -> int:
    """How many of the ordered labels differ, counting from the first that does."""
    for at, entry in enumerate(labels):
        name, equals, value = entry.partition("=")
        wanted = value if equals else _label(name, client.labels, client.locality)
        if _label(name, endpoint.labels, endpoint.locality) != wanted:
            return len(labels) - at
    return 0


def _label(name: str, labels: dict[str, str], locality: str) -> str:
    """Empty where it is not known: two without a label are alike in it."""
    found = labels.get(name, "")
    return levels(locality)[TOPOLOGY.index(name)] if not found and name in TOPOLOGY else found


def covers(pattern: str, locality: str) -> bool:
    """Whether a locality, or less of one, or one that ends with `*`, covers a full one."""
    wanted, own = pattern.split("/"), locality.split("/")
    for at, part in enumerate(wanted):
        if part == "*":
            return True
        if at >= len(own) or own[at] != part:
            return False
    return True


def overlap(one: str, other: str) -> bool:
    """Whether a locality can be covered by both patterns."""
    return all(a == b or "*" in (a, b) for a, b in zip(one.split("/"), other.split("/"), strict=False))


def _distributed(
    endpoints: Sequence[ClusterEndpoint], client: Workload, distribute: Sequence[LocalityDistribute]
) -> tuple[ClusterEndpoint, ...]:
    """Each locality with its percentage; those not listed get nothing. Where a pattern covers several localities, they
    share its percentage by the weights of their endpoints."""
    entry = next((one for one in distribute if covers(one.from_, client.locality)), None)
    if entry is None:
        return tuple(endpoints)
    found: list[ClusterEndpoint] = []
    for pattern, percent in entry.to.items():
        members = [one for one in endpoints if covers(pattern, one.endpoint.locality)]
        sums: dict[str, int] = {}
        for one in members:
            sums[one.endpoint.locality] = sums.get(one.endpoint.locality, 0) + max(one.weight, 1)
        total = sum(sums.values())
        for one in members:
            one.locality_weight = percent * sums[one.endpoint.locality] / total
        found += members
    return tuple(found)


def standing(endpoint: Endpoint, cluster: Cluster) -> str:
    """For people: an endpoint's place among the priorities or shares of its cluster, after what else is said of it;
    empty where there are none."""
    reached = next((one for one in cluster.endpoints if one.endpoint is endpoint), None)
    where = endpoint.locality or "without a name"
    if reached is None:
        distributed = any(one.locality_weight for one in cluster.endpoints)
        return f"; distribute gives its locality {where} nothing" if distributed else ""
    if reached.locality_weight:
        return f"; locality {where} gets {reached.locality_weight:.3g} % of the traffic"
    last = max(one.priority for one in cluster.endpoints)
    if not last:
        return ""
    if not reached.priority:
        return f"; priority 0 of 0 to {last}: takes all traffic while 72 % of it are healthy"
    return f"; priority {reached.priority} of 0 to {last}: takes what those before it cannot"
