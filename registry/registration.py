"""What a sidecar registers of its app, for Consul or etcd."""

from __future__ import annotations

from msgspec import Struct


class Registration(Struct, frozen=True):
    """One instance of a service."""

    service: str
    instance: str
    """Unique among the service's instances: the workload's name."""
    namespace: str
    address: str
    port: int
    labels: dict[str, str] = {}
    service_account: str = ""
    mesh_port: int = 0
    zone: str = ""
    protocol: str = ""
