"""NetworkPolicy by the table of the API's exact model: isolation, union, both sides, peers, ports, defaults."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

import pytest

from fairlead.policy.network_policy import isolation_of, parse_address
from fairlead.policy.peer import Peer, as_peer, identify
from fairlead.policy.resources import MeshConfigSpec
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


def test_mapped_addresses_are_the_addresses_they_map() -> None:
    assert parse_address("::ffff:10.0.0.1") == parse_address("10.0.0.1")
    assert parse_address("not an address") is None
    world = World(PEOPLE + policy("{ingress: [{from: [{ipBlock: {cidr: 192.0.2.0/24}}]}]}"))
    isolation = isolation_of(world.resources.network_policies, world.snapshot, world.workloads["a/server"], "Ingress")
    assert isolation is not None
    assert isolation.verdict(Peer(ip="::ffff:192.0.2.9"), 80).allowed
