"""A rule that changes ends what it forbids from then on, with the policy's name, and leaves everything else alone."""

from __future__ import annotations

import asyncio
import contextlib

import pytest

from tests.mesh.test_pushes import GONE, UPGRADE, Stream, echoes, opened, upgrading
from tests.mesh.test_sidecar import DEADLINE_S, HOST, ask, pair, port_of

pytestmark = pytest.mark.asyncio
NO_WAY_OUT = """
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: stay-home}
spec:
  podSelector: {matchLabels: {app: client}}
  policyTypes: [Egress]
"""
DENY_CLIENT = """
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: not-you}
spec:
  action: DENY
  rules: [{from: [{source: {principals: ["cluster.local/ns/default/sa/client"]}}]}]
"""


async def ended(stream: Stream) -> bytes:
    got = b""
    async with asyncio.timeout(DEADLINE_S):
        with contextlib.suppress(ConnectionError):
            got = await stream[0].read()
    stream[1].close()
    return got


async def test_egress_permission_withdrawn_at_the_caller_ends_its_websocket_and_no_other() -> None:
    async with upgrading() as mesh:
        mine = await opened(port_of(mesh.client.at["outbound"]))
        plain = await opened(mesh.mesh_port)
        assert await echoes(mine)
        mesh.update(GONE)
        assert await echoes(mine)  # a route that is gone takes no permission with it
        mesh.update(NO_WAY_OUT)
        await ended(mine)
        assert await echoes(plain)
        status, headers, body = await ask(port_of(mesh.client.at["outbound"]), "/ws")
        assert (status, headers["x-fairlead-reason"]) == (403, "fl-denied")
        assert b"NetworkPolicy default/stay-home" in body  # nor does a pooled connection carry another request
        plain[1].close()


async def test_a_request_that_runs_is_answered_with_the_policy_that_ends_it() -> None:
    async with pair() as mesh:
        slow = asyncio.create_task(mesh.ask("/slow"))
        async with asyncio.timeout(DEADLINE_S):
            await mesh.app.held.wait()
        mesh.update(NO_WAY_OUT)
        status, headers, body = await slow
        assert (status, headers["x-fairlead-reason"]) == (403, "fl-denied")
        assert b"Permission was withdrawn: no egress rule of NetworkPolicy default/stay-home" in body
        mesh.app.go.set()


async def test_keep_alive_connections_stay_and_their_next_request_is_judged_anew() -> None:
    async with pair() as mesh:
        reader, writer = await asyncio.open_connection("127.0.0.1", port_of(mesh.client.at["outbound"]))
        request = f"GET / HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()

        async def answer() -> bytes:
            writer.write(request)
            async with asyncio.timeout(DEADLINE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                size = int(head.lower().partition(b"content-length: ")[2].split(b"\r\n")[0])
                return head + await reader.readexactly(size)

        assert (await answer()).startswith(b"HTTP/1.1 200 ")
        mesh.update(DENY_CLIENT)
        refused = await answer()
        assert refused.startswith(b"HTTP/1.1 403 ")
        assert b"AuthorizationPolicy default/not-you rule 0" in refused
        mesh.update()
        assert (await answer()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_identity_rules_end_the_stream_of_that_identity_alone() -> None:
    async with upgrading() as mesh:
        mine = await opened(port_of(mesh.client.at["outbound"]))
        plain = await opened(mesh.mesh_port)  # without identity
        mesh.update(DENY_CLIENT)
        await ended(mine)
        assert await echoes(plain)
        plain[1].close()


async def test_rules_that_flip_while_connections_come_let_nobody_stay_who_may_not() -> None:
    """Race: whatever was opened while the rule came is open only where the rules of its moment allowed it, and nothing
    is open once they deny."""
    async with upgrading() as mesh:
        port = port_of(mesh.client.at["outbound"])

        async def attempt() -> Stream | None:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(UPGRADE)
            with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError):
                if (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 "):
                    return reader, writer
            writer.close()
            return None

        streams: list[Stream] = []
        for number in range(30):
            tasks = [asyncio.create_task(attempt()) for _ in range(4)]
            for _ in range(number % 5):
                await asyncio.sleep(0)
            mesh.update(DENY_CLIENT if number % 2 else "")
            streams += [one for one in await asyncio.gather(*tasks) if one is not None]
        assert streams
        mesh.update(DENY_CLIENT)
        for stream in streams:
            await ended(stream)
        assert await attempt() is None
