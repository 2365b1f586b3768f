"""The compiled, immutable form of everything a proxy decides by, and what a decision is.

`compile` makes Tables for one viewpoint (a workload's sidecar, or a gateway); `decide` reads them; the proxy swaps
them by one assignment. Running exchanges keep the tables they began with. The classes here are without behaviour, so
that the hot path pays for attribute look-ups only. Runs compiled (with tables.pxd) or as it stands.
Long because everything a decision is made of stands on one page.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..registry.model import Endpoint, Workload
from ..registry.snapshot import Snapshot
from .resources import MeshConfig


class Arrival:
    """A connection as it came in."""

    def __init__(
        self,
        listener: str,
        *,
        source_ip: str = "",
        source_port: int = 0,
        destination_ip: str = "",
        port: int = 0,
        host: str = "",
        identity: str = "",
        tls: bool = False,
        sni: str = "",
        alpn: str = "",
        server: int = 0,
    ) -> None:
        self.buckets: Any = None
        """Left to the proxy: token buckets of this connection."""
        self.listener = listener
        """`outbound`, `inbound` or `gateway`."""
        self.source_ip = source_ip
        self.source_port = source_port
        self.destination_ip = destination_ip
        """Where the connection was meant to go, where that is known (loopback address, redirect)."""
        self.port = port
        """Outbound: the service port dialled, 0 where only the Host header can tell. Inbound: the workload's port."""
        self.host = host
        """Outbound: the service meant, where the way of arrival says so (named port, loopback address)."""
        self.identity = identity
        """Verified SPIFFE id of the peer; empty: none."""
        self.tls = tls
        """Came by mesh TLS (inbound) or TLS ended here (gateway)."""
        self.sni = sni
        self.alpn = alpn
        self.server = server
        """Gateway: the server at which TLS ended (gateways.Server.number), 0: none."""


class Request(Protocol):
    """What `decide` reads of a request; the proxy's RequestHead has these, so has SimpleRequest below."""

    method: str
    """Empty: an opaque TCP connection; then only `arrival` counts."""
    scheme: str
    authority: str
    """Host header as sent, with port where given."""
    path: str
    """Request target with query, already normalised."""
    arrival: Arrival

    def header(self, name: str) -> str | None:
        """Value of a header by its lower-case name, several lines joined with `,`; None where absent."""
        ...

    def values(self, name: str) -> list[str]:
        """The value of each line of a header by its lower-case name, in order."""
        ...


class SimpleRequest:
    """A request put together by hand: for `explain`, tests and replays."""

    def __init__(
        self,
        arrival: Arrival,
        method: str = "",
        authority: str = "",
        path: str = "/",
        headers: list[tuple[str, str]] | None = None,
        scheme: str = "http",
        claims: Mapping[str, Any] | None = None,
    ) -> None:
        self.arrival = arrival
        self.claims = claims
        """Of a verified token; decide looks for this attribute where a rule asks for claims."""
        self.method = method
        self.scheme = scheme
        self.authority = authority
        self.path = path
        self.headers = [(name.lower(), value) for name, value in headers or []]

    def header(self, name: str) -> str | None:
        found = [value for own, value in self.headers if own == name]
        return ",".join(found) if found else None

    def values(self, name: str) -> list[str]:
        return [value for own, value in self.headers if own == name]


class Verdict:
    """A policy's answer for one connection or request."""

    def __init__(self, allowed: bool, by: str = "", why: str = "") -> None:
        self.allowed = allowed
        self.by = by
        """`kind namespace/name rule N` of what decided; empty where no policy applies."""
        self.why = why
        """One sentence for people, naming the policy where one denied."""


class HeaderOps:
    """Header changes in the order in which they apply: remove, set, add. Names in lower case."""

    def __init__(
        self,
        set: tuple[tuple[str, str], ...] = (),
        add: tuple[tuple[str, str], ...] = (),
        remove: tuple[str, ...] = (),
    ) -> None:
        self.set = set
        self.add = add
        self.remove = remove
        self.wire: Any = None
        """Left to the proxy for its own prepared form."""


class Destination:
    """One of the concrete destinations that a route's weights choose among."""

    def __init__(
        self,
        cluster: str,
        host: str,
        port: int,
        subset: str = "",
        weight: int = 100,
        request_headers: HeaderOps | None = None,
        response_headers: HeaderOps | None = None,
        authority: str | None = None,
    ) -> None:
        self.authority = authority
        """New Host where destinations differ in it; None: as Decision.authority says."""
        self.cluster = cluster
        """Key into Tables.clusters; absent there: unknown service, port or subset (FL-NO-CLUSTER)."""
        self.host = host
        self.port = port
        self.subset = subset
        self.weight = weight
        self.request_headers = request_headers
        """Route and destination level already merged in Istio's order."""
        self.response_headers = response_headers


class RetryPolicy:
    def __init__(
        self,
        attempts: int,
        conditions: frozenset[str],
        status_codes: frozenset[int] = frozenset(),
        per_try_timeout_s: float | None = None,
        backoff_s: float = 0.025,
        ignore_previous_hosts: bool = True,
        retry_on: tuple[str, ...] = (),
        remote: bool = False,
    ) -> None:
        self.remote = remote
        """retryRemoteLocalities: later tries go to priorities at which none was made."""
        self.retry_on = retry_on
        """As written, in order; for people."""
        self.attempts = attempts
        """Retries after the first try."""
        self.conditions = conditions
        """Names as in Istio's retryOn."""
        self.status_codes = status_codes
        self.per_try_timeout_s = per_try_timeout_s
        self.backoff_s = backoff_s
        self.ignore_previous_hosts = ignore_previous_hosts


class Fault:
    """Percentages are 0 to 100."""

    def __init__(
        self,
        delay_s: float = 0.0,
        delay_percentage: float = 0.0,
        abort_status: int = 0,
        abort_percentage: float = 0.0,
        abort_grpc_status: str = "",
    ) -> None:
        self.delay_s = delay_s
        self.delay_percentage = delay_percentage
        self.abort_status = abort_status
        self.abort_percentage = abort_percentage
        self.abort_grpc_status = abort_grpc_status


class Mirror:
    def __init__(self, cluster: str, host: str, port: int, subset: str = "", percentage: float = 100.0) -> None:
        self.cluster = cluster
        self.host = host
        self.port = port
        self.subset = subset
        self.percentage = percentage


class Decision:
    """What is to be done with a request. Immutable; may be shared between requests."""

    def __init__(
        self,
        verdict: str,
        *,
        status: int = 0,
        reason: str = "",
        why: str = "",
        virtual_service: str = "",
        route: str = "",
        destinations: tuple[Destination, ...] = (),
        authority: str | None = None,
        path: str | None = None,
        request_headers: HeaderOps | None = None,
        response_headers: HeaderOps | None = None,
        timeout_s: float | None = None,
        retries: RetryPolicy | None = None,
        fault: Fault | None = None,
        mirrors: tuple[Mirror, ...] = (),
        location: str = "",
        body: bytes = b"",
        policy: Verdict | None = None,
    ) -> None:
        self.verdict = verdict
        """route, redirect, direct-response, not-found, denied, unavailable or passthrough."""
        self.status = status
        """Of an answer that we make ourselves; 0 where an endpoint will answer."""
        self.reason = reason
        """FL-... code of an answer that refuses."""
        self.why = why
        """One sentence for people."""
        self.virtual_service = virtual_service
        """namespace/name, or empty."""
        self.route = route
        """The route's name, else its index as text."""
        self.destinations = destinations
        self.total_weight = sum(destination.weight for destination in destinations)
        self.authority = authority
        """New Host, or None: unchanged."""
        self.path = path
        """New request target with query, or None: unchanged."""
        self.request_headers = request_headers
        """The route's own, of a redirect or direct response; what goes to an endpoint stands in its Destination."""
        self.response_headers = response_headers
        self.timeout_s = timeout_s
        self.retries = retries
        self.fault = fault
        self.mirrors = mirrors
        self.location = location
        """Of a redirect."""
        self.body = body
        """Of a direct response."""
        self.policy = policy
        """Verdict of the policies looked at (inbound: ingress; outbound: None, see ClusterEndpoint.egress)."""


class Warmup:
    """How an endpoint that is new, or back, comes to its full share (Envoy's slow start)."""

    __slots__ = ("aggression", "duration_s", "minimum")

    def __init__(self, duration_s: float, minimum: float = 0.1, aggression: float = 1.0) -> None:
        self.duration_s = duration_s
        self.minimum = minimum
        """Share that it begins with, of 1."""
        self.aggression = aggression
        """The share grows with time to the power of 1 / aggression."""


class LoadBalancer:
    """kind: least_request, round_robin, random, peak_ewma, ring_hash, maglev, passthrough."""

    def __init__(
        self,
        kind: str = "least_request",
        hash_on: str = "",
        hash_name: str = "",
        table_size: int = 1024,
        cookie_ttl_s: float | None = None,
        cookie_path: str = "",
        warmup: Warmup | None = None,
    ) -> None:
        self.warmup = warmup
        """With least_request and round_robin only."""
        self.kind = kind
        self.hash_on = hash_on
        """header, cookie, source-ip, query, client (source address, `hash_name` for loopback), or empty."""
        self.hash_name = hash_name
        self.table_size = table_size
        """Least number of ring points, or Maglev's table size (a prime)."""
        self.cookie_ttl_s = cookie_ttl_s
        """None: never make the cookie; 0: session cookie."""
        self.cookie_path = cookie_path


class PoolLimits:
    """0 is no limit. Counted per cluster (service, port, subset) of this proxy, as Istio does."""

    def __init__(
        self,
        max_connections: int = 0,
        connect_timeout_s: float = 10.0,
        max_pending: int = 0,
        max_requests: int = 0,
        max_requests_per_connection: int = 0,
        max_retries: int = 0,
        idle_timeout_s: float = 3600.0,
        max_connection_duration_s: float = 0.0,
        keepalive: tuple[int, float, float] | None = None,
        proxy_protocol: int = 0,
        h2_upgrade: str = "",
        use_client_protocol: bool = False,
        max_streams: int = 0,
        retry_percent: float = -1.0,
        retry_least: int = 0,
        tcp_idle_timeout_s: float = -1.0,
        ping_every_s: float = 0.0,
        ping_answer_s: float = 0.0,
        tunnel: str = "",
        spread: bool = False,
    ) -> None:
        self.tcp_idle_timeout_s = tcp_idle_timeout_s
        """Of an opaque connection: closed when nothing moves for so long; 0: never; below 0: as the proxy's own limit
        (relay-idle-timeout) has it."""
        self.spread = spread
        """Where an endpoint is a name: its connections go to all its addresses; else to the resolver's first."""
        self.ping_every_s = ping_every_s
        """http2KeepAlive: an HTTP/2 connection is asked by PING so often; 0: as its silence suggests."""
        self.ping_answer_s = ping_answer_s
        """So long it may take to answer."""
        self.tunnel = tunnel
        """HOST:PORT that opaque connections ask an endpoint for by CONNECT; empty: it is what they want itself."""
        self.retry_percent = retry_percent
        """retryBudget: so many retries at a time as this share of the requests in flight, but `retry_least`; below 0:
        `max_retries` counts."""
        self.retry_least = retry_least
        self.h2_upgrade = h2_upgrade
        """h2UpgradePolicy: UPGRADE, DO_NOT_UPGRADE, DEFAULT or empty."""
        self.use_client_protocol = use_client_protocol
        self.max_streams = max_streams
        """maxConcurrentStreams: requests at a time on one HTTP/2 connection."""
        self.max_connections = max_connections
        self.connect_timeout_s = connect_timeout_s
        self.max_pending = max_pending
        self.max_requests = max_requests
        self.max_requests_per_connection = max_requests_per_connection
        self.max_retries = max_retries
        self.idle_timeout_s = idle_timeout_s
        self.max_connection_duration_s = max_connection_duration_s
        self.keepalive = keepalive
        """(probes, time_s, interval_s), 0 for the kernel's own value."""
        self.proxy_protocol = proxy_protocol
        """Version of the PROXY protocol header that endpoints get; 0: none."""


class OutlierPolicy:
    """0 switches a detector off. Semantics: reference of Istio's outlierDetection."""

    def __init__(
        self,
        consecutive_5xx: int = 5,
        consecutive_gateway: int = 0,
        consecutive_local: int = 5,
        split: bool = False,
        interval_s: float = 10.0,
        base_ejection_s: float = 30.0,
        max_ejection_percent: int = 10,
        min_health_percent: int = 0,
        codes: frozenset[int] | None = None,
        success_hosts: int = 0,
        success_volume: int = 100,
        success_stdev_factor: int = 1900,
    ) -> None:
        self.codes = codes
        """Statuses that are errors; None: 5xx."""
        self.success_hosts = success_hosts
        """Success rate: judged where so many hosts have the volume; 0: off."""
        self.success_volume = success_volume
        """Answers in an interval."""
        self.success_stdev_factor = success_stdev_factor
        """In thousandths: a host is out below mean - stdev * factor / 1000."""
        self.simple = not split and codes is None and not success_hosts
        """An answer below 500 says nothing new about a host without errors."""
        self.consecutive_5xx = consecutive_5xx
        self.consecutive_gateway = consecutive_gateway
        self.consecutive_local = consecutive_local
        self.split = split
        self.interval_s = interval_s
        self.base_ejection_s = base_ejection_s
        self.max_ejection_percent = max_ejection_percent
        self.min_health_percent = min_health_percent


class UpstreamTLS:
    """How to secure the connection to an endpoint."""

    __slots__ = (
        "ca_file",
        "cert_file",
        "credential",
        "crl_file",
        "identities",
        "key_file",
        "mode",
        "names",
        "skip_verify",
        "sni",
        "unusable",
    )

    def __init__(
        self,
        mode: str,
        sni: str = "",
        identities: tuple[str, ...] = (),
        names: tuple[str, ...] = (),
        ca_file: str = "",
        cert_file: str = "",
        key_file: str = "",
        skip_verify: bool = False,
        crl_file: str = "",
        credential: tuple[str, str] | None = None,
        unusable: str = "",
    ) -> None:
        self.mode = mode
        """mesh (our own certificates, peer must show one of `identities`), simple, or mutual (by files or a Secret)."""
        self.sni = sni
        self.identities = identities
        self.names = names
        """simple, mutual: the names of which the server's certificate must carry one; empty: the SNI."""
        self.ca_file = ca_file
        self.cert_file = cert_file
        self.key_file = key_file
        self.skip_verify = skip_verify
        self.crl_file = crl_file
        """Lists of revoked certificates; empty: none are looked at."""
        self.credential = credential
        """(namespace, name) of the Secret that stands in for files; None: files."""
        self.unusable = unusable
        """Why no connection can be made so; empty: one can."""


class ClusterEndpoint:
    """One endpoint as this viewpoint reaches it."""

    def __init__(
        self,
        address: str,
        port: int,
        endpoint: Endpoint,
        tls: UpstreamTLS | None = None,
        weight: int = 1,
        priority: int = 0,
        egress: Verdict | None = None,
        locality_weight: float = 0.0,
    ) -> None:
        self.locality_weight = locality_weight
        """Percent for its whole locality, where a DestinationRule distributes by locality; else 0."""
        self.address = address
        """Where to connect: with mesh TLS the sidecar's mesh port."""
        self.port = port
        self.endpoint = endpoint
        self.tls = tls
        self.weight = weight
        self.priority = priority
        """From 0, which is the nearest, without gaps."""
        self.egress = egress
        """None: no egress policy applies. Not allowed: a connection must not be made (FL-DENIED)."""
        self.last: Any = None
        """Left to the proxy: where the last outcome was counted."""


class Cluster:
    """One concrete destination: endpoints of a service's port and subset, and how to use them."""

    def __init__(
        self,
        name: str,
        host: str,
        port: int,
        subset: str,
        endpoints: tuple[ClusterEndpoint, ...],
        *,
        protocol: str = "",
        load_balancer: LoadBalancer | None = None,
        limits: PoolLimits | None = None,
        outlier: OutlierPolicy | None = None,
        rule: str = "",
        service_name: str = "",
        service_namespace: str = "",
    ) -> None:
        self.name = name
        """`outbound|PORT|SUBSET|HOST`, `inbound|PORT||`, or `PassthroughCluster`."""
        self.host = host
        self.port = port
        self.subset = subset
        self.endpoints = endpoints
        """All that may be used, ready only; those not ready are left out by `compile` (explain lists them with why)."""
        self.protocol = protocol
        """http, http2, grpc, tcp, tls, ...; empty: undeclared."""
        self.load_balancer = load_balancer or LoadBalancer()
        self.limits = limits or PoolLimits()
        self.outlier = outlier
        self.rule = rule
        """namespace/name of the DestinationRule in force, or empty."""
        self.service_name = service_name
        self.service_namespace = service_namespace
        declared, inbound, keeps = protocol in ("http2", "grpc"), name.startswith("inbound"), self.limits
        self.http2 = not inbound and not keeps.use_client_protocol and (declared or keeps.h2_upgrade == "UPGRADE")
        """Requests go to the endpoints by HTTP/2."""
        self.follows_client = keeps.use_client_protocol or not protocol or (inbound and declared)
        """Requests go by HTTP/2 if they came by it."""
        self.http1 = not declared and keeps.h2_upgrade == "DO_NOT_UPGRADE"
        """By HTTP/1.1, also between sidecars."""


class Viewpoint:
    """For whom tables are compiled: a workload's sidecar, or a gateway."""

    def __init__(self, workload: Workload, gateway: str = "") -> None:
        self.workload = workload
        self.gateway = gateway
        """namespace/name of a Gateway resource, `*`: all that select the workload; empty: a sidecar."""


class Tables:
    """See `compile`. What is opaque here (`http`, `tcp`, `inbound`) belongs to compile/decide alone."""

    def __init__(
        self,
        version: str,
        viewpoint: Viewpoint,
        mesh: MeshConfig,
        snapshot: Snapshot,
        clusters: Mapping[str, Cluster],
        http: Any = None,
        tcp: Any = None,
        inbound: Any = None,
        ports: Mapping[tuple[str, int], str] | None = None,
        egress: Any = None,
        gateway: Any = None,
        rate_limits: Any = None,
    ) -> None:
        self.rate_limits = rate_limits
        """policy.rate_limits.RateLimits; None: there are none here."""
        self.gateway = gateway
        """policy.gateways.Ports; None: a sidecar's."""
        self.egress = egress
        """Opaque, see `decide.egress_verdict`; None: no egress NetworkPolicy selects the workload."""
        self.version = version
        self.viewpoint = viewpoint
        self.mesh = mesh
        self.snapshot = snapshot
        self.clusters = clusters
        self.http = http
        self.tcp = tcp
        self.inbound = inbound
        self.ports: Mapping[tuple[str, int], str] = ports or {}
        """Declared protocol by (service host, service port); the ports a loopback address must listen on."""
