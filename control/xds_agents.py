"""Shell: what the agents beside Envoys and gRPC applications tell control, and hear of it: roots and certificates.

`POST /fairlead/v1/feed/agent` every few seconds: who it stands beside, which roots it has put there and which
certificate; the answer has the roots and the signer of the moment, as sidecars hear them with the feed, and after how
long the next word is wanted. So a rotation of roots knows these members while their proxy is down, too. 401 and 403
mean that this account is not that workload's.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from aiohttp import web

from .api_objects import body_of
from .feed_server import FeedServer, TrustReport, bounded
from .rotation import Holder
from .xds_agent import AGENT_S

GONE_S = 90.0
"""After so long without a word an agent is taken to have ended."""
EACH_S = 0.002
"""Of all agents together, one speaks each so many seconds, but none oftener than AGENT_S."""
AGENTS_MOST = 20_000
logger = logging.getLogger("fairlead.certificates")


class Agents:
    """`trust()`: roots (PEM) and key id of the signer."""

    def __init__(self, feed: FeedServer, trust: Callable[[], dict[str, str]], clock: Callable[[], float] = time.time):
        self._feed = feed
        self._trust = trust
        self._clock = clock
        self._told: dict[str, tuple[TrustReport, float]] = {}

    def routes(self) -> list[web.RouteDef]:
        return [web.post("/fairlead/v1/feed/agent", self._tell)]

    async def _tell(self, request: web.Request) -> web.Response:
        try:
            body = msgspec.json.decode(await body_of(request), type=TrustReport)
        except msgspec.MsgspecError as error:
            raise web.HTTPBadRequest(text=f"not a report of trust: {error}") from None
        self._feed.authorize(request, body.namespace, body.workload)
        bounded(body)
        now = self._clock()
        key = f"{body.namespace}/{body.workload}"
        if len(self._told) >= AGENTS_MOST:
            self._forget(now)
        if key in self._told or len(self._told) < AGENTS_MOST:
            self._told[key] = body, now
        answer = {**self._trust(), "again": max(AGENT_S, EACH_S * len(self._told))}
        return web.Response(body=msgspec.json.encode(answer), content_type="application/json")

    def _forget(self, now: float) -> None:
        self._told = {key: one for key, one in self._told.items() if now - one[1] < GONE_S}

    def holders(self, members: Sequence[Holder]) -> list[Holder]:
        """Those of the feed, with what agents say in the place of what their proxies cannot, and agents alone."""
        self._forget(self._clock())
        found, seen = [], set()
        for one in members:
            known = self._told.get(one.workload) if one.mute else None
            if known is not None:
                seen.add(one.workload)
                one = _holder(one.name, known[0])
            found.append(one)
        alone = self._told.keys() - seen - {one.workload for one in members}
        return found + [_holder(f"agent/{key}", self._told[key][0]) for key in sorted(alone)]


def _holder(name: str, told: TrustReport) -> Holder:
    workload = f"{told.namespace}/{told.workload}"
    made: dict[str, Any] = {"serial": told.serial, "issuer": told.issuer, "not_after": told.not_after}
    return Holder(name, workload, bool(told.roots), tuple(told.roots), static=told.static, **made)
