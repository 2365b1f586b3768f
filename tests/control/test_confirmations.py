"""Changes that take themselves back: in control's store, at the deadline, after a restart, and nobody else's."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, cast

import pytest

from fairlead.control import rbac
from fairlead.control.api import ControlApi, Options
from fairlead.control.confirmations import RESOURCE
from fairlead.control.role_control import RULE_RESOURCES
from fairlead.control.store import ConflictError
from tests.control.serving import SERVICES, VIRTUAL_SERVICES, Client, api_on, service, store_in, virtual_service

pytestmark = pytest.mark.asyncio
AT = "/fairlead/v1/confirmations"


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@contextlib.asynccontextmanager
async def confirming(folder: Path, clock: Clock, tokens: str = "") -> AsyncIterator[tuple[ControlApi, Client]]:
    if tokens:
        (folder / "tokens").write_text(tokens)
    options = Options(
        confirmable=RULE_RESOURCES | rbac.RESOURCES, admin_token_file=str(folder / "tokens") if tokens else "",
        audit_file=str(folder / "audit"),
    )  # fmt: skip
    async with store_in(folder) as store, api_on(store, options, clock=clock) as (api, client):
        task = asyncio.create_task(api.confirming.run())
        try:
            async with asyncio.timeout(30):
                yield api, client
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)


def bearer(name: str) -> dict[str, Any]:
    return {"Authorization": f"Bearer {name}-token"}


async def taken_back(api: ControlApi) -> None:
    api.confirming._news.set()  # the clock was set
    while api.store.memory.all(RESOURCE):
        await asyncio.sleep(0.001)


async def hosts(client: Client) -> dict[str, Any]:
    listed = await client.get(VIRTUAL_SERVICES)
    return {item["metadata"]["name"]: item["spec"]["hosts"] for item in listed["items"]}


async def test_what_is_not_confirmed_goes_back_and_all_else_stays(tmp_path: Path) -> None:
    clock = Clock()
    async with confirming(tmp_path, clock) as (api, client):
        for name in ("a", "b", "c"):
            await client.post(VIRTUAL_SERVICES, virtual_service(name, "old"))
        made = await client.post(AT, {"timeoutSeconds": 60})
        under: dict[str, Any] = {"Fairlead_Confirm": made["id"]}
        changed = virtual_service("a", "new")
        await client.put(f"{VIRTUAL_SERVICES}/a", changed, **under)
        await client.put(f"{VIRTUAL_SERVICES}/a", virtual_service("a", "newer"), **under)
        await client.delete(f"{VIRTUAL_SERVICES}/b", **under)
        await client.post(VIRTUAL_SERVICES, virtual_service("d", "new"), **under)
        (item,) = api.confirmations.items().values()
        assert item["before"]["object/virtualservices.networking.istio.io/default/d"] is None
        assert item["before"]["object/virtualservices.networking.istio.io/default/a"]["spec"]["hosts"] == ["old"]
        await client.put(f"{VIRTUAL_SERVICES}/c", virtual_service("c", "others"))  # not under it
        assert await hosts(client) == {"a": ["newer"], "c": ["others"], "d": ["new"]}
        clock.now += 60
        await taken_back(api)
        assert await hosts(client) == {"a": ["old"], "b": ["old"], "c": ["others"]}
        refused = await client.put(f"{VIRTUAL_SERVICES}/a", changed, 404, **under)
        assert refused["reason"] == "NotFound"
        await client.post(f"{AT}/{made['id']}/confirm", {}, 404)
    assert '"verb":"revert"' in (tmp_path / "audit").read_text()


async def test_what_goes_back_has_a_reason_in_the_history_and_a_generation_of_its_own(tmp_path: Path) -> None:
    clock = Clock()
    async with confirming(tmp_path, clock) as (api, client):
        await client.post(VIRTUAL_SERVICES, virtual_service("a", "old"))
        made = await client.post(AT, {"timeoutSeconds": 60})
        await client.put(f"{VIRTUAL_SERVICES}/a", virtual_service("a", "new"), Fairlead_Confirm=made["id"])
        changed = await client.get(f"{VIRTUAL_SERVICES}/a")
        clock.now += 60
        await taken_back(api)
        back = await client.get(f"{VIRTUAL_SERVICES}/a")
        assert back["spec"]["hosts"] == ["old"]
        assert back["metadata"]["generation"] == changed["metadata"]["generation"] + 1
        (latest, *_) = (await client.get("/fairlead/v1/history?name=a"))["changes"]
        assert "was not confirmed in time" in latest["reason"] and made["id"] in latest["reason"]


async def test_permissions_go_back_in_control_and_are_told_to_no_sidecar(tmp_path: Path) -> None:
    clock = Clock()
    roles = "/apis/rbac.authorization.k8s.io/v1/namespaces/default/roles"
    role = {"metadata": {"name": "r"}, "rules": [{"verbs": ["get"], "resources": ["services"], "apiGroups": [""]}]}
    async with confirming(tmp_path, clock) as (api, client):
        made = await client.post(AT, {"timeoutSeconds": 60})
        await client.post(roles, role, Fairlead_Confirm=made["id"])
        assert api.confirmations.items() == {}
        await client.post(VIRTUAL_SERVICES, virtual_service("a", "new"), Fairlead_Confirm=made["id"])
        (item,) = api.confirmations.items().values()
        assert list(item["before"]) == ["object/virtualservices.networking.istio.io/default/a"]
        clock.now += 60
        await taken_back(api)
        await client.get(f"{roles}/r", 404)


async def test_what_is_confirmed_stays_and_can_be_changed_again(tmp_path: Path) -> None:
    clock = Clock()
    async with confirming(tmp_path, clock) as (api, client):
        made = await client.post(AT, {"timeoutSeconds": 60})
        await client.post(VIRTUAL_SERVICES, virtual_service("a", "new"), Fairlead_Confirm=made["id"])
        assert (await client.get(AT))["confirmations"][0]["objects"] == [
            "virtualservices.networking.istio.io/default/a"
        ]
        await client.post(f"{AT}/{made['id']}/confirm", {}, 200)
        clock.now += 100
        await taken_back(api)
        assert await hosts(client) == {"a": ["new"]}
        assert api.confirmations.items() == {}
        await client.put(f"{VIRTUAL_SERVICES}/a", virtual_service("a", "other"))


async def test_objects_under_confirmation_are_changed_by_nobody_else(tmp_path: Path) -> None:
    async with confirming(tmp_path, Clock()) as (_, client):
        one, two = [(await client.post(AT, {"timeoutSeconds": 60}))["id"] for _ in range(2)]
        await client.post(VIRTUAL_SERVICES, virtual_service("a", "new"), Fairlead_Confirm=one)
        other = virtual_service("a", "other")
        refused = await client.put(f"{VIRTUAL_SERVICES}/a", other, 409)
        assert f"under confirmation {one} of fairlead:local for 60 s more" in refused["message"]
        await client.put(f"{VIRTUAL_SERVICES}/a", other, 409, Fairlead_Confirm=two)
        await client.delete(f"{VIRTUAL_SERVICES}/a", code=409)
        await client.delete(VIRTUAL_SERVICES, code=409)
        status = {"status": {"observedGeneration": "1"}}
        await client.patch(f"{VIRTUAL_SERVICES}/a/status", status)  # what sidecars say of it is not a change of it
        gone = await client.delete(f"{AT}/{one}")
        assert gone["id"] == one
        assert await hosts(client) == {}
        await client.post(VIRTUAL_SERVICES, other)


async def test_a_control_plane_that_comes_back_late_takes_back_at_once(tmp_path: Path) -> None:
    clock = Clock()
    async with confirming(tmp_path, clock) as (_, client):
        await client.post(VIRTUAL_SERVICES, virtual_service("a", "old"))
        made = await client.post(AT, {"timeoutSeconds": 60})
        await client.put(f"{VIRTUAL_SERVICES}/a", virtual_service("a", "new"), Fairlead_Confirm=made["id"])
    clock.now += 3600
    async with confirming(tmp_path, clock) as (api, client):
        await taken_back(api)
        assert await hosts(client) == {"a": ["old"]}


async def test_it_is_too_late_at_the_deadline_even_where_nothing_was_taken_back_yet(tmp_path: Path) -> None:
    clock = Clock()
    async with store_in(tmp_path) as store, api_on(store, Options(confirmable=RULE_RESOURCES), clock=clock) as pair:
        client = pair[1]
        made = await client.post(AT, {"timeoutSeconds": 60})
        clock.now += 60
        await client.post(f"{AT}/{made['id']}/confirm", {}, 409)
        await client.post(VIRTUAL_SERVICES, virtual_service("a"), 409, Fairlead_Confirm=made["id"])


@pytest.mark.parametrize("wrong", [{}, {"timeoutSeconds": 0}, {"timeoutSeconds": "60"}, {"timeoutSeconds": 1e9}, []])
async def test_mistakes_are_named(tmp_path: Path, wrong: Any) -> None:
    async with confirming(tmp_path, Clock()) as (_, client):
        await client.post(AT, wrong, 400)
        made = await client.post(AT, {"timeoutSeconds": 60})
        refused = await client.post(SERVICES, service("web"), 422, Fairlead_Confirm=made["id"])
        assert "sidecars take back rules only" in refused["message"]
        await client.post(VIRTUAL_SERVICES, virtual_service("a"), 404, Fairlead_Confirm="nonsense")


async def test_others_neither_see_nor_confirm_nor_revert_it(tmp_path: Path) -> None:
    async with confirming(tmp_path, Clock(), "root-token\nalice-token alice -\nbobby-token bob -\n") as (_, client):
        root, alice, bob = (bearer(name) for name in ("root", "alice", "bobby"))
        made = await client.post(AT, {"timeoutSeconds": 60}, **alice)
        at = f"{AT}/{made['id']}"
        assert (await client.get(AT, **bob))["confirmations"] == []
        await client.post(f"{at}/confirm", {}, 404, **bob)
        await client.delete(at, code=404, **bob)
        await client.post(VIRTUAL_SERVICES, virtual_service("a"), 403, Fairlead_Confirm=made["id"], **alice)
        await client.post(f"{at}/confirm", {}, 200, **root)


async def test_a_change_on_its_way_does_not_outlive_its_confirmation(tmp_path: Path) -> None:
    """Made, taken away and made again under it: while it is written, control takes everything back."""
    clock = Clock()
    async with confirming(tmp_path, clock) as (api, client):
        name = (await client.post(AT, {"timeoutSeconds": 60}))["id"]
        under: dict[str, Any] = {"Fairlead_Confirm": name}
        await client.post(VIRTUAL_SERVICES, virtual_service("a"), **under)
        await client.delete(f"{VIRTUAL_SERVICES}/a", **under)
        taken = api.confirmations.revert(name)  # by another control plane, at a time when there is none
        await client.post(VIRTUAL_SERVICES, virtual_service("a"), **under)
        with pytest.raises(ConflictError):
            await api.store.write(taken)
        await api.store.write(api.confirmations.revert(name))
        assert await hosts(client) == {} and not api.store.memory.all(RESOURCE)


async def test_a_change_under_what_was_confirmed_meanwhile_is_refused(tmp_path: Path) -> None:
    clock = Clock()
    async with confirming(tmp_path, clock) as (api, client):
        name = (await client.post(AT, {"timeoutSeconds": 60}))["id"]
        await client.post(VIRTUAL_SERVICES, virtual_service("a"), Fairlead_Confirm=name)
        write, recorded = api.store.write, cast(Any, api._recorded)

        async def slowly(writes: Any, cause: Any) -> Any:
            if not any(one.body is None for one in writes):
                recorded._store = api.store
                await client.post(f"{AT}/{name}/confirm", {}, 200)
            return await write(writes, cause)

        recorded._store = SlowStore(api.store, slowly)
        changed = virtual_service("a", "other")
        await client.ask("PATCH", f"{VIRTUAL_SERVICES}/a", {"spec": changed["spec"]}, 404, Fairlead_Confirm=name,
                         Content_Type="application/merge-patch+json")  # fmt: skip
        assert await hosts(client) == {"a": ["web"]}


class SlowStore:
    """Another one, with a write of its own."""

    def __init__(self, store: Any, write: Any) -> None:
        self._store, self.write = store, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


async def test_what_was_deleted_does_not_come_back_into_a_namespace_that_is_gone(tmp_path: Path) -> None:
    clock = Clock()
    async with confirming(tmp_path, clock) as (api, client):
        place = VIRTUAL_SERVICES.replace("default", "other")
        await client.post(place, virtual_service("a"))
        await client.post(VIRTUAL_SERVICES, virtual_service("b"))
        name = (await client.post(AT, {"timeoutSeconds": 60}))["id"]
        await client.delete(f"{place}/a", Fairlead_Confirm=name)
        await client.delete(f"{VIRTUAL_SERVICES}/b", Fairlead_Confirm=name)
        await client.delete("/api/v1/namespaces/other")
        clock.now += 61
        await taken_back(api)
        assert await hosts(client) == {"b": ["web"]}
        everywhere = await client.get("/apis/networking.istio.io/v1/virtualservices")
        assert [one["metadata"]["name"] for one in everywhere["items"]] == ["b"]
        assert "other" not in [one["metadata"]["name"] for one in (await client.get("/api/v1/namespaces"))["items"]]


async def test_what_was_deleted_does_not_come_back_into_a_namespace_that_is_ending(tmp_path: Path) -> None:
    clock = Clock()
    async with confirming(tmp_path, clock) as (api, client):
        place = VIRTUAL_SERVICES.replace("default", "other")
        held = virtual_service("held")
        held["metadata"]["finalizers"] = ["example.com/keep"]
        await client.post(place, virtual_service("a"))
        await client.post(place, held)
        name = (await client.post(AT, {"timeoutSeconds": 60}))["id"]
        await client.delete(f"{place}/a", Fairlead_Confirm=name)
        await client.delete("/api/v1/namespaces/other")
        clock.now += 61
        await taken_back(api)
        assert [one["metadata"]["name"] for one in (await client.get(place))["items"]] == ["held"]
        await client.patch(f"{place}/held", {"metadata": {"finalizers": None}})
        assert "other" not in [one["metadata"]["name"] for one in (await client.get("/api/v1/namespaces"))["items"]]
