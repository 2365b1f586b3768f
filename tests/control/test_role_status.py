"""Statuses and events as they arrive in the store, and as kubectl shows and waits for them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from fairlead.control.feed_server import FeedServer, Member
from fairlead.control.push import Book
from fairlead.control.role_status import StatusWriter, seats
from fairlead.control.store import Change
from fairlead.registry.snapshot import Snapshot
from tests.control.kubectl import Kubectl
from tests.control.serving import api_in

pytestmark = pytest.mark.asyncio

RULE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: NAME}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: web}}]}]
"""


def member(name: str, taken: str = "", role: str = "sidecar") -> Member:
    return Member(role, "default", name, "", 0, "", {}, [], 0.0, taken=taken)


class Mesh:
    """Control without its registry: API, book, feed and what writes statuses; sidecars are entries of the feed."""

    def __init__(self, api: Any, kubectl: Kubectl) -> None:
        self.api, self.kubectl = api, kubectl
        self.book = Book("e")
        self.feed = FeedServer(self.book, lambda *_: None, lambda: None)
        self.rules: dict[str, dict[str, Any]] = {}
        api.subscribe(self._changed, {"virtualservices.networking.istio.io"}, status=False)
        self.writer = StatusWriter(
            api.store, api.catalog, self.book, self.feed, lambda: self.rules, Snapshot
        )  # fmt: skip

    def _changed(self, changed: Any) -> None:
        self.rules = {key: value for key, value in {**self.rules, **changed}.items() if value is not None}
        self.book.objects(changed)

    def all_take(self) -> None:
        for one in self.feed.members.values():
            one.taken, one.refused = self.book.version, ""
        self.feed._tell_heard()


@contextlib.asynccontextmanager
async def mesh_in(folder: Path) -> AsyncIterator[Mesh]:
    async with api_in(folder) as (api, client):
        mesh = Mesh(api, Kubectl(folder, client.url))
        work = asyncio.create_task(mesh.writer.run())
        try:
            yield mesh
        finally:
            work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            mesh.writer.close()


async def test_kubectl_waits_until_every_sidecar_runs_a_rule_and_shows_it(tmp_path: Path) -> None:
    async with mesh_in(tmp_path) as mesh:
        mesh.feed.members = {f"sidecar/default/w{n}": member(f"w{n}") for n in range(1000)}
        await mesh.kubectl.done("apply", "-f", "-", text=RULE.replace("NAME", "web"))
        waiting = await mesh.kubectl.start("wait", "--for=condition=Reconciled", "vs/web", "--timeout=20s")
        mesh.all_take()
        out, error = await waiting.communicate()
        assert waiting.returncode == 0, out + error
        assert "1000/1000" in await mesh.kubectl.done("get", "vs", "--no-headers")
        assert mesh.writer.written <= 2, "one write for it, and one for what others make of it"
        again = await mesh.kubectl.done("apply", "-f", "-", text=RULE.replace("NAME", "web"))
        assert again.strip().endswith("unchanged")


async def test_a_refusal_is_shown_with_its_reason_and_in_the_events(tmp_path: Path) -> None:
    async with mesh_in(tmp_path) as mesh:
        mesh.feed.members = {"sidecar/default/a": member("a"), "gateway/default/g": member("g", role="gateway")}
        await mesh.kubectl.done("apply", "-f", "-", text=RULE.replace("NAME", "web"))
        old = mesh.feed.members["sidecar/default/a"]
        old.refused, old.reasons = mesh.book.version, ["VirtualService default/web: spec.http: too new"]
        mesh.feed.members["gateway/default/g"].taken = mesh.book.version
        mesh.feed._tell_heard()
        await mesh.kubectl.done("wait", "--for=condition=Accepted=False", "vs/web", "--timeout=20s")
        shown = await mesh.kubectl.done("get", "vs", "-o", "wide")
        assert "Refused" in shown and "1/2" in shown and "default/a: VirtualService default/web" in shown
        described = await mesh.kubectl.done("describe", "vs", "web")
        assert "Warning  Refused" in described and "fairlead-control" in described
        assert "spec.http: too new" in await mesh.kubectl.done("events", "--for", "vs/web", "--types=Warning")
        mesh.all_take()
        await mesh.kubectl.done("wait", "--for=condition=Accepted", "vs/web", "--timeout=20s")
        await mesh.kubectl.done("wait", "--for=jsonpath={.status.sidecars.running}=2", "vs/web", "--timeout=20s")
        assert "Normal   Reconciled" in await mesh.kubectl.done("describe", "vs", "web")


async def test_of_two_rules_for_one_host_the_younger_says_so(tmp_path: Path) -> None:
    async with mesh_in(tmp_path) as mesh:
        for name in ("a", "b"):
            await mesh.kubectl.done("apply", "-f", "-", text=RULE.replace("NAME", name))
        await mesh.kubectl.done("wait", "--for=condition=Conflicted", "vs/b", "--timeout=20s")
        shown = await mesh.kubectl.done("get", "vs", "b", "-o", "wide")
        assert "Conflicted" in shown and "VirtualService default/a already" in shown
        await mesh.kubectl.done("delete", "vs", "a")
        mesh.writer.reconciler._told.clear()  # not to wait for the pause between two words about others
        await mesh.kubectl.done("wait", "--for=condition=Conflicted=False", "vs/b", "--timeout=20s")


async def test_a_status_changes_nothing_for_sidecars_and_not_the_generation(tmp_path: Path) -> None:
    async with mesh_in(tmp_path) as mesh:
        told: list[Change] = []
        mesh.api.store.memory.subscribe(told.extend)
        await mesh.kubectl.done("apply", "-f", "-", text=RULE.replace("NAME", "web"))
        number = mesh.book.number
        await mesh.kubectl.done("wait", "--for=condition=Reconciled", "vs/web", "--timeout=20s")
        assert mesh.book.number == number
        found = await mesh.kubectl.json("get", "vs", "web", "--show-managed-fields")
        assert found["metadata"]["generation"] == found["status"]["observedGeneration"] == 1
        managers = {(one["manager"], one.get("subresource", "")) for one in found["metadata"]["managedFields"]}
        assert ("fairlead-control", "status") in managers
        # Who replaces the object leaves its status alone, and who wants to can write it.
        found["status"] = {}
        del found["metadata"]["resourceVersion"]  # control may write more into the status meanwhile
        replaced = await mesh.kubectl.done("replace", "-f", "-", "-o", "jsonpath={.status.observedGeneration}",
                                           text=json.dumps(found))  # fmt: skip
        assert replaced == "1"
        await mesh.kubectl.done("patch", "vs", "web", "--subresource=status", "--type=merge", "-p",
                                '{"status":{"mine":"yes"}}')  # fmt: skip
        assert await mesh.kubectl.done("get", "vs", "web", "-o", "jsonpath={.status.mine}") == "yes"


async def test_dns_servers_have_no_say() -> None:
    members = [member("a", "e.3"), member("d", "e.1", "dns"), member("g", "x.9", "gateway")]
    assert [(seat.name, seat.runs) for seat in seats(members, "e")] == [("default/a", 3), ("default/g", -1)]
