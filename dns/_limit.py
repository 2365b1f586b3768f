"""How many replies over UDP one client network gets a second: what amplifies for an attacker stays small.

A second's worth is counted by network (/24, /56). Beyond it every second reply is a short one that asks to come back
over TCP, which an address that was made up cannot do, and the others are left out (as BIND's RRL). Runs compiled
(with _limit.pxd) or as it stands.
"""

from __future__ import annotations

PASS, SLIP, DROP = 0, 1, 2
NETWORKS_MOST = 200_000
"""Networks counted in one second; what comes from further ones is not limited, so that memory is."""


class Limiter:
    """`per_second` replies for each network."""

    def __init__(self, per_second: int) -> None:
        self.per_second = per_second
        self.slipped = 0
        self.dropped = 0
        self._second = 0
        self._counts: dict[bytes, int] = {}

    def take(self, network: bytes, now: float) -> int:
        """What becomes of one more reply: PASS, SLIP or DROP. `now`: seconds of any steady clock."""
        second = int(now)
        if second != self._second:
            self._second = second
            self._counts.clear()
        count = self._counts.get(network, 0) + 1
        if count > 1 or len(self._counts) < NETWORKS_MOST:
            self._counts[network] = count
        if count <= self.per_second:
            return PASS
        if count & 1:
            self.slipped += 1
            return SLIP
        self.dropped += 1
        return DROP
