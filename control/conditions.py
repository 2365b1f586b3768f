"""The status of a rule: whether sidecars took it, what it refers to in vain, and which other resource contradicts it.

    status:
      observedGeneration: 3
      sidecars: {total: 12, running: 11, waiting: 1, refused: 0}
      conditions:
        - {type: Accepted, status: "True", reason: Accepted, ...}          no sidecar refuses it
        - {type: Reconciled, status: "Unknown", reason: Waiting, ...}      Istio's name: it is in force in every sidecar
        - {type: ResolvedRefs, status: "True", reason: ResolvedRefs, ...}  everything that it refers to is there
        - {type: Conflicted, status: "False", reason: NoConflicts, ...}    no other resource takes its place
      warnings: [{path: spec.hosts[0], message: ...}]

The names Accepted, ResolvedRefs and Conflicted are those of the Gateway API. The numbers are those of the moment at
which a condition last changed: were they kept up to date while sidecars come and go, every one of them would change
every object.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from .store import Change

REPORTED = frozenset(
    (
        "virtualservices.networking.istio.io",
        "destinationrules.networking.istio.io",
        "networkpolicies.networking.k8s.io",
        "peerauthentications.security.istio.io",
        "authorizationpolicies.security.istio.io",
        "requestauthentications.security.istio.io",
        "gateways.networking.istio.io",
        "sidecars.networking.istio.io",
        "serviceentries.networking.istio.io",
        "ingresses.networking.k8s.io",
        "localratelimits.fairlead.dev",
    )
)
"""Resources whose status control writes; clients write it through the status subresource only."""
WARNINGS_MOST = 10
NAMES_MOST = 3
"""So many sidecars are named in a message."""
OWN = ("Accepted", "Reconciled", "ResolvedRefs", "Conflicted")


class Seat(Struct, frozen=True):
    """One connected sidecar: the numbers of the versions (push.Book) that it runs and refuses; -1: none of these."""

    name: str
    """namespace/workload."""
    runs: int
    refuses: int = -1
    reasons: tuple[str, ...] = ()


class Verdict(Struct, frozen=True):
    """What the sidecars have made of the version in which an object came."""

    running: int = 0
    waiting: tuple[str, ...] = ()
    refusing: tuple[Seat, ...] = ()

    @property
    def total(self) -> int:
        return self.running + len(self.waiting) + len(self.refusing)

    @property
    def is_final(self) -> bool:
        """In force everywhere."""
        return not self.waiting and not self.refusing


class Findings(Struct, frozen=True):
    """What a look at all resources together says of one of them; (path, message) each."""

    errors: tuple[tuple[str, str], ...] = ()
    conflicts: tuple[tuple[str, str], ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    others: tuple[tuple[str, str], ...] = ()


def number_of(version: str, epoch: str) -> int:
    """The number of a feed version `EPOCH.NUMBER`; -1 for one of another run of control, or none."""
    own, _, number = version.rpartition(".")
    return int(number) if own == epoch and number.isdigit() else -1


def judge(seats: Iterable[Seat], number: int) -> Verdict:
    """What became of the version `number`."""
    running, waiting, refusing = 0, [], []
    for seat in seats:
        if seat.runs >= number:
            running += 1
        elif seat.refuses >= number:
            refusing.append(seat)
        else:
            waiting.append(seat.name)
    return Verdict(running, tuple(waiting), tuple(refusing))


def refusals_of(verdict: Verdict, kind: str, resource: str, namespace: str, name: str) -> list[tuple[str, str]]:
    """(sidecar, reason) of those that refuse this object, and not another that came with it."""
    starts = (f"{kind} {namespace}/{name}:", f"object/{resource}/{namespace}/{name}:")
    return [
        (seat.name, reason) for seat in verdict.refusing for reason in seat.reasons if reason.startswith(starts)
    ]  # fmt: skip


def some(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - NAMES_MOST} more" if len(names) > NAMES_MOST else ""
    return ", ".join(names[:NAMES_MOST]) + more


def _condition(kind: str, status: bool | None, reason: str, message: str) -> dict[str, Any]:
    told = "Unknown" if status is None else str(status)
    return {"type": kind, "status": told, "reason": reason, "message": message}


def by_sidecars(verdict: Verdict, refusals: Sequence[tuple[str, str]]) -> list[dict[str, Any]]:
    """The conditions Accepted and Reconciled."""
    up_to_date = f"{verdict.running}/{verdict.total} sidecars run it"
    if refusals:
        who = some(list(dict.fromkeys(name for name, _ in refusals)))
        told = f"{up_to_date}; {len(verdict.refusing)} refuse it ({who}): {refusals[0][1]}"
        return [
            _condition("Accepted", False, "Refused", f"{who}: {refusals[0][1]}"),
            _condition("Reconciled", False, "Refused", told),
        ]
    accepted = _condition("Accepted", True, "Accepted", "no sidecar refuses it")
    if verdict.refusing:
        seat = verdict.refusing[0]
        why = seat.reasons[0] if seat.reasons else "no reason given"
        told = f"{up_to_date}; {some([one.name for one in verdict.refusing])} refuse the version that it came in: {why}"
        return [accepted, _condition("Reconciled", False, "HeldUp", told)]
    if verdict.waiting:
        told = f"{up_to_date}; waiting for {some(verdict.waiting)}"
        return [accepted, _condition("Reconciled", None, "Waiting", told)]
    told = up_to_date if verdict.total else "no sidecar is connected"
    return [accepted, _condition("Reconciled", True, "Reconciled" if verdict.total else "NoSidecars", told)]


def by_resources(findings: Findings) -> list[dict[str, Any]]:
    """The conditions ResolvedRefs and Conflicted, and Accepted where the object cannot be used at all."""
    made = []
    if findings.errors:  # stored by an older version of fairlead
        made.append(_condition("Accepted", False, "Invalid", _text(findings.errors)))
    if findings.missing:
        made.append(_condition("ResolvedRefs", False, "RefNotFound", _text(findings.missing)))
    else:
        made.append(_condition("ResolvedRefs", True, "ResolvedRefs", "all that it refers to is there"))
    if findings.conflicts:
        made.append(_condition("Conflicted", True, "Conflicted", _text(findings.conflicts)))
    else:
        made.append(_condition("Conflicted", False, "NoConflicts", "no other resource takes its place"))
    return made


def _text(found: Sequence[tuple[str, str]]) -> str:
    first = f"{found[0][0]}: {found[0][1]}" if found[0][0] else found[0][1]
    return first + (f" (and {len(found) - 1} more)" if len(found) > 1 else "")


def compose(
    before: Any, generation: int, verdict: Verdict | None, refusals: Sequence[tuple[str, str]],
    findings: Findings | None, now: str,
) -> dict[str, Any]:  # fmt: skip
    """The status to be, given the one that stands there. `verdict` None: nothing new from sidecars, `findings` None:
    nothing new from other resources; `now`: an RFC 3339 timestamp."""
    status = dict(before) if isinstance(before, Mapping) else {}
    listed = [one for one in status.get("conditions") or () if isinstance(one, Mapping)]
    stood = {str(one.get("type")): one for one in listed}
    fresh = {one["type"]: one for one in by_sidecars(verdict, refusals)} if verdict is not None else {}
    if findings is not None:
        fresh |= {one["type"]: one for one in by_resources(findings)}
        told = [*findings.errors, *findings.conflicts, *findings.missing, *findings.others]
        status["warnings"] = [{"path": path, "message": str(text)} for path, text in told[:WARNINGS_MOST]]
        if not told:
            del status["warnings"]
    conditions = [dict(one) for one in listed if one.get("type") not in OWN]
    for name in OWN:
        old, new = stood.get(name), fresh.get(name)
        if new is None:
            if old is not None:
                conditions.append(dict(old))
            continue
        since = now
        if old is not None and old.get("status") == new["status"] and old.get("lastTransitionTime"):
            since = old["lastTransitionTime"]
        conditions.append({**new, "lastTransitionTime": since, "observedGeneration": generation})
    status["conditions"] = conditions
    if verdict is not None:
        status["observedGeneration"] = generation
        status["sidecars"] = {
            "total": verdict.total, "running": verdict.running, "waiting": len(verdict.waiting),
            "refused": len(verdict.refusing),
        }  # fmt: skip
    return status


def condition(status: Any, kind: str) -> Mapping[str, Any]:
    """A condition of a status; empty where there is none."""
    listed = status.get("conditions") if isinstance(status, Mapping) else None
    found = (one for one in listed or () if isinstance(one, Mapping) and one.get("type") == kind)
    return next(found, {})


def settled(status: Any, generation: int) -> bool:
    """Whether a stored status says that this generation is in force everywhere."""
    one = condition(status, "Reconciled")
    return one.get("status") == "True" and one.get("observedGeneration") == generation


def only_status(change: Change) -> bool:
    """Whether a change of a reported resource is one of its status alone."""
    if change.key.resource not in REPORTED or change.before is None or change.after is None:
        return False
    if generation_in(change.before.body) != generation_in(change.after.body):
        return False  # almost always this says it, and is found without decoding both objects
    known = _judged.get(id(change))
    if known is None or known[0] is not change:
        answer = _without_status(change.before.object()) == _without_status(change.after.object())
        if len(_judged) >= JUDGED_MOST:
            _judged.clear()
        known = _judged[id(change)] = change, answer
    return known[1]


class _Metadata(Struct):
    generation: Any = 0


class _Written(Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


JUDGED_MOST = 256
_judged: dict[int, tuple[Change, bool]] = {}
"""What was found of the latest changes, each of which several ask about, by their identity."""
_written = msgspec.json.Decoder(_Written).decode


def generation_in(body: bytes) -> Any:
    """metadata.generation of a stored object."""
    return _written(body).metadata.generation


def _without_status(body: dict[str, Any]) -> dict[str, Any]:
    body.pop("status", None)
    for field in ("resourceVersion", "managedFields"):
        body.get("metadata", {}).pop(field, None)
    return body
