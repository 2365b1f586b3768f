"""Nearest endpoints first: where a service asks for it, in the order of the client's own locality.

A service asks with `trafficDistribution: PreferClose` (also PreferSameZone, PreferSameNode), Istio's annotation
`networking.istio.io/traffic-distribution`, or `service.kubernetes.io/topology-mode: Auto`. Addresses are ordered, and
SRV records get the distance as their priority, so that clients try the near ones first (RFC 2782).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..registry.model import Endpoint, Service
from .message import AAAA, SRV, A, RRset
from .records import Records, address_record

DISTRIBUTION = "networking.istio.io/traffic-distribution"
TOPOLOGY = ("service.kubernetes.io/topology-mode", "service.kubernetes.io/topology-aware-hints")
_PREFERENCES = frozenset(("PreferClose", "PreferSameZone", "PreferSameNode"))


def wants_near(service: Service) -> bool:
    """Whether a service asks for its nearest endpoints first."""
    if service.traffic_distribution or DISTRIBUTION in service.annotations:
        return (service.traffic_distribution or service.annotations[DISTRIBUTION]) in _PREFERENCES
    return any(service.annotations.get(name, "").lower() == "auto" for name in TOPOLOGY)


def localities(records: Records, endpoints: Sequence[Endpoint]) -> dict[bytes, dict[bytes, str]]:
    """Where the addresses and SRV targets among a service's records are."""
    places: dict[bytes, str] = {}
    for endpoint in endpoints:
        record = address_record(endpoint.address)
        if record is not None and endpoint.locality:
            places[record[1]] = endpoint.locality
    if not places:
        return {}
    found: dict[bytes, dict[bytes, str]] = {}
    for owner, sets in records.items():
        for rtype, rrset in sets.items():
            if rtype in (A, AAAA):
                here = {data: places[data] for data in rrset.rdata if data in places}
            elif rtype == SRV:
                here = {data: place for data in rrset.rdata if (place := _place(records, data[6:], places))}
            else:
                continue
            if here and len(rrset.rdata) > 1:
                found.setdefault(owner, {}).update(here)
    return found


def _place(records: Records, target: bytes, places: Mapping[bytes, str]) -> str:
    for rtype, rrset in records.get(target, {}).items():
        if rtype in (A, AAAA):
            for data in rrset.rdata:
                if data in places:
                    return places[data]
    return ""


def distance(client: str, endpoint: str) -> int:
    """0: same subzone (or as far as both say), 1: same zone, 2: same region, 3: elsewhere, or not known."""
    if not client or not endpoint:
        return 3
    ours, theirs = [*client.split("/"), "", ""], [*endpoint.split("/"), "", ""]
    if ours[0] and theirs[0] and ours[0] != theirs[0]:
        return 3
    if not ours[1] or ours[1] != theirs[1]:  # zone names are unique: one without its region still counts
        return 2 if ours[0] and ours[0] == theirs[0] else 3
    return 0 if ours[2] == theirs[2] else 1


def ordered(rrset: RRset, places: Mapping[bytes, str], client: str, draw: float) -> RRset:
    """Nearest first, among equals in turn; SRV records with their distance as priority."""
    rdata = rrset.rdata
    start = int(draw * len(rdata))
    rdata = rdata[start:] + rdata[:start]
    ranks = {data: distance(client, places.get(data, "")) for data in rdata}
    rdata = tuple(sorted(rdata, key=ranks.__getitem__))
    if rrset.rtype == SRV:
        rdata = tuple(bytes((0, ranks[data])) + data[2:] for data in rdata)
    return RRset(rrset.owner, rrset.rtype, rrset.ttl, rdata)
