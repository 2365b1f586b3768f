"""What the registry holds, as rows for people and programs: services, endpoints, sources, each with origin and age.

An endpoint is as old as the last word of its source: a source that says nothing for long is stale, and what it said is
kept (SourceStatus). `now` is in Unix seconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .merge import usable
from .model import SourceStatus
from .snapshot import Snapshot


def age_of(statuses: Mapping[str, SourceStatus], source: str, now: float) -> float | None:
    """Seconds since the source confirmed what it holds; None: it never did, or need not (control's own objects)."""
    status = statuses.get(source)
    return max(0.0, round(now - status.confirmed_at, 1)) if status is not None and status.confirmed_at else None


def is_stale(statuses: Mapping[str, SourceStatus], source: str) -> bool:
    status = statuses.get(source)
    return status is not None and status.state == "stale"


def services(snapshot: Snapshot, statuses: Mapping[str, SourceStatus], now: float) -> list[dict[str, Any]]:
    rows = []
    for host, service in sorted(snapshot.services.items(), key=lambda item: (item[1].namespace, item[0])):
        endpoints = snapshot.endpoints.get(host, ())
        kind = "ExternalName" if service.external_name else "Headless" if service.headless else "ClusterIP"
        kind = (
            "ServiceEntry" if service.external or not host.startswith(f"{service.name}.{service.namespace}.") else kind
        )
        rows.append(
            {
                "namespace": service.namespace,
                "name": service.name,
                "host": host,
                "type": kind,
                "addresses": list(service.addresses),
                "external_name": service.external_name,
                "ports": [
                    {
                        "port": port.number,
                        "name": port.name,
                        "protocol": port.protocol,
                        "target": port.target or port.number,
                    }
                    for port in service.ports
                ],
                "ready": len(usable(service, endpoints)),
                "endpoints": len(endpoints),
                "selector": service.selector,
                "labels": service.labels,
                "source": service.source,
                "sources": sorted({service.source, *(one.source for one in endpoints)} - {""}),
                "age_s": age_of(statuses, service.source, now),
                "stale": is_stale(statuses, service.source),
            }
        )
    return rows


def endpoints(snapshot: Snapshot, statuses: Mapping[str, SourceStatus], now: float) -> list[dict[str, Any]]:
    rows = []
    for host, service in sorted(snapshot.services.items(), key=lambda item: (item[1].namespace, item[0])):
        found = snapshot.endpoints.get(host, ())
        used = {id(one) for one in usable(service, found)}
        for one in sorted(found, key=lambda e: (e.port_name, e.address, e.port)):
            rows.append(
                {
                    "service": host,
                    "address": one.address,
                    "port": one.port,
                    "port_name": one.port_name,
                    "ready": one.ready,
                    "serving": one.serving,
                    "terminating": one.terminating,
                    "used": id(one) in used,
                    "why": one.why if one.why or one.ready else "not ready",
                    "workload": one.workload,
                    "service_account": one.service_account,
                    "mesh_port": one.mesh_port,
                    "weight": one.weight,
                    "locality": one.locality,
                    "hostname": one.hostname,
                    "labels": one.labels,
                    "source": one.source,
                    "age_s": age_of(statuses, one.source, now),
                    "stale": is_stale(statuses, one.source),
                }
            )
    return rows


def sources(snapshot: Snapshot, statuses: Mapping[str, SourceStatus], now: float) -> list[dict[str, Any]]:
    """Every source that says how it does, or of which there is anything."""
    counts: dict[str, list[int]] = {name: [0, 0, 0] for name in statuses}
    for place, names in enumerate(
        (
            [service.source for service in snapshot.services.values()],
            [one.source for found in snapshot.endpoints.values() for one in found],
            [workload.source for workload in snapshot.workloads.values()],
        )
    ):
        for name in names:
            if name:
                counts.setdefault(name, [0, 0, 0])[place] += 1
    rows = []
    for name in sorted(counts):
        status = statuses.get(name, SourceStatus(name, "live"))
        rows.append(
            {
                "source": name,
                "state": status.state,
                "age_s": age_of(statuses, name, now),
                "services": counts[name][0],
                "endpoints": counts[name][1],
                "workloads": counts[name][2],
                "error": status.error,
                "problems": list(status.problems),
                "notes": list(status.notes),
            }
        )
    return rows
