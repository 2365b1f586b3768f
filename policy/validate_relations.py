"""What objects make of each other once all are known: rules without effect, selectors of nobody, strange ports.

Only `fairlead validate`, which sees everything at once, asks; to a control plane objects may come in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..registry.model import Service, Workload
from ..registry.snapshot import Snapshot
from .compile_view import HTTP, port_protocol, speaks_http
from .conflicts import Conflict, Missing, check_conflicts
from .gateways import Ports, Server
from .host_names import complete
from .label_selector import selects, wanted
from .parse import Parsed
from .resources import (
    AuthorizationPolicy,
    DestinationRule,
    Gateway,
    HTTPRoute,
    NetworkPolicy,
    NetworkPolicyPeer,
    NetworkPolicyPort,
    PeerAuthentication,
    Resources,
    Sidecar,
    VirtualService,
)
from .validate_references import templates_of
from .visibility import gateway_name, labels_hold


def check_relations(parsed: Sequence[Parsed], resources: Resources, snapshot: Snapshot) -> None:
    """Adds warnings to each of `parsed`."""
    check_conflicts(parsed, resources)
    relations = _Relations(parsed, resources, snapshot)
    for one in parsed:
        if not one.usable or one.kind is None:
            continue
        if isinstance(one.resource, VirtualService):
            relations.virtual_service(one, one.resource)
        elif isinstance(one.resource, DestinationRule):
            relations.destination_rule(one, one.resource)
        elif isinstance(one.resource, Gateway):
            relations.gateway(one, one.resource)
        elif isinstance(one.resource, NetworkPolicy):
            relations.network_policy(one, one.resource)
        elif isinstance(one.resource, PeerAuthentication):
            relations.peer_authentication(one, one.resource)
        elif isinstance(one.resource, AuthorizationPolicy):
            relations.authorization_policy(one, one.resource)
        elif isinstance(one.resource, Sidecar):
            relations.sidecar(one, one.resource)
        elif one.kind.kind == "Service":
            relations.service(one)
        elif one.kind.kind == "ServiceEntry":
            relations.service_entry(one)


def _pairs(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{key}={value}" for key, value in labels.items())


def _same_rule(rule: DestinationRule, other: DestinationRule) -> bool:
    """Whether two rules for one host of one namespace are put together."""
    own, theirs = rule.spec.workload_selector, other.spec.workload_selector
    same = (own.match_labels if own else {}) == (theirs.match_labels if theirs else {})
    return same and sorted(rule.spec.export_to) == sorted(other.spec.export_to)


class _Relations:
    def __init__(self, parsed: Sequence[Parsed], resources: Resources, snapshot: Snapshot) -> None:
        self.resources = resources
        self.snapshot = snapshot
        self.domain = resources.mesh.spec.cluster_domain
        self.root = resources.mesh.spec.root_namespace
        self.templates = templates_of(parsed)
        self._labels: dict[str, list[Mapping[str, str]]] = {}
        for own in snapshot.workloads.values():
            self._labels.setdefault(own.namespace, []).append(own.labels)
        for namespace, labels in self.templates.items():
            self._labels.setdefault(namespace, []).extend(labels)
        self.same_host: dict[tuple[str, str], list[DestinationRule]] = {}
        """DestinationRules by namespace and full host, oldest first."""
        for rule in resources.destination_rules:
            host = complete(rule.spec.host, rule.meta.namespace, self.domain)
            self.same_host.setdefault((rule.meta.namespace, host), []).append(rule)
        self.secrets = {rule.meta.key for rule in resources.secrets}
        self.delegated = {
            f"{route.delegate.namespace or rule.meta.namespace}/{route.delegate.name}"
            for rule in resources.virtual_services
            for route in rule.spec.http
            if route.delegate is not None
        }
        self.gateways = {gateway.meta.key: gateway for gateway in resources.gateways}
        self.left_out = {(key, server): why for key, server, why in self._left_out()}

    def _left_out(self) -> Iterator[tuple[str, str, str]]:
        """(gateway, server, why) of servers that lose to another on the same gateway workloads."""
        together: dict[tuple[tuple[str, str], ...], list[Gateway]] = {}
        for gateway in self.resources.gateways:
            together.setdefault(tuple(sorted(gateway.spec.selector.items())), []).append(gateway)
        for group in together.values():
            yield from Ports(group).left_out

    def labels_in(self, namespace: str) -> list[Mapping[str, str]]:
        """Labels of the workloads of a namespace, and of those that something in it would start."""
        return self._labels.get(namespace, [])

    def anybody(self) -> bool:
        """Whether workloads are known at all: where rules stand alone, nothing can be said of selectors."""
        return bool(self.snapshot.workloads or self.templates)

    # --- VirtualService -----------------------------------------------------------------------------------------------

    def virtual_service(self, one: Parsed, rule: VirtualService) -> None:
        if not rule.spec.hosts and rule.meta.key not in self.delegated:
            told = "is a delegate (it has no hosts), and no VirtualService delegates to it: it has no effect"
            one.warnings.append(("spec.hosts", f"{told}; name hosts, or refer to it by `delegate`"))
        in_mesh = not rule.spec.gateways or "mesh" in rule.spec.gateways
        for index, host in enumerate(rule.spec.hosts):
            service = self.snapshot.services.get(complete(host, rule.meta.namespace, self.domain))
            if service is not None and in_mesh and not service.external_name:
                self._protocols(one, rule, f"spec.hosts[{index}]", service)
        self._ports(one, rule, in_mesh)
        self._at_gateways(one, rule)

    def _protocols(self, one: Parsed, rule: VirtualService, path: str, service: Service) -> None:
        """Routes of a protocol that no port of the host speaks."""
        spoken = [port_protocol(port) for port in service.ports if port.protocol == "TCP"]
        if not spoken:
            return
        ports = ", ".join(f"{port.number} ({port_protocol(port) or 'not declared'})" for port in service.ports)
        if rule.spec.http and not any(speaks_http(protocol) for protocol in spoken):
            told = f"no port of {service.host} speaks HTTP ({ports}), so its http routes are never looked at"
            one.warnings.append((path, f"{told}; name the port http-..., set appProtocol, or write tcp or tls routes"))
        opaque = "tls" if rule.spec.tls else "tcp" if rule.spec.tcp else ""
        if opaque and not rule.spec.gateways and all(protocol in HTTP for protocol in spoken):
            told = f"every port of {service.host} speaks HTTP ({ports}), so its {opaque} routes are never looked at"
            one.warnings.append((path, f"{told}; write http routes"))

    def _ports(self, one: Parsed, rule: VirtualService, in_mesh: bool) -> None:
        """Matches on a port that no host has, and, at a gateway, destinations whose port is left to chance."""
        services = [
            self.snapshot.services.get(complete(host, rule.meta.namespace, self.domain)) for host in rule.spec.hosts
        ]
        known = [service for service in services if service is not None]
        complete_list = len(known) == len(services) and known and in_mesh and not set(rule.spec.gateways) - {"mesh"}
        numbers = {port.number for service in known for port in service.ports}
        for index, route in enumerate(rule.spec.http):
            for number, block in enumerate(route.match):
                at = f"spec.http[{index}].match[{number}]"
                if complete_list and block.port and block.port not in numbers:
                    have = ", ".join(map(str, sorted(numbers)))
                    told = f"no client dials port {block.port}: the hosts of the rule have {have}"
                    one.warnings.append((f"{at}.port", f"{told}; the block is never met"))
                self._client(one, at, block.source_namespace, block.source_labels, bool(block.gateways))
            self._unnamed_port(one, rule, index, route)

    def _client(self, one: Parsed, at: str, namespace: str, labels: Mapping[str, str], gateways: bool) -> None:
        """A block for clients of which there are none."""
        if gateways or not self.anybody():
            return
        spaces = [namespace] if namespace else {own.namespace for own in self.snapshot.workloads.values()}
        spaces = [*spaces, *([] if namespace else self.templates)]
        if not any(labels_hold(labels, own) for space in spaces for own in self.labels_in(space)):
            field = "sourceLabels" if labels else "sourceNamespace"
            told = f"no workload{' of ' + namespace if namespace else ''} that is known"
            told += f" has {_pairs(labels)}" if labels else " is there"
            one.warnings.append((f"{at}.{field}", f"{told}: the block is never met"))

    def _unnamed_port(self, one: Parsed, rule: VirtualService, index: int, route: HTTPRoute) -> None:
        gateways = [self.gateways.get(gateway_name(name, one.namespace)) for name in rule.spec.gateways]
        dialled = {server.port.number for gateway in gateways if gateway is not None for server in gateway.spec.servers}
        if not dialled:
            return
        for number, share in enumerate(route.route):
            host = complete(share.destination.host, one.namespace, self.domain)
            service = self.snapshot.services.get(host)
            if service is None or len(service.ports) < 2 or share.destination.port is not None:
                continue
            have = {port.number for port in service.ports}
            if not dialled & have:
                told = f"{host} has the ports {', '.join(map(str, sorted(have)))}, and none of the gateway's "
                told += f"({', '.join(map(str, sorted(dialled)))}): requests get 503 (FL-NO-CLUSTER)"
                told += "; name one by port.number"
                one.warnings.append((f"spec.http[{index}].route[{number}].destination", told))

    def _at_gateways(self, one: Parsed, rule: VirtualService) -> None:
        """A gateway none of whose servers has a host of the rule."""
        for index, reference in enumerate(rule.spec.gateways):
            gateway = self.gateways.get(gateway_name(reference, one.namespace))
            if gateway is None or not gateway.spec.servers:
                continue
            servers = [Server(gateway, server, 0, "http") for server in gateway.spec.servers]
            hosts = [complete(host, one.namespace, self.domain) for host in rule.spec.hosts]
            if hosts and not any(server.admits(host, one.namespace) for server in servers for host in hosts):
                own = ", ".join(dict.fromkeys(host for server in gateway.spec.servers for host in server.hosts))
                told = f"no server of Gateway {gateway.meta.key} has a host of this rule (it has {own})"
                one.warnings.append((f"spec.gateways[{index}]", f"{told}: the rule has no effect there"))

    # --- others -------------------------------------------------------------------------------------------------------

    def destination_rule(self, one: Parsed, rule: DestinationRule) -> None:
        host = complete(rule.spec.host, one.namespace, self.domain)
        service = self.snapshot.services.get(host)
        if service is not None and service.ports:
            have = {port.number for port in service.ports}
            policies = [("spec.trafficPolicy", rule.spec.traffic_policy)]
            for index, own in enumerate(rule.spec.subsets):
                policies.append((f"spec.subsets[{index}].trafficPolicy", own.traffic_policy))
            for path, policy in policies:
                for number, entry in enumerate(policy.port_level_settings if policy is not None else ()):
                    if entry.port is not None and entry.port.number not in have:
                        told = f"{host} has no port {entry.port.number}; it has {', '.join(map(str, sorted(have)))}"
                        at = f"{path}.portLevelSettings[{number}].port.number"
                        one.warnings.append((at, f"{told} (ports of the service are meant): the entry has no effect"))
        for other in self.same_host[(one.namespace, host)]:
            if other is rule:
                break
            if _same_rule(rule, other):
                self._merged(one, rule, other)
        selector = rule.spec.workload_selector
        if selector is not None:
            self._selects(one, "spec.workloadSelector", selector.match_labels)

    def _merged(self, one: Parsed, rule: DestinationRule, other: DestinationRule) -> None:
        """Two rules for one host are put together; what both say, the older one says."""
        if rule.spec.traffic_policy is not None and other.spec.traffic_policy is not None:
            told = f"has no effect: DestinationRule {other.meta.key} is older, for the same host, and has one"
            one.warnings.append(("spec.trafficPolicy", Conflict(f"{told}; put both into one rule")))
        names = {subset.name for subset in other.spec.subsets}
        for index, subset in enumerate(rule.spec.subsets):
            if subset.name in names:
                told = f'"{subset.name}" has no effect: DestinationRule {other.meta.key} is older and defines it, too'
                one.warnings.append((f"spec.subsets[{index}].name", Conflict(f"{told}; put both into one rule")))

    def gateway(self, one: Parsed, gateway: Gateway) -> None:
        for index, server in enumerate(gateway.spec.servers):
            path = f"spec.servers[{index}]"
            why = self.left_out.get((gateway.meta.key, path))
            if why:
                one.warnings.append((path, Conflict(f"is not opened: {why}")))
            tls = server.tls
            names = [tls.credential_name, *tls.credential_names, tls.ca_cert_credential_name] if tls is not None else []
            for name in filter(None, names):
                if f"{one.namespace}/{name}" not in self.secrets:
                    field = "credentialName" if name == names[0] else "credentialNames"
                    told = f"no Secret {one.namespace}/{name} is known (it must be in the gateway's namespace)"
                    one.warnings.append((f"{path}.tls.{field}", Missing(f"{told}: handshakes fail until there is one")))

    def network_policy(self, one: Parsed, policy: NetworkPolicy) -> None:
        selected = [
            own
            for own in self.snapshot.workloads.values()
            if own.namespace == one.namespace and selects(policy.spec.pod_selector, own.labels)
        ]
        for index, ingress in enumerate(policy.spec.ingress):
            at = f"spec.ingress[{index}]"
            self._peers(one, f"{at}.from", ingress.from_)
            self._policy_ports(one, f"{at}.ports", ingress.ports, selected)
        for index, egress in enumerate(policy.spec.egress):
            self._peers(one, f"spec.egress[{index}].to", egress.to)

    def _peers(self, one: Parsed, path: str, peers: Sequence[NetworkPolicyPeer]) -> None:
        if not self.anybody():
            return
        for number, peer in enumerate(peers):
            if peer.ip_block is not None or (peer.pod_selector is None and peer.namespace_selector is None):
                continue
            spaces = [one.namespace]
            if peer.namespace_selector is not None:
                known = {own.namespace for own in self.snapshot.workloads.values()} | set(self.templates)
                every = {*known, *self.snapshot.namespaces}
                labels = {name: self.snapshot.namespace_labels(name) for name in every}
                spaces = [name for name in every if selects(peer.namespace_selector, labels[name])]
                if not spaces:
                    told = f"no namespace that is known has {wanted(peer.namespace_selector)}: it admits nobody"
                    one.warnings.append((f"{path}[{number}].namespaceSelector", f"{told}; label the Namespace"))
                    continue
            if peer.pod_selector is not None and not any(
                selects(peer.pod_selector, own) for space in spaces for own in self.labels_in(space)
            ):
                told = f"no workload of {', '.join(sorted(spaces))[:200]} that is known has {wanted(peer.pod_selector)}"
                hint = "" if peer.namespace_selector is not None else "; for another namespace add a namespaceSelector"
                one.warnings.append((f"{path}[{number}].podSelector", f"{told}: it admits nobody{hint}"))

    def _policy_ports(
        self, one: Parsed, path: str, ports: Sequence[NetworkPolicyPort], selected: Sequence[Workload]
    ) -> None:
        declared = {(port.name, port.protocol) for own in selected for port in own.ports}
        numbers = {port.number for own in selected for port in own.ports}
        for number, port in enumerate(ports):
            if not declared or port.port is None:
                continue
            if isinstance(port.port, str) and (port.port, port.protocol) not in declared:
                have = ", ".join(sorted(name for name, _ in declared if name)) or "no names"
                told = f"no workload that the policy selects has a port named {port.port} ({port.protocol})"
                one.warnings.append((f"{path}[{number}].port", f"{told}; they have {have}: it admits nothing"))
            elif isinstance(port.port, int):
                last = port.end_port or port.port
                if any(port.port <= own <= last for own in numbers):
                    continue
                have = ", ".join(map(str, sorted(numbers)))
                told = f"no workload that the policy selects declares port {port.port}; they have {have} (ports of the "
                one.warnings.append((f"{path}[{number}].port", f"{told}workload are meant, not of the service)"))

    def peer_authentication(self, one: Parsed, policy: PeerAuthentication) -> None:
        labels = policy.spec.selector.match_labels if policy.spec.selector is not None else {}
        selected = [own for own in self.snapshot.workloads.values()
                    if own.namespace == one.namespace and labels and labels_hold(labels, own.labels)]  # fmt: skip
        numbers = {str(port.number) for own in selected for port in own.ports}
        if policy.spec.port_level_mtls and not labels:
            told = "has no effect without a selector (as in Istio): add spec.selector"
            one.warnings.append(("spec.portLevelMtls", told))
        for port in policy.spec.port_level_mtls if numbers else ():
            if port not in numbers:
                told = f"no workload that it selects declares port {port}; they have {', '.join(sorted(numbers))}"
                one.warnings.append((f"spec.portLevelMtls[{port}]", f"{told} (ports of the workload are meant)"))

    def authorization_policy(self, one: Parsed, policy: AuthorizationPolicy) -> None:
        labels = policy.spec.selector.match_labels if policy.spec.selector is not None else {}
        selected = [own for own in self.snapshot.workloads.values()
                    if one.namespace in (own.namespace, self.root) and labels_hold(labels, own.labels)]  # fmt: skip
        numbers = {str(port.number) for own in selected for port in own.ports}
        for index, rule in enumerate(policy.spec.rules or []):
            for number, to in enumerate(rule.to):
                at = f"spec.rules[{index}].to[{number}].operation"
                strange = [port for port in to.operation.ports if numbers and port not in numbers]
                if strange and len(strange) == len(to.operation.ports):
                    told = f"no workload that it selects declares port {', '.join(strange)}; they have "
                    told += f"{', '.join(sorted(numbers))} (ports of the workload are meant, not of the service)"
                    one.warnings.append((f"{at}.ports", told))
                odd = [path for path in to.operation.paths if not path.startswith(("/", "*", "{"))]
                if odd:
                    one.warnings.append((f"{at}.paths", f"{', '.join(odd)}: a path begins with '/'; it is never met"))

    def sidecar(self, one: Parsed, sidecar: Sidecar) -> None:
        if sidecar.spec.workload_selector is not None:
            self._selects(one, "spec.workloadSelector", sidecar.spec.workload_selector.labels)

    def service_entry(self, one: Parsed) -> None:
        selector = (one.body.get("spec") or {}).get("workloadSelector") or {}
        self._selects(one, "spec.workloadSelector", selector.get("labels") or {})

    def _selects(self, one: Parsed, path: str, labels: Mapping[str, str]) -> None:
        if not labels or not self.anybody():
            return
        if not any(labels_hold(labels, own) for own in self.labels_in(one.namespace)):
            told = f"selects no workload of {one.namespace} that is known: none has {_pairs(labels)}"
            one.warnings.append((path, told))

    def service(self, one: Parsed) -> None:
        """A target port by a name that no selected workload has."""
        spec: dict[str, Any] = one.body.get("spec") or {}
        selector = spec.get("selector")
        if not selector:
            return
        selected = [own for own in self.snapshot.workloads.values()
                    if own.namespace == one.namespace and labels_hold(selector, own.labels)]  # fmt: skip
        names = {port.name for own in selected for port in own.ports} | {
            name for own in selected for name in own.service_ports
        }
        for index, port in enumerate(spec.get("ports") or ()):
            target = port.get("targetPort")
            if isinstance(target, str) and not target.isdigit() and selected and target not in names:
                have = ", ".join(sorted(filter(None, names))) or "no named port"
                told = f"no workload that the service selects has a port named {target} (they have {have})"
                one.warnings.append((f"spec.ports[{index}].targetPort", f"{told}: the port has no endpoint"))
