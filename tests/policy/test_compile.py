"""What a change does not touch is taken over; what it touches is made anew."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.policy.compile import CompileCache, compile_tables
from fairlead.policy.decide import decide
from fairlead.policy.tables import Tables, Viewpoint
from fairlead.registry.model import Workload
from fairlead.registry.snapshot import Snapshot
from tests.policy.test_decide import API, CALLER, ONLY_FRONT, SHOP, SUBSETS, V2, WEB, rule
from tests.policy.worlds import World, get


def tables(world: World, snapshot: Snapshot, cache: CompileCache) -> Tables:
    return compile_tables(world.resources, snapshot, Viewpoint(Workload("shop", "client")), "7", cache)


def changed(world: World, host: str) -> Snapshot:
    endpoints = dict(world.snapshot.endpoints)
    endpoints[host] = endpoints[host][:1]
    return Snapshot(2, world.snapshot.services, endpoints, world.snapshot.workloads, world.snapshot.namespaces)


def test_only_the_changed_services_clusters_are_made_anew() -> None:
    world, cache = World(SHOP + SUBSETS + CALLER), CompileCache()
    first = tables(world, world.snapshot, cache)
    second = tables(world, changed(world, WEB), cache)
    assert second.clusters[f"outbound|9080||{API}"] is first.clusters[f"outbound|9080||{API}"]
    assert len(second.clusters[f"outbound|80||{WEB}"].endpoints) == 1
    assert second.http is first.http
    assert second.version == "7"
    fresh = tables(world, changed(world, WEB), CompileCache())
    assert sorted(fresh.clusters) == sorted(second.clusters)


def test_new_rules_are_in_force_at_once() -> None:
    world, cache = World(SHOP + SUBSETS), CompileCache()
    tables(world, world.snapshot, cache)
    other = World(SHOP + SUBSETS + rule(V2))
    made = compile_tables(other.resources, other.snapshot, Viewpoint(Workload("shop", "client")), cache=cache)
    assert decide(made, get("web")).destinations[0].subset == "v2"


def test_egress_verdicts_follow_the_labels_of_workloads() -> None:
    text = "kind: NetworkPolicy\nmetadata: {name: out, namespace: shop}\nspec: {policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {app: web}}}]}]}\n---\n"
    world, cache = World(SHOP + text), CompileCache()
    assert [
        one.egress and one.egress.allowed
        for one in tables(world, world.snapshot, cache).clusters[f"outbound|80||{WEB}"].endpoints
    ] == [True, True]
    workloads = dict(world.snapshot.workloads)
    workloads["shop/web-1"] = Workload("shop", "web-1", ("10.1.0.1",), labels={"app": "moved"})
    snapshot = Snapshot(2, world.snapshot.services, world.snapshot.endpoints, workloads, world.snapshot.namespaces)
    made = tables(world, snapshot, cache)
    assert [one.egress and one.egress.allowed for one in made.clusters[f"outbound|80||{WEB}"].endpoints] == [
        False,
        True,
    ]


def test_another_client_gets_nothing_of_the_first() -> None:
    world, cache = World(SHOP + ONLY_FRONT), CompileCache()
    tables(world, world.snapshot, cache)
    made = compile_tables(world.resources, world.snapshot, Viewpoint(Workload("other", "client")), cache=cache)
    assert decide(made, get("web")).verdict == "passthrough"


def test_declared_ports_are_listed_with_their_protocols() -> None:
    world = World(SHOP)
    made = tables(world, world.snapshot, CompileCache())
    assert dict(made.ports) == {(WEB, 80): "http", (API, 9080): "http", (API, 5432): "tcp"}


def test_an_empty_world_compiles() -> None:
    world = World("")
    made = tables(world, world.snapshot, CompileCache())
    assert decide(made, get("web")).verdict == "passthrough"


POD = "kind: Pod\nmetadata: {{name: {name}, namespace: shop, labels: {{app: {app}, version: {version}}}}}\nspec: {{ip: {ip}, serviceAccountName: {account}, ready: {ready}, locality: {locality}}}\n---\n"
RULES = (
    SUBSETS
    + rule("{hosts: [web], http: [{route: [{destination: {host: web, subset: v1}}], mirror: {host: api}}]}")
    + "kind: NetworkPolicy\nmetadata: {name: out, namespace: shop}\nspec: {podSelector: {matchLabels: {app: api}}, policyTypes: [Egress], egress: [{to: [{podSelector: {matchLabels: {version: v1}}}]}]}\n---\n"
    + "kind: PeerAuthentication\nmetadata: {name: off, namespace: shop}\nspec: {selector: {matchLabels: {version: v2}}, mtls: {mode: DISABLE}}\n---\n"
)


def described(made: Tables) -> list[object]:
    """Everything that a proxy could see of the tables, in comparable form."""
    clusters = [
        (
            name, one.protocol, one.rule, one.load_balancer.kind, one.outlier is None,
            [(e.address, e.port, e.priority, e.weight, e.tls and (e.tls.mode, e.tls.sni, e.tls.identities),
              e.egress and (e.egress.allowed, e.egress.by)) for e in one.endpoints],
        )
        for name, one in sorted(made.clusters.items())
    ]  # fmt: skip
    decisions = [decide(made, get(host, port=port)) for host in ("web", "api.shop", "more") for port in (0, 80, 9080)]
    routed = [(d.verdict, [c.cluster for c in d.destinations], [m.cluster for m in d.mirrors]) for d in decisions]
    own = (made.inbound.services, made.inbound.ports)
    return [clusters, routed, dict(made.ports), own]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_cache_changes_no_answer(data: st.DataObject) -> None:
    cache = CompileCache()
    names = st.sampled_from(["web-1", "web-2", "api-1", "new-1"])
    first = World(SHOP + RULES)
    for _ in range(data.draw(st.integers(2, 4))):
        pods = "".join(
            POD.format(
                name=name,
                app=data.draw(st.sampled_from(["web", "api"])),
                version=data.draw(st.sampled_from(["v1", "v2"])),
                ip=data.draw(st.sampled_from(["10.1.0.1", "10.1.0.2"])),
                account=data.draw(st.sampled_from(["web", "''"])),
                ready=data.draw(st.sampled_from(["true", "false"])),
                locality=data.draw(st.sampled_from(["r1/z1", "r2/z1"])),
            )
            for name in data.draw(st.lists(names, unique=True, max_size=3))
        )
        more = "kind: Service\nmetadata: {name: more, namespace: shop}\nspec: {ports: [{port: 80}]}\n---\n"
        world = World(SHOP + (more if data.draw(st.booleans()) else "") + pods)
        client = Workload("shop", data.draw(st.sampled_from(["c", "api-1"])), labels={"app": "api"}, locality="r1/z1")
        resources = first.resources if data.draw(st.booleans()) else World(RULES).resources
        kept = compile_tables(resources, world.snapshot, Viewpoint(client), cache=cache)
        fresh = compile_tables(resources, world.snapshot, Viewpoint(client))
        assert described(kept) == described(fresh)
