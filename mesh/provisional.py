"""Objects that are in force until a deadline unless they are confirmed: what a sidecar goes back to by itself.

The item `provisional/ID` comes with the objects that it is about and goes when they are confirmed or taken back. A
sidecar that still has it at the deadline takes them back, whether control can be reached or not. The deadline is kept
on disk by our own clock, which may differ from control's: what has just come ends within its timeout from now.
"""

from __future__ import annotations

import msgspec

GRACE_S = 1.0
"""So much later than the deadline we go back by ourselves; control, which does it at the deadline, comes before."""


class Provisional(msgspec.Struct):
    """The value of an item."""

    deadline: float
    """Unix seconds."""
    timeout: float
    """Seconds from the first change to the deadline."""
    before: dict[str, msgspec.Raw] = {}
    """By item key: the object as it was; null: there was none."""

    def arrived(self, now: float) -> None:
        """It has come from control just now, so its deadline is ahead, and no further than its timeout."""
        if not now < self.deadline <= now + self.timeout:
            self.deadline = now + self.timeout

    def is_due(self, now: float) -> bool:
        return now >= self.deadline + GRACE_S


decode = msgspec.json.Decoder(Provisional).decode
encode = msgspec.json.Encoder().encode
