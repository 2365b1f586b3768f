"""DestinationRule blocks to the flat settings of a cluster: load balancer, limits, outlier policy, TLS."""

from __future__ import annotations

from functools import lru_cache

from ..registry.model import Workload
from .credentials import place_of
from .resources import (
    ClientTLSSettings,
    ConnectionPoolSettings,
    LoadBalancerSettings,
    OutlierDetection,
    ProxyProtocol,
    RetryBudget,
    TunnelSettings,
)
from .tables import LoadBalancer, OutlierPolicy, PoolLimits, UpstreamTLS, Warmup

_SIMPLE = {
    "ROUND_ROBIN": "round_robin",
    "RANDOM": "random",
    "PASSTHROUGH": "passthrough",
    "PEAK_EWMA": "peak_ewma",
}
WARMED_UP = ("round_robin", "least_request")
"""Balancers that let new endpoints begin with less."""
IDLE_S = 3600.0
RING_POINTS = 1024


_BALANCED = LoadBalancer()
"""Where nothing is said: one for all clusters."""


def load_balancer(settings: LoadBalancerSettings | None) -> LoadBalancer:
    """LEAST_REQUEST unless something else is asked for; a hash is by ring unless Maglev is named."""
    if settings is None:
        return _BALANCED
    hashing = settings.consistent_hash
    if hashing is None:
        kind = _SIMPLE.get(settings.simple or "", "least_request")
        return LoadBalancer(kind, warmup=_warmup(settings) if kind in WARMED_UP else None)
    kind, size = "ring_hash", hashing.minimum_ring_size or RING_POINTS
    if hashing.maglev is not None:
        kind, size = "maglev", hashing.maglev.table_size
    elif hashing.ring_hash is not None:
        size = hashing.ring_hash.minimum_ring_size
    if hashing.http_cookie is not None:
        cookie = hashing.http_cookie
        return LoadBalancer(kind, "cookie", cookie.name, size, cookie.ttl, cookie.path)
    if hashing.http_header_name is not None:
        return LoadBalancer(kind, "header", hashing.http_header_name.lower(), size)
    if hashing.http_query_parameter_name is not None:
        return LoadBalancer(kind, "query", hashing.http_query_parameter_name, size)
    if hashing.use_source_ip:
        return LoadBalancer(kind, "source-ip", "", size)
    return LoadBalancer(kind, "", "", size)


def _warmup(settings: LoadBalancerSettings) -> Warmup | None:
    wanted = settings.warmup
    if wanted is not None:
        return Warmup(wanted.duration, wanted.minimum_percent / 100, wanted.aggression)
    return Warmup(settings.warmup_duration_secs) if settings.warmup_duration_secs else None


def client_affinity(own: Workload) -> LoadBalancer:
    """A Service's sessionAffinity ClientIP: consistent hashing of the client, who is the workload itself where it comes
    by loopback, as an app comes to its sidecar. kube-proxy remembers clients instead, for a time; here nothing is
    remembered, so a client keeps its endpoint across restarts, and few clients move when endpoints come or go."""
    return LoadBalancer("ring_hash", "client", own.addresses[0] if own.addresses else own.key, RING_POINTS)


def pool_limits(
    settings: ConnectionPoolSettings | None,
    connect_timeout_s: float,
    proxy_protocol: ProxyProtocol | None = None,
    retry_budget: RetryBudget | None = None,
    tunnel: TunnelSettings | None = None,
    spread: bool = False,
) -> PoolLimits:
    """Absent means without limit; the HTTP idle timeout takes precedence over the TCP one."""
    if settings is None and proxy_protocol is None and retry_budget is None and tunnel is None and not spread:
        return _unlimited(connect_timeout_s)
    return _pool_limits(settings, connect_timeout_s, proxy_protocol, retry_budget, tunnel, spread)


@lru_cache(maxsize=8)
def _unlimited(connect_timeout_s: float) -> PoolLimits:
    """One for all clusters that nobody limits."""
    return _pool_limits(None, connect_timeout_s)


def _pool_limits(
    settings: ConnectionPoolSettings | None,
    connect_timeout_s: float,
    proxy_protocol: ProxyProtocol | None = None,
    retry_budget: RetryBudget | None = None,
    tunnel: TunnelSettings | None = None,
    spread: bool = False,
) -> PoolLimits:
    tcp = settings.tcp if settings is not None else None
    http = settings.http if settings is not None else None
    idle_s = IDLE_S
    if http is not None and http.idle_timeout is not None:
        idle_s = http.idle_timeout
    elif tcp is not None and tcp.idle_timeout is not None:
        idle_s = tcp.idle_timeout
    keepalive = None
    if tcp is not None and tcp.tcp_keepalive is not None:
        alive = tcp.tcp_keepalive
        keepalive = (alive.probes, alive.time or 0.0, alive.interval or 0.0)
    asking = http.http2_keep_alive if http is not None else None
    return PoolLimits(
        max_connections=tcp.max_connections if tcp else 0,
        connect_timeout_s=tcp.connect_timeout if tcp and tcp.connect_timeout else connect_timeout_s,
        max_pending=http.http1_max_pending_requests if http else 0,
        max_requests=http.http2_max_requests if http else 0,
        max_requests_per_connection=http.max_requests_per_connection if http else 0,
        max_retries=http.max_retries if http else 0,
        idle_timeout_s=idle_s,
        max_connection_duration_s=(tcp.max_connection_duration or 0.0) if tcp else 0.0,
        keepalive=keepalive,
        proxy_protocol=0 if proxy_protocol is None else 2 if proxy_protocol.version == "V2" else 1,
        h2_upgrade=http.h2_upgrade_policy if http else "",
        use_client_protocol=http.use_client_protocol if http else False,
        max_streams=http.max_concurrent_streams if http else 0,
        retry_percent=retry_budget.percent if retry_budget is not None else -1.0,
        retry_least=retry_budget.min_retry_concurrency if retry_budget is not None else 0,
        tcp_idle_timeout_s=tcp.idle_timeout if tcp is not None and tcp.idle_timeout is not None else -1.0,
        ping_every_s=asking.interval if asking is not None else 0.0,
        ping_answer_s=asking.timeout if asking is not None else 0.0,
        tunnel=_authority(tunnel) if tunnel is not None else "",
        spread=spread,
    )


def _authority(tunnel: TunnelSettings) -> str:
    host = f"[{tunnel.target_host}]" if ":" in tunnel.target_host else tunnel.target_host
    return f"{host}:{tunnel.target_port}"


def outlier_policy(settings: OutlierDetection | None) -> OutlierPolicy | None:
    """None without the block; the block alone, even empty, switches detection on with Istio's defaults."""
    if settings is None:
        return None
    five = settings.consecutive5xx_errors
    local = settings.consecutive_local_origin_failures
    hosts, volume = settings.success_rate_minimum_hosts, settings.success_rate_request_volume
    factor = settings.success_rate_stdev_factor
    by_rate = any(one is not None for one in (hosts, volume, factor))
    return OutlierPolicy(
        consecutive_5xx=5 if five is None else five,
        consecutive_gateway=settings.consecutive_gateway_errors or 0,
        consecutive_local=5 if local is None else local,
        split=settings.split_external_local_origin_errors,
        interval_s=settings.interval if settings.interval is not None else 10.0,
        base_ejection_s=settings.base_ejection_time if settings.base_ejection_time is not None else 30.0,
        max_ejection_percent=settings.max_ejection_percent or 10,
        min_health_percent=settings.min_health_percent,
        codes=frozenset(settings.outlier_detection_http_error_codes) or None,
        success_hosts=(5 if hosts is None else hosts) if by_rate else 0,
        success_volume=100 if volume is None else volume,
        success_stdev_factor=1900 if factor is None else factor,
    )


def file_tls(
    settings: ClientTLSSettings | None,
    client: str = "",
    applies: bool = False,
    host: str = "",
    names: tuple[str, ...] = (),
) -> UpstreamTLS | None:
    """SIMPLE and MUTUAL; None for mesh TLS, plain text, and where nothing is said.

    `client`: namespace of the client, where a Secret of `credentialName` is looked for; `applies`: it is for this
    client (else, as with Istio, a sidecar goes by files, of which there are none). `host`: the service, whose name is
    asked for and looked for in the certificate where the rule names no other; empty: as the endpoint is called.
    `names`: subjectAltNames of the ServiceEntry, over which the rule's go.
    """
    if settings is None or settings.mode not in ("SIMPLE", "MUTUAL"):
        return None
    named = settings.credential_name
    place = place_of(named, client) if named and applies else None
    unusable = ""
    if named and applies and place is None:
        unusable = f"credentialName {named} is not carried out: name a Secret of the client's namespace"
    elif named and not applies and settings.mode == "MUTUAL":
        unusable = (
            f"credentialName {named} is for gateways, and for sidecars that a workloadSelector of the DestinationRule "
            "selects: give it one, or clientCertificate and privateKey"
        )
    return UpstreamTLS(
        settings.mode.lower(),
        sni=settings.sni or host,
        names=tuple(settings.subject_alt_names) or (() if settings.insecure_skip_verify else names),
        ca_file=settings.ca_certificates,
        cert_file=settings.client_certificate,
        key_file=settings.private_key,
        skip_verify=bool(settings.insecure_skip_verify),
        crl_file=settings.ca_crl,
        credential=place,
        unusable=unusable,
    )
