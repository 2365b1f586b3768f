"""What the API does to objects: create, update, patch, apply and delete, over any store.

Every change is read, computed, and written with the version it was read at; where somebody was faster and the client
did not ask for a certain version, it is computed again. Status may be written with the object (a declared Pod has
nobody else to write it) or by itself through the status subresource; `generation` grows when anything outside of
metadata and status changes. A namespace that does not exist is made with the first object in it.

Long because create, update, patch, apply and delete share their steps, which are read best side by side.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..registry.schema import Findings
from . import status
from .admission import Admission, check_envelope, check_namespace
from .api_request import Query, Target
from .aside import Aside, at_once
from .audit import seconds_timestamp
from .catalog import Catalog
from .cluster_ips import AddressError, ClusterIPs, needs_address
from .conditions import REPORTED
from .defaults import fill_items
from .deletion import Deletions, check_finalizers, check_preconditions, policy_of
from .events import shown
from .events import stored as as_stored
from .managed_fields import ApplyConflict, Owner, after_update, server_side_apply
from .namespaces import NAMESPACES, check_open, is_ending, terminating
from .patch import PatchError, PatchTestError, json_patch, merge_patch
from .patch_strategic import rules_of, strategic_patch
from .pod_status import is_derived
from .rbac_defaults import missing
from .status import Cause, StatusError, bad_request, invalid
from .store import Change, ConflictError, Key, Store, Stored, StoreError, Write, encode

GENERATED_ATTEMPTS = 8
"""Names that are drawn for `generateName` where one is taken, as upstream."""
ATTEMPTS = 200
"""How often a change is computed again when others are faster."""
OBJECT_BYTES_MAX = 3 << 20
ANSWER_DELETED = ("services", "pods")
"""Deleting one of these answers the object and not a Status, as upstream; typed clients count on it."""
PROTECTED_NAMESPACES = ("default",)
AUTO_CREATED = "fairlead.dev/auto-created"
KEPT_METADATA = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


class Result(Struct, frozen=True):
    """`body`: the object as it is now, with apiVersion and kind."""

    body: dict[str, Any]
    created: bool = False
    warnings: tuple[str, ...] = ()
    stored: Stored | None = None
    """The same as it has been stored, where it has."""


class Admitted(Struct, frozen=True):
    """An object that may be stored as far as it alone can tell."""

    body: dict[str, Any]
    warnings: list[str]
    found: Findings


SERVICES, PODS = "services", "pods"


def service_key(key: Key) -> str:
    return f"{key.namespace}/{key.name}"


Changing = Mapping[Key, tuple[dict[str, Any] | None, dict[str, Any] | None]]
"""All that is to be changed in one go: (as it is, as it is to be), with apiVersion and kind; None: it is not there."""
Guard = Callable[[Changing], None]
CheckWrite = Callable[[Target, dict[str, Any] | None, dict[str, Any]], None]
"""(target, the object before or None, the object after)"""
Together = Callable[[list[tuple[Key, Stored | None]]], list[Write]]
"""(objects that are to be changed, as they are) to what must be written in one go with them."""
Compute = Callable[[dict[str, Any]], dict[str, Any]]


def key_of(target: Target, name: str = "") -> Key:
    return Key(target.resource.name, target.namespace, name or target.name)


def external(stored: Stored, target: Target) -> dict[str, Any]:
    """An object as the API shows it in this version."""
    body = shown(stored.object(), target.api_version)
    return {"apiVersion": target.api_version, "kind": target.resource.kind, **body}


def external_of(target: Target, body: dict[str, Any]) -> dict[str, Any]:
    """The same of one that is not stored yet."""
    return {"apiVersion": target.api_version, "kind": target.resource.kind, **internal(body)}


def internal(body: dict[str, Any]) -> dict[str, Any]:
    """As it is stored: the version it came in does not matter."""
    return {key: value for key, value in as_stored(body).items() if key not in ("apiVersion", "kind")}


class ObjectOperations:
    """`clock`: Unix seconds now; `draw(n)`: n random bytes."""

    def __init__(
        self,
        store: Store,
        catalog: Catalog,
        admission: Admission,
        clock: Callable[[], float],
        draw: Callable[[int], bytes],
        addresses: ClusterIPs | None = None,
    ) -> None:
        self._store = store
        self._addresses = addresses or ClusterIPs()
        self.address_problems = self._addresses.load(
            (service_key(one.key), one.object()) for one in store.memory.all(SERVICES)
        )
        store.memory.subscribe(self._follow_addresses)
        self._deletions = Deletions(store.memory, catalog)
        self._catalog = catalog
        self.admission = admission
        self._clock = clock
        self._draw = draw
        self.guards: list[Guard] = []
        """Asked before everything but a status is written, of all that goes in one go: two changes may do together what
        neither does alone. They refuse by raising StatusError."""
        self.check_write: CheckWrite = lambda _target, _before, _after: None
        """Asked before every write, also a dry one; raises StatusError."""
        self.together: Together = lambda _changing: []
        """Asked before every write but of status; raises StatusError."""
        self.aside: Aside = at_once
        """Does what takes long for a large object, and looks at nothing but that object."""

    def ask_guards(self, changing: Changing) -> None:
        for guard in self.guards:
            guard(changing)

    def _follow_addresses(self, changes: Sequence[Change]) -> None:
        for change in changes:
            if change.key.resource == SERVICES:
                after = change.after
                self._addresses.changed(service_key(change.key), after.object() if after is not None else None)

    @contextlib.contextmanager
    def with_addresses(self, target: Target, current: dict[str, Any] | None, body: dict[str, Any]) -> Iterator[None]:
        """While a Service is written: its ClusterIPs, which nobody else may get meanwhile. Raises StatusError 422."""
        if target.resource.name != SERVICES or target.subresource:
            yield
            return
        name = str(body["metadata"]["name"])
        try:
            with self._addresses.held(f"{target.namespace}/{name}", current, body):
                yield
        except AddressError as error:
            raise invalid(target.resource.kind, target.resource.group, name, error.causes) from None

    async def give_addresses(self) -> list[str]:
        """Give ClusterIPs to stored Services that have none, where there is a range of them; what could not be done."""
        wrong: list[str] = []
        for stored in self._store.memory.all(SERVICES) if self._addresses.ranges else ():
            body = stored.object()
            if not needs_address(body):
                continue
            try:
                with self._addresses.held(service_key(stored.key), None, body):
                    await self._store.write([Write(stored.key, body, expect=stored.version)])
            except (AddressError, StoreError) as error:
                wrong.append(f"Service {service_key(stored.key)}: {error}")
        return wrong

    def default_roles(self) -> list[Write]:
        """What makes the roles and bindings that every control plane has, and that are not there."""
        served = [(r.group, r.plural, r.namespaced) for r in self._catalog.resources]
        return missing(self._store.memory, served, self._uid, self._now())

    # --- reading ----------------------------------------------------------------------------------------------------

    def get(self, target: Target) -> Stored:
        """Raises StatusError 404."""
        stored = self._store.memory.get(key_of(target))
        if stored is None:
            raise status.not_found(target.resource.plural, target.resource.group, target.name)
        return stored

    # --- create -----------------------------------------------------------------------------------------------------

    async def create(self, target: Target, body: Any, query: Query, duplicates: list[str], manager: str) -> Result:
        """POST. Raises StatusError."""

        def work() -> Admitted:
            made = check_envelope(target.resource, target.version, body)
            metadata = made["metadata"]
            if metadata.get("resourceVersion"):
                raise bad_request("resourceVersion should not be set on objects to be created")
            self._place(target, metadata)
            if not metadata.get("name") and metadata.get("generateName"):
                for _ in range(GENERATED_ATTEMPTS):
                    metadata["name"] = metadata["generateName"][:248] + self._suffix()
                    if self._store.memory.get(key_of(target, metadata["name"])) is None:
                        break
            return self._judged_new(target, made, query, duplicates, (manager, "Update", ""))

        return await self._write_new(target, await self.aside(query.size, work), query)

    def _judged_new(
        self, target: Target, given: dict[str, Any], query: Query, duplicates: list[str], owner: Owner | None
    ) -> Admitted:
        """An object that there has not been, admitted; its fields are `owner`'s, unless they say whose."""
        resource, now = target.resource, self._now()
        made, warnings, found = self.admission.judge(
            resource, target.version, given, query.field_validation, duplicates
        )  # fmt: skip
        self._born(target, made)
        if owner is not None:
            after_update(None, made, resource.name, owner, target.api_version, now)
        self._check_size(target, made)
        return Admitted(made, warnings, found)

    def _now(self) -> str:
        return seconds_timestamp(self._clock())

    def _uid(self) -> str:
        return str(uuid.UUID(bytes=self._draw(16), version=4))

    def _suffix(self) -> str:
        letters = "bcdfghjklmnpqrstvwxz2456789"
        return "".join(letters[value % len(letters)] for value in self._draw(5))

    def _place(self, target: Target, metadata: dict[str, Any]) -> None:
        """Set the namespace from the path. Raises StatusError 400 where the body says another."""
        if not target.resource.namespaced:
            metadata.pop("namespace", None)
            return
        if not target.namespace:
            raise StatusError(405, f"{target.resource.kind} objects are created within a namespace")
        if metadata.get("namespace") not in (None, "", target.namespace):
            raise bad_request(
                f"the namespace of the provided object does not match the namespace sent on the request: "
                f"{metadata['namespace']} and {target.namespace}"
            )
        check_namespace(target.namespace)
        metadata["namespace"] = target.namespace

    def _born(self, target: Target, body: dict[str, Any]) -> None:
        metadata = body["metadata"]
        for key in ("selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion"):
            metadata.pop(key, None)
        metadata["uid"] = self._uid()
        metadata["creationTimestamp"] = self._now()
        metadata["generation"] = 1
        if target.resource.name in REPORTED or (target.resource.name == PODS and is_derived(body.get("status"))):
            body.pop("status", None)
        if target.resource.name == "namespaces":
            name = metadata.get("name")
            metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": name}
            body.setdefault("status", {"phase": "Active"})

    async def _write_new(self, target: Target, admitted: Admitted, query: Query) -> Result:
        warnings = admitted.warnings + self.admission.references(target.resource, admitted.found, query.size)
        body = admitted.body
        resource, name = target.resource, body["metadata"]["name"]
        key = key_of(target, name)
        wanted = body
        for _ in range(ATTEMPTS):
            self.check_write(target, None, body)  # each time: who was faster may have changed permissions, too
            self.ask_guards({key: (None, external_of(target, body))})
            if isinstance(wanted.get("spec"), dict):  # addresses are written into it, and may be somebody else's by now
                body = {**wanted, "spec": dict(wanted["spec"])}
            if self._store.memory.get(key) is not None:
                raise status.already_exists(resource.plural, resource.group, name)
            writes, notes = self._namespace_writes(target, name)
            writes += self.together([(key, None)])
            with self.with_addresses(target, None, body):
                if query.dry_run:
                    return Result(body, True, (*warnings, *notes))
                try:
                    changes = await self._store.write([*writes, Write(key, internal(body), expect=0)])
                except ConflictError:
                    continue
            after = changes[-1].after
            assert after is not None
            await self._leave_ended_namespace(target, after)
            return Result(external(after, target), True, (*warnings, *notes), after)
        raise status.conflict(resource.plural, resource.group, name)

    async def _leave_ended_namespace(self, target: Target, made: Stored) -> None:
        """Take an object back whose namespace has begun to end between the look at it and the write. Raises StatusError
        403."""
        memory, namespace = self._store.memory, target.namespace
        if not namespace or (memory.get(Key(NAMESPACES, "", namespace)) and not is_ending(memory, namespace)):
            return
        await self.delete_all([made], False)
        raise terminating(made.key, target.resource.group, target.resource.plural)

    def _namespace_writes(self, target: Target, name: str) -> tuple[list[Write], list[str]]:
        """What makes the namespace, where it is missing, and a note that says so. Raises StatusError 403."""
        check_open(self._store.memory, key_of(target, name), target.resource.group, target.resource.plural)
        if not target.namespace or self._store.memory.get(Key("namespaces", "", target.namespace)):
            return [], []
        return [self.namespace_write(target.namespace)], [
            f'namespace "{target.namespace}" did not exist and was created with this object'
        ]

    def namespace_write(self, name: str) -> Write:
        """The write that makes a namespace which nobody declared."""
        body = {
            "metadata": {
                "name": name,
                "uid": self._uid(),
                "creationTimestamp": self._now(),
                "generation": 1,
                "labels": {"kubernetes.io/metadata.name": name},
                "annotations": {AUTO_CREATED: "true"},
            },
            "status": {"phase": "Active"},
        }
        return Write(Key("namespaces", "", name), body, expect=0)

    def _check_size(self, target: Target, body: dict[str, Any]) -> None:
        try:
            size = len(encode(body))
        except (TypeError, ValueError, OverflowError, UnicodeError) as error:
            raise bad_request(f"the object cannot be stored: {error}") from None
        if size > OBJECT_BYTES_MAX:
            raise StatusError(413, f"the object is too large: {size} bytes, limit is {OBJECT_BYTES_MAX}")

    # --- update and patch -------------------------------------------------------------------------------------------

    async def update(self, target: Target, body: Any, query: Query, duplicates: list[str], manager: str) -> Result:
        """PUT. Raises StatusError."""
        given = await self.aside(query.size, lambda: check_envelope(target.resource, target.version, body))
        self._place(target, given["metadata"])
        if given["metadata"].get("name") not in (None, "", target.name):
            raise bad_request(
                f"the name of the object ({given['metadata']['name']}) does not match the URL ({target.name})"
            )
        given["metadata"]["name"] = target.name
        expect = given["metadata"].get("resourceVersion") or ""

        def compute(_current: dict[str, Any]) -> dict[str, Any]:
            spec = {"spec": dict(given["spec"])} if isinstance(given.get("spec"), dict) else {}
            return {**given, **spec, "metadata": dict(given["metadata"])}

        return await self._change(target, compute, query, duplicates, manager, expect)

    async def patch(
        self, target: Target, kind: str, patch: Any, query: Query, duplicates: list[str], manager: str
    ) -> Result:
        """PATCH with `merge`, `json` or `strategic` semantics. Raises StatusError."""
        resource = target.resource
        if kind == "strategic" and "." in resource.group and not resource.group.endswith(".k8s.io"):
            raise StatusError(
                415,
                "the body of the request was in an unknown format - accepted media types include: "
                "application/json-patch+json, application/merge-patch+json, application/apply-patch+yaml",
            )
        rules = rules_of(resource.name)

        def compute(current: dict[str, Any]) -> dict[str, Any]:
            try:
                if kind == "json":
                    patched = json_patch(current, patch)
                elif kind == "merge":
                    if not isinstance(patch, dict):
                        raise PatchError("a merge patch is an object")
                    patched = merge_patch(current, patch)
                else:
                    patched = strategic_patch(current, patch, rules)
            except PatchTestError as error:
                raise invalid(resource.kind, resource.group, target.name, [Cause("", str(error))]) from None
            except PatchError as error:
                code = 422 if kind == "json" and isinstance(patch, list) else 400
                raise StatusError(code, f"the patch cannot be applied: {error}", name=target.name) from None
            made = check_envelope(resource, target.version, patched)
            for field in ("name", "namespace"):
                if made["metadata"].get(field) != current["metadata"].get(field):
                    raise bad_request(f"metadata.{field} cannot be changed by a patch")
            return made

        expect = ""
        if kind != "json" and isinstance(patch, dict) and isinstance(patch.get("metadata"), dict):
            expect = str(patch["metadata"].get("resourceVersion") or "")
        return await self._change(target, compute, query, duplicates, manager, expect)

    async def apply(self, target: Target, config: Any, query: Query, duplicates: list[str]) -> Result:
        """PATCH by server-side apply; makes the object where there is none. Raises StatusError."""
        if not query.field_manager:
            raise bad_request(
                "PatchOptions.meta.k8s.io is invalid: fieldManager: Required value: is required for apply"
            )
        resource = target.resource
        given = await self.aside(query.size, lambda: check_envelope(resource, target.version, config))
        metadata = given["metadata"]
        self._place(target, metadata)
        if metadata.get("name") not in (None, "", target.name):
            raise bad_request(f"the name of the object ({metadata['name']}) does not match the URL ({target.name})")
        if metadata.get("managedFields"):
            raise bad_request("metadata.managedFields must be nil")
        metadata["name"] = target.name
        given = fill_items(resource.name, given)

        def compute(current: dict[str, Any] | None) -> dict[str, Any]:
            try:
                return server_side_apply(
                    current, given, resource.name, query.field_manager, query.force, target.api_version, self._now(),
                    target.subresource,
                )  # fmt: skip
            except ApplyConflict as error:
                raise apply_conflict(error) from None

        if self._store.memory.get(key_of(target)) is None and not target.subresource:
            if metadata.get("resourceVersion") or metadata.get("uid"):
                raise status.conflict(resource.plural, resource.group, target.name, "the object does not exist")

            def work() -> Admitted:
                made = check_envelope(resource, target.version, compute(None))
                return self._judged_new(target, made, query, duplicates, None)

            return await self._write_new(target, await self.aside(query.size, work), query)
        expect = str(metadata.get("resourceVersion") or "")
        leaves_it = resource.name != SERVICES  # into whose spec addresses are written
        return await self._change(target, compute, query, duplicates, "", expect, leaves_it)

    async def _change(
        self, target: Target, compute: Compute, query: Query, duplicates: list[str], manager: str, expect: str,
        leaves_it: bool = False,
    ) -> Result:  # fmt: skip
        """Read, compute, admit, write at the version read. `expect`: the version that the client insists on.
        `leaves_it`: `compute` changes nothing in what it is given, nor does anything later in what it makes of it."""
        resource = target.resource
        for _ in range(ATTEMPTS):
            stored = self.get(target)
            if expect and expect != str(stored.version):
                raise status.conflict(resource.plural, resource.group, target.name)
            size = max(query.size, len(stored.body))

            def work(stored: Stored = stored) -> tuple[dict[str, Any], Admitted]:
                current = external(stored, target)
                made = compute(current if leaves_it else external(stored, target))
                check_uid(target, current, made)
                made = self._only_what_may_change(target, current, made)
                body, warnings, found = self.admission.judge(
                    resource, target.version, made, query.field_validation, duplicates
                )
                self.admission.check_update(resource, current, body)
                return current, Admitted(body, warnings, found)

            current, admitted = await self.aside(size, work)
            warnings = admitted.warnings + self.admission.references(resource, admitted.found, size)
            with self.with_addresses(target, current, admitted.body):
                done = await self._write_changed(target, stored, current, admitted.body, query, manager)
            if done is not None:
                return Result(done[0], False, tuple(warnings), done[1])
        raise status.conflict(resource.plural, resource.group, target.name)

    def _is_other(self, target: Target, current: dict[str, Any], made: dict[str, Any], manager: str) -> bool:
        """Whether anything has changed; says in `made` whose it is, and that it is a new generation."""
        if desired(made) != desired(current):  # only now, when defaults are filled in on both sides
            made["metadata"]["generation"] = int(current["metadata"].get("generation") or 1) + 1
        if manager:
            owner = (manager, "Update", target.subresource)
            after_update(current, made, target.resource.name, owner, target.api_version, self._now())
        if same(current, made):
            return False
        self._check_size(target, made)
        return True

    async def _write_changed(
        self, target: Target, stored: Stored, current: dict[str, Any], made: dict[str, Any], query: Query, manager: str
    ) -> tuple[dict[str, Any], Stored | None] | None:
        """Write what was made of the object as it was read; as it is then, and as stored, where it was. None: somebody
        was faster."""
        size = max(query.size, len(stored.body))
        if not await self.aside(size, lambda: self._is_other(target, current, made, manager)):
            return current, None
        self.check_write(target, current, made)
        beside: list[Write] = []
        writes = self._deletions.update(stored, internal(made), self._now())
        is_going = bool(made["metadata"].get("deletionTimestamp")) and target.resource.name != NAMESPACES
        if is_going and not made["metadata"].get("finalizers"):
            writes = self._deletions.removal(stored, self._now())  # the last finalizer is gone, and so is the object
            beside = self._removal(writes)
        elif not target.subresource:
            self.ask_guards({stored.key: (current, external_of(target, made))})
            beside = self._removal(writes)
        if query.dry_run:
            made["metadata"]["resourceVersion"] = str(stored.version)
            return made, None
        try:
            changes = await self._store.write([*beside, *writes])
        except ConflictError:
            return None
        after = next((one.after for one in changes if one.key == stored.key), None)
        if after is None:
            return made, None
        return {**made, "metadata": {**made["metadata"], "resourceVersion": str(after.version)}}, after

    def _only_what_may_change(self, target: Target, current: dict[str, Any], made: dict[str, Any]) -> dict[str, Any]:
        """What the server keeps is taken from the stored object, and a subresource changes its own part only."""
        old, new = current["metadata"], made["metadata"]
        if target.resource.name == PODS and is_derived(made.get("status")):
            del made["status"]  # as it was read, and nobody's declaration
            if "status" in current:
                made["status"] = current["status"]
        if target.subresource == "status":
            merged = {**current, **({"status": made["status"]} if "status" in made else {})}
            if "status" not in made:
                merged.pop("status", None)
            merged["metadata"] = {**old, "managedFields": new.get("managedFields", old.get("managedFields", []))}
            if not merged["metadata"]["managedFields"]:
                del merged["metadata"]["managedFields"]
            return merged
        for key in KEPT_METADATA:
            new.pop(key, None)
            if key in old:
                new[key] = old[key]
        new.pop("selfLink", None)
        if old.get("deletionTimestamp"):
            check_finalizers(target, old.get("finalizers") or [], new.get("finalizers") or [])
        new["resourceVersion"] = old["resourceVersion"]
        if target.resource.name in REPORTED:
            made.pop("status", None)  # control writes it, and who wants to uses the subresource
        if "status" in current and "status" not in made:
            made["status"] = current["status"]
        if target.resource.name == "namespaces":
            new["labels"] = {**(new.get("labels") or {}), "kubernetes.io/metadata.name": target.name}
        return made

    # --- delete -----------------------------------------------------------------------------------------------------

    async def delete(self, target: Target, options: dict[str, Any], dry_run: bool, asked: str = "") -> dict[str, Any]:
        """DELETE of one object: the Status, or the object where finalizers still hold it. Raises StatusError.

        `asked`: the propagation policy of the query.
        """
        resource, policy = target.resource, policy_of(options, asked)
        for _ in range(ATTEMPTS):
            stored = self.get(target)
            body = stored.object()
            check_preconditions(target, stored, body, options)
            if resource.name == "namespaces" and target.name in PROTECTED_NAMESPACES:
                raise StatusError(
                    403, f'namespaces "{target.name}" is forbidden: this namespace may not be deleted',
                    name=target.name, kind="namespaces",
                )  # fmt: skip
            writes = self.plan_deletion([stored], policy)
            if not writes:
                return external(stored, target)  # it is to go already, and waits for its finalizers
            beside = self._removal(writes)
            left = next((one.body for one in writes if one.key == stored.key), None)
            if left is None and resource.name not in ANSWER_DELETED:
                uid = body["metadata"].get("uid", "")
                answer = status.success(target.name, resource.group, resource.plural, uid)
            else:
                answer = {"apiVersion": target.api_version, "kind": resource.kind, **(left or body)}
            if dry_run:
                return answer
            try:
                changes = await self._store.write([*beside, *writes])
            except ConflictError:
                continue
            after = next((one.after for one in changes if one.key == stored.key), None)
            return answer if after is None else external(after, target)
        raise status.conflict(resource.plural, resource.group, target.name)

    def plan_deletion(self, roots: Sequence[Stored], policy: str) -> list[Write]:
        """The writes that delete these, as far as nothing holds them; see `deletion`."""
        return self._deletions.plan(roots, policy, self._now())

    def _removal(self, writes: list[Write]) -> list[Write]:
        """What is to be written in one go with these. Raises StatusError."""
        before = [(write.key, self._store.memory.get(write.key)) for write in writes]
        gone = {write.key for write in writes if write.body is None}
        self.ask_guards({key: (self._whole(one), None) for key, one in before if key in gone and one is not None})
        return self.together(before)

    def _whole(self, stored: Stored) -> dict[str, Any]:
        resource = self._catalog.by_name[stored.key.resource]
        return {"apiVersion": resource.api_version(), "kind": resource.kind, **stored.object()}

    async def delete_all(self, found: list[Stored], dry_run: bool, policy: str = "Background") -> None:
        """Delete these objects, all at once; who is gone already does not matter. Raises StatusError."""
        for _ in range(ATTEMPTS):
            there = [self._store.memory.get(one.key) for one in found]
            roots = [
                one
                for one in there
                if one is not None and not (one.key.resource == "namespaces" and one.key.name in PROTECTED_NAMESPACES)
            ]
            writes = self.plan_deletion(roots, policy)
            beside = self._removal(writes)
            if dry_run or not writes:
                return
            try:
                await self._store.write([*beside, *writes])
            except ConflictError:
                continue
            return
        raise StatusError(409, "the collection keeps changing; try again")


def check_uid(target: Target, current: Mapping[str, Any], made: Mapping[str, Any]) -> None:
    """Raises StatusError 409 where the change is meant for another object of this name."""
    asked, there = made["metadata"].get("uid"), current["metadata"].get("uid")
    if asked and asked != there:
        raise status.conflict(
            target.resource.plural, target.resource.group, target.name,
            f"Precondition failed: UID in precondition: {asked}, in the object: {there}",
        )  # fmt: skip


def desired(body: dict[str, Any]) -> dict[str, Any]:
    """The part of an object whose changes count in `generation`."""
    return {key: value for key, value in body.items() if key not in ("metadata", "status", "apiVersion", "kind")}


def same(one: dict[str, Any], two: dict[str, Any]) -> bool:
    def essence(body: dict[str, Any]) -> dict[str, Any]:
        metadata = {key: value for key, value in body["metadata"].items() if key != "resourceVersion" and value != {}}
        return {**body, "metadata": metadata}

    return essence(one) == essence(two)


def apply_conflict(error: ApplyConflict) -> StatusError:
    causes = [Cause(path, f'conflict with "{manager}"', "FieldManagerConflict") for manager, path in error.conflicts]
    listed = ", ".join(f'conflict with "{manager}": {path}' for manager, path in error.conflicts[:20])
    many = len(causes) > 1
    text = f"Apply failed with {len(causes)} conflict{'s' if many else ''}: {listed}"
    return StatusError(409, text, causes=causes)
