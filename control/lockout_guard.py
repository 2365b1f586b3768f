"""Policies that would cut the control API, DNS or the author off are refused, unless forced."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..policy.lockout import Cut, cuts
from ..policy.world import Loader, World
from ..registry.documents import Document
from ..registry.snapshot import Snapshot
from .plaintext import FORCE
from .status import StatusError
from .store import Key

GUARDED = frozenset(
    ("networkpolicies.networking.k8s.io", "authorizationpolicies.security.istio.io",
     "peerauthentications.security.istio.io", "sidecars.networking.istio.io")
)  # fmt: skip
SETTINGS = "meshconfigs.fairlead.dev"

Bodies = Mapping[str, dict[str, Any]]
"""Objects by `object/RESOURCE/NAMESPACE/NAME`."""


class LockoutGuard:
    """`rules`: all that are in force, `snapshot`: the registry's. A body that did not change must be the same object:
    then only what changed is read again."""

    def __init__(self, rules: Callable[[], Bodies], snapshot: Callable[[], Snapshot]) -> None:
        self._rules = rules
        self._snapshot = snapshot
        self._before, self._after = Loader(), Loader()

    def check(self, changed: Mapping[Key, dict[str, Any] | None], author: str) -> None:
        """`changed`: objects as they are to be, with apiVersion and kind; None: removed. Raises StatusError 403."""
        concerned = {key: body for key, body in changed.items() if _is_guarded(item(key))}
        rules = self._rules()
        said = [rules.get(item(key)) if body is None else body for key, body in concerned.items()]
        if all(is_forced(body) for body in said):  # of what is removed, its own annotation
            return
        before = {key: body for key, body in rules.items() if _is_guarded(key)}
        after = {key: body for key, body in before.items() if key not in {item(one) for one in concerned}}
        after |= {item(key): body for key, body in concerned.items() if body is not None}
        found = cuts(self._world(self._before, before.values()), self._world(self._after, after.values()), author)
        if found:
            raise refusal(next(iter(concerned)), found)

    def _world(self, loader: Loader, bodies: Iterable[dict[str, Any]]) -> World:
        documents = [Document.of(body, "control") for body in bodies]
        return loader.load(documents, self._snapshot(), references=False)[0]


def is_forced(body: Mapping[str, Any] | None) -> bool:
    annotations = ((body or {}).get("metadata") or {}).get("annotations") or {}
    return isinstance(annotations, dict) and str(annotations.get(FORCE, "")).lower() == "true"


def item(key: Key) -> str:
    return f"object/{key.resource}/{key.namespace}/{key.name}"


def _is_guarded(item: str) -> bool:
    resource = item.split("/", 2)[1]
    return resource in GUARDED or resource == SETTINGS


def refusal(key: Key, found: list[Cut]) -> StatusError:
    group = key.resource.partition(".")[2]
    return StatusError(
        403,
        f'{key.resource} "{key.name}" is forbidden: {"; ".join(str(one) for one in found[:3])}'
        f"{f'; and {len(found) - 3} more' if len(found) > 3 else ''}. Apply first what allows it, or force this "
        f'(`--force` of `fairlead apply`, `delete` or `rollback`, or the annotation {FORCE}: "true")',
        name=key.name,
        group=group,
        kind=key.resource.partition(".")[0],
    )
