"""Policies that cut off control, DNS or their author are refused at the door, unless forced."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairlead.control.api import ControlApi
from fairlead.control.lockout_guard import GUARDED, SETTINGS, LockoutGuard, is_forced, refusal
from fairlead.control.plaintext import FORCE
from fairlead.control.store import Key
from fairlead.policy.world import World
from tests.control.serving import api_on, store_in
from tests.policy.test_lockout import world

AT = "/apis/networking.k8s.io/v1/namespaces/shop/networkpolicies"


def policy(name: str, *ports: int, **metadata: Any) -> dict[str, Any]:
    egress = [{"ports": [{"port": port, "protocol": p} for port in ports for p in ("TCP", "UDP")]}] if ports else []
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": egress}
    return {"metadata": {"name": name, **metadata}, "spec": spec}


def guarded(api: ControlApi, facts: World) -> None:
    api.lockout = LockoutGuard(lambda: api.objects(GUARDED), lambda: facts.snapshot)


@pytest.mark.asyncio
async def test_a_policy_that_cuts_dns_off_is_refused_by_name_and_taken_by_force(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store, api_on(store) as (api, client):
        guarded(api, world())
        refused = await client.post(AT, policy("deny"), 403)
        assert (
            'networkpolicies.networking.k8s.io "deny" is forbidden: shop/front-1 would be cut off from'
            in refused["message"]
        )
        assert "DNS (sys/dns-1 port 53) by NetworkPolicy shop/deny" in refused["message"]
        await client.post(f"{AT}?dryRun=All", policy("deny"), 403)
        await client.post(AT, policy("dns", 53, 15012))
        await client.post(AT, policy("deny"))
        await client.delete(f"{AT}/dns", code=403)  # it is what lets them through
        await client.delete(AT)  # all together leave everything open
        await client.post(AT, policy("deny", annotations={FORCE: "true"}))
        await client.delete(f"{AT}/deny")
        await client.post(AT, policy("deny"), Fairlead_Force="true")
        await client.patch(f"{AT}/deny", {"metadata": {"labels": {"a": "b"}}})  # closed before, closed after


@pytest.mark.asyncio
async def test_what_two_changes_do_together_is_judged_together(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store, api_on(store) as (api, client):
        guarded(api, world())
        await client.post(AT, policy("deny"), Fairlead_Force="true")
        closed = store.memory.revision
        await client.post(AT, policy("dns", 53, 15012))
        await client.delete(f"{AT}/deny")
        back = {"revision": closed, "namespace": "shop"}  # `deny` comes, which `dns` permits, and `dns` goes
        refused = await client.post("/fairlead/v1/history/rollback", back, 403)
        assert "would be cut off from" in refused["message"]
        await client.post("/fairlead/v1/history/rollback", back, 200, Fairlead_Force="true")


@pytest.mark.asyncio
async def test_a_mesh_config_that_cuts_off_is_refused_too(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store, api_on(store) as (api, client):
        facts = world()
        api.lockout = LockoutGuard(lambda: api.objects(GUARDED | {SETTINGS}), lambda: facts.snapshot)
        at = "/apis/security.istio.io/v1/namespaces/elsewhere/authorizationpolicies"
        await client.post(at, {"metadata": {"name": "nothing"}, "spec": {}})
        settings = {"metadata": {"name": "default"}, "spec": {"rootNamespace": "elsewhere"}}
        refused = await client.post("/apis/fairlead.dev/v1/meshconfigs", settings, 403)
        assert "AuthorizationPolicy elsewhere/nothing" in refused["message"]


@pytest.mark.parametrize(("count", "end"), [(1, "cut 0."), (3, "cut 2."), (4, "cut 2; and 1 more.")])
def test_a_refusal_names_three_of_those_cut_off_and_counts_the_rest(count: int, end: str) -> None:
    cuts: list[Any] = [f"cut {number}" for number in range(count)]
    told = refusal(Key("networkpolicies.networking.k8s.io", "shop", "deny"), cuts)
    assert told.message.startswith('networkpolicies.networking.k8s.io "deny" is forbidden: cut 0')
    assert f"{end} Apply first what allows it" in told.message
    details = {"name": "deny", "group": "networking.k8s.io", "kind": "networkpolicies"}
    assert (told.code, told.body()["details"]) == (403, details)


@pytest.mark.parametrize(
    ("body", "forced"),
    [
        (None, False), ({}, False), ({"metadata": {"annotations": None}}, False),
        ({"metadata": {"annotations": []}}, False),
        ({"metadata": {"annotations": {FORCE: "True"}}}, True), ({"metadata": {"annotations": {FORCE: True}}}, True),
        ({"metadata": {"annotations": {FORCE: "yes"}}}, False), ({"metadata": {"annotations": {"a": "true"}}}, False),
    ],
)  # fmt: skip
def test_only_the_annotation_that_says_true_forces(body: Any, forced: bool) -> None:
    assert is_forced(body) is forced


@pytest.mark.asyncio
async def test_a_removal_is_forced_by_the_annotation_of_what_is_removed_so_kubectl_can_too(tmp_path: Path) -> None:
    async with store_in(tmp_path) as store, api_on(store) as (api, client):
        guarded(api, world())
        await client.post(AT, policy("dns", 53, 15012))
        await client.post(AT, policy("deny"))
        refused = await client.delete(f"{AT}/dns", code=403)
        assert "`--force` of `fairlead apply`, `delete` or `rollback`" in refused["message"]
        await client.patch(f"{AT}/dns", {"metadata": {"annotations": {FORCE: "true"}}})
        await client.delete(f"{AT}/dns")
