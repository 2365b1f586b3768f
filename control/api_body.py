"""Request bodies: JSON and YAML to values, with everything said about what is wrong with them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import msgspec

from . import api_protobuf
from .admission import DEPTH_MAX, depth_is_bounded
from .status import StatusError, bad_request

YamlLoad = Callable[[bytes], Any]
"""One guarded YAML document to a value; raises ValueError."""

JSON_TYPES = ("application/json", "")
YAML_TYPES = ("application/yaml", "application/x-yaml")
PATCH_TYPES = {
    "application/json-patch+json": "json",
    "application/merge-patch+json": "merge",
    "application/strategic-merge-patch+json": "strategic",
    "application/apply-patch+yaml": "apply",
}


def media_type(content_type: str) -> str:
    return content_type.partition(";")[0].strip().lower()


def read_json(data: bytes, want_duplicates: bool) -> tuple[Any, list[str]]:
    """(value, fields that were there twice). Raises StatusError 400."""
    try:
        value = msgspec.json.decode(data)
    except msgspec.DecodeError as error:
        raise bad_request(f"the body is not JSON: {error}") from None
    except RecursionError:
        raise bad_request("the body nests too deep") from None
    except UnicodeDecodeError as error:
        raise bad_request(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
    if data.count(b"{") + data.count(b"[") > DEPTH_MAX and not depth_is_bounded(value):
        raise bad_request("the body nests too deep")
    return value, duplicate_fields(data) if want_duplicates else []


def duplicate_fields(data: bytes) -> list[str]:
    """Names that occur twice in one object; JSON decoders keep the last and say nothing."""
    found: list[str] = []

    def pairs(items: list[tuple[str, Any]]) -> None:
        if len(dict(items)) < len(items):
            seen = set()
            for key, _ in items:
                if key in seen:
                    found.append(key)
                seen.add(key)

    try:
        json.loads(data, object_pairs_hook=pairs)
    except (ValueError, RecursionError):
        return []  # what is not JSON has been refused already
    return found


def read_body(data: bytes, content_type: str, load_yaml: YamlLoad, want_duplicates: bool) -> tuple[Any, list[str]]:
    """The value in a body. Raises StatusError 400 and 415."""
    media = media_type(content_type)
    if media in JSON_TYPES:
        return read_json(data, want_duplicates)
    if media in YAML_TYPES:
        return read_yaml(data, load_yaml), []
    if media == api_protobuf.MEDIA_TYPE:
        try:
            return api_protobuf.decode(data), []
        except ValueError as error:
            raise StatusError(415, f"the body is protobuf that is not accepted here: {error}") from None
    raise unsupported(media, "application/json, application/yaml")


def read_patch(data: bytes, content_type: str, load_yaml: YamlLoad) -> tuple[str, Any, list[str]]:
    """(json, merge, strategic or apply; the patch; duplicate fields). Raises StatusError 400 and 415."""
    media = media_type(content_type)
    kind = PATCH_TYPES.get(media)
    if kind is None:
        raise unsupported(media, ", ".join(PATCH_TYPES))
    if kind == "apply" and not data.lstrip().startswith((b"{", b"[")):
        return kind, read_yaml(data, load_yaml), []
    value, duplicates = read_json(data, kind == "apply")
    return kind, value, duplicates


def read_yaml(data: bytes, load_yaml: YamlLoad) -> Any:
    try:
        value = load_yaml(data)
    except ValueError as error:
        raise bad_request(f"the body is not YAML that is accepted here: {error}") from None
    if not depth_is_bounded(value):
        raise bad_request("the body nests too deep")
    return value


def unsupported(media: str, accepted: str) -> StatusError:
    shown = media[:80] or "none"
    return StatusError(
        415,
        f"the body of the request was in an unknown format ({shown}) - accepted media types include: {accepted}",
    )
