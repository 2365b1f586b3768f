"""NetworkPolicy by the table of the API's exact model: isolation, union, both sides, peers, ports, defaults."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

import pytest

from fairlead.policy.network_policy import is_dry_run, isolation_of, parse_address
from fairlead.policy.peer import Peer, as_peer, identify
from fairlead.policy.resources import MeshConfigSpec, Meta
from tests.policy.worlds import World

PEOPLE = """
kind: Namespace
metadata: {name: a, labels: {team: red}}
---
kind: Namespace
metadata: {name: b, labels: {team: blue}}
---
kind: Pod
metadata: {name: server, namespace: a, labels: {app: server}}
spec: {ip: 10.0.0.1, containers: [{ports: [{name: web, containerPort: 80}, {name: dns, containerPort: 53, protocol: UDP}]}]}
---
kind: Pod
metadata: {name: front, namespace: a, labels: {app: front}}
spec: {ip: 10.0.0.2, serviceAccountName: front}
---
kind: Pod
metadata: {name: front, namespace: b, labels: {app: front}}
spec: {ip: 10.0.1.2, serviceAccountName: front}
---
kind: Pod
metadata: {name: back, namespace: b, labels: {app: back}}
spec: {ip: 10.0.1.3, serviceAccountName: front}
---
kind: Pod
metadata: {name: node, namespace: a, labels: {app: front}}
spec: {ip: 10.0.9.9, hostNetwork: true}
---
"""
MESH = MeshConfigSpec()


def policy(spec: str, name: str = "p", namespace: str = "a") -> str:
    return f"kind: NetworkPolicy\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n---\n"


def allowed(text: str, source: str, port: int = 80, protocol: str = "TCP", server: str = "a/server") -> bool:
    world = World(PEOPLE + text)
    isolation = isolation_of(world.resources.network_policies, world.snapshot, world.workloads[server], "Ingress")
    if isolation is None:
        return True
    if source in world.workloads:
        peer = as_peer(world.snapshot, MESH, world.workloads[source])
    else:
        peer = identify(world.snapshot, MESH, "", source)
    return isolation.verdict(peer, port, protocol).allowed


FRONTS = "[{from: [{podSelector: {matchLabels: {app: front}}}]}]"


@pytest.mark.parametrize(
    ("spec", "ingress", "egress"),
    [
        ("{}", False, True),
        ("{egress: []}", False, True),
        ("{egress: [{}]}", False, True),
        ("{policyTypes: [Egress]}", True, False),
        ("{policyTypes: [Egress], ingress: [{}]}", True, False),
        ("{policyTypes: [Ingress, Egress]}", False, False),
        ("{policyTypes: []}", False, True),
        ("{ingress: [{}]}", True, True),
        ("{podSelector: {matchLabels: {app: other}}}", True, True),
    ],
)
def test_types_and_isolation(spec: str, ingress: bool, egress: bool) -> None:
    assert allowed(policy(spec), "b/back") is ingress
    world = World(PEOPLE + policy(spec))
    isolation = isolation_of(world.resources.network_policies, world.snapshot, world.workloads["a/server"], "Egress")
    peer = as_peer(world.snapshot, MESH, world.workloads["b/back"])
    assert (isolation is None or isolation.verdict(peer, 80).allowed) is egress


@pytest.mark.parametrize(
    ("ingress", "admitted"),
    [
        ("[{from: [{podSelector: {matchLabels: {app: front}}}]}]", {"a/front"}),
        ("[{from: [{podSelector: {}}]}]", {"a/front"}),
        ("[{from: [{namespaceSelector: {}}]}]", {"a/front", "b/front", "b/back"}),
        ("[{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]", {"b/front", "b/back"}),
        ("[{from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: b}}}]}]", {"b/front", "b/back"}),
        ("[{from: [{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: front}}}]}]", {"b/front"}),
        ("[{from: [{namespaceSelector: {matchLabels: {team: blue}}}, {podSelector: {matchLabels: {app: front}}}]}]", {"a/front", "b/front", "b/back"}),
        ("[{from: []}]", {"a/front", "b/front", "b/back", "192.0.2.1", "a/node"}),
        ("[{}]", {"a/front", "b/front", "b/back", "192.0.2.1", "a/node"}),
        ("[{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]", {"192.0.2.1"}),
        ("[{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24]}}]}]", {"a/front", "a/node"}),
        ("[{from: [{ipBlock: {cidr: 10.0.0.0/8, except: [10.0.1.0/24]}}]}, {from: [{ipBlock: {cidr: 10.0.1.3/32}}]}]", {"a/front", "b/back", "a/node"}),
        ("[{from: [{podSelector: {matchExpressions: [{key: app, operator: NotIn, values: [front]}]}}]}]", set()),
        ("[{from: [{namespaceSelector: {matchExpressions: [{key: tier, operator: DoesNotExist}]}, podSelector: {matchExpressions: [{key: app, operator: In, values: [back]}]}}]}]", {"b/back"}),
        ("[{from: [{podSelector: {matchExpressions: [{key: app, operator: Exists}]}}]}]", {"a/front"}),
        ("[{ports: [{port: 80}]}]", {"a/front", "b/front", "b/back", "192.0.2.1", "a/node"}),
        ("[{ports: [{port: 81}]}]", set()),
        ("[{ports: [{port: web}]}]", {"a/front", "b/front", "b/back", "192.0.2.1", "a/node"}),
        ("[{ports: [{port: dns}]}]", set()),
        ("[{ports: [{port: 70, endPort: 80}]}]", {"a/front", "b/front", "b/back", "192.0.2.1", "a/node"}),
        ("[{ports: [{port: 70, endPort: 79}]}]", set()),
        ("[{ports: [{}]}]", {"a/front", "b/front", "b/back", "192.0.2.1", "a/node"}),
        ("[{ports: [{protocol: UDP}]}]", set()),
        ("[]", set()),
    ],
)  # fmt: skip
def test_who_is_admitted_to_port_80(ingress: str, admitted: set[str]) -> None:
    everyone = ["a/front", "b/front", "b/back", "192.0.2.1", "a/node"]
    text = policy(f"{{podSelector: {{matchLabels: {{app: server}}}}, policyTypes: [Ingress], ingress: {ingress}}}")
    assert {one for one in everyone if allowed(text, one)} == admitted


def test_an_empty_port_item_is_any_port_of_tcp_and_a_missing_list_any_protocol() -> None:
    assert not allowed(policy("{ingress: [{ports: [{}]}]}"), "b/back", 53, "UDP")
    assert allowed(policy("{ingress: [{}]}"), "b/back", 53, "UDP")
    assert allowed(policy("{ingress: [{ports: [{port: dns, protocol: UDP}]}]}"), "b/back", 53, "UDP")


def test_policies_add_up_and_nothing_subtracts() -> None:
    narrow = policy(f"{{ingress: {FRONTS}}}", "narrow")
    assert not allowed(narrow, "b/back")
    assert allowed(narrow + policy("{ingress: [{}]}", "wide"), "b/back")
    assert allowed(narrow + policy("{}", "nothing"), "a/front")


def test_a_policy_selects_only_in_its_own_namespace() -> None:
    assert allowed(policy("{}", namespace="b"), "b/back")


def test_traffic_with_itself_is_always_allowed_and_host_network_is_left_alone() -> None:
    assert allowed(policy("{}"), "a/server")
    assert allowed(policy("{}"), "b/back", server="a/node")


def test_named_ports_of_egress_are_those_of_each_peer() -> None:
    text = policy("{podSelector: {matchLabels: {app: front}}, policyTypes: [Egress], egress: [{ports: [{port: web}]}]}")
    world = World(PEOPLE + text)
    isolation = isolation_of(world.resources.network_policies, world.snapshot, world.workloads["a/front"], "Egress")
    assert isolation is not None
    server, back = (as_peer(world.snapshot, MESH, world.workloads[key]) for key in ("a/server", "b/back"))
    assert isolation.verdict(server, 80).allowed
    assert not isolation.verdict(back, 80).allowed
    assert not isolation.verdict(identify(world.snapshot, MESH, "", "192.0.2.1"), 80).allowed


def peer_is_admitted(text: str, identity: str, ip: str) -> bool:
    world = World(PEOPLE + text)
    isolation = isolation_of(world.resources.network_policies, world.snapshot, world.workloads["a/server"], "Ingress")
    assert isolation is not None
    return isolation.verdict(identify(world.snapshot, MESH, identity, ip), 80).allowed


def test_an_identity_shared_by_workloads_with_other_labels_fails_closed() -> None:
    shared = "spiffe://cluster.local/ns/b/sa/front"  # b/front and b/back
    text = policy("{ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}]}]}")
    assert not peer_is_admitted(text, shared, "203.0.113.5"), "one of the two has other labels"
    assert peer_is_admitted(text, shared, "10.0.1.2"), "the address says which of the two it is"
    assert not peer_is_admitted(text, shared, "10.0.1.3")
    everyone = policy("{ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}")
    assert peer_is_admitted(everyone, shared, "203.0.113.5"), "the namespace is the same for all of them"


def test_an_identity_of_unknown_workloads_counts_for_its_namespace_only() -> None:
    stranger = "spiffe://cluster.local/ns/b/sa/new"
    assert peer_is_admitted(
        policy("{ingress: [{from: [{namespaceSelector: {matchLabels: {team: blue}}}]}]}"), stranger, "203.0.113.5"
    )
    labelled = policy("{ingress: [{from: [{namespaceSelector: {}, podSelector: {matchLabels: {app: front}}}]}]}")
    assert not peer_is_admitted(labelled, stranger, "203.0.113.5")
    negated = "podSelector: {matchExpressions: [{key: app, operator: DoesNotExist}]}"
    assert not peer_is_admitted(policy(f"{{ingress: [{{from: [{{{negated}}}]}}]}}"), stranger, "203.0.113.5")
    own = policy("{ingress: [{from: [{podSelector: {}}]}]}")
    assert not peer_is_admitted(own, stranger, "203.0.113.5"), (
        "without namespaceSelector it is the policy's own namespace"
    )
    assert peer_is_admitted(own, "spiffe://cluster.local/ns/a/sa/new", "203.0.113.5")


def test_a_peer_item_that_names_nobody_admits_nobody() -> None:
    assert not peer_is_admitted(policy("{ingress: [{from: [{}]}]}"), "spiffe://cluster.local/ns/a/sa/front", "10.0.0.2")


def test_a_foreign_trust_domain_is_nobody_we_know() -> None:
    text = policy("{ingress: [{from: [{namespaceSelector: {}}]}]}")
    assert not peer_is_admitted(text, "spiffe://other.example/ns/b/sa/front", "10.0.1.2")


def test_a_verdict_names_the_rule_that_admits_or_the_policies_that_do_not() -> None:
    world = World(PEOPLE + policy(f"{{ingress: [{{ports: [{{port: 1}}]}}, {FRONTS[1:-1]}]}}"))
    isolation = isolation_of(world.resources.network_policies, world.snapshot, world.workloads["a/server"], "Ingress")
    assert isolation is not None
    front = as_peer(world.snapshot, MESH, world.workloads["a/front"])
    assert isolation.verdict(front, 80).by == "NetworkPolicy a/p rule 1"
    trace: list[dict[str, str]] = []
    denied = isolation.verdict(as_peer(world.snapshot, MESH, world.workloads["b/back"]), 80, trace=trace)
    assert (denied.allowed, denied.by) == (False, "NetworkPolicy a/p")
    assert [step["why"] for step in trace] == [
        "port is 80/TCP, wanted 1/TCP",
        "b/back is none of its peers: namespace is b, wanted a (there is no namespaceSelector)",
    ]


@pytest.mark.parametrize(
    ("peer", "source", "why"),
    [
        ("{}", "a/front", "it names nobody"),
        ("{ipBlock: {cidr: 192.0.2.0/24}}", "a/front", "address 10.0.0.2 is not in 192.0.2.0/24"),
        ("{podSelector: {matchLabels: {app: back}}}", "a/front", "it has app=front, wanted app=back"),
        ("{namespaceSelector: {matchLabels: {team: red}}}", "b/front", "namespace b has team=blue, wanted team=red"),
        ("{namespaceSelector: {matchLabels: {team: blue}}, podSelector: {matchLabels: {app: back}}}", "b/front",
         "it has app=front, wanted app=back"),
        ("{podSelector: {}}", "b/front", "namespace is b, wanted a (there is no namespaceSelector)"),
        ("{podSelector: {matchLabels: {app: x}}}", "203.0.113.5", "no workload of the mesh is known behind it"),
    ],
)  # fmt: skip
def test_why_a_peer_is_none_of_those_is_told(peer: str, source: str, why: str) -> None:
    world = World(PEOPLE + policy(f"{{ingress: [{{from: [{peer}]}}]}}"))
    isolation = isolation_of(world.resources.network_policies, world.snapshot, world.workloads["a/server"], "Ingress")
    assert isolation is not None
    known = world.workloads.get(source)
    who = as_peer(world.snapshot, MESH, known) if known else identify(world.snapshot, MESH, "", source)
    trace: list[dict[str, str]] = []
    assert not isolation.verdict(who, 80, trace=trace).allowed
    assert why in trace[0]["why"]


@pytest.mark.parametrize(
    ("port", "shown"),
    [("{port: 80}", "80/TCP"), ("{port: 80, endPort: 90}", "80-90/TCP"), ("{port: web}", "web/TCP"),
     ("{protocol: UDP}", "any/UDP"), ("{port: 80, endPort: 80}", "80/TCP")],
)  # fmt: skip
def test_ports_are_shown_as_they_are_written(port: str, shown: str) -> None:
    world = World(PEOPLE + policy(f"{{ingress: [{{ports: [{port}]}}]}}"))
    isolation = isolation_of(world.resources.network_policies, world.snapshot, world.workloads["a/server"], "Ingress")
    assert isolation is not None
    assert str(isolation.rules[0].ports[0]) == shown


def test_a_denial_says_who_may_not_reach_whom() -> None:
    world = World(PEOPLE + policy("{policyTypes: [Ingress, Egress]}"))
    for direction, told in (
        ("Ingress", "a/front to port 80 of a/server"),
        ("Egress", "a/server to port 80 of a/front"),
    ):
        isolation = isolation_of(
            world.resources.network_policies, world.snapshot, world.workloads["a/server"], direction
        )
        assert isolation is not None
        verdict = isolation.verdict(as_peer(world.snapshot, MESH, world.workloads["a/front"]), 80)
        assert verdict.why.endswith(f"no {direction.lower()} rule of NetworkPolicy a/p admits {told}")


@pytest.mark.parametrize(
    ("ingress", "port", "blocks"),
    [
        ("[]", 80, []),
        ("[{}]", 80, None),
        ("[{from: [{ipBlock: {cidr: 192.0.2.0/24}}, {podSelector: {}}]}]", 80, ["192.0.2.0/24"]),
        (
            "[{ports: [{port: 81}]}, {from: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: web}]}]",
            80,
            ["192.0.2.0/24"],
        ),
        ("[{ports: [{port: 81}]}, {from: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: web}]}]", 81, None),
        ("[{from: [{ipBlock: {cidr: 192.0.2.0/24}}], ports: [{port: 81}]}]", 80, []),
    ],
)
def test_the_addresses_that_may_reach_a_port(ingress: str, port: int, blocks: list[str] | None) -> None:
    world = World(PEOPLE + policy(f"{{ingress: {ingress}}}"))
    isolation = isolation_of(world.resources.network_policies, world.snapshot, world.workloads["a/server"], "Ingress")
    assert isolation is not None
    found = isolation.blocks(port)
    assert (found if found is None else [block.cidr for block in found]) == blocks


def test_a_named_port_of_egress_is_a_number_that_all_workloads_behind_an_identity_give_it() -> None:
    text = "".join(
        f"kind: Pod\nmetadata: {{name: s{n}, namespace: a}}\nspec: {{ip: 10.0.5.{n}, serviceAccountName: s, containers: "
        f"[{{ports: [{{name: web, containerPort: {port}}}]}}]}}\n---\n"
        for n, port in ((1, 80), (2, 80), (3, 90))
    )
    world = World(PEOPLE + text + policy("{policyTypes: [Egress], egress: [{ports: [{port: web}]}]}"))
    isolation = isolation_of(world.resources.network_policies, world.snapshot, world.workloads["a/front"], "Egress")
    assert isolation is not None

    def allows(port: int, *names: str) -> bool:
        peer = Peer(workloads=tuple(world.workloads[f"a/{name}"] for name in names))
        return isolation.verdict(peer, port).allowed

    assert allows(80, "s1")
    assert allows(80, "s1", "s2")
    assert not allows(80, "s1", "s3"), "who knows which of them it is"
    assert not allows(90, "s1", "s3")
    assert allows(90, "s3")
    assert not allows(80)


def test_mapped_addresses_are_the_addresses_they_map() -> None:
    assert parse_address("::ffff:10.0.0.1") == parse_address("10.0.0.1")
    assert parse_address("not an address") is None
    world = World(PEOPLE + policy("{ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}"))
    isolation = isolation_of(world.resources.network_policies, world.snapshot, world.workloads["a/server"], "Ingress")
    assert isolation is not None
    assert isolation.verdict(Peer(ip="::ffff:192.0.2.9"), 80).allowed


@pytest.mark.parametrize(
    ("annotations", "tried"),
    [
        ({}, False), ({"a": "true"}, False), ({"istio.io/dry-run": "true"}, True), ({"fairlead.dev/dry-run": "True"}, True),
        ({"istio.io/dry-run": "false"}, False), ({"istio.io/dry-run": ""}, False), ({"istio.io/dry-run": "1"}, False),
    ],
)  # fmt: skip
def test_a_policy_is_only_tried_out_where_an_annotation_says_true(annotations: dict[str, str], tried: bool) -> None:
    assert is_dry_run(Meta("p", "a", annotations=annotations)) is tried
