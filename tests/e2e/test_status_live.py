"""Control and a sidecar as processes: kubectl, by the context of `fairlead kubeconfig`, sees what became of a rule."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.control.kubectl import Kubectl
from tests.e2e.roles import client, roles_in, until

pytestmark = pytest.mark.asyncio

KEY = "object/virtualservices.networking.istio.io/default/web"
RULE = """
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http: [{route: [{destination: {host: web}}]}]
"""


async def with_rule(stream: aiohttp.ClientResponse) -> dict[str, Any]:
    """The next message of a feed that brings the rule; there are others, and blank lines."""
    while line := await stream.content.readline():
        message: dict[str, Any] = json.loads(line) if line.strip() else {}
        if KEY in message.get("set", {}):
            return message
    raise AssertionError("the feed has ended")


async def test_kubectl_sees_who_took_a_rule_and_who_refused_it(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, client() as session:
        control = await roles.start("control", "--data-dir", "data", "--listen", "127.0.0.1:0", "--tls-listen", "off")
        url = control.url("api", "")
        code, out, error = await roles.command("kubeconfig", "--control", url, "--kubeconfig", "mesh.yaml")
        assert (code, out) == (0, "context fairlead in mesh.yaml\n"), error
        kubectl = Kubectl(tmp_path, url)
        (tmp_path / "config").write_bytes((tmp_path / "mesh.yaml").read_bytes())
        await roles.start(
            "sidecar", "--control", url, "--workload", "default/web-1", "--outbound", "127.0.0.1:0", "--inbound",
            "127.0.0.1:0", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0", "--metrics", "off", wait=False,
        )  # fmt: skip

        async def connected() -> bool:
            async with session.get(f"{url}/fairlead/v1/sidecars") as answer:
                return bool((await answer.json(content_type=None))["sidecars"])

        await until("the sidecar connects", connected)
        await kubectl.done("apply", "-f", "-", text=RULE)
        await kubectl.done("wait", "--for=condition=Reconciled", "vs/web", "--timeout=20s")
        await kubectl.done("wait", "--for=condition=ResolvedRefs=False", "vs/web", "--timeout=20s")
        assert "1/1" in await kubectl.done("get", "vs", "--no-headers")
        # A sidecar of another version, which refuses the next change.
        feed = f"{url}/fairlead/v1/feed?role=sidecar&namespace=default&workload=old"
        async with session.get(feed) as stream:
            first = (await with_rule(stream))["version"]
            old = {"role": "sidecar", "namespace": "default", "workload": "old", "accepted": True, "reasons": []}
            await session.post(f"{url}/fairlead/v1/feed/ack", json={**old, "version": first})
            await kubectl.done("apply", "-f", "-", text=RULE.replace("hosts: [web]", "hosts: [web, web2]"))
            message = await with_rule(stream)
            assert "status" not in message["set"][KEY], "it is for people"
            reasons = ["VirtualService default/web: spec.hosts[1]: too many for me"]
            refusal = {**old, "version": message["version"], "accepted": False, "reasons": reasons}
            await session.post(f"{url}/fairlead/v1/feed/ack", json=refusal)
            await kubectl.done("wait", "--for=condition=Accepted=False", "vs/web", "--timeout=20s")
            assert "too many for me" in await kubectl.done("describe", "vs", "web")
            # None of what was written into the object has been sent to anybody.
            status = json.loads((await roles.command("status", "--control", url, "-o", "json"))[1])
            assert status["version"] == message["version"]
