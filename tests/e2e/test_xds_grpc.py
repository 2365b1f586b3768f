"""Proxyless gRPC (`xds:///`, xds_server_credentials) as a member of the mesh: to our sidecar, Envoy, its own kind."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.e2e.roles import free_port, until
from tests.e2e.xds_mesh import STRICT, Mesh, host, mesh_in, pod, service

pytestmark = pytest.mark.asyncio

APP = Path(__file__).with_name("xds_grpc_app.py")
FRIENDS_ONLY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: friends-only}
spec:
  selector: {matchLabels: {app: proxyless}}
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/friend]}}]}]
"""


class Program:
    """The application as a process."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    async def line(self) -> str:
        assert self.process.stdout is not None
        return (await asyncio.wait_for(self.process.stdout.readline(), 20)).decode().strip()

    async def call(self, text: str = "hello") -> str:
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        await self.process.stdin.drain()
        return await self.line()

    async def until_calls(self, status: str = "ok") -> str:
        last = ""

        async def answered() -> bool:
            nonlocal last
            last = await self.call()
            return last.startswith(status)

        try:
            await until(f"{status} of a call", answered, 15.0)
        except AssertionError as error:
            raise AssertionError(f"{error}; last: {last}") from None
        return last


@contextlib.asynccontextmanager
async def program(log: Path, *arguments: str, bootstrap: Path | None = None) -> AsyncIterator[Program]:
    env = {**os.environ, **({"GRPC_XDS_BOOTSTRAP": str(bootstrap)} if bootstrap is not None else {})}
    with log.open("wb") as err:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-P", str(APP), *arguments, env=env, stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE, stderr=err,
        )  # fmt: skip
    try:
        yield Program(process)
    except BaseException:
        print(f"---- {arguments}\n{log.read_text(errors='replace')[-4000:]}")
        raise
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def _taken(mesh: Mesh, workload: str) -> None:
    async def runs() -> bool:
        member = await mesh.member(workload)
        return member is not None and bool(member["taken"]) and member["taken"] == member["offered"]

    await until(f"{workload} to run what it was offered", runs)


async def test_grpc_reaches_all_kinds_of_members_and_is_reached_by_them(tmp_path: Path) -> None:
    async with mesh_in(tmp_path) as (mesh, _):
        ours, theirs, app_a, app_b, own = (free_port() for _ in range(5))
        await mesh.apply(
            STRICT, service("ours", "grpc"), service("theirs", "grpc"), service("proxyless", "grpc"),
            pod("ours-1", "ours", ours, app_a), pod("theirs-1", "theirs", theirs, app_b),
            pod("proxyless-1", "proxyless", own, own), pod("friend-1", "friend"), pod("stranger-1", "stranger"),
        )  # fmt: skip
        async with contextlib.AsyncExitStack() as stack:

            async def start(name: str, *arguments: str, bootstrap: Path | None = None) -> Program:
                return await stack.enter_async_context(
                    program(tmp_path / f"{name}.log", *arguments, bootstrap=bootstrap)
                )

            for name, port in (("a", app_a), ("b", app_b)):
                assert await (await start(name, "plain", f"127.0.0.1:{port}")).line() == "started"
            await mesh.sidecar("default/ours-1", "ours", ours)
            envoy = await mesh.envoy("default/theirs-1", "theirs", theirs)
            _, bootstrap = await mesh.beside("grpc", "default/proxyless-1", "proxyless", "--ports", str(own))
            assert await (await start("own", "server", f"127.0.0.1:{own}", bootstrap=bootstrap)).line() == "started"
            await _taken(mesh, "default/proxyless-1")
            _, friend = await mesh.beside("grpc", "default/friend-1", "friend")
            for name in ("ours", "theirs", "proxyless"):
                client = await start(f"to-{name}", "client", f"xds:///{host(name)}:80", bootstrap=friend)
                answer = await client.until_calls()
                if name == "proxyless":
                    assert "spiffe://cluster.local/ns/default/sa/friend" in answer
            member = await mesh.member("default/friend-1")
            assert member is not None
            assert (member["proxy"], member["refused"]) == ("grpc", "")
            assert envoy.process.returncode is None

            # AuthorizationPolicy in the gRPC server itself; it also refuses who shows another identity.
            await mesh.apply(FRIENDS_ONLY)
            _, stranger = await mesh.beside("grpc", "default/stranger-1", "stranger")
            other = await start("other", "client", f"xds:///{host('proxyless')}:80", bootstrap=stranger)
            await other.until_calls("PERMISSION_DENIED")
            assert (await client.call()).startswith("ok")

            # What is gone from the registry is gone from gRPC.
            await mesh.delete("pod", "proxyless-1")
            await client.until_calls("UNAVAILABLE")


RULES = """
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: plain}
spec:
  host: plain
  trafficPolicy:
    loadBalancer: {consistentHash: {httpHeaderName: x-user}}
    connectionPool: {http: {http2MaxRequests: 7}, tcp: {connectTimeout: 2s}}
    outlierDetection: {consecutive5xxErrors: 2, interval: 1s}
  subsets: [{name: a, labels: {app: plain}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}]
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: plain}
spec:
  hosts: [plain]
  http:
  - match: [{uri: {exact: /test.Test/Fail}, headers: {x-a: {prefix: a}}, withoutHeaders: {x-b: {exact: b}}}]
    fault: {abort: {grpcStatus: ABORTED, percentage: {value: 100}}}
    route: [{destination: {host: plain}}]
  - match: [{uri: {regex: '/test.*'}}]
    fault: {abort: {grpcStatus: DATA_LOSS, percentage: {value: 100}}}
    rewrite: {uri: /x}
    timeout: 2s
    retries: {attempts: 2, retryOn: 'unavailable,gateway-error'}
    route: [{destination: {host: plain}, weight: 50}, {destination: {host: plain, subset: a}, weight: 50}]
"""


async def test_grpc_carries_out_rules_and_what_it_cannot_do_is_told(tmp_path: Path) -> None:
    async with mesh_in(tmp_path) as (mesh, _):
        port = free_port()
        await mesh.apply(service("plain", "grpc"), pod("plain-1", "plain", 0, port), RULES)
        _, bootstrap = await mesh.beside("grpc", "default/friend-1", "friend")
        arguments = ("client", "xds:///plain.default:80")
        async with (
            program(tmp_path / "plain.log", "plain", f"127.0.0.1:{port}") as app,
            program(tmp_path / "client.log", *arguments, bootstrap=bootstrap) as client,
        ):
            assert await app.line() == "started"
            await client.until_calls("DATA_LOSS")
            await _taken(mesh, "default/friend-1")
            member = await mesh.member("default/friend-1")
            assert member is not None
            assert member["refused"] == "", member["reasons"]
            assert member["not_carried_out"] == [
                "DestinationRule default/plain: gRPC has no RANDOM; ROUND_ROBIN is used",
                "VirtualService default/plain route 1: `rewrite` is not carried out by gRPC",
            ]
