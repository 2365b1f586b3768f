"""LocalRateLimit, compiled: which limits a proxy has, and which of them count a request or connection. Pure.

Istio has no kind for local rate limits, only EnvoyFilter with Envoy's filters; terms and arithmetic are Envoy's
(envoy.type.v3.TokenBucket, envoy.extensions.filters.http.local_ratelimit.v3, and the network filter of that name).
A resource counts for the workloads of its namespace that its selector holds for; in the root namespace for those of
the mesh. Buckets, which change, are the proxy's (proxy/rate_limit.py).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..registry.model import Workload
from ..registry.names import split_service_host
from .host_names import complete, covers, spellings, split_authority
from .match import HttpMatch
from .resources import ConnectionLimit, HTTPMatchRequest, LocalRateLimit, RateLimitMatch, RequestLimit, Resources
from .tables import Arrival, Decision, Request
from .visibility import labels_hold

LISTENERS = {"SIDECAR_INBOUND": "inbound", "SIDECAR_OUTBOUND": "outbound", "GATEWAY": "gateway"}
PROXY, CLIENT, CONNECTION = "PROXY", "CLIENT", "CONNECTION"
_OF = {PROXY: "", CLIENT: " of each client", CONNECTION: " of each connection"}


class Limit:
    """One limit of one resource, for requests or for connections."""

    __slots__ = (
        "enforced_percentage", "exhausted", "fill_interval_s", "headers", "hosts", "http", "key", "max_tokens",
        "methods", "name", "per", "port", "route", "source", "status", "suffixes", "tokens_per_fill", "what",
    )  # fmt: skip

    def __init__(self, rule: LocalRateLimit, written: RequestLimit | ConnectionLimit) -> None:
        bucket = written.token_bucket
        self.key = rule.meta.key
        self.source = rule.meta.source
        self.name = written.name
        self.max_tokens = bucket.max_tokens
        self.tokens_per_fill = bucket.tokens_per_fill
        self.fill_interval_s = bucket.fill_interval
        self.per = written.per
        self.port = 0
        self.status = 429
        self.headers: tuple[tuple[str, str], ...] = ()
        self.exhausted = False
        """gRPC calls end with RESOURCE_EXHAUSTED."""
        self.enforced_percentage = 100.0 if written.enforce else 0.0
        """Of what is over the limit, how much is refused; the rest is counted alone."""
        self.hosts: frozenset[str] = frozenset()
        self.suffixes: tuple[str, ...] = ()
        self.methods: frozenset[str] = frozenset()
        self.route: tuple[str, str] | None = None
        """VirtualService and the name of a route of it, perhaps empty."""
        self.http: HttpMatch | None = None
        """Path and headers."""
        if isinstance(written, RequestLimit):
            self.what = "requests"
            self.status = written.response.status
            self.headers = tuple((name.lower(), value) for name, value in written.response.headers.items())
            self.exhausted = written.response.grpc_resource_exhausted
            if written.enforce and written.percentage is not None:
                self.enforced_percentage = written.percentage.value
        else:
            self.what = "connections"
            self.port = written.port

    def only(self, match: RateLimitMatch, namespace: str, domain: str, client: str) -> None:
        """Narrow it down to what `match` says. `client`: the namespace whose bare names count; empty: the service's."""
        self.port = match.port
        self.methods = frozenset(match.methods)
        names = [complete(host, namespace, domain) for host in match.hosts]
        exact = [name for name in names if "*" not in name]
        self.hosts = frozenset(one for name in exact for one in _spellings(name, domain, client))
        self.suffixes = tuple(name for name in names if "*" in name)
        if match.route is not None:
            rule = match.route.virtual_service
            self.route = (rule if "/" in rule else f"{namespace}/{rule}", match.route.name)
        if match.uri is not None or match.headers:
            self.http = HttpMatch(HTTPMatchRequest(uri=match.uri, headers=match.headers))

    @property
    def label(self) -> str:
        """`namespace/name/limit`, as in metrics."""
        return f"{self.key}/{self.name}"

    @property
    def shape(self) -> tuple[str, str, int, int, float]:
        """What its buckets are made by: while it is the same, they are kept."""
        return (self.what, self.per, self.max_tokens, self.tokens_per_fill, self.fill_interval_s)

    def __str__(self) -> str:
        amount = f"{self.max_tokens} {self.what}{_OF[self.per]} at once, then {self.tokens_per_fill}"
        return f"LocalRateLimit {self.key} limit {self.name} lets {amount} every {self.fill_interval_s:g} s through"

    def counts(self, request: Request, decision: Decision) -> bool:
        """Whether a request is counted."""
        if self.port and port_of(request) != self.port:
            return False
        if self.methods and request.method not in self.methods:
            return False
        if self.route is not None and not self._chose(decision):
            return False
        if (self.hosts or self.suffixes) and not self._asked(request):
            return False
        if self.http is None:
            return True
        path, _, query = request.path.partition("?")
        return bool(self.http.holds(request, path, query))

    def failure(self, request: Request, decision: Decision) -> str:
        """The first condition that keeps a request from being counted, in words; empty: it is counted."""
        if self.port and port_of(request) != self.port:
            return f"it is for port {self.port}, not {port_of(request)}"
        if self.methods and request.method not in self.methods:
            return f"it is for {', '.join(sorted(self.methods))}, not {request.method}"
        if self.route is not None and not self._chose(decision):
            name = f" route {self.route[1]}" if self.route[1] else ""
            chosen = f"{decision.virtual_service} route {decision.route}" if decision.virtual_service else "none"
            return f"it is for VirtualService {self.route[0]}{name}; chosen was {chosen}"
        if (self.hosts or self.suffixes) and not self._asked(request):
            return f"it is for {', '.join(sorted((*self.hosts, *self.suffixes)))}, not {request.authority}"
        if self.http is None:
            return ""
        path, _, query = request.path.partition("?")
        return str(self.http.failure(request, path, query)[1])

    def _chose(self, decision: Decision) -> bool:
        assert self.route is not None
        rule, name = self.route
        if decision.virtual_service != rule:
            return False
        # A match block's own name stands behind the route's (compile_http).
        return not name or decision.route == name or decision.route.startswith(f"{name}.")

    def _asked(self, request: Request) -> bool:
        for host in (split_authority(request.authority)[0], request.arrival.host.lower()):
            if host and (host in self.hosts or any(covers(suffix, host) for suffix in self.suffixes)):
                return True
        return False


class RateLimits:
    """All limits of one proxy, by listener (`inbound`, `outbound`, `gateway`)."""

    __slots__ = ("connections", "requests")

    def __init__(self) -> None:
        self.requests: dict[str, tuple[Limit, ...]] = {}
        self.connections: dict[str, tuple[Limit, ...]] = {}

    def all(self) -> Sequence[Limit]:
        return [one for table in (self.requests, self.connections) for limits in table.values() for one in limits]


def rate_limits(resources: Resources, workload: Workload, gateway: bool) -> RateLimits | None:
    """The limits of the proxy beside `workload`, or of the gateway that it is; None: there are none."""
    made = RateLimits()
    domain = resources.mesh.spec.cluster_domain
    for rule in resources.local_rate_limits:
        listener = LISTENERS[rule.spec.context]
        if (listener == "gateway") != gateway or not selects(rule, workload, resources.mesh.spec.root_namespace):
            continue
        own = []
        for written in rule.spec.limits:
            limit = Limit(rule, written)
            limit.only(written.match, rule.meta.namespace, domain, workload.namespace if listener == "outbound" else "")
            own.append(limit)
        if own:
            made.requests[listener] = (*made.requests.get(listener, ()), *own)
        if rule.spec.connections:
            others = tuple(Limit(rule, one) for one in rule.spec.connections)
            made.connections[listener] = (*made.connections.get(listener, ()), *others)
    return made if made.requests or made.connections else None


def selects(rule: LocalRateLimit, workload: Workload, root: str) -> bool:
    """Whether a resource is for this workload's proxy."""
    labels = rule.spec.selector.match_labels if rule.spec.selector is not None else {}
    return rule.meta.namespace in (workload.namespace, root) and labels_hold(labels, workload.labels)


def port_of(request: Request) -> int:
    """The port that was dialled; inbound the workload's own."""
    arrival: Arrival = request.arrival
    return arrival.port or split_authority(request.authority)[1] or (443 if request.scheme == "https" else 80)


def _spellings(host: str, domain: str, client: str) -> list[str]:
    split = split_service_host(host, domain)
    return spellings(host, domain, client or (split[0] if split is not None else ""))
