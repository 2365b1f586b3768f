"""The mutual TLS mode of a port: levels, age, inheritance, the workload's port."""

from __future__ import annotations

import pytest

from fairlead.policy.peer_authentication import peer_mode
from tests.policy.worlds import World

POD = "kind: Pod\nmetadata: {name: web, namespace: a, labels: {app: web}}\n---\n"


def policy(spec: str, namespace: str = "a", name: str = "p", created: int = 0) -> str:
    return (
        f"kind: PeerAuthentication\nmetadata: {{name: {name}, namespace: {namespace}, created: {created}}}\n"
        f"spec: {spec}\n---\n"
    )


MESH = policy("{mtls: {mode: STRICT}}", "istio-system", "mesh")
SELECTED = "selector: {matchLabels: {app: web}}"


@pytest.mark.parametrize(
    ("text", "mode", "by"),
    [
        ("", "PERMISSIVE", ""),
        (MESH, "STRICT", "PeerAuthentication istio-system/mesh"),
        (MESH + policy("{mtls: {mode: DISABLE}}"), "DISABLE", "PeerAuthentication a/p"),
        (MESH + policy("{mtls: {mode: UNSET}}"), "STRICT", "PeerAuthentication istio-system/mesh"),
        (MESH + policy("{}"), "STRICT", "PeerAuthentication istio-system/mesh"),
        (MESH + policy("{mtls: {mode: PERMISSIVE}}", "b"), "STRICT", "PeerAuthentication istio-system/mesh"),
        (MESH + policy(f"{{{SELECTED}, mtls: {{mode: PERMISSIVE}}}}"), "PERMISSIVE", "PeerAuthentication a/p"),
        (
            MESH + policy("{selector: {matchLabels: {app: other}}, mtls: {mode: DISABLE}}"),
            "STRICT",
            "PeerAuthentication istio-system/mesh",
        ),
        (policy(f"{{{SELECTED}, mtls: {{mode: STRICT}}}}", "istio-system"), "PERMISSIVE", ""),
        (
            policy("{mtls: {mode: STRICT}}", name="a", created=2)
            + policy("{mtls: {mode: DISABLE}}", name="b", created=1),
            "DISABLE",
            "PeerAuthentication a/b",
        ),
        (
            policy(f"{{{SELECTED}, mtls: {{mode: STRICT}}, portLevelMtls: {{'8080': {{mode: DISABLE}}}}}}"),
            "DISABLE",
            "PeerAuthentication a/p port 8080",
        ),
        (
            policy(f"{{{SELECTED}, mtls: {{mode: STRICT}}, portLevelMtls: {{'80': {{mode: DISABLE}}}}}}"),
            "STRICT",
            "PeerAuthentication a/p",
        ),
        (
            policy(f"{{{SELECTED}, mtls: {{mode: STRICT}}, portLevelMtls: {{'8080': {{mode: UNSET}}}}}}"),
            "STRICT",
            "PeerAuthentication a/p",
        ),
    ],
)
def test_modes(text: str, mode: str, by: str) -> None:
    world = World(POD + text)
    found = peer_mode(world.resources.peer_authentications, "istio-system", world.workloads["a/web"], 8080)
    assert (found.mode, found.by) == (mode, by)
