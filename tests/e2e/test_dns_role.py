"""`fairlead dns` as a process: from manifests, from Consul, from etcd, from control."""

from __future__ import annotations

import asyncio
import contextlib
from pathlib import Path

import dns.asyncresolver
import dns.resolver
import pytest

from tests.e2e.roles import Role, roles_in, until
from tests.registry import test_source_docker, test_source_marathon, test_source_nomad
from tests.registry.api_server import Recorded, recorded
from tests.servers import consul, etcd

pytestmark = pytest.mark.asyncio
WEB = "web.default.svc.cluster.local"
MANIFESTS = """
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec: {{selector: {{app: web}}, ports: [{{name: http, port: 80, targetPort: 8080}}]}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web-1, labels: {{app: web}}}}
status: {{podIP: 10.0.0.1, conditions: [{{type: Ready, status: "{ready}"}}]}}
"""
FLAGS = ("--listen", "127.0.0.1:0", "--health", "127.0.0.1:0", "--upstream", "off")


async def ask(role: Role, name: str, kind: str = "A") -> set[str]:
    host, _, port = role.at["dns"].rpartition(":")
    resolver = dns.asyncresolver.Resolver(configure=False)
    resolver.nameservers, resolver.port, resolver.lifetime = [host], int(port), 5.0
    resolver.cache = None
    with contextlib.suppress(dns.resolver.NXDOMAIN, dns.resolver.NoAnswer, dns.resolver.NoNameservers):
        return {str(record) for record in await resolver.resolve(name, kind, search=False)}
    return set()


async def becomes(role: Role, name: str, expected: set[str], kind: str = "A") -> None:
    async def is_so() -> bool:
        return await ask(role, name, kind) == expected

    await until(f"{name} {kind} to be {expected}", is_so)


async def test_answers_follow_manifests(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        path = tmp_path / "web.yaml"
        path.write_text(MANIFESTS.format(ready="True"))
        role = await roles.start("dns", "-f", str(path), *FLAGS)
        assert await ask(role, WEB) == {"10.0.0.1"}
        assert await ask(role, f"_http._tcp.{WEB}", "SRV") == {"0 1 8080 10-0-0-1.web.default.svc.cluster.local."}
        path.write_text(MANIFESTS.format(ready="False"))
        await becomes(role, WEB, set())
        path.write_text("kind: [")
        await asyncio.wait_for(told(role, "web.yaml"), 10)
        path.write_text(MANIFESTS.format(ready="True"))
        await becomes(role, WEB, {"10.0.0.1"})
        assert await role.stop() == 0


async def told(role: Role, text: str) -> None:
    async def is_so() -> bool:
        return text in role.log

    await until(f"{text} in the log", is_so)


async def test_answers_follow_consul_and_start_cold_without_it(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, consul(tmp_path) as server:
        await server.register("web", "web-1", 8001, Address="10.0.0.1")
        flags = (*FLAGS, "--consul", server.url, "--data-dir", str(tmp_path / "kept"))
        role = await roles.start("dns", *flags)
        await becomes(role, WEB, {"10.0.0.1"})
        await server.register("web", "web-2", 8001, Address="10.0.0.2")
        await becomes(role, WEB, {"10.0.0.1", "10.0.0.2"})
        await server.put("/v1/agent/service/deregister/web-1")
        await becomes(role, WEB, {"10.0.0.2"})
        await role.kill()
        await server.kill()
        again = await roles.start("dns", *flags)
        assert await ask(again, WEB) == {"10.0.0.2"}


async def test_answers_follow_etcd(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, etcd(tmp_path) as server:
        await server.put("/services/web/1", {"host": "10.0.0.1", "port": 8001})
        role = await roles.start("dns", *FLAGS, "--etcd", server.url)
        await becomes(role, WEB, {"10.0.0.1"})
        await server.put("/services/web/1", {"host": "10.0.0.1", "port": 8001, "ready": False})
        await becomes(role, WEB, set())


async def test_answers_follow_nomad_docker_and_marathon(tmp_path: Path) -> None:
    def all_three(server: Recorded) -> None:
        test_source_nomad.documents(server)
        docker: list[Recorded] = [Recorded(), Recorded()]
        test_source_docker.engine(docker[0])
        test_source_marathon.documents(docker[1])
        server.documents |= docker[0].documents | docker[1].documents
        server.stream_paths = docker[0].stream_paths + docker[1].stream_paths

    async with recorded(all_three) as server, roles_in(tmp_path) as roles:
        address = server.url.removeprefix("http://")
        role = await roles.start(
            "dns", "--nomad", server.url, "--docker", f"tcp://{address}", "--marathon", address, *FLAGS
        )
        await becomes(role, test_source_nomad.REDIS, {"127.0.0.1"})
        # Docker and Marathon both have web.shop: an endpoint of each
        await becomes(role, WEB.replace("default", "shop"), {"172.19.0.2", "10.1.0.5"})
        server.documents["/v2/apps"]["apps"][0]["id"] = "/pay/web"
        await server.say(b"event: api_post_event\ndata: {}\n\n")
        await becomes(role, WEB.replace("default", "pay"), {"10.1.0.5"})
