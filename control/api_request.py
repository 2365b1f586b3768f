"""What a request asks for: the path taken apart, its query, and the form of answer that it accepts."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote

from msgspec import Struct

from .catalog import Catalog, Resource
from .status import Cause, StatusError, bad_request, invalid, no_such_path

LIMIT_MAX = 10_000


class Target(Struct, frozen=True):
    """One object, or a collection where `name` is empty."""

    resource: Resource
    version: str
    namespace: str = ""
    """Empty: all namespaces, or a resource that has none."""
    name: str = ""
    subresource: str = ""

    @property
    def api_version(self) -> str:
        return self.resource.api_version(self.version)


def parse_path(catalog: Catalog, raw_path: str) -> Target:
    """Of /api/v1/... and /apis/GROUP/VERSION/... (percent-encoded). Raises StatusError 404."""
    steps = [unquote(step) for step in raw_path.split("/")[1:]]
    if steps and steps[-1] == "":
        steps.pop()
    if steps[:1] == ["api"] and len(steps) > 2:
        group, version, rest = "", steps[1], steps[2:]
    elif steps[:1] == ["apis"] and len(steps) > 3:
        group, version, rest = steps[1], steps[2], steps[3:]
    else:
        raise no_such_path()
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 2 and not (len(rest) == 3 and group == "" and rest[2] in SUBRESOURCES):
        namespace, rest = rest[1], rest[2:]
        if not namespace:
            raise no_such_path()
    resource = catalog.find(group, version, rest[0])
    if resource is None or len(rest) > 3 or (namespace and not resource.namespaced):
        raise no_such_path()
    name, subresource = (rest[1] if len(rest) > 1 else ""), (rest[2] if len(rest) > 2 else "")
    if subresource and not (subresource == "status" and resource.has_status):
        raise no_such_path()
    if len(rest) > 1 and not name:
        raise no_such_path()
    if resource.namespaced and name and not namespace:
        raise no_such_path()
    return Target(resource, version, namespace, name, subresource)


SUBRESOURCES = ("status", "finalize")


class Query(Struct, frozen=True):
    """The parameters that the API knows, read and checked."""

    watch: bool = False
    limit: int = 0
    continue_: str = ""
    resource_version: str = ""
    resource_version_match: str = ""
    send_initial_events: bool | None = None
    allow_watch_bookmarks: bool = False
    timeout_s: float | None = None
    label_selector: str = ""
    field_selector: str = ""
    include_object: str = "Metadata"
    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = "Strict"
    force: bool = False
    pretty: bool | None = None
    uid: str = ""
    size: int = 0
    """Bytes of the body."""


def is_dry_run(values: Any, field: str = "dryRun") -> bool:
    """Whether a list of dryRun directives says so. Raises StatusError 400 for all else that it may say: who asks for a
    dry run in other words must not get a real one."""
    if values is None or values == []:
        return False
    if not isinstance(values, list) or any(value != "All" for value in values):
        raise bad_request(f"{field}: expected All, got {values!r}")
    return True


def parse_query(query: Mapping[str, str]) -> Query:
    """Raises StatusError 400 naming the parameter. Unknown parameters are left alone, as upstream."""
    dry_run = is_dry_run([value for name, value in query.items() if name == "dryRun"])
    validation = query.get("fieldValidation", "") or "Strict"
    if validation not in ("Strict", "Warn", "Ignore"):
        raise bad_request(f"fieldValidation: expected Strict, Warn or Ignore, got {validation!r}")
    include = query.get("includeObject", "") or "Metadata"
    if include not in ("None", "Metadata", "Object"):
        raise bad_request(f"includeObject: expected None, Metadata or Object, got {include!r}")
    version = query.get("resourceVersion", "")
    if version and not re.fullmatch(r"\d{1,18}", version):
        raise bad_request(f"resourceVersion: Invalid value: {version!r}: expected a version that this API gave")
    match = query.get("resourceVersionMatch", "")
    if match not in ("", "Exact", "NotOlderThan"):
        raise bad_request(f"resourceVersionMatch: expected Exact or NotOlderThan, got {match!r}")
    manager = query.get("fieldManager", "")
    if len(manager) > 128 or not manager.isprintable():
        raise bad_request("fieldManager: expected at most 128 printable characters")
    timeout = query.get("timeoutSeconds", "")
    check_list_options(query)
    return Query(
        watch=bool(_flag(query, "watch")),
        limit=_number(query, "limit"),
        continue_=query.get("continue", ""),
        resource_version=version,
        resource_version_match=match,
        send_initial_events=_flag(query, "sendInitialEvents"),
        allow_watch_bookmarks=bool(_flag(query, "allowWatchBookmarks")),
        timeout_s=float(_number(query, "timeoutSeconds")) if timeout else None,
        label_selector=query.get("labelSelector", ""),
        field_selector=query.get("fieldSelector", ""),
        include_object=include,
        dry_run=dry_run,
        field_manager=manager,
        field_validation=validation,
        force=bool(_flag(query, "force")),
        pretty=_flag(query, "pretty"),
    )


def check_list_options(query: Mapping[str, str]) -> None:
    """What may be asked together, as upstream's ValidateListOptions has it. Raises StatusError 400, 422."""
    match, version = query.get("resourceVersionMatch", ""), query.get("resourceVersion", "")
    watch, initial = bool(_flag(query, "watch")), _flag(query, "sendInitialEvents")
    wrong: list[tuple[str, str]] = []
    if watch and initial is not None and match != "NotOlderThan":
        told = "Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan"
        wrong.append(("resourceVersionMatch", told))
    elif watch and match and initial is None:
        told = "Forbidden: resourceVersionMatch is forbidden for watch unless sendInitialEvents is provided"
        wrong.append(("resourceVersionMatch", told))
    if match and query.get("continue"):
        told = "Forbidden: resourceVersionMatch is forbidden when continue is provided"
        wrong.append(("resourceVersionMatch", told))
    if not watch:
        if match and not version:
            told = "Forbidden: resourceVersionMatch is forbidden unless resourceVersion is provided"
            wrong.append(("resourceVersionMatch", told))
        if match == "Exact" and version == "0":
            told = 'Forbidden: resourceVersionMatch "exact" is forbidden for resourceVersion "0"'
            wrong.append(("resourceVersionMatch", told))
        if initial is not None:
            wrong.append(("sendInitialEvents", "Forbidden: sendInitialEvents is forbidden for list"))
    if wrong:
        causes = [Cause(field, message, "FieldValueForbidden") for field, message in wrong]
        raise invalid("ListOptions", "meta.k8s.io", "", causes)
    if query.get("continue") and version and not watch:
        raise bad_request("specifying resource version is not allowed when using continue")


def _flag(query: Mapping[str, str], name: str) -> bool | None:
    text = query.get(name)
    if text is None:
        return None
    if text.lower() in ("", "1", "true", "t"):
        return True
    if text.lower() in ("0", "false", "f"):
        return False
    raise bad_request(f"{name}: expected true or false, got {text!r}")


def _number(query: Mapping[str, str], name: str) -> int:
    text = query.get(name, "") or "0"
    if not re.fullmatch(r"\d{1,9}", text):
        raise bad_request(f"{name}: expected a number of 0 or more, got {text!r}")
    return int(text)


class Form(Struct, frozen=True):
    """The form of an answer."""

    media: str
    """application/json or application/yaml."""
    as_: str = ""
    """Table, PartialObjectMetadata, PartialObjectMetadataList, APIGroupDiscoveryList; empty: as it is."""
    pretty: bool = False


JSON = Form("application/json")
_AS = ("Table", "PartialObjectMetadata", "PartialObjectMetadataList", "APIGroupDiscoveryList")
_VERSIONS = {"Table": ("v1",), "APIGroupDiscoveryList": ("v2",)}


def negotiate(accept: str) -> Form:
    """The first form of an Accept header that is served here; protobuf and CBOR are passed over. Raises 406."""
    if not accept.strip():
        return JSON
    for part in accept.split(","):
        media, *parameters = (piece.strip() for piece in part.split(";"))
        media = media.lower()
        given = dict(p.split("=", 1) for p in parameters if "=" in p)
        if media in ("*/*", "application/*"):
            media = "application/json"
        if media == "text/plain" or media == "text/html":
            continue
        if media not in ("application/json", "application/yaml", "application/x-yaml"):
            continue
        as_ = given.get("as", "")
        if as_ and (as_ not in _AS or given.get("v", "v1") not in _VERSIONS.get(as_, ("v1",))):
            continue
        return Form("application/json" if media == "application/json" else "application/yaml", as_)
    if "text/html" in accept or "text/plain" in accept or "text/*" in accept:
        return JSON  # a browser: better JSON than nothing
    raise StatusError(
        406, "only the following media types are accepted: application/json, application/yaml", reason="NotAcceptable"
    )
