"""DestinationRule: which one a client uses for a service, and the policy for a port and subset."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..registry.model import Workload
from .host_names import complete, covers
from .resources import (
    ClientTLSSettings,
    ConnectionPoolSettings,
    DestinationRule,
    LoadBalancerSettings,
    OutlierDetection,
    PortTrafficPolicy,
    Subset,
    TrafficPolicy,
)
from .visibility import exported, labels_hold


class MergedRule:
    """The rules of one host, namespace and exportTo as one: subsets added up, policy of the oldest that has one."""

    __slots__ = ("export_to", "host", "key", "namespace", "policy", "selector", "subsets")

    def __init__(self, rule: DestinationRule, host: str) -> None:
        self.host = host
        self.namespace = rule.meta.namespace
        self.key = rule.meta.key
        self.export_to = tuple(rule.spec.export_to)
        selector = rule.spec.workload_selector
        self.selector: Mapping[str, str] = selector.match_labels if selector is not None else {}
        self.policy: TrafficPolicy | None = None
        self.subsets: dict[str, Subset] = {}

    def add(self, rule: DestinationRule) -> None:
        for subset in rule.spec.subsets:
            self.subsets.setdefault(subset.name, subset)
        if self.policy is None:
            self.policy = rule.spec.traffic_policy


class Settings:
    """The blocks in force for one port and subset; None: the default."""

    __slots__ = (
        "connection_pool",
        "load_balancer",
        "outlier_detection",
        "proxy_protocol",
        "retry_budget",
        "tls",
        "tunnel",
    )

    def __init__(self, policy: TrafficPolicy | PortTrafficPolicy | None = None) -> None:
        self.load_balancer: LoadBalancerSettings | None = policy.load_balancer if policy else None
        self.connection_pool: ConnectionPoolSettings | None = policy.connection_pool if policy else None
        self.outlier_detection: OutlierDetection | None = policy.outlier_detection if policy else None
        self.tls: ClientTLSSettings | None = policy.tls if policy else None
        self.proxy_protocol = policy.proxy_protocol if isinstance(policy, TrafficPolicy) else None
        self.retry_budget = policy.retry_budget if isinstance(policy, TrafficPolicy) else None
        self.tunnel = policy.tunnel if isinstance(policy, TrafficPolicy) else None


def settings(rule: MergedRule | None, port: int, subset: str = "") -> Settings:
    """Istio's resolution: a port entry replaces the top level entirely; the subset's blocks replace whole blocks;
    where the subset itself has an entry for the port, that entry alone counts."""
    if rule is None:
        return Settings()
    found = Settings(_for_port(rule.policy, port) or rule.policy)
    if rule.policy is not None:
        found.proxy_protocol = rule.policy.proxy_protocol  # no port has its own
        found.retry_budget = rule.policy.retry_budget
        found.tunnel = rule.policy.tunnel
    own = rule.subsets[subset].traffic_policy if subset and subset in rule.subsets else None
    if own is None:
        return found
    entry = _for_port(own, port)
    if entry is not None:
        alone = Settings(entry)
        alone.proxy_protocol = own.proxy_protocol or found.proxy_protocol
        alone.retry_budget = own.retry_budget or found.retry_budget
        alone.tunnel = own.tunnel or found.tunnel
        return alone
    found.load_balancer = own.load_balancer or found.load_balancer
    found.connection_pool = own.connection_pool or found.connection_pool
    found.outlier_detection = own.outlier_detection or found.outlier_detection
    found.tls = own.tls or found.tls
    found.proxy_protocol = own.proxy_protocol or found.proxy_protocol
    found.retry_budget = own.retry_budget or found.retry_budget
    found.tunnel = own.tunnel or found.tunnel
    return found


def _for_port(policy: TrafficPolicy | None, port: int) -> PortTrafficPolicy | None:
    for entry in policy.port_level_settings if policy is not None else ():
        if entry.port is not None and entry.port.number == port:
            return entry
    return None


class DestinationRules:
    """All DestinationRules, merged, as the clients of one workload look them up."""

    __slots__ = ("_client", "_exact", "_root", "_wildcards")

    def __init__(
        self, rules: Sequence[DestinationRule], client: Workload, root_namespace: str, cluster_domain: str
    ) -> None:
        self._client = client
        self._root = root_namespace
        self._exact: dict[tuple[str, str], list[MergedRule]] = {}
        """By namespace and host."""
        self._wildcards: dict[str, list[MergedRule]] = {}
        """Those whose host begins with a star, by namespace."""
        merged: dict[tuple[object, ...], MergedRule] = {}
        for rule in rules:
            selector = rule.spec.workload_selector
            labels = selector.match_labels if selector is not None else {}
            if labels and (rule.meta.namespace != client.namespace or not labels_hold(labels, client.labels)):
                continue
            host = complete(rule.spec.host, rule.meta.namespace, cluster_domain)
            key = (host, rule.meta.namespace, tuple(sorted(rule.spec.export_to)), tuple(sorted(labels.items())))
            if key not in merged:
                made = merged[key] = MergedRule(rule, host)
                if host.startswith("*"):
                    self._wildcards.setdefault(made.namespace, []).append(made)
                else:
                    self._exact.setdefault((made.namespace, host), []).append(made)
            merged[key].add(rule)

    def find(self, host: str, service_namespace: str) -> MergedRule | None:
        """The rule for a service: the client's namespace, then the service's, then the root. Nothing is inherited."""
        own = self._client.namespace
        found = self._in(own, host, "")
        for namespace in (service_namespace, self._root):
            if found is None and namespace != own:
                found = self._in(namespace, host, own)
        return found

    def _in(self, namespace: str, host: str, client: str) -> MergedRule | None:
        """The best of a namespace; `client`: only what is exported to this namespace, empty: all.

        Exact before wildcards, longer wildcards before shorter; with a workload selector before plain ones.
        """
        for rules in (self._exact.get((namespace, host), ()), self._wildcards.get(namespace, ())):
            best: MergedRule | None = None
            best_rank: tuple[int, bool] = (-1, False)
            for rule in rules:
                if covers(rule.host, host) and (not client or exported(rule.export_to, rule.namespace, client)):
                    rank = (len(rule.host), bool(rule.selector))
                    if rank > best_rank:
                        best, best_rank = rule, rank
            if best is not None:
                return best
        return None
