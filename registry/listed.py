"""Instances as schedulers list them, to facts: one shape for Nomad, Docker and Marathon.

Labels that begin with `fairlead.` are settings (Nomad has tags only: `fairlead.mesh-port=15006` as a tag):

| setting | meaning |
|---|---|
| `fairlead.service`, `fairlead.namespace` | name and namespace of the service, in place of the scheduler's |
| `fairlead.ports` | `[SERVICE-PORT:]PORT[/PROTOCOL],...`: the ports that count; http, http2, grpc, tcp, tls, ... |
| `fairlead.protocol` | of all ports that state none |
| `fairlead.service-account`, `fairlead.mesh-port`, `fairlead.weight`, `fairlead.workload` | as for every source |
| `fairlead.enable: "false"` | leave it out |
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from .model import Endpoint, Facts, Service, ServicePort, Workload, WorkloadPort
from .names import CLUSTER_DOMAIN, is_address, is_label, service_host

PREFIX = "fairlead."
PROTOCOLS = frozenset(("http", "http2", "grpc", "grpc-web", "tcp", "tls", "https", "mongo", "redis", "mysql"))


class Port(Struct, frozen=True):
    """A port of an instance."""

    service: int
    """What clients dial."""
    number: int
    """The instance's own."""
    name: str = ""
    protocol: str = ""


class Listed(Struct, frozen=True):
    """One instance of one service."""

    where: str
    """How the source names it, for people."""
    service: str
    namespace: str
    instance: str
    """Name of its workload."""
    address: str
    ports: tuple[Port, ...]
    labels: Mapping[str, str]
    """The settings among them."""
    ready: bool = True
    why: str = ""
    terminating: bool = False
    locality: str = ""


def name_of(text: str) -> str:
    """A DNS label from a name as schedulers allow it: lower case, `_`, `.` and `/` as `-`. Raises ValueError."""
    made = re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")
    if not is_label(made):
        raise ValueError(f"{text!r} makes no DNS label")
    return made


def stated_ports(text: str) -> tuple[Port, ...]:
    """`fairlead.ports`. Raises ValueError."""
    found = []
    for part in text.split(","):
        numbers, _, protocol = part.strip().partition("/")
        service, colon, number = numbers.partition(":")
        own = number if colon else service
        if not (service.isascii() and service.isdigit() and own.isascii() and own.isdigit()):
            raise ValueError(f"{PREFIX}ports: expected [SERVICE-PORT:]PORT[/PROTOCOL],..., got {text!r}")
        if protocol and protocol not in PROTOCOLS:
            raise ValueError(f"{PREFIX}ports: {protocol!r} is none of {', '.join(sorted(PROTOCOLS))}")
        found.append(Port(int(service[:6]), int(own[:6]), protocol=protocol))
    return tuple(found)


def settings_of_tags(tags: Iterable[str]) -> dict[str, str]:
    """Labels from tags: `k=v` as they stand, any other tag as `tag.NAME: "true"`."""
    labels = {}
    for tag in tags:
        name, equals, value = tag.partition("=")
        if equals and name:
            labels[name] = value
        elif tag:
            labels[f"tag.{tag}"] = "true"
    return labels


def wanted(labels: Mapping[str, str]) -> bool:
    return labels.get(f"{PREFIX}enable", "true").lower() not in ("false", "0", "no")


def facts_of(listed: Iterable[Listed], source: str, domain: str = CLUSTER_DOMAIN) -> tuple[Facts, list[str]]:
    """All instances as facts, and what in them cannot be used, each by how its source names it."""
    problems: list[str] = []
    names: dict[str, tuple[str, str]] = {}
    members: dict[str, list[tuple[Listed, str, Port]]] = {}
    workloads: dict[str, Workload] = {}
    for one in sorted(listed, key=lambda one: (one.namespace, one.service, one.instance)):
        try:
            namespace, name, ports = _checked(one)
            workload = _workload(one, namespace, ports, source)
        except ValueError as error:
            problems.append(f"{source} {one.where}: {error}")
            continue
        known = workloads.get(workload.key)
        if known is not None and known.addresses != workload.addresses:
            problems.append(f"{source} {one.where}: {workload.key} is at {known.addresses[0]}, too: give each a name")
            continue
        if known is not None:  # several services of one instance
            own = {port.number: port for port in (*known.ports, *workload.ports)}
            workload = replace(known, ports=tuple(own.values()))
        workloads[workload.key] = workload
        host = service_host(namespace, name, domain)
        names[host] = (namespace, name)
        members.setdefault(host, []).extend((one, workload.key, port) for port in ports)
    services: dict[str, Service] = {}
    endpoints: dict[str, tuple[Endpoint, ...]] = {}
    for host, found in members.items():
        made = _service_ports([port for _, _, port in found])
        namespace, name = names[host]
        services[host] = Service(host=host, namespace=namespace, name=name, ports=tuple(made.values()), source=source)
        endpoints[host] = tuple(
            _endpoint(one, workloads[key], port, made[port.service].name, source) for one, key, port in found
        )
    return Facts(services=services, endpoints=endpoints, workloads=workloads), problems


def _service_ports(ports: Iterable[Port]) -> dict[int, ServicePort]:
    """By number, in order; where there are several, each has a name, as Kubernetes wants it."""
    first: dict[int, Port] = {}
    for port in ports:
        first.setdefault(port.service, port)
    found: dict[int, ServicePort] = {}
    taken: set[str] = set()
    for number, port in sorted(first.items()):
        name = port.name
        if len(first) > 1 and (not name or name in taken):
            name = f"port-{number}"
        taken.add(name)
        found[number] = ServicePort(number, name, app_protocol=port.protocol)
    return found


def _checked(one: Listed) -> tuple[str, str, tuple[Port, ...]]:
    """(namespace, service name, ports); raises ValueError."""
    settings = one.labels
    namespace = name_of(settings.get(f"{PREFIX}namespace") or one.namespace)
    name = name_of(settings.get(f"{PREFIX}service") or one.service)
    if not is_address(one.address):
        raise ValueError(f"{one.address!r} is neither an IP address nor a host name")
    stated = settings.get(f"{PREFIX}ports")
    ports = stated_ports(stated) if stated else one.ports
    protocol = settings.get(f"{PREFIX}protocol", "")
    if protocol and protocol not in PROTOCOLS:
        raise ValueError(f"{PREFIX}protocol: {protocol!r} is none of {', '.join(sorted(PROTOCOLS))}")
    if not ports:
        raise ValueError(f"it has no port; the label {PREFIX}ports gives it one")
    for port in ports:
        if not (0 < port.service <= 65535 and 0 < port.number <= 65535):
            raise ValueError(f"port {port.service}:{port.number} is none that a client can dial")
    return namespace, name, tuple(_of_protocol(port, protocol) for port in ports)


def _of_protocol(port: Port, protocol: str) -> Port:
    return port if port.protocol else Port(port.service, port.number, port.name, protocol)


def _number(labels: Mapping[str, str], name: str, default: int) -> int:
    text = labels.get(PREFIX + name, "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 6 else default


def _workload(one: Listed, namespace: str, ports: tuple[Port, ...], source: str) -> Workload:
    labels = {key: value for key, value in one.labels.items() if not key.startswith(PREFIX)}
    return Workload(
        namespace=namespace,
        name=name_of(one.labels.get(f"{PREFIX}workload") or one.instance),
        addresses=(one.address,),
        ports=tuple(WorkloadPort(port.number, port.name) for port in ports),
        labels=labels,
        service_account=one.labels.get(f"{PREFIX}service-account") or "default",
        locality=one.locality,
        weight=max(_number(one.labels, "weight", 1), 1),
        mesh_port=_number(one.labels, "mesh-port", 0),
        ready=one.ready,
        terminating=one.terminating,
        why=one.why,
        source=source,
    )


def _endpoint(one: Listed, workload: Workload, port: Port, named: str, source: str) -> Endpoint:
    return Endpoint(
        address=one.address,
        port=port.number,
        port_name=named,
        ready=one.ready and not one.terminating,
        serving=one.ready,
        terminating=one.terminating,
        weight=workload.weight,
        labels=workload.labels,
        locality=one.locality,
        workload=workload.key,
        namespace=workload.namespace,
        service_account=one.labels.get(f"{PREFIX}service-account", ""),
        mesh_port=workload.mesh_port,
        source=source,
        why=one.why or ("it is being stopped" if one.terminating else ""),
    )
