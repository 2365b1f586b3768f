"""Events about objects, as `kubectl describe` and `kubectl get events` show them: made, counted, and aged out."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from .audit import seconds_timestamp, timestamp
from .store import Key, Objects, Stored, Write

EVENTS = "events"
COMPONENT = "fairlead-control"
TTL_S = 3600.0
"""As long as kube-apiserver keeps them (--event-ttl)."""
MESSAGE_MOST = 1024


def event_write(
    memory: Objects, about: Stored, api_version: str, kind: str, type_: str, reason: str, message: str, now: float,
    draw: bytes,
) -> Write:  # fmt: skip
    """The write that records an event; one that was recorded before is counted up. `draw`: 16 random bytes."""
    metadata, message = about.object()["metadata"], message[:MESSAGE_MOST]
    namespace = about.key.namespace or "default"
    digest = hashlib.sha256("\0".join((*about.key, str(metadata.get("uid")), reason, message)).encode()).hexdigest()
    key = Key(EVENTS, namespace, f"{about.key.name[:230]}.{digest[:16]}")
    at = seconds_timestamp(now)
    known = memory.get(key)
    if known is not None:
        body = known.object()
        return Write(key, {**body, "count": int(body.get("count") or 1) + 1, "lastTimestamp": at}, known.version)
    reference = {
        "kind": kind, "apiVersion": api_version, "namespace": about.key.namespace, "name": about.key.name,
        "uid": metadata.get("uid", ""), "resourceVersion": str(about.version),
    }  # fmt: skip
    body = {
        "metadata": {
            "name": key.name, "namespace": namespace, "creationTimestamp": at,
            "uid": f"{draw[:4].hex()}-{draw[4:6].hex()}-{draw[6:8].hex()}-{draw[8:10].hex()}-{draw[10:16].hex()}",
        },
        "involvedObject": {name: value for name, value in reference.items() if value},
        "reason": reason, "message": message, "type": type_, "count": 1,
        "firstTimestamp": at, "lastTimestamp": at, "eventTime": timestamp(now),
        "source": {"component": COMPONENT}, "reportingComponent": COMPONENT, "reportingInstance": COMPONENT,
    }  # fmt: skip
    return Write(key, body, 0)


def outdated(memory: Objects, now: float, most: int) -> list[Write]:
    """The writes that remove events of which nothing was heard for `TTL_S`."""
    found: list[Write] = []
    for one in memory.all(EVENTS):
        if len(found) >= most:
            break
        if now - last_seen(one.object()) > TTL_S:
            found.append(Write(one.key, None, one.version))
    return found


def last_seen(body: Mapping[str, Any]) -> float:
    """Unix seconds; 0 where an event does not say when."""
    series = body.get("series")
    times = [
        (series if isinstance(series, Mapping) else {}).get("lastObservedTime"),
        body.get("lastTimestamp"), body.get("eventTime"), (body.get("metadata") or {}).get("creationTimestamp"),
    ]  # fmt: skip
    for text in times:
        try:
            return datetime.fromisoformat(str(text)).timestamp()
        except (ValueError, OverflowError):
            continue
    return 0.0


# --- events.k8s.io/v1: the same events under other names -------------------------------------------------------------

NEW_VERSION = "events.k8s.io/v1"
_NEW_NAMES = {
    "involvedObject": "regarding", "message": "note", "source": "deprecatedSource", "count": "deprecatedCount",
    "firstTimestamp": "deprecatedFirstTimestamp", "lastTimestamp": "deprecatedLastTimestamp",
    "reportingComponent": "reportingController",
}  # fmt: skip
_OLD_NAMES = {new: old for old, new in _NEW_NAMES.items()}


def shown(body: dict[str, Any], api_version: str) -> dict[str, Any]:
    """A stored object with the field names of an API version: of all resources, only Events differ."""
    if api_version != NEW_VERSION:
        return body
    return {_NEW_NAMES.get(name, name): value for name, value in body.items()}


def stored(body: dict[str, Any]) -> dict[str, Any]:
    """An object as it came, with the field names under which it is stored."""
    if body.get("apiVersion") != NEW_VERSION:
        return body
    return {_OLD_NAMES.get(name, name): value for name, value in body.items()}


def stored_selector(selector: str, api_version: str) -> str:
    """A field selector for stored events."""
    return selector.replace("regarding.", "involvedObject.") if api_version == NEW_VERSION else selector
