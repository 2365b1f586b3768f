"""Objects to facts, kind by kind."""
# ruff: noqa: E501  (objects in flow style)

from __future__ import annotations

from fairlead.registry.checks import Check
from fairlead.registry.documents import load
from fairlead.registry.facts import facts_of
from fairlead.registry.merge import merge
from fairlead.registry.model import Endpoint, Facts, Service, ServicePort, Workload, WorkloadPort
from fairlead.registry.snapshot import Snapshot


def facts(text: str, domain: str = "cluster.local") -> Facts:
    documents, problems = load(text, "f.yaml")
    assert problems == []
    return facts_of(documents, "test", domain)


def only_service(text: str) -> Service:
    return next(iter(facts(text).services.values()))


def only_workload(text: str) -> Workload:
    return next(iter(facts(text).workloads.values()))


def test_a_namespace_always_carries_its_name() -> None:
    made = facts("{apiVersion: v1, kind: Namespace, metadata: {name: shop, labels: {team: a, "
                 "kubernetes.io/metadata.name: other}}}")  # fmt: skip
    assert made.namespaces == {"shop": {"team": "a", "kubernetes.io/metadata.name": "shop"}}


def test_a_service_with_selector_addresses_and_age() -> None:
    made = only_service("""
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {a: b}, creationTimestamp: "1970-01-01T00:00:10Z"}
spec:
  selector: {app: web}
  clusterIP: 10.0.0.1
  clusterIPs: [10.0.0.1, "fd00::1"]
  publishNotReadyAddresses: true
  ports:
    - {name: http-api, port: 80, targetPort: "8080"}
    - {name: grpc, port: 81, targetPort: main}
    - {name: dns, port: 53, protocol: UDP}
    - {name: odd, port: 82, appProtocol: https}
    - {name: h2, port: 83, appProtocol: kubernetes.io/h2c}
""")
    assert made == Service(
        host="web.shop.svc.cluster.local", namespace="shop", name="web", selector={"app": "web"}, labels={"a": "b"},
        addresses=("10.0.0.1", "fd00::1"), publish_not_ready=True, created=10.0, source="test",
        ports=(
            ServicePort(80, "http-api", "TCP", "http", 8080), ServicePort(81, "grpc", "TCP", "grpc", "main"),
            ServicePort(53, "dns", "UDP", "udp"), ServicePort(82, "odd", "TCP", "https"),
            ServicePort(83, "h2", "TCP", "http2"),
        ),
    )  # fmt: skip


def test_a_service_may_say_who_sees_it() -> None:
    made = only_service("{kind: Service, apiVersion: v1, metadata: {name: a, annotations: "
                        "{networking.istio.io/exportTo: '.,shop'}}, spec: {ports: [{port: 1}]}}")  # fmt: skip
    assert made.export_to == (".", "shop")


def test_headless_and_external_name_services() -> None:
    headless = only_service("{kind: Service, apiVersion: v1, metadata: {name: db}, spec: {clusterIP: None, selector: "
                            "{app: db}}}")  # fmt: skip
    assert headless.headless
    assert headless.addresses == ()
    alias = only_service("{kind: Service, apiVersion: v1, metadata: {name: old}, spec: {type: ExternalName, "
                         "externalName: new.example.}}")  # fmt: skip
    assert (alias.external_name, alias.selector, alias.headless) == ("new.example", None, False)


def test_unnamed_ports_whose_servers_speak_first_are_tcp() -> None:
    made = only_service(
        "{kind: Service, apiVersion: v1, metadata: {name: a}, spec: {ports: [{port: 3306}, {port: 80}]}}"
    )
    assert [port.app_protocol for port in made.ports] == ["tcp", ""]


def test_an_endpoint_slice_lists_every_address_on_every_port() -> None:
    made = facts("""
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: admin, port: 9090}]
endpoints:
  - addresses: [10.0.0.1]
    hostname: web-0
    zone: z1
    targetRef: {kind: Pod, name: web-0}
  - addresses: [10.0.0.2]
    conditions: {ready: false, serving: true, terminating: true}
""")
    found = made.endpoints["web.shop.svc.cluster.local"]
    assert [(e.address, e.port, e.port_name) for e in found] == [
        ("10.0.0.1", 8080, "http"), ("10.0.0.1", 9090, "admin"),
        ("10.0.0.2", 8080, "http"), ("10.0.0.2", 9090, "admin"),
    ]  # fmt: skip
    first, last = found[0], found[-1]
    assert (first.ready, first.hostname, first.locality, first.workload) == (True, "web-0", "/z1", "shop/web-0")
    assert (last.ready, last.serving, last.terminating) == (False, True, True)
    assert last.why


def test_ready_null_is_ready_and_a_slice_without_service_is_nobodys() -> None:
    text = ("{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a, labels: {%s: web}}, "
            "addressType: IPv4, ports: [{port: 1}], endpoints: [{addresses: [10.0.0.1], conditions: {ready: null}}]}")  # fmt: skip
    assert facts(text % "kubernetes.io/service-name").endpoints["web.default.svc.cluster.local"][0].ready
    assert facts(text % "other").endpoints == {}


def test_a_pod_is_a_workload() -> None:
    made = only_workload("""
apiVersion: v1
kind: Pod
metadata:
  name: web-0
  labels: {app: web, topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}
  annotations: {fairlead.dev/mesh-port: "15006", fairlead.dev/address: 10.9.9.9, fairlead.dev/weight: "3"}
spec:
  serviceAccountName: web
  hostname: web-0
  subdomain: db
  containers:
    - ports: [{name: http, containerPort: 8080}]
    - ports: [{name: dns, containerPort: 53, protocol: UDP}]
status: {podIP: 10.0.0.1, podIPs: [{ip: 10.0.0.1}, {ip: "fd00::1"}], phase: Running}
""")
    assert made == Workload(
        "default", "web-0", ("10.0.0.1", "fd00::1"), (WorkloadPort(8080, "http"), WorkloadPort(53, "dns", "UDP")),
        {"app": "web", "topology.kubernetes.io/region": "r", "topology.kubernetes.io/zone": "z"},
        {"fairlead.dev/mesh-port": "15006", "fairlead.dev/address": "10.9.9.9", "fairlead.dev/weight": "3"},
        "web", "r/z", 3, "web-0", "db", 15006, source="test",
    )  # fmt: skip


def test_a_declared_pod_takes_its_address_from_the_annotation_and_is_ready() -> None:
    made = only_workload("{apiVersion: v1, kind: Pod, metadata: {name: a, annotations: {fairlead.dev/address: 10.0.0.7}}, "
                         "spec: {containers: []}}")  # fmt: skip
    assert (made.addresses, made.ready, made.service_account, made.mesh_port) == (("10.0.0.7",), True, "default", 0)


def test_phases_and_conditions_make_a_pod_not_ready_with_a_reason() -> None:
    for status, why in (
        ("{phase: Pending}", "the pod is pending"),
        ("{phase: Failed}", "the pod has failed"),
        ("{phase: Succeeded}", "the pod has succeeded"),
        ("{conditions: [{type: Ready, status: 'False', reason: ContainersNotReady}]}", "ContainersNotReady"),
    ):
        made = only_workload(f"{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, spec: {{}}, status: {status}}}")
        assert (made.ready, made.why) == (False, why)
    ready = "{phase: Pending, conditions: [{type: Ready, status: 'True'}]}"
    assert only_workload(f"{{apiVersion: v1, kind: Pod, metadata: {{name: a}}, spec: {{}}, status: {ready}}}").ready


def test_a_workload_entry_is_a_workload() -> None:
    made = only_workload("""
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm1, namespace: shop, labels: {a: b}, annotations: {fairlead.dev/mesh-port: "15006"}}
spec: {address: 10.0.0.9, ports: {http: 8080}, labels: {app: vm}, serviceAccount: vm, locality: r/z, weight: 5}
""")
    assert made == Workload(
        "shop", "vm1", ("10.0.0.9",), (WorkloadPort(8080, "http"),), {"a": "b", "app": "vm"},
        {"fairlead.dev/mesh-port": "15006"}, "vm", "r/z", 5, mesh_port=15006, source="test",
        service_ports={"http": 8080},
    )  # fmt: skip


def test_a_service_entry_with_several_hosts_is_several_services() -> None:
    made = facts("""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: out, namespace: shop}
spec:
  hosts: [a.Example.com, "*.b.example"]
  ports: [{number: 443, name: https, protocol: TLS, targetPort: 8443}, {number: 80, name: http, protocol: HTTP}]
  resolution: STATIC
  location: MESH_INTERNAL
  exportTo: ["."]
  endpoints: [{address: 10.0.0.1, ports: {http: 8080}, labels: {v: "1"}, weight: 2, locality: r, serviceAccount: x}]
""")
    assert set(made.services) == {"a.example.com", "*.b.example"}
    service = made.services["a.example.com"]
    assert service.ports == (ServicePort(443, "https", "TCP", "tls", 8443), ServicePort(80, "http", "TCP", "http"))
    assert (service.external, service.resolution, service.export_to) == (False, "STATIC", (".",))
    assert made.endpoints["a.example.com"] == (
        Endpoint("10.0.0.1", 8443, "https", weight=2, labels={"v": "1"}, locality="r", namespace="shop",
                 service_account="x", source="test"),
        Endpoint("10.0.0.1", 8080, "http", weight=2, labels={"v": "1"}, locality="r", namespace="shop",
                 service_account="x", source="test"),
    )  # fmt: skip


def test_a_service_entry_resolved_by_dns_is_its_own_endpoint() -> None:
    text = ("{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: out}, spec: {hosts: [a.example], "
            "resolution: %s, ports: [{number: 80, name: http, protocol: HTTP}]}}")  # fmt: skip
    assert [e.address for e in facts(text % "DNS").endpoints["a.example"]] == ["a.example"]
    made = facts(text % "NONE")
    assert made.endpoints == {}
    assert made.services["a.example"].external


def test_entries_choose_workloads_of_their_namespace_by_label() -> None:
    made = facts("""
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: vms, namespace: shop}
spec:
  hosts: [vms.example]
  resolution: STATIC
  location: MESH_INTERNAL
  ports: [{number: 80, name: http, protocol: HTTP, targetPort: 8080}]
  workloadSelector: {labels: {app: vm}}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: vm1, namespace: shop}
spec: {address: 10.0.0.9, labels: {app: vm}, serviceAccount: vm}
---
apiVersion: networking.istio.io/v1beta1
kind: WorkloadEntry
metadata: {name: vm2, namespace: shop}
spec: {address: 10.0.0.10, labels: {app: vm}, ports: {http: 9999}}
""")
    snapshot = merge([("test", made)], {}, Snapshot())
    found = {e.address: (e.port, e.workload) for e in snapshot.endpoints["vms.example"]}
    assert found == {"10.0.0.9": (8080, "shop/vm1"), "10.0.0.10": (9999, "shop/vm2")}


def test_the_cluster_domain_is_the_mesh_s() -> None:
    made = facts("{apiVersion: v1, kind: Service, metadata: {name: a}, spec: {ports: [{port: 1}]}}", "mesh.example")
    assert set(made.services) == {"a.default.svc.mesh.example"}


def test_objects_with_fields_of_wrong_types_state_what_they_can() -> None:
    for kind in ("Service", "Pod", "Namespace"):
        facts(
            f"{{apiVersion: v1, kind: {kind}, metadata: {{name: a, labels: [1]}}, spec: {{ports: {{}}, containers: 3}}}}"
        )
    for spec in ("[]", "{hosts: x, ports: [1], endpoints: [2]}", "{hosts: [1], endpoints: [{ports: 1}], ports: [{}]}"):
        for kind in ("ServiceEntry", "WorkloadEntry"):
            facts(f"{{apiVersion: networking.istio.io/v1, kind: {kind}, metadata: {{name: a}}, spec: {spec}}}")
    facts("{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: a, labels: "
          "{kubernetes.io/service-name: a}}, endpoints: [1, {addresses: [1], conditions: 1}], ports: [{port: x}]}")  # fmt: skip


def test_of_several_definitions_of_a_host_the_service_counts_else_the_oldest_entry() -> None:
    entry = ("{apiVersion: networking.istio.io/v1, kind: ServiceEntry, metadata: {name: %s, namespace: %s, "
             "creationTimestamp: '%s-01-01T00:00:00Z'}, spec: {hosts: [%s], resolution: STATIC, ports: [{number: %d, "
             "name: p%d, protocol: HTTP}], endpoints: [{address: 10.0.0.%d}]}}\n---\n")  # fmt: skip
    made = facts(
        entry % ("b", "shop", 2021, "a.example", 81, 81, 2)
        + entry % ("a", "shop", 2020, "a.example", 80, 80, 1)
        + entry % ("c", "other", 2022, "a.example", 82, 82, 3)
        + entry % ("d", "shop", 2019, "web.shop.svc.cluster.local", 83, 83, 4)
        + "{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {ports: [{port: 1}]}}"
    )
    service = made.services["a.example"]
    assert (service.name, [port.number for port in service.ports]) == ("a", [80, 81])
    assert [(e.address, e.port) for e in made.endpoints["a.example"]] == [("10.0.0.1", 80), ("10.0.0.2", 81)]
    assert [port.number for port in made.services["web.shop.svc.cluster.local"].ports] == [1]
    assert "web.shop.svc.cluster.local" not in made.endpoints


def test_the_probes_of_a_pod_are_checks_of_its_workload() -> None:
    made = only_workload("""
apiVersion: v1
kind: Pod
metadata: {name: web-1}
spec:
  containers:
    - {name: a, ports: [{name: http, containerPort: 8080}], readinessProbe: {httpGet: {port: http}}}
""")
    assert made.checks == (Check("readiness", "http", port=8080),)
    assert made.ready, "who has no sidecar is not checked by anybody"
