"""Pauses between tries that fail: growing, bounded, spread out."""

from __future__ import annotations


class Backoff:
    """`pause(draw)` gives the next pause in seconds; `reset` after a success."""

    def __init__(self, first_s: float = 0.25, most_s: float = 5.0) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self.failures = 0

    def pause(self, draw: float) -> float:
        """The pause after one more failure; `draw` in [0, 1) spreads it over its upper half."""
        longest = min(self._first_s * 2.0 ** min(self.failures, 16), self._most_s)
        self.failures += 1
        return longest * (0.5 + draw / 2)

    def reset(self) -> None:
        self.failures = 0
