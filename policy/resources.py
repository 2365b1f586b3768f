"""Resources as people wrote them, typed: what `parse` returns and `compile` reads.

Field names are the upstream ones (camelCase on the wire, snake_case here; `from_` and `except_` for Python's
keywords). Durations are seconds as float, already read from text by the schema check; absent is None. Upstream
defaults are applied where upstream applies them at decoding time, and otherwise by `compile`.
Long because one page shows every kind with all its fields.
"""

from __future__ import annotations

from msgspec import Struct, field


class Meta(Struct, frozen=True, rename="camel"):
    """Of any object. Order of age: `created`, then name, then namespace (Istio's order)."""

    name: str
    namespace: str = ""
    labels: dict[str, str] = {}
    annotations: dict[str, str] = {}
    created: float = 0.0
    """metadata.creationTimestamp as Unix seconds."""
    resource_version: str = ""
    source: str = ""
    """Where it stands: `file.yaml:12`, or `control` with the resourceVersion."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Spec(Struct, frozen=True, rename="camel"):
    """Base of everything below `spec`."""


# --- networking.istio.io VirtualService -----------------------------------------------------------------------------


class StringMatch(Spec, frozen=True):
    """Exactly one is set; none at all means presence (headers, query) or no condition."""

    exact: str | None = None
    prefix: str | None = None
    regex: str | None = None


class PortSelector(Spec, frozen=True):
    number: int = 0


class DestinationRef(Spec, frozen=True):
    host: str
    subset: str | None = None
    port: PortSelector | None = None


class HeaderOperations(Spec, frozen=True):
    set: dict[str, str] = {}
    add: dict[str, str] = {}
    remove: list[str] = []


class Headers(Spec, frozen=True):
    request: HeaderOperations | None = None
    response: HeaderOperations | None = None


class HTTPRouteDestination(Spec, frozen=True):
    destination: DestinationRef
    weight: int = 0
    headers: Headers | None = None


class HTTPMatchRequest(Spec, frozen=True):
    name: str = ""
    uri: StringMatch | None = None
    scheme: StringMatch | None = None
    method: StringMatch | None = None
    authority: StringMatch | None = None
    headers: dict[str, StringMatch] = {}
    without_headers: dict[str, StringMatch] = {}
    query_params: dict[str, StringMatch] = {}
    ignore_uri_case: bool = False
    port: int = 0
    source_labels: dict[str, str] = {}
    source_namespace: str = ""
    gateways: list[str] = []
    stat_prefix: str = ""


class HTTPRewrite(Spec, frozen=True):
    uri: str = ""
    authority: str = ""
    uri_regex_rewrite: dict[str, str] | None = None
    """{"match": RE2, "rewrite": text}"""


class HTTPRedirect(Spec, frozen=True):
    uri: str = ""
    prefix_rewrite: str = ""
    authority: str = ""
    port: int | None = None
    derive_port: str | None = None
    scheme: str = ""
    redirect_code: int = 301


class HTTPBody(Spec, frozen=True):
    string: str | None = None
    bytes: str | None = None


class HTTPDirectResponse(Spec, frozen=True):
    status: int
    body: HTTPBody | None = None


class Percent(Spec, frozen=True):
    value: float = 0.0


class FaultDelay(Spec, frozen=True):
    fixed_delay: float | None = None
    percentage: Percent | None = None
    percent: int | None = None


class FaultAbort(Spec, frozen=True):
    http_status: int | None = None
    grpc_status: str | None = None
    percentage: Percent | None = None


class HTTPFaultInjection(Spec, frozen=True):
    delay: FaultDelay | None = None
    abort: FaultAbort | None = None


class HTTPRetry(Spec, frozen=True):
    attempts: int = 0
    per_try_timeout: float | None = None
    retry_on: str = ""
    backoff: float | None = None
    retry_remote_localities: bool | None = None
    retry_ignore_previous_hosts: bool | None = None


class CorsPolicy(Spec, frozen=True):
    allow_origins: list[StringMatch] = []
    allow_methods: list[str] = []
    allow_headers: list[str] = []
    expose_headers: list[str] = []
    max_age: float | None = None
    allow_credentials: bool | None = None
    unmatched_preflights: str = ""


class HTTPMirrorPolicy(Spec, frozen=True):
    destination: DestinationRef
    percentage: Percent | None = None


class Delegate(Spec, frozen=True):
    name: str = ""
    namespace: str = ""


class HTTPRoute(Spec, frozen=True):
    name: str = ""
    match: list[HTTPMatchRequest] = []
    route: list[HTTPRouteDestination] = []
    redirect: HTTPRedirect | None = None
    direct_response: HTTPDirectResponse | None = None
    delegate: Delegate | None = None
    rewrite: HTTPRewrite | None = None
    timeout: float | None = None
    retries: HTTPRetry | None = None
    fault: HTTPFaultInjection | None = None
    mirror: DestinationRef | None = None
    mirrors: list[HTTPMirrorPolicy] = []
    mirror_percentage: Percent | None = None
    mirror_percent: int | None = None
    cors_policy: CorsPolicy | None = None
    headers: Headers | None = None


class L4MatchAttributes(Spec, frozen=True):
    destination_subnets: list[str] = []
    port: int = 0
    source_labels: dict[str, str] = {}
    gateways: list[str] = []
    source_namespace: str = ""
    source_subnet: str = ""


class RouteDestination(Spec, frozen=True):
    destination: DestinationRef
    weight: int = 0


class TCPRoute(Spec, frozen=True):
    match: list[L4MatchAttributes] = []
    route: list[RouteDestination] = []


class TLSMatchAttributes(Spec, frozen=True):
    sni_hosts: list[str] = []
    destination_subnets: list[str] = []
    port: int = 0
    source_labels: dict[str, str] = {}
    gateways: list[str] = []
    source_namespace: str = ""


class TLSRoute(Spec, frozen=True):
    match: list[TLSMatchAttributes] = []
    route: list[RouteDestination] = []


class VirtualServiceSpec(Spec, frozen=True):
    hosts: list[str] = []
    gateways: list[str] = []
    http: list[HTTPRoute] = []
    tls: list[TLSRoute] = []
    tcp: list[TCPRoute] = []
    export_to: list[str] = []


class VirtualService(Struct, frozen=True):
    meta: Meta
    spec: VirtualServiceSpec


# --- networking.istio.io Gateway, and the Secrets that it refers to ---------------------------------------------------


class ServerPort(Spec, frozen=True):
    number: int = 0
    name: str = ""
    protocol: str = ""


class TLSCertificate(Spec, frozen=True):
    """Files."""

    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""


class ServerTLS(Spec, frozen=True):
    mode: str = ""
    """Empty: PASSTHROUGH."""
    https_redirect: bool = False
    server_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    ca_crl: str = ""
    credential_name: str = ""
    credential_names: list[str] = []
    ca_cert_credential_name: str = ""
    tls_certificates: list[TLSCertificate] = []
    subject_alt_names: list[str] = []
    min_protocol_version: str = ""
    max_protocol_version: str = ""
    cipher_suites: list[str] = []


class GatewayServer(Spec, frozen=True):
    port: ServerPort
    hosts: list[str]
    name: str = ""
    bind: str = ""
    tls: ServerTLS | None = None


class GatewaySpec(Spec, frozen=True):
    servers: list[GatewayServer]
    selector: dict[str, str] = {}


class Gateway(Struct, frozen=True):
    meta: Meta
    spec: GatewaySpec


# --- networking.k8s.io Ingress --------------------------------------------------------------------------------------


class ServiceBackendPort(Spec, frozen=True):
    name: str = ""
    number: int = 0


class IngressServiceBackend(Spec, frozen=True):
    name: str
    port: ServiceBackendPort | None = None


class IngressBackend(Spec, frozen=True):
    service: IngressServiceBackend | None = None


class IngressPath(Spec, frozen=True):
    path_type: str
    backend: IngressBackend
    path: str = ""


class IngressRuleValue(Spec, frozen=True):
    paths: list[IngressPath]


class IngressRule(Spec, frozen=True):
    host: str = ""
    http: IngressRuleValue | None = None


class IngressTLS(Spec, frozen=True):
    hosts: list[str] = []
    secret_name: str = ""


class IngressSpec(Spec, frozen=True):
    ingress_class_name: str = ""
    default_backend: IngressBackend | None = None
    tls: list[IngressTLS] = []
    rules: list[IngressRule] = []


class Ingress(Struct, frozen=True):
    meta: Meta
    spec: IngressSpec


class IngressClassSpec(Spec, frozen=True):
    controller: str = ""


class IngressClass(Struct, frozen=True):
    meta: Meta
    spec: IngressClassSpec


class SecretSpec(Spec, frozen=True):
    """What stands at the top of a Secret, not below `spec`."""

    data: dict[str, str] = {}
    """Base64."""
    string_data: dict[str, str] = {}


class Secret(Struct, frozen=True):
    meta: Meta
    spec: SecretSpec


# --- networking.istio.io DestinationRule ----------------------------------------------------------------------------


class HTTPCookie(Spec, frozen=True):
    name: str
    path: str = ""
    ttl: float | None = None


class RingHash(Spec, frozen=True):
    minimum_ring_size: int = 1024


class MagLev(Spec, frozen=True):
    table_size: int = 65537


class ConsistentHashLB(Spec, frozen=True):
    http_header_name: str | None = None
    http_cookie: HTTPCookie | None = None
    use_source_ip: bool | None = None
    http_query_parameter_name: str | None = None
    ring_hash: RingHash | None = None
    maglev: MagLev | None = None
    minimum_ring_size: int | None = None


class LocalityDistribute(Spec, frozen=True):
    """Localities are REGION/ZONE/SUBZONE, or less of it, or end with `*`."""

    from_: str = field(default="", name="from")
    to: dict[str, int] = {}
    """Percent."""


class LocalityFailover(Spec, frozen=True):
    """Regions."""

    from_: str = field(default="", name="from")
    to: str = ""


class LocalityLbSetting(Spec, frozen=True):
    distribute: list[LocalityDistribute] = []
    failover: list[LocalityFailover] = []
    failover_priority: list[str] = []
    """LABEL or LABEL=VALUE, the most important first."""
    enabled: bool | None = None


class WarmupConfiguration(Spec, frozen=True):
    duration: float
    minimum_percent: float = 10.0
    aggression: float = 1.0


class LoadBalancerSettings(Spec, frozen=True):
    simple: str | None = None
    """UNSPECIFIED, LEAST_REQUEST, LEAST_CONN, ROUND_ROBIN, RANDOM, PASSTHROUGH; of our own: PEAK_EWMA."""
    consistent_hash: ConsistentHashLB | None = None
    locality_lb_setting: LocalityLbSetting | None = None
    warmup: WarmupConfiguration | None = None
    warmup_duration_secs: float | None = None


class TcpKeepalive(Spec, frozen=True):
    probes: int = 0
    time: float | None = None
    interval: float | None = None


class TCPSettings(Spec, frozen=True):
    max_connections: int = 0
    connect_timeout: float | None = None
    tcp_keepalive: TcpKeepalive | None = None
    max_connection_duration: float | None = None
    idle_timeout: float | None = None


class Http2KeepAlive(Spec, frozen=True):
    """Seconds."""

    interval: float
    timeout: float


class HTTPSettings(Spec, frozen=True):
    http1_max_pending_requests: int = field(default=0, name="http1MaxPendingRequests")
    http2_max_requests: int = field(default=0, name="http2MaxRequests")
    max_requests_per_connection: int = 0
    max_retries: int = 0
    idle_timeout: float | None = None
    h2_upgrade_policy: str = field(default="", name="h2UpgradePolicy")
    use_client_protocol: bool = False
    max_concurrent_streams: int = 0
    http2_keep_alive: Http2KeepAlive | None = field(default=None, name="http2KeepAlive")


class ConnectionPoolSettings(Spec, frozen=True):
    """0 is unset: no limit."""

    tcp: TCPSettings | None = None
    http: HTTPSettings | None = None


class OutlierDetection(Spec, frozen=True):
    consecutive_errors: int | None = None
    split_external_local_origin_errors: bool = False
    consecutive_local_origin_failures: int | None = None
    consecutive_gateway_errors: int | None = None
    consecutive5xx_errors: int | None = field(default=None, name="consecutive5xxErrors")
    interval: float | None = None
    base_ejection_time: float | None = None
    max_ejection_percent: int = 0
    min_health_percent: int = 0
    outlier_detection_http_error_codes: list[int] = []
    success_rate_minimum_hosts: int | None = None
    """This and the next two are Fairlead's own, with Envoy's meaning and defaults; none of them: off."""
    success_rate_request_volume: int | None = None
    success_rate_stdev_factor: int | None = None


class ClientTLSSettings(Spec, frozen=True):
    mode: str = "DISABLE"
    """DISABLE, SIMPLE, MUTUAL, ISTIO_MUTUAL."""
    client_certificate: str = ""
    private_key: str = ""
    ca_certificates: str = ""
    credential_name: str = ""
    subject_alt_names: list[str] = []
    sni: str = ""
    insecure_skip_verify: bool | None = None
    ca_crl: str = ""


class PortTrafficPolicy(Spec, frozen=True):
    port: PortSelector | None = None
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None


class ProxyProtocol(Spec, frozen=True):
    version: str = "V1"


class RetryBudget(Spec, frozen=True):
    percent: float = 20.0
    min_retry_concurrency: int = 3


class TunnelSettings(Spec, frozen=True):
    target_host: str
    target_port: int
    protocol: str = "CONNECT"


class TrafficPolicy(Spec, frozen=True):
    load_balancer: LoadBalancerSettings | None = None
    connection_pool: ConnectionPoolSettings | None = None
    outlier_detection: OutlierDetection | None = None
    tls: ClientTLSSettings | None = None
    port_level_settings: list[PortTrafficPolicy] = []
    tunnel: TunnelSettings | None = None
    proxy_protocol: ProxyProtocol | None = None
    retry_budget: RetryBudget | None = None


class Subset(Spec, frozen=True):
    name: str
    labels: dict[str, str] = {}
    traffic_policy: TrafficPolicy | None = None


class LabelsSelector(Spec, frozen=True):
    match_labels: dict[str, str] = {}


class DestinationRuleSpec(Spec, frozen=True):
    host: str
    traffic_policy: TrafficPolicy | None = None
    subsets: list[Subset] = []
    export_to: list[str] = []
    workload_selector: LabelsSelector | None = None


class DestinationRule(Struct, frozen=True):
    meta: Meta
    spec: DestinationRuleSpec


# --- networking.k8s.io NetworkPolicy --------------------------------------------------------------------------------


class LabelSelectorRequirement(Spec, frozen=True):
    key: str
    operator: str
    """In, NotIn, Exists, DoesNotExist."""
    values: list[str] = []


class LabelSelector(Spec, frozen=True):
    """Empty matches everything; absent (None where it stands) matches nothing."""

    match_labels: dict[str, str] = {}
    match_expressions: list[LabelSelectorRequirement] = []


class IPBlock(Spec, frozen=True):
    cidr: str
    except_: list[str] = field(default_factory=list, name="except")


class NetworkPolicyPeer(Spec, frozen=True):
    pod_selector: LabelSelector | None = None
    namespace_selector: LabelSelector | None = None
    ip_block: IPBlock | None = None


class NetworkPolicyPort(Spec, frozen=True):
    protocol: str = "TCP"
    port: int | str | None = None
    end_port: int | None = None


class NetworkPolicyIngressRule(Spec, frozen=True):
    from_: list[NetworkPolicyPeer] = field(default_factory=list, name="from")
    ports: list[NetworkPolicyPort] = []


class NetworkPolicyEgressRule(Spec, frozen=True):
    to: list[NetworkPolicyPeer] = []
    ports: list[NetworkPolicyPort] = []


class NetworkPolicySpec(Spec, frozen=True):
    """`policyTypes` is defaulted by `parse` as the API server does at write time."""

    pod_selector: LabelSelector = LabelSelector()
    ingress: list[NetworkPolicyIngressRule] = []
    egress: list[NetworkPolicyEgressRule] = []
    policy_types: list[str] = []


class NetworkPolicy(Struct, frozen=True):
    meta: Meta
    spec: NetworkPolicySpec


# --- security.istio.io ----------------------------------------------------------------------------------------------


class MutualTLS(Spec, frozen=True):
    mode: str = "UNSET"
    """UNSET, DISABLE, PERMISSIVE, STRICT."""


class PeerAuthenticationSpec(Spec, frozen=True):
    selector: LabelsSelector | None = None
    mtls: MutualTLS | None = None
    port_level_mtls: dict[str, MutualTLS] = {}
    """By workload port, as decimal text."""


class PeerAuthentication(Struct, frozen=True):
    meta: Meta
    spec: PeerAuthenticationSpec


class AuthorizationSource(Spec, frozen=True):
    principals: list[str] = []
    not_principals: list[str] = []
    request_principals: list[str] = []
    not_request_principals: list[str] = []
    namespaces: list[str] = []
    not_namespaces: list[str] = []
    service_accounts: list[str] = []
    not_service_accounts: list[str] = []
    ip_blocks: list[str] = []
    not_ip_blocks: list[str] = []
    remote_ip_blocks: list[str] = []
    not_remote_ip_blocks: list[str] = []


class AuthorizationFrom(Spec, frozen=True):
    source: AuthorizationSource


class AuthorizationOperation(Spec, frozen=True):
    hosts: list[str] = []
    not_hosts: list[str] = []
    ports: list[str] = []
    not_ports: list[str] = []
    methods: list[str] = []
    not_methods: list[str] = []
    paths: list[str] = []
    not_paths: list[str] = []


class AuthorizationTo(Spec, frozen=True):
    operation: AuthorizationOperation


class AuthorizationCondition(Spec, frozen=True):
    key: str
    values: list[str] = []
    not_values: list[str] = []


class AuthorizationRule(Spec, frozen=True):
    from_: list[AuthorizationFrom] = field(default_factory=list, name="from")
    to: list[AuthorizationTo] = []
    when: list[AuthorizationCondition] = []


class AuthorizationPolicySpec(Spec, frozen=True):
    selector: LabelsSelector | None = None
    action: str = "ALLOW"
    """ALLOW, DENY, AUDIT. (CUSTOM is refused by name.)"""
    rules: list[AuthorizationRule] | None = None
    """None or empty: matches never. A rule without conditions matches everything."""


class AuthorizationPolicy(Struct, frozen=True):
    meta: Meta
    spec: AuthorizationPolicySpec


class JWTHeader(Spec, frozen=True):
    name: str
    prefix: str = ""


class ClaimToHeader(Spec, frozen=True):
    header: str
    claim: str


class JWTRule(Spec, frozen=True):
    issuer: str
    audiences: list[str] = []
    jwks: str = ""
    jwks_uri: str = ""
    jwks_uri_old: str = field(default="", name="jwks_uri")
    from_headers: list[JWTHeader] = []
    from_params: list[str] = []
    from_cookies: list[str] = []
    output_payload_to_header: str = ""
    output_claim_to_headers: list[ClaimToHeader] = []
    forward_original_token: bool = False
    timeout: float | None = None
    """Of fetching keys."""
    space_delimited_claims: list[str] = []


class RequestAuthenticationSpec(Spec, frozen=True):
    selector: LabelsSelector | None = None
    jwt_rules: list[JWTRule] = []


class RequestAuthentication(Struct, frozen=True):
    meta: Meta
    spec: RequestAuthenticationSpec


# --- fairlead.dev MeshConfig ----------------------------------------------------------------------------------------


class PathNormalization(Spec, frozen=True):
    normalization: str = "BASE"
    """NONE, BASE, MERGE_SLASHES, DECODE_AND_MERGE_SLASHES."""


class OutboundTrafficPolicy(Spec, frozen=True):
    mode: str = "ALLOW_ANY"
    """ALLOW_ANY or REGISTRY_ONLY."""


class EgressListener(Spec, frozen=True):
    hosts: list[str]
    port: ServerPort | None = None


class IngressListener(Spec, frozen=True):
    port: ServerPort
    default_endpoint: str = ""
    """Empty: the workload's address, at the same port."""
    connection_pool: ConnectionPoolSettings | None = None


class WorkloadSelector(Spec, frozen=True):
    labels: dict[str, str] = {}


class SidecarSpec(Spec, frozen=True):
    workload_selector: WorkloadSelector | None = None
    ingress: list[IngressListener] = []
    inbound_connection_pool: ConnectionPoolSettings | None = None
    egress: list[EgressListener] = []
    outbound_traffic_policy: OutboundTrafficPolicy | None = None


class Sidecar(Struct, frozen=True):
    meta: Meta
    spec: SidecarSpec


class MeshTLS(Spec, frozen=True):
    min_protocol_version: str = "TLS_AUTO"
    """TLS_AUTO (1.3), TLSV1_2, TLSV1_3."""


class MeshConfigSpec(Spec, frozen=True):
    trust_domain: str = "cluster.local"
    trust_domain_aliases: list[str] = []
    cluster_domain: str = "cluster.local"
    root_namespace: str = "istio-system"
    outbound_traffic_policy: OutboundTrafficPolicy = OutboundTrafficPolicy()
    default_http_retry_policy: HTTPRetry | None = None
    """None: Istio's built-in default, 2 retries on connect-failure,refused-stream,unavailable,cancelled."""
    path_normalization: PathNormalization = PathNormalization()
    connect_timeout: float = 10.0
    enable_auto_mtls: bool = True
    mesh_mtls: MeshTLS = field(default=MeshTLS(), name="meshMTLS")
    access_log_file: str = "/dev/stdout"
    """Empty switches the access log off."""
    access_log_encoding: str = "TEXT"
    """TEXT (Envoy's default format) or JSON."""
    access_log_format: str = ""
    ingress_class: str = "istio"
    """Ingresses of this class are served by gateways with label istio: `ingress_selector`."""
    ingress_controller_mode: str = "STRICT"
    """STRICT, DEFAULT (also those without a class), OFF."""
    ingress_selector: str = "ingressgateway"
    locality_lb_setting: LocalityLbSetting | None = None
    """For services whose DestinationRule has none."""
    jwks_blocked_networks: list[str] = []
    """Where keys of tokens are not fetched, besides what never is (proxy/blocked.py)."""


class MeshConfig(Struct, frozen=True):
    meta: Meta = Meta(name="default")
    spec: MeshConfigSpec = MeshConfigSpec()


class TokenBucket(Spec, frozen=True):
    max_tokens: int
    fill_interval: float
    tokens_per_fill: int = 1


class RateLimitRoute(Spec, frozen=True):
    virtual_service: str
    """name, or namespace/name."""
    name: str = ""


class RateLimitMatch(Spec, frozen=True):
    hosts: list[str] = []
    port: int = 0
    route: RateLimitRoute | None = None
    methods: list[str] = []
    uri: StringMatch | None = None
    headers: dict[str, StringMatch] = {}


class RateLimitResponse(Spec, frozen=True):
    status: int = 429
    headers: dict[str, str] = {}
    grpc_resource_exhausted: bool = False


class RequestLimit(Spec, frozen=True):
    name: str
    token_bucket: TokenBucket
    match: RateLimitMatch = RateLimitMatch()
    per: str = "PROXY"
    """PROXY, CLIENT, CONNECTION."""
    enforce: bool = True
    percentage: Percent | None = None
    response: RateLimitResponse = RateLimitResponse()


class ConnectionLimit(Spec, frozen=True):
    name: str
    token_bucket: TokenBucket
    port: int = 0
    per: str = "PROXY"
    """PROXY, CLIENT."""
    enforce: bool = True


class LocalRateLimitSpec(Spec, frozen=True):
    selector: LabelsSelector | None = None
    context: str = "SIDECAR_INBOUND"
    """SIDECAR_INBOUND, SIDECAR_OUTBOUND, GATEWAY."""
    limits: list[RequestLimit] = []
    connections: list[ConnectionLimit] = []


class LocalRateLimit(Struct, frozen=True):
    meta: Meta
    spec: LocalRateLimitSpec


class Resources(Struct, frozen=True):
    """Every rule in force, each list in order of age (created, name, namespace)."""

    virtual_services: tuple[VirtualService, ...] = ()
    destination_rules: tuple[DestinationRule, ...] = ()
    network_policies: tuple[NetworkPolicy, ...] = ()
    peer_authentications: tuple[PeerAuthentication, ...] = ()
    authorization_policies: tuple[AuthorizationPolicy, ...] = ()
    request_authentications: tuple[RequestAuthentication, ...] = ()
    gateways: tuple[Gateway, ...] = ()
    secrets: tuple[Secret, ...] = ()
    """For the servers of Gateways; control sends them to gateways alone."""
    ingresses: tuple[Ingress, ...] = ()
    ingress_classes: tuple[IngressClass, ...] = ()
    sidecars: tuple[Sidecar, ...] = ()
    local_rate_limits: tuple[LocalRateLimit, ...] = ()
    mesh: MeshConfig = MeshConfig()
