"""ServiceEntry and WorkloadEntry: what each field does to clusters and decisions, from the manifest on."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

import pytest

from fairlead.policy.compile import compile_tables
from fairlead.policy.decide import decide
from fairlead.policy.tables import Arrival, Cluster, ClusterEndpoint, Decision, SimpleRequest, Tables, Viewpoint
from fairlead.policy.world import World
from fairlead.registry.documents import load
from fairlead.registry.model import Workload

HOST = "api.example"
HTTP = "{number: 80, name: http, protocol: HTTP}"


def entry(spec: str, name: str = "e", namespace: str = "shop") -> str:
    return f"---\nkind: ServiceEntry\napiVersion: networking.istio.io/v1\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{{spec}}}\n"


def rule(policy: str, more: str = "") -> str:
    return f"---\nkind: DestinationRule\napiVersion: networking.istio.io/v1\nmetadata: {{name: r, namespace: shop}}\nspec: {{host: {HOST}, trafficPolicy: {policy}{more}}}\n"


def tables(text: str, namespace: str = "shop", locality: str = "") -> Tables:
    documents, problems = load(text, "x.yaml")
    world, reports = World.load(documents)
    assert not problems and all(report.valid for report in reports), [report.errors for report in reports]
    return compile_tables(world.resources, world.snapshot, Viewpoint(Workload(namespace, "w", locality=locality)))


def cluster(text: str, port: int = 80, host: str = HOST, subset: str = "") -> Cluster:
    return tables(text).clusters[f"outbound|{port}|{subset}|{host}"]


def only(found: Cluster) -> ClusterEndpoint:
    (one,) = found.endpoints
    return one


def http(own: Tables, host: str, port: int = 80) -> Decision:
    return decide(own, SimpleRequest(Arrival("outbound", port=port), "GET", host, "/"))


def tcp(own: Tables, ip: str, port: int, sni: str = "") -> Decision:
    return decide(own, SimpleRequest(Arrival("outbound", destination_ip=ip, port=port, sni=sni)))


STATIC = f"hosts: [{HOST}], resolution: STATIC, ports: [{HTTP}], endpoints: "


def test_static_endpoints_have_ports_of_the_map_else_the_target_else_the_services() -> None:
    ports = "[{number: 80, name: http, protocol: HTTP}, {number: 81, name: b, protocol: HTTP, targetPort: 8081}]"
    text = entry(
        f"hosts: [{HOST}], resolution: STATIC, ports: {ports}, endpoints: [{{address: 10.0.0.1, ports: {{http: 8080}}}}, {{address: 10.0.0.2}}]"
    )
    assert [(one.address, one.port) for one in cluster(text).endpoints] == [("10.0.0.1", 8080), ("10.0.0.2", 80)]
    assert [one.port for one in cluster(text, 81).endpoints] == [8081, 8081]


def test_labels_make_subsets_and_weights_and_localities_count() -> None:
    text = entry(
        STATIC
        + "[{address: 10.0.0.1, labels: {v: a}, weight: 3, locality: here/z}, {address: 10.0.0.2, labels: {v: b}, locality: there/z}]"
    )
    subsets = rule("{outlierDetection: {}}", ", subsets: [{name: a, labels: {v: a}}]")
    own = tables(text + subsets, locality="here/z")
    assert only(own.clusters[f"outbound|80|a|{HOST}"]).address == "10.0.0.1"
    assert [(one.weight, one.priority) for one in own.clusters[f"outbound|80||{HOST}"].endpoints] == [(3, 0), (1, 1)]


def test_the_service_account_is_whom_mutual_tls_expects() -> None:
    text = entry(STATIC + "[{address: 10.0.0.1, serviceAccount: api}]") + rule("{tls: {mode: ISTIO_MUTUAL}}")
    tls = only(cluster(text)).tls
    assert tls is not None and tls.identities == ("spiffe://cluster.local/ns/shop/sa/api",)


@pytest.mark.parametrize("mode", ["ISTIO_MUTUAL", "SIMPLE"])
def test_subject_alt_names_stand_in_for_what_would_be_expected_else_and_the_rules_go_over_them(mode: str) -> None:
    text = entry(STATIC + "[{address: 10.0.0.1, serviceAccount: api}], subjectAltNames: ['spiffe://other/api']")
    tls = only(cluster(text + rule(f"{{tls: {{mode: {mode}}}}}"))).tls
    assert tls is not None and (tls.identities if mode == "ISTIO_MUTUAL" else tls.names) == ("spiffe://other/api",)
    if mode == "SIMPLE":
        tls = only(cluster(text + rule("{tls: {mode: SIMPLE, subjectAltNames: [mine]}}"))).tls
        assert tls is not None and tls.names == ("mine",)
        tls = only(cluster(text + rule("{tls: {mode: SIMPLE, insecureSkipVerify: true}}"))).tls
        assert tls is not None and tls.names == ()


WORKLOADS = """---
kind: Pod
apiVersion: v1
metadata: {name: p, namespace: shop, labels: {app: api}, annotations: {fairlead.dev/address: 10.0.0.8, fairlead.dev/mesh-port: "15006"}}
spec: {serviceAccountName: pod, containers: [{name: c, ports: [{containerPort: 80}]}]}
---
kind: WorkloadEntry
apiVersion: networking.istio.io/v1
metadata: {name: v, namespace: shop, annotations: {fairlead.dev/mesh-port: "15006"}}
spec: {address: 10.0.0.9, labels: {app: api}, serviceAccount: vm, ports: {http: 8080}}
---
kind: WorkloadEntry
apiVersion: networking.istio.io/v1
metadata: {name: far, namespace: other}
spec: {address: 10.0.0.10, labels: {app: api}}
"""


@pytest.mark.parametrize(("location", "secured"), [("MESH_INTERNAL", True), ("MESH_EXTERNAL", False)])
def test_a_selector_takes_pods_and_workload_entries_and_the_location_says_whether_by_mutual_tls(
    location: str, secured: bool
) -> None:
    spec = f"hosts: [{HOST}], resolution: STATIC, location: {location}, ports: [{HTTP}], workloadSelector: {{labels: {{app: api}}}}"
    found = sorted(cluster(WORKLOADS + entry(spec)).endpoints, key=lambda one: one.address)
    assert [(one.address, one.endpoint.port) for one in found] == [("10.0.0.8", 80), ("10.0.0.9", 8080)]
    assert [one.tls is not None for one in found] == [secured, secured]
    assert [one.port for one in found] == ([15006, 15006] if secured else [80, 8080])


@pytest.mark.parametrize(
    ("resolution", "endpoints", "addresses", "spread"),
    [
        ("DNS", "", [HOST], True),
        ("DNS", ", endpoints: [{address: a.example}, {address: b.example}]", ["a.example", "b.example"], True),
        ("DNS_ROUND_ROBIN", "", [HOST], False),
        ("DNS_ROUND_ROBIN", ", endpoints: [{address: a.example}]", ["a.example"], False),
    ],
)
def test_names_are_resolved_at_each_connection_to_all_addresses_or_to_the_first(
    resolution: str, endpoints: str, addresses: list[str], spread: bool
) -> None:
    found = cluster(entry(f"hosts: [{HOST}], resolution: {resolution}, ports: [{HTTP}]{endpoints}"))
    assert [one.address for one in found.endpoints] == addresses
    assert found.limits.spread is spread


def test_a_unix_endpoint_has_no_port() -> None:
    one = only(cluster(entry(STATIC + "[{address: 'unix:///run/api.sock'}]")))
    assert (one.address, one.port) == ("unix:///run/api.sock", 0)


def test_without_resolution_octets_go_where_they_were_dialled_and_requests_too() -> None:
    own = tables(
        entry(
            "hosts: ['*.example'], resolution: NONE, ports: [{number: 443, name: t, protocol: TLS}, {number: 80, name: h, protocol: HTTP}]"
        )
    )
    assert tcp(own, "192.0.2.1", 443, "x.example").verdict == "passthrough"
    assert http(own, "x.example").verdict == "passthrough"


def test_dynamic_dns_sends_requests_to_the_name_they_ask_for() -> None:
    own = tables(
        entry(
            "hosts: ['*.example'], resolution: DYNAMIC_DNS, ports: [{number: 443, name: t, protocol: TLS}, {number: 80, name: h, protocol: HTTP}]"
        )
    )
    strict = "---\nkind: MeshConfig\napiVersion: fairlead.dev/v1\nmetadata: {name: default}\nspec: {outboundTrafficPolicy: {mode: REGISTRY_ONLY}}\n"
    assert http(own, "x.example").verdict == "passthrough"
    assert tcp(own, "192.0.2.1", 443, "x.example").verdict == "passthrough"
    own = tables(strict + entry(f"hosts: ['*.example'], resolution: DYNAMIC_DNS, ports: [{HTTP}]"))
    assert http(own, "x.example").verdict == "passthrough", "it is known"
    assert http(own, "x.elsewhere").status == 502


def test_addresses_lead_to_the_service_one_by_one_and_in_blocks_the_narrowest_first() -> None:
    mongo = "ports: [{number: 27018, name: m, protocol: MONGO}], resolution: STATIC, endpoints: [{address: 2.2.2.2}]"
    own = tables(
        entry(f"hosts: [one.example], addresses: [192.0.2.7], {mongo}", "a")
        + entry(f"hosts: [wide.example], addresses: [192.0.2.0/24, '2001:db8::/32'], {mongo}", "b")
        + entry(f"hosts: [narrow.example], addresses: [192.0.2.64/26], {mongo}", "c")
    )

    def to(ip: str) -> str:
        found = tcp(own, ip, 27018)
        return found.destinations[0].host if found.verdict == "route" else found.verdict

    assert [to("192.0.2.7"), to("192.0.2.8"), to("192.0.2.65"), to("2001:db8::1"), to("192.0.3.1")] == [
        "one.example", "wide.example", "narrow.example", "wide.example", "passthrough",
    ]  # fmt: skip
    own = tables(
        entry(
            f"hosts: [{HOST}], addresses: [192.0.2.7], resolution: STATIC, ports: [{HTTP}], endpoints: [{{address: 2.2.2.2}}]"
        )
    )
    assert [one.host for one in http(own, "192.0.2.7").destinations] == [HOST]


@pytest.mark.parametrize(
    ("export_to", "own", "other"),
    [("['*']", True, True), ("['.']", True, False), ("[other]", False, True), ("['~']", False, False)],
)  # fmt: skip
def test_an_entry_is_seen_where_it_is_exported_to(export_to: str, own: bool, other: bool) -> None:
    text = entry(STATIC + f"[{{address: 10.0.0.1}}], exportTo: {export_to}")
    for namespace, seen in (("shop", own), ("other", other)):
        assert (f"outbound|80||{HOST}" in tables(text, namespace).clusters) is seen


def test_each_host_is_a_service_of_its_own() -> None:
    own = tables(
        entry(f"hosts: [a.example, b.example], resolution: STATIC, ports: [{HTTP}], endpoints: [{{address: 10.0.0.1}}]")
    )
    for host in ("a.example", "b.example"):
        assert [one.host for one in http(own, host).destinations] == [host]
