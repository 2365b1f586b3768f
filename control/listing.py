"""Lists in pages, as they are now or were at an earlier version, filtered by selectors."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable
from typing import Any

import msgspec

from .api_request import LIMIT_MAX, Query, Target
from .events import shown
from .selectors import both, field_predicate, label_predicate
from .status import bad_request, expired, too_large
from .store import CompactedError, Objects, Stored

CONTINUE_TOO_OLD = (
    "The provided continue parameter is too old to display a consistent list result. You can start a new list without "
    "the continue parameter, or use the continue token in this response to retrieve the remainder of the results. "
    "Continuing with the provided token results in an inconsistent list - objects that were created, modified, or "
    "deleted between the time the first chunk was returned and now may show up in the list."
)


class Place(msgspec.Struct, frozen=True):
    """Where the next page begins: after this object, at this version (0: as it is now)."""

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


def page(
    memory: Objects, target: Target, query: Query, read: Callable[[Stored], Stored] | None = None
) -> tuple[list[Stored], dict[str, Any]]:
    """(objects, metadata of the list). `read`: an object as it is to be read. Raises StatusError 400 and 410."""
    predicate = both(label_predicate(query.label_selector), field_predicate(query.field_selector))
    namespace = target.namespace if target.resource.namespaced and target.namespace else None
    start = read_place(query.continue_) if query.continue_ else None
    version = memory.revision
    asked = int(query.resource_version or "0")
    if start is not None:
        version = start.version or memory.revision
    elif asked > memory.revision:
        raise too_large(query.resource_version, memory.revision)
    elif asked and (query.resource_version_match == "Exact" or (query.limit and not query.resource_version_match)):
        version = asked  # a limit without a match means Exact, as upstream
    try:
        found = memory.all_at(target.resource.name, namespace, version)
    except CompactedError:
        if start is None:
            raise expired(f"The resourceVersion for the provided list is too old: {version}.") from None
        raise expired(CONTINUE_TOO_OLD, place_text(Place(0, start.namespace, start.name))) from None
    if start is not None:
        after = (start.namespace, start.name)
        found = [one for one in found if (one.key.namespace, one.key.name) > after]
    if predicate is not None:
        if read is not None:
            found, read = [read(one) for one in found], None
        found = [one for one in found if predicate(one.object())]
    metadata: dict[str, Any] = {"resourceVersion": str(version)}
    limit = min(query.limit, LIMIT_MAX)
    if limit and len(found) > limit:
        last = found[limit - 1].key
        metadata["continue"] = place_text(Place(version, last.namespace, last.name))
        if predicate is None:
            metadata["remainingItemCount"] = len(found) - limit
        found = found[:limit]
    return found if read is None else [read(one) for one in found], metadata


def spliced(one: Stored, target: Target) -> bytes:
    """The object's JSON in the version asked for, without decoding it where that is possible."""
    if target.resource.stored_as:
        named = {"apiVersion": target.api_version, "kind": target.resource.kind}
        return msgspec.json.encode({**named, **shown(one.object(), target.api_version)})
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
