"""Shell: how a sidecar or gateway ends: out of discovery, then no new connections, then what runs ends; one deadline.

How long it takes until nobody comes any more is measured: control answers when all others run a version without the
workload, and the deregistration from Consul or etcd is timed. What cannot be measured is stated: the constants here.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ..mesh.sidecar import DRAIN_IDLE_S, HANDED_IDLE_S, Sidecar
from ..registry.needs import FetchError

if TYPE_CHECKING:
    from ..mesh.feed import Feed

LEAVE_SHARE = 0.5
"""Of the deadline, at most so much is spent on being taken out of discovery."""
SERVED_SHARE = 0.5
"""Of what is left then, at most so much on what runs in the app before it is told to end."""
SETTLE_S = 0.2
"""After all others know: for what they had decided before, and for their workers."""
REGISTRATION_MARGIN_S = 1.0
"""After Consul or etcd has deregistered the app: for those who watch it."""
POLLED_S = 60.0
"""Somebody else's readiness checks count when they came within this time."""
MINIMUM_POLLED_S = 5.0
"""Least time between not ready and no more accepting where somebody polls readiness: a load balancer's two checks."""
NAMED_MOST = 10
"""Of what is cut off, as many are named in the log."""
logger = logging.getLogger("fairlead.drain")


class Departure:
    """`minimum_s`: least time between not ready and no more accepting; None: as it seems needed."""

    def __init__(
        self, sidecar: Sidecar, deadline_s: float, minimum_s: float | None, feed: Feed | None, registration: Any
    ) -> None:
        self._sidecar = sidecar
        self._deadline_s = deadline_s
        self._minimum_s = minimum_s
        self._feed = feed
        self._registration = registration
        self._begun = time.monotonic()

    def left_s(self) -> float:
        """Seconds to the deadline."""
        return max(self._begun + self._deadline_s - time.monotonic(), 0.0)

    def _took_s(self) -> float:
        return time.monotonic() - self._begun

    async def leave(self, wait: bool = True) -> None:
        """Be not ready and out of discovery. `wait`: until nobody comes any more; else only say so."""
        self._sidecar.leave()
        minimum_s, why = self._minimum() if wait else (0.0, "")
        longest_s = self._deadline_s * LEAVE_SHARE
        logger.info("draining: not ready from now on; the deadline is %g s", self._deadline_s)
        ways = [self._leave_control(longest_s if wait else 0.0), self._leave_registration(longest_s, wait)]
        told = [line for line in await asyncio.gather(*ways) if line]
        if wait and told:
            await asyncio.sleep(min(SETTLE_S, max(longest_s - self._took_s(), 0.0)))
        if (rest := min(minimum_s, longest_s) - self._took_s()) > 0:
            await asyncio.sleep(rest)
        if minimum_s:
            told.append(f"at least {min(minimum_s, longest_s):g} s, {why}")
        logger.info("draining: out of discovery after %.3f s: %s", self._took_s(), "; ".join(told) or "nobody to tell")

    def _minimum(self) -> tuple[float, str]:
        if self._minimum_s is not None:
            return self._minimum_s, "as --minimum-drain says"
        since = time.monotonic() - POLLED_S
        pollers = [who for who, at in self._sidecar.asked_ready.items() if at >= since and not _here(who)]
        if pollers:
            return MINIMUM_POLLED_S, f"since {', '.join(sorted(pollers)[:3])} checks readiness"
        return 0.0, ""

    async def _leave_control(self, timeout_s: float) -> str:
        if self._feed is None:
            return ""
        try:
            told = await self._feed.leave(timeout_s)
        except FetchError as error:
            return f"control cannot be told ({error})"
        if told.superseded:
            return "another process is this workload's sidecar by now"
        for names, what in ((told.pending, "do not know it yet"), (told.refusing, "refuse the version that says it")):
            if names and timeout_s:
                logger.warning("draining: %d of %d others %s: %s", len(names), told.others, what, _some(names))
        know = told.others - len(told.pending) - len(told.refusing)
        return f"control, and {know} of {told.others} others after {told.waited_s:.3f} s, know it"

    async def _leave_registration(self, timeout_s: float, wait: bool) -> str:
        if self._registration is None:
            return ""
        begun = time.monotonic()
        try:
            async with asyncio.timeout(timeout_s):
                await self._registration.close()
        except TimeoutError:
            return f"the registration could not be taken back within {timeout_s:g} s"
        took_s = time.monotonic() - begun
        if wait:
            await asyncio.sleep(min(REGISTRATION_MARGIN_S, max(timeout_s - took_s, 0.0)))
        margin = f" (and {REGISTRATION_MARGIN_S:g} s for those who watch)" if wait else ""
        return f"the registration was taken back in {took_s:.3f} s{margin}"

    async def hand_over(self, pid: int) -> bool:
        """A successor serves: stay in discovery, whose place is its own now, and let what runs end."""
        logger.info("process %d has taken over: what runs here may end, within %g s", pid, self._deadline_s)
        self._sidecar.hand_over()
        if self._feed is not None:
            self._feed.hand_over()
        if self._registration is not None:
            await self._registration.hand_over()
        return await self.finish(HANDED_IDLE_S)

    async def finish_served(self) -> None:
        """Accept no more for the app, and let what runs in it end, for a share of what time is left."""
        share_s = self.left_s() * SERVED_SHARE
        begun = time.monotonic()
        whole = await self._sidecar.drain_served(share_s)
        took_s = time.monotonic() - begun
        if whole:
            logger.info("draining: what ran in the app has ended after %.3f s", took_s)
        else:
            logger.warning("draining: after %.3f s something still runs in the app, which is told to end now", took_s)

    async def finish(self, idle_s: float = DRAIN_IDLE_S) -> bool:
        """Accept no more, and let what runs end; False: the deadline cut something off, which is logged."""
        sidecar = self._sidecar
        running = sidecar.running()
        logger.info("draining: accepting no more%s", f"; {running} connections are left" if running else "")
        begun = time.monotonic()
        whole = await sidecar.drain(self.left_s(), idle_s)
        if whole:
            logger.info("draining: finished in %.3f s, %.3f s in all", time.monotonic() - begun, self._took_s())
        else:
            logger.warning(
                "draining: the deadline of %g s cut off %d: %s", self._deadline_s, len(sidecar.cut), _some(sidecar.cut)
            )
        return whole


def _some(names: Sequence[str]) -> str:
    more = len(names) - NAMED_MOST
    return "; ".join(names[:NAMED_MOST]) + (f"; and {more} more" if more > 0 else "")


def _here(address: str) -> bool:
    return address.startswith("127.") or address in ("::1", "::ffff:127.0.0.1", "")
