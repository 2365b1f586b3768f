"""What must hold of an object before it is stored: its envelope, its metadata, its schema, and its meaning.

All that is wrong is said at once, each with the path of its field. References to other objects are warnings, because
objects may be applied in any order.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..policy.validate_names import (
    label_1035_faults,
    label_faults,
    label_value_faults,
    qualified_name_faults,
    subdomain_faults,
)
from ..policy.validate_secret import check_fixed
from ..registry.schema import Findings
from .catalog import Resource
from .defaults import apply_defaults
from .status import Cause, StatusError, bad_request, invalid, listing

DEPTH_MAX = 100
ANNOTATIONS_BYTES_MAX = 256 << 10
_STRINGS = ("name", "generateName", "namespace", "uid", "resourceVersion", "creationTimestamp", "deletionTimestamp",
            "selfLink")  # fmt: skip
METADATA_FIELDS = frozenset(
    (*_STRINGS, "labels", "annotations", "generation", "deletionGracePeriodSeconds", "finalizers", "ownerReferences",
     "managedFields")
)  # fmt: skip

Problem = tuple[str, str]
"""(path, message)."""


BodyCheck = Callable[[Resource, str, dict[str, Any]], Findings]
"""(resource, version, whole object) to what schema and meaning say of it; nothing else is looked at."""
LookUp = Callable[[Resource, Findings, int], list[Problem]]
"""(resource, what the check of an object found, bytes of it) to warnings of what it refers to and is not there."""


_NESTS = (dict, list)


def depth_is_bounded(value: Any, limit: int = DEPTH_MAX) -> bool:
    """Whether a JSON value nests no deeper than `limit`; does not recurse itself."""
    level: list[Any] = [value] if type(value) in _NESTS else []
    for _ in range(limit):
        if not level:
            return True
        level = [
            item
            for one in level
            for item in (one.values() if type(one) is dict else one)
            if type(item) is dict or type(item) is list
        ]
    return not level


def check_envelope(resource: Resource, version: str, body: Any) -> dict[str, Any]:
    """`body` as an object of this resource, apiVersion and kind filled in. Raises StatusError 400."""
    if not isinstance(body, dict):
        raise bad_request(f"the body is not an object of kind {resource.kind}")
    if not depth_is_bounded(body):
        raise bad_request(f"the object nests deeper than {DEPTH_MAX} levels")
    api_version, kind = body.get("apiVersion"), body.get("kind")
    expected = resource.api_version(version)
    if api_version not in (None, "", expected):
        raise bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )
    if kind not in (None, "", resource.kind):
        raise bad_request(f"the kind in the data ({kind}) does not match the expected kind ({resource.kind})")
    metadata = body.get("metadata")
    if metadata is None:
        metadata = {}
    if not isinstance(metadata, dict):
        raise bad_request("metadata: expected an object")
    for key in _STRINGS:
        if metadata.get(key) is not None and not isinstance(metadata[key], str):
            raise bad_request(f"metadata.{key}: expected text, got {type(metadata[key]).__name__}")
    rest = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata")}
    kept = {key: value for key, value in metadata.items() if value is not None}
    return {"apiVersion": expected, "kind": resource.kind, "metadata": kept, **rest}


def check_metadata(resource: Resource, metadata: Mapping[str, Any]) -> list[Cause]:
    """Everything that is wrong with names, labels and annotations."""
    causes = _check_name(resource, metadata.get("name") or "")
    for field in ("labels", "annotations"):
        value = metadata.get(field)
        if value is None:
            continue
        if not isinstance(value, dict) or not all(isinstance(item, str) for item in value.values()):
            causes.append(Cause(f"metadata.{field}", "Invalid value: expected a map of text to text"))
            continue
        for key, item in value.items():
            causes += _causes(
                f"metadata.{field}", key, qualified_name_faults(key if field == "labels" else key.lower())
            )
            if field == "labels":
                causes += _causes("metadata.labels", item, label_value_faults(item))
    annotations = metadata.get("annotations")
    if isinstance(annotations, dict):
        total = sum(len(key) + len(item) for key, item in annotations.items() if isinstance(item, str))
        if total > ANNOTATIONS_BYTES_MAX:
            causes.append(
                Cause("metadata.annotations", f"Too long: may not be more than {ANNOTATIONS_BYTES_MAX} bytes")
            )
    finalizers = metadata.get("finalizers")
    if finalizers is not None and not (
        isinstance(finalizers, list) and all(isinstance(item, str) and item for item in finalizers)
    ):
        causes.append(Cause("metadata.finalizers", "Invalid value: expected a list of names"))
    for field in ("ownerReferences", "managedFields"):
        value = metadata.get(field)
        if value is not None and not (isinstance(value, list) and all(isinstance(item, dict) for item in value)):
            causes.append(Cause(f"metadata.{field}", "Invalid value: expected a list of objects"))
    return causes


def _check_name(resource: Resource, name: str) -> list[Cause]:
    if not name:
        return [Cause("metadata.name", "Required value: name or generateName is required", "FieldValueRequired")]
    if resource.group == "rbac.authorization.k8s.io":
        bad = name in (".", "..") or "/" in name or "%" in name or len(name) > 253
        return _causes("metadata.name", name, ["may not be '.' or '..', or contain '/' or '%'"] if bad else [])
    of = {"services": label_1035_faults, "namespaces": label_faults}.get(resource.name, subdomain_faults)
    return _causes("metadata.name", name, of(name))


def _causes(field: str, value: str, faults: list[str]) -> list[Cause]:
    return [Cause(field, f'Invalid value: "{value[:80]}": {fault}') for fault in faults]


def check_namespace(namespace: str) -> None:
    """Raises StatusError 422 for what cannot name a namespace."""
    if faults := label_faults(namespace):
        raise invalid("Namespace", "", namespace, _causes("metadata.namespace", namespace, faults))


def check_account(account: str) -> None:
    """Raises StatusError 422 for what cannot name a service account; it stands in an identity, so it is short."""
    faults = subdomain_faults(account) + (["must be no more than 63 characters"] if len(account) > 63 else [])
    if faults:
        raise invalid("ServiceAccount", "", account, _causes("metadata.name", account, faults))


class Admission:
    """`check` says what schema and meaning have against a body, `look_up` what it refers to."""

    def __init__(self, check: BodyCheck, look_up: LookUp | None = None) -> None:
        self._check = check
        self._look_up = look_up

    def admit(
        self, resource: Resource, version: str, body: dict[str, Any], validation: str, duplicates: list[str]
    ) -> tuple[dict[str, Any], list[str]]:
        """`judge` and `references`, for where nobody waits."""
        made, warnings, findings = self.judge(resource, version, body, validation, duplicates)
        return made, warnings + self.references(resource, findings, 0)

    def references(self, resource: Resource, findings: Findings, size: int) -> list[str]:
        """Warnings about what an object of `size` bytes refers to, of which `judge` has found this."""
        if self._look_up is None or findings.errors or findings.unknown:
            return []
        return [_told(*one) for one in self._look_up(resource, findings, size)]

    def judge(
        self, resource: Resource, version: str, body: dict[str, Any], validation: str, duplicates: list[str]
    ) -> tuple[dict[str, Any], list[str], Findings]:
        """(the object to store, warnings, what the check found) of one whose envelope is in order; looks at nothing
        else. `validation`: Strict, Warn or Ignore.

        `duplicates`: fields that its JSON had twice. Raises StatusError 400 for unknown fields, 422 for all else.
        """
        findings = self._check(resource, version, body)
        unknown = [(path, with_path(path, message)) for path, message in findings.unknown] + [
            (f"metadata.{key}", f'unknown field "metadata.{key}"')
            for key in body["metadata"]
            if key not in METADATA_FIELDS
        ]
        loose = [message for _, message in unknown] + [f'duplicate field "{name}"' for name in duplicates]
        warnings: list[str] = []
        if loose and validation == "Strict":
            raise StatusError(
                400,
                f'{resource.kind} in version "{version}" cannot be handled as a {resource.kind}: '
                f"strict decoding error: {listing(loose)}",
                causes=[Cause(path, message, "FieldValueNotSupported") for path, message in unknown],
            )
        if loose and validation == "Warn":
            warnings += loose
        if unknown:
            body = without(body, [path for path, _ in unknown])
        causes = check_metadata(resource, body["metadata"])
        causes += [Cause(path, message) for path, message in findings.errors]
        if causes:
            raise invalid(resource.kind, resource.group, str(body["metadata"].get("name") or ""), causes)
        body = apply_defaults(resource.name, body)
        return body, warnings + [_told(*one) for one in findings.warnings], findings

    def check_update(self, resource: Resource, before: Mapping[str, Any], after: Mapping[str, Any]) -> None:
        """What cannot be changed. Raises StatusError 422."""
        findings = Findings()
        check_fixed(findings, resource.kind if not resource.group else "", before, after)
        if findings.errors:
            causes = [Cause(path, message) for path, message in findings.errors]
            raise invalid(resource.kind, resource.group, str(before["metadata"].get("name")), causes)


def _told(path: str, message: str) -> str:
    return f"{path}: {message}" if path else message


def with_path(path: str, message: str) -> str:
    """`unknown field "hsots": ...` with the whole path in the quotes, as clients look for it."""
    return re.sub(r'^unknown field "[^"]*"', lambda _: f'unknown field "{path}"', message)


def steps_of(path: str) -> list[str | int]:
    """The steps of a path such as `spec.http[0].match` or `metadata.labels["a.b"]`."""
    steps: list[str | int] = []
    for number, part in enumerate(path.split("[")):
        rest = part
        if number:
            inner, closed, rest = part.partition("]")
            if not closed:  # no bracket of ours
                inner, rest = "", part
            if inner:
                steps.append(
                    int(inner) if inner.isascii() and inner.isdigit() and len(inner) < 10 else inner.strip('"')
                )
        steps += [step for step in rest.split(".") if step]
    return steps


def without(body: dict[str, Any], paths: list[str]) -> dict[str, Any]:
    """A copy of the object that lacks the fields at these paths; what holds them is copied once, however many."""
    made = dict(body)
    copied = {id(made)}
    for path in paths:
        node: Any = made
        *above, last = steps_of(path) or [""]
        for step in above:
            node = _own(node, step, copied)
        if isinstance(node, dict):
            node.pop(last, None)
    return made


def _own(node: Any, step: str | int, copied: set[int]) -> Any:
    """What is there, as a copy that may be changed; None: nothing."""
    in_list = isinstance(node, list) and isinstance(step, int) and step < len(node)
    if not in_list and not (isinstance(node, dict) and step in node):
        return None
    inner: Any = node[step]
    if isinstance(inner, (dict, list)) and id(inner) not in copied:
        inner = node[step] = inner.copy()
        copied.add(id(inner))
    return inner
