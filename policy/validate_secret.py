"""What Kubernetes refuses of a Secret and a ConfigMap beyond their schema; source: its API validation of core/v1.

No message repeats a value: messages stand in logs and terminals.
"""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

from ..registry.schema import Findings
from .validate_values import forbidden, mapping, required

Object = Mapping[str, Any]
BYTES_MAX = 1 << 20
"""Octets of all values together (MaxSecretSize)."""
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_ACCOUNT = "kubernetes.io/service-account.name"
_NEEDS = {
    "kubernetes.io/dockercfg": (".dockercfg",),
    "kubernetes.io/dockerconfigjson": (".dockerconfigjson",),
    "kubernetes.io/ssh-auth": ("ssh-privatekey",),
    "kubernetes.io/tls": ("tls.crt", "tls.key"),
}
"""Keys that a Secret of this type must have."""
_BASIC = ("username", "password")


def check_secret(found: Findings, body: Object) -> None:
    values = _decoded(found, body, "data") | _plain(found, body, "stringData")
    _check_size(found, "data", values)
    kind = body.get("type") or "Opaque"
    for key in _NEEDS.get(kind, ()):
        if key not in values:
            required(found, f"data[{key}]", f"a Secret of type {kind} has it")
        elif "docker" in kind and not _is_json(values[key]):
            found.errors.append((f"data[{key}]", "Invalid value: it must be JSON"))
    if kind == "kubernetes.io/basic-auth" and not any(key in values for key in _BASIC):
        required(found, "data", f"a Secret of type {kind} has username or password")
    if kind == "kubernetes.io/service-account-token":
        if not mapping(mapping(body, "metadata"), "annotations").get(_ACCOUNT):
            required(found, f"metadata.annotations[{_ACCOUNT}]", f"a Secret of type {kind} names its account")


def check_config_map(found: Findings, body: Object) -> None:
    plain = _plain(found, body, "data")
    binary = _decoded(found, body, "binaryData")
    for key in plain.keys() & binary.keys():
        found.errors.append((f"data[{key}]", "Invalid value: this key stands in binaryData, too"))
    _check_size(found, "data", plain | binary)


def _decoded(found: Findings, body: Object, field: str) -> dict[str, bytes]:
    """Values of a map that is base64 (RFC 4648 section 4; line ends are passed over, as Go does)."""
    values: dict[str, bytes] = {}
    for key, text in mapping(body, field).items():
        _check_key(found, field, key)
        values[key] = b""
        try:
            values[key] = base64.b64decode(text.replace("\n", "").replace("\r", "").encode("ascii"), validate=True)
        except (binascii.Error, UnicodeEncodeError):
            told = "stringData takes it as it is" if field == "data" else "data takes text as it is"
            found.errors.append((f"{field}[{key}]", f"Invalid value: it must be base64; {told}"))
    return values


def _plain(found: Findings, body: Object, field: str) -> dict[str, bytes]:
    values = mapping(body, field)
    for key in values:
        _check_key(found, field, key)
    return {key: text.encode("utf-8", "surrogatepass") for key, text in values.items()}


def _check_key(found: Findings, field: str, key: str) -> None:
    if not _KEY.fullmatch(key) or key == "." or key.startswith(".."):
        rule = "a key has at most 253 letters, digits, '-', '_' or '.', and is neither '.' nor begins with '..'"
        found.errors.append((field, f'Invalid value: "{key[:80]}": {rule}'))


def _check_size(found: Findings, path: str, values: Mapping[str, bytes]) -> None:
    if sum(map(len, values.values())) > BYTES_MAX:
        found.errors.append((path, f"Too long: may not be more than {BYTES_MAX} bytes"))


def _is_json(value: bytes) -> bool:
    try:
        json.loads(value)
    except (ValueError, RecursionError):
        return False
    return True


def check_fixed(found: Findings, kind: str, before: Object, after: Object) -> None:
    """What an update may not change: a Secret's type, and all of what says `immutable: true`."""
    if kind == "Secret" and (before.get("type") or "Opaque") != (after.get("type") or "Opaque"):
        found.errors.append(("type", "Invalid value: field is immutable"))
    if kind not in ("Secret", "ConfigMap") or before.get("immutable") is not True:
        return
    if after.get("immutable") is not True:
        forbidden(found, "immutable", "field is immutable when `immutable` is set")
    for field in ("data", "binaryData"):
        if (before.get(field) or {}) != (after.get(field) or {}):
            forbidden(found, field, "field is immutable when `immutable` is set")
