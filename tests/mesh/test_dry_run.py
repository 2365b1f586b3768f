"""Who was refused by which rule, and who would be: in the answer, in metrics, in the log."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from msgspec import structs

from tests.mesh.test_sidecar import MESH, Pair, ask, pair, port_of, world

pytestmark = pytest.mark.asyncio
DENY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %s, annotations: {%s}}
spec:
  selector: {matchLabels: {app: web}}
  action: %s
  rules: [{to: [{operation: {paths: [/no-such]}}]}, {to: [{operation: {paths: [/secret]}}]}]
"""
TRY = 'istio.io/dry-run: "true"'
ALLOW_NONE = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: %s, annotations: {%s}}
spec: {selector: {matchLabels: {app: web}}, rules: [{to: [{operation: {paths: [/open]}}]}]}
"""
ISOLATE = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: %s, annotations: {%s}}
spec: {podSelector: {matchLabels: {app: %s}}, policyTypes: [%s]}
"""


async def counted(mesh: Pair, name: str, of: str = "web") -> dict[str, float]:
    """Samples of a family by `policy rule`."""
    metrics = getattr(mesh, of).metrics
    found = {}
    for line in metrics.lines():
        if line.startswith(name + "{"):
            labels = dict(part.split("=", 1) for part in line[len(name) + 1 : line.index("}")].split(","))
            found[f"{labels['policy']} {labels['rule']}".replace('"', "").strip()] = float(line.rpartition(" ")[2])
    return found


async def logged(path: Path, mesh: Pair, wanted: int) -> list[str]:
    async with asyncio.timeout(20):
        while len(lines := path.read_text().splitlines() if path.exists() else []) < wanted:
            await asyncio.sleep(0.02)
    return lines


async def test_a_denial_names_policy_and_rule_in_answer_log_and_metrics(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    async with pair("PERMISSIVE") as mesh:
        mesh.web.options = structs.replace(mesh.web.options, access_log=str(log))
        mesh.update(DENY % ("no", "", "DENY"))
        status, headers, body = await mesh.ask("/secret")
        assert (status, headers["x-fairlead-reason"]) == (403, "fl-denied")
        assert body == b"AuthorizationPolicy default/no rule 1 (DENY) matches\n"
        mesh.update(ALLOW_NONE % ("few", ""))
        assert b"no rule of AuthorizationPolicy default/few" in (await mesh.ask())[2]
        mesh.update(ISOLATE % ("shut", "", "web", "Ingress"))
        assert (await mesh.ask())[0] == 403
        name = "fairlead_policy_denials_total"
        assert await counted(mesh, name) == {
            "AuthorizationPolicy default/no 1": 1, "AuthorizationPolicy default/few": 1,
            "NetworkPolicy default/shut": 1,
        }  # fmt: skip
        lines = await logged(log, mesh, 3)
        assert lines[0].endswith('"-" FL-DENIED "AuthorizationPolicy default/no rule 1"')
        assert lines[2].endswith('"-" FL-DENIED "NetworkPolicy default/shut"')
        mesh.update(ISOLATE % ("stay", "", "client", "Egress"))
        assert (await mesh.ask())[0] == 403
        assert await counted(mesh, name, "client") == {"NetworkPolicy default/stay": 1}


async def test_plaintext_that_is_refused_names_the_peer_authentication() -> None:
    async with pair("STRICT") as mesh:
        assert (await ask(mesh.mesh_port))[0] == 0
        assert await counted(mesh, "fairlead_policy_denials_total") == {"PeerAuthentication istio-system/all": 1}


async def test_policies_that_are_tried_out_refuse_nothing_and_count_what_they_would(tmp_path: Path) -> None:
    log = tmp_path / "access.log"
    name = "fairlead_policy_dry_run_denials_total"
    async with pair("PERMISSIVE") as mesh:
        mesh.web.options = structs.replace(mesh.web.options, access_log=str(log))
        mesh.update(DENY % ("no", TRY, "DENY"), ALLOW_NONE % ("few", TRY))
        for path in ("/secret", "/open", "/open", "/else"):
            assert (await mesh.ask(path))[0] == 200
        assert await counted(mesh, name) == {
            "AuthorizationPolicy default/no 1": 1, "AuthorizationPolicy default/few": 2,
        }  # fmt: skip
        lines = await logged(log, mesh, 4)
        assert lines[0].endswith(
            '- "dry-run AuthorizationPolicy default/no rule 1; dry-run AuthorizationPolicy default/few"'
        )
        assert lines[1].endswith('" -')
        # Beside an ALLOW in force, one that is tried out can only open; what is refused as it is counts for none.
        mesh.update(DENY % ("no", TRY, "DENY"), ALLOW_NONE % ("few", TRY), ALLOW_NONE % ("now", ""))
        assert [(await mesh.ask(path))[0] for path in ("/secret", "/open")] == [403, 200]
        assert (await counted(mesh, name))["AuthorizationPolicy default/few"] == 2
        assert await counted(mesh, "fairlead_policy_denials_total") == {"AuthorizationPolicy default/now": 1}


async def test_network_policies_are_tried_out_in_both_directions() -> None:
    name = "fairlead_policy_dry_run_denials_total"
    ours = 'fairlead.dev/dry-run: "true"'
    async with pair("PERMISSIVE") as mesh:
        mesh.update(ISOLATE % ("shut", ours, "web", "Ingress"), ISOLATE % ("stay", ours, "client", "Egress"))
        assert (await mesh.ask())[0] == 200
        assert await counted(mesh, name) == {"NetworkPolicy default/shut": 1}
        assert await counted(mesh, name, "client") == {"NetworkPolicy default/stay": 1}
        assert (await ask(mesh.mesh_port))[0] == 200  # from its own address: traffic with itself
        mesh.update(ISOLATE % ("shut", ours, "web", "Ingress"), ISOLATE % ("real", "", "web", "Ingress"))
        assert (await mesh.ask())[0] == 403
        assert await counted(mesh, name) == {"NetworkPolicy default/shut": 1}


async def test_a_connection_that_lives_is_counted_when_metrics_are_asked_and_not_again_at_its_end() -> None:
    name = "fairlead_policy_dry_run_denials_total"
    async with pair("PERMISSIVE") as mesh:
        text = MESH.replace("name: http", "name: tcp").format(app=mesh.app.port, mesh=mesh.mesh_port, mode="PERMISSIVE")
        mesh.client.update(world(text + "---" + ISOLATE % ("stay", TRY, "client", "Egress")))
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(mesh.client.at["listen0"]))
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")
        assert mesh.client.engine is not None and len(mesh.client.engine.sessions) == 1
        for _ in range(2):
            assert await counted(mesh, name, "client") == {"NetworkPolicy default/stay": 1}
        writer.close()
        async with asyncio.timeout(20):
            while len(mesh.client.engine.sessions):
                await asyncio.sleep(0.01)
        assert await counted(mesh, name, "client") == {"NetworkPolicy default/stay": 1}


async def test_audits_are_counted_whatever_becomes_of_the_request() -> None:
    async with pair("PERMISSIVE") as mesh:
        mesh.update(DENY % ("look", "", "AUDIT"), ALLOW_NONE % ("few", ""))
        assert (await mesh.ask("/secret"))[0] == 403
        assert (await mesh.ask("/open"))[0] == 200
        assert await counted(mesh, "fairlead_policy_audit_total") == {"AuthorizationPolicy default/look 1": 1}
