"""A sidecar process that runs from a folder of manifests alone."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from tests.e2e.roles import App, Role, Roles, apps, ask, client, roles_in, until

pytestmark = pytest.mark.asyncio

WEB = """
apiVersion: v1
kind: Service
metadata: {{name: web}}
spec:
  ports: [{{name: http, port: 80}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-1, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: {v1}}}]
endpoints: [{{addresses: [127.0.0.1], targetRef: {{kind: Pod, name: web-v1}}}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {{name: web-2, labels: {{kubernetes.io/service-name: web}}}}
addressType: IPv4
ports: [{{name: http, port: {v2}}}]
endpoints: [{{addresses: [127.0.0.1], targetRef: {{kind: Pod, name: web-v2}}}}]
---
apiVersion: v1
kind: Pod
metadata: {{name: web-v1, labels: {{app: web, version: v1}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: web-v2, labels: {{app: web, version: v2}}}}
---
apiVersion: v1
kind: Pod
metadata: {{name: client-1, labels: {{app: client}}}}
"""
ROUTES = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web}
spec:
  host: web
  subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
    - match: [{headers: {x-tester: {exact: "yes"}}}]
      route: [{destination: {host: web, subset: v2}}]
    - route: [{destination: {host: web, subset: v1}}]
"""
QUIET = ("--inbound", "off", "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0", "--metrics", "127.0.0.1:0")
HOST = "web.default.svc.cluster.local"


async def start(roles: Roles, v1: App, v2: App, more: str = "", *flags: str) -> Role:
    folder = roles.folder / "manifests"
    folder.mkdir(exist_ok=True)
    (folder / "web.yaml").write_text(WEB.format(v1=v1.port, v2=v2.port) + "---" + more)
    return await roles.start(
        "sidecar", "-f", str(folder), "--workload", "default/client-1", "--outbound", "127.0.0.1:0", *QUIET, *flags
    )


async def test_routes_by_host_and_header(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        sidecar = await start(roles, v1, v2, ROUTES)
        assert (await ask(session, sidecar, HOST))[2]["app"] == "v1"
        assert (await ask(session, sidecar, HOST, x_tester="yes"))[2]["app"] == "v2"
        assert await sidecar.stop() == 0


async def test_plain_service_is_balanced_over_its_endpoints(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        sidecar = await start(roles, v1, v2)
        seen = Counter([(await ask(session, sidecar, HOST))[2]["app"] for _ in range(60)])
        assert set(seen) == {"v1", "v2"}


async def test_a_manifest_that_changes_takes_effect_and_a_broken_one_does_not(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        sidecar = await start(roles, v1, v2, ROUTES)
        routes = tmp_path / "manifests" / "web.yaml"
        everything_to_v2 = ROUTES.replace("subset: v1}}]", "subset: v2}}]")
        routes.write_text(WEB.format(v1=v1.port, v2=v2.port) + "---" + everything_to_v2)

        async def v2_answers() -> bool:
            return bool((await ask(session, sidecar, HOST))[2]["app"] == "v2")

        await until("the new route", v2_answers)
        routes.write_text("apiVersion: v1\nkind: Service\n  broken: [")

        async def problem_is_told() -> bool:
            return "web.yaml" in sidecar.log

        await until("the broken file in the log", problem_is_told)
        assert (await ask(session, sidecar, HOST))[2]["app"] == "v2"
        async with session.get(sidecar.url("health", "/healthz/ready")) as answer:
            assert answer.status == 200


async def test_answers_of_our_own_carry_their_reason(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        more = ROUTES.replace("host: web, subset: v1", "host: web, subset: missing")
        sidecar = await start(roles, v1, v2, more.replace('exact: "yes"', 'exact: "no"'))
        status, headers, _ = await ask(session, sidecar, HOST, "/x", x_tester="nobody")
        assert status in (200, 503)
        await v1.close()
        await v2.close()
        status, headers, body = await ask(session, sidecar, HOST, x_tester="no")
        assert (status, headers["x-fairlead-reason"]) == (503, "FL-CONNECT"), body


async def test_garbage_half_requests_and_oversized_heads_are_refused_or_closed(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        sidecar = await start(roles, v1, v2, ROUTES)
        for port in ("outbound", "admin", "health", "metrics"):
            host, _, number = sidecar.at[port].rpartition(":")
            for sent in (
                b"\x00\x01\x02\x03" * 64 + b"\r\n\r\n",
                b"GET / HTTP/1.1\r\nhost: x\r\nhost: y\r\n\r\n",
                b"GET / HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n",
                b"GET / HTTP/1.1\r\nhost: x\r\nbig: " + b"a" * 200_000 + b"\r\n\r\n",
            ):
                reader, writer = await asyncio.open_connection(host, int(number))
                writer.write(sent)
                try:
                    answer = await asyncio.wait_for(reader.read(), 10)
                except ConnectionError:
                    answer = b""
                assert answer == b"" or answer.split()[1].startswith(b"4"), (port, sent[:40], answer[:200])
                writer.close()
            reader, writer = await asyncio.open_connection(host, int(number))
            writer.write(b"GET / HT")
            writer.close()
        assert (await ask(session, sidecar, HOST))[0] == 200


async def test_sigterm_finishes_the_running_request_and_exits_with_zero(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        sidecar = await start(roles, v1, v2, ROUTES)
        v1.hold = asyncio.Event()
        running = asyncio.ensure_future(ask(session, sidecar, HOST, "/hold"))
        await asyncio.wait_for(v1.held.wait(), 10)
        stopping = asyncio.ensure_future(sidecar.stop())

        async def not_ready() -> bool:
            try:
                async with session.get(sidecar.url("health", "/healthz/ready")) as answer:
                    return answer.status == 503
            except OSError:
                return True

        await until("the sidecar to say that it is not ready", not_ready)
        v1.hold.set()
        assert (await running)[0] == 200
        assert await stopping == 0


async def test_metrics_and_access_log_tell_of_a_request(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        sidecar = await start(roles, v1, v2, ROUTES)
        await ask(session, sidecar, HOST, "/seen?x=1", user_agent="e2e")

        async def counted() -> bool:
            async with session.get(sidecar.url("metrics", "/metrics")) as answer:
                text = await answer.text()
            return any(
                line.startswith("istio_requests_total{")
                and 'response_code="200"' in line
                and f'destination_service="{HOST}"' in line
                and line.endswith(" 1")
                for line in text.splitlines()
            )

        await until("the request in the metrics", counted)

        async def logged() -> bool:
            return any('"GET /seen?x=1 HTTP/1.1" 200' in line and '"e2e"' in line for line in sidecar.lines)

        await until("the request in the access log", logged)


async def test_a_workload_that_no_manifest_declares_is_warned_of_with_the_near_one(tmp_path: Path) -> None:
    (tmp_path / "m.yaml").write_text(WEB.format(v1=1, v2=2))
    off = [part for name in ("outbound", "inbound", "admin", "health", "metrics") for part in (f"--{name}", "off")]
    async with roles_in(tmp_path) as roles:
        for name, said in (("client-11", "client-11 (did you mean default/client-1?)"), ("client-1", "")):
            role = await roles.start("sidecar", "-f", "m.yaml", "--workload", f"default/{name}", *off)
            assert ("no manifest declares workload" in role.log) is bool(said), role.log
            assert said in role.log
