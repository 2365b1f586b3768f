"""The recipes that people paste (ahmetb's well-known list, 01 to 14), in our words: each must be valid unchanged and let in
and out whom it says, known by identity or, in plaintext, by address."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

import pytest

from fairlead.policy.matrix import matrix
from fairlead.policy.network_policy import isolation_of
from fairlead.policy.peer import as_peer, identify
from fairlead.policy.world import World
from fairlead.registry.documents import load

PEOPLE = {
    "default/web": "app: web", "default/api": "app: api, role: api", "default/search": "app: bookstore, role: search",
    "default/inventory": "app: inventory, web-role: inventory", "dev/web": "app: web, purpose-of: test",
    "prod/monitor": "type: monitoring", "prod/other": "type: other",
}  # fmt: skip
ADDRESSES = {name: f"10.0.0.{number}" for number, name in enumerate(PEOPLE, 1)}
OUTSIDE = "203.0.113.9"
EVERYBODY = {*PEOPLE, OUTSIDE}
OWN = {name for name in PEOPLE if name.startswith("default/")}


def manifests() -> str:
    text = "apiVersion: v1\nkind: Namespace\nmetadata: {name: prod, labels: {purpose: production, team: operations}}\n---\n"
    text += "apiVersion: v1\nkind: Namespace\nmetadata: {name: dev, labels: {purpose: testing}}\n---\n"
    for name, labels in PEOPLE.items():
        namespace, _, own = name.partition("/")
        text += f"""apiVersion: v1
kind: Pod
metadata: {{name: {own}, namespace: {namespace}, labels: {{{labels}}}, annotations: {{fairlead.dev/address: {ADDRESSES[name]}}}}}
spec: {{serviceAccountName: {own}, containers: [{{name: main, ports: [{{name: http, containerPort: 80}}, {{containerPort: 5000}}]}}]}}
---
"""
    return text


def policy(spec: str, name: str = "it") -> str:
    return f"apiVersion: networking.k8s.io/v1\nkind: NetworkPolicy\nmetadata: {{name: {name}}}\nspec: {spec}\n---\n"


def world(*policies: str) -> World:
    documents, problems = load(manifests() + "".join(policies), "recipe.yaml")
    assert not problems
    made, reports = World.load(documents)
    assert [told for report in reports for told in (*report.errors, *report.warnings)] == []
    return made


def seen(made: World, subject: str, direction: str, port: int, meshed: bool) -> set[str]:
    """Who may reach the subject's port (Ingress), or whose port it may reach (Egress)."""
    snapshot, mesh = made.snapshot, made.resources.mesh.spec
    isolation = isolation_of(made.resources.network_policies, snapshot, snapshot.workloads[subject], direction)
    found = set()
    for name in EVERYBODY - {subject}:
        known = snapshot.workloads.get(name)
        if known is not None and meshed:
            peer = as_peer(snapshot, mesh, known)
        else:
            peer = identify(snapshot, mesh, "", ADDRESSES.get(name, name))
        if isolation is None or isolation.verdict(peer, port).allowed:
            found.add(name)
    return found


WEB = "podSelector: {matchLabels: {app: web}}"
DENY_ALL = policy("{podSelector: {}, ingress: []}", "default-deny-all")
INGRESS = {
    "01 deny all traffic to an application": (
        [policy(f"{{{WEB}, ingress: []}}")], "default/web", set(), EVERYBODY - {"default/api"}),
    "02 limit traffic to an application": (
        [policy("{podSelector: {matchLabels: {app: api}}, ingress: [{from: [{podSelector: {matchLabels: {app: bookstore}}}]}]}")],
        "default/api", {"default/search"}, EVERYBODY - {"default/api"}),
    "02a allow all traffic to an application": (
        [policy(f"{{{WEB}, ingress: []}}", "deny"), policy(f"{{{WEB}, ingress: [{{}}]}}", "allow")],
        "default/web", EVERYBODY, EVERYBODY),
    "03 deny all non-whitelisted traffic to a namespace": ([DENY_ALL], "default/api", set(), set()),
    "04 deny all traffic from other namespaces": (
        [policy("{podSelector: {matchLabels: {}}, ingress: [{from: [{podSelector: {}}]}]}")], "default/web", OWN, OWN),
    "05 allow traffic to an application from all namespaces": (
        [DENY_ALL, policy(f"{{{WEB}, ingress: [{{from: [{{namespaceSelector: {{}}}}]}}]}}")],
        "default/web", set(PEOPLE), set()),
    "06 allow all traffic from a namespace": (
        [policy(f"{{{WEB}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{purpose: production}}}}}}]}}]}}")],
        "default/web", {"prod/monitor", "prod/other"}, EVERYBODY),
    "07 allow traffic from some pods in another namespace": (
        [policy(f"{{{WEB}, ingress: [{{from: [{{namespaceSelector: {{matchLabels: {{team: operations}}}}, podSelector: {{matchLabels: {{type: monitoring}}}}}}]}}]}}")],
        "default/web", {"prod/monitor"}, EVERYBODY),
    "08 allow external traffic": (
        [DENY_ALL, policy(f"{{{WEB}, ingress: [{{from: []}}]}}")], "default/web", EVERYBODY, set()),
    "10 allow traffic using multiple selectors": (
        [policy("{podSelector: {matchLabels: {app: inventory}}, ingress: [{from: [{podSelector: {matchLabels: {app: bookstore, role: search}}}, {podSelector: {matchLabels: {app: api, role: api}}}]}]}")],
        "default/inventory", {"default/search", "default/api"}, EVERYBODY),
}  # fmt: skip


@pytest.mark.parametrize("meshed", [True, False], ids=["meshed", "plaintext"])
@pytest.mark.parametrize("recipe", INGRESS)
def test_who_gets_in(recipe: str, meshed: bool) -> None:
    policies, subject, admitted, others = INGRESS[recipe]
    made = world(*policies)
    assert seen(made, subject, "Ingress", 80, meshed) == admitted - {subject}
    if "api" not in subject:  # and the policy says nothing of anybody else
        assert seen(made, "default/api", "Ingress", 80, meshed) == (others or set()) - {"default/api"}
    assert seen(made, "dev/web", "Ingress", 80, meshed) == EVERYBODY - {"dev/web"}
    assert seen(made, subject, "Egress", 80, meshed) == EVERYBODY - {subject}


@pytest.mark.parametrize("meshed", [True, False], ids=["meshed", "plaintext"])
def test_09_allow_traffic_only_to_a_port(meshed: bool) -> None:
    made = world(
        policy(
            "{podSelector: {matchLabels: {app: api}}, ingress: [{ports: [{port: 5000}], from: [{podSelector: {matchLabels: {role: search}}}]}]}"
        )
    )
    assert seen(made, "default/api", "Ingress", 5000, meshed) == {"default/search"}
    assert seen(made, "default/api", "Ingress", 80, meshed) == set()


EGRESS = {
    "11 deny egress from an application": ([policy(f"{{{WEB}, policyTypes: [Egress], egress: []}}")], 80, set()),
    "11 with DNS": (
        [policy(f"{{{WEB}, policyTypes: [Egress], egress: [{{ports: [{{port: 53, protocol: UDP}}, {{port: 53, protocol: TCP}}]}}]}}")], 53, EVERYBODY),
    "12 deny all non-whitelisted egress from a namespace": ([policy("{podSelector: {}, policyTypes: [Egress], egress: []}")], 80, set()),
    "14 deny external egress": (
        [policy(f"{{{WEB}, policyTypes: [Egress], egress: [{{ports: [{{port: 53, protocol: UDP}}, {{port: 53, protocol: TCP}}]}}, {{to: [{{namespaceSelector: {{}}}}]}}]}}")], 80, set(PEOPLE)),
}  # fmt: skip


@pytest.mark.parametrize("meshed", [True, False], ids=["meshed", "plaintext"])
@pytest.mark.parametrize("recipe", EGRESS)
def test_who_may_be_called(recipe: str, meshed: bool) -> None:
    policies, port, admitted = EGRESS[recipe]
    made = world(*policies)
    assert seen(made, "default/web", "Egress", port, meshed) == admitted - {"default/web"}
    assert seen(made, "default/web", "Ingress", port, meshed) == EVERYBODY - {"default/web"}
    if "namespace" not in recipe:
        assert seen(made, "default/api", "Egress", port, meshed) == EVERYBODY - {"default/api"}


def test_the_matrix_says_the_same() -> None:
    for policies, subject, admitted, _ in INGRESS.values():
        rows = [row for row in matrix(world(*policies)) if row["destination"] == subject and row["port"] == 80]
        assert {row["source"] for row in rows if row["allowed"]} == (admitted & PEOPLE.keys()) - {subject}
        assert all(str(row["by"]).startswith("NetworkPolicy default/") for row in rows)
