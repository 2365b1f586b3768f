"""Clusters of compiled tables as Envoy's and gRPC's clusters, and their endpoints (CDS, EDS).

What istiod makes of a DestinationRule is the model (cluster_builder.go, cluster_traffic_policy.go of its
pilot/pkg/networking/core); what a client cannot do is told to `note`, and where it would weaken a rule, the cluster has
no endpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..policy.network_policy import parse_address
from ..policy.tables import Cluster, ClusterEndpoint, OutlierPolicy, PoolLimits, UpstreamTLS
from .xds_node import ADS, GRPC, JSON, TLS, Node, Notes, mesh_tls, seconds, socket_address, typed, uri_names

UNLIMITED = 4294967295
DYNAMIC = "PassthroughCluster"
"""Looks the request's host up by DNS (dynamic forward proxy), as our sidecar does with hosts that it does not know."""
DNS_CACHE: JSON = {"name": "fairlead", "dns_lookup_family": "V4_PREFERRED"}
ALPN, ALPN_TWO = ("fairlead", "http/1.1"), ("h2", "fairlead", "http/1.1")
_POLICIES = {
    "least_request": "LEAST_REQUEST", "peak_ewma": "LEAST_REQUEST", "round_robin": "ROUND_ROBIN", "random": "RANDOM",
    "ring_hash": "RING_HASH", "maglev": "MAGLEV", "passthrough": "ROUND_ROBIN",
}  # fmt: skip


class Made:
    """One cluster: its CDS resource, and its EDS resource (None: the endpoints stand in the cluster)."""

    __slots__ = ("cluster", "endpoints")

    def __init__(self, cluster: JSON, endpoints: JSON | None) -> None:
        self.cluster = cluster
        self.endpoints = endpoints


def dynamic_cluster() -> JSON:
    config = typed("clusters.dynamic_forward_proxy.v3.ClusterConfig", dns_cache_config=DNS_CACHE)
    kind = {"name": "envoy.clusters.dynamic_forward_proxy", "typed_config": config}
    return {"name": DYNAMIC, "lb_policy": "CLUSTER_PROVIDED", "connect_timeout": "10s", "cluster_type": kind}


def make_cluster(cluster: Cluster, node: Node, note: Notes) -> Made:
    """An outbound cluster as this client has it."""
    made = _base(cluster, node, note)
    reachable = _reachable(cluster, node, note)
    used = _transport(made, cluster, reachable, node, note)
    if cluster.limits.tunnel:
        note(f"{_where(cluster)}: `tunnel` is not carried out by xDS; the cluster has no endpoints")
        used = []
    named = [one for one in used if parse_address(one.address) is None and not one.address.startswith("unix://")]
    assignment = {"cluster_name": cluster.name, "endpoints": _localities(cluster, used, node)}
    if not named:
        made["type"] = "EDS"
        made["eds_cluster_config"] = {"eds_config": ADS}
        return Made(made, assignment)
    made["type"] = "STRICT_DNS" if cluster.limits.spread or len(used) > 1 else "LOGICAL_DNS"
    made["dns_lookup_family"] = "V4_PREFERRED"
    if node.kind == GRPC:
        made.pop("dns_lookup_family")
        made["type"] = "LOGICAL_DNS"
    made["load_assignment"] = assignment
    return Made(made, None)


def _where(cluster: Cluster) -> str:
    return f"DestinationRule {cluster.rule}" if cluster.rule else f"cluster {cluster.name}"


def _base(cluster: Cluster, node: Node, note: Notes) -> JSON:
    limits, balancer = cluster.limits, cluster.load_balancer
    policy = _POLICIES[balancer.kind]
    if balancer.kind == "peak_ewma":
        note(f"{_where(cluster)}: PEAK_EWMA is carried out as {'ROUND_ROBIN' if node.kind == GRPC else policy}")
    if node.kind == GRPC:
        if policy == "MAGLEV":
            note(f"{_where(cluster)}: gRPC has no MAGLEV; RING_HASH is used")
        elif policy == "RANDOM":
            note(f"{_where(cluster)}: gRPC has no RANDOM; ROUND_ROBIN is used")
        policy = "RING_HASH" if policy in ("MAGLEV", "RING_HASH") else "ROUND_ROBIN"
    made: JSON = {
        "name": cluster.name,
        "connect_timeout": seconds(limits.connect_timeout_s),
        "lb_policy": policy,
        "circuit_breakers": {"thresholds": [_thresholds(limits, cluster, node, note)]},
    }
    if policy == "RING_HASH":
        made["ring_hash_lb_config"] = {"minimum_ring_size": balancer.table_size if balancer.kind != "maglev" else 1024}
    elif policy == "MAGLEV":
        made["maglev_lb_config"] = {"table_size": balancer.table_size}
    warmup = balancer.warmup
    if warmup is not None and node.kind == GRPC:
        note(f"{_where(cluster)}: `warmup` is not carried out by gRPC")
    elif warmup is not None:
        slow = {
            "slow_start_window": seconds(warmup.duration_s),
            "aggression": {"default_value": warmup.aggression, "runtime_key": "fairlead.warmup"},
            "min_weight_percent": {"value": warmup.minimum * 100},
        }
        name = "round_robin_lb_config" if policy == "ROUND_ROBIN" else "least_request_lb_config"
        made[name] = {"slow_start_config": slow}
    if cluster.outlier is not None:
        made["outlier_detection"] = _outlier(cluster.outlier, cluster, note)
        made["common_lb_config"] = {"healthy_panic_threshold": {"value": cluster.outlier.min_health_percent}}
    if any(one.locality_weight for one in cluster.endpoints) and node.kind != GRPC:
        made.setdefault("common_lb_config", {})["locality_weighted_lb_config"] = {}
    if node.kind != GRPC:
        _protocol(made, cluster)
    elif limits.keepalive or limits.proxy_protocol or limits.max_requests_per_connection or limits.ping_every_s:
        note(f"{_where(cluster)}: of connectionPool gRPC carries out connectTimeout and http2MaxRequests alone")
    return made


def _thresholds(limits: PoolLimits, cluster: Cluster, node: Node, note: Notes) -> JSON:
    if node.kind == GRPC:
        if limits.max_connections or limits.max_pending or limits.max_retries or limits.retry_percent >= 0:
            note(f"{_where(cluster)}: maxConnections, pending requests and retries are not limited by gRPC")
        return {"max_requests": limits.max_requests or UNLIMITED}
    made: JSON = {
        "max_connections": limits.max_connections or UNLIMITED,
        "max_pending_requests": limits.max_pending or UNLIMITED,
        "max_requests": limits.max_requests or UNLIMITED,
        "max_retries": limits.max_retries or UNLIMITED,
    }
    if limits.retry_percent >= 0:
        made["retry_budget"] = {
            "budget_percent": {"value": limits.retry_percent},
            "min_retry_concurrency": limits.retry_least,
        }
    return made


def _protocol(made: JSON, cluster: Cluster) -> None:
    """HTTP's version to the endpoints, and how long connections live."""
    limits = cluster.limits
    common: JSON = {"idle_timeout": seconds(limits.idle_timeout_s)}
    if limits.max_requests_per_connection:
        common["max_requests_per_connection"] = limits.max_requests_per_connection
    if limits.max_connection_duration_s:
        common["max_connection_duration"] = seconds(limits.max_connection_duration_s)
    two: JSON = {}
    if limits.max_streams:
        two["max_concurrent_streams"] = limits.max_streams
    if limits.ping_every_s:
        two["connection_keepalive"] = {
            "interval": seconds(limits.ping_every_s), "timeout": seconds(limits.ping_answer_s),
        }  # fmt: skip
    options: JSON = {"common_http_protocol_options": common}
    if cluster.http2:
        options["explicit_http_config"] = {"http2_protocol_options": two}
    elif cluster.follows_client:
        options["use_downstream_protocol_config"] = {"http_protocol_options": {}, "http2_protocol_options": two}
    else:
        options["explicit_http_config"] = {"http_protocol_options": {}}
    name = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
    made["typed_extension_protocol_options"] = {name: typed("upstreams.http.v3.HttpProtocolOptions", **options)}
    if limits.keepalive is not None:
        probes, time_s, interval_s = limits.keepalive
        alive = {"keepalive_probes": probes, "keepalive_time": int(time_s), "keepalive_interval": int(interval_s)}
        alive = {key: value for key, value in alive.items() if value}
        made["upstream_connection_options"] = {"tcp_keepalive": alive}


def _outlier(outlier: OutlierPolicy, cluster: Cluster, note: Notes) -> JSON:
    if outlier.codes is not None:
        note(f"{_where(cluster)}: outlierDetectionHttpErrorCodes is not carried out by xDS; 5xx counts")
    made: JSON = {
        "consecutive_5xx": outlier.consecutive_5xx or 5,
        "enforcing_consecutive_5xx": 100 if outlier.consecutive_5xx else 0,
        "interval": seconds(outlier.interval_s),
        "base_ejection_time": seconds(outlier.base_ejection_s),
        "max_ejection_percent": outlier.max_ejection_percent,
        "enforcing_success_rate": 100 if outlier.success_hosts else 0,
    }
    if outlier.success_hosts:
        made |= {
            "success_rate_minimum_hosts": outlier.success_hosts,
            "success_rate_request_volume": outlier.success_volume,
            "success_rate_stdev_factor": outlier.success_stdev_factor,
        }
    if outlier.consecutive_gateway:
        made["consecutive_gateway_failure"] = outlier.consecutive_gateway
        made["enforcing_consecutive_gateway_failure"] = 100
    if outlier.split:
        made["split_external_local_origin_errors"] = True
        made["consecutive_local_origin_failure"] = outlier.consecutive_local or 5
        made["enforcing_consecutive_local_origin_failure"] = 100 if outlier.consecutive_local else 0
        made["enforcing_local_origin_success_rate"] = 0
    return made


# --- endpoints ------------------------------------------------------------------------------------------------------


def _reachable(cluster: Cluster, node: Node, note: Notes) -> list[ClusterEndpoint]:
    """Those that egress NetworkPolicy admits, and to which a connection can be made as the rules want it."""
    found = []
    for one in cluster.endpoints:
        if one.egress is not None and not one.egress.allowed:
            continue
        if one.tls is not None and one.tls.unusable:
            note(f"{_where(cluster)}: {one.tls.unusable}; its endpoints are left out")
            continue
        if one.tls is not None and one.tls.credential is not None:
            note(f"{_where(cluster)}: credentialName is not carried out by xDS, name files; its endpoints are left out")
            continue
        if one.tls is not None and one.tls.mode == "mesh" and not node.folder and node.kind != GRPC:
            note("it has no certificate (FOLDER): endpoints that want mutual TLS are left out")
            continue
        found.append(one)
    return found


def _localities(cluster: Cluster, endpoints: Sequence[ClusterEndpoint], node: Node) -> list[JSON]:
    ranks = {rank: index for index, rank in enumerate(sorted({one.priority for one in endpoints}))}
    groups: dict[tuple[int, str], list[ClusterEndpoint]] = {}
    for one in endpoints:
        groups.setdefault((ranks[one.priority], one.endpoint.locality), []).append(one)
    weighted = any(one.locality_weight for one in endpoints)
    found = []
    for (priority, locality), members in sorted(groups.items()):
        region, zone, sub_zone = (*locality.split("/"), "", "", "")[:3]
        weight = sum(max(one.weight, 1) for one in members)
        if weighted:
            weight = max(round(members[0].locality_weight), 1)
        place = {"region": region, "zone": zone, "sub_zone": sub_zone}
        found.append(
            {
                "locality": {key: value for key, value in place.items() if value},
                "lb_endpoints": [_endpoint(one) for one in members],
                "load_balancing_weight": weight,
                "priority": priority,
            }
        )
    return found


def _endpoint(one: ClusterEndpoint) -> JSON:
    made: JSON = {
        "endpoint": {"address": socket_address(one.address, one.port)},
        "load_balancing_weight": max(one.weight, 1),
    }
    key = _match_key(one.tls)
    if key:
        made["metadata"] = {"filter_metadata": {"envoy.transport_socket_match": {"tls": key}}}
    return made


def _match_key(tls: UpstreamTLS | None) -> str:
    if tls is None:
        return ""
    return "|".join((tls.mode, tls.sni, *tls.identities))


# --- TLS to endpoints -------------------------------------------------------------------------------------------------


def _transport(
    made: JSON, cluster: Cluster, endpoints: list[ClusterEndpoint], node: Node, note: Notes
) -> list[ClusterEndpoint]:
    """Put the transport sockets into the cluster; the endpoints that can be reached by them."""
    kinds: dict[str, UpstreamTLS] = {_match_key(one.tls): one.tls for one in endpoints if one.tls is not None}
    if node.kind == GRPC:
        return _grpc_transport(made, cluster, endpoints, kinds, node, note)
    plain = _wrapped({"name": "envoy.transport_sockets.raw_buffer", "typed_config": typed(
        "transport_sockets.raw_buffer.v3.RawBuffer")}, cluster)  # fmt: skip
    matches = []
    for key, tls in sorted(kinds.items()):
        socket = _wrapped({"name": "tls", "typed_config": _upstream_tls(tls, cluster, node)}, cluster)
        matches.append({"name": key, "match": {"tls": key}, "transport_socket": socket})
    if matches:
        made["transport_socket_matches"] = [*matches, {"name": "plain", "match": {}, "transport_socket": plain}]
    elif cluster.limits.proxy_protocol:
        made["transport_socket"] = plain
    return endpoints


def _grpc_transport(
    made: JSON, cluster: Cluster, endpoints: list[ClusterEndpoint], kinds: dict[str, UpstreamTLS], node: Node,
    note: Notes,
) -> list[ClusterEndpoint]:  # fmt: skip
    """gRPC has one transport for a cluster: mutual TLS where any endpoint wants it, and then those alone."""
    if not kinds:
        return endpoints
    if any(tls.mode != "mesh" for tls in kinds.values()):
        note(f"{_where(cluster)}: TLS by files is not carried out by gRPC; the cluster has no endpoints")
        return []
    identities = list(dict.fromkeys(one for tls in kinds.values() for one in tls.identities))
    sni = next(iter(kinds.values())).sni
    tls = {"common_tls_context": mesh_tls(node, uri_names(exact=identities)), "sni": sni}
    made["transport_socket"] = {
        "name": "envoy.transport_sockets.tls", "typed_config": {"@type": TLS + "UpstreamTlsContext", **tls},
    }  # fmt: skip
    secured = [one for one in endpoints if one.tls is not None]
    if len(secured) < len(endpoints):
        note(f"{_where(cluster)}: endpoints without mutual TLS are left out, since gRPC has one transport for all")
    return secured


def _upstream_tls(tls: UpstreamTLS, cluster: Cluster, node: Node) -> JSON:
    alpn = ALPN_TWO if cluster.http2 or cluster.follows_client else ALPN
    if tls.mode == "mesh":
        own = mesh_tls(node, uri_names(exact=tls.identities), alpn)
        return {"@type": TLS + "UpstreamTlsContext", "common_tls_context": own, "sni": tls.sni}
    common: JSON = {"alpn_protocols": ["h2"] if cluster.http2 else ["http/1.1"] if cluster.protocol == "http" else []}
    if tls.cert_file:
        chain, key = {"filename": tls.cert_file}, {"filename": tls.key_file}
        common["tls_certificates"] = [{"certificate_chain": chain, "private_key": key}]
    if not tls.skip_verify:
        validation: dict[str, Any] = {
            "trusted_ca": {"filename": tls.ca_file or "/etc/ssl/certs/ca-certificates.crt"},
        }
        if tls.crl_file:
            validation["crl"] = {"filename": tls.crl_file}
        names = tls.names or ((tls.sni,) if tls.sni else ())
        validation["match_typed_subject_alt_names"] = [
            {"san_type": "URI" if "://" in one else "DNS", "matcher": {"exact": one}} for one in names
        ]
        common["validation_context"] = validation
    made: JSON = {"@type": TLS + "UpstreamTlsContext", "common_tls_context": common, "sni": tls.sni}
    if not tls.sni:
        made["auto_host_sni"] = True
    return made


def _wrapped(socket: JSON, cluster: Cluster) -> JSON:
    """With the PROXY protocol before it, where the rules want that."""
    version = cluster.limits.proxy_protocol
    if not version:
        return socket
    config = {"version": "V2" if version == 2 else "V1"}
    name = "transport_sockets.proxy_protocol.v3.ProxyProtocolUpstreamTransport"
    return {
        "name": "envoy.transport_sockets.upstream_proxy_protocol",
        "typed_config": typed(name, config=config, transport_socket=socket),
    }
