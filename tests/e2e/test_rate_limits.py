"""Local rate limits of a running sidecar: to the digit, over several workers, and through changes of the manifests."""

from __future__ import annotations

import asyncio
import os
import signal
from collections import Counter
from pathlib import Path

import aiohttp
import pytest

from tests.e2e import test_mesh, test_workers
from tests.e2e.roles import Role, apps, ask, client, roles_in, until
from tests.e2e.test_sidecar_from_manifests import HOST, ROUTES, WEB, start

pytestmark = pytest.mark.asyncio
LIMIT = """---
apiVersion: fairlead.dev/v1
kind: LocalRateLimit
metadata: {{name: web}}
spec:
  selector: {{matchLabels: {{app: client}}}}
  context: SIDECAR_OUTBOUND
  limits:
  - name: reads
    match: {{hosts: [web], methods: [GET], route: {{virtualService: web}}}}
    tokenBucket: {{maxTokens: {most}, fillInterval: 1h}}
    response: {{status: {status}}}
"""


async def statuses(role: Role, count: int, at_once: int = 1) -> Counter[int]:
    """Of requests, each on a connection of its own."""
    left = iter(range(count))

    async def some() -> list[int]:
        got = []
        for _ in left:
            async with aiohttp.ClientSession() as once:
                got.append((await ask(once, role, HOST))[0])
        return got

    return Counter(status for got in await asyncio.gather(*(some() for _ in range(at_once))) for status in got)


async def test_so_many_requests_come_through_and_a_push_brings_no_token_back(tmp_path: Path) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        role = await start(roles, v1, v2, ROUTES + LIMIT.format(most=5, status=429))
        assert await statuses(role, 8) == {200: 5, 429: 3}
        status, headers, _ = await ask(session, role, HOST)
        assert (status, headers["x-fairlead-reason"], headers["x-envoy-ratelimited"]) == (429, "FL-RATE", "true")
        assert int(headers["retry-after"]) > 3000
        async with session.post(role.url("outbound"), headers={"host": HOST}) as answer:
            assert answer.status == 200  # not a read
        async with session.get(role.url("metrics", "/metrics")) as answer:
            text = await answer.text()
        assert 'fairlead_local_rate_limit_allowed_total{limit="default/web/reads",of="requests"} 5' in text
        assert 'fairlead_local_rate_limit_limited_total{limit="default/web/reads",of="requests"} 4' in text
        manifest = tmp_path / "manifests" / "web.yaml"
        manifest.write_text(WEB.format(v1=v1.port, v2=v2.port) + "---" + ROUTES + LIMIT.format(most=5, status=503))

        async def answers(wanted: int) -> bool:
            return bool((await ask(session, role, HOST))[0] == wanted)

        await until("the answer to change, with the bucket still empty", lambda: answers(503))
        manifest.write_text(WEB.format(v1=v1.port, v2=v2.port) + "---" + ROUTES)
        await until("the limit to be lifted", lambda: answers(200))


@pytest.mark.parametrize("workers", [3])
async def test_workers_let_through_together_what_one_would(tmp_path: Path, workers: int) -> None:
    async with roles_in(tmp_path) as roles, apps("v1", "v2") as (v1, v2), client() as session:
        role = await test_workers.start(roles, v1, v2, ROUTES + LIMIT.format(most=25, status=429), workers=workers)
        assert await statuses(role, 120, at_once=12) == {200: 25, 429: 95}
        assert len(v1.seen) + len(v2.seen) == 25
        _, text = await test_workers.page(session, role, "metrics", "/metrics")
        assert test_workers.sample(text, "fairlead_local_rate_limit_allowed_total") == 25
        assert test_workers.sample(text, "fairlead_local_rate_limit_limited_total") == 95
        killed = (await test_workers.processes(session, role))[0]["pid"]
        os.kill(killed, signal.SIGKILL)

        async def replaced() -> bool:
            now = await test_workers.processes(session, role)
            return all(not one["problem"] for one in now) and killed not in [one["pid"] for one in now]

        await until("another worker in its place", replaced)
        assert await statuses(role, 12) == {429: 12}  # a worker that begins anew finds the bucket as it was


INBOUND = """
apiVersion: fairlead.dev/v1
kind: LocalRateLimit
metadata: {name: web}
spec:
  selector: {matchLabels: {app: web}}
  limits:
  - name: each
    match: {hosts: [web], uri: {prefix: /limited}}
    tokenBucket: {maxTokens: 3, fillInterval: 1h}
    per: CLIENT
"""


async def test_a_limit_applied_through_the_api_counts_each_identity_at_the_destination(tmp_path: Path) -> None:
    async with test_mesh.shop(tmp_path) as mesh:
        await mesh.apply(INBOUND)

        async def limited() -> bool:
            return (await mesh.ask("friend", "/limited"))[0] == 429

        await until("the friend to be over its limit", limited)
        status, headers, body = await mesh.ask("friend", "/limited")
        assert (status, headers["x-fairlead-reason"], headers["x-envoy-ratelimited"]) == (429, "FL-RATE", "true")
        assert "LocalRateLimit default/web limit each lets 3 requests of each client at once" in str(body)
        assert [(await mesh.ask("stranger", "/limited"))[0] for _ in range(5)] == [200] * 3 + [429] * 2
        assert (await mesh.ask("friend", "/else"))[0] == 200
