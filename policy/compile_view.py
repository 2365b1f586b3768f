"""What the parts of a compilation share: the client, what it sees, and the rules that are meant for it."""

from __future__ import annotations

from collections.abc import Mapping
from copy import copy
from sys import intern

from ..registry.model import Endpoint, Service, ServicePort, Workload
from ..registry.snapshot import Snapshot
from .destination_rules import DestinationRules, MergedRule
from .gateways import Ports, gateways_of
from .host_names import complete
from .network_policy import Isolation, isolation_of
from .peer import identity_of
from .peer_authentication import peer_mode
from .resources import DestinationRef, Resources
from .sidecars import known_services, sidecar_of
from .tables import Cluster, Destination, Viewpoint
from .visibility import exported

HTTP = frozenset({"http", "http2", "grpc", "grpc-web"})
TLS = frozenset({"https", "tls"})
OPAQUE = frozenset({"tcp", "mongo", "redis", "mysql"})
_KNOWN = HTTP | TLS | OPAQUE | {"udp"}
_APP_PROTOCOLS = {"kubernetes.io/h2c": "http2", "kubernetes.io/ws": "http", "kubernetes.io/wss": "https"}
_TCP_PORTS = frozenset({25, 53, 3306, 27017})
"""Server speaks first: never told by the first bytes (Istio)."""
ALIASES_MAX = 8


def protocol_of(app_protocol: str, name: str, protocol: str = "TCP", number: int = 0) -> str:
    """Declared protocol of a port: appProtocol, else the name up to its first dash; empty: told by the first bytes."""
    if protocol != "TCP":
        return intern(protocol.lower())
    declared = app_protocol.lower()
    declared = _APP_PROTOCOLS.get(declared, declared)
    if declared in _KNOWN:
        return intern(declared)  # kept for each port: one text for all
    lowered = name.lower()
    if lowered == "grpc-web" or lowered.startswith("grpc-web-"):
        return "grpc-web"
    prefix = lowered.partition("-")[0]
    if prefix in _KNOWN:
        return intern(prefix)
    return "tcp" if number in _TCP_PORTS else ""


def port_protocol(port: ServicePort) -> str:
    return protocol_of(port.app_protocol, port.name, port.protocol, port.number)


def speaks_http(protocol: str) -> bool:
    """Whether HTTP routes apply on a port of this protocol; undeclared ports are told by their first bytes."""
    return not protocol or protocol in HTTP


def endpoint_serves(endpoint: Endpoint, port: ServicePort, service: Service) -> bool:
    """Whether an endpoint serves this port of its service."""
    if endpoint.port_name == port.name:
        return True
    return len(service.ports) == 1 and (not endpoint.port_name or not port.name)


def cluster_name(port: int, subset: str, host: str) -> str:
    return intern(f"outbound|{port}|{subset}|{host}")  # asked for by each part of the tables: one text for all


class View:
    """One compilation: everything a client's tables are made from."""

    __slots__ = (
        "_plain",
        "cluster_domain",
        "clusters",
        "disables_mtls",
        "egress",
        "gateway",
        "gateways",
        "mesh",
        "namespace",
        "resources",
        "rules",
        "services",
        "sidecar",
        "snapshot",
        "viewpoint",
        "workload",
    )

    def __init__(
        self,
        resources: Resources,
        snapshot: Snapshot,
        viewpoint: Viewpoint,
        rules: DestinationRules | None = None,
    ) -> None:
        """`rules`: its DestinationRules, where they were made before."""
        self.resources = resources
        self.snapshot = snapshot
        self.viewpoint = viewpoint
        self.workload: Workload = viewpoint.workload
        self.namespace = viewpoint.workload.namespace
        self.gateway = viewpoint.gateway
        self.gateways = Ports(gateways_of(resources, viewpoint)) if viewpoint.gateway else None
        """Its servers; without any where the Gateway is not known, as explain may ask."""
        self.mesh = resources.mesh.spec
        self.cluster_domain = self.mesh.cluster_domain
        self.rules = rules or DestinationRules(
            resources.destination_rules, self.workload, self.mesh.root_namespace, self.cluster_domain
        )
        self.egress: Isolation | None = isolation_of(resources.network_policies, snapshot, self.workload, "Egress")
        self.services: Mapping[str, Service] = {
            host: service
            for host, service in snapshot.services.items()
            if exported(service.export_to, service.namespace, self.namespace)
        }
        self.sidecar = sidecar_of(resources, self.workload) if resources.sidecars and not self.gateway else None
        if self.sidecar is not None:
            self.services = known_services(
                self.sidecar, self.services, resources.virtual_services, self.workload, self.cluster_domain
            )
        self.clusters: dict[str, Cluster] = {}
        self._plain: dict[str, tuple[Destination, ...]] = {}
        self.disables_mtls = any(
            (policy.spec.mtls is not None and policy.spec.mtls.mode == "DISABLE")
            or any(mode.mode == "DISABLE" for mode in policy.spec.port_level_mtls.values())
            for policy in resources.peer_authentications
        )

    def at(self, gateway: str) -> View:
        """The same, for the rules of one of its Gateways."""
        if gateway == self.gateway:
            return self
        made = copy(self)
        made.gateway = gateway
        return made

    def plain(self, name: str, host: str, port: int) -> tuple[Destination, ...]:
        """All of a service's port as the only destination: one object, whichever tables name it."""
        found = self._plain.get(name)
        if found is None:
            found = self._plain[name] = (Destination(name, host, port),)
        return found

    def rule_for(self, service: Service) -> MergedRule | None:
        return self.rules.find(service.host, service.namespace)

    def real_service(self, host: str) -> Service | None:
        """The service of this host; an alias (ExternalName) leads to the service that it names, where we know it."""
        service = self.services.get(host)
        for _ in range(ALIASES_MAX):
            if service is None or not service.external_name:
                return service
            target = self.services.get(complete(service.external_name, service.namespace, self.cluster_domain))
            if target is None:
                return service
            service = target
        return service

    def destination_host(self, reference: DestinationRef, namespace: str) -> str:
        """The full host of a rule's destination, aliases followed."""
        host = complete(reference.host, namespace, self.cluster_domain)
        service = self.real_service(host)
        return service.host if service is not None else host

    def identity(self, endpoint: Endpoint, service: Service) -> tuple[str, ...]:
        """The SPIFFE ids that an endpoint's sidecar may show: its own account, in our trust domain or an alias."""
        account, namespace = endpoint.service_account, endpoint.namespace or service.namespace
        workload = self.snapshot.workloads.get(endpoint.workload)
        if not account and workload is not None:
            account, namespace = workload.service_account, workload.namespace
        domains = (self.mesh.trust_domain, *self.mesh.trust_domain_aliases)
        return tuple(identity_of(domain, namespace, account) for domain in domains)

    def refuses_mtls(self, endpoint: Endpoint) -> bool:
        """Whether PeerAuthentication says DISABLE for the endpoint's port."""
        workload = self.snapshot.workloads.get(endpoint.workload) if self.disables_mtls else None
        if workload is None:
            return False
        policies = self.resources.peer_authentications
        return peer_mode(policies, self.mesh.root_namespace, workload, endpoint.port).mode == "DISABLE"
