"""Services, workloads, gateways: what Istio and Kubernetes refuse is refused with its field."""

from __future__ import annotations

import pytest

from tests.policy.judging import document, errors, warnings

HTTP = "ports: [{number: 80, name: http, protocol: HTTP}]"


@pytest.mark.parametrize(
    ("spec", "path", "says"),
    [
        (HTTP, "spec.hosts", "Required"),
        ("hosts: []\n" + HTTP, "spec.hosts", "at least one"),
        ("hosts: ['*']\n" + HTTP, "spec.hosts[0]", "may not be '*'"),
        ("hosts: [a b]\n" + HTTP, "spec.hosts[0]", "the label"),
        ("hosts: [a.b]\naddresses: [10.0.0.0/33]\n" + HTTP, "spec.addresses[0]", "CIDR"),
        ("hosts: [a.b]\nresolution: DNS\naddresses: [10.0.0.0/8]\n" + HTTP, "spec.addresses[0]", "DNS"),
        ("hosts: [a.b]\nports: [{number: 0, name: http}]", "spec.ports[0].number", "between 1"),
        ("hosts: [a.b]\nports: [{number: 1}]", "spec.ports[0].name", "Required"),
        ("hosts: [a.b]\nports: [{number: 1, name: a}, {number: 1, name: b}]", "spec.ports[1].number", "Duplicate"),
        ("hosts: [a.b]\nports: [{number: 1, name: a}, {number: 2, name: a}]", "spec.ports[1].name", "Duplicate"),
        ("hosts: [a.b]\nports: [{number: 1, name: a, protocol: FTP}]", "spec.ports[0].protocol", "HTTP"),
        ("hosts: [a.b]\nlocation: HERE\n" + HTTP, "spec.location", "MESH_EXTERNAL"),
        ("hosts: [a.b]\nendpoints: [{address: 10.0.0.1}]\n" + HTTP, "spec.endpoints", "STATIC or DNS"),
        ("hosts: [a.b]\nresolution: STATIC\nendpoints: [{address: c.d}]\n" + HTTP, "spec.endpoints[0].address",
         "must be an IP address"),
        ("hosts: [a.b]\nresolution: STATIC\nendpoints: [{address: 10.0.0.1, ports: {x: 1}}]\n" + HTTP,
         "spec.endpoints[0].ports[x]", "not the name of a port"),
        ("hosts: [a.b]\nresolution: STATIC\nendpoints: [{labels: {a: b}}]\n" + HTTP, "spec.endpoints[0].address",
         "Required"),
        ("hosts: ['*.b']\nresolution: DNS\n" + HTTP, "spec.hosts", "give endpoints"),
        ("hosts: [a.b]\nresolution: DNS_ROUND_ROBIN\nendpoints: [{address: c}, {address: d}]\n" + HTTP,
         "spec.endpoints", "one endpoint"),
        ("hosts: [a.b]\nresolution: DYNAMIC_DNS\n" + HTTP, "spec.hosts", "wildcard hosts only"),
        ("hosts: [a.b]\nresolution: STATIC\nworkloadSelector: {labels: {a: b}}\nendpoints: [{address: 10.0.0.1}]\n"
         + HTTP, "spec.endpoints", "workloadSelector"),
        ("hosts: [a.b, c.d]\nresolution: DNS\nports: [{number: 1, name: a, protocol: TCP}]", "spec.ports[0].protocol",
         "several hosts"),
        ("hosts: [a.b]\nexportTo: ['~', .]\n" + HTTP, "spec.exportTo[0]", "alone"),
        ("hosts: [a.b]\nresolution: DNS\nendpoints: [{address: 'unix:///a'}]\n" + HTTP, "spec.endpoints[0].address",
         "resolution STATIC"),
        ("hosts: [a.b]\nresolution: STATIC\nendpoints: [{address: 'unix://a'}]\n" + HTTP, "spec.endpoints[0].address",
         "unix:///PATH"),
        ("hosts: [a.b]\nresolution: STATIC\nendpoints: [{address: 'unix:///a/'}]\n" + HTTP, "spec.endpoints[0].address",
         "no folder"),
        ("hosts: [a.b]\nresolution: STATIC\nendpoints: [{address: 'unix:///a', ports: {http: 1}}]\n" + HTTP,
         "spec.endpoints[0].ports", "has none"),
        ("hosts: [a.b]\nresolution: STATIC\nendpoints: [{address: 'unix:///a'}]\nports: [{number: 1, name: a}, "
         "{number: 2, name: b}]", "spec.endpoints[0].address", "one port"),
    ],
)  # fmt: skip
def test_service_entries_that_istio_refuses(spec: str, path: str, says: str) -> None:
    found = errors(document("ServiceEntry", spec))
    assert path in found, found
    assert says in found[path]


@pytest.mark.parametrize(
    "spec",
    [
        "hosts: [api.dropboxapi.com, www.googleapis.com]\nlocation: MESH_EXTERNAL\nresolution: DNS\n"
        "ports: [{number: 443, name: https, protocol: TLS}]",
        "hosts: [mymongodb.somedomain]\naddresses: [192.192.192.192/24]\nresolution: STATIC\n"
        "location: MESH_INTERNAL\nports: [{number: 27018, name: mongodb, protocol: MONGO}]\n"
        "endpoints: [{address: 2.2.2.2}, {address: 3.3.3.3, locality: us/west, weight: 5}]",
        "hosts: ['*.example.com']\nresolution: NONE\n" + HTTP,
        "hosts: [short]\nexportTo: ['~']\n" + HTTP,
    ],
)
def test_service_entries_that_istio_takes(spec: str) -> None:
    assert errors(document("ServiceEntry", spec)) == {}


def test_workload_entries() -> None:
    assert errors(document("WorkloadEntry", "address: 2.2.2.2\nlabels: {app: a}\nserviceAccount: a")) == {}
    assert "spec.address" in errors(document("WorkloadEntry", "labels: {a: b}"))
    assert "spec.address" in errors(document("WorkloadEntry", "address: a b"))
    assert "spec.address" in warnings(document("WorkloadEntry", "network: n1"))
    assert "spec.ports[http]" in errors(document("WorkloadEntry", "address: 2.2.2.2\nports: {http: 0}"))
    assert "spec.weight" in errors(document("WorkloadEntry", "address: 2.2.2.2\nweight: -1"))


def server(text: str) -> str:
    return document("Gateway", f"selector: {{istio: ingress}}\nservers: [{text}]")


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("{hosts: [a.b]}", "port", "Required"),
        ("{port: {number: 0, name: a, protocol: HTTP}, hosts: [a.b]}", "port.number", "between 1"),
        ("{port: {number: 80, name: a, protocol: FTP}, hosts: [a.b]}", "port.protocol", "HTTP"),
        ("{port: {number: 80, name: a, protocol: HTTP, targetPort: 1}, hosts: [a.b]}", "port.targetPort", "Forbidden"),
        ("{port: {number: 80, name: a, protocol: HTTP}, hosts: []}", "hosts", "at least one"),
        ("{port: {number: 80, name: a, protocol: HTTP}, hosts: [web]}", "hosts[0]", "short names"),
        ("{port: {number: 80, name: a, protocol: HTTP}, hosts: ['*-x.a.b']}", "hosts[0]", "whole label"),
        ("{port: {number: 80, name: a, protocol: HTTP}, hosts: ['~/a.b']}", "hosts[0]", "before '/'"),
        ("{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.b]}", "tls", "needs tls"),
        ("{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.b], tls: {mode: SIMPLE}}", "tls", "credentialName"),
        ("{port: {number: 80, name: a, protocol: HTTP}, hosts: [a.b], tls: {mode: SIMPLE}}", "tls.mode", "HTTPS"),
        ("{port: {number: 80, name: a, protocol: TCP}, hosts: [a.b], tls: {}}", "tls", "Forbidden"),
        ("{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.b], tls: {mode: SIMPLE, credentialName: a, "
         "serverCertificate: /a, privateKey: /b}}", "tls", "only one of"),
        ("{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.b], tls: {mode: MUTUAL, serverCertificate: /a, "
         "privateKey: /b}}", "tls.caCertificates", "certificates of clients"),
        ("{port: {number: 80, name: a, protocol: HTTP}, hosts: [a.b], bind: x}", "bind", "IP address"),
        ("{port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.b], tls: {mode: SIMPLE, credentialName: a, "
         "maxProtocolVersion: TLSV1_1}}", "tls.maxProtocolVersion", "RFC 8996"),
    ],
)  # fmt: skip
def test_gateways_that_istio_refuses(text: str, path: str, says: str) -> None:
    found = errors(server(text))
    place = f"spec.servers[0].{path}"
    assert place in found, found
    assert says in found[place]


def test_a_gateway_is_taken_as_it_is() -> None:
    text = server("{port: {number: 443, name: h, protocol: HTTPS}, hosts: ['*', ns/a.b, './*.c'], tls: {mode: SIMPLE, "
                  "credentialName: c}}, {port: {number: 80, name: p, protocol: http}, hosts: ['*'], "
                  "tls: {httpsRedirect: true}}")  # fmt: skip
    assert errors(text) == {}


def service(spec: str) -> str:
    return document("Service", spec, "v1")


@pytest.mark.parametrize(
    ("spec", "path", "says"),
    [
        ("selector: {a: b}", "spec.ports", "Required"),
        ("ports: [{name: a, port: 1}, {port: 2}]", "spec.ports[1].name", "Required"),
        ("ports: [{name: a, port: 1}, {name: a, port: 2}]", "spec.ports[1].name", "Duplicate"),
        ("ports: [{name: a, port: 1}, {name: b, port: 1}]", "spec.ports[1]", "Duplicate"),
        ("ports: [{port: 0}]", "spec.ports[0].port", "between 1"),
        ("ports: [{port: 1, targetPort: 70000}]", "spec.ports[0].targetPort", "between 1"),
        ("ports: [{port: 1, targetPort: a_b}]", "spec.ports[0].targetPort", "alpha-numeric"),
        ("ports: [{port: 1, protocol: tcp}]", "spec.ports[0].protocol", "TCP"),
        ("ports: [{port: 1}]\nclusterIP: x", "spec.clusterIP", "IP address"),
        ("type: ExternalName", "spec.externalName", "Required"),
        ("type: ExternalName\nexternalName: a b", "spec.externalName", "label"),
        ("type: External\nports: [{port: 1}]", "spec.type", "ExternalName"),
    ],
)
def test_services_that_kubernetes_refuses(spec: str, path: str, says: str) -> None:
    found = errors(service(spec))
    assert path in found, found
    assert says in found[path]


def test_services_that_kubernetes_takes() -> None:
    for spec in (
        "clusterIP: None\nselector: {a: b}",
        "type: ExternalName\nexternalName: a.example.",
        "ports: [{name: a, port: 53}, {name: b, port: 53, protocol: UDP}]",
    ):
        assert errors(service(spec)) == {}


def test_endpoint_slices_and_pods() -> None:
    head = "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: a}\naddressType: IPv4\n"
    assert "endpoints[0].addresses[0]" in errors(head + "endpoints: [{addresses: ['fd00::1']}]")
    assert "metadata.labels" in warnings(head + "endpoints: []")
    pod = "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {fairlead.dev/%s}}\nspec: {containers: []}\n"
    assert "metadata.annotations[fairlead.dev/address]" in errors(pod % "address: x")
    assert "metadata.annotations[fairlead.dev/mesh-port]" in errors(pod % "mesh-port: '0'")
    assert "metadata.annotations[fairlead.dev/mesh-port]" in errors(pod % "mesh-port: 15006"), "numbers need quotes"
    assert "status.podIP" in warnings(pod % "x: y")
    assert errors(pod % "address: 10.0.0.1") == {}


def test_mesh_config() -> None:
    good = "trustDomain: a.b\nconnectTimeout: 1s\naccessLogFile: ''\npathNormalization: {normalization: MERGE_SLASHES}"
    assert errors(document("MeshConfig", good, "fairlead.dev/v1")) == {}
    bad = errors(document("MeshConfig", "trustDomain: a b\nconnectTimeout: 0s", "fairlead.dev/v1"))
    assert "spec.connectTimeout" in bad
    assert "spec.trustDomain" in errors(document("MeshConfig", "trustDomain: a b", "fairlead.dev/v1"))
    networks = "jwksBlockedNetworks: [127.0.0.0/8, 'fd00::/8', localhost]"
    assert list(errors(document("MeshConfig", networks, "fairlead.dev/v1"))) == ["spec.jwksBlockedNetworks[2]"]


def test_probes_that_kubernetes_refuses_and_ports_that_the_container_has_not() -> None:
    pod = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: a, annotations: {fairlead.dev/address: 10.0.0.1}}\n"
        "spec: {containers: [{name: a, ports: [{name: web, containerPort: 80}], %s}]}\n"
    )
    for field, says in (
        ("livenessProbe: {tcpSocket: {port: 1}, successThreshold: 2}", "must be 1"),
        ("readinessProbe: {httpGet: {port: wbe}}", "no port named 'wbe' (web)"),
        ("startupProbe: {periodSeconds: 1}", "one of httpGet"),
    ):
        found = errors(pod % field)
        assert says in found[f"spec.containers[0].{field.partition(':')[0]}"]
    assert errors(pod % "readinessProbe: {httpGet: {port: web}, periodSeconds: 1}") == {}
