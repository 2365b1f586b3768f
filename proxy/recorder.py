"""What is done with every outcome: it is counted, and waits for its line in the access log.

Runs compiled (with recorder.pxd) or as it stands.
"""

from __future__ import annotations

from collections import deque

from .message import Outcome
from .metrics import Metrics

QUEUE_MAX = 20_000
"""Outcomes that wait to be written, at most."""


class Waiting:
    """The outcomes that have no line yet, oldest first; what does not fit is dropped and counted."""

    def __init__(self) -> None:
        self.outcomes: deque[Outcome] = deque()
        self.dropped = 0

    def add(self, outcome: Outcome) -> None:
        if len(self.outcomes) < QUEUE_MAX:
            self.outcomes.append(outcome)
        else:
            self.dropped += 1


class Recorder:
    """The engine's observer."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.log: Waiting | None = None
        """None: no access log is kept."""

    def done(self, outcome: Outcome) -> None:
        if not outcome.mirrored:
            self.metrics.done(outcome)
            if self.log is not None:
                self.log.add(outcome)
