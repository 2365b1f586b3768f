"""Several sources into one snapshot, by precedence; selectors of services applied to the workloads of all.

A service is defined by the first source that has it (its ports, selector and so on). Its endpoints are the union of all
that sources list for its host and of the workloads that its selector chooses; of two with the same address and port
the first counts. Workloads and namespaces: the first source that has them. What did not change is the same object in
the new snapshot as in the one before, so that what is made from it need not be made again.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence, Set
from typing import Any, TypeVar

from msgspec.structs import replace

from .model import Endpoint, Facts, Service, ServicePort, SourceStatus, Workload
from .snapshot import Snapshot

V = TypeVar("V")
NAME_LABEL = "kubernetes.io/metadata.name"
LEFT = "its sidecar drains, has ended, or waits for its app"


def merge(
    contributions: Sequence[tuple[str, Facts]],
    statuses: Mapping[str, SourceStatus],
    previous: Snapshot,
    leaving: Set[str] = frozenset(),
) -> Snapshot:
    """The snapshot of these contributions, highest precedence first; `previous` where nothing but statuses changed.

    `leaving`: workloads whose sidecar takes no more, whatever sources say of them: terminating, as Kubernetes has it.
    """
    services: dict[str, Service] = {}
    listed: dict[str, list[tuple[Endpoint, ...]]] = {}
    workloads: dict[str, Workload] = {}
    namespaces: dict[str, Mapping[str, str]] = {}
    for _, facts in contributions:
        for host, service in facts.services.items():
            services.setdefault(host, service)
        for host, endpoints in facts.endpoints.items():
            listed.setdefault(host, []).append(endpoints)
        for key, workload in facts.workloads.items():
            workloads.setdefault(key, workload)
        for name, labels in facts.namespaces.items():
            namespaces.setdefault(name, labels)
    for key in leaving & workloads.keys():
        workloads[key] = left(workloads[key])
    by_label = _by_label(workloads)
    merged: dict[str, tuple[Endpoint, ...]] = {}
    for host, service in services.items():
        groups = listed.get(host, [])
        if service.selector:
            groups = [*groups, selected(service, by_label)]
        endpoints = union(groups, workloads, leaving, service.publish_not_ready)
        before = previous.endpoints.get(host)
        merged[host] = before if before == endpoints else endpoints
    for name in {service.namespace for service in services.values()} | {w.namespace for w in workloads.values()}:
        namespaces.setdefault(name, {})
    named = {name: {**labels, NAME_LABEL: name} for name, labels in namespaces.items()}
    services = _same(services, previous.services)
    workloads = _same(workloads, previous.workloads)
    named = _same(named, previous.namespaces)
    return Snapshot(previous.version + 1, services, merged, workloads, named, dict(statuses))


def left(workload: Workload) -> Workload:
    """A workload whose sidecar takes no more."""
    return replace(workload, ready=False, terminating=True, why=workload.why or LEFT)


def _same(new: dict[str, V], old: Mapping[str, Any]) -> dict[str, V]:
    return {key: old[key] if key in old and old[key] == value else value for key, value in new.items()}


def _by_label(workloads: Mapping[str, Workload]) -> dict[tuple[str, str, str], list[Workload]]:
    """Workloads by (namespace, label, value)."""
    found: dict[tuple[str, str, str], list[Workload]] = {}
    for workload in workloads.values():
        for label, value in workload.labels.items():
            found.setdefault((workload.namespace, label, value), []).append(workload)
    return found


def selected(service: Service, by_label: Mapping[tuple[str, str, str], Collection[Workload]]) -> tuple[Endpoint, ...]:
    """The endpoints that the service's selector makes of workloads, one for each of its ports and their addresses."""
    selector = service.selector or {}
    candidates: Collection[Workload] = min(
        (by_label.get((service.namespace, label, value), ()) for label, value in selector.items()), key=len, default=()
    )
    found = []
    for workload in sorted(candidates, key=lambda one: (one.namespace, one.name)):  # whoever came first
        if any(workload.labels.get(label) != value for label, value in selector.items()):
            continue
        for port in service.ports or (ServicePort(0),):
            number = target_port(port, workload)
            if number is None:
                continue
            for address in workload.addresses:
                found.append(endpoint_of(workload, address, number, port.name, service))
    return tuple(found)


def target_port(port: ServicePort, workload: Workload) -> int | None:
    """The workload's port behind a service port; None: the port is named, and the workload has none of that name."""
    if port.name in workload.service_ports:
        return workload.service_ports[port.name]
    if isinstance(port.target, str):
        for own in workload.ports:
            if own.name == port.target and own.protocol == port.protocol:
                return own.number
        return None
    return port.target or port.number


def endpoint_of(workload: Workload, address: str, port: int, port_name: str, service: Service) -> Endpoint:
    ready = workload.ready and not workload.terminating
    return Endpoint(
        address=address,
        port=port,
        port_name=port_name,
        ready=ready or service.publish_not_ready,
        serving=workload.ready,
        terminating=workload.terminating,
        weight=workload.weight,
        labels=workload.labels,
        locality=workload.locality,
        hostname=workload.hostname if workload.subdomain in ("", service.name) else "",
        workload=workload.key,
        namespace=workload.namespace,
        service_account=workload.service_account,
        mesh_port=workload.mesh_port,
        source=workload.source,
        why=workload.why or ("terminating" if workload.terminating else "" if ready else "not ready"),
    )


def usable(service: Service, endpoints: Sequence[Endpoint]) -> list[Endpoint]:
    """The endpoints that take traffic: those that are ready; where none is, those that are ending and still serve, as
    kube-proxy has it (KEP-1669; not of a headless service, whose clients choose for themselves)."""
    if service.publish_not_ready:
        return list(endpoints)
    ready = [one for one in endpoints if one.ready]
    if ready or service.headless:
        return ready
    return [one for one in endpoints if one.serving and one.terminating]


def union(
    groups: Sequence[tuple[Endpoint, ...]],
    workloads: Mapping[str, Workload],
    leaving: Set[str] = frozenset(),
    publish_not_ready: bool = False,
) -> tuple[Endpoint, ...]:
    """One endpoint for each (address, port, port name), the first counts; completed from the workload it names."""
    found: dict[tuple[str, int, str], Endpoint] = {}
    for group in groups:
        for endpoint in group:
            key = (endpoint.address, endpoint.port, endpoint.port_name)
            if key not in found:
                made = completed(endpoint, workloads, publish_not_ready)
                if made.workload in leaving and not _unnamed(workloads.get(made.workload)):
                    ready = publish_not_ready and made.ready
                    made = replace(made, ready=ready, serving=False, terminating=True, why=LEFT)
                found[key] = made
    return tuple(found.values())


def _unnamed(workload: Workload | None) -> bool:
    """Whether only the workload itself says that this is its name, so that what a source lists is not its to end."""
    return workload is not None and workload.unnamed


def unwell(endpoint: Endpoint, why: str, publish_not_ready: bool = False) -> Endpoint:
    """An endpoint whose app is not ready, as its own sidecar knows."""
    if not endpoint.serving and not endpoint.ready:
        return endpoint
    return replace(endpoint, ready=publish_not_ready and endpoint.ready, serving=False, why=why)


def completed(endpoint: Endpoint, workloads: Mapping[str, Workload], publish_not_ready: bool = False) -> Endpoint:
    """A listed endpoint (EndpointSlice) with what is known of its workload: labels, identity, sidecar, health."""
    workload = workloads.get(endpoint.workload) if endpoint.workload else None
    if workload is None or workload.unnamed:
        return endpoint
    if workload.unhealthy:
        endpoint = unwell(endpoint, workload.unhealthy, publish_not_ready)
    if endpoint.labels and endpoint.service_account and endpoint.mesh_port == workload.mesh_port:
        return endpoint
    return replace(
        endpoint,
        labels=endpoint.labels or workload.labels,
        namespace=endpoint.namespace or workload.namespace,
        service_account=endpoint.service_account or workload.service_account,
        mesh_port=endpoint.mesh_port or workload.mesh_port,
        locality=endpoint.locality or workload.locality,
    )
