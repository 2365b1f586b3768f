"""Bringing objects back to what they were at an earlier revision, all in one go, through the same door as any change.

Each is admitted, guarded and permitted as if somebody wrote it now; what is to go is deleted, and waits for its
finalizers. An object keeps its uid and its age; one that was deleted since gets those that it had. Namespaces that were
made since stay.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from msgspec import Struct

from .api_request import Target
from .catalog import Catalog
from .history import EVENTS, Scope, beyond, changed_since
from .namespaces import check_open
from .objects import ATTEMPTS, PROTECTED_NAMESPACES, ObjectOperations, desired, external, internal, same
from .status import StatusError, conflict
from .store import Change, CompactedError, ConflictError, Key, Store, Stored, Write, is_internal


class Step(Struct, frozen=True):
    """What becomes of one object: created (again), changed, deleted."""

    verb: str
    resource: str
    namespace: str
    name: str


class Rollback:
    def __init__(
        self, store: Store, catalog: Catalog, operations: ObjectOperations, permit: Callable[[Target, str], None]
    ) -> None:
        """`permit(target, verb)` raises StatusError where who asks may not."""
        self._store = store
        self._permit = permit
        self._catalog = catalog
        self._operations = operations

    async def to(self, revision: int, scope: Scope, dry_run: bool) -> tuple[list[Step], list[Change]]:
        """Raises StatusError: 410 for a revision that the history does not reach, and whatever refuses a change."""
        for _ in range(ATTEMPTS):
            steps: list[Step] = []
            writes: list[Write] = []
            leaving: list[Stored] = []
            changing: list[tuple[Key, Stored | None]] = []
            guarded: dict[Key, tuple[dict[str, Any] | None, dict[str, Any] | None]] = {}
            with contextlib.ExitStack() as held:
                for key, then in self._wanted(revision, scope):
                    found = self._write(key, then, held)
                    if found is None:
                        continue
                    write, *states = found
                    now = self._store.memory.get(key)
                    verb = "created" if now is None else "deleted" if write.body is None else "changed"
                    steps.append(Step(verb, *key))
                    if now is not None and write.body is None:
                        leaving.append(now)
                    else:
                        writes.append(write)
                        changing.append((key, now))
                    guarded[key] = states[0], states[1]
                made = {write.key for write in writes}
                gone = [one for one in self._operations.plan_deletion(leaving, "") if one.key not in made]
                changing += [(one.key, self._store.memory.get(one.key)) for one in gone]
                writes += gone
                self._operations.ask_guards(guarded)
                places = self._places(writes)
                beside = self._operations.together(changing) if changing else []
                if dry_run or not writes:
                    return steps, []
                try:
                    return steps, await self._store.write([*places, *beside, *writes])
                except ConflictError:
                    continue
        raise StatusError(409, "these objects keep changing; try again")

    def _wanted(self, revision: int, scope: Scope) -> list[tuple[Key, Stored | None]]:
        try:
            then = changed_since(self._store.memory, revision)
        except CompactedError as error:
            raise beyond(error, self._store.memory) from None
        return [
            (key, stored)
            for key, stored in sorted(then.items(), key=lambda item: (item[0].resource != "namespaces", item[0]))
            if scope.has(key)
            and key.resource != EVENTS
            and not is_internal(key.resource)
            and key.resource in self._catalog.by_name
            and not (key.resource == "namespaces" and (stored is None or key.name in PROTECTED_NAMESPACES))
        ]

    def _places(self, writes: list[Write]) -> list[Write]:
        """What makes the namespaces that these objects are in and that are gone. Raises StatusError 403."""
        made = {write.key for write in writes}
        memory = self._store.memory
        for write in writes:
            if write.body and not write.expect:
                resource = self._catalog.by_name[write.key.resource]
                check_open(memory, write.key, resource.group, resource.plural)
        wanted = {Key("namespaces", "", write.key.namespace) for write in writes if write.body and write.key.namespace}
        gone = sorted(key for key in wanted - made if self._store.memory.get(key) is None)
        return [self._operations.namespace_write(key.name) for key in gone]

    def _write(
        self, key: Key, then: Stored | None, held: contextlib.ExitStack
    ) -> tuple[Write, dict[str, Any] | None, dict[str, Any] | None] | None:
        """(the write, the object as it is, as it is to be); None: it is as it was. Raises StatusError."""
        now = self._store.memory.get(key)
        operations, resource = self._operations, self._catalog.by_name[key.resource]
        version = resource.api_version().rpartition("/")[2]
        target = Target(resource, version, key.namespace, key.name)
        current = external(now, target) if now is not None else None
        if then is None:
            if now is None or current is None or current["metadata"].get("deletionTimestamp"):
                return None  # it is going already
            self._permit(target, "delete")
            return Write(key, None, expect=now.version), current, None
        made = external(then, target)
        metadata = dict(made["metadata"])
        made["metadata"] = metadata
        for name in ("resourceVersion", "deletionTimestamp", "deletionGracePeriodSeconds"):
            metadata.pop(name, None)
        made.pop("status", None)
        if current is not None:
            for name in ("uid", "creationTimestamp", "resourceVersion"):
                if name in current["metadata"]:
                    metadata[name] = current["metadata"][name]
            generation = int(current["metadata"].get("generation") or 1)
            metadata["generation"] = generation + (desired(made) != desired(current))
            if "status" in current:
                made["status"] = current["status"]
            if same(*(_without_bookkeeping(one) for one in (current, made))):
                return None
            if current["metadata"].get("deletionTimestamp"):
                raise conflict(
                    resource.plural, resource.group, key.name, "it is being deleted, and cannot be brought back"
                )
        self._permit(target, "create" if current is None else "update")
        made, _ = operations.admission.admit(resource, version, made, "Warn", [])
        operations.check_write(target, current, made)
        held.enter_context(operations.with_addresses(target, current, made))
        return Write(key, internal(made), expect=now.version if now is not None else 0), current, made


def _without_bookkeeping(body: dict[str, Any]) -> dict[str, Any]:
    metadata = {k: v for k, v in body["metadata"].items() if k not in ("managedFields", "generation")}
    return {**body, "metadata": metadata}
