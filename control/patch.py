"""Patches as pure functions: JSON merge patch (RFC 7396) and JSON patch (RFC 6902).

None of them changes its arguments. `PatchError` says what is wrong with the patch, `PatchTestError` that a `test`
of a JSON patch does not hold, so that the object is another than its sender thought.
"""

from __future__ import annotations

import copy
from typing import Any

OPERATIONS_MAX = 10_000
"""As the Kubernetes API server limits JSON patches."""
COPIES_MAX = 3 << 20
"""Characters that `copy` operations may add in all, as the Kubernetes API server limits them; a patch of doublings
would grow without bound."""


class PatchError(ValueError):
    """The patch cannot be applied to this object."""


class PatchTestError(PatchError):
    """A `test` operation does not hold."""


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: null removes, objects merge, everything else replaces."""
    if not isinstance(patch, dict):
        return copy.deepcopy(patch)
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


# --- RFC 6902 -------------------------------------------------------------------------------------------------------


def json_patch(target: Any, operations: Any) -> Any:
    """RFC 6902. Raises PatchError naming the operation."""
    if not isinstance(operations, list):
        raise PatchError("a JSON patch is a list of operations")
    if len(operations) > OPERATIONS_MAX:
        raise PatchError(f"the allowed maximum operations in a JSON patch is {OPERATIONS_MAX}")
    document, grown = copy.deepcopy(target), 0
    for number, operation in enumerate(operations):
        try:
            if not isinstance(operation, dict):
                raise PatchError("expected an object with op and path")
            if operation.get("op") == "copy":
                grown += weight(_get(document, _pointer(operation.get("from"))))
                if grown > COPIES_MAX:
                    raise PatchError("copies too much")
            document = _operate(document, operation)
        except PatchTestError as error:
            raise PatchTestError(f"operation {number}: {error}") from None
        except PatchError as error:
            raise PatchError(f"operation {number}: {error}") from None
    return document


def weight(value: Any) -> int:
    """About how many characters a value takes."""
    if isinstance(value, dict):
        return sum(len(key) + weight(item) + 4 for key, item in value.items()) + 2
    if isinstance(value, list):
        return sum(weight(item) + 1 for item in value) + 2
    return len(value) if isinstance(value, str) else 8


def _operate(document: Any, operation: dict[str, Any]) -> Any:
    kind, path = operation.get("op"), _pointer(operation.get("path"))
    if kind in ("add", "replace", "test") and "value" not in operation:
        raise PatchError(f"{kind} needs a value")
    if kind == "add":
        return _add(document, path, copy.deepcopy(operation["value"]))
    if kind == "remove":
        return _remove(document, path)
    if kind == "replace":
        _get(document, path)
        if not path:
            return copy.deepcopy(operation["value"])
        return _put(document, path, copy.deepcopy(operation["value"]))
    if kind == "test":
        if not _same(_get(document, path), operation["value"]):
            raise PatchTestError(f"test of {operation['path']!r} does not hold")
        return document
    if kind in ("move", "copy"):
        source = _pointer(operation.get("from"))
        value = _get(document, source)
        if kind == "copy":
            return _add(document, path, copy.deepcopy(value))
        if path[: len(source)] == source and path != source:
            raise PatchError("cannot move a value into itself")
        return _add(_remove(document, source), path, value)
    raise PatchError(f"unknown op {kind!r}: expected add, remove, replace, move, copy or test")


def _same(one: Any, two: Any) -> bool:
    """Equality of JSON values, where true is not 1."""
    if isinstance(one, bool) or isinstance(two, bool):
        return one is two
    if isinstance(one, dict) and isinstance(two, dict):
        return one.keys() == two.keys() and all(_same(one[key], two[key]) for key in one)
    if isinstance(one, list) and isinstance(two, list):
        return len(one) == len(two) and all(_same(a, b) for a, b in zip(one, two, strict=True))
    return (type(one) is type(two) and bool(one == two)) or (_number(one) and _number(two) and one == two)


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _pointer(text: Any) -> list[str]:
    """The steps of an RFC 6901 pointer."""
    if not isinstance(text, str) or (text and not text.startswith("/")):
        raise PatchError(f"not a JSON pointer: {text!r}")
    return [step.replace("~1", "/").replace("~0", "~") for step in text.split("/")[1:]]


def _index(step: str, length: int) -> int:
    if not (step == "0" or (step.isascii() and step.isdigit() and step[0] != "0")) or len(step) > 9:
        raise PatchError(f"not a list index: {step!r}")
    if int(step) >= length:
        raise PatchError(f"index {step} is beyond the end of the list")
    return int(step)


def _get(document: Any, path: list[str]) -> Any:
    for depth, step in enumerate(path):
        if isinstance(document, dict):
            if step not in document:
                raise PatchError(f"there is nothing at '/{'/'.join(path[: depth + 1])}'")
            document = document[step]
        elif isinstance(document, list):
            document = document[_index(step, len(document))]
        else:
            raise PatchError(f"there is nothing at '/{'/'.join(path[: depth + 1])}'")
    return document


def _add(document: Any, path: list[str], value: Any) -> Any:
    if not path:
        return value
    parent = _get(document, path[:-1])
    if isinstance(parent, dict):
        parent[path[-1]] = value
    elif isinstance(parent, list):
        parent.insert(len(parent) if path[-1] == "-" else _index(path[-1], len(parent) + 1), value)
    else:
        raise PatchError(f"'/{'/'.join(path[:-1])}' is neither an object nor a list")
    return document


def _put(document: Any, path: list[str], value: Any) -> Any:
    parent = _get(document, path[:-1])
    if isinstance(parent, dict):
        parent[path[-1]] = value
    else:
        parent[_index(path[-1], len(parent))] = value
    return document


def _remove(document: Any, path: list[str]) -> Any:
    if not path:
        return None
    _get(document, path)
    parent = _get(document, path[:-1])
    if isinstance(parent, dict):
        del parent[path[-1]]
    else:
        del parent[_index(path[-1], len(parent))]
    return document
