"""What policies that are only tried out would have refused, and what AUDIT policies note: counted, and in the log.

Made only where there are such policies; it stands between the engine and its observer, so that nobody else pays for it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from ..policy.decide import notes_of
from ..policy.dry_run import Note
from ..policy.peer import as_peer, identify
from ..policy.tables import SimpleRequest, Tables
from ..registry.model import Workload
from . import exposition
from .message import Outcome
from .metrics import DENIALS, policy_labels

COUNTED_MOST = 1000


class Notes:
    """`observe`: whom outcomes are passed on to; `running()`: as the engine's, connections that live."""

    def __init__(
        self, observe: Callable[[Outcome], None], running: Callable[[], Iterable[tuple[Outcome, int, int]]]
    ) -> None:
        self.observe = observe
        self.running = running
        self.tables: Tables | None = None
        self.counts: dict[tuple[str, str], int] = {}
        """By kind and policy with rule."""
        self._seen: set[int] = set()
        """Ids of outcomes of connections that live and are counted already."""

    def done(self, outcome: Outcome) -> None:
        notes = self._notes(outcome)
        if id(outcome) in self._seen:
            self._seen.discard(id(outcome))
        else:
            self._count(notes)
        if notes:
            by = "; ".join([outcome.policy, *map(str, notes)] if outcome.policy else map(str, notes))
            if outcome.reason not in DENIALS:  # then the field says who refused it
                outcome.policy = by
        self.observe(outcome)

    def _count(self, notes: list[Note]) -> None:
        for note in notes:
            key = note.kind, note.by
            if key in self.counts or len(self.counts) < COUNTED_MOST:
                self.counts[key] = self.counts.get(key, 0) + 1

    def _notes(self, outcome: Outcome) -> list[Note]:
        tables, arrival = self.tables, outcome.arrival
        inbound = tables.inbound if tables is not None else None
        if tables is None or inbound is None or inbound.shadow is None or arrival is None:
            return []
        if arrival.listener == "outbound":
            return self._went_out(tables, outcome)
        if outcome.kind == "http" and outcome.request is None:
            return []
        request: Any = outcome.request if outcome.kind == "http" else SimpleRequest(arrival)
        return notes_of(inbound, request, outcome.reason not in DENIALS)

    def _went_out(self, tables: Tables, outcome: Outcome) -> list[Note]:
        reached = outcome.endpoint
        if reached is None or not tables.inbound.shadow.outbound or outcome.reason in DENIALS:
            return []
        snapshot, mesh = tables.snapshot, tables.mesh.spec
        workload: Workload | None = snapshot.workloads.get(reached.endpoint.workload)
        peer = (
            as_peer(snapshot, mesh, workload, reached.endpoint.address)
            if workload is not None
            else identify(snapshot, mesh, "", reached.address)
        )
        return list(tables.inbound.shadow.went_out(peer, reached.endpoint.port))

    def lines(self) -> list[str]:
        """For metrics; connections that live are counted by now."""
        for outcome, _, _ in self.running():
            if id(outcome) not in self._seen:
                self._seen.add(id(outcome))
                self._count(self._notes(outcome))
        found = []
        for kind, name, text in (
            ("dry-run", "fairlead_policy_dry_run_denials_total", "What policies that are dry runs would have refused."),
            ("audit", "fairlead_policy_audit_total", "What AUDIT policies noted."),
        ):
            samples = [(policy_labels(by), n) for (own, by), n in self.counts.items() if own == kind]
            found += exposition.family(name, "counter", text, samples)
        return found
