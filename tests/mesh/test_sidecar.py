"""Two whole sidecars in one process, a real app behind one of them: identity, plaintext, policy, renewal, drain."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from fairlead.mesh.authority import Authority
from fairlead.mesh.sidecar import Sidecar
from fairlead.mesh.sidecar_options import NamedPort, SidecarOptions
from fairlead.policy.world import World
from fairlead.registry.documents import load
from fairlead.registry.model import Workload
from tests.mesh.certificates_made import authority, material

pytestmark = pytest.mark.asyncio

DEADLINE_S = 20.0
HOST = "web.default.svc.cluster.local"
ANY = ("127.0.0.1", 0)
CA = authority()
OLD_CA, NEW_CA = authority(), authority()
MESH = """
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  selector: {{app: web}}
  ports: [{{name: http, port: 80, targetPort: {app}}}]
---
apiVersion: v1
kind: Pod
metadata:
  name: web-1
  labels: {{app: web}}
  annotations: {{fairlead.dev/address: 127.0.0.1, fairlead.dev/mesh-port: "{mesh}"}}
spec:
  serviceAccountName: web
  containers: [{{name: main, ports: [{{containerPort: {app}}}]}}]
---
apiVersion: v1
kind: Pod
metadata:
  name: client-1
  labels: {{app: client}}
  annotations: {{fairlead.dev/address: 127.0.0.2}}
spec: {{serviceAccountName: client}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {{name: all, namespace: istio-system}}
spec: {{mtls: {{mode: {mode}}}}}
"""
NO_CLIENTS = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: friends-only}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: friend}}}]}]
"""
ONE_REQUEST_A_CONNECTION = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec: {host: web, trafficPolicy: {connectionPool: {http: {maxRequestsPerConnection: 1}}}}
"""


def world(text: str) -> World:
    documents, problems = load(text, "mesh.yaml")
    assert not problems
    made, reports = World.load(documents)
    assert not [report for report in reports if report.errors]
    return made


class App:
    """Answers with the headers it was sent; holds the answer to /slow until told."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []
        self.go = asyncio.Event()
        self.held = asyncio.Event()
        self.port = 0

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                self.seen.append(head)
                if b"/slow" in head:
                    self.held.set()
                    await self.go.wait()
                body = json.dumps(head.decode("latin-1")).encode()
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body)
        writer.close()


async def ask(port: int, path: str = "/", host: str = HOST) -> tuple[int, dict[str, str], bytes]:
    """(status, headers, body); status 0: closed without an answer."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        async with asyncio.timeout(DEADLINE_S):
            writer.write(f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n".encode())
            try:
                whole = await reader.read()
            except ConnectionError:
                return 0, {}, b""
    finally:
        writer.transport.abort()
    head, _, body = whole.partition(b"\r\n\r\n")
    if not head:
        return 0, {}, b""
    lines = head.decode("latin-1").split("\r\n")
    return int(lines[0].split()[1]), dict(line.lower().split(": ", 1) for line in lines[1:]), body


class Pair:
    def __init__(self, app: App, mode: str) -> None:
        self.app = app
        self.mode = mode
        self.more = ""
        self.web = Sidecar(
            SidecarOptions(Workload(namespace="default", name="web-1"), inbound=ANY, health=ANY, admin=ANY, metrics=ANY)
        )
        self.client = Sidecar(
            SidecarOptions(Workload(namespace="default", name="client-1"), outbound=ANY, health=ANY,
                           named=(NamedPort("127.0.0.1", 0, HOST, 80),))
        )  # fmt: skip
        self.mesh_port = 0

    def update(self, *documents: str) -> None:
        text = MESH.format(app=self.app.port, mesh=self.mesh_port or 15006, mode=self.mode)
        made = world("---".join([text, *documents]))
        self.web.update(made)
        self.client.update(made)

    async def start(self, signer: Authority, certified: bool = True) -> None:
        self.update()
        if certified:
            self.web.contexts.take(material(signer, "web"))
            self.client.contexts.take(material(signer, "client"))
        self.mesh_port = port_of((await self.web.start())["inbound"])
        await self.client.start()
        self.update()

    async def ask(self, path: str = "/") -> tuple[int, dict[str, str], bytes]:
        return await ask(port_of(self.client.at["outbound"]), path)


def port_of(at: str) -> int:
    return int(at.rpartition(":")[2])


@contextlib.asynccontextmanager
async def pair(mode: str = "STRICT", signer: Authority = CA, certified: bool = True) -> AsyncIterator[Pair]:
    app = App()
    server = await asyncio.start_server(app.serve, "127.0.0.1", 0)
    app.port = server.sockets[0].getsockname()[1]
    made = Pair(app, mode)
    try:
        await made.start(signer, certified)
        yield made
    finally:
        app.go.set()
        await made.client.close()
        await made.web.close()
        server.close()


async def test_a_request_goes_from_app_to_app_over_mutual_tls_and_carries_its_identity() -> None:
    async with pair() as mesh:
        for port in ("outbound", "listen0"):
            status, _, body = await ask(port_of(mesh.client.at[port]))
            assert status == 200
            assert b"spiffe://cluster.local/ns/default/sa/client" in body
        status, _, told = await ask(port_of(mesh.web.at["metrics"]), "/stats/prometheus")
        assert status == 200
        counted = [line for line in told.decode().splitlines() if line.startswith("istio_requests_total{")]
        assert any('connection_security_policy="mutual_tls"' in line for line in counted)
        assert any('source_principal="spiffe://cluster.local/ns/default/sa/client"' in line for line in counted)


INGRESS = """
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {{name: web}}
spec:
  workloadSelector: {{labels: {{app: web}}}}
  ingress: [{{port: {{number: {app}, name: http, protocol: HTTP}}, defaultEndpoint: "unix://{socket}"}}]
  inboundConnectionPool: {{http: {{http2MaxRequests: 1}}}}
"""


async def test_what_comes_in_goes_where_the_sidecar_resource_says_and_within_its_limits(tmp_path: Path) -> None:
    other = App()
    server = await asyncio.start_unix_server(other.serve, tmp_path / "app.sock")
    async with pair() as mesh, server:
        assert (await mesh.ask())[0] == 200 and len(mesh.app.seen) == 1
        mesh.web.options = structs.replace(mesh.web.options, app_address="127.0.0.9")  # it says where the app is else
        mesh.update(INGRESS.format(app=mesh.app.port, socket=tmp_path / "app.sock"))
        assert (await mesh.ask())[0] == 200
        assert (len(mesh.app.seen), len(other.seen)) == (1, 1)
        slow = asyncio.ensure_future(mesh.ask("/slow"))
        await asyncio.wait_for(other.held.wait(), DEADLINE_S)
        status, headers, _ = await mesh.ask()
        assert (status, headers["x-fairlead-reason"]) == (503, "fl-overflow")
        other.go.set()
        assert (await slow)[0] == 200


@pytest.mark.parametrize(("mode", "status"), [("STRICT", 0), ("PERMISSIVE", 200), ("DISABLE", 200)])
async def test_plaintext_comes_in_only_where_it_is_permitted(mode: str, status: int) -> None:
    async with pair(mode) as mesh:
        assert (await ask(mesh.mesh_port))[0] == status
        assert len(mesh.app.seen) == (1 if status else 0)


async def test_a_client_cannot_write_its_own_identity() -> None:
    forged = "spiffe://cluster.local/ns/default/sa/root"
    async with pair("PERMISSIVE") as mesh:
        for port in (mesh.mesh_port, port_of(mesh.client.at["outbound"])):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(
                f"GET / HTTP/1.1\r\nhost: {HOST}\r\nconnection: close\r\n"
                f"x-forwarded-client-cert: By=x;URI={forged}\r\n\r\n".encode()
            )
            async with asyncio.timeout(DEADLINE_S):
                await reader.read()
            writer.transport.abort()
        assert len(mesh.app.seen) == 2
        assert all(forged.encode() not in head for head in mesh.app.seen)


async def test_network_policy_refuses_an_identity_and_is_named() -> None:
    async with pair() as mesh:
        assert (await mesh.ask())[0] == 200
        mesh.update(NO_CLIENTS)
        status, headers, body = await mesh.ask()
        assert (status, headers["x-fairlead-reason"]) == (403, "fl-denied")
        assert b"default/friends-only" in body
        mesh.update()
        assert (await mesh.ask())[0] == 200
        assert len(mesh.app.seen) == 2


async def test_without_certificates_nothing_is_sent_in_the_open() -> None:
    async with pair(certified=False) as mesh:
        status, _, body = await mesh.ask()
        assert status == 503
        assert b"certificate" in body
        assert mesh.app.seen == []


async def test_a_server_that_is_somebody_else_gets_no_request() -> None:
    async with pair() as mesh:
        mesh.web.contexts.take(material(CA, "somebody"))
        status, _, body = await mesh.ask()
        assert status == 503
        assert b"is not who it should be" in body
        assert mesh.app.seen == []


async def test_a_stranger_of_a_foreign_root_gets_nowhere() -> None:
    async with pair() as mesh:
        mesh.client.contexts.take(material(NEW_CA, "client", roots=NEW_CA.roots + CA.roots))
        assert (await mesh.ask())[0] == 503
        assert mesh.app.seen == []


async def test_certificates_and_roots_change_under_traffic_without_a_failed_request() -> None:
    both = OLD_CA.roots + NEW_CA.roots
    async with pair(signer=OLD_CA) as mesh:
        mesh.update(ONE_REQUEST_A_CONNECTION)  # so that every request is a handshake of its own
        statuses: list[int] = []
        asked = asyncio.Condition()
        ended = False

        async def traffic(path: str) -> None:
            while not ended:
                status, _, _ = await mesh.ask(path)
                async with asked:
                    statuses.append(status)
                    asked.notify_all()

        async def some_more() -> None:
            goal = len(statuses) + 12
            async with asyncio.timeout(DEADLINE_S), asked:
                await asked.wait_for(lambda: len(statuses) >= goal)

        tasks = [asyncio.create_task(traffic(f"/{number}")) for number in range(4)]
        sides: list[tuple[Any, str]] = [(mesh.web.contexts, "web"), (mesh.client.contexts, "client")]
        for signer, roots in ((OLD_CA, ""), (OLD_CA, both), (NEW_CA, both), (NEW_CA, "")):
            for contexts, name in sides:
                contexts.take(material(signer, name, roots=roots))
                await some_more()
        ended = True
        await asyncio.gather(*tasks)
        assert set(statuses) == {200}
        assert len(statuses) >= 8 * 12
        mesh.client.contexts.take(material(OLD_CA, "client", roots=both))
        assert (await mesh.ask())[0] == 503


async def test_a_drain_is_seen_first_then_ends_what_runs() -> None:
    async with pair() as mesh:
        assert (await ask(port_of(mesh.web.at["health"]), "/healthz/ready"))[0] == 200
        slow = asyncio.create_task(mesh.ask("/slow"))
        async with asyncio.timeout(DEADLINE_S):
            await mesh.app.held.wait()
        drain = asyncio.create_task(mesh.web.drain(DEADLINE_S))
        await asyncio.sleep(0)
        status, _, body = await ask(port_of(mesh.web.at["health"]), "/healthz/ready")
        assert (status, b"draining" in body) == (503, True)
        with pytest.raises(ConnectionError):
            await asyncio.open_connection("127.0.0.1", mesh.mesh_port)
        assert not drain.done()
        mesh.app.go.set()
        assert (await slow)[0] == 200
        await mesh.client.close()  # its idle connections to us
        async with asyncio.timeout(DEADLINE_S):
            assert await drain


async def test_not_ready_before_there_is_a_certificate_where_one_is_needed() -> None:
    subject = Sidecar(SidecarOptions(Workload(namespace="default", name="web-1"), inbound=ANY, needs_certificate=True))
    assert subject.problems() == ["no configuration yet", "no certificate yet"]
    subject.update(world(MESH.format(app=1, mesh=2, mode="STRICT")))
    assert subject.problems() == ["no certificate yet"]
    subject.contexts.take(material(CA))
    assert subject.problems() == []
    await subject.close()


async def test_the_admin_port_tells_no_secrets() -> None:
    async with pair() as mesh:
        held = mesh.web.contexts.material
        assert held is not None
        secret = held.key.splitlines()[1].encode()
        for path in ("/certs", "/config_dump", "/clusters", "/listeners", "/server_info", "/metrics"):
            status, _, body = await ask(port_of(mesh.web.at["admin"]), path)
            assert status == 200
            assert b"PRIVATE KEY" not in body
            assert secret not in body
