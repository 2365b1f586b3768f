"""How a namespace ends: nothing new comes into it, what is in it goes first, then what finalizers hold of itself.

https://kubernetes.io/docs/concepts/overview/working-with-objects/namespaces/ . Each object that goes from a namespace
that is ending is counted in its status, in the same group of writes: so of two that go at one time, the later one is
planned again, and sees that it is the last.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from .status import Cause, StatusError, qualified
from .store import Key, Objects, Stored

NAMESPACES = "namespaces"
KUBERNETES = "kubernetes"
"""The entry of spec.finalizers that stands for what is in the namespace, which is looked after anyway."""


def is_ending(memory: Objects, name: str) -> bool:
    stored = memory.get(Key(NAMESPACES, "", name))
    return (
        stored is not None
        and b'"deletionTimestamp"' in stored.body
        and bool(stored.object()["metadata"].get("deletionTimestamp"))
    )


def check_open(memory: Objects, key: Key, group: str, plural: str) -> None:
    """Raises StatusError 403 where an object is to be made in a namespace that is ending."""
    if key.namespace and is_ending(memory, key.namespace):
        raise terminating(key, group, plural)


def terminating(key: Key, group: str, plural: str) -> StatusError:
    return StatusError(
        403,
        f'{qualified(plural, group)} "{key.name}" is forbidden: unable to create new content in namespace '
        f"{key.namespace} because it is being terminated",
        name=key.name, group=group, kind=plural,
        causes=[Cause("metadata.namespace", f"namespace {key.namespace} is being terminated", "NamespaceTerminating")],
    )  # fmt: skip


def holders(body: Mapping[str, Any]) -> list[str]:
    """Finalizers of the namespace itself."""
    spec = body.get("spec")
    listed = (spec.get("finalizers") or ()) if isinstance(spec, dict) else ()
    own = [one for one in listed if one != KUBERNETES] if isinstance(listed, (list, tuple)) else []
    return [*(body["metadata"].get("finalizers") or ()), *own]


def ending(body: Mapping[str, Any], left: Sequence[tuple[Key, Mapping[str, Any]]], now: str) -> dict[str, Any]:
    """A namespace that is to go, and has to wait. `left`: what is still in it."""
    metadata = {**body["metadata"]}
    metadata.setdefault("deletionTimestamp", now)
    status = body.get("status")
    before: dict[str, Any] = status if isinstance(status, dict) else {}
    found = before.get("conditions")
    known = {one.get("type"): one for one in found if isinstance(one, dict)} if isinstance(found, list) else {}
    kinds = Counter(key.resource for key, _ in left)
    names = Counter(name for _, one in left for name in one["metadata"].get("finalizers") or ())
    made = [
        _condition(
            known, "NamespaceContentRemaining", ("SomeResourcesRemain", "ContentRemoved"), now,
            kinds and "Some resources are remaining: "
            + ", ".join(f"{kind} has {number} resource instances" for kind, number in sorted(kinds.items())),
            "All content successfully removed",
        ),
        _condition(
            known, "NamespaceFinalizersRemaining", ("SomeFinalizersRemain", "ContentHasNoFinalizers"), now,
            names and "Some content in the namespace has finalizers remaining: "
            + ", ".join(f"{name} in {number} resource instances" for name, number in sorted(names.items())),
            "All content-preserving finalizers finished",
        ),
    ]  # fmt: skip
    types = {one["type"] for one in made}
    others = [one for kind, one in known.items() if kind not in types]
    return {**body, "metadata": metadata, "status": {**before, "phase": "Terminating", "conditions": [*others, *made]}}


def _condition(
    known: Mapping[Any, Mapping[str, Any]], kind: str, reasons: tuple[str, str], now: str, told: object, nothing: str
) -> dict[str, Any]:
    state = "True" if told else "False"
    before = known.get(kind)
    same = before is not None and before.get("status") == state
    since = before.get("lastTransitionTime", now) if same and before is not None else now
    return {
        "type": kind, "status": state, "lastTransitionTime": since, "reason": reasons[0] if told else reasons[1],
        "message": str(told) if told else nothing,
    }  # fmt: skip


def same_but_version(stored: Stored, body: Mapping[str, Any]) -> bool:
    """Whether this is what is stored."""

    def essence(one: Mapping[str, Any]) -> dict[str, Any]:
        return {**one, "metadata": {k: v for k, v in one["metadata"].items() if k != "resourceVersion"}}

    return essence(stored.object()) == essence(body)
