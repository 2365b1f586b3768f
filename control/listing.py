"""Lists in pages, as they are now or were at an earlier version, filtered by selectors."""

from __future__ import annotations

import base64
import binascii
from typing import Any

import msgspec

from .api_request import LIMIT_MAX, Query, Target
from .selectors import both, field_predicate, label_predicate
from .status import bad_request, expired
from .store import CompactedError, Objects, Stored


class Place(msgspec.Struct, frozen=True):
    """Where the next page begins: after this object, at this version."""

    version: int
    namespace: str
    name: str


def place_text(place: Place) -> str:
    return base64.urlsafe_b64encode(msgspec.json.encode(place)).rstrip(b"=").decode()


def read_place(text: str) -> Place:
    """Raises StatusError 400."""
    try:
        raw = base64.urlsafe_b64decode(text.encode("ascii") + b"=" * (-len(text) % 4))
        return msgspec.json.decode(raw, type=Place)
    except (msgspec.MsgspecError, binascii.Error, ValueError):
        raise bad_request("continue: not a token that this API gave") from None


def page(memory: Objects, target: Target, query: Query) -> tuple[list[Stored], dict[str, Any]]:
    """(objects, metadata of the list). Raises StatusError 400 and 410."""
    predicate = both(label_predicate(query.label_selector), field_predicate(query.field_selector))
    namespace = target.namespace if target.resource.namespaced and target.namespace else None
    start = read_place(query.continue_) if query.continue_ else None
    version = memory.revision
    if start is not None:
        version = start.version
    elif query.resource_version_match == "Exact":
        if not query.resource_version or query.resource_version == "0":
            raise bad_request("resourceVersionMatch: Exact needs a resourceVersion other than 0")
        version = int(query.resource_version)
    elif query.resource_version and int(query.resource_version) > memory.revision:
        raise expired(f"Too large resource version: {query.resource_version}, current: {memory.revision}")
    try:
        found = memory.all_at(target.resource.name, namespace, version)
    except CompactedError:
        raise expired(
            "The provided continue parameter is too old to display a consistent list result."
            if start
            else f"The resourceVersion for the provided list is too old: {version}."
        ) from None
    if start is not None:
        after = (start.namespace, start.name)
        found = [one for one in found if (one.key.namespace, one.key.name) > after]
    if predicate is not None:
        found = [one for one in found if predicate(one.object())]
    metadata: dict[str, Any] = {"resourceVersion": str(version)}
    limit = min(query.limit, LIMIT_MAX)
    if limit and len(found) > limit:
        last = found[limit - 1].key
        metadata["continue"] = place_text(Place(version, last.namespace, last.name))
        if predicate is None:
            metadata["remainingItemCount"] = len(found) - limit
        found = found[:limit]
    return found, metadata


def spliced(one: Stored, target: Target) -> bytes:
    """The object's JSON in the version asked for, without decoding it."""
    head = b'{"apiVersion":"%s","kind":"%s",' % (target.api_version.encode(), target.resource.kind.encode())
    return head + one.body[1:]


def list_body(found: list[Stored], metadata: dict[str, Any], target: Target) -> bytes:
    """A list's JSON."""
    return b'{"kind":"%sList","apiVersion":"%s","metadata":%s,"items":[%s]}' % (
        target.resource.kind.encode(),
        target.api_version.encode(),
        msgspec.json.encode(metadata),
        b",".join([spliced(one, target) for one in found]),
    )
