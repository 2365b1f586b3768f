"""Why a pair may talk, or may not: rule by rule, and never other than the matrix says."""

from __future__ import annotations

import pytest

from fairlead.policy.explain_pair import PairError, explain_pair
from fairlead.policy.matrix import matrix
from tests.policy.test_decide import CALLER, ONLY_FRONT, SHOP
from tests.policy.worlds import World

RULES = """
kind: AuthorizationPolicy
metadata: {name: tried, namespace: shop, annotations: {istio.io/dry-run: "true"}}
spec: {action: DENY, rules: [{from: [{source: {namespaces: [shop]}}]}]}
---
kind: AuthorizationPolicy
metadata: {name: api, namespace: shop}
spec:
  selector: {matchLabels: {app: api}}
  rules: [{from: [{source: {namespaces: [shop]}}], to: [{operation: {methods: [GET]}}]}]
---
kind: PeerAuthentication
metadata: {name: all, namespace: shop}
spec: {mtls: {mode: STRICT}}
---
"""


def test_the_answer_for_each_pair_is_the_matrix_s() -> None:
    for text in ("", ONLY_FRONT, RULES):
        world = World(SHOP + CALLER + text)
        for row in matrix(world):
            answers = explain_pair(world, row["source"], row["destination"], row["port"])
            assert [answers[0][key] for key in ("allowed", "by")] == [row["allowed"], row["by"]], row
            assert answers[0]["trace"] and answers[0]["why"]


def test_steps_name_what_was_seen_and_what_is_wanted() -> None:
    world = World(SHOP + CALLER + ONLY_FRONT + RULES)
    (answer,) = explain_pair(world, "shop/odd-1", "shop/web-1")
    assert not answer["allowed"] and answer["by"] == "NetworkPolicy shop/web-from-front"
    assert any("wanted app=front" in step["why"] for step in answer["trace"])
    answer = explain_pair(world, "shop/front-1", "shop/api-1")[0]
    results = {step["object"]: step["result"] for step in answer["trace"]}
    assert results["AuthorizationPolicy shop/api rule 0"] == "depends"
    assert results["AuthorizationPolicy shop/tried rule 0"] == "dry-run"


def test_plaintext_and_addresses_meet_peer_authentication() -> None:
    world = World(SHOP + CALLER + RULES)
    for source, plaintext in (("shop/front-1", True), ("203.0.113.9", False)):
        answer = explain_pair(world, source, "shop/web-1", 0, plaintext)[0]
        assert (answer["allowed"], answer["by"]) == (False, "PeerAuthentication shop/all")


def test_what_is_not_there_is_named() -> None:
    world = World(SHOP + CALLER)
    with pytest.raises(PairError, match="no workload 'shop/none'; known are"):
        explain_pair(world, "shop/none", "shop/web-1")
    with pytest.raises(PairError, match="declares no port"):
        explain_pair(world, "shop/web-1", "shop/front-1")
    assert explain_pair(world, "shop/web-1", "shop/front-1", 9)[0]["allowed"]
