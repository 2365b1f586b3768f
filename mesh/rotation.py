"""When a certificate is renewed, and what follows a failed try."""

from __future__ import annotations

EARLIEST, LATEST = 0.5, 2 / 3
"""Share of a certificate's life at which it is renewed: somewhere in between, so that a fleet does not ask at once."""
RETRY_S, RETRY_S_MAX = 1.0, 60.0
ALARM = 1 / 3
"""Share of life left below which not having renewed is an alarm."""


def renew_at(issued: float, ends: float, draw: float) -> float:
    """The moment to renew; `draw` in [0, 1)."""
    return issued + (ends - issued) * (EARLIEST + (LATEST - EARLIEST) * draw)


def retry_in(failures: int, life_s: float, draw: float) -> float:
    """Pause before the next try after so many failures in a row; never long against a short life."""
    longest = min(RETRY_S_MAX, max(life_s / 20, RETRY_S / 10))
    return min(RETRY_S * 2.0 ** min(failures - 1, 10), longest) * (0.5 + draw / 2)


def is_alarming(issued: float, ends: float, now: float) -> bool:
    return now > ends - (ends - issued) * ALARM
