"""Changes that take themselves back unless they are confirmed: what was before, and until when.

A record in the store holds the author, the deadline, and each object as it was before it was first changed under it.
It is written in one go with each of these changes, so neither stands without the other, and every control plane knows
it, also after a restart. Until it is confirmed or taken back nobody else can change these objects (409): so what goes
back at the deadline is never somebody else's work. All other objects may change meanwhile, and stay as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from . import rbac
from .auth import ADMIN, Principal
from .namespaces import is_ending
from .status import StatusError, bad_request, not_found
from .store import Change, Key, Objects, Stored, Write

RESOURCE = "confirmations.internal.fairlead.dev"
"""Not in the catalog: the object API does not show records."""
TIMEOUT_S = (1.0, 86400.0)
OPEN_MAX = 20
"""Of one author."""
ENTRIES_MAX = 500


class Record(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """One group of changes under confirmation."""

    id: str
    author: str
    started_at: float
    timeout_s: float
    deadline: float
    """Unix seconds."""
    before: dict[str, dict[str, Any] | None] = {}
    """By `RESOURCE/NAMESPACE/NAME`: the object as it was; None: there was none."""


def entry(key: Key) -> str:
    return "/".join(key)


def key_of(text: str) -> Key:
    resource, namespace, name = text.split("/", 2)
    return Key(resource, namespace, name)


class Confirmations:
    """Records over one store. `allowed`: resources whose changes sidecars can take back by themselves."""

    def __init__(self, memory: Objects, allowed: frozenset[str], shown: Callable[[Key, dict[str, Any]], Any]) -> None:
        self._memory = memory
        self._allowed = allowed
        self._shown = shown
        """An object as the feed carries it."""
        self._records: dict[str, tuple[Stored, Record]] = {}
        self._holder: dict[str, str] = {}
        """Record by entry."""
        for stored in memory.all(RESOURCE):
            self._take(stored.key.name, stored)
        memory.subscribe(self._changed)

    def _changed(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.key.resource == RESOURCE:
                self._take(change.key.name, change.after)

    def _take(self, name: str, stored: Stored | None) -> None:
        self._records.pop(name, None)
        self._holder = {key: holder for key, holder in self._holder.items() if holder != name}
        if stored is not None:
            record = msgspec.convert(stored.object()["record"], Record)
            self._records[name] = stored, record
            self._holder |= dict.fromkeys(record.before, name)

    # --- reading ----------------------------------------------------------------------------------------------------

    def all(self) -> list[Record]:
        return sorted((record for _, record in self._records.values()), key=lambda record: record.deadline)

    def of(self, name: str, who: Principal) -> Record:
        """Raises StatusError 404 also for what belongs to somebody else."""
        found = self._records.get(name)
        if found is None or (who.role != ADMIN and found[1].author != who.name):
            raise not_found("confirmations", "", name)
        return found[1]

    def next_deadline(self) -> float | None:
        return min((record.deadline for _, record in self._records.values()), default=None)

    def items(self) -> dict[str, dict[str, Any]]:
        """What goes to sidecars, by item key: until when, and what they then go back to. Permissions are control's."""
        made = {}
        for record in self.all():
            before = {
                f"object/{text}": None if body is None else self._shown(key, body)
                for text, body in record.before.items()
                if (key := key_of(text)).resource not in rbac.RESOURCES
            }
            if before:
                made[f"provisional/{record.id}"] = {
                    "deadline": record.deadline, "timeout": record.timeout_s, "before": before,
                }  # fmt: skip
        return made

    # --- writing ----------------------------------------------------------------------------------------------------

    def begin(self, name: str, who: Principal, timeout_s: Any, now: float) -> tuple[Record, Write]:
        """A new record and the write that keeps it. Raises StatusError 400, 429."""
        least, most = TIMEOUT_S
        if isinstance(timeout_s, bool) or not isinstance(timeout_s, (int, float)) or not least <= timeout_s <= most:
            raise bad_request(f"timeoutSeconds: expected {least:.0f} to {most:.0f}")
        if sum(record.author == who.name for record in self.all()) >= OPEN_MAX:
            raise StatusError(429, f"{who.name} has {OPEN_MAX} changes to confirm already", retry_after_s=5)
        record = Record(name, who.name, now, float(timeout_s), now + timeout_s)
        return record, Write(Key(RESOURCE, "", name), _body(record), expect=0)

    def writes(
        self, changing: Iterable[tuple[Key, Stored | None]], under: str, who: Principal, now: float
    ) -> list[Write]:
        """What is to be written together with a change of these objects. `under`: the record that the request names, or
        empty. Raises StatusError 409 for objects that are under another one's confirmation."""
        keys = list(changing)
        for key, _ in keys:
            holder = self._holder.get(entry(key))
            if holder is not None and holder != under:
                record = self._records[holder][1]
                raise StatusError(
                    409,
                    f'Operation cannot be fulfilled on {key.resource} "{key.name}": it is under confirmation '
                    f"{record.id} of {record.author} for {max(1, math.ceil(record.deadline - now))} s more: wait, or "
                    f"confirm or revert that first (`fairlead confirm {record.id} [--revert]`)",
                    name=key.name,
                    kind=key.resource,
                )
        if not under:
            return []
        record = self.of(under, who)
        if now >= record.deadline:
            raise StatusError(409, f"confirmation {under} has ended; what was applied under it has been taken back")
        new = {entry(key): before for key, before in keys if entry(key) not in record.before}
        for text in new:
            if (resource := key_of(text).resource) not in self._allowed:
                raise StatusError(
                    422, f"{resource} cannot be applied with confirmation: sidecars take back rules only (routing, "
                    "policies, MeshConfig, and RBAC in control); apply it by itself",
                )  # fmt: skip
        if len(record.before) + len(new) > ENTRIES_MAX:
            raise StatusError(422, f"more than {ENTRIES_MAX} objects under one confirmation")
        bodies = {key: stored.object() if stored is not None else None for key, stored in new.items()}
        # Written also where nothing is new in it: nothing is changed under what has just been confirmed or taken back.
        changed = msgspec.structs.replace(record, before={**record.before, **bodies})
        return [Write(Key(RESOURCE, "", under), _body(changed), expect=self._records[under][0].version)]

    def confirm(self, name: str, who: Principal, now: float) -> Write:
        """What makes its changes stay. Raises StatusError 404, 409."""
        record = self.of(name, who)
        if now >= record.deadline:
            raise StatusError(409, f"confirmation {name} has ended {now - record.deadline:.1f} s ago: it is taken back")
        return Write(Key(RESOURCE, "", name), None, expect=self._records[name][0].version)

    def revert(self, name: str) -> list[Write]:
        """What takes its changes back; nothing where it is gone by now. A rule that was made goes at once, whatever
        finalizers it has: while they held it, it would go on shutting people out."""
        found = self._records.get(name)
        if found is None:
            return []
        stored, record = found
        writes = []
        for text, body in record.before.items():
            key = key_of(text)
            now = self._memory.get(key)
            if now is None and key.namespace and not self._is_open(key.namespace):
                continue  # had it stayed, it would have gone with its namespace
            if body is not None and now is not None:  # it is another change, and not the one before once more
                generation = int(now.object()["metadata"].get("generation") or 1) + 1
                body = {**body, "metadata": {**body["metadata"], "generation": generation}}
            if body is not None or now is not None:
                writes.append(Write(key, body, expect=now.version if now is not None else 0))
        return [*writes, Write(stored.key, None, expect=stored.version)]

    def _is_open(self, namespace: str) -> bool:
        return self._memory.get(Key("namespaces", "", namespace)) is not None and not is_ending(self._memory, namespace)

    def due(self, now: float) -> list[Record]:
        return [record for record in self.all() if record.deadline <= now]


def _body(record: Record) -> dict[str, Any]:
    return {"metadata": {"name": record.id}, "record": msgspec.to_builtins(record)}
