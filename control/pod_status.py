"""The status of a Pod as its sidecar tells, made when it is read.

It is not stored: a flap of a health check would be a write and a line of history, with a hundred thousand Pods. What is
stored of a status (a Pod may be declared with one) stays as it is, and says what no sidecar does. Who watches Pods
hears of each change (`watch_hub.touch`), with the object's resourceVersion as it was, since the object is the same.

Ready is True while the sidecar is connected, its checks pass and it does not drain; Unknown where no sidecar of the Pod
is connected, which says nothing against the app: it is given out to clients as it was declared.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import msgspec

from ..registry.model import Workload
from .audit import seconds_timestamp
from .sidecars import Known
from .store import Stored

CONNECTED, MISSING, GONE = "SidecarConnected", "SidecarMissing", "SidecarGone"
DRAINS, FAILS, NOT_READY = "SidecarDrains", "SidecarChecksFail", "SidecarHeldBack"
REASONS = frozenset((CONNECTED, MISSING, GONE, DRAINS, FAILS, NOT_READY))
_NO_SIDECAR = "no sidecar of it has been heard of: it is given out to clients as it was declared"
_AWAY = "its sidecar is not connected to control"
encode, decode = msgspec.json.encode, msgspec.json.decode


class PodStatuses:
    """`workload`: by key as in the registry; `known`: what was ever heard of its sidecar; `clock`: Unix seconds."""

    def __init__(
        self, workload: Callable[[str], Workload | None], known: Callable[[str], Known | None],
        clock: Callable[[], float],
    ) -> None:  # fmt: skip
        self._workload = workload
        self._known = known
        self._clock = clock
        self._connected: dict[str, Known] = {}
        self._since: dict[str, str] = {}
        """When each last changed, of those that have since control started."""

    def heard(self, connected: Mapping[str, Known]) -> list[str]:
        """These are the sidecars that are connected now, by workload; of which workloads the status is another."""
        before, self._connected = self._connected, dict(connected)
        changed = [key for key, one in connected.items() if _said(before.get(key)) != _said(one)]
        changed += [key for key in before if key not in connected]
        if changed:
            now = seconds_timestamp(self._clock())
            for key in changed:
                self._since[key] = now
        return changed

    def shown(self, stored: Stored) -> Stored:
        """A Pod as it is to be read."""
        key = f"{stored.key.namespace}/{stored.key.name}"
        if b'"status":' not in stored.body:  # as almost all: without a look into it
            parts = stored.body[:-1], self._conditions(key), self._facts(key)[1:]
            return Stored(stored.key, stored.version, b'%s,"status":{"conditions":%s,%s}' % parts)
        found = stored.object()
        declared = found.get("status")
        status = self._merged(key, declared if isinstance(declared, dict) else {})
        return Stored(stored.key, stored.version, encode({**found, "status": status}))

    def _merged(self, key: str, declared: Mapping[str, Any]) -> dict[str, Any]:
        given = declared.get("conditions")
        own = [one for one in given if isinstance(one, dict)] if isinstance(given, list) else []
        if self._heard(key) is None and any(one.get("type") == "Ready" for one in own):
            listed = own  # who declared it knows best
        else:
            made: list[dict[str, Any]] = decode(self._conditions(key))
            types = {one["type"] for one in made}
            listed = [*(one for one in own if one.get("type") not in types), *made]
        return {**decode(self._facts(key)), **declared, "conditions": listed}

    def _heard(self, key: str) -> Known | None:
        return self._connected.get(key) or self._known(key)

    def _facts(self, key: str) -> bytes:
        """Phase and addresses, as JSON."""
        known, workload = self._heard(key), self._workload(key)
        address = next(iter(workload.addresses), "") if workload is not None else ""
        phase = b"Pending" if known is None else b"Running"
        if not (address := address or (known.address if known is not None else "")):
            return b'{"phase":"%s"}' % phase
        text = encode(address)
        return b'{"phase":"%s","podIP":%s,"podIPs":[{"ip":%s}]}' % (phase, text, text)

    def _conditions(self, key: str) -> bytes:
        sidecar = self._connected.get(key)
        known = sidecar if sidecar is not None else self._known(key)
        ready, reason, message = judged(sidecar, known, self._workload(key))
        return conditions(sidecar is not None, known is not None, ready, reason, message, self._since.get(key, ""))


@lru_cache(4096)
def conditions(connected: bool, known: bool, ready: str, reason: str, message: str, since: str) -> bytes:
    """Those of a Pod, as JSON: of thousands they are the same. `since`: when they last changed; empty: not known."""
    contained = "False" if reason == FAILS else "True" if connected else "Unknown"
    told = {"message": message} if message else {}
    when = {"lastTransitionTime": since} if since else {}
    return encode([
        {"type": "PodScheduled", "status": "True", "reason": reason},
        {"type": "Initialized", "status": "True" if known else "Unknown", "reason": reason},
        {"type": "ContainersReady", "status": contained, "reason": reason, **told, **when},
        {"type": "Ready", "status": ready, "reason": reason, **told, **when},
    ])  # fmt: skip


def judged(sidecar: Known | None, known: Known | None, workload: Workload | None) -> tuple[str, str, str]:
    """(status of the condition Ready, reason, message)."""
    if known is None:
        return "Unknown", MISSING, _NO_SIDECAR
    if known.left:
        return "False", DRAINS, "it drains, or has ended after it had"
    if sidecar is None:
        return "Unknown", GONE, _AWAY
    if sidecar.unhealthy:
        return "False", FAILS, sidecar.unhealthy
    if workload is not None and not workload.ready:
        return "False", NOT_READY, workload.why or "it is declared not to be ready"
    return "True", CONNECTED, ""


def is_derived(status: object) -> bool:
    """Whether a status is one that was read here: who writes an object back does not mean to declare it."""
    given = status.get("conditions") if isinstance(status, dict) else None
    return isinstance(given, list) and any(
        isinstance(one, dict) and isinstance(one.get("reason"), str) and one["reason"] in REASONS for one in given
    )


def _said(one: Known | None) -> tuple[Any, ...] | None:
    return None if one is None else (one.unhealthy, one.left, one.address)
