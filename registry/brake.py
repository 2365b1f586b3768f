"""The brake: when a source comes back and most of what it had is missing, look again before it is believed.

A registry that was restarted without its data, or whose agents have not synchronised yet, answers truthfully and
disastrously little; whoever registers there comes back within seconds. Removals that are heard of on a running watch
are never held.
"""

from __future__ import annotations

from collections.abc import Collection

HOLD_S = 10.0
"""Between the first look and the second; registrations are renewed several times as often."""
SHARE = 0.5


def held(before: Collection[str], after: Collection[str], share: float = SHARE) -> str:
    """Why to look again: more than `share` of `before` is not in `after`; empty where it may be believed."""
    missing = sum(1 for one in before if one not in after)
    if missing <= share * len(before):
        return ""
    return f"back, but {missing} of {len(before)} are missing: kept until a second look"
