"""Objects of the store as facts, and the world as it was at an earlier revision (`past`)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.past import objects_at, world_at
from fairlead.control.store import CompactedError
from fairlead.control.stored_facts import kept_facts
from fairlead.registry.model import Facts, Service, ServicePort
from tests.control.serving import SERVICES, VIRTUAL_SERVICES, api_in, service, virtual_service

pytestmark = pytest.mark.asyncio
WEB = "web.default.svc.cluster.local"
RULES, PLACES = "virtualservices.networking.istio.io", "services"


async def test_facts_are_those_of_the_wanted_resources_and_follow_the_store(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        await client.post(SERVICES, service("web"))
        await client.post(VIRTUAL_SERVICES, virtual_service("rule"))
        kept = kept_facts(api, {PLACES})
        assert list(kept.facts.services) == [WEB]
        assert not kept_facts(api, {RULES}).facts.services
        await client.post(SERVICES, service("db"))
        changed = kept.take(["object/services/default/db"])
        assert changed.hosts == {"db.default.svc.cluster.local"}
        await client.delete(f"{SERVICES}/web")
        kept.take(["object/services/default/web"])
        assert list(kept.facts.services) == ["db.default.svc.cluster.local"]


async def test_what_was_changed_made_and_deleted_since_is_as_it_was(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        made = await client.post(VIRTUAL_SERVICES, virtual_service("changed", "old"))
        await client.post(VIRTUAL_SERVICES, virtual_service("deleted"))
        await client.post(VIRTUAL_SERVICES, virtual_service("same"))
        revision = api.store.memory.revision
        await client.put(f"{VIRTUAL_SERVICES}/changed", {**made, "spec": {**made["spec"], "hosts": ["new"]}})
        await client.delete(f"{VIRTUAL_SERVICES}/deleted")
        await client.post(VIRTUAL_SERVICES, virtual_service("later"))
        await client.post(SERVICES, service("web"))
        then = objects_at(api, {RULES}, revision)
        names = {key.rsplit("/", 1)[1]: body["spec"]["hosts"] for key, body in then.items()}
        assert names == {"changed": ["old"], "deleted": ["web"], "same": ["web"]}
        assert all(body["kind"] == "VirtualService" for body in then.values())
        assert objects_at(api, {RULES}, api.store.memory.revision) == api.objects({RULES})


async def test_a_revision_that_is_forgotten_is_told(tmp_path: Path) -> None:
    async with api_in(tmp_path) as (api, client):
        await client.post(SERVICES, service("web"))
        api.store.memory.log.floor = api.store.memory.revision
        with pytest.raises(CompactedError):
            objects_at(api, {PLACES}, api.store.memory.revision - 1)


async def test_a_world_of_the_past_has_its_own_facts_before_those_of_others() -> None:
    rules: dict[str, Any] = {f"object/{RULES}/default/r": {"kind": "VirtualService", "spec": {}}}
    facts = {"object/services/default/web": {"apiVersion": "v1", **service("web", namespace="default")}}
    far = (ServicePort(9999, "far"),)
    others = [
        ("consul", Facts(services={WEB: Service(WEB, "default", "web", far), "db.x": Service("db.x", "x", "db")}))
    ]
    told = json.loads(world_at(rules, facts, others, ("control", "consul")))
    assert told["full"] is True
    assert set(told["set"]) >= {f"object/{RULES}/default/r", f"service/{WEB}", "service/db.x"}
    assert [port["name"] for port in told["set"][f"service/{WEB}"]["ports"]] == ["http"]
    told = json.loads(world_at(rules, facts, others, ("consul", "control")))
    assert [port["name"] for port in told["set"][f"service/{WEB}"]["ports"]] == ["far"]
