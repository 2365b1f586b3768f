"""Kubernetes Service semantics, from manifests to what a sidecar does and what DNS answers."""

from __future__ import annotations

from typing import Any

from fairlead.dns.message import A, show_name, wire_name
from fairlead.dns.records import ZoneOptions
from fairlead.dns.zone import Zone
from fairlead.policy.compile import compile_tables
from fairlead.policy.decide import hash_input
from fairlead.policy.explain import explain
from fairlead.policy.tables import Arrival, Cluster, SimpleRequest, Viewpoint
from fairlead.policy.world import World
from fairlead.proxy.balance import balancer_for
from fairlead.proxy.host import Host
from fairlead.registry.documents import load
from fairlead.registry.model import Workload

HOST = "web.default.svc.cluster.local"


def world(text: str) -> World:
    documents, problems = load(text, "f.yaml")
    assert not problems
    made, reports = World.load(documents)
    assert not [error for report in reports for error in report.errors]
    return made


def cluster(text: str, port: int = 80, client: Workload | None = None) -> Cluster:
    made = world(text)
    viewpoint = Viewpoint(client or Workload("default", "client-1", ("10.0.9.9",)))
    return compile_tables(made.resources, made.snapshot, viewpoint, "1").clusters[f"outbound|{port}||{HOST}"]


def addresses(text: str, name: str = HOST) -> set[str]:
    """The A records of a name."""
    zone = Zone(ZoneOptions())
    zone.update(world(text).snapshot)
    found = zone.lookup(wire_name(name), A, False)
    assert found is not None
    return {".".join(map(str, data)) for rrset in found.answer for data in rrset.rdata}


def service(spec: str) -> str:
    return f"apiVersion: v1\nkind: Service\nmetadata: {{name: web}}\nspec: {{{spec}}}\n---\n"


def slice_of(*conditions: str) -> str:
    """An endpoint 10.0.0.N for each of these conditions."""
    listed = "".join(f"\n- {{addresses: [10.0.0.{n}], conditions: {{{text}}}}}" for n, text in enumerate(conditions, 1))
    return (
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\n"
        "metadata: {name: web-1, labels: {kubernetes.io/service-name: web}}\naddressType: IPv4\n"
        f"ports: [{{name: http, port: 8080}}]\nendpoints:{listed}\n---\n"
    )


PLAIN = service("ports: [{name: http, port: 80}]")
ENDING = "ready: false, serving: true, terminating: true"
GONE = "ready: false, serving: false, terminating: true"


def used(text: str) -> set[str]:
    found = {one.address for one in cluster(text).endpoints}
    assert addresses(text) == found, "DNS and sidecars agree"
    return found


def test_endpoints_that_are_ending_are_used_while_none_is_ready_and_not_otherwise() -> None:
    assert used(PLAIN + slice_of("ready: true", ENDING, GONE)) == {"10.0.0.1"}
    assert used(PLAIN + slice_of("ready: false", ENDING, GONE)) == {"10.0.0.2"}
    assert used(PLAIN + slice_of("ready: false", GONE)) == set()
    assert used(PLAIN + slice_of("ready: null")) == {"10.0.0.1"}, "absent is ready"


def test_of_a_headless_service_only_what_is_ready_is_told() -> None:
    headless = service("clusterIP: None, ports: [{name: http, port: 80}]")
    assert used(headless + slice_of("ready: false", ENDING)) == set()


def test_all_endpoints_are_used_where_those_that_are_not_ready_are_published() -> None:
    published = service("publishNotReadyAddresses: true, ports: [{name: http, port: 80}]")
    assert used(published + slice_of("ready: false", ENDING, "ready: true")) == {"10.0.0.1", "10.0.0.2", "10.0.0.3"}


def test_explain_says_that_an_ending_endpoint_is_used_for_want_of_others() -> None:
    told = explain(world(PLAIN + slice_of("ready: false", ENDING)), {"method": "GET", "url": f"http://{HOST}/"})
    assert [(one["address"], one["ready"], one["why"]) for one in told["endpoints"]] == [
        ("10.0.0.1", False, "EndpointSlice says that it is not ready"),
        ("10.0.0.2", True, "ending, but no endpoint is ready"),
    ]
    assert told["verdict"] == "route"


def pods(*names: str, port: int = 8080) -> str:
    return "".join(
        f"apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, labels: {{app: web, "
        f"statefulset.kubernetes.io/pod-name: {name}}}}}\n"
        f"spec: {{subdomain: web, containers: [{{name: a, ports: [{{name: app, containerPort: {port + n}}}]}}]}}\n"
        f"status: {{podIP: 10.0.1.{n}}}\n---\n"
        for n, name in enumerate(names)
    )


def test_members_of_a_stateful_set_have_stable_names() -> None:
    text = service("selector: {app: web}, clusterIP: None, ports: [{name: http, port: 80, targetPort: app}]")
    text += pods("web-0", "web-1")
    assert addresses(text) == {"10.0.1.0", "10.0.1.1"}
    assert addresses(text, f"web-1.{HOST}") == {"10.0.1.1"}
    made = world(text)
    client = Viewpoint(Workload("default", "client-1"))
    clusters = compile_tables(made.resources, made.snapshot, client, "1").clusters
    assert [one.address for one in clusters[f"outbound|80||web-0.{HOST}"].endpoints] == ["10.0.1.0"]


def test_a_target_port_by_name_is_each_pods_own_port() -> None:
    text = service("selector: {app: web}, ports: [{name: http, port: 80, targetPort: app}]") + pods("web-0", "web-1")
    assert {(one.address, one.port) for one in cluster(text).endpoints} == {("10.0.1.0", 8080), ("10.0.1.1", 8081)}


def test_a_cluster_ip_is_what_dns_answers_and_an_external_name_an_alias() -> None:
    text = service("selector: {app: web}, clusterIP: 10.96.0.5, ports: [{name: http, port: 80, targetPort: app}]")
    assert addresses(text + pods("web-0")) == {"10.96.0.5"}
    zone = Zone(ZoneOptions())
    zone.update(world(service("type: ExternalName, externalName: db.example.com")).snapshot)
    found = zone.lookup(wire_name(HOST), A, False)
    assert found is not None
    assert [show_name(data) for rrset in found.answer for data in rrset.rdata] == ["db.example.com."]


AFFINE = service("sessionAffinity: ClientIP, ports: [{name: http, port: 80}]") + slice_of(*["ready: true"] * 7)


def keeps(made: Cluster, source: str) -> str:
    """The endpoint of requests from this address."""
    request = SimpleRequest(Arrival("outbound", source_ip=source))
    key = hash_input(made.load_balancer, request)
    draws = [0.0, 0.4, 0.9]
    hosts = [Host(endpoint) for endpoint in made.endpoints]
    balancer = balancer_for(made.load_balancer, hosts)
    picked = {balancer.pick(key, draws.pop).endpoint.address for _ in range(3)}
    assert len(picked) == 1
    return picked.pop()


def test_session_affinity_keeps_a_client_at_its_endpoint() -> None:
    made = cluster(AFFINE)
    assert {keeps(made, f"10.1.0.{n}") for n in range(50)} == {f"10.0.0.{n}" for n in range(1, 8)}, "clients are spread"
    by_loopback = [
        keeps(cluster(AFFINE, client=Workload("default", f"c-{n}", (f"10.0.9.{n}",))), "127.0.0.1") for n in range(30)
    ]
    assert len(set(by_loopback)) > 4, "an app that comes by loopback counts as its workload"


def test_when_an_endpoint_goes_only_its_clients_move() -> None:
    gone = AFFINE.replace("10.0.0.7], conditions: {ready: true}", "10.0.0.7], conditions: {ready: false}")
    before, after = cluster(AFFINE), cluster(gone)
    for n in range(60):
        old, new = keeps(before, f"10.1.0.{n}"), keeps(after, f"10.1.0.{n}")
        assert new == old if old != "10.0.0.7" else new != old


def test_a_destination_rule_goes_before_session_affinity() -> None:
    rule = (
        "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web}\n"
        "spec: {host: web, trafficPolicy: %s}\n"
    )
    assert cluster(AFFINE + rule % "{loadBalancer: {simple: ROUND_ROBIN}}").load_balancer.kind == "round_robin"
    other: Any = cluster(AFFINE + rule % "{connectionPool: {tcp: {maxConnections: 1}}}").load_balancer
    assert (other.kind, other.hash_on) == ("ring_hash", "client")
