"""Resources and snapshot to tables: pure, for one viewpoint; a cache carries over what a change did not touch."""

from __future__ import annotations

from collections.abc import Mapping

from ..registry.model import Endpoint, Service, Workload
from ..registry.snapshot import Snapshot
from .compile_clusters import PASSTHROUGH, members, service_clusters
from .compile_hosts import HostIndex, HttpTable, declared_ports, http_table, visible_rules
from .compile_inbound import InboundCache, inbound_clusters, inbound_of
from .compile_l4 import L4Table, gateway_l4, l4_table
from .compile_view import View
from .destination_rules import DestinationRules, MergedRule
from .gateways import Ports
from .ingress import with_ingresses
from .rate_limits import rate_limits
from .resources import Resources
from .sidecars import with_policy
from .tables import Cluster, LoadBalancer, PoolLimits, Tables, Viewpoint


class CompileCache:
    """What the last compilation for one viewpoint made, for the next one to take over where nothing changed.

    Give the same object to each `compile_tables` of one proxy. Services and endpoints count as unchanged when they
    are the same objects or equal, and so do the rules as a whole.
    """

    __slots__ = (
        "clusters",
        "destination_rules",
        "gateways",
        "http",
        "inbound",
        "l4",
        "members",
        "namespaces",
        "ports",
        "resources",
        "rules",
        "services",
        "viewpoint",
        "workloads",
    )

    def __init__(self) -> None:
        self.resources: Resources | None = None
        self.viewpoint: Viewpoint | None = None
        self.workloads: Mapping[str, Workload] = {}
        self.namespaces: Mapping[str, Mapping[str, str]] = {}
        self.services: Mapping[str, Service] = {}
        self.members: Mapping[str, tuple[str, ...]] = {}
        self.destination_rules: DestinationRules | None = None
        self.rules: dict[tuple[str, str], MergedRule | None] = {}
        self.clusters: dict[str, tuple[Service, tuple[Endpoint, ...], dict[str, Cluster]]] = {}
        self.http: HttpTable | None = None
        self.l4: L4Table | None = None
        self.gateways: Ports | None = None
        self.inbound = InboundCache()
        self.ports: dict[tuple[str, int], str] = {}

    def forget_rules(self, resources: Resources, viewpoint: Viewpoint) -> None:
        """Start anew where the rules or the viewpoint are others than before."""
        old = self.viewpoint
        same = old is not None and old.gateway == viewpoint.gateway and _same_client(old.workload, viewpoint.workload)
        if not same or (self.resources is not resources and self.resources != resources):
            self.clusters, self.rules, self.http, self.l4, self.destination_rules = {}, {}, None, None, None
        self.resources, self.viewpoint = resources, viewpoint


def _same_client(one: Workload, other: Workload) -> bool:
    """Whether two states of a workload compile to the same outbound tables."""
    return (one.namespace, one.name, one.labels, one.locality, one.addresses, one.host_network) == (
        other.namespace, other.name, other.labels, other.locality, other.addresses, other.host_network,
    )  # fmt: skip


def compile_tables(
    resources: Resources,
    snapshot: Snapshot,
    viewpoint: Viewpoint,
    version: str = "",
    cache: CompileCache | None = None,
) -> Tables:
    """Everything the proxy at `viewpoint` decides by. Work grows with what changed where `cache` is given."""
    cache = cache if cache is not None else CompileCache()
    if viewpoint.gateway and resources.ingresses:
        resources = with_ingresses(resources, snapshot)
    cache.forget_rules(resources, viewpoint)
    view = View(resources, snapshot, viewpoint, cache.destination_rules)
    cache.destination_rules = view.rules
    same_people = cache.workloads == snapshot.workloads and cache.namespaces == snapshot.namespaces
    _clusters(view, cache, same_people)
    own_names = {host: members(view, service) for host, service in view.services.items() if service.headless}
    if cache.http is None or cache.l4 is None or cache.services != view.services or cache.members != own_names:
        rules = visible_rules(view)
        index = HostIndex(rules, view.cluster_domain)
        cache.http = http_table(view, rules, index)
        cache.l4 = l4_table(view, index)
        cache.ports = declared_ports(view.services)
        if view.gateways is not None:
            gateway_l4(view, rules)
            cache.gateways = view.gateways
    cache.members = own_names
    cache.services, cache.workloads, cache.namespaces = view.services, snapshot.workloads, snapshot.namespaces
    inbound = inbound_of(resources, snapshot, viewpoint.workload, cache.inbound)
    view.clusters.update(inbound_clusters(inbound, view.mesh.connect_timeout))
    view.clusters[PASSTHROUGH] = Cluster(
        PASSTHROUGH, "", 0, "", (),
        load_balancer=LoadBalancer("passthrough"), limits=PoolLimits(connect_timeout_s=view.mesh.connect_timeout),
        service_name=PASSTHROUGH,
    )  # fmt: skip
    return Tables(
        version,
        viewpoint,
        with_policy(resources.mesh, view.sidecar),
        snapshot,
        view.clusters,
        http=cache.http,
        tcp=cache.l4,
        inbound=inbound,
        ports=cache.ports,
        egress=view.egress,
        gateway=cache.gateways if viewpoint.gateway else None,
        rate_limits=rate_limits(resources, viewpoint.workload, bool(viewpoint.gateway)),
    )


def _clusters(view: View, cache: CompileCache, same_people: bool) -> None:
    """Clusters of every visible service; those of a service whose facts are unchanged are taken over."""
    # Verdicts, identities and refusals of mutual TLS look at workloads; without these an endpoint stands for itself.
    depends = view.egress is not None or view.disables_mtls
    kept: dict[str, tuple[Service, tuple[Endpoint, ...], dict[str, Cluster]]] = {}
    for host, service in view.services.items():
        if view.real_service(host) is not service:
            continue
        endpoints = view.snapshot.endpoints.get(host, ())
        old = cache.clusters.get(host)
        unchanged = (
            old is not None
            and (same_people or not (depends or any(not one.service_account for one in endpoints)))
            and (old[0] is service or old[0] == service)
            and (old[1] is endpoints or old[1] == endpoints)
        )
        if old is not None and unchanged:
            entry = old
        else:
            key = (host, service.namespace)
            if key not in cache.rules:
                cache.rules[key] = view.rule_for(service)
            entry = (service, endpoints, service_clusters(view, service, cache.rules[key]))
        kept[host] = entry
        view.clusters.update(entry[2])
    cache.clusters = kept
