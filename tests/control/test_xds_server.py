"""The server of xDS in this process, with gRPC's own client: who gets what, and what becomes of bad requests."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import pytest

from fairlead.control import xds_server
from fairlead.control.feed_server import FeedServer
from fairlead.control.push import Book
from fairlead.control.status import StatusError
from fairlead.control.xds_grpc import SERVER
from fairlead.control.xds_server import SERVICE, XdsServer
from fairlead.control.xds_session import CDS, EDS, LDS
from fairlead.control.xds_wire import decode, encode
from fairlead.policy.world import World
from tests.control.xds_worlds import world
from tests.relay import Line

pytestmark = pytest.mark.asyncio

SERVICES = "".join(
    f"""
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec: {{ports: [{{name: http, port: 80}}]}}
---
"""
    for name in ("web", "db")
)
NAMES = [
    "PassthroughCluster",
    "outbound|80||db.default.svc.cluster.local",
    "outbound|80||web.default.svc.cluster.local",
]


class Serving:
    def __init__(self) -> None:
        self.book = Book("e")
        self.moves = 0
        self.revoked: set[str] = set()
        self.feed = FeedServer(self.book, lambda *_: None, self._moved)
        self.world: World = world(SERVICES)
        self.asked: list[tuple[Any, bool, str, str]] = []
        self.server = XdsServer(self.feed, lambda: self.world, lambda: self.book.version, self._authorize)
        self.port = self.server.listen("127.0.0.1", 0)

    def _moved(self) -> None:
        self.moves += 1

    def _authorize(self, certificate: bytes | None, plain: bool, namespace: str, workload: str) -> str:
        self.asked.append((certificate, plain, namespace, workload))
        if workload.startswith("thief"):
            raise StatusError(403, "that is another's")
        if workload in self.revoked:
            raise StatusError(403, "certificate ab was revoked by alice")
        return "web"

    def change(self, text: str) -> None:
        self.world = world(text)
        self.book.objects({"object/x//y": {"text": text}})
        self.feed.publish()


class Stream:
    def __init__(self, channel: grpc.aio.Channel, kind: str = "Discovery") -> None:
        method = "StreamAggregatedResources" if kind == "Discovery" else "DeltaAggregatedResources"
        self.kind = kind
        self.call = channel.stream_stream(f"/{SERVICE}/{method}")()

    async def ask(self, **message: Any) -> None:
        await self.call.write(encode(f"service.discovery.v3.{self.kind}Request", message))

    async def read(self) -> dict[str, Any]:
        octets = await asyncio.wait_for(self.call.read(), 10)
        if octets is grpc.aio.EOF:
            raise AssertionError(f"{await self.call.code()} {await self.call.details()}")
        return decode(f"service.discovery.v3.{self.kind}Response", octets)

    async def refused(self) -> tuple[grpc.StatusCode, str]:
        with contextlib.suppress(grpc.aio.AioRpcError):
            await asyncio.wait_for(self.call.read(), 10)
        return await self.call.code(), await self.call.details() or ""


@contextlib.asynccontextmanager
async def serving() -> AsyncIterator[tuple[Serving, grpc.aio.Channel]]:
    made = Serving()
    await made.server.start()
    running = asyncio.ensure_future(made.server.run())
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{made.port}") as channel:
            yield made, channel
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        await made.server.close()


NODE = {"id": "default/web-1", "user_agent_name": "envoy", "metadata": {"FAIRLEAD": {"INBOUND": "0.0.0.0:15006"}}}


async def test_a_stream_is_a_member_of_the_mesh_while_it_lasts() -> None:
    async with serving() as (made, channel):
        stream = Stream(channel)
        await stream.ask(node=NODE, type_url=CDS)
        first = await stream.read()
        assert sorted(one["name"] for one in first["resources"]) == NAMES
        member = made.feed.members["sidecar/default/web-1"]
        assert (member.proxy, member.mesh_port, member.service_account, member.taken) == ("envoy", 15006, "web", "")
        assert set(made.asked) == {(None, True, "default", "web-1")}
        await stream.ask(type_url=CDS, response_nonce=first["nonce"], version_info=first["version_info"])
        while member.taken != "e.0":
            await asyncio.sleep(0)
        made.change(SERVICES.partition("---")[0])
        second = await stream.read()
        assert [one["name"] for one in second["resources"]] == [NAMES[2], NAMES[0]]
        await stream.ask(type_url=CDS, response_nonce=second["nonce"], error_detail={"code": 13, "message": "bad"})
        await stream.ask(type_url=EDS, resource_names=[NAMES[2]])
        await stream.read()
        assert (member.refused, member.reasons) == ("e.1", ["Cluster: bad"])
        stream.call.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await stream.call.code()
        while "sidecar/default/web-1" in made.feed.members:
            await asyncio.sleep(0)
        assert made.moves == 2


async def test_a_difference_has_what_is_new_and_what_is_gone() -> None:
    async with serving() as (made, channel):
        stream = Stream(channel, "DeltaDiscovery")
        await stream.ask(node=NODE, type_url=CDS)
        first = await stream.read()
        assert sorted(one["name"] for one in first["resources"]) == NAMES
        made.change(SERVICES.partition("---")[0])
        second = await stream.read()
        assert (second.get("resources"), second["removed_resources"]) == (None, [NAMES[1]])
        stream.call.cancel()


async def test_who_asks_for_anothers_or_says_nonsense_is_refused_with_the_reason() -> None:
    async with serving() as (_, channel):
        for node, wanted, why in (
            ({"id": "default/thief-1"}, grpc.StatusCode.PERMISSION_DENIED, "another's"),
            ({"id": "nonsense"}, grpc.StatusCode.INVALID_ARGUMENT, "node.id: expected NAMESPACE/WORKLOAD"),
            ({}, grpc.StatusCode.INVALID_ARGUMENT, "node.id"),
        ):
            stream = Stream(channel)
            await stream.ask(node=node, type_url=CDS)
            code, details = await stream.refused()
            assert (code, why in details) == (wanted, True), details
        stream = Stream(channel)
        await stream.call.write(b"\xff\xff")
        assert (await stream.refused())[0] is grpc.StatusCode.INVALID_ARGUMENT


async def test_streams_of_one_grpc_node_are_one_member() -> None:
    node = {"id": "default/web-1", "user_agent_name": "gRPC C-core"}
    async with serving() as (made, channel):
        streams = [Stream(channel), Stream(channel)]
        for stream in streams:
            await stream.ask(node=node, type_url=LDS, resource_names=["web:80"])
        answers = [await stream.read() for stream in streams]
        member = made.feed.members["sidecar/default/web-1"]
        for number, (stream, answer) in enumerate(zip(streams, answers, strict=True)):
            await stream.ask(type_url=LDS, response_nonce=answer["nonce"], resource_names=["web:80"])
            await stream.ask(type_url=CDS, resource_names=[NAMES[2]])
            one = await stream.read()
            await stream.ask(type_url=CDS, response_nonce=one["nonce"], resource_names=[NAMES[2]])
            if number == 0:
                assert member.taken == ""
        while member.taken != "e.0":
            await asyncio.sleep(0)
        assert (member.proxy, len(made.feed.members)) == ("grpc", 1)
        for stream in streams:
            stream.call.cancel()


async def test_of_two_nodes_of_one_workload_the_one_that_stays_is_the_member() -> None:
    async with serving() as (made, channel):
        envoy, grpc_app = Stream(channel), Stream(channel)
        await envoy.ask(node=NODE, type_url=CDS)
        await envoy.read()
        await grpc_app.ask(
            node={"id": "default/web-1", "user_agent_name": "gRPC"}, type_url=LDS, resource_names=["web:80"]
        )
        await grpc_app.read()
        assert made.feed.members["sidecar/default/web-1"].proxy == "grpc"
        grpc_app.call.cancel()
        while made.feed.members["sidecar/default/web-1"].proxy != "envoy":
            await asyncio.sleep(0)
        envoy.call.cancel()


async def test_control_does_not_import_grpc_unless_it_is_asked_for_xds() -> None:
    code = "import sys, fairlead.control.role_control; sys.exit('grpc' in sys.modules)"
    assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


async def test_a_stream_of_who_is_revoked_ends_and_says_why() -> None:
    async with serving() as (made, channel):
        good, bad = Stream(channel), Stream(channel)
        await good.ask(node=NODE, type_url=CDS)
        await bad.ask(node={**NODE, "id": "default/db-1"}, type_url=CDS)
        for stream in (good, bad):
            assert await stream.read()
        revoked = made.revoked = {"db-1"}
        made.server.look_again()
        assert await bad.refused() == (grpc.StatusCode.PERMISSION_DENIED, "certificate ab was revoked by alice")
        made.server.not_told = lambda: ["revoked certificates are not refused"] if revoked else []
        made.change(SERVICES)
        async with asyncio.timeout(10):
            while not made.feed.members["sidecar/default/web-1"].not_carried_out:
                await asyncio.sleep(0.01)
        again = Stream(channel)
        await again.ask(node={**NODE, "id": "default/db-1"}, type_url=CDS)
        assert (await again.refused())[1] == "certificate ab was revoked by alice"


async def test_a_client_whose_host_is_gone_without_a_word_is_no_member_for_long(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(xds_server, "PING_S", 0.2)
    async with serving() as (made, _):
        line = Line(f"http://127.0.0.1:{made.port}")
        await line.open()
        try:
            async with grpc.aio.insecure_channel(line.url.removeprefix("http://")) as channel:
                stream = Stream(channel)
                await stream.ask(node=NODE, type_url=CDS)
                await stream.read()
                line.silence()
                async with asyncio.timeout(10):
                    while "sidecar/default/web-1" in made.feed.members:
                        await asyncio.sleep(0.01)
        finally:
            await line.close()


class Stuck:
    """A call whose client reads nothing."""

    def auth_context(self) -> dict[str, Any]:
        return {}

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    async def write(self, _octets: bytes) -> None:
        await asyncio.Event().wait()


async def test_who_asks_for_more_than_it_reads_is_heard_no_more_until_it_reads() -> None:
    heard = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal heard
        yield encode("service.discovery.v3.DiscoveryRequest", {"node": NODE, "type_url": CDS})
        for number in range(1, 10_000):
            heard = number
            name, nonce = NAMES[1 + number % 2], str(number) if number > 1 else ""
            message = {"type_url": EDS, "resource_names": [name], "response_nonce": nonce}
            yield encode("service.discovery.v3.DiscoveryRequest", message)
            await asyncio.sleep(0)

    async with serving() as (made, _):
        call = asyncio.ensure_future(made.server._whole(endless(), Stuck()))
        async with asyncio.timeout(20):
            while heard < xds_server.WAITING_MOST:
                await asyncio.sleep(0.01)
        for _ in range(200):
            await asyncio.sleep(0)
        assert heard <= xds_server.WAITING_MOST + 2
        made.server._cut(next(iter(made.server._clients.values())), "gone")
        assert "sidecar/default/web-1" not in made.feed.members, "it need not read that it is cut off"
        call.cancel()
        await asyncio.gather(call, return_exceptions=True)


async def test_servers_and_streams_of_one_client_have_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(xds_server, "SERVERS_MAX", 3)
    monkeypatch.setattr(xds_server, "STREAMS_MAX", 2)
    node = {"id": "default/web-1", "user_agent_name": "gRPC Python"}
    async with serving() as (_, channel):
        stream = Stream(channel)
        names = [f"{SERVER}0.0.0.0:{port}" for port in range(5)]
        await stream.ask(node=node, type_url=LDS, resource_names=names)
        code, why = await stream.refused()
        assert (code, "more than 3 servers" in why) == (grpc.StatusCode.INVALID_ARGUMENT, True)
        streams = []
        for _ in range(2):
            streams.append(Stream(channel))
            await streams[-1].ask(node=NODE, type_url=CDS)
            await streams[-1].read()
        code, why = await Stream(channel).refused()
        assert (code, "2 streams" in why) == (grpc.StatusCode.RESOURCE_EXHAUSTED, True)
        for one in streams:
            one.call.cancel()
