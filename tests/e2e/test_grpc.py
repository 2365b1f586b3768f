"""gRPC's own client and server through two sidecars with mutual TLS: every kind of call, cancellation, deadlines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import grpc.aio
import pytest

from tests.e2e.roles import client, free_port, roles_in, until
from tests.e2e.test_mesh import pod

pytestmark = pytest.mark.asyncio

HOST = "shop.default.svc.cluster.local"
SERVICE = """
apiVersion: v1
kind: Service
metadata: {name: shop}
spec:
  selector: {app: shop}
  ports: [{name: grpc, port: 80, targetPort: grpc}]
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
"""
ONLY_ECHO = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: only-echo}
spec:
  selector: {matchLabels: {app: shop}}
  rules: [{to: [{operation: {paths: [/test.Shop/Echo]}}]}]
"""


class Shop(grpc.GenericRpcHandler):  # type: ignore[misc]
    """Methods of bytes: Echo, Sum (client streaming), Count (server streaming), Talk (both), Fail, Sleep."""

    def __init__(self) -> None:
        self.cancelled = asyncio.Event()
        self.metadata: dict[str, str] = {}

    def service(self, details: Any) -> Any:
        method = details.method.rpartition("/")[2]
        if method in ("Echo", "Fail", "Sleep"):
            return grpc.unary_unary_rpc_method_handler(getattr(self, method.lower()))
        if method == "Sum":
            return grpc.stream_unary_rpc_method_handler(self.sum)
        if method == "Count":
            return grpc.unary_stream_rpc_method_handler(self.count)
        return grpc.stream_stream_rpc_method_handler(self.talk)

    async def echo(self, request: bytes, context: Any) -> bytes:
        self.metadata = {key: str(value) for key, value in context.invocation_metadata()}
        context.set_trailing_metadata((("x-trailer", "there"),))
        return request

    async def fail(self, request: bytes, context: Any) -> bytes:
        await context.abort(grpc.StatusCode.FAILED_PRECONDITION, "not today: 100% é")
        return b""

    async def sleep(self, request: bytes, context: Any) -> bytes:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return b""

    async def sum(self, requests: AsyncIterator[bytes], context: Any) -> bytes:
        return b"%d" % sum([len(one) async for one in requests])

    async def count(self, request: bytes, context: Any) -> AsyncIterator[bytes]:
        for number in range(int(request)):
            yield b"%d" % number

    async def talk(self, requests: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
        async for one in requests:
            yield one.upper()


class Mesh:
    def __init__(self, roles: Any, app: Shop, sidecars: dict[str, Any], apply: Any) -> None:
        self.roles = roles
        self.app = app
        self.sidecars = sidecars
        self.apply = apply

    def channel(self) -> grpc.aio.Channel:
        """To the client's own sidecar, by prior knowledge."""
        options = (("grpc.default_authority", HOST), ("grpc.enable_retries", 0))
        return grpc.aio.insecure_channel(self.sidecars["buyer"].at["outbound"], options=options)


@contextlib.asynccontextmanager
async def mesh_in(folder: Path) -> AsyncIterator[Mesh]:
    app = Shop()
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((app,))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with roles_in(folder) as roles:
            url = f"http://127.0.0.1:{free_port()}"
            await roles.start("control", "--listen", url.removeprefix("http://"), "--data-dir", str(folder / "control"))

            async def apply(text: str) -> None:
                code, out, err = await roles.command("apply", "-f", "-", "--control", url, stdin=text.encode())
                assert code == 0, out + err

            mesh_ports = {name: free_port() for name in ("shop", "buyer")}
            pods = [
                pod("shop-1", "shop", mesh_ports["shop"], port).replace("name: http,", "name: grpc,"),
                pod("buyer-1", "buyer", mesh_ports["buyer"]),
            ]
            await apply("---".join([SERVICE, *pods]))
            sidecars = {}
            for name in ("shop", "buyer"):
                code, out, err = await roles.command("token", "create", "--service-account", name, "--control", url)
                assert code == 0, err
                token = folder / f"{name}.token"
                token.write_text(out)
                sidecars[name] = await roles.start(
                    "sidecar", "--workload", f"default/{name}-1", "--control", url, "--token-file", str(token),
                    "--outbound", "127.0.0.1:0", "--inbound", f"127.0.0.1:{mesh_ports[name]}",
                    "--admin", "127.0.0.1:0", "--health", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
                    "--data-dir", str(folder / name),
                )  # fmt: skip
            yield Mesh(roles, app, sidecars, apply)
    finally:
        await server.stop(None)


async def test_every_kind_of_call_goes_through_two_sidecars(tmp_path: Path) -> None:
    async with mesh_in(tmp_path) as mesh, mesh.channel() as channel, client() as session:
        call = channel.unary_unary("/test.Shop/Echo")(b"hello", metadata=(("x-mine", "1"),))
        assert await call == b"hello"
        assert ("x-trailer", "there") in tuple(await call.trailing_metadata())
        assert mesh.app.metadata["x-mine"] == "1"
        assert "spiffe://cluster.local/ns/default/sa/buyer" in mesh.app.metadata["x-forwarded-client-cert"]

        async def pieces() -> AsyncIterator[bytes]:
            for _ in range(300):
                yield b"x" * 5000

        assert await channel.stream_unary("/test.Shop/Sum")(pieces()) == b"1500000"
        counted = [int(one) async for one in channel.unary_stream("/test.Shop/Count")(b"2000")]
        assert counted == list(range(2000))
        talk = channel.stream_stream("/test.Shop/Talk")()
        for word in (b"one", b"two", b"three"):
            await talk.write(word)
            assert await talk.read() == word.upper()
        await talk.done_writing()
        assert await talk.read() is grpc.aio.EOF
        assert await talk.code() is grpc.StatusCode.OK
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/test.Shop/Fail")(b"")
        assert failed.value.code() is grpc.StatusCode.FAILED_PRECONDITION
        assert failed.value.details() == "not today: 100% é"
        async with session.get(mesh.sidecars["shop"].url("metrics", "/metrics")) as answer:
            lines = (await answer.text()).splitlines()
        totals = [line for line in lines if line.startswith("istio_requests_total{") and 'protocol="grpc"' in line]
        assert any('grpc_response_status="9"' in line and "mutual_tls" in line for line in totals)


async def test_a_cancelled_call_is_cancelled_at_the_server_and_a_deadline_holds(tmp_path: Path) -> None:
    async with mesh_in(tmp_path) as mesh, mesh.channel() as channel:
        await channel.unary_unary("/test.Shop/Echo")(b"")
        call = channel.unary_unary("/test.Shop/Sleep")(b"")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(call), 0.5)
        call.cancel()
        await asyncio.wait_for(mesh.app.cancelled.wait(), 10)
        mesh.app.cancelled.clear()
        with pytest.raises(grpc.aio.AioRpcError) as failed:
            await channel.unary_unary("/test.Shop/Sleep")(b"", timeout=0.5)
        assert failed.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
        await asyncio.wait_for(mesh.app.cancelled.wait(), 10)


async def test_a_policy_of_methods_is_permission_denied(tmp_path: Path) -> None:
    async with mesh_in(tmp_path) as mesh, mesh.channel() as channel:
        assert await channel.unary_unary("/test.Shop/Fail")(b"").code() is grpc.StatusCode.FAILED_PRECONDITION
        await mesh.apply(ONLY_ECHO)

        async def denied() -> bool:
            call = channel.unary_unary("/test.Shop/Fail")(b"")
            return await call.code() is grpc.StatusCode.PERMISSION_DENIED

        await until("the policy to be in force", denied)
        assert await channel.unary_unary("/test.Shop/Echo")(b"still") == b"still"
