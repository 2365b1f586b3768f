"""The history of objects: who, why and with what result, what differs, and how it is brought back."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.history import LAST_APPLIED, Scope, differences, entries, to_be_seen
from fairlead.control.store import Cause, Change, CompactedError, Key, Objects, Write
from tests.control.serving import SERVICES, VIRTUAL_SERVICES, Client, api_in, service, virtual_service
from tests.control.test_rbac import ME, RBAC, binding, grant, options, role

VS = "virtualservices.networking.istio.io"
HISTORY = "/fairlead/v1/history"
SECRETS = "/api/v1/namespaces/default/secrets"


def put(memory: Objects, name: str, spec: Any, generation: int, status: Any = None, author: str = "") -> Change:
    body = {
        "metadata": {"name": name, "generation": generation},
        "spec": spec,
        **({"status": status} if status else {}),
    }
    changes = memory.plan([Write(Key(VS, "default", name), body)], (), Cause(author, "", 1e9))
    memory.commit(changes)
    return changes[0]


def reconciled(status: str, generation: int, message: str = "") -> dict[str, Any]:
    told = {"type": "Reconciled", "status": status, "message": message, "observedGeneration": generation}
    return {"conditions": [told]}


def test_each_change_has_what_sidecars_made_of_it_before_the_next() -> None:
    memory = Objects()
    put(memory, "a", 1, 1)
    put(memory, "a", 1, 1, reconciled("True", 1, "2/2 sidecars run it"))
    put(memory, "a", 2, 2, reconciled("True", 1, "2/2 sidecars run it"))
    put(memory, "a", 2, 2, reconciled("False", 2, "web-1 refuses it"))
    put(memory, "a", 3, 3, reconciled("False", 2))
    put(memory, "a", 4, 4, reconciled("False", 2))
    found = entries(memory.log.all(), Scope(), 10)
    assert [(one.revision, one.verb, one.result.state, one.result.message) for one in found] == [
        (6, "changed", "waiting", ""),
        (5, "changed", "superseded", ""),
        (3, "changed", "refused", "web-1 refuses it"),
        (1, "created", "taken", "2/2 sidecars run it"),
    ]


def test_history_can_be_asked_of_one_object_or_author_and_the_latest_come_first() -> None:
    memory = Objects()
    for n, (name, author) in enumerate((("a", "ann"), ("b", "bob"), ("a", "bob"))):
        put(memory, name, n, n + 1, author=author)
    assert [one.revision for one in entries(memory.log.all(), Scope(name="a"), 10)] == [3, 1]
    assert [one.revision for one in entries(memory.log.all(), Scope(author="bob"), 10)] == [3, 2]
    assert [one.revision for one in entries(memory.log.all(), Scope(), 1)] == [3]


def test_a_difference_shows_what_somebody_wanted_and_not_what_control_keeps() -> None:
    memory = Objects()
    put(memory, "a", 1, 1)
    put(memory, "b", 1, 1)
    put(memory, "a", 1, 1, reconciled("True", 1))
    put(memory, "b", 2, 2)
    found = differences(memory, 2, 4, Scope())
    assert found == [
        (Key(VS, "default", "b"), {"metadata": {"name": "b"}, "spec": 1}, {"metadata": {"name": "b"}, "spec": 2})
    ]


def test_of_a_secret_no_value_is_ever_shown() -> None:
    def secret(**data: str) -> dict[str, Any]:
        applied = {"kubectl.kubernetes.io/last-applied-configuration": f"{data}", "note": "x"}
        return {"metadata": {"name": "s", "annotations": applied}, "data": data}

    before, after = to_be_seen(
        Key("secrets", "default", "s"), secret(a="AAA", b="BBB"), secret(a="AAA", b="CCC", c="DDD")
    )
    assert before is not None
    assert after is not None
    assert before["data"] == {"a": "(hidden)", "b": "(hidden, before)"}
    assert after["data"] == {"a": "(hidden)", "b": "(hidden, after)", "c": "(hidden)"}
    assert not any(value in f"{before}{after}" for value in ("AAA", "BBB", "CCC", "DDD"))


# --- over HTTP ------------------------------------------------------------------------------------------------------


async def history(client: Client, query: str = "") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await client.get(f"{HISTORY}{query}"))["changes"]
    return found


@pytest.mark.asyncio
async def test_author_and_reason_come_from_the_request_or_from_a_fresh_annotation(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        await client.post(VIRTUAL_SERVICES, virtual_service("a"), Fairlead_Change_Cause="f%C3%BCr%20alle")
        noted = virtual_service("b", annotations={"kubernetes.io/change-cause": "release 7"})
        made = await client.post(VIRTUAL_SERVICES, noted)
        made["spec"]["hosts"] = ["other"]
        await client.put(f"{VIRTUAL_SERVICES}/b", made)
        await client.delete(f"{VIRTUAL_SERVICES}/a", Fairlead_Change_Cause="unused")
        told = [(one["name"], one["verb"], one["reason"]) for one in await history(client, f"?resource={VS}")]
        assert told == [("a", "deleted", "unused"), ("b", "changed", ""), ("b", "created", "release 7"),
                        ("a", "created", "für alle")]  # fmt: skip
        assert {one["author"] for one in await history(client, f"?resource={VS}")} == {"fairlead:local"}


@pytest.mark.asyncio
async def test_a_diff_of_revisions_never_has_a_secret_in_it(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        value = base64.b64encode(b"very-secret").decode()
        body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "data": {"key": value}}
        made = await client.post(SECRETS, body)
        revision = int(made["metadata"]["resourceVersion"])
        _, text = await client.ask("GET", f"{HISTORY}/diff?from={revision - 1}&to={revision}")
        assert text["differences"][0]["after"]["data"] == {"key": "(hidden)"}
        assert value not in str(text)


@pytest.mark.asyncio
async def test_a_rollback_brings_everything_back_in_one_revision_range_and_is_itself_history(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        await client.post(VIRTUAL_SERVICES, virtual_service("a", "one"))
        made = await client.post(SERVICES, service("gone"))
        target = int(made["metadata"]["resourceVersion"])
        await client.patch(f"{VIRTUAL_SERVICES}/a", {"spec": {"hosts": ["two"]}})
        await client.delete(f"{SERVICES}/gone")
        await client.post(VIRTUAL_SERVICES, virtual_service("new"))
        dry = await client.post(f"{HISTORY}/rollback", {"revision": target, "dryRun": True}, code=200)
        steps = {(one["name"], one["verb"]) for one in dry["changes"]}
        assert steps == {("a", "changed"), ("gone", "created"), ("new", "deleted")}
        assert (await client.get(f"{VIRTUAL_SERVICES}/a"))["spec"]["hosts"] == ["two"]
        heard: list[int] = []
        api.store.memory.subscribe(lambda changes: heard.append(len(changes)))
        done = await client.post(f"{HISTORY}/rollback", {"revision": target}, code=200)
        assert heard == [3], "all at once"
        back = await client.get(f"{VIRTUAL_SERVICES}/a")
        assert back["spec"]["hosts"] == ["one"]
        assert back["metadata"]["generation"] == 3
        assert (await client.get(f"{SERVICES}/gone"))["metadata"]["uid"] == made["metadata"]["uid"]
        await client.get(f"{VIRTUAL_SERVICES}/new", code=404)
        latest = (await history(client, f"?resource={VS}&name=a"))[0]
        assert latest["reason"] == f"rollback to revision {target}"
        assert done["revision"] >= latest["revision"]
        again = await client.post(f"{HISTORY}/rollback", {"revision": target}, code=200)
        assert again["changes"] == []


@pytest.mark.asyncio
async def test_a_rollback_of_one_object_leaves_the_others_alone(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        made = await client.post(VIRTUAL_SERVICES, virtual_service("a", "one"))
        await client.post(VIRTUAL_SERVICES, virtual_service("b", "one"))
        target = int(made["metadata"]["resourceVersion"])
        await client.patch(f"{VIRTUAL_SERVICES}/a", {"spec": {"hosts": ["two"]}})
        body = {"revision": target, "resource": VS, "namespace": "default", "name": "a"}
        await client.post(f"{HISTORY}/rollback", body, code=200)
        assert (await client.get(f"{VIRTUAL_SERVICES}/a"))["spec"]["hosts"] == ["one"]
        await client.get(f"{VIRTUAL_SERVICES}/b")


@pytest.mark.asyncio
async def test_a_revision_beyond_the_history_is_refused_with_its_ends(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (_, client):
        for path in (f"{HISTORY}/diff?from=1&to=99999",):
            _, told = await client.ask("GET", path, code=410)
            assert "the history, which goes from 0 to" in told["message"]
        _, told = await client.ask("POST", f"{HISTORY}/rollback", {"revision": 99999}, code=410)
        assert "revision 99999 is not in the history" in told["message"]
        await client.get(f"{HISTORY}?limit=0", code=400)
        await client.get(f"{HISTORY}?resource=frogs", code=400)
        await client.get(f"{HISTORY}/diff?from=x", code=400)
        await client.ask("POST", f"{HISTORY}/rollback", {"revision": "1"}, code=400)


@pytest.mark.asyncio
async def test_a_rollback_over_a_deleted_namespace_makes_it_again(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        at = VIRTUAL_SERVICES.replace("/default/", "/shop/")
        await client.post(at, {**virtual_service("a", "one"), "metadata": {"name": "a"}})
        before = api.store.memory.revision
        await client.delete("/api/v1/namespaces/shop")
        await client.post("/fairlead/v1/history/rollback", {"revision": before, "namespace": "shop"}, 200)
        await client.get(f"{at}/a")
        await client.get("/api/v1/namespaces/shop")


@pytest.mark.asyncio
@pytest.mark.parametrize("query", ["?limit=%C2%B2", "?limit=0", "/diff?from=" + "9" * 5000, "/diff?from=%D9%A1"])
async def test_what_is_no_number_is_refused_by_name(tmp_path: Path, query: str) -> None:
    async with api_in(tmp_path) as (_, client):
        assert "expected" in (await client.get(f"/fairlead/v1/history{query}", 400))["message"]


def test_who_manages_which_field_is_no_history() -> None:
    memory, key = Objects(), Key("services", "default", "a")

    def write(fields: list[str], noted: str, port: int) -> None:
        metadata = {"name": "a", "managedFields": fields, "annotations": {LAST_APPLIED: noted}}
        memory.commit(memory.plan([Write(key, {"metadata": metadata, "spec": port})], (), Cause("ann", "", 1e9)))

    write(["kubectl"], "1", 80)
    write(["kubectl", "other"], "1", 80)
    write(["other"], "2", 80)
    write(["other"], "2", 81)
    assert [one.revision for one in entries(memory.log.all(), Scope(), 10)] == [4, 1]


def test_of_a_revision_that_is_not_there_yet_its_own_number_is_told() -> None:
    memory = Objects()
    put(memory, "a", 1, 1)
    with pytest.raises(CompactedError) as caught:
        differences(memory, 8, 9, Scope())
    assert caught.value.asked == 9


@pytest.mark.asyncio
async def test_who_is_given_the_path_sees_and_brings_back_what_they_may_see_and_change(tmp_path: Path) -> None:
    async with api_in(tmp_path, options(tmp_path)) as (api, client):
        me: dict[str, str] = {"Authorization": ME["bob"]}
        await client.get(HISTORY, 403, **me)
        paths = {"nonResourceURLs": [HISTORY, f"{HISTORY}/*"], "verbs": ["get", "post"]}
        await client.post(f"{RBAC}/clusterroles", role("historian", paths), Authorization=ME["root"])
        await grant(client, "", binding("historian", "ClusterRole", "historian", ("User", "bob")))
        await grant(client, "shop", binding("edit", "ClusterRole", "edit", ("User", "bob")))
        before = api.store.memory.revision
        for where in (SERVICES, SERVICES.replace("default", "shop")):
            await client.post(where, service("web"), Authorization=ME["root"])
        listed = await client.get(f"{HISTORY}?resource=services", 200, **me)
        assert [(one["namespace"], one["author"]) for one in listed["changes"]] == [("shop", "root")]
        shown = await client.get(f"{HISTORY}/diff?from={before}&resource=services", 200, **me)
        assert [one["namespace"] for one in shown["differences"]] == ["shop"]
        back = {"revision": before, "resource": "services", "name": "web"}
        await client.post(f"{HISTORY}/rollback", {**back, "namespace": "default"}, 403, **me)
        done = await client.post(f"{HISTORY}/rollback", {**back, "namespace": "shop"}, 200, **me)
        assert [step["verb"] for step in done["changes"]] == ["deleted"]
