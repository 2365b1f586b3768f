"""Objects to facts: Namespace, Service, EndpointSlice, Pod, WorkloadEntry and ServiceEntry as services and workloads.

Takes objects whose schema has been checked; what it does not need it does not look at. Semantics: the Kubernetes API's
documentation of each kind, and Istio's for the last two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec.structs import replace

from .checks import pod_checks
from .documents import Document
from .model import Endpoint, Facts, Service, ServicePort, Workload, WorkloadPort
from .names import CLUSTER_DOMAIN, service_host

MESH_PORT = "fairlead.dev/mesh-port"
"""Annotation of a Pod or WorkloadEntry: port on which its sidecar takes mutual TLS."""
ADDRESS = "fairlead.dev/address"
"""Annotation of a Pod: its address, where its status does not say."""
WEIGHT = "fairlead.dev/weight"
EXPORT_TO = "networking.istio.io/exportTo"
"""Annotation of a Service, Istio's: namespaces that see it."""
STATEFUL_NAME = "statefulset.kubernetes.io/pod-name"
"""Label that a StatefulSet puts on its Pods: their own name below its service, where `hostname` does not say."""
SERVICE_NAME = "kubernetes.io/service-name"
PROTOCOLS = frozenset(("http", "http2", "grpc", "grpc-web", "https", "tls", "tcp", "mongo", "redis", "mysql", "udp"))
APP_PROTOCOLS = {"kubernetes.io/h2c": "http2", "kubernetes.io/ws": "http", "kubernetes.io/wss": "https"}
PLAIN_TCP = frozenset((25, 53, 3306, 27017))
"""Unnamed ports that Istio never sniffs: their servers speak first."""


def facts_of(documents: Iterable[Document], source: str, cluster_domain: str = CLUSTER_DOMAIN) -> Facts:
    """The facts that these documents state; documents of other kinds are passed over.

    Where several define one host, a Service counts before any ServiceEntry, of these the oldest; ports and endpoints
    of further entries of the same namespace are added to it (Istio).
    """
    made = _Facts(source, cluster_domain)
    entries: list[tuple[float, str, str, int, Document]] = []
    for document in documents:
        group = document.api_version.partition("/")[0] if "/" in document.api_version else ""
        take = made.kinds.get((group, document.kind))
        metadata, spec = _mapping(document.body, "metadata"), _mapping(document.body, "spec")
        if take == made.service_entry:
            entries.append((created(metadata), document.name, document.namespace, len(entries), document))
        elif take is not None:
            take(document, metadata, spec)
    for *_, document in sorted(entries, key=lambda entry: entry[:4]):
        made.service_entry(document, _mapping(document.body, "metadata"), _mapping(document.body, "spec"))
    return made.facts()


def stated_by(document: Document, cluster_domain: str = CLUSTER_DOMAIN) -> tuple[str, tuple[str, ...]]:
    """What a document states something of: "hosts", "workloads" or "namespaces", and their keys; "" and none where it
    states no facts. A host is stated by several documents together, the others each by the last that names it."""
    group = document.api_version.partition("/")[0] if "/" in document.api_version else ""
    kind = (group, document.kind)
    if kind == ("", "Namespace"):
        return "namespaces", (document.name,)
    if kind in (("", "Pod"), ("networking.istio.io", "WorkloadEntry")):
        return "workloads", (f"{document.namespace}/{document.name}",)
    if kind == ("", "Service"):
        return "hosts", (service_host(document.namespace, document.name, cluster_domain),)
    if kind == ("discovery.k8s.io", "EndpointSlice"):
        name = _labels(_mapping(document.body, "metadata")).get(SERVICE_NAME)
        return "hosts", (service_host(document.namespace, name, cluster_domain),) if name else ()
    if kind == ("networking.istio.io", "ServiceEntry"):
        named = _list(_mapping(document.body, "spec"), "hosts")
        return "hosts", tuple(dict.fromkeys(entry_host(one, document.namespace, cluster_domain) for one in named))
    return "", ()


def entry_host(name: Any, namespace: str, cluster_domain: str) -> str:
    """The full host of one of a ServiceEntry's `hosts`."""
    host = str(name).lower().rstrip(".")
    return service_host(namespace, host, cluster_domain) if "." not in host and host != "*" else host


_NOTHING: dict[str, Any] = {}


def _mapping(value: Mapping[str, Any], key: str) -> dict[str, Any]:
    found = value.get(key)
    return found if isinstance(found, dict) else _NOTHING


def _list(value: Mapping[str, Any], key: str) -> list[Any]:
    found = value.get(key)
    return found if isinstance(found, list) else []


def _labels(metadata: Mapping[str, Any], key: str = "labels") -> dict[str, str]:
    found = _mapping(metadata, key)
    if all(type(name) is str and type(value) is str for name, value in found.items()):
        return found  # the object's own, which nobody changes
    return {str(name): str(value) for name, value in found.items()}


def number(value: Any, default: int = 0) -> int:
    """An integer given as number or text."""
    try:
        return int(value)
    except (TypeError, ValueError):
        return default


def created(metadata: Mapping[str, Any]) -> float:
    """metadata.creationTimestamp as Unix seconds; 0 where there is none."""
    text = metadata.get("creationTimestamp")
    if not isinstance(text, str):
        return 0.0
    try:
        return datetime.fromisoformat(text.replace("Z", "+00:00")).timestamp()
    except ValueError:
        return 0.0


def app_protocol(port: Mapping[str, Any], name_key: str = "name") -> str:
    """http, http2, grpc, https, tls, tcp ...; empty: undeclared. appProtocol, else the port's name up to a dash."""
    declared = str(port.get("appProtocol") or "").lower()
    if declared:
        return APP_PROTOCOLS.get(declared, declared if declared in PROTOCOLS else "")
    if str(port.get("protocol") or "TCP").upper() == "UDP":
        return "udp"
    name = str(port.get(name_key) or "").lower()
    if name.startswith("grpc-web"):
        return "grpc-web"
    first = name.partition("-")[0]
    if first in PROTOCOLS:
        return first
    return "tcp" if number(port.get("port") or port.get("number")) in PLAIN_TCP and not name else ""


class _Facts:
    def __init__(self, source: str, cluster_domain: str) -> None:
        self.source = source
        self.domain = cluster_domain
        self.services: dict[str, Service] = {}
        self.endpoints: dict[str, list[Endpoint]] = {}
        self.workloads: dict[str, Workload] = {}
        self.namespaces: dict[str, dict[str, str]] = {}
        self.entry_hosts: set[str] = set()
        """Hosts that a ServiceEntry defines."""
        self.kinds = {
            ("", "Namespace"): self.namespace,
            ("", "Service"): self.service,
            ("discovery.k8s.io", "EndpointSlice"): self.endpoint_slice,
            ("", "Pod"): self.pod,
            ("networking.istio.io", "WorkloadEntry"): self.workload_entry,
            ("networking.istio.io", "ServiceEntry"): self.service_entry,
        }

    def facts(self) -> Facts:
        return Facts(
            services=self.services,
            endpoints={host: tuple(endpoints) for host, endpoints in self.endpoints.items()},
            workloads=self.workloads,
            namespaces=self.namespaces,
        )

    def namespace(self, document: Document, metadata: dict[str, Any], spec: dict[str, Any]) -> None:
        name = document.name
        self.namespaces[name] = {**_labels(metadata), "kubernetes.io/metadata.name": name}

    def service(self, document: Document, metadata: dict[str, Any], spec: dict[str, Any]) -> None:
        host = service_host(document.namespace, document.name, self.domain)
        addresses = [str(a) for a in _list(spec, "clusterIPs")] or [str(spec.get("clusterIP") or "")]
        external = str(spec.get("externalName") or "") if spec.get("type") == "ExternalName" else ""
        selector = _labels(spec, "selector") or None
        self.services[host] = Service(
            host=host,
            namespace=document.namespace,
            name=document.name,
            ports=tuple(self.service_port(port) for port in _list(spec, "ports") if isinstance(port, dict)),
            addresses=tuple(a for a in addresses if a and a != "None"),
            headless="None" in addresses,
            external_name=external.rstrip("."),
            selector=None if external else selector,
            labels=_labels(metadata),
            annotations=_labels(metadata, "annotations"),
            publish_not_ready=bool(spec.get("publishNotReadyAddresses")),
            traffic_distribution=str(spec.get("trafficDistribution") or ""),
            client_affinity=spec.get("sessionAffinity") == "ClientIP" and not external,
            export_to=tuple(part for part in _labels(metadata, "annotations").get(EXPORT_TO, "").split(",") if part),
            created=created(metadata),
            source=self.source,
        )

    def service_port(self, port: dict[str, Any]) -> ServicePort:
        target = port.get("targetPort")
        if isinstance(target, str) and target.isdigit():
            target = int(target)
        return ServicePort(
            number=number(port.get("port")),
            name=str(port.get("name") or ""),
            protocol=str(port.get("protocol") or "TCP"),
            app_protocol=app_protocol(port),
            target=target if isinstance(target, (int, str)) and not isinstance(target, bool) else 0,
        )

    def endpoint_slice(self, document: Document, metadata: dict[str, Any], spec: dict[str, Any]) -> None:
        name = _labels(metadata).get(SERVICE_NAME)
        if not name:
            return
        host = service_host(document.namespace, name, self.domain)
        found = self.endpoints.setdefault(host, [])
        ports = [port for port in _list(document.body, "ports") if isinstance(port, dict)]
        for entry in _list(document.body, "endpoints"):
            if not isinstance(entry, dict):
                continue
            conditions = _mapping(entry, "conditions")
            ready = conditions.get("ready") is not False
            serving = conditions.get("serving")
            target = _mapping(entry, "targetRef")
            workload = (
                f"{target.get('namespace') or document.namespace}/{target.get('name')}" if target.get("name") else ""
            )
            zone = str(entry.get("zone") or "")
            for address in _list(entry, "addresses"):
                for port in ports:
                    found.append(
                        Endpoint(
                            address=str(address),
                            port=number(port.get("port")),
                            port_name=str(port.get("name") or ""),
                            ready=ready,
                            serving=ready if serving is None else bool(serving),
                            terminating=bool(conditions.get("terminating")),
                            locality=f"/{zone}" if zone else "",
                            hostname=str(entry.get("hostname") or ""),
                            workload=workload,
                            namespace=document.namespace,
                            source=self.source,
                            why="" if ready else "EndpointSlice says that it is not ready",
                        )
                    )

    def pod(self, document: Document, metadata: dict[str, Any], spec: dict[str, Any]) -> None:
        annotations = _labels(metadata, "annotations")
        status = _mapping(document.body, "status")
        addresses = [str(a.get("ip")) for a in _list(status, "podIPs") if isinstance(a, dict) and a.get("ip")]
        addresses = addresses or [a for a in (str(status.get("podIP") or ""), annotations.get(ADDRESS, "")) if a][:1]
        ports = [
            WorkloadPort(number(p.get("containerPort")), str(p.get("name") or ""), str(p.get("protocol") or "TCP"))
            for container in _list(spec, "containers")
            if isinstance(container, dict)
            for p in _list(container, "ports")
            if isinstance(p, dict)
        ]
        ready, why = pod_readiness(status)
        self.add_workload(
            Workload(
                namespace=document.namespace,
                name=document.name,
                addresses=tuple(addresses),
                ports=tuple(ports),
                labels=_labels(metadata),
                annotations=annotations,
                service_account=str(spec.get("serviceAccountName") or spec.get("serviceAccount") or "default"),
                locality=locality(_labels(metadata)),
                weight=max(number(annotations.get(WEIGHT), 1), 0) or 1,
                hostname=str(spec.get("hostname") or _labels(metadata).get(STATEFUL_NAME, "")),
                subdomain=str(spec.get("subdomain") or ""),
                mesh_port=number(annotations.get(MESH_PORT)),
                host_network=bool(spec.get("hostNetwork")),
                service_links=spec.get("enableServiceLinks") is not False,
                ready=ready,
                terminating=bool(metadata.get("deletionTimestamp")),
                why=why,
                source=self.source,
                checks=pod_checks(spec),
            )
        )

    def workload_entry(self, document: Document, metadata: dict[str, Any], spec: dict[str, Any]) -> None:
        self.add_workload(self.workload_of(document, metadata, spec))

    def workload_of(self, document: Document, metadata: dict[str, Any], spec: dict[str, Any]) -> Workload:
        annotations = _labels(metadata, "annotations")
        address = str(spec.get("address") or "")
        return Workload(
            namespace=document.namespace,
            name=document.name,
            addresses=(address,) if address else (),
            ports=tuple(WorkloadPort(number(port), str(name)) for name, port in _mapping(spec, "ports").items()),
            service_ports={str(name): number(port) for name, port in _mapping(spec, "ports").items()},
            labels={**_labels(metadata), **_labels(spec)},
            annotations=annotations,
            service_account=str(spec.get("serviceAccount") or "default"),
            locality=str(spec.get("locality") or ""),
            weight=number(spec.get("weight"), 1) or 1,
            mesh_port=number(annotations.get(MESH_PORT)),
            source=self.source,
        )

    def add_workload(self, workload: Workload) -> None:
        self.workloads[workload.key] = workload

    def service_entry(self, document: Document, metadata: dict[str, Any], spec: dict[str, Any]) -> None:
        resolution = str(spec.get("resolution") or "NONE")
        ports = tuple(
            ServicePort(
                number=number(port.get("number")),
                name=str(port.get("name") or ""),
                protocol="UDP" if str(port.get("protocol")).upper() == "UDP" else "TCP",
                app_protocol=entry_protocol(str(port.get("protocol") or "")),
                target=number(port.get("targetPort")),
            )
            for port in _list(spec, "ports")
            if isinstance(port, dict)
        )
        selector = _labels(_mapping(spec, "workloadSelector")) or None
        for name in _list(spec, "hosts"):
            host = entry_host(name, document.namespace, self.domain)
            older = self.services.get(host)
            if older is not None:
                if host not in self.entry_hosts or older.namespace != document.namespace:
                    continue
                numbers = {port.number for port in older.ports}
                added = tuple(port for port in ports if port.number not in numbers)
                self.services[host] = replace(older, ports=older.ports + added)
                listed = self.entry_endpoints(document, spec, added, host if resolution.startswith("DNS") else "")
                self.endpoints.setdefault(host, []).extend(listed)
                continue
            self.entry_hosts.add(host)
            self.services[host] = Service(
                host=host,
                namespace=document.namespace,
                name=document.name,
                ports=ports,
                addresses=tuple(str(a) for a in _list(spec, "addresses")),
                selector=selector,
                labels=_labels(metadata),
                annotations=_labels(metadata, "annotations"),
                external=str(spec.get("location") or "MESH_EXTERNAL") == "MESH_EXTERNAL",
                resolution=resolution,
                subject_alt_names=tuple(str(one) for one in _list(spec, "subjectAltNames")),
                export_to=tuple(str(e) for e in _list(spec, "exportTo")),
                created=created(metadata),
                source=self.source,
            )
            listed = self.entry_endpoints(document, spec, ports, host if resolution.startswith("DNS") else "")
            if listed:
                self.endpoints.setdefault(host, []).extend(listed)

    def entry_endpoints(
        self, document: Document, spec: dict[str, Any], ports: tuple[ServicePort, ...], own_name: str
    ) -> list[Endpoint]:
        """A ServiceEntry's endpoints for each port; with DNS resolution and none listed: the host itself."""
        entries = [entry for entry in _list(spec, "endpoints") if isinstance(entry, dict)]
        if not entries and own_name and "*" not in own_name and not _mapping(spec, "workloadSelector"):
            entries = [{"address": own_name}]
        found = []
        for entry in entries:
            own_ports = _mapping(entry, "ports")
            for port in ports:
                default = port.target if isinstance(port.target, int) and port.target else port.number
                found.append(
                    Endpoint(
                        address=str(entry.get("address") or ""),
                        port=0
                        if str(entry.get("address")).startswith("unix:")
                        else number(own_ports.get(port.name), default),
                        port_name=port.name,
                        weight=number(entry.get("weight"), 1) or 1,
                        labels=_labels(entry),
                        locality=str(entry.get("locality") or ""),
                        namespace=document.namespace,
                        service_account=str(entry.get("serviceAccount") or ""),
                        source=self.source,
                    )
                )
        return found


def entry_protocol(text: str) -> str:
    """A ServiceEntry port's protocol in our words."""
    lower = text.lower()
    return lower if lower in PROTOCOLS else ""


def locality(labels: Mapping[str, str]) -> str:
    """region/zone/subzone by the well-known labels."""
    parts = [
        labels.get("topology.kubernetes.io/region", ""),
        labels.get("topology.kubernetes.io/zone", ""),
        labels.get("topology.istio.io/subzone", ""),
    ]
    return "/".join(parts).rstrip("/")


def pod_readiness(status: Mapping[str, Any]) -> tuple[bool, str]:
    """Ready, and why not. A declared pod without status is ready."""
    phase = status.get("phase")
    if phase in ("Succeeded", "Failed"):
        return False, f"the pod has {str(phase).lower()}"
    for condition in _list(status, "conditions"):
        if isinstance(condition, dict) and condition.get("type") == "Ready":
            if condition.get("status") == "True":
                return True, ""
            return False, str(condition.get("message") or condition.get("reason") or "its Ready condition is not True")
    return (False, "the pod is pending") if phase == "Pending" else (True, "")
