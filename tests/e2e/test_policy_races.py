"""Policies that flip while connections open without end: once a change is in force everywhere it holds for all of them.

Real control and sidecars. Each attempt notes which rules stood when it began and when it ended; where nothing changed
in between, its answer must be the one of those rules. Byte streams that are kept open: those of who may stay through
all flips, those of who may not are gone once the change is acknowledged.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.roles import ask, free_port, until
from tests.e2e.test_feed import start
from tests.e2e.test_mesh import HOST, ONLY_FRIENDS, Shop, pod, shop

pytestmark = pytest.mark.asyncio
FLIPS = 8
Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]
BY_IDENTITY = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: friends-only}
spec:
  selector: {matchLabels: {app: web}}
  rules: [{from: [{source: {principals: [cluster.local/ns/default/sa/friend]}}]}]
"""
ECHO = """
apiVersion: v1
kind: Service
metadata: {name: echo}
spec: {selector: {app: web}, ports: [{name: tcp, port: 7, targetPort: tcp}]}
"""
PATHS = {
    "NetworkPolicy": "/apis/networking.k8s.io/v1/namespaces/default/networkpolicies/friends-only",
    "AuthorizationPolicy": "/apis/security.istio.io/v1/namespaces/default/authorizationpolicies/friends-only",
}


async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while octets := await reader.read(1000):
            writer.write(octets)
    writer.close()


async def echoes(stream: Stream) -> bool:
    with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, RuntimeError):  # uvloop: it is closed
        stream[1].write(b"are you there?")
        return await asyncio.wait_for(stream[0].readexactly(14), 10) == b"are you there?"
    return False


class Flipping:
    """`era` counts changes: odd while one is on its way, even when it is acknowledged by all sidecars."""

    def __init__(self, mesh: Shop, ports: dict[str, int]) -> None:
        self.mesh = mesh
        self.ports = ports
        self.era = 0
        self.strangers_may = True
        self.wrong: list[str] = []
        self.seen: Counter[str] = Counter()
        self.stop = False
        self.opened: list[asyncio.StreamWriter] = []

    async def flip(self, text: str, path: str) -> None:
        self.era += 1
        if self.strangers_may:
            await self.mesh.apply(text)
        else:
            async with self.mesh.session.delete(self.mesh.url + path) as answer:
                assert answer.status == 200

        async def acknowledged() -> bool:
            code, out, _ = await self.mesh.roles.command("status", "-o", "json", "--control", self.mesh.url)
            told = json.loads(out)
            return code == 0 and {one["taken"] for one in told["sidecars"]} == {told["version"]}

        await until("all sidecars to have taken the change", acknowledged)
        self.strangers_may = not self.strangers_may
        self.era += 1

    async def open(self, who: str) -> Stream | None:
        stream = await asyncio.open_connection("127.0.0.1", self.ports[who])
        self.opened.append(stream[1])
        if await echoes(stream):
            return stream
        stream[1].close()
        return None

    async def attempts(self, who: str, by: str) -> None:
        while not self.stop:
            era, may = self.era, self.strangers_may or who == "friend"
            if by == "HTTP":
                got = (await ask(self.mesh.session, self.mesh.sidecars[who], HOST, "/"))[0] == 200
            else:
                stream = await self.open(who)
                got = stream is not None
                if stream is not None:
                    stream[1].close()
            self.seen[f"{who} {by} {got}"] += 1
            if got is not may and (who == "friend" or (self.era == era and era % 2 == 0)):
                self.wrong.append(f"{who} by {by}: got in is {got} in {era} to {self.era}")


@pytest.mark.parametrize(("kind", "text"), [("NetworkPolicy", ONLY_FRIENDS), ("AuthorizationPolicy", BY_IDENTITY)])
async def test_a_change_in_force_holds_for_every_connection_and_cuts_none_that_it_allows(
    kind: str, text: str, tmp_path: Path
) -> None:
    async with shop(tmp_path) as mesh:
        server = await asyncio.start_server(echo, "127.0.0.1", 0)
        port = server.sockets[0].getsockname()[1]
        both = pod("web-1", "web", mesh.mesh_ports["web"], mesh.app.port)
        both = both.replace("ports: [", f"ports: [{{name: tcp, containerPort: {port}}}, ")
        await mesh.apply(f"{ECHO}---{both}")
        ports = {who: free_port() for who in ("friend", "stranger")}
        for who in ports:
            await mesh.sidecars[who].stop()
            await start(mesh, who, "--listen", f"127.0.0.1:{ports[who]}=echo.default:7")
        flipping = Flipping(mesh, ports)

        async def open_to_all() -> bool:
            return all([await flipping.open(who) is not None for who in ports])

        await until("the echo to be reachable", open_to_all)
        friends = [await flipping.open("friend") for _ in range(5)]
        tasks = [asyncio.create_task(flipping.attempts(who, by)) for who in ports for by in ("HTTP", "TCP", "TCP")]
        try:
            for _ in range(FLIPS):
                strangers: list[Any] = []
                if flipping.strangers_may:
                    strangers = [await flipping.open("stranger") for _ in range(5)]
                    assert None not in strangers
                await flipping.flip(text, PATHS[kind])
                for stream in strangers:
                    assert not await echoes(stream), "it was open when the change was acknowledged that forbids it"
                for friend in friends:
                    assert friend is not None and await echoes(friend), "what is allowed was cut"
                seen = flipping.seen.total()
                await until("attempts under the new rules", lambda s=seen: _more(flipping, s + 30))  # type: ignore[misc]
        finally:
            flipping.stop = True
            await asyncio.gather(*tasks)
            for writer in flipping.opened:
                writer.transport.abort()
            server.close()
        assert not flipping.wrong, flipping.wrong[:5]
        assert min(flipping.seen[f"stranger {by} {got}"] for by in ("HTTP", "TCP") for got in (True, False)) > 5
        print(dict(flipping.seen))


async def _more(flipping: Flipping, count: int) -> bool:
    return flipping.seen.total() >= count
