"""What is done with every outcome: it is counted, and waits for its line in the access log.

Runs compiled (with recorder.pxd) or as it stands.
"""

from __future__ import annotations

from .access_line import Lines
from .message import Outcome
from .metrics import Metrics


class Recorder:
    """The engine's observer."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.log: Lines | None = None
        """None: no access log is kept."""
        self.count = 0
        """Outcomes."""

    def done(self, outcome: Outcome) -> None:
        self.count += 1
        if not outcome.mirrored:
            self.metrics.done(outcome)
            if self.log is not None:
                self.log.add(outcome)
