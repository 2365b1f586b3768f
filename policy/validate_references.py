"""References between objects: hosts, subsets, ports, gateways, delegates, and policies that select nobody.

A reference to a subset that no DestinationRule defines is an error of the referring object, which does no harm beyond
itself: its route answers FL-NO-CLUSTER. Everything else is a warning, since objects may come in any order.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from ..registry.kinds_kept import template_labels
from ..registry.model import Service
from ..registry.snapshot import Snapshot
from .conflicts import Conflict, Missing
from .host_names import complete, covers
from .ingress import backends, why_not
from .label_selector import selects, wanted
from .parse import Parsed
from .resources import (
    AuthorizationPolicy,
    DestinationRef,
    DestinationRule,
    Ingress,
    LocalRateLimit,
    NetworkPolicy,
    PeerAuthentication,
    PortSelector,
    RequestAuthentication,
    Resources,
    Subset,
    VirtualService,
)
from .validate_rate_limit import check_references_of
from .visibility import exported, gateway_name, labels_hold


def check_references(parsed: Sequence[Parsed], resources: Resources, snapshot: Snapshot) -> None:
    """Adds what is found to `references` and `warnings` of each."""
    context = _Context(parsed, resources, snapshot)
    for one in parsed:
        if not one.usable or one.kind is None:
            continue
        if isinstance(one.resource, VirtualService):
            context.virtual_service(one, one.resource)
        elif isinstance(one.resource, DestinationRule):
            context.destination_rule(one, one.resource)
        elif isinstance(one.resource, (NetworkPolicy, PeerAuthentication, AuthorizationPolicy, RequestAuthentication)):
            context.policy(one, one.resource)
        elif isinstance(one.resource, LocalRateLimit):
            context.policy(one, one.resource)
            rules = context.rules
            check_references_of(one, one.resource, rules, snapshot, context.root, context.domain)
        elif isinstance(one.resource, Ingress):
            context.ingress(one, one.resource)
        elif one.kind.kind == "Service":
            context.service(one)
        elif one.kind.kind == "ServiceEntry":
            context.service_entry(one)
        elif one.kind.kind == "MeshConfig" and one.resource is not resources.mesh:
            one.warnings.append(("metadata.name", f"has no effect: {resources.mesh.meta.source} is in force"))


def destinations(rule: VirtualService) -> Iterator[tuple[str, DestinationRef]]:
    """(path, destination) of everything that the rule sends traffic to."""
    for index, route in enumerate(rule.spec.http):
        path = f"spec.http[{index}]"
        for number, one in enumerate(route.route):
            yield f"{path}.route[{number}].destination", one.destination
        if route.mirror is not None:
            yield f"{path}.mirror", route.mirror
        for number, mirror in enumerate(route.mirrors):
            yield f"{path}.mirrors[{number}].destination", mirror.destination
    opaque = [(f"spec.tls[{index}]", l4.route) for index, l4 in enumerate(rule.spec.tls)]
    opaque += [(f"spec.tcp[{index}]", l4.route) for index, l4 in enumerate(rule.spec.tcp)]
    for path, shares in opaque:
        for number, share in enumerate(shares):
            yield f"{path}.route[{number}].destination", share.destination


def templates_of(parsed: Sequence[Parsed]) -> dict[str, list[Mapping[str, str]]]:
    """Labels of what Deployments and the like would start, by namespace: nothing that runs, but what is meant."""
    found: dict[str, list[Mapping[str, str]]] = {}
    for one in parsed:
        labels = template_labels(one.document.kind, one.body) if one.usable else None
        if labels is not None:
            found.setdefault(one.namespace, []).append(labels)
    return found


class _Context:
    def __init__(self, parsed: Sequence[Parsed], resources: Resources, snapshot: Snapshot) -> None:
        self.resources = resources
        self.snapshot = snapshot
        self.domain = resources.mesh.spec.cluster_domain
        self.root = resources.mesh.spec.root_namespace
        self.gateways = {
            f"{one.namespace}/{one.document.name}"
            for one in parsed
            if one.usable and one.kind is not None and one.kind.kind == "Gateway"
        }
        self.templates = templates_of(parsed)
        self.rules = {rule.meta.key: rule for rule in resources.virtual_services}
        self.by_host: dict[str, list[DestinationRule]] = {}
        """DestinationRules by their full host."""
        for rule in resources.destination_rules:
            host = complete(rule.spec.host, rule.meta.namespace, self.domain)
            self.by_host.setdefault(host, []).append(rule)
        self.wild_rules = [host for host in self.by_host if host.startswith("*")]
        self.wild_services: list[str] | None = None
        self.claimed: dict[tuple[str, str, str], VirtualService] = {}
        for virtual in resources.virtual_services:
            for host in virtual.spec.hosts:
                for kind in _alone(virtual):
                    key = (complete(host, virtual.meta.namespace, self.domain), _places(virtual), kind)
                    self.claimed.setdefault(key, virtual)

    def find_service(self, host: str) -> Service | None:
        service = self.snapshot.services.get(host)
        if service is None:
            wild = max((w for w in self._wild_services() if covers(w, host)), key=len, default=None)
            service = self.snapshot.services[wild] if wild is not None else None
        return service

    def _wild_services(self) -> list[str]:
        if self.wild_services is None:  # rarely asked for, and all services are looked at
            self.wild_services = [host for host in self.snapshot.services if host.startswith("*")]
        return self.wild_services

    def rules_for(self, host: str) -> list[DestinationRule]:
        found = list(self.by_host.get(host, ()))
        for wild in self.wild_rules:
            if covers(wild, host):
                found += self.by_host[wild]
        return found

    def ingress(self, one: Parsed, ingress: Ingress) -> None:
        """Backends that are not there, and an Ingress that is none of ours."""
        why = why_not(ingress, self.resources)
        if why:
            one.warnings.append(("spec.ingressClassName", f"no gateway serves it: {why}"))
        for path, backend in backends(ingress):
            service, port = backend.service, backend.service.port if backend.service is not None else None
            if service is None or port is None:
                continue
            self._destination(one, f"{path}.service", DestinationRef(service.name, port=PortSelector(port.number)))
            known = self.snapshot.services.get(complete(service.name, one.namespace, self.domain))
            if port.name and known is not None and all(own.name != port.name for own in known.ports):
                have = ", ".join(own.name or str(own.number) for own in known.ports)
                told = f"service {known.host} has no port {port.name}; it has {have}; the path is dropped"
                one.warnings.append((f"{path}.service.port.name", told))

    # --- VirtualService -----------------------------------------------------------------------------------------------

    def virtual_service(self, one: Parsed, rule: VirtualService) -> None:
        for path, destination in destinations(rule):
            self._destination(one, path, destination)
        for index, reference in enumerate(rule.spec.gateways):
            self._gateway(one, f"spec.gateways[{index}]", reference)
        for index, route in enumerate(rule.spec.http):
            if route.delegate is not None:
                self._delegate(one, f"spec.http[{index}].delegate", route.delegate.name, route.delegate.namespace)
        for index, host in enumerate(rule.spec.hosts):
            for kind in _alone(rule) if _places(rule) == "mesh" else ():
                first = self.claimed[(complete(host, one.namespace, self.domain), "mesh", kind)]
                if first is not rule and exported(first.spec.export_to, first.meta.namespace, one.namespace):
                    told = f"{host} is the host of VirtualService {first.meta.key} already, which is older: its {kind} "
                    told += "routes alone are in force for sidecars; put the routes of both into one rule"
                    one.warnings.append((f"spec.hosts[{index}]", Conflict(told)))

    def _destination(self, one: Parsed, path: str, destination: DestinationRef) -> None:
        host = complete(destination.host, one.namespace, self.domain)
        service = self.find_service(host)
        if destination.subset:
            self._subset(one, f"{path}.subset", host, destination.subset, service)
        if service is None:
            told = f"no service {host} is known{self._near(destination.host, host)}; "
            told += "requests get 503 (FL-NO-CLUSTER) until there is one"
            one.warnings.append((f"{path}.host", Missing(told)))
            return
        port = destination.port.number if destination.port is not None else 0
        if port and service.ports and not service.external_name and all(own.number != port for own in service.ports):
            have = ", ".join(str(own.number) for own in service.ports)
            told = f"service {host} has no port {port}; it has {have} (the service's own ports)"
            one.warnings.append((f"{path}.port.number", Missing(told)))

    def _near(self, written: str, host: str) -> str:
        if "." in written and written.count(".") == 1:
            name, namespace = written.split(".")
            full = f"{name}.{namespace}.svc.{self.domain}"
            if full in self.snapshot.services:
                return f" (only a name without a dot is completed: write {full})"
        if not self.snapshot.services:
            return ""
        from difflib import get_close_matches  # only for mistakes

        near = get_close_matches(host, list(self.snapshot.services)[:2000], n=1, cutoff=0.8)
        return f"; did you mean {near[0]}?" if near else ""

    def _subset(self, one: Parsed, path: str, host: str, subset: str, service: Service | None) -> None:
        rules = self.rules_for(host)
        found = next((own for rule in rules for own in rule.spec.subsets if own.name == subset), None)
        if found is not None:
            self._subset_endpoints(one, path, host, found)
            return
        if rules:
            names = sorted({own.name for rule in rules for own in rule.spec.subsets})
            from difflib import get_close_matches  # only for mistakes

            near = get_close_matches(subset, names, n=1)
            keys = " and ".join(rule.meta.key for rule in rules)
            message = (
                f'subset "{subset}" of {host} is not defined: DestinationRule {keys} has '
                f"{', '.join(names) if names else 'no subsets'}"
                + (f'; did you mean "{near[0]}"?' if near else "; add it there, or name one that it has")
            )
        elif service is not None:
            message = (
                f'subset "{subset}" of {host} is not defined: no DestinationRule is for this host; add one with it'
            )
        else:
            told = f'subset "{subset}" of {host} is not defined by any DestinationRule here'
            one.warnings.append((path, Missing(told)))
            return
        one.references.append((path, Missing(message)))

    def _subset_endpoints(self, one: Parsed, path: str, host: str, subset: Subset) -> None:
        endpoints = self.snapshot.endpoints.get(host, ())
        if endpoints and not any(labels_hold(subset.labels, endpoint.labels) for endpoint in endpoints):
            labels = ", ".join(f"{key}={value}" for key, value in subset.labels.items())
            one.warnings.append((path, Missing(f'no endpoint of {host} is in subset "{subset.name}" ({labels})')))

    def _gateway(self, one: Parsed, path: str, reference: str) -> None:
        name = gateway_name(reference, one.namespace)
        if name != "mesh" and name not in self.gateways and "." not in reference:
            told = f"no Gateway {name} is known; the rule has no effect there until there is one"
            one.warnings.append((path, Missing(told)))

    def _delegate(self, one: Parsed, path: str, name: str, namespace: str) -> None:
        key = f"{namespace or one.namespace}/{name}"
        target = self.rules.get(key)
        if target is None:
            told = f"no VirtualService {key} is known; this route is dropped until there is one"
            one.warnings.append((path, Missing(told)))
        elif target.spec.hosts:
            one.warnings.append(
                (path, f"VirtualService {key} has hosts and cannot be a delegate; the route is dropped")
            )
        elif not exported(target.spec.export_to, target.meta.namespace, one.namespace):
            one.warnings.append(
                (path, f"VirtualService {key} is not exported to {one.namespace}; the route is dropped")
            )

    # --- other kinds --------------------------------------------------------------------------------------------------

    def destination_rule(self, one: Parsed, rule: DestinationRule) -> None:
        host = complete(rule.spec.host, one.namespace, self.domain)
        if host.startswith("*"):
            return
        service = self.find_service(host)
        if service is None:
            told = f"no service {host} is known{self._near(rule.spec.host, host)}; no effect until there is one"
            one.warnings.append(("spec.host", Missing(told)))
        elif one.namespace not in (service.namespace, self.root) and not rule.spec.workload_selector:
            message = f"{host} is of namespace {service.namespace}: the rule counts for clients of {one.namespace} only"
            one.warnings.append(("spec.host", message))
        for index, subset in enumerate(rule.spec.subsets):
            self._subset_endpoints(one, f"spec.subsets[{index}].labels", host, subset)

    def policy(
        self,
        one: Parsed,
        policy: NetworkPolicy | PeerAuthentication | AuthorizationPolicy | RequestAuthentication | LocalRateLimit,
    ) -> None:
        if isinstance(policy, AuthorizationPolicy):
            self._tokens(one, policy)
        if not self.snapshot.workloads and not self.templates:
            return
        namespaces = {one.namespace}
        if isinstance(policy, NetworkPolicy):
            labels: Mapping[str, Any] = {}
            path, written = "spec.podSelector", policy.spec.pod_selector
            empty = not written.match_labels and not written.match_expressions
        else:
            labels = policy.spec.selector.match_labels if policy.spec.selector is not None else {}
            path, written, empty = "spec.selector", None, not labels
            if one.namespace == self.root:
                if isinstance(policy, PeerAuthentication) and labels:
                    one.warnings.append((path, "a selector in the root namespace is ignored: the policy has no effect"))
                    return
                namespaces = {own.namespace for own in self.snapshot.workloads.values()} | set(self.templates)
        if empty:
            return
        for own in (own for namespace in namespaces for own in self._labels_in(namespace)):
            if selects(written, own) if written is not None else labels_hold(labels, own):
                return
        told = wanted(written) if written is not None else ", ".join(f"{key}={value}" for key, value in labels.items())
        where = " and ".join(sorted(namespaces))[:200]
        one.warnings.append((path, f"selects no workload of {where} that is known: none has {told}; it has no effect"))

    def _tokens(self, one: Parsed, policy: AuthorizationPolicy) -> None:
        """Conditions on tokens where nobody proves any never hold, and in a DENY always or never."""
        known = self.resources.request_authentications
        if any(found.meta.namespace in (self.root, one.namespace) or one.namespace == self.root for found in known):
            return
        message = "no RequestAuthentication of this namespace proves tokens: no request has such a principal or claim"
        for index, rule in enumerate(policy.spec.rules or []):
            for number, entry in enumerate(rule.from_):
                if entry.source.request_principals or entry.source.not_request_principals:
                    one.warnings.append((f"spec.rules[{index}].from[{number}].source.requestPrincipals", message))
            for number, condition in enumerate(rule.when):
                if condition.key.startswith("request.auth."):
                    one.warnings.append((f"spec.rules[{index}].when[{number}].key", message))

    def service_entry(self, one: Parsed) -> None:
        for index, host in enumerate((one.body.get("spec") or {}).get("hosts") or ()):
            full = complete(host, one.namespace, self.domain)
            known = self.snapshot.services.get(full)
            if known is not None and known.namespace != one.namespace:
                message = f"{full} is defined in namespace {known.namespace} already, which alone counts"
                one.warnings.append((f"spec.hosts[{index}]", Conflict(message)))

    def service(self, one: Parsed) -> None:
        selector = (one.body.get("spec") or {}).get("selector")
        if not selector or not (self.snapshot.workloads or self.templates):
            return
        if any(labels_hold(selector, labels) for labels in self._labels_in(one.namespace)):
            return
        told = ", ".join(f"{key}={value}" for key, value in selector.items())
        message = f"selects no workload of {one.namespace} that is known: none has {told}"
        one.warnings.append(("spec.selector", message))

    def _labels_in(self, namespace: str) -> Iterator[Mapping[str, str]]:
        """Labels of the workloads of a namespace, and of those that something in it would start."""
        yield from (own.labels for own in self.snapshot.workloads.values() if own.namespace == namespace)
        yield from self.templates.get(namespace, ())


def _alone(rule: VirtualService) -> list[str]:
    """Protocols of which, among several rules for one host, the oldest rule's routes alone count (not so for tls)."""
    return [kind for kind, routes in (("http", rule.spec.http), ("tcp", rule.spec.tcp)) if routes]


def _places(rule: VirtualService) -> str:
    """Where a rule applies, for telling rules that compete: rules of gateways are put together, not chosen among."""
    return "mesh" if not rule.spec.gateways or "mesh" in rule.spec.gateways else rule.meta.key
