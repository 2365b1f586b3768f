"""What must hold of kinds that state services, workloads and gateways, beyond their schema.

Sources: Istio's webhook for ServiceEntry, WorkloadEntry and Gateway; the Kubernetes API server for the others.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..registry.checks import CheckError, container_checks, probe
from ..registry.kinds import ENTRY_PROTOCOLS
from ..registry.schema import Findings
from .validate_destination_rule import check_locality
from .validate_names import port_name_faults
from .validate_values import (
    check_export_to,
    check_host,
    check_labels,
    check_port,
    check_workload_selector,
    cidr_fault,
    forbidden,
    host_fault,
    invalid,
    is_dns_label,
    is_ip,
    listed,
    mapping,
    not_supported,
    required,
    warn,
)

Object = Mapping[str, Any]
GATEWAY_PROTOCOLS = ENTRY_PROTOCOLS
HTTP_OR_TLS = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTPS", "TLS")
DYNAMIC = ("HTTP", "HTTP2", "GRPC", "TLS")
PLAIN = ("HTTP", "HTTP2", "GRPC", "GRPC-WEB")
MESH_PORT = "fairlead.dev/mesh-port"
ADDRESSES = "fairlead.dev/addresses"
"""Annotation of a WorkloadGroup: networks in which its members' addresses are taken at their word."""


# --- Istio ----------------------------------------------------------------------------------------------------------


def check_service_entry(found: Findings, spec: Object, namespace: str) -> None:
    hosts, resolution = listed(spec, "hosts"), spec.get("resolution", "NONE")
    for index, host in enumerate(hosts):
        path = f"spec.hosts[{index}]"
        if host == "*":
            invalid(found, path, host, "a host may not be '*'")
        elif check_host(found, path, host, ip=False) and host.startswith("*") and not host.startswith("*."):
            warn(found, path, "a partial wildcard: write *.SUFFIX")
    for index, address in enumerate(listed(spec, "addresses")):
        if fault := cidr_fault(address):
            invalid(found, f"spec.addresses[{index}]", address, fault)
        elif "/" in address and resolution.startswith("DNS"):
            invalid(found, f"spec.addresses[{index}]", address, "an address block may not be given with DNS resolution")
    ports = _check_entry_ports(found, listed(spec, "ports"))
    if len(hosts) > 1 and resolution != "NONE":
        for index, port in enumerate(listed(spec, "ports")):
            protocol = str(port.get("protocol") or "TCP").upper()
            if protocol not in HTTP_OR_TLS:
                invalid(
                    found, f"spec.ports[{index}].protocol", protocol, "with several hosts ports must be HTTP or TLS"
                )
    selector = spec.get("workloadSelector")
    if selector is not None:
        check_workload_selector(found, "spec.workloadSelector.labels", mapping(selector, "labels"))
        if listed(spec, "endpoints"):
            forbidden(found, "spec.endpoints", "may not stand next to workloadSelector")
        if resolution == "NONE":
            warn(found, "spec.workloadSelector", "with resolution NONE endpoints are not used; write STATIC")
    _check_resolution(found, spec, resolution)
    for index, endpoint in enumerate(listed(spec, "endpoints")):
        _check_endpoint(found, f"spec.endpoints[{index}]", endpoint, ports, resolution)
    check_export_to(found, "spec.exportTo", listed(spec, "exportTo"), namespace, nobody=True)


def _check_entry_ports(found: Findings, ports: list[Any]) -> set[str]:
    names: set[str] = set()
    numbers: set[int] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name, number, protocol = port.get("name", ""), port.get("number", 0), port.get("protocol", "")
        if name in names:
            found.errors.append((f"{path}.name", f'Duplicate value: "{name}"'))
        if number in numbers:
            found.errors.append((f"{path}.number", f"Duplicate value: {number}"))
        names.add(name)
        numbers.add(number)
        if not is_dns_label(name):
            invalid(found, f"{path}.name", name, "must be a label of lower-case letters, digits and '-'")
        if protocol and protocol.upper() not in ENTRY_PROTOCOLS:
            not_supported(found, f"{path}.protocol", protocol, ENTRY_PROTOCOLS)
    return names


def _check_resolution(found: Findings, spec: Object, resolution: str) -> None:
    hosts, endpoints = listed(spec, "hosts"), listed(spec, "endpoints")
    wild = [host for host in hosts if host.startswith("*")]
    if resolution == "NONE" and endpoints:
        invalid(found, "spec.endpoints", len(endpoints), "may not be given with resolution NONE; write STATIC or DNS")
    if resolution in ("DNS", "DNS_ROUND_ROBIN") and not endpoints and wild and spec.get("workloadSelector") is None:
        invalid(found, "spec.hosts", wild[0], "a wildcard cannot be resolved: give endpoints")
    if resolution == "DNS_ROUND_ROBIN" and len(endpoints) > 1:
        invalid(found, "spec.endpoints", len(endpoints), "DNS_ROUND_ROBIN takes one endpoint at most")
    if resolution == "DYNAMIC_DNS":
        if len(wild) != len(hosts):
            invalid(found, "spec.hosts", ", ".join(hosts), "DYNAMIC_DNS is for wildcard hosts only")
        for key in ("addresses", "endpoints"):
            if listed(spec, key):
                forbidden(found, f"spec.{key}", "may not be given with DYNAMIC_DNS")
        for index, port in enumerate(listed(spec, "ports")):
            protocol = str(port.get("protocol") or "TCP").upper()
            if protocol not in DYNAMIC:
                not_supported(found, f"spec.ports[{index}].protocol", protocol, DYNAMIC)
        warn(
            found,
            "spec.resolution",
            "requests go to the name in their Host header, TLS to the address that was dialled",
        )


def _check_endpoint(found: Findings, path: str, endpoint: Object, ports: set[str], resolution: str) -> None:
    check_workload(found, path, endpoint)
    address = endpoint.get("address", "")
    for name in mapping(endpoint, "ports"):
        if name not in ports:
            invalid(found, f"{path}.ports[{name}]", name, "is not the name of a port of this ServiceEntry")
    if address.startswith("unix://"):
        if resolution != "STATIC":
            invalid(found, f"{path}.address", address, "a UNIX socket is for resolution STATIC")
        if len(ports) > 1:
            invalid(found, f"{path}.address", address, "a UNIX socket is for a service with one port")
        return
    if resolution == "STATIC" and address and not is_ip(address):
        invalid(found, f"{path}.address", address, "must be an IP address with resolution STATIC; for names write DNS")


def check_workload(found: Findings, path: str, spec: Object) -> None:
    """The fields of a WorkloadEntry, alone or as a ServiceEntry's endpoint."""
    address = spec.get("address", "")
    if not address:
        if spec.get("network"):
            warn(found, f"{path}.address", "without an address nobody reaches it: there are no network gateways here")
        else:
            required(found, f"{path}.address")
    elif address.startswith("unix://"):
        socket = address.removeprefix("unix://")
        if not socket.startswith("/") or socket.endswith("/"):
            invalid(found, f"{path}.address", address, "must be unix:///PATH of a socket, whole and no folder")
        if mapping(spec, "ports"):
            forbidden(found, f"{path}.ports", "a UNIX socket has none")
    elif not is_ip(address) and (fault := host_fault(address, wildcard=False)):
        invalid(found, f"{path}.address", address, fault)
    check_labels(found, f"{path}.labels", mapping(spec, "labels"))
    for name in mapping(spec, "ports"):
        if not is_dns_label(name):
            invalid(found, f"{path}.ports[{name}]", name, "must be a label of lower-case letters, digits and '-'")


def check_workload_group(found: Findings, body: Object) -> None:
    spec = mapping(body, "spec")
    check_labels(found, "spec.metadata.labels", mapping(mapping(spec, "metadata"), "labels"))
    template = mapping(spec, "template")
    check_labels(found, "spec.template.labels", mapping(template, "labels"))
    for name in mapping(template, "ports"):
        if not is_dns_label(name):
            invalid(
                found, f"spec.template.ports[{name}]", name, "must be a label of lower-case letters, digits and '-'"
            )
    if spec.get("probe") is not None:
        try:
            probe("readiness", spec["probe"], mapping(template, "ports"))
        except CheckError as error:
            invalid(found, "spec.probe", "", str(error))
    for text in mapping(mapping(body, "metadata"), "annotations").get(ADDRESSES, "").replace(",", " ").split():
        if fault := cidr_fault(text):
            invalid(found, f"metadata.annotations[{ADDRESSES}]", text, fault)


def check_gateway(found: Findings, spec: Object, name: str) -> None:
    if name and not is_dns_label(name):
        invalid(found, "metadata.name", name, "the name of a Gateway is one label of lower-case letters, digits, '-'")
    if not spec.get("selector"):
        warn(found, "spec.selector", "is empty: the gateway is for every gateway workload")
    check_workload_selector(found, "spec.selector", mapping(spec, "selector"))
    names: set[str] = set()
    for index, server in enumerate(listed(spec, "servers")):
        path = f"spec.servers[{index}]"
        port = mapping(server, "port")
        _check_server_port(found, path, server, port)
        if port.get("name") in names:
            found.errors.append((f"{path}.port.name", f'Duplicate value: "{port.get("name")}"'))
        names.add(str(port.get("name")))
        for number, host in enumerate(listed(server, "hosts")):
            _check_server_host(found, f"{path}.hosts[{number}]", host)
        _check_server_tls(found, f"{path}.tls", server.get("tls"), str(port.get("protocol") or "").upper())


def _check_server_port(found: Findings, path: str, server: Object, port: Object) -> None:
    bind = server.get("bind") or ""
    if bind.startswith("unix://"):
        if port.get("number"):
            invalid(found, f"{path}.port.number", port["number"], "must be 0 where bind is a UNIX socket")
    else:
        if bind and not is_ip(bind):
            invalid(found, f"{path}.bind", bind, "must be an IP address or unix://PATH")
        check_port(found, f"{path}.port.number", port.get("number", 0))
    if str(port.get("protocol") or "").upper() not in GATEWAY_PROTOCOLS:
        not_supported(found, f"{path}.port.protocol", str(port.get("protocol") or ""), GATEWAY_PROTOCOLS)
    if port.get("targetPort"):
        forbidden(found, f"{path}.port.targetPort", "may not be set on a Gateway")


def _check_server_host(found: Findings, path: str, text: str) -> None:
    namespace, slash, host = text.rpartition("/")
    if slash and namespace not in (".", "*") and not is_dns_label(namespace):
        invalid(found, path, text, "the part before '/' must be a namespace, '.' or '*'")
    if not check_host(found, path, host, partial=False):
        return
    if host != "*" and "." not in host and not is_ip(host):
        invalid(found, path, text, "short names are not taken here: write the full name")


def _check_server_tls(found: Findings, path: str, tls: Any, protocol: str) -> None:
    if protocol in ("HTTPS", "TLS") and tls is None:
        required(found, path, f"a server of protocol {protocol} needs tls")
    if tls is None:
        return
    mode = tls.get("mode", "PASSTHROUGH")
    if protocol in PLAIN and tls.get("mode") not in (None, "PASSTHROUGH"):
        invalid(found, f"{path}.mode", mode, f"a server of protocol {protocol} has no TLS; write HTTPS")
    if protocol in ("TCP", "MONGO", "REDIS", "MYSQL"):
        forbidden(found, path, f"a server of protocol {protocol} may not have tls; write TLS")
    if tls.get("httpsRedirect") and protocol not in PLAIN:
        warn(found, f"{path}.httpsRedirect", "has no effect on a server that is not of protocol HTTP")
    files = [key for key in ("serverCertificate", "privateKey") if tls.get(key)]
    sources = [bool(files), bool(tls.get("credentialName")), bool(tls.get("credentialNames")),
               bool(tls.get("tlsCertificates"))]  # fmt: skip
    if sum(sources) > 1:
        forbidden(found, path, "only one of files, credentialName, credentialNames and tlsCertificates may be given")
    elif mode in ("SIMPLE", "MUTUAL", "OPTIONAL_MUTUAL") and protocol in ("HTTPS", "TLS") and not any(sources):
        required(found, path, "serverCertificate and privateKey, or credentialName")
    if mode in ("MUTUAL", "OPTIONAL_MUTUAL") and files and not tls.get("caCertificates"):
        required(found, f"{path}.caCertificates", f"mode {mode} checks the certificates of clients")
    if tls.get("caCrl"):
        if mode not in ("MUTUAL", "OPTIONAL_MUTUAL"):
            forbidden(found, f"{path}.caCrl", f"mode {mode} asks clients for no certificate; write MUTUAL")
        elif not files and not tls.get("tlsCertificates"):
            forbidden(found, f"{path}.caCrl", "put the lists into the Secret, as ca.crl")
    if tls.get("caCertificates") and (tls.get("credentialName") or tls.get("credentialNames")):
        warn(found, f"{path}.caCertificates", "has no effect: authorities come from the Secret's ca.crt")
    if tls.get("minProtocolVersion") in ("TLSV1_0", "TLSV1_1"):
        warn(found, f"{path}.minProtocolVersion", "TLS below 1.2 is not spoken (RFC 8996)")
    if tls.get("maxProtocolVersion") in ("TLSV1_0", "TLSV1_1"):
        invalid(
            found, f"{path}.maxProtocolVersion", tls["maxProtocolVersion"], "TLS below 1.2 is not spoken (RFC 8996)"
        )
    if mode == "ISTIO_MUTUAL" and any(sources):
        forbidden(found, path, "mode ISTIO_MUTUAL uses the mesh's own certificates")


# --- Kubernetes -----------------------------------------------------------------------------------------------------


def check_service(found: Findings, spec: Object) -> None:
    kind, ports = spec.get("type", "ClusterIP"), listed(spec, "ports")
    cluster_ip = spec.get("clusterIP", "")
    if kind == "ExternalName":
        name = spec.get("externalName", "")
        if not name:
            required(found, "spec.externalName")
        elif fault := host_fault(name, wildcard=False):
            invalid(found, "spec.externalName", name, fault)
        if cluster_ip == "None":
            forbidden(found, "spec.clusterIP", "may not be set to 'None' when `type` is 'ExternalName'")
    elif not ports and cluster_ip != "None":
        required(found, "spec.ports")
    if cluster_ip not in ("", "None") and not is_ip(cluster_ip):
        invalid(found, "spec.clusterIP", cluster_ip, "must be a valid IP address, 'None' or empty")
    check_labels(found, "spec.selector", mapping(spec, "selector"))
    if spec.get("sessionAffinityConfig") and spec.get("sessionAffinity") != "ClientIP":
        forbidden(found, "spec.sessionAffinityConfig", "must not be set when session affinity is None")
    _check_service_ports(found, ports)


def _check_service_ports(found: Findings, ports: list[Any]) -> None:
    names: set[str] = set()
    numbers: set[tuple[Any, str]] = set()
    for index, port in enumerate(ports):
        path = f"spec.ports[{index}]"
        name, key = port.get("name", ""), (port.get("port"), port.get("protocol", "TCP"))
        if not name and len(ports) > 1:
            required(found, f"{path}.name")
        elif name and not is_dns_label(name):
            invalid(found, f"{path}.name", name, "must be a label of lower-case letters, digits and '-'")
        if name and name in names:
            found.errors.append((f"{path}.name", f'Duplicate value: "{name}"'))
        if key in numbers:
            found.errors.append((path, f"Duplicate value: port {key[0]} of {key[1]}"))
        names.add(name)
        numbers.add(key)
        target = port.get("targetPort")
        if isinstance(target, int) and target != 0:
            check_port(found, f"{path}.targetPort", target)
        elif isinstance(target, str) and target:
            for fault in port_name_faults(target):
                invalid(found, f"{path}.targetPort", target, fault)


def check_endpoint_slice(found: Findings, body: Object) -> None:
    family = body.get("addressType", "")
    if family == "FQDN":
        warn(found, "addressType", "endpoints given by name are not resolved; use a ServiceEntry with resolution DNS")
    for index, endpoint in enumerate(listed(body, "endpoints")):
        for number, address in enumerate(listed(endpoint, "addresses")):
            path = f"endpoints[{index}].addresses[{number}]"
            if family in ("IPv4", "IPv6") and (not is_ip(address) or (":" in address) is (family == "IPv4")):
                invalid(found, path, address, f"must be a valid {family} address")
            elif family == "FQDN" and (fault := host_fault(address, wildcard=False)):
                invalid(found, path, address, fault)
    if not mapping(mapping(body, "metadata"), "labels").get("kubernetes.io/service-name"):
        warn(
            found, "metadata.labels", "without the label kubernetes.io/service-name the endpoints belong to no service"
        )
    names = [port.get("name", "") for port in listed(body, "ports")]
    for name in sorted({name for name in names if names.count(name) > 1}):
        found.errors.append(("ports", f'Duplicate value: "{name}"'))


def check_pod(found: Findings, body: Object) -> None:
    metadata = mapping(body, "metadata")
    annotations = mapping(metadata, "annotations")
    status = mapping(body, "status")
    mesh_port = annotations.get(MESH_PORT)
    if mesh_port is not None and not (str(mesh_port).isdigit() and 0 < int(str(mesh_port)[:6]) <= 65535):
        invalid(found, f"metadata.annotations[{MESH_PORT}]", str(mesh_port), "must be a port, in quotes")
    addresses = [("metadata.annotations[fairlead.dev/address]", annotations.get("fairlead.dev/address"))]
    addresses += [("status.podIP", status.get("podIP"))]
    addresses += [(f"status.podIPs[{i}].ip", one.get("ip")) for i, one in enumerate(listed(status, "podIPs"))]
    for path, address in addresses:
        if address and not is_ip(str(address)):
            invalid(found, path, str(address), "must be an IP address")
    if not any(address for _, address in addresses):
        warn(
            found,
            "status.podIP",
            "the workload has no address: give status.podIP or the annotation fairlead.dev/address, or let its "
            "sidecar tell control",
        )
    for index, container in enumerate(listed(mapping(body, "spec"), "containers")):
        for field, fault in container_checks(container)[1]:
            found.errors.append((f"spec.containers[{index}].{field}", fault))
        for number, port in enumerate(listed(container, "ports")):
            for fault in port_name_faults(port["name"]) if port.get("name") else ():
                invalid(found, f"spec.containers[{index}].ports[{number}].name", port["name"], fault)


def check_mesh_config(found: Findings, spec: Object) -> None:
    for key in ("trustDomain", "clusterDomain"):
        if spec.get(key) and (fault := host_fault(spec[key], wildcard=False, ip=False)):
            invalid(found, f"spec.{key}", spec[key], fault)
    if spec.get("rootNamespace") and not is_dns_label(spec["rootNamespace"]):
        invalid(found, "spec.rootNamespace", spec["rootNamespace"], "must be the name of a namespace")
    if spec.get("localityLbSetting") is not None:
        check_locality(found, "spec.localityLbSetting", spec["localityLbSetting"], {})
    for index, network in enumerate(spec.get("jwksBlockedNetworks") or ()):
        if fault := cidr_fault(network):
            invalid(found, f"spec.jwksBlockedNetworks[{index}]", network, fault)
