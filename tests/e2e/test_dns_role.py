"""`fairlead dns` as a process: from manifests, from Consul, from etcd, from control."""

from __future__ import annotations

import asyncio
import contextlib
import json
import signal
import ssl
from pathlib import Path

import aiohttp
import dns.asyncquery
import dns.asyncresolver
import dns.message
import dns.query
import dns.resolver
import dns.zone
import pytest

from tests.dns.test_tls_files import issue
from tests.e2e.roles import FAIRLEAD, Role, roles_in, until
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

        async def kept() -> bool:
            return b"10.0.0.1" not in (tmp_path / "kept" / "source-consul.json").read_bytes()

        await until("the change to be on disk", kept)
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


TRAFFIC = """
apiVersion: v1
kind: Service
metadata: {name: db}
spec: {clusterIP: None, ports: [{name: pg, port: 5432}], trafficDistribution: PreferClose}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-1, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: pg, port: 5432}]
endpoints:
- {addresses: [10.0.0.1], zone: a}
- {addresses: [10.0.0.2], zone: b, hostname: db-2}
- {addresses: [10.0.0.3], conditions: {ready: false}}
"""


async def test_it_speaks_tls_and_https_transfers_logs_and_leaves_politely(tmp_path: Path) -> None:
    chain, key = issue(tmp_path)
    path = tmp_path / "db.yaml"
    path.write_text(TRAFFIC)
    async with roles_in(tmp_path) as roles:
        role = await roles.start(
            "dns", "-f", str(path), *FLAGS, "--tls-listen", "127.0.0.1:0", "--https-listen", "127.0.0.1:0",
            "--tls-cert", chain, "--tls-key", key, "--allow-transfer", "127.0.0.1", "--query-log", "all",
            "--lameduck", "1.5s", "--consul-domain", "consul", "--locality", "/b", "--nsid", "one",
        )  # fmt: skip
        assert await ask(role, "db.service.consul") == {"10.0.0.1", "10.0.0.2"}
        name, port = "db.default.svc.cluster.local", int(role.at["dns"].rpartition(":")[2])
        context = ssl.create_default_context(cafile=chain)
        query = dns.message.make_query(name, "A")
        for _ in range(3):
            got = await dns.asyncquery.tls(
                query, "127.0.0.1", 5, int(role.at["tls"].rpartition(":")[2]), ssl_context=context,
                server_hostname="dns.test",
            )  # fmt: skip
            assert [str(record) for record in got.answer[0]] == ["10.0.0.2", "10.0.0.1"], "nearest first"
        async with aiohttp.ClientSession() as session:
            url = f"https://{role.at['https']}/dns-query"
            kind = {"content-type": "application/dns-message"}
            async with session.post(url, data=query.to_wire(), headers=kind, ssl=False) as response:
                assert response.status == 200
                assert dns.message.from_wire(await response.read()).answer
        zone = dns.zone.Zone("cluster.local.", relativize=False)
        await asyncio.to_thread(dns.query.inbound_xfr, "127.0.0.1", zone, port=port, timeout=10)
        assert zone.get_rdataset(f"{name}.", "A")

        async def logged() -> bool:
            return all(f"{name}. {proto} " in "\n".join(role.lines) for proto in ("tls", "https"))

        await until("the query log", logged)
        role.process.send_signal(signal.SIGTERM)

        async def not_ready() -> bool:
            async with aiohttp.ClientSession() as session, session.get(role.url("health", "/ready")) as response:
                return response.status == 503

        await until("it not to be ready", not_ready)
        async with aiohttp.ClientSession() as session, session.get(role.url("health", "/health")) as response:
            assert response.status == 200
        assert await ask(role, name) == {"10.0.0.1", "10.0.0.2"}, "it still answers"
        assert await asyncio.wait_for(role.process.wait(), 10) == 0


async def query_verb(*words: str) -> tuple[int, str]:
    process = await asyncio.create_subprocess_exec(
        FAIRLEAD, "dns", "query", *words, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    out = (await process.communicate())[0].decode()
    return process.returncode or 0, out


async def test_query_shows_the_answer_and_which_endpoints_were_left_out_and_why(tmp_path: Path) -> None:
    path = tmp_path / "db.yaml"
    path.write_text(TRAFFIC)
    code, out = await query_verb("-f", str(path), "db.default.svc.cluster.local", "-o", "json")
    told = json.loads(out)
    assert code == 0
    assert told["status"] == "NOERROR"
    assert len(told["answer"]) == 2
    (service,) = told["services"]
    assert {one["address"]: (one["given"], one["why"]) for one in service["endpoints"]} == {
        "10.0.0.1": (True, ""),
        "10.0.0.2": (True, ""),
        "10.0.0.3": (False, "EndpointSlice says that it is not ready"),
    }
    code, out = await query_verb("-f", str(path), "no.default.svc.cluster.local")
    assert code == 1
    assert "NXDOMAIN" in out
    async with roles_in(tmp_path) as roles:
        role = await roles.start("dns", "-f", str(path), *FLAGS, "--admin", "127.0.0.1:0")
        code, out = await query_verb("--server", role.at["admin"], "_pg._tcp.db.default.svc.cluster.local", "SRV")
        assert code == 0, out
        assert "db-2.db.default.svc.cluster.local." in out
        assert "EndpointSlice says that it is not ready" in out
        assert "from manifests (live, confirmed" in out
    assert "1.0.0.10.in-addr.arpa. PTR: " in (await query_verb("-f", str(path), "10.0.0.1", "PTR"))[1]
    code, out = await query_verb("--server", "127.0.0.1:1", "db.default.svc.cluster.local")
    assert code == 1
    assert "is it the server's --admin address?" in out
    code, out = await query_verb("db", "A")
    assert code == 2
    assert "give one of" in out


async def test_settings_that_make_no_sense_are_refused_by_name(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles:
        for words, expected in (
            (("--tls-listen", "127.0.0.1:0"), "--tls-cert"),
            (("--consul-domain", "cluster.local"), "--consul-domain"),
            (("--search", "a..b"), "--search"),
            (("--admin", "0.0.0.0:0"), "--admin"),
            (("--allow-transfer", "everyone"), "--allow-transfer"),
            (("--cookie-secret-file", str(tmp_path)), "--cookie-secret-file"),
        ):
            path = tmp_path / "db.yaml"
            path.write_text(TRAFFIC)
            with pytest.raises(AssertionError, match=expected):
                await roles.start("dns", "-f", str(path), *FLAGS, *words)
