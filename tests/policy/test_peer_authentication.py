"""The mutual TLS mode of a port: levels, age, inheritance, the workload's port."""

from __future__ import annotations

from itertools import product

import pytest

from fairlead.policy.compile_inbound import inbound_of
from fairlead.policy.decide import peer_verdict
from fairlead.policy.peer import Peer
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


LEVELS = (None, "UNSET", "STRICT", "PERMISSIVE", "DISABLE")


def test_every_combination_of_mesh_namespace_workload_and_port_is_as_istio_says() -> None:
    """Held against the rule in words: the narrowest level that says something other than UNSET; a port's needs a
    workload's object."""
    for mesh, namespace, workload, port in product(LEVELS, repeat=4):
        text = policy(f"{{mtls: {{mode: {mesh}}}}}", "istio-system", "m") if mesh else ""
        text += policy(f"{{mtls: {{mode: {namespace}}}}}", name="n") if namespace else ""
        if workload or port:
            mtls = f", mtls: {{mode: {workload}}}" if workload else ""
            ports = f", portLevelMtls: {{'8080': {{mode: {port}}}}}" if port else ""
            text += policy(f"{{{SELECTED}{mtls}{ports}}}", name="w")
        world = World(POD + text)
        said = [mode for mode in (port, workload, namespace, mesh) if mode not in (None, "UNSET")]
        wanted = said[0] if said else "PERMISSIVE"
        other = [mode for mode in (workload, namespace, mesh) if mode not in (None, "UNSET")]
        inbound = inbound_of(world.resources, world.snapshot, world.workloads["a/web"])
        assert inbound.mode(8080).mode == wanted, (mesh, namespace, workload, port)
        assert inbound.mode(81).mode == (other[0] if other else "PERMISSIVE")
        for mutual in (True, False):
            verdict = peer_verdict(inbound, Peer(ip="10.0.0.9"), 8080, mutual)
            assert verdict.allowed == (wanted == "PERMISSIVE" or (wanted == "STRICT") == mutual)
            assert verdict.allowed or verdict.by.startswith("PeerAuthentication ")
