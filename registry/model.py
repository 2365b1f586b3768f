"""What the registry knows: services, their endpoints, and the workloads behind them.

All classes are frozen and compare by value, so that a source's new contribution can be compared with its last;
they travel as JSON (msgspec) on the feed and into the snapshot on disk with the field names used here. Dictionaries in
them are never changed, and empty ones are one object; none can be part of a cycle, so the garbage collector need not
look at what there are hundreds of thousands of.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache

from msgspec import Struct
from msgspec.structs import force_setattr

from .checks import Check

_NONE: dict[str, str] = {}
"""The one empty dictionary of all that have none: a hundred thousand workloads would have three each."""
_NO_PORTS: dict[str, int] = {}


class ServicePort(Struct, frozen=True, omit_defaults=True, gc=False):
    """A port of a service as its clients dial it."""

    number: int
    name: str = ""
    """Empty where the service has one unnamed port."""
    protocol: str = "TCP"
    """TCP, UDP or SCTP."""
    app_protocol: str = ""
    """http, http2, grpc, https, tls, tcp, mongo, redis, mysql; empty: told by the first bytes."""
    target: int | str = 0
    """The workload's port, or the name of one; 0: the same as `number`."""


class Service(Struct, frozen=True, omit_defaults=True, gc=False):
    """A name with ports. Key: `host`."""

    host: str
    """Full name in lower case: `web.default.svc.cluster.local`, or a ServiceEntry's host."""
    namespace: str
    name: str
    ports: tuple[ServicePort, ...] = ()
    addresses: tuple[str, ...] = ()
    """Virtual addresses (ClusterIPs, a ServiceEntry's addresses), if any."""
    headless: bool = False
    external_name: str = ""
    """ExternalName: the name this one is an alias of."""
    selector: dict[str, str] | None = None
    """Workloads of the namespace with all these labels are its endpoints. None: endpoints are listed by a source."""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    publish_not_ready: bool = False
    traffic_distribution: str = ""
    """PreferClose and the like: which endpoints clients should be given first."""
    client_affinity: bool = False
    """sessionAffinity ClientIP: a client keeps its endpoint, as long as that is there."""
    external: bool = False
    """Outside the mesh (ServiceEntry MESH_EXTERNAL): no mesh TLS."""
    resolution: str = "STATIC"
    """Of a ServiceEntry: NONE (the dialled address), STATIC, DNS, DNS_ROUND_ROBIN."""
    subject_alt_names: tuple[str, ...] = ()
    """What a server's certificate must have one of, in place of its endpoints' identities."""
    export_to: tuple[str, ...] = ()
    created: float = 0.0
    """Unix seconds; the age of an object where age decides."""
    source: str = ""
    """Name of the source that it came from."""

    def __post_init__(self) -> None:
        if not self.labels:
            force_setattr(self, "labels", _NONE)
        if not self.annotations:
            force_setattr(self, "annotations", _NONE)


class Endpoint(Struct, frozen=True, omit_defaults=True, gc=False):
    """One address and port of a service."""

    address: str
    """IPv4 or IPv6 address; a DNS name only in a service whose resolution is DNS."""
    port: int
    """The workload's own port."""
    port_name: str = ""
    """Name of the service port that it serves."""
    ready: bool = True
    serving: bool = True
    terminating: bool = False
    weight: int = 1
    labels: dict[str, str] = {}
    locality: str = ""
    """region/zone/subzone, as far as known; a bare `zone` of a source becomes `/zone`."""
    hostname: str = ""
    """The endpoint's own name below a headless service."""
    workload: str = ""
    """namespace/name, where known."""
    namespace: str = ""
    """The workload's namespace (with `service_account`: the identity that it must show)."""
    service_account: str = ""
    mesh_port: int = 0
    """Port of the sidecar that takes mutual TLS for it; 0: it has no sidecar."""
    source: str = ""
    why: str = ""
    """Where not ready: the reason in a few words, for people."""

    def __post_init__(self) -> None:
        if not self.labels:
            force_setattr(self, "labels", _NONE)


class WorkloadPort(Struct, frozen=True, omit_defaults=True, gc=False):
    number: int
    name: str = ""
    protocol: str = "TCP"


@lru_cache(1000)
def sole_port(number: int) -> tuple[WorkloadPort, ...]:
    """The ports of a workload of which no more is known than this one: one object for all who have it."""
    return (WorkloadPort(number),)


class Workload(Struct, frozen=True, omit_defaults=True, gc=False):
    """One running instance of an app. Key: `namespace/name`."""

    namespace: str
    name: str
    addresses: tuple[str, ...] = ()
    ports: tuple[WorkloadPort, ...] = ()
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    service_account: str = "default"
    locality: str = ""
    weight: int = 1
    hostname: str = ""
    subdomain: str = ""
    mesh_port: int = 0
    """Port of its sidecar for mutual TLS (annotation `fairlead.dev/mesh-port` on a Pod); 0: none."""
    host_network: bool = False
    service_links: bool = True
    """Whether it wants the environment variables of its namespace's services (`enableServiceLinks` of a Pod)."""
    ready: bool = True
    terminating: bool = False
    why: str = ""
    source: str = ""
    service_ports: dict[str, int] = {}
    """Own port by the name of the service's port, over its target (`ports` of a WorkloadEntry)."""
    unhealthy: str = ""
    """Why the checks of its own sidecar say that it is not ready; also what others list of it is not ready then."""
    checks: tuple[Check, ...] = ()
    """What its sidecar is to check of it; on the feed for that sidecar alone."""
    unnamed: bool = False
    """That it has this name is its sidecar's own word: no endpoint that a source lists is taken to be its."""

    def __post_init__(self) -> None:
        if not self.labels:
            force_setattr(self, "labels", _NONE)
        if not self.annotations:
            force_setattr(self, "annotations", _NONE)
        if not self.service_ports:
            force_setattr(self, "service_ports", _NO_PORTS)

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


class Facts(Struct, frozen=True, omit_defaults=True):
    """All that one source contributes, at one moment. Its tables (dictionaries; large ones are `Shards`) are never
    changed after they are handed over."""

    services: Mapping[str, Service] = {}
    """By host."""
    endpoints: Mapping[str, tuple[Endpoint, ...]] = {}
    """By service host; for services whose endpoints the source lists itself."""
    workloads: Mapping[str, Workload] = {}
    """By namespace/name."""
    namespaces: Mapping[str, Mapping[str, str]] = {}
    """Labels by namespace name."""


class Changed(Struct, frozen=True):
    """Keys of what may be different."""

    hosts: frozenset[str] = frozenset()
    """Of services, or of their endpoints."""
    workloads: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()


class SourceStatus(Struct, frozen=True, omit_defaults=True):
    """How a source is doing, for people, metrics and readiness."""

    name: str
    state: str = "starting"
    """starting (nothing yet), live, stale (last contribution kept, source not answering)."""
    confirmed_at: float = 0.0
    """Unix seconds at which the source last confirmed what we hold; 0: never. An endpoint's age is its source's."""
    error: str = ""
    """The last error, while not live."""
    problems: tuple[str, ...] = ()
    """Entries skipped because they were malformed, each by its key and reason."""
    notes: tuple[str, ...] = ()
    """What holds the source back while it works, and the remedy."""
