"""What follows for traffic when the own app is not ready: others are preferred, and peers are told to go elsewhere.

Where control or a registry tells peers, they no longer come. Where nobody does (manifests alone), the inbound listener
answers with FL-NO-HEALTHY, which peers count against this endpoint and retry at another; not for an app that is to be
reached before it is ready (publishNotReadyAddresses). While control is away only HTTP is answered so: a byte stream
that is closed cannot be retried by anybody, and perhaps the app takes it after all.
"""

from __future__ import annotations

from ..policy.tables import Tables
from ..policy.world import World
from ..proxy.arrive import HTTP_PROTOCOLS
from ..registry.merge import unwell
from ..registry.model import Endpoint, Workload
from ..registry.shards import amended
from ..registry.snapshot import Snapshot


def without_app(world: World, own: Workload, why: str) -> World:
    """The world in which our own endpoints are not ready."""
    snapshot = world.snapshot
    changed: dict[str, tuple[Endpoint, ...] | None] = {}
    for host, endpoints in snapshot.endpoints.items():
        if any(one.workload == own.key for one in endpoints):
            publish = host in snapshot.services and snapshot.services[host].publish_not_ready
            changed[host] = tuple(unwell(one, why, publish) if one.workload == own.key else one for one in endpoints)
    if not changed:
        return world
    made = Snapshot(
        snapshot.version,
        snapshot.services,
        amended(snapshot.endpoints, changed),
        snapshot.workloads,
        snapshot.namespaces,
        snapshot.sources,
    )
    return World(made, world.resources)


def refuse(tables: Tables, own: Workload, http_alone: bool) -> None:
    """Leave inbound clusters without an endpoint, but for ports of services that publish what is not ready.

    `http_alone`: those of HTTP only."""
    snapshot = tables.snapshot
    published = {
        endpoint.port
        for host, service in snapshot.services.items()
        if service.publish_not_ready
        for endpoint in snapshot.endpoints.get(host, ())
        if endpoint.workload == own.key
    }
    for name, cluster in tables.clusters.items():
        if not name.startswith("inbound|") or (http_alone and cluster.protocol not in HTTP_PROTOCOLS):
            continue
        if cluster.port not in published:
            cluster.endpoints = ()
