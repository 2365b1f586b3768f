"""Which Secrets a proxy needs: those that its Gateways, its Ingresses and its DestinationRules name. Pure.

A Gateway's `credentialName` is a Secret of the gateway workload's namespace, whichever namespace the Gateway is in
(Istio); an Ingress's `secretName` is one of the Ingress's own. A DestinationRule's is of the client's namespace: at
gateways, and at sidecars where the rule is of their namespace and selects them by a `workloadSelector`.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..registry.model import Workload
from .gateways import KINDS, TERMINATED, TLS
from .ingress import SECRET, ingress_gateways
from .resources import ClientTLSSettings, DestinationRule, Gateway, Resources, ServerTLS, TrafficPolicy
from .visibility import exported, labels_hold

Name = tuple[str, str]
"""(namespace, name) of a Secret."""
PREFIX = "kubernetes://"
"""May stand before the name of a Secret of the gateway's own namespace."""
AUTHORITIES = "-cacert"
"""What follows the name of a Secret in that of another that has the authorities of clients (Istio)."""
MUTUAL = ("MUTUAL", "OPTIONAL_MUTUAL")


def secrets_of_gateway(resources: Resources, workload: Workload, elsewhere: bool) -> frozenset[Name]:
    """What a gateway needs. `elsewhere`: Secrets of Ingresses in other namespaces than its own, too."""
    own = workload.namespace
    found = set(_of_rules(resources, workload, gateway=True))
    for gateway in _selecting(resources.gateways, workload):
        found.update(_of_servers(gateway, own))
    for gateway in _selecting(ingress_gateways(resources), workload):
        found.update(one for one in _of_servers(gateway, own) if elsewhere or one[0] == own)
    return frozenset(found)


def secrets_of_sidecar(resources: Resources, workload: Workload) -> frozenset[Name]:
    """What a sidecar needs: of DestinationRules of its namespace that select it, by labels."""
    return frozenset(_of_rules(resources, workload, gateway=False))


def names_of(tls: ServerTLS) -> list[str]:
    """The Secrets of a server's certificates, as written."""
    return tls.credential_names or ([tls.credential_name] if tls.credential_name else [])


def place_of(written: str, own: str, generated: bool = False) -> Name | None:
    """The Secret that a `credentialName` means to a workload of namespace `own`; None: something that is no Secret.

    `generated`: of an Ingress, whose name may be in another namespace.
    """
    if generated and written.startswith(SECRET):
        namespace, _, name = written.removeprefix(SECRET).partition("/")
        return namespace, name
    name = written.removeprefix(PREFIX)
    return None if not name or "://" in name else (own, name)


def applies(rule: DestinationRule, workload: Workload, gateway: bool) -> bool:
    """Whether a rule's `credentialName` may be for this client."""
    selector = rule.spec.workload_selector
    labels = selector.match_labels if selector is not None else {}
    if labels:
        return rule.meta.namespace == workload.namespace and labels_hold(labels, workload.labels)
    return gateway and exported(rule.spec.export_to, rule.meta.namespace, workload.namespace)


def client_settings(rule: DestinationRule) -> Iterator[ClientTLSSettings]:
    """Each `tls` of a rule: at its top, of subsets, of ports."""
    policies = [rule.spec.traffic_policy, *(subset.traffic_policy for subset in rule.spec.subsets)]
    for policy in policies:
        if policy is not None:
            yield from _tls(policy)


def _tls(policy: TrafficPolicy) -> Iterator[ClientTLSSettings]:
    for tls in (policy.tls, *(entry.tls for entry in policy.port_level_settings)):
        if tls is not None:
            yield tls


def _selecting(gateways: tuple[Gateway, ...], workload: Workload) -> list[Gateway]:
    return [one for one in gateways if labels_hold(one.spec.selector, workload.labels)]


def _of_servers(gateway: Gateway, own: str) -> Iterator[Name]:
    """Of its servers at which clients' TLS ends with a certificate of a Secret."""
    generated = gateway.meta.name.endswith(".ingress")
    for server in gateway.spec.servers:
        tls = server.tls
        if tls is None or tls.mode not in TERMINATED or tls.mode == "ISTIO_MUTUAL":
            continue
        if KINDS.get(server.port.protocol.upper()) != TLS:
            continue
        names = names_of(tls)
        written = list(names)
        if names and tls.mode in MUTUAL:
            written.append(tls.ca_cert_credential_name or f"{names[0]}{AUTHORITIES}")
        for one in written:
            place = place_of(one, own, generated)
            if place is not None:
                yield place


def _of_rules(resources: Resources, workload: Workload, gateway: bool) -> Iterator[Name]:
    for rule in resources.destination_rules:
        for tls in client_settings(rule):
            if tls.credential_name and tls.mode in ("SIMPLE", "MUTUAL") and applies(rule, workload, gateway):
                place = place_of(tls.credential_name, workload.namespace)
                if place is not None:
                    yield place
                    yield place[0], f"{place[1]}{AUTHORITIES}"
