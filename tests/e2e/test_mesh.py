"""Control, two or three sidecars and their apps as processes: identity, policy, routing, faults."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.e2e.roles import App, Role, Roles, apps, ask, client, free_port, roles_in, until

pytestmark = pytest.mark.asyncio

HOST = "web.default.svc.cluster.local"
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: http}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
ONLY_FRIENDS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends-only}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
"""


def pod(name: str, app: str, mesh_port: int, port: int = 0) -> str:
    ports = f"[{{name: http, containerPort: {port}}}]" if port else "[]"
    return f"""
apiVersion: v1
kind: Pod
metadata:
  name: {name}
  labels: {{app: {app}}}
  annotations: {{fairlead.dev/address: 127.0.0.1, fairlead.dev/mesh-port: "{mesh_port}"}}
spec:
  serviceAccountName: {app}
  containers: [{{name: main, ports: {ports}}}]
"""


class Shop:
    """web with its app; friend and stranger who call it."""

    def __init__(self, roles: Roles, app: App, session: aiohttp.ClientSession) -> None:
        self.roles = roles
        self.app = app
        self.session = session
        self.mesh_ports = {name: free_port() for name in ("web", "friend", "stranger")}
        self.sidecars: dict[str, Role] = {}
        self.control: Role | None = None
        self.url = f"http://127.0.0.1:{free_port()}"
        self.flags: tuple[str, ...] = ()
        self.workers = 1

    async def start_control(self) -> Role:
        self.control = await self.roles.start(
            "control",
            "--listen",
            self.url.removeprefix("http://"),
            "--data-dir",
            str(self.roles.folder / "control"),
            *self.flags,
        )
        return self.control

    async def apply(self, text: str) -> None:
        code, out, err = await self.roles.command("apply", "-f", "-", "--control", self.url, stdin=text.encode())
        assert code == 0, out + err

    async def start_sidecar(self, name: str) -> Role:
        token = self.roles.folder / f"{name}.token"
        if not token.exists():
            code, out, err = await self.roles.command(
                "token", "create", "--service-account", name, "--control", self.url
            )
            assert code == 0, err
            token.write_text(out)
        self.sidecars[name] = await self.roles.start(
            "sidecar", "--workload", f"default/{name}-1", "--control", self.url, "--token-file", str(token),
            "--outbound", "127.0.0.1:0", "--inbound", f"127.0.0.1:{self.mesh_ports[name]}", "--admin", "127.0.0.1:0",
            "--health", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--data-dir", str(self.roles.folder / name),
            "--workers", str(self.workers),
        )  # fmt: skip
        return self.sidecars[name]

    async def ask(self, who: str, path: str = "/") -> tuple[int, Any, Any]:
        return await ask(self.session, self.sidecars[who], HOST, path)


@contextlib.asynccontextmanager
async def shop(folder: Path, *control_flags: str, workers: int = 1) -> AsyncIterator[Shop]:
    async with roles_in(folder) as roles, apps("web") as (app,), client() as session:
        made = Shop(roles, app, session)
        made.flags = control_flags
        made.workers = workers
        await made.start_control()
        pods = [
            pod("web-1", "web", made.mesh_ports["web"], app.port),
            pod("friend-1", "friend", made.mesh_ports["friend"]),
            pod("stranger-1", "stranger", made.mesh_ports["stranger"]),
        ]
        await made.apply("---".join([SERVICE, *pods]))
        for name in ("web", "friend", "stranger"):
            await made.start_sidecar(name)
        yield made


async def test_friends_get_in_by_identity_and_strangers_are_told_which_policy_refuses_them(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh:
        status, _, told = await mesh.ask("friend")
        assert status == 200, told
        assert "spiffe://cluster.local/ns/default/sa/friend" in told["headers"]["x-forwarded-client-cert"]
        assert (await mesh.ask("stranger"))[0] == 200
        await mesh.apply(ONLY_FRIENDS)

        async def refused() -> bool:
            return (await mesh.ask("stranger"))[0] == 403

        await until("the policy to be in force", refused)
        status, headers, body = await mesh.ask("stranger")
        assert headers["x-fairlead-reason"] == "FL-DENIED"
        assert "default/friends-only" in str(body)
        assert (await mesh.ask("friend"))[0] == 200


async def test_plaintext_is_refused_where_mutual_tls_is_asked_for(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh:
        reader, writer = await asyncio.open_connection("127.0.0.1", mesh.mesh_ports["web"])
        writer.write(f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
        with contextlib.suppress(ConnectionError):
            answer = await asyncio.wait_for(reader.read(), 10)
            assert b" 200 " not in answer[:20]
        writer.close()
        assert mesh.app.seen == []


async def test_a_route_applied_through_the_api_reaches_the_sidecars(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh:
        await mesh.apply("""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec: {hosts: [web], http: [{match: [{uri: {prefix: /teapot}}], directResponse: {status: 418}}, {route: [{destination: {host: web}}]}]}
""")  # noqa: E501

        async def teapot() -> bool:
            return (await mesh.ask("friend", "/teapot"))[0] == 418

        await until("the direct response", teapot)
        assert (await mesh.ask("friend", "/else"))[0] == 200


async def test_with_control_killed_traffic_goes_on_and_sidecars_restart_from_disk(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh:
        await mesh.apply(ONLY_FRIENDS)

        async def refused() -> bool:
            return (await mesh.ask("stranger"))[0] == 403

        await until("the policy to be in force", refused)
        assert mesh.control is not None
        await mesh.control.kill()
        for _ in range(20):
            assert (await mesh.ask("friend"))[0] == 200
        for name in ("web", "friend", "stranger"):
            await mesh.sidecars[name].kill()
            await mesh.start_sidecar(name)
        assert (await mesh.ask("friend"))[0] == 200
        assert (await mesh.ask("stranger"))[0] == 403
        await mesh.start_control()
        await mesh.apply(SERVICE)
        code, out, err = await mesh.roles.command("get", "networkpolicies", "-o", "json", "--control", mesh.url)
        assert code == 0, err
        assert [item["metadata"]["name"] for item in json.loads(out)["items"]] == ["friends-only"]
        async with mesh.session.delete(
            f"{mesh.url}/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/friends-only"
        ) as answer:
            assert answer.status == 200

        async def let_in() -> bool:
            return (await mesh.ask("stranger"))[0] == 200

        await until("sidecars to follow the restarted control", let_in)


async def test_a_certificate_is_renewed_under_traffic_without_a_failed_request(tmp_path: Path) -> None:
    async with shop(tmp_path, "--certificate-ttl", "6s") as mesh:

        async def serial() -> str:
            async with mesh.session.get(mesh.sidecars["web"].url("admin", "/certs")) as answer:
                return str((await answer.json())["serial"])

        first = await serial()
        seen = {first}
        while len(seen) < 3:
            for _ in range(10):
                status, _, body = await mesh.ask("friend")
                assert status == 200, body
            seen.add(await serial())


async def test_tokens_let_nobody_be_somebody_else(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh:
        role = await mesh.roles.start(
            "sidecar", "--workload", "default/friend-1", "--control", mesh.url,
            "--token-file", str(tmp_path / "stranger.token"), "--outbound", "127.0.0.1:0", "--inbound", "off",
            "--admin", "off", "--health", "127.0.0.1:0", "--metrics", "off", wait=False,
        )  # fmt: skip

        async def told() -> bool:
            return "403" in role.log or ("not" in role.log.lower() and "friend" in role.log)

        await until("the refusal in the sidecar's log", told)
        await role.kill()


async def test_status_shows_what_each_sidecar_runs(tmp_path: Path) -> None:
    async with shop(tmp_path) as mesh:

        async def all_up_to_date() -> bool:
            code, out, _ = await mesh.roles.command("status", "-o", "json", "--control", mesh.url)
            found = json.loads(out)
            return (
                code == 0
                and len(found["sidecars"]) == 3
                and all(s["taken"] == found["version"] for s in found["sidecars"])
            )

        await until("every sidecar to run the latest version", all_up_to_date)
