"""Locality: endpoint priorities for failover, and weights for a fixed distribution, as a DestinationRule asks for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..registry.model import Endpoint, Workload
from .tables import ClusterEndpoint

OTHER = 3
FAR = 4


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
    endpoints: Sequence[ClusterEndpoint], client: Workload, settings: Mapping[str, Any] | None, detects_outliers: bool
) -> tuple[ClusterEndpoint, ...]:
    """The endpoints with priorities or weights set. Failover takes effect with outlier detection only (Istio)."""
    settings = settings or {}
    if settings.get("enabled") is False:
        return tuple(endpoints)
    if settings.get("distribute"):
        return _distributed(endpoints, client, settings["distribute"])
    if not detects_outliers or (not client.locality and not settings.get("failoverPriority")):
        return tuple(endpoints)
    if settings.get("failoverPriority"):
        ranks = [_label_rank(client, one.endpoint, settings["failoverPriority"]) for one in endpoints]
    else:
        ranks = [_rank(client.locality, one.endpoint.locality, settings.get("failover") or ()) for one in endpoints]
    order = {rank: priority for priority, rank in enumerate(sorted(set(ranks)))}
    for one, rank in zip(endpoints, ranks, strict=True):
        one.priority = order[rank]
    return tuple(endpoints)


def _rank(client: str, endpoint: str, failover: Sequence[Mapping[str, Any]]) -> int:
    rank = distance(client, endpoint)
    if rank == OTHER:
        targets = [entry.get("to") for entry in failover if entry.get("from") == levels(client)[0]]
        if targets and levels(endpoint)[0] not in targets:
            return FAR
    return rank


def _label_rank(client: Workload, endpoint: Endpoint, labels: Sequence[str]) -> int:
    """How many of the ordered labels differ, counting from the first that does."""
    for at, entry in enumerate(labels):
        name, equals, value = entry.partition("=")
        wanted = value if equals else client.labels.get(name)
        if endpoint.labels.get(name) != wanted:
            return len(labels) - at
    return 0


def _covers(pattern: str, locality: str) -> bool:
    wanted, own = pattern.split("/"), locality.split("/")
    for at, part in enumerate(wanted):
        if part == "*":
            return True
        if at >= len(own) or own[at] != part:
            return False
    return True


def _distributed(
    endpoints: Sequence[ClusterEndpoint], client: Workload, distribute: Sequence[Mapping[str, Any]]
) -> tuple[ClusterEndpoint, ...]:
    """Weights in the given percentages by locality; localities not listed get nothing."""
    entry = next((one for one in distribute if _covers(str(one.get("from", "")), client.locality)), None)
    if entry is None:
        return tuple(endpoints)
    groups: dict[str, list[ClusterEndpoint]] = {}
    for one in endpoints:
        for pattern in entry.get("to", {}):
            if _covers(pattern, one.endpoint.locality):
                groups.setdefault(pattern, []).append(one)
                break
    for pattern, members in groups.items():
        total = sum(one.weight for one in members) or 1
        for one in members:
            # Scaled so that shares within a locality stay whole numbers with little loss.
            one.weight = max(1, round(int(entry["to"][pattern]) * 1000 * one.weight / total))
    return tuple(one for members in groups.values() for one in members)
