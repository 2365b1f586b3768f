"""Who may reach whom: both sides' NetworkPolicy, and AuthorizationPolicy as far as a connection can tell."""

from __future__ import annotations

from fairlead.policy.matrix import matrix
from tests.policy.test_decide import CALLER, ONLY_FRONT, SHOP
from tests.policy.worlds import World


def rows(text: str) -> dict[tuple[str, str, int], tuple[bool, str | None]]:
    return {
        (row["source"], row["destination"], row["port"]): (row["allowed"], row["by"])
        for row in matrix(World(SHOP + CALLER + text))
    }


def test_every_ordered_pair_and_every_declared_port_has_a_row() -> None:
    found = matrix(World(SHOP + CALLER))
    assert found[0] == {
        "source": "shop/api-1",
        "destination": "shop/web-1",
        "port": 8080,
        "protocol": "TCP",
        "allowed": True,
        "by": None,
    }
    assert len(found) == 4 * 1 + 4 * 1 + 4 * 2  # to web-1, to web-2, to api-1; the callers declare no port
    assert all(row["source"] != row["destination"] and row["allowed"] for row in found)


def test_ingress_and_egress_both_count() -> None:
    found = rows(ONLY_FRONT)
    assert found["shop/front-1", "shop/web-1", 8080] == (True, "NetworkPolicy shop/web-from-front rule 0")
    assert found["shop/odd-1", "shop/web-1", 8080] == (False, "NetworkPolicy shop/web-from-front")
    assert found["shop/web-1", "shop/web-2", 8080][0] is False
    assert found["shop/odd-1", "shop/api-1", 5432] == (True, None)
    closed = (
        "kind: NetworkPolicy\nmetadata: {name: out, namespace: shop}\nspec: {podSelector: {matchLabels: {app: front}},"
        " policyTypes: [Egress], egress: [{ports: [{port: 5000, endPort: 6000}]}]}\n---\n"
    )
    found = rows(ONLY_FRONT + closed)
    assert found["shop/front-1", "shop/web-1", 8080] == (False, "NetworkPolicy shop/out")
    assert found["shop/front-1", "shop/api-1", 5432] == (True, "NetworkPolicy shop/out rule 0")


def test_authorization_refuses_only_what_no_request_could_pass() -> None:
    policy = (
        "kind: AuthorizationPolicy\nmetadata: {name: p, namespace: shop}\n"
        "spec: {selector: {matchLabels: {app: web}}, rules: [{from: [{source: {serviceAccounts: [front]}}],"
        " to: [{operation: {methods: [GET]}}]}]}\n---\n"
    )
    found = rows(policy)
    assert found["shop/front-1", "shop/web-1", 8080] == (True, "AuthorizationPolicy shop/p rule 0")
    assert found["shop/odd-1", "shop/web-1", 8080] == (False, "AuthorizationPolicy shop/p")


def test_of_a_namespace_only_pairs_with_one_of_its_workloads_are_shown() -> None:
    other = "apiVersion: v1\nkind: Pod\nmetadata: {name: x-1, namespace: other}\nspec: {}\n"
    world = World(SHOP + CALLER + other)
    assert matrix(world, "shop") == matrix(world)
    assert {row["source"] for row in matrix(world, "other")} == {"other/x-1"}
    assert matrix(world, "nowhere") == []
