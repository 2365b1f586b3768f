"""What has happened to objects: each change with who, when, why, and what sidecars made of it; and what was before.

Changes that control writes itself (statuses, events, what is its own) are no history. Of Secrets nobody ever sees a
value here: only which keys there are, and which of them differ.
"""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

from msgspec import Struct

from .conditions import REPORTED, condition, only_status
from .status import StatusError, expired
from .store import Change, CompactedError, Key, Objects, Stored, is_internal

EVENTS = "events"
SECRETS = "secrets"
CONTROL = "fairlead:control"
NOT_SHOWN = ("resourceVersion", "managedFields", "generation", "uid", "creationTimestamp")
"""Metadata that says nothing of what somebody wanted."""
LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"
HIDDEN = "(hidden)"


def beyond(error: CompactedError, memory: Objects) -> StatusError:
    """410: what is asked for is not remembered any more, or not yet there."""
    log = memory.log
    return expired(f"revision {error.asked} is not in the history, which goes from {log.floor} to {memory.revision}")


class Outcome(Struct, frozen=True, omit_defaults=True):
    """What sidecars made of a change."""

    state: str
    """taken, refused, waiting, superseded (another change came before all had taken it), stored (no sidecar is asked
    about such objects)."""
    message: str = ""


class Entry(Struct, frozen=True):
    """One change."""

    revision: int
    time: float
    """Unix seconds; 0: not known."""
    author: str
    reason: str
    verb: str
    """created, changed, deleted."""
    resource: str
    namespace: str
    name: str
    result: Outcome


class Scope(Struct, frozen=True):
    """Of which objects; empty: any."""

    resource: str = ""
    namespace: str = ""
    name: str = ""
    author: str = ""

    def has(self, key: Key) -> bool:
        return (
            self.resource in ("", key.resource)
            and self.namespace in ("", key.namespace)
            and self.name in ("", key.name)
        )


def is_history(change: Change) -> bool:
    """Whether somebody would see what it changed: not where only who manages which field has."""
    resource = change.key.resource
    return resource != EVENTS and not is_internal(resource) and not only_status(change) and not only_kept(change)


def only_kept(change: Change) -> bool:
    """Whether it changed nothing but what clients and control keep of an object: managed fields, and what `kubectl
    apply` notes of its last manifest."""
    if change.before is None or change.after is None:
        return False
    return _without_kept(change.before.object()) == _without_kept(change.after.object())


def _without_kept(body: dict[str, Any]) -> dict[str, Any]:
    metadata = dict(body.get("metadata") or {})
    for field in ("resourceVersion", "managedFields"):
        metadata.pop(field, None)
    annotations = {k: v for k, v in (metadata.pop("annotations", None) or {}).items() if k != LAST_APPLIED}
    return {**body, "metadata": {**metadata, "annotations": annotations}}


def entries(changes: Sequence[Change], scope: Scope, limit: int) -> list[Entry]:
    """The latest changes of these objects, newest first. `changes`: all that is known, oldest first."""
    statuses: dict[Key, Mapping[str, Any]] = {}
    """The status of each object as it was last before its next change."""
    found: list[Entry] = []
    later: set[Key] = set()
    for change in reversed(changes):
        key = change.key
        if not scope.has(key):
            continue
        if only_status(change):
            if key not in statuses and change.after is not None:
                statuses[key] = change.after.object().get("status") or {}
            continue
        if only_kept(change):
            continue
        if is_history(change) and scope.author in ("", change.cause.author or CONTROL):
            found.append(_entry(change, statuses.get(key), key in later))
            if len(found) >= limit:
                break
        statuses.pop(key, None)
        later.add(key)
    return found


def _entry(change: Change, status: Mapping[str, Any] | None, superseded: bool) -> Entry:
    verb = "created" if change.before is None else "deleted" if change.after is None else "changed"
    cause = change.cause
    return Entry(
        change.revision, cause.at, cause.author or CONTROL, cause.reason, verb, *change.key,
        _outcome(change, status, superseded),
    )  # fmt: skip


def _outcome(change: Change, status: Mapping[str, Any] | None, superseded: bool) -> Outcome:
    if change.key.resource not in REPORTED or change.after is None:
        return Outcome("stored")
    body = change.after.object()
    generation = int(body["metadata"].get("generation") or 1)
    told = condition(status if status is not None else body.get("status"), "Reconciled")
    if told.get("observedGeneration") == generation:
        states = {"True": "taken", "False": "refused"}
        state = states.get(str(told.get("status")), "superseded" if superseded else "waiting")
        return Outcome(state, str(told.get("message", "")))
    return Outcome("superseded" if superseded else "waiting")


# --- the past -------------------------------------------------------------------------------------------------------


def changed_since(memory: Objects, revision: int) -> dict[Key, Stored | None]:
    """The objects that have changed since this revision, as they were then (None: there was none). Raises
    CompactedError for a revision that is older than the history, or not there yet."""
    if revision > memory.revision:
        raise CompactedError(revision, memory.log.floor)
    then: dict[Key, Stored | None] = {}
    for change in reversed(memory.log.after(revision)):
        then[change.key] = change.before
    return then


def differences(
    memory: Objects, before: int, after: int, scope: Scope
) -> list[tuple[Key, dict[str, Any] | None, dict[str, Any] | None]]:
    """(object, as it was, as it was later) of all that differs between two revisions, fit to be seen. Raises
    CompactedError."""
    new, old = changed_since(memory, after), changed_since(memory, before)  # what is not there yet is told first
    found = []
    for key in sorted(old.keys() | new.keys()):
        if not scope.has(key) or key.resource == EVENTS:
            continue
        one = old[key] if key in old else memory.get(key)
        two = new[key] if key in new else memory.get(key)
        shown = to_be_seen(key, one.object() if one else None, two.object() if two else None)
        if shown[0] != shown[1]:
            found.append((key, *shown))
    return found


def to_be_seen(
    key: Key, before: dict[str, Any] | None, after: dict[str, Any] | None
) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    """Two states of an object without what control keeps in it, and without a Secret's values."""
    values = (
        [{} if body is None else _values(body) for body in (before, after)] if key.resource == SECRETS else [{}, {}]
    )
    return _shown(key, before, values[0], values[1], "before"), _shown(key, after, values[1], values[0], "after")


def _values(body: Mapping[str, Any]) -> dict[str, Any]:
    data = body.get("data")
    return dict(data) if isinstance(data, dict) else {}


def _shown(
    key: Key, body: dict[str, Any] | None, mine: Mapping[str, Any], others: Mapping[str, Any], which: str
) -> dict[str, Any] | None:
    if body is None:
        return None
    metadata = {name: value for name, value in body.get("metadata", {}).items() if name not in NOT_SHOWN}
    made = {**body, "metadata": metadata}
    made.pop("status", None)
    if key.resource == SECRETS:
        annotations = {k: v for k, v in (metadata.get("annotations") or {}).items() if k != LAST_APPLIED}
        metadata.pop("annotations", None)
        if annotations:
            metadata["annotations"] = annotations
        differ = f"{HIDDEN[:-1]}, {which})"
        made["data"] = {
            name: HIDDEN if name not in others or others[name] == value else differ for name, value in mine.items()
        }
        if "stringData" in made:
            made["stringData"] = dict.fromkeys(made["stringData"], differ)
    return made


def unified(name: str, before: str, after: str) -> str:
    """What differs between two texts, as `diff -u` shows it."""
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{name}", f"b/{name}"
    )
    return "".join(lines)
