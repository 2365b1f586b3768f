"""Istio's Sidecar: which services a workload knows, and what becomes of traffic to others. Pure.

In force is the oldest whose selector holds for the workload, else the one of its namespace without a selector, else the
one of the root namespace. With `egress` a workload knows the services that one of its hosts covers (on a listener's
port alone, where it has one), and those that the VirtualServices for them send traffic to. `ingress` says where what
comes in on a port goes (compile_inbound).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from msgspec.structs import replace

from ..registry.model import Service, Workload
from .host_names import complete, covers
from .resources import DestinationRef, EgressListener, MeshConfig, Resources, Sidecar, VirtualService
from .visibility import exported, labels_hold

_ENDPOINTS = {"127.0.0.1": "127.0.0.1", "[::1]": "::1", "0.0.0.0": "", "[::]": ""}


def sidecar_of(resources: Resources, workload: Workload) -> Sidecar | None:
    """The Sidecar in force for a workload."""
    root = resources.mesh.spec.root_namespace
    whole: Sidecar | None = None
    mesh: Sidecar | None = None
    for one in resources.sidecars:
        selector = one.spec.workload_selector
        if one.meta.namespace == workload.namespace:
            if selector is not None and selector.labels:
                if labels_hold(selector.labels, workload.labels):
                    return one
            else:
                whole = whole or one
        elif one.meta.namespace == root and (selector is None or not selector.labels):
            mesh = mesh or one
    return whole or mesh


def read_endpoint(text: str) -> tuple[str, int] | None:
    """(address, port) of a `defaultEndpoint`: an empty address is the workload's own, a UNIX socket's is
    `unix:///PATH` with port 0. None: it is none."""
    if text.startswith("unix://"):
        path = text.removeprefix("unix://")
        return (text, 0) if path.startswith("/") and not path.endswith("/") else None
    address, _, port = text.rpartition(":")
    if address not in _ENDPOINTS or not (port.isascii() and port.isdigit() and 0 < int(port[:6]) <= 65535):
        return None
    return _ENDPOINTS[address], int(port)


def with_policy(mesh: MeshConfig, sidecar: Sidecar | None) -> MeshConfig:
    """The mesh's settings with the Sidecar's outboundTrafficPolicy."""
    policy = sidecar.spec.outbound_traffic_policy if sidecar is not None else None
    if policy is None:
        return mesh
    return replace(mesh, spec=replace(mesh.spec, outbound_traffic_policy=policy))


def known_services(
    sidecar: Sidecar | None,
    services: Mapping[str, Service],
    rules: Sequence[VirtualService],
    workload: Workload,
    domain: str,
) -> Mapping[str, Service]:
    """What of `services` the workload knows; all of them where no `egress` says otherwise."""
    if sidecar is None or not sidecar.spec.egress:
        return services
    listeners = sidecar.spec.egress
    found: dict[str, Service] = {}
    for host, service in services.items():
        seen = _seen(listeners, service, workload.namespace)
        if seen is not None:
            found[host] = seen
    for host in routed_hosts(sidecar, rules, workload, domain):
        if host in services:
            found.setdefault(host, services[host])
    return found


def routed_hosts(sidecar: Sidecar, rules: Sequence[VirtualService], workload: Workload, domain: str) -> Iterator[str]:
    """Where the VirtualServices for hosts that the workload knows send traffic to."""
    for rule in rules:
        namespace = rule.meta.namespace
        if exported(rule.spec.export_to, namespace, workload.namespace) and knows(sidecar, rule, workload, domain):
            for reference in _targets(rule):
                yield complete(reference.host, namespace, domain)


def knows(sidecar: Sidecar | None, rule: VirtualService, workload: Workload, domain: str) -> bool:
    """Whether a VirtualService is for hosts that the workload knows."""
    if sidecar is None or not sidecar.spec.egress:
        return True
    namespace = rule.meta.namespace
    hosts = [complete(host, namespace, domain) for host in rule.spec.hosts]
    return any(_admits(one, namespace, host, workload.namespace) for one in sidecar.spec.egress for host in hosts)


def _seen(listeners: Sequence[EgressListener], service: Service, own: str) -> Service | None:
    """The service with those of its ports that are known; None: it is not."""
    ports: set[int] = set()
    for listener in listeners:
        if _admits(listener, service.namespace, service.host, own):
            if listener.port is None or not listener.port.number:
                return service
            ports.add(listener.port.number)
    kept = tuple(port for port in service.ports if port.number in ports)
    return replace(service, ports=kept) if kept else None


def _admits(listener: EgressListener, namespace: str, host: str, own: str) -> bool:
    """Whether one of the listener's `NAMESPACE/HOST` is for this host of this namespace."""
    for text in listener.hosts:
        where, _, name = text.partition("/")
        if where == "~" or (where not in ("*", namespace) and not (where == "." and namespace == own)):
            continue
        name = name.lower()
        if covers(name, host) or covers(host, name):
            return True
    return False


def _targets(rule: VirtualService) -> Iterator[DestinationRef]:
    for route in rule.spec.http:
        yield from (one.destination for one in route.route)
        if route.mirror is not None:
            yield route.mirror
        yield from (one.destination for one in route.mirrors)
    shares = [one.route for one in rule.spec.tls] + [one.route for one in rule.spec.tcp]
    for some in shares:
        yield from (share.destination for share in some)
