"""A real Envoy as a member of the mesh, fed by control's xDS, with mutual TLS to and from sidecars of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.roles import free_port, until
from tests.e2e.xds_mesh import STRICT, host, mesh_in, pod, service, told

pytestmark = pytest.mark.asyncio

ONLY_FRIENDS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends-only}
spec:
  podSelector: {matchLabels: {app: theirs}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
"""


@pytest.mark.parametrize("protocol", ["delta", "state of the world"])
async def test_envoy_reaches_our_sidecar_and_is_reached_by_mutual_tls(tmp_path: Path, protocol: str) -> None:
    flags = ["--state-of-the-world"] if protocol != "delta" else []
    async with mesh_in(tmp_path, "ours", "theirs") as (mesh, (ours, theirs)):
        at = {name: free_port() for name in ("ours", "theirs", "friend")}
        await mesh.apply(
            STRICT, service("ours"), service("theirs"), pod("ours-1", "ours", at["ours"], ours.port),
            pod("theirs-1", "theirs", 0, theirs.port), pod("friend-1", "friend"), pod("stranger-1", "stranger"),
        )  # fmt: skip
        await mesh.sidecar("default/ours-1", "ours", at["ours"])
        friend = await mesh.sidecar("default/friend-1", "friend", at["friend"])
        envoy = await mesh.envoy("default/theirs-1", "theirs", at["theirs"], *flags)

        # Envoy to our sidecar: it shows its identity, and ours is one that the service may have.
        text = await mesh.until_answers(envoy.outbound, host("ours"))
        assert "spiffe://cluster.local/ns/default/sa/theirs" in told(text)["headers"]["x-forwarded-client-cert"]
        assert told(text)["app"] == "ours"
        assert (await mesh.ask(envoy.outbound, "ours:80"))[0] == 200
        # Our sidecar to Envoy.
        text = await mesh.until_answers(friend.url("outbound", ""), host("theirs"))
        assert told(text)["app"] == "theirs"
        assert "spiffe://cluster.local/ns/default/sa/friend" in told(text)["headers"]["x-forwarded-client-cert"]

        # What control knows of it.
        async def runs() -> bool:
            member = await mesh.member("default/theirs-1")
            return member is not None and bool(member["taken"]) and member["taken"] == member["offered"]

        await until("control to hear what Envoy runs", runs)
        member = await mesh.member("default/theirs-1")
        assert member is not None
        assert (member["proxy"], member["mesh_port"], member["refused"]) == ("envoy", at["theirs"], "")

        # NetworkPolicy in Envoy.
        await mesh.apply(ONLY_FRIENDS)
        stranger = await mesh.sidecar("default/stranger-1", "stranger", free_port())
        await mesh.until_answers(stranger.url("outbound", ""), host("theirs"), 403)
        assert (await mesh.ask(friend.url("outbound", ""), host("theirs")))[0] == 200

        # An endpoint that is gone is gone from Envoy.
        await mesh.delete("pod", "ours-1")
        await mesh.until_answers(envoy.outbound, host("ours"), 503)
