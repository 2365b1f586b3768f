"""Deletion with what depends on the deleted: in the background, before it, or left behind; and what finalizers hold."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.catalog import Catalog
from fairlead.control.deletion import FOREGROUND, Deletions, policy_for, policy_of
from fairlead.control.status import StatusError
from fairlead.control.store import Key, Objects, Stored, Write
from fairlead.policy.kinds import KINDS
from tests.control.kubectl import kubectl_in
from tests.control.serving import SERVICES, api_in, service

NOW = "2026-01-01T00:00:00Z"


class Shop:
    """Services by name; `owners` names others, `!NAME` one that is to wait for it."""

    def __init__(self, **owners: str) -> None:
        self.memory = Objects()
        self.deletions = Deletions(self.memory, Catalog(KINDS))
        for name, listed in owners.items():
            self.put(name, listed.split())

    def put(self, name: str, owners: list[str], finalizers: list[str] | None = None) -> None:
        references = [
            {"apiVersion": "v1", "kind": "Service", "name": owner.strip("!"), "uid": f"uid-{owner.strip('!')}",
             "blockOwnerDeletion": owner.startswith("!")}
            for owner in owners
        ]  # fmt: skip
        metadata: dict[str, Any] = {"name": name, "namespace": "d", "uid": f"uid-{name}"}
        if references:
            metadata["ownerReferences"] = references
        if finalizers:
            metadata["finalizers"] = finalizers
        self.commit([Write(Key("services", "d", name), {"metadata": metadata})])

    def commit(self, writes: list[Write]) -> None:
        self.memory.commit(self.memory.plan(writes))

    def of(self, name: str) -> Stored:
        stored = self.memory.get(Key("services", "d", name))
        assert stored is not None
        return stored

    def delete(self, name: str, policy: str = "Background") -> None:
        self.commit(self.deletions.plan([self.of(name)], policy, NOW))

    def left(self) -> list[str]:
        return [stored.key.name for stored in self.memory.all("services")]

    def metadata(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.of(name).object()["metadata"]
        return found


@pytest.mark.parametrize("policy", ["Background", "Foreground"])
def test_what_depends_on_it_goes_as_well_down_to_the_last(policy: str) -> None:
    shop = Shop(a="", b="!a", c="b", d="!c", other="")
    shop.delete("a", policy)
    assert shop.left() == ["other"]


def test_an_orphan_stays_without_its_reference() -> None:
    shop = Shop(a="", b="a", c="b")
    shop.delete("a", "Orphan")
    assert shop.left() == ["b", "c"]
    assert "ownerReferences" not in shop.metadata("b")
    assert shop.metadata("c")["ownerReferences"][0]["name"] == "b"


def test_what_has_another_owner_stays_for_it() -> None:
    shop = Shop(a="", z="", b="a z")
    shop.delete("a")
    assert [one["name"] for one in shop.metadata("b")["ownerReferences"]] == ["z"]
    shop.delete("z")
    assert shop.left() == []


def test_in_the_foreground_an_owner_waits_for_whoever_blocks_it() -> None:
    shop = Shop(a="")
    shop.put("b", ["!a"], ["example.com/hold"])
    shop.put("c", ["a"], ["example.com/hold"])
    shop.delete("a", "Foreground")
    assert shop.left() == ["a", "b", "c"]
    assert shop.metadata("a")["finalizers"] == [FOREGROUND]
    assert shop.metadata("a")["deletionTimestamp"] == shop.metadata("b")["deletionTimestamp"] == NOW
    assert shop.deletions.plan([shop.of("a")], "Foreground", NOW) == []
    shop.commit(shop.deletions.removal(shop.of("b"), NOW))
    assert shop.left() == ["c"], "who does not block is not waited for"


def test_in_the_background_a_held_owner_keeps_its_dependents_until_it_goes() -> None:
    shop = Shop()
    shop.put("a", [], ["example.com/hold"])
    shop.put("b", ["a"])
    shop.delete("a")
    assert shop.left() == ["a", "b"]
    shop.commit(shop.deletions.removal(shop.of("a"), NOW))
    assert shop.left() == []


@pytest.mark.parametrize("policy", ["Background", "Foreground", "Orphan"])
def test_a_circle_of_owners_ends(policy: str) -> None:
    shop = Shop(a="!b", b="!a")
    shop.delete("a", policy)
    assert shop.left() == ([] if policy != "Orphan" else ["b"])


def test_several_at_once_are_one_group_of_writes_with_each_object_once() -> None:
    shop = Shop(a="", b="a", c="a b")
    writes = shop.deletions.plan([shop.of(name) for name in "abc"], "Background", NOW)
    assert len({write.key for write in writes}) == len(writes) == 3
    shop.commit(writes)
    assert shop.left() == []


def test_who_depends_is_known_after_a_start_too() -> None:
    shop = Shop(a="", b="a")
    again = Deletions(shop.memory, Catalog(KINDS))
    assert [stored.key.name for stored in again.dependents(Key("services", "d", "a"), "uid-a")] == ["b"]
    shop.put("b", [])
    assert again.dependents(Key("services", "d", "a"), "uid-a") == []


def test_the_policy_is_that_of_the_options_then_the_query_then_of_the_finalizers_then_background() -> None:
    assert policy_of({}) == ""
    assert policy_of({"orphanDependents": False}) == "Background"
    assert policy_for({}, "") == "Background"
    assert policy_for({"finalizers": ["x", FOREGROUND]}, "") == "Foreground"
    assert policy_for({"finalizers": ["orphan"]}, "") == "Orphan"
    assert policy_for({"finalizers": ["orphan"]}, "Foreground") == "Foreground"
    assert policy_of({"orphanDependents": True}) == "Orphan"
    assert policy_of({"propagationPolicy": "Foreground"}, "Orphan") == "Foreground"
    assert policy_of({}, "Orphan") == "Orphan"
    for wrong in ({"propagationPolicy": "Other"}, {"propagationPolicy": "Orphan", "orphanDependents": False}):
        with pytest.raises(StatusError):
            policy_of(wrong)


def test_a_finalizer_of_its_own_asks_for_the_way_of_its_deletion() -> None:
    shop = Shop()
    shop.put("a", [], ["orphan"])
    shop.put("b", ["a"])
    shop.delete("a", "")
    assert shop.left() == ["b"]
    assert "ownerReferences" not in shop.metadata("b")


def test_an_owner_that_nobody_deletes_stays_whatever_its_finalizers_say() -> None:
    shop = Shop()
    shop.put("a", [], [FOREGROUND])
    shop.put("b", ["!a"])
    shop.delete("b")
    assert shop.left() == ["a"]


@pytest.mark.parametrize("owners", [[], ["a"]], ids=["not its owner any more", "does not block any more"])
def test_an_owner_goes_when_whoever_held_it_up_is_changed(owners: list[str]) -> None:
    shop = Shop(a="")
    shop.put("b", ["!a"], ["example.com/hold"])
    shop.delete("a", "Foreground")
    assert shop.left() == ["a", "b"]
    body = shop.of("b").object()
    changed = Shop()
    changed.put("b", owners, ["example.com/hold"])
    metadata = changed.metadata("b") | {"deletionTimestamp": body["metadata"]["deletionTimestamp"]}
    shop.commit(shop.deletions.update(shop.of("b"), {"metadata": metadata}, NOW))
    assert shop.left() == ["b"]


def test_a_change_of_anything_else_is_one_write() -> None:
    shop = Shop(a="", b="!a")
    writes = shop.deletions.update(shop.of("b"), {**shop.of("b").object(), "spec": {}}, NOW)
    assert [write.key.name for write in writes] == ["b"]


def test_who_refers_to_an_owner_in_another_namespace_does_not_depend_on_it() -> None:
    shop = Shop(a="")
    shop.put("b", ["!a"], ["example.com/hold"])
    elsewhere = Key("services", "other", "b")
    shop.commit([Write(elsewhere, shop.of("b").object()), Write(Key("services", "d", "b"), None)])
    shop.delete("a", "Foreground")
    assert [stored.key for stored in shop.memory.all("services")] == [elsewhere]


def test_an_owner_without_a_namespace_has_dependents_in_each() -> None:
    shop = Shop(b="")
    role = Key("clusterroles.rbac.authorization.k8s.io", "", "r")
    shop.commit([Write(role, {"metadata": {"name": "r", "uid": "uid-r"}})])
    body = shop.of("b").object()
    body["metadata"]["ownerReferences"] = [{"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole",
                                            "name": "r", "uid": "uid-r"}]  # fmt: skip
    shop.commit([Write(Key("services", "d", "b"), body)])
    stored = shop.memory.get(role)
    assert stored is not None
    shop.commit(shop.deletions.plan([stored], "", NOW))
    assert shop.left() == []


# --- through the API ------------------------------------------------------------------------------------------------

SHOP = "/api/v1/namespaces/shop"
HELD: dict[str, Any] = {"finalizers": ["example.com/keep"]}


@pytest.mark.asyncio
async def test_a_namespace_goes_when_all_in_it_has_gone_and_takes_nothing_new_meanwhile(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.post(f"{SHOP}/services", service("held", **HELD))
        await client.post(f"{SHOP}/services", service("free"))
        going = await client.delete(SHOP)
        assert (going["kind"], going["status"]["phase"]) == ("Namespace", "Terminating")
        assert going["metadata"]["deletionTimestamp"]
        told = {one["type"]: one["message"] for one in going["status"]["conditions"] if one["status"] == "True"}
        assert told == {
            "NamespaceContentRemaining": "Some resources are remaining: services has 1 resource instances",
            "NamespaceFinalizersRemaining":
                "Some content in the namespace has finalizers remaining: example.com/keep in 1 resource instances",
        }  # fmt: skip
        assert [one["metadata"]["name"] for one in (await client.get(f"{SHOP}/services"))["items"]] == ["held"]
        assert (await client.get(f"{SHOP}/services/held"))["metadata"]["deletionTimestamp"]
        refused = await client.post(f"{SHOP}/services", service("new"), 403)
        assert refused["message"] == (
            'services "new" is forbidden: unable to create new content in namespace shop because it is being terminated'
        )
        assert refused["reason"] == "Forbidden"
        assert refused["details"]["causes"][0]["reason"] == "NamespaceTerminating"
        config = {"apiVersion": "v1", "kind": "ConfigMap", "data": {}}
        await client.patch(f"{SHOP}/configmaps/x?fieldManager=a", config, "apply-patch+yaml", 403)
        again = await client.delete(SHOP)
        assert again["metadata"]["resourceVersion"] == going["metadata"]["resourceVersion"], "nothing has changed"
        await client.patch(f"{SHOP}/services/held", {"metadata": {"finalizers": None}})
        await client.get(f"{SHOP}/services/held", 404)
        await client.get(SHOP, 404)
        await client.post(f"{SHOP}/services", service("new"))


@pytest.mark.asyncio
@pytest.mark.parametrize("where", ["metadata", "spec"])
async def test_finalizers_of_a_namespace_hold_it_when_it_is_empty(tmp_path: Path, where: str) -> None:
    async with api_in(tmp_path) as (_, client):
        made: dict[str, Any] = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}
        made.setdefault(where, {}).update(HELD)
        await client.post("/api/v1/namespaces", made)
        await client.post(f"{SHOP}/services", service("web"))
        going = await client.delete(SHOP)
        assert going["status"]["phase"] == "Terminating"
        assert not (await client.get(f"{SHOP}/services"))["items"]
        await client.post(f"{SHOP}/services", service("new"), 403)
        await client.patch(SHOP, {where: {"finalizers": None}})
        await client.get(SHOP, 404)


@pytest.mark.asyncio
async def test_a_namespace_whose_own_finalizer_goes_first_waits_for_what_is_in_it(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop", **HELD}}
        await client.post("/api/v1/namespaces", namespace)
        for name in ("one", "two"):
            await client.post(f"{SHOP}/services", service(name, **HELD))
        await client.delete(SHOP)
        await client.patch(SHOP, {"metadata": {"finalizers": None}})
        assert (await client.get(SHOP))["status"]["phase"] == "Terminating"
        gone = {"metadata": {"finalizers": None}}
        await asyncio.gather(*(client.patch(f"{SHOP}/services/{name}", gone) for name in ("one", "two")))
        await client.get(SHOP, 404)


@pytest.mark.asyncio
async def test_what_is_made_while_its_namespace_begins_to_end_does_not_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with api_in(tmp_path) as (api, client):
        await client.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}})
        store = api.operations._store
        write = store.write

        async def late(writes: Any) -> Any:
            if any(one.key.resource == "services" and one.body for one in writes):
                monkeypatch.undo()
                await client.delete(SHOP)
            return await write(writes)

        monkeypatch.setattr(store, "write", late)
        refused = await client.post(f"{SHOP}/services", service("late"), 403)
        assert "because it is being terminated" in refused["message"]
        await client.get(f"{SHOP}/services/late", 404)
        await client.get(SHOP, 404)


@pytest.mark.asyncio
async def test_namespaces_that_are_deleted_as_a_collection_go_with_what_is_in_them(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.post(f"{SHOP}/services", service("held", **HELD))
        await client.post("/api/v1/namespaces/other/services", service("web"))
        await client.delete("/api/v1/namespaces")
        assert [one["metadata"]["name"] for one in (await client.get("/api/v1/namespaces"))["items"]] == [
            "default",
            "shop",
        ]
        assert [one["metadata"]["name"] for one in (await client.get("/api/v1/services"))["items"]] == ["held"]


@pytest.mark.asyncio
async def test_a_rollback_to_before_an_object_was_there_is_a_deletion_that_finalizers_hold(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        before = api.store.memory.revision
        owner = await client.post(SERVICES, service("held", **HELD))
        reference = {"apiVersion": "v1", "kind": "Service", "name": "held", "uid": owner["metadata"]["uid"]}
        await client.post(SERVICES, service("dependent", ownerReferences=[reference]))
        back = {"revision": before, "namespace": "default"}
        done = await client.post("/fairlead/v1/history/rollback", back, 200)
        assert {(one["name"], one["verb"]) for one in done["changes"]} == {
            ("held", "deleted"),
            ("dependent", "deleted"),
        }
        held = await client.get(f"{SERVICES}/held")
        assert held["metadata"]["deletionTimestamp"]
        await client.get(f"{SERVICES}/dependent", 404)
        again = await client.post("/fairlead/v1/history/rollback", back, 200)
        assert not again["changes"], "it is going already"
        there = {"revision": int(held["metadata"]["resourceVersion"]) - 2, "namespace": "default", "name": "held",
                 "resource": "services"}  # fmt: skip
        refused = await client.post("/fairlead/v1/history/rollback", there, 409)
        assert "is being deleted" in refused["message"]
        await client.patch(f"{SERVICES}/held", {"metadata": {"finalizers": None}})
        await client.get(f"{SERVICES}/held", 404)


@pytest.mark.asyncio
async def test_a_rollback_brings_nothing_into_a_namespace_that_is_going(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        await client.post(f"{SHOP}/services", service("held", **HELD))
        await client.post(f"{SHOP}/services", service("free"))
        before = api.store.memory.revision
        await client.delete(f"{SHOP}/services/free")
        await client.delete(SHOP)
        body = {"revision": before, "namespace": "shop", "name": "free", "resource": "services"}
        refused = await client.post("/fairlead/v1/history/rollback", body, 403)
        assert "because it is being terminated" in refused["message"]


@pytest.mark.asyncio
async def test_kubectl_waits_for_a_namespace_that_is_held(tmp_path: Path) -> None:
    async with kubectl_in(tmp_path) as kubectl:
        await kubectl.done("create", "namespace", "shop")
        await kubectl.done("create", "configmap", "held", "-n", "shop")
        await kubectl.done(
            "patch", "configmap", "held", "-n", "shop", "-p", '{"metadata":{"finalizers":["example.com/x"]}}'
        )
        await kubectl.done("delete", "namespace", "shop", "--wait=false")
        assert "Terminating" in await kubectl.done("get", "namespace", "shop")
        waiting = asyncio.create_task(kubectl.done("wait", "--for=delete", "namespace/shop", "--timeout=20s"))
        await kubectl.done(
            "patch", "configmap", "held", "-n", "shop", "--type=merge", "-p", '{"metadata":{"finalizers":null}}'
        )
        await waiting
