"""The guard before STRICT, by every verb of the API; and who may read and write the ledger."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from fairlead.control.mtls_api import MtlsApi
from fairlead.control.plaintext import Forgotten, PlaintextLedger, Report
from fairlead.registry.model import Workload
from fairlead.registry.snapshot import Snapshot
from tests.control.serving import Client, api_in

pytestmark = pytest.mark.asyncio
PEERS = "/apis/security.istio.io/v1/namespaces/shop/peerauthentications"
RESOURCES = frozenset(("peerauthentications.security.istio.io", "meshconfigs.fairlead.dev"))
SNAPSHOT = Snapshot(workloads={"shop/web-1": Workload("shop", "web-1", labels={"app": "web"})})
NOW = 1_000_000_000.0


def policy(mode: str, name: str = "default", selector: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    spec: dict[str, Any] = {"mtls": {"mode": mode}}
    if selector:
        spec["selector"] = {"matchLabels": selector}
    return {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication",
            "metadata": {"name": name, **metadata}, "spec": spec}  # fmt: skip


class Guarded:
    """A client of an API, and the ledger behind its guard."""

    def __init__(self, client: Client, ledger: PlaintextLedger) -> None:
        self.client = client
        self.ledger = ledger
        self.post, self.put, self.patch = client.post, client.put, client.patch
        self.get, self.delete = client.get, client.delete


@pytest_asyncio.fixture
async def client(tmp_path: Path) -> AsyncIterator[Guarded]:
    async with api_in(tmp_path) as (api, made):
        mtls = MtlsApi(
            tmp_path / "plaintext.json", lambda path, data: None, lambda: api.objects(RESOURCES), lambda: SNAPSHOT,
            lambda request, namespace, workload: None, lambda: NOW,
        )  # fmt: skip
        api.operations.guards.append(mtls.guard)
        yield Guarded(made, mtls.ledger)


def plaintext(client: Guarded) -> None:
    client.ledger.take("shop/web-1", [Report("10.0.0.7", 80, 4, 0, 60, 30)], SNAPSHOT, NOW)


async def test_every_way_to_strict_is_refused_while_somebody_comes_in_plaintext(client: Guarded) -> None:
    await client.post(PEERS, policy("PERMISSIVE"))
    plaintext(client)
    strict = {"spec": {"mtls": {"mode": "STRICT"}}}
    for answer in (
        await client.post(PEERS, policy("STRICT", "web", {"app": "web"}), 403),
        await client.patch(f"{PEERS}/default", strict, code=403),
        await client.patch(f"{PEERS}/default", [{"op": "replace", "path": "/spec/mtls/mode", "value": "STRICT"}],
                           "json-patch+json", 403),
        await client.put(f"{PEERS}/default", policy("STRICT"), 403),
        await client.patch(f"{PEERS}/default?fieldManager=me&force=true", policy("STRICT"), "apply-patch+yaml", 403),
        await client.patch(f"{PEERS}/default?dryRun=All", strict, code=403),
    ):  # fmt: skip
        assert answer["reason"] == "Forbidden"
        assert "shop/web-1 port 80: 10.0.0.7, 4 connections, last 30 s ago" in answer["message"]
        assert "fairlead.dev/force" in answer["message"]
    assert (await client.get(f"{PEERS}/default"))["spec"]["mtls"]["mode"] == "PERMISSIVE"


async def test_what_changes_nothing_for_them_or_is_forced_passes(client: Guarded) -> None:
    await client.post(PEERS, policy("PERMISSIVE"))
    plaintext(client)
    await client.post(PEERS, policy("STRICT", "cart", {"app": "cart"}))
    await client.post(PEERS.replace("shop", "other"), policy("STRICT"))
    await client.patch(f"{PEERS}/default", {"metadata": {"labels": {"a": "b"}}})
    await client.patch(f"{PEERS}/default", {"spec": {"mtls": {"mode": "DISABLE"}}})
    forced = {"metadata": {"annotations": {"fairlead.dev/force": "true"}}, "spec": {"mtls": {"mode": "STRICT"}}}
    await client.patch(f"{PEERS}/default", forced)


async def test_another_root_namespace_is_a_switch_to_strict_too(client: Guarded) -> None:
    plaintext(client)
    await client.post(PEERS.replace("shop", "elsewhere"), policy("STRICT"))
    settings: dict[str, Any] = {"metadata": {"name": "default"}, "spec": {"rootNamespace": "elsewhere"}}
    answer = await client.post("/apis/fairlead.dev/v1/meshconfigs", settings, 403)
    assert "10.0.0.7" in answer["message"] and "meshconfigs" in answer["message"]
    settings["metadata"]["annotations"] = {"fairlead.dev/force": "true"}
    await client.post("/apis/fairlead.dev/v1/meshconfigs", settings)


async def test_taking_an_exception_away_is_a_switch_to_strict_too(client: Guarded) -> None:
    await client.post(PEERS, policy("STRICT"))
    await client.post(PEERS, policy("PERMISSIVE", "loose", {"app": "web"}))
    plaintext(client)
    answer = await client.delete(f"{PEERS}/loose", code=403)
    assert "STRICT would refuse" in answer["message"]
    await client.delete(f"{PEERS}?fieldSelector=metadata.name%3Dloose", code=403)
    client.ledger.drop([Forgotten("shop", at=NOW)])
    await client.delete(f"{PEERS}/loose")


async def test_what_goes_with_something_else_is_asked_for_too(client: Guarded) -> None:
    """With its namespace, with its owner, with its last finalizer: each takes the exception away as well."""
    services, root = "/api/v1/namespaces/shop/services", PEERS.replace("/shop/", "/istio-system/")
    await client.post(root, policy("STRICT"))
    made = await client.post(services, {"metadata": {"name": "own"}, "spec": {"ports": [{"port": 80}]}})
    owner = {"apiVersion": "v1", "kind": "Service", "name": "own", "uid": made["metadata"]["uid"]}
    await client.post(PEERS, policy("PERMISSIVE", "loose", ownerReferences=[owner]))
    plaintext(client)
    for path in (f"{services}/own", services, "/api/v1/namespaces/shop"):
        answer = await client.delete(path, code=403)
        assert "STRICT would refuse" in answer["message"]
    assert (await client.get(f"{PEERS}/loose"))["spec"]["mtls"]["mode"] == "PERMISSIVE"
    await client.delete(f"{services}/own?propagationPolicy=Orphan")
    await client.patch(f"{PEERS}/loose", {"metadata": {"annotations": {"fairlead.dev/force": "true"}}})
    await client.delete("/api/v1/namespaces/shop")


async def test_exceptions_that_go_together_are_judged_together(client: Guarded) -> None:
    history = "/fairlead/v1/history/rollback"
    made = await client.post(PEERS, policy("STRICT"))
    await client.put(f"{PEERS}/default", policy("PERMISSIVE"))
    await client.post(PEERS, policy("PERMISSIVE", "web", {"app": "web"}))
    plaintext(client)
    before = {"revision": int(made["metadata"]["resourceVersion"]), "resource": "peerauthentications.security.istio.io"}
    assert "10.0.0.7" in (await client.post(history, before, 403))["message"]
    await client.post(PEERS.replace("shop", "istio-system"), policy("STRICT"))  # each exception alone would do
    assert "10.0.0.7" in (await client.delete(PEERS, code=403))["message"]
    assert len((await client.get(PEERS))["items"]) == 2


async def test_the_force_of_an_apply_counts_for_strict_too(client: Guarded) -> None:
    plaintext(client)
    await client.post(PEERS, policy("STRICT"), 403)
    await client.post(PEERS, policy("STRICT"), Fairlead_Force="true")
