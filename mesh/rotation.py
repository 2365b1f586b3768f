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


REISSUE_S_MAX, REISSUE_SHARE = 30.0, 0.1
"""When another authority issues, certificates are asked for within this, or this share of their life if that is less:
a fleet does not ask at once."""
SKEW_S = 60.0
"""A clock that is off by more is a fault to be named. Certificates are backdated by two minutes."""


def reissue_in(life_s: float, draw: float) -> float:
    """Pause before a certificate of a new authority is asked for; `draw` in [0, 1)."""
    return min(REISSUE_S_MAX, life_s * REISSUE_SHARE) * draw


def skewed(ahead_s: float) -> str:
    """What is wrong with our clock; empty: nothing that matters."""
    if abs(ahead_s) <= SKEW_S:
        return ""
    how = "ahead of" if ahead_s > 0 else "behind"
    return f"the clock of this host is {abs(ahead_s):.0f} s {how} control's: set them right (NTP), or certificates fail"
