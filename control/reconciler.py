"""Which objects need a new status, and when: at most one write per change and object where all goes well.

An object is pending from its change until every connected sidecar runs the version in which it came. If that happens
within `WAITING_TOLD_S`, its status is written once, when it has happened. Else what is waited for is written then,
and again at growing intervals while it changes. What was in force everywhere once stays so for its generation, however
sidecars come and go: a thousand of them that reconnect write nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from .audit import seconds_timestamp
from .catalog import Catalog
from .conditions import REPORTED, Findings, Seat, Verdict, compose, condition, judge, only_status, refusals_of, settled
from .store import Change, Key, Objects, Stored

WAITING_TOLD_S = 2.0
REPEAT_S_MAX = 60.0
FINDINGS_REPEAT_S = 10.0
"""Findings of other resources that come and go (endpoints) change an object's status no more often than this."""
WRITES_MOST = 256
"""In one go; the rest follow in the next."""


class Pending:
    """An object that is not known to be in force everywhere."""

    __slots__ = ("interval_s", "next_s", "number")

    def __init__(self, now: float) -> None:
        self.number = -1
        """Of the version that has it; -1: not published yet."""
        self.interval_s = WAITING_TOLD_S
        self.next_s = now + WAITING_TOLD_S
        """When the next word about it may be written, unless it is in force everywhere before."""


class Notice(Struct, frozen=True):
    """An event to be recorded."""

    type: str
    reason: str
    message: str


class StatusWrite(Struct, frozen=True):
    stored: Stored
    status: dict[str, Any]
    notices: tuple[Notice, ...] = ()


class Reconciler:
    """Over the objects of one store; `catalog` names their kinds."""

    def __init__(self, memory: Objects, catalog: Catalog, now: float) -> None:
        self._memory = memory
        self._kinds = {name: catalog.by_name[name].kind for name in REPORTED if name in catalog.by_name}
        self.pending: dict[Key, Pending] = {}
        self.findings: dict[Key, Findings] = {}
        self._told: dict[Key, float] = {}
        """When the findings of an object may be written again."""
        self._dirty: set[Key] = set()
        """Their findings are not written yet."""
        self.unseen: set[Key] = set()
        """Their status says that no sidecar was there."""
        for name in self._kinds:
            for stored in memory.all(name):
                body = stored.object()
                if not settled(body.get("status"), _generation(body)):
                    self.pending[stored.key] = Pending(now)
                self._see(stored.key, body.get("status"))

    def _see(self, key: Key, status: Any) -> None:
        unseen = condition(status, "Reconciled").get("reason") == "NoSidecars"
        (self.unseen.add if unseen else self.unseen.discard)(key)

    def sidecars_are_there(self, now: float) -> None:
        """What was written while there were none is to be judged by them."""
        for key in self.unseen:
            self.pending.setdefault(key, Pending(now))
        self.unseen.clear()

    def take(self, changes: Sequence[Change], now: float) -> bool:
        """Take what was written to the store; whether it concerns anybody."""
        concerned = False
        for change in changes:
            key = change.key
            if key.resource not in self._kinds or only_status(change):
                continue
            concerned = True
            if change.after is None:
                self.pending.pop(key, None)
                self.findings.pop(key, None)
                self._told.pop(key, None)
                self._dirty.discard(key)
                self.unseen.discard(key)
            else:
                self.pending[key] = Pending(now)
        return concerned

    def take_findings(self, found: Mapping[Key, Findings]) -> None:
        """Take what a look at all resources together has brought."""
        for key, findings in found.items():
            if key.resource in self._kinds and self.findings.get(key) != findings:
                self.findings[key] = findings
                self._dirty.add(key)

    @property
    def is_idle(self) -> bool:
        return not self.pending and not self._dirty

    def work(self, seats: Iterable[Seat], number: int, now: float) -> list[StatusWrite]:
        """What is to be written now. `number`: of the version that holds everything taken so far."""
        listed = list(seats)
        verdicts: dict[int, Verdict] = {}
        writes: list[StatusWrite] = []
        for key, one in list(self.pending.items()):
            if len(writes) >= WRITES_MOST:
                return writes
            if one.number < 0:
                one.number = number
            verdict = verdicts.get(one.number)
            if verdict is None:
                verdict = verdicts[one.number] = judge(listed, one.number)
            if not verdict.is_final and now < one.next_s:
                continue
            made = self._write(key, verdict, now)
            if verdict.is_final:
                del self.pending[key]
            else:
                one.interval_s = min(one.interval_s * 2, REPEAT_S_MAX)
                one.next_s = now + one.interval_s
            if made is not None:
                writes.append(made)
        for key in list(self._dirty):
            if len(writes) >= WRITES_MOST:
                break
            if key in self.pending or now < self._told.get(key, 0.0):
                continue  # what is pending takes its findings with it
            made = self._write(key, None, now)
            if made is not None:
                writes.append(made)
        return writes

    def failed(self, key: Key, now: float) -> None:
        """Its status could not be written: somebody changed the object meanwhile, or the store is full."""
        if self._memory.get(key) is not None and key not in self.pending:
            self.pending[key] = Pending(now)

    def _write(self, key: Key, verdict: Verdict | None, now: float) -> StatusWrite | None:
        stored = self._memory.get(key)
        findings = self.findings.get(key)
        self._dirty.discard(key)
        if verdict is None:
            self._told[key] = now + FINDINGS_REPEAT_S
        if stored is None:
            return None
        body, kind = stored.object(), self._kinds[key.resource]
        refusals = refusals_of(verdict, kind, key.resource, key.namespace, key.name) if verdict is not None else []
        before = body.get("status")
        status = compose(before, _generation(body), verdict, refusals, findings, seconds_timestamp(now))
        self._see(key, status)
        if status == before:
            return None
        return StatusWrite(stored, status, tuple(notices(before, status)))


def notices(before: Any, after: Mapping[str, Any]) -> list[Notice]:
    """Events for what turned bad, and for what is in force at last. Success at once is no event."""
    made = []
    for kind, bad in (("Accepted", "False"), ("Conflicted", "True")):
        old, new = condition(before, kind), condition(after, kind)
        if new.get("status") == bad and (old.get("status"), old.get("message")) != (bad, new.get("message")):
            made.append(Notice("Warning", str(new.get("reason")), str(new.get("message"))))
    old, new = condition(before, "Reconciled"), condition(after, "Reconciled")
    if new.get("reason") == "HeldUp" != old.get("reason"):
        made.append(Notice("Warning", "HeldUp", str(new.get("message"))))
    if new.get("status") == "True" and old.get("status") == "False":
        made.append(Notice("Normal", "Reconciled", str(new.get("message"))))
    return made


def _generation(body: Mapping[str, Any]) -> int:
    return int((body.get("metadata") or {}).get("generation") or 1)
