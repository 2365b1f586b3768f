"""What a deletion does: finalizers hold an object, and what depends on it goes with it, before it, or stays.

https://kubernetes.io/docs/concepts/architecture/garbage-collection/ . All that can go at once goes in one group of
writes: nobody sees an owner gone and its dependents still there, unless finalizers hold these. An object whose owner
never existed is left alone, as that may be of a kind that is not served here. An owner in a namespace has dependents in
that namespace alone: a reference from elsewhere counts as one to something that is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .api_request import Target
from .catalog import Catalog
from .namespaces import NAMESPACES, ending, holders, is_ending, same_but_version
from .status import Cause, bad_request, conflict, invalid
from .store import Change, Key, Objects, Stored, Write

POLICIES = ("Background", "Foreground", "Orphan")
FOREGROUND = "foregroundDeletion"
"""The finalizer of an owner that waits for its dependents."""
ORPHAN = "orphan"


def policy_of(options: Mapping[str, Any], query: str = "") -> str:
    """The propagation policy that DeleteOptions, or else the query, ask for; empty: neither does, and the object's
    finalizers decide. Raises StatusError 400."""
    asked = options.get("propagationPolicy") or query
    orphan = options.get("orphanDependents")
    if asked and orphan is not None:
        raise bad_request("orphanDependents and propagationPolicy cannot be set at the same time")
    if asked and asked not in POLICIES:
        raise bad_request(f"propagationPolicy: expected Foreground, Background or Orphan, got {asked!r}")
    return str(asked or ("Orphan" if orphan else "" if orphan is None else "Background"))


def policy_for(metadata: Mapping[str, Any], asked: str) -> str:
    """What was asked for, else what the object's finalizers say, else Background."""
    finalizers = metadata.get("finalizers") or ()
    return asked or ("Orphan" if ORPHAN in finalizers else "Foreground" if FOREGROUND in finalizers else "Background")


def references(body: Mapping[str, Any]) -> list[dict[str, Any]]:
    listed = (body.get("metadata") or {}).get("ownerReferences")
    return [one for one in listed if isinstance(one, dict)] if isinstance(listed, list) else []


def check_finalizers(target: Target, before: list[Any], after: Any) -> None:
    """Who waits for the end of an object may not be joined by others. Raises StatusError 422."""
    added = [one for one in after if one not in before] if isinstance(after, list) else []
    if added:
        told = f"Forbidden: no new finalizers can be added if the object is being deleted, found new finalizers {added}"
        cause = Cause("metadata.finalizers", told, "FieldValueForbidden")
        raise invalid(target.resource.kind, target.resource.group, target.name, [cause])


def check_preconditions(target: Target, stored: Stored, body: dict[str, Any], options: dict[str, Any]) -> None:
    wanted = options.get("preconditions") or {}
    if not isinstance(wanted, dict):
        raise bad_request("preconditions: expected an object")
    for field, actual in (("uid", body["metadata"].get("uid")), ("resourceVersion", str(stored.version))):
        if wanted.get(field) and wanted[field] != actual:
            raise conflict(
                target.resource.plural, target.resource.group, target.name,
                f"Precondition failed: {field} in precondition: {wanted[field]}, {field} in object meta: {actual}",
            )  # fmt: skip


class Deletions:
    """Over one store. `now`: an RFC 3339 timestamp, given with each call."""

    def __init__(self, memory: Objects, catalog: Catalog) -> None:
        self._memory = memory
        self._catalog = catalog
        self._dependents: dict[str, set[Key]] = {}
        """Keys of objects by the uid of an owner that they name."""
        for resource in catalog.resources:
            for stored in memory.all(resource.name):
                self._index(stored, True)
        memory.subscribe(self._take)

    def _take(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.before is not None:
                self._index(change.before, False)
            if change.after is not None:
                self._index(change.after, True)

    def _index(self, stored: Stored, there: bool) -> None:
        if b'"ownerReferences"' not in stored.body:
            return
        for reference in references(stored.object()):
            uid = str(reference.get("uid"))
            keys = self._dependents.setdefault(uid, set())
            if there:
                keys.add(stored.key)
            else:
                keys.discard(stored.key)
                if not keys:
                    del self._dependents[uid]

    def dependents(self, owner: Key, uid: str) -> list[Stored]:
        """Of the object with this key and uid."""
        places = (key for key in sorted(self._dependents.get(uid, ())) if owner.namespace in ("", key.namespace))
        return [stored for stored in map(self._memory.get, places) if stored is not None]

    def plan(self, roots: Sequence[Stored], policy: str, now: str) -> list[Write]:
        """The writes that delete these; empty where they are to go already, and wait. `policy`: see `policy_of`."""
        return _Plan(self, self._memory, self._catalog, now).delete_all(roots, policy)

    def removal(self, stored: Stored, now: str) -> list[Write]:
        """The writes that take away an object which nothing holds any more, and all that went by it."""
        plan = _Plan(self, self._memory, self._catalog, now)
        plan.remove(stored)
        return plan.writes()

    def update(self, stored: Stored, body: dict[str, Any], now: str) -> list[Write]:
        """The writes that give an object this body: itself, then owners that no longer need to wait for it."""
        plan = _Plan(self, self._memory, self._catalog, now)
        plan.change(stored, body)
        return plan.writes()


class _Plan:
    """One group of writes in the making: bodies as they would be."""

    def __init__(self, deletions: Deletions, memory: Objects, catalog: Catalog, now: str) -> None:
        self._deletions, self._memory, self._catalog, self._now = deletions, memory, catalog, now
        self._bodies: dict[Key, dict[str, Any] | None] = {}
        """As they will be; None: gone."""
        self._versions: dict[Key, int] = {}
        self._above: set[Key] = set()
        """Owners whose dependents are being deleted: in a circle they do not wait for each other."""
        self._ending: dict[str, Stored] = {}
        """Namespaces that go as soon as they can."""
        self._spaces: dict[str, bool] = {}
        """Whether each was ending before."""

    def writes(self) -> list[Write]:
        for stored in self._ending.values():
            self._settle(stored)
        return [Write(key, body, self._versions[key]) for key, body in self._bodies.items()]

    def _body(self, stored: Stored) -> dict[str, Any] | None:
        if stored.key in self._bodies:
            return self._bodies[stored.key]
        return stored.object()

    def _put(self, stored: Stored, body: dict[str, Any] | None) -> None:
        self._bodies.pop(stored.key, None)  # the last word comes last
        self._bodies[stored.key] = body
        self._versions[stored.key] = stored.version

    def delete_all(self, roots: Sequence[Stored], policy: str) -> list[Write]:
        for stored in roots:
            self.delete(stored, policy)
        return self.writes()

    def delete(self, stored: Stored, policy: str) -> None:
        body = self._body(stored)
        if body is None:
            return
        if stored.key.resource == NAMESPACES:
            self._ending[stored.key.name] = stored
            for one in self._contents(stored.key.name):
                self.delete(one, "Background")
            return
        metadata = body["metadata"]
        uid = str(metadata.get("uid"))
        policy = policy_for(metadata, policy)
        finalizers = [one for one in metadata.get("finalizers") or () if one not in (ORPHAN, FOREGROUND)]
        if policy == "Orphan":
            for other in self._deletions.dependents(stored.key, uid):
                self._release(other, uid)
        elif policy == "Foreground":
            self._mark(stored, body, [*finalizers, FOREGROUND])
            self._above.add(stored.key)
            self._delete_dependents(stored.key, uid, policy)
            self._above.discard(stored.key)
            if self._blocking(stored.key, uid):
                finalizers = [*finalizers, FOREGROUND]
        if not finalizers:
            self.remove(stored)
        elif metadata.get("finalizers") != finalizers or not metadata.get("deletionTimestamp"):
            self._mark(stored, body, finalizers)
        else:
            self._bodies.pop(stored.key, None)  # it is to go already, and waits as before

    def _mark(self, stored: Stored, body: dict[str, Any], finalizers: list[str]) -> None:
        metadata = {**body["metadata"], "finalizers": finalizers}
        metadata.setdefault("deletionTimestamp", self._now)
        metadata.setdefault("deletionGracePeriodSeconds", 0)
        self._put(stored, {**body, "metadata": metadata})

    def remove(self, stored: Stored) -> None:
        """Take it away, then what depends on it alone, then owners that only waited for it."""
        body = self._body(stored)
        if body is None:
            return
        self._put(stored, None)
        self._tell_namespace(stored.key.namespace)
        self._delete_dependents(stored.key, str(body["metadata"].get("uid")), "")
        self._tell_owners(stored.key, body)

    def _contents(self, namespace: str) -> list[Stored]:
        return [
            stored
            for resource in self._catalog.resources
            if resource.namespaced
            for stored in self._memory.all(resource.name, namespace)
        ]

    def _settle(self, stored: Stored) -> None:
        """A namespace that is ending goes, or says what it waits for."""
        body = self._body(stored)
        if body is None:
            return
        left = [(one.key, told) for one in self._contents(stored.key.name) if (told := self._body(one)) is not None]
        if not left and not holders(body):
            self._put(stored, None)
            self._delete_dependents(stored.key, str(body["metadata"].get("uid")), "")
            return
        made = ending(body, left, self._now)
        if same_but_version(stored, made):
            self._bodies.pop(stored.key, None)
        else:
            self._put(stored, made)

    def _tell_namespace(self, name: str) -> None:
        if not name or name in self._ending:
            return
        if name not in self._spaces:
            self._spaces[name] = is_ending(self._memory, name)
        stored = self._memory.get(Key(NAMESPACES, "", name)) if self._spaces[name] else None
        if stored is not None:
            self._ending[name] = stored

    def change(self, stored: Stored, body: dict[str, Any]) -> None:
        self._put(stored, body)
        if stored.key.resource == NAMESPACES and body["metadata"].get("deletionTimestamp"):
            self._ending[stored.key.name] = stored
        if b'"ownerReferences"' in stored.body:
            self._tell_owners(stored.key, stored.object())

    def _tell_owners(self, key: Key, body: Mapping[str, Any]) -> None:
        """An object that had these references does not hold up its owners any more, or less so: some may go now."""
        for reference in references(body):
            owner = self._owner(reference, key.namespace)
            held = self._body(owner) if owner is not None else None
            if owner is None or held is None or not held["metadata"].get("deletionTimestamp"):
                continue
            uid, finalizers = str(held["metadata"].get("uid")), held["metadata"].get("finalizers") or ()
            if FOREGROUND not in finalizers or uid != str(reference.get("uid")) or self._blocking(owner.key, uid):
                continue
            if left := [one for one in finalizers if one != FOREGROUND]:
                self._mark(owner, held, left)
            else:
                self.remove(owner)

    def _delete_dependents(self, owner: Key, uid: str, policy: str) -> None:
        for other in self._deletions.dependents(owner, uid):
            body = self._body(other)
            if body is None or body["metadata"].get("deletionTimestamp"):
                continue
            owners = {str(one.get("uid")) for one in references(body)}
            if uid not in owners:
                continue  # left behind by intention
            if owners != {uid}:
                self._release(other, uid)  # another owner still wants it
            else:
                self.delete(other, policy)

    def _release(self, stored: Stored, uid: str) -> None:
        """Take the reference to an owner out."""
        body = self._body(stored)
        if body is None:
            return
        left = [one for one in references(body) if str(one.get("uid")) != uid]
        metadata = {key: value for key, value in body["metadata"].items() if key != "ownerReferences"}
        self._put(stored, {**body, "metadata": {**metadata, "ownerReferences": left} if left else metadata})

    def _blocking(self, owner: Key, uid: str) -> bool:
        """Whether something that is still there holds up the deletion of its owner in the foreground."""
        for other in self._deletions.dependents(owner, uid):
            body = self._body(other)
            if (
                body is not None
                and other.key not in self._above
                and any(str(one.get("uid")) == uid and one.get("blockOwnerDeletion") for one in references(body))
            ):
                return True
        return False

    def _owner(self, reference: Mapping[str, Any], namespace: str) -> Stored | None:
        group = str(reference.get("apiVersion")).rpartition("/")[0]
        for resource in self._catalog.resources:
            if resource.kind == reference.get("kind") and resource.group == group:
                place = namespace if resource.namespaced else ""
                return self._memory.get(Key(resource.name, place, str(reference.get("name"))))
        return None
