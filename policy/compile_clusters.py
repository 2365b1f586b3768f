"""Clusters: for each service a client sees, each port and subset, the endpoints and how to use them."""

from __future__ import annotations

from collections.abc import Sequence

from ..registry.merge import usable
from ..registry.model import Endpoint, Service, ServicePort
from .compile_settings import client_affinity, file_tls, load_balancer, outlier_policy, pool_limits
from .compile_view import View, cluster_name, endpoint_serves, port_protocol
from .destination_rules import MergedRule, Settings, settings
from .locality import arrange
from .network_policy import parse_address
from .peer import Peer, as_peer, identify
from .tables import Cluster, ClusterEndpoint, LoadBalancer, UpstreamTLS, Verdict
from .visibility import labels_hold

PASSTHROUGH = "PassthroughCluster"


def service_clusters(view: View, service: Service, rule: MergedRule | None) -> dict[str, Cluster]:
    """All clusters of one service: one for each TCP port, and one for each port and subset of its rule."""
    found = {}
    for port in service.ports:
        if port.protocol != "TCP":
            continue
        all_endpoints = usable(service, service_endpoints(view, service, port))
        made: dict[int, ClusterEndpoint] = {}
        for subset in ("", *(rule.subsets if rule is not None else ())):
            wanted = rule.subsets[subset].labels if rule is not None and subset else {}
            endpoints = [one for one in all_endpoints if labels_hold(wanted, one.labels)]
            cluster = _cluster(view, service, port, subset, rule, endpoints, made)
            found[cluster.name] = cluster
        for name in members(view, service):
            endpoints = [one for one in all_endpoints if one.hostname == name]
            cluster = _cluster(view, service, port, "", rule, endpoints, made, member_host(name, service.host))
            found[cluster.name] = cluster
    return found


def members(view: View, service: Service) -> tuple[str, ...]:
    """The own names of a headless service's endpoints, ready or not: each is a destination of its own."""
    if not service.headless:
        return ()
    return tuple(sorted({one.hostname for one in view.snapshot.endpoints.get(service.host, ()) if one.hostname}))


def member_host(name: str, host: str) -> str:
    return f"{name.lower()}.{host}"


def wants_dialled_address(service: Service) -> bool:
    """A wildcard ServiceEntry has no endpoints of its own: a request goes to the very name that it asks for."""
    return service.external and service.host.startswith("*") and service.resolution in ("NONE", "DYNAMIC_DNS")


def service_endpoints(view: View, service: Service, port: ServicePort) -> list[Endpoint]:
    """All endpoints that serve a port; a service known by DNS alone is its own endpoint."""
    known = view.snapshot.endpoints.get(service.host, ())
    found = [one for one in known if endpoint_serves(one, port, service)]
    number = port.target if isinstance(port.target, int) and port.target else port.number
    if not known and service.external_name:
        return [Endpoint(service.external_name, number, port.name, source=service.source)]
    if not known and service.selector is None and service.external and not service.host.startswith("*"):
        # DNS, and NONE too: where the dialled address is not known, the name's own is what the client meant.
        return [Endpoint(service.host, number, port.name, source=service.source)]
    return found


def _cluster(
    view: View,
    service: Service,
    port: ServicePort,
    subset: str,
    rule: MergedRule | None,
    endpoints: Sequence[Endpoint],
    verdicts: dict[int, ClusterEndpoint],
    member: str = "",
) -> Cluster:
    """`member`: the host of one endpoint of a headless service, where the cluster is of that one alone."""
    chosen = settings(rule, port.number, subset)
    outlier = outlier_policy(chosen.outlier_detection)
    secure = _Security(view, service, port.number, subset, chosen, rule)
    reached = []
    for endpoint in endpoints:
        known = verdicts.get(id(endpoint))
        egress = known.egress if known is not None else egress_verdict(view, endpoint)
        tls = secure.tls(endpoint)
        by_mesh = tls is not None and tls.mode == "mesh" and endpoint.mesh_port
        one = ClusterEndpoint(
            endpoint.address,
            endpoint.mesh_port if by_mesh else endpoint.port,
            endpoint,
            tls,
            endpoint.weight,
            egress=egress,
        )
        verdicts.setdefault(id(endpoint), one)
        reached.append(one)
    balancing = chosen.load_balancer
    locality = balancing.locality_lb_setting if balancing is not None else None
    if locality is None:
        locality = view.mesh.locality_lb_setting
    balancer = load_balancer(balancing)
    if service.client_affinity and balancing is None:
        balancer = client_affinity(view.workload)
    if wants_dialled_address(service):
        balancer = LoadBalancer("passthrough")
    return Cluster(
        cluster_name(port.number, subset, member or service.host),
        service.host,
        port.number,
        subset,
        arrange(reached, view.workload, locality, outlier is not None),
        protocol=port_protocol(port),
        load_balancer=balancer,
        limits=pool_limits(
            chosen.connection_pool,
            view.mesh.connect_timeout,
            chosen.proxy_protocol,
            chosen.retry_budget,
            chosen.tunnel,
            service.resolution == "DNS",
        ),
        outlier=outlier,
        rule=rule.key if rule is not None else "",
        service_name=service.name,
        service_namespace=service.namespace,
    )


class _Security:
    """TLS to the endpoints of one cluster; objects are shared among endpoints of one identity."""

    __slots__ = ("_by_identity", "_files", "_mode", "_service", "_sni", "_view")

    def __init__(
        self, view: View, service: Service, port: int, subset: str, chosen: Settings, rule: MergedRule | None
    ) -> None:
        self._view = view
        self._service = service
        self._mode = chosen.tls.mode if chosen.tls is not None else ""
        own = bool(view.gateway) or (rule is not None and bool(rule.selector))
        host = "" if service.host.startswith("*") else service.host
        self._files = file_tls(chosen.tls, view.namespace, own, host, service.subject_alt_names)
        self._sni = f"outbound_.{port}_.{subset}_.{service.host}"
        if chosen.tls is not None and chosen.tls.mode == "ISTIO_MUTUAL" and chosen.tls.sni:
            self._sni = chosen.tls.sni
        self._by_identity: dict[tuple[str, ...], UpstreamTLS] = {}

    def tls(self, endpoint: Endpoint) -> UpstreamTLS | None:
        if self._mode and self._mode != "ISTIO_MUTUAL":
            return self._files  # None for DISABLE
        if not self._mode:
            view = self._view
            automatic = endpoint.mesh_port and view.mesh.enable_auto_mtls and not self._service.external
            if not automatic or view.refuses_mtls(endpoint):
                return None
        identities = self._service.subject_alt_names or self._view.identity(endpoint, self._service)
        found = self._by_identity.get(identities)
        if found is None:
            found = self._by_identity[identities] = UpstreamTLS("mesh", self._sni, identities)
        return found


def named_only(view: View, endpoint: Endpoint) -> bool:
    """Whether an endpoint is known by a DNS name and nothing else."""
    return endpoint.workload not in view.snapshot.workloads and parse_address(endpoint.address) is None


def peer_behind(view: View, endpoint: Endpoint) -> Peer:
    """Whom policy sees behind an endpoint: its workload where known, else whoever has the address."""
    workload = view.snapshot.workloads.get(endpoint.workload)
    if workload is not None:
        return as_peer(view.snapshot, view.mesh, workload, endpoint.address)
    return identify(view.snapshot, view.mesh, "", endpoint.address)


def egress_verdict(view: View, endpoint: Endpoint) -> Verdict | None:
    """Egress NetworkPolicy for an endpoint; None where none applies, or only the resolved address can tell.

    The proxy asks `decide.egress_verdict` about each address that the name of such an endpoint turns out to have.
    """
    if view.egress is None or named_only(view, endpoint):
        return None
    return view.egress.verdict(peer_behind(view, endpoint), endpoint.port)
