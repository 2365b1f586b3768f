"""Schemas as data: one description of a kind's fields serves the check, the normalised value, and OpenAPI.

`check` finds everything that is wrong at once, each with the path of its field; a field that nobody knows is an error
with the nearest name that is known. The value that comes back has durations as seconds, and fields of Istio's kinds
that were written in snake_case under their usual names.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from msgspec import Struct

_GO_DURATION = re.compile(r"(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:ns|us|µs|ms|s|m|h)")
_UNITS_S = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
GUESSES_MAX = 100
"""For so many unknown fields it is guessed what was meant; for as many as a body can hold it would take seconds."""
_SNAKE = re.compile(r"_([a-z0-9])")


class Node(Struct, frozen=True):
    """What a value may be. Made by the functions below."""

    kind: str
    """object, list, map, text, integer, number, boolean, duration, int-or-text, any."""
    fields: dict[str, Node] = {}
    item: Node | None = None
    values: tuple[str, ...] = ()
    """Of a text: all that it may be."""
    low: float | None = None
    high: float | None = None
    least: int = 0
    """Of a list: entries that there must be."""
    required: tuple[str, ...] = ()
    one_of: tuple[tuple[str, ...], ...] = ()
    """Of an object: groups of fields of which only one may be given."""
    pattern: str = ""
    doc: str = ""
    refused: str = ""
    """Why a field that is known may not be used."""
    unused: str = ""
    """Why a field that is known has no effect; a warning."""
    open: str = ""
    """Of an object: other fields are taken, with one warning that gives this reason (`-`: with none)."""
    nullable: bool = False


def obj(doc: str = "", /, *, required: tuple[str, ...] = (), one_of: tuple[tuple[str, ...], ...] = (), open: str = "",
        also: Mapping[str, Node] = MappingProxyType({}), **fields: Node) -> Node:  # fmt: skip
    """An object; a trailing underscore of a keyword is dropped (`from_`). `also`: fields that others have, too."""
    own = {name.rstrip("_"): node for name, node in fields.items()}
    return Node("object", {**own, **also}, required=required, one_of=one_of, open=open, doc=doc)


def items(item: Node, least: int = 0, doc: str = "") -> Node:
    return Node("list", item=item, least=least, doc=doc)


def table(item: Node, doc: str = "") -> Node:
    """An object with any keys and values of one shape."""
    return Node("map", item=item, doc=doc)


def text(doc: str = "", *values: str, pattern: str = "") -> Node:
    return Node("text", values=values, doc=doc, pattern=pattern)


def integer(doc: str = "", low: float | None = None, high: float | None = None) -> Node:
    return Node("integer", low=low, high=high, doc=doc)


def decimal(doc: str = "", low: float | None = None, high: float | None = None) -> Node:
    return Node("number", low=low, high=high, doc=doc)


def flag(doc: str = "") -> Node:
    return Node("boolean", doc=doc)


def duration(doc: str = "", low: float = 0.001) -> Node:
    """Go's duration text; `low` in seconds."""
    return Node("duration", low=low, doc=doc)


def int_or_text(doc: str = "") -> Node:
    return Node("int-or-text", doc=doc)


def anything(doc: str = "") -> Node:
    return Node("any", doc=doc)


def elsewhere(*names: str, doc: str = "Taken; it means nothing here.") -> dict[str, Node]:
    """Fields of an upstream kind that have no meaning without containers, nodes or a cloud: any value, no warning."""
    return {name: anything(doc) for name in names}


def refused(why: str) -> Node:
    return Node("any", refused=why, doc=f"Refused: {why}")


def unused(node: Node, why: str) -> Node:
    return Node(
        node.kind, node.fields, node.item, node.values, node.low, node.high, node.least, node.required, node.one_of,
        node.pattern, f"{node.doc} Not carried out: {why}".strip(), "", why, node.open, node.nullable,
    )  # fmt: skip


STRINGS = table(text())
TEXTS = items(text())


class Findings:
    """What a check found: (path, message) each."""

    def __init__(self) -> None:
        self.errors: list[tuple[str, str]] = []
        self.unknown: list[tuple[str, str]] = []
        """Fields that nobody knows; errors to `validate`, and to the API as its fieldValidation says."""
        self.warnings: list[tuple[str, str]] = []
        self.made: Any = None
        """Of an object without faults: what has been made of it already, for whoever goes on with it."""


DURATION_MAX_S = 315_576_000_000.0
"""Longest duration of a field: that of protobuf's google.protobuf.Duration, which Istio's fields are."""


def parse_duration(text: str) -> float | None:
    """Seconds of Go's duration text (`1h2m3.5s`), or None."""
    body = text[1:] if text[:1] in "+-" and text else text
    if body == "0":
        return 0.0
    total, at = 0.0, 0
    while at < len(body):
        found = _GO_DURATION.match(body, at)
        if found is None:
            return None
        part = found[0]
        unit = next(
            u
            for u in ("ns", "us", "µs", "ms", "s", "m", "h")
            if part.endswith(u) and part[: -len(u)].replace(".", "", 1).isdigit()
        )
        total += float(part[: -len(unit)]) * _UNITS_S[unit]
        at = found.end()
    return (-total if text[:1] == "-" else total) if body else None


def check(node: Node, value: Any, path: str, found: Findings) -> Any:
    """The normalised value; what is wrong goes to `found`. `path` is empty for the whole object."""
    if value is None:
        return None  # as upstream: null is the same as absent
    if node.refused:
        found.errors.append((path, f"may not be used: {node.refused}"))
        return None
    if node.unused:
        found.warnings.append((path, f"has no effect: {node.unused}"))
    return _CHECKS[node.kind](node, value, path, found)


def _below(path: str, key: str) -> str:
    return f"{path}.{key}" if path else key


def _object(node: Node, value: Any, path: str, found: Findings) -> Any:
    if not isinstance(value, dict):
        return _wrong(path, "an object", value, found)
    made: dict[str, Any] = {}
    others: list[str] = []
    fields = node.fields
    for key, inner in value.items():
        field, known = fields.get(key), key
        if field is None:
            known = _SNAKE.sub(lambda m: m[1].upper(), key)
            field = fields.get(known)
        if field is None:
            if node.open:
                others.append(key)
                made[key] = inner
            else:
                guess = len(found.unknown) < GUESSES_MAX
                told = _unknown(key, fields) if guess else f'unknown field "{key}"'
                found.unknown.append((_below(path, key), told))
            continue
        if (
            type(inner) is str
            and field.kind == "text"
            and not (field.values or field.pattern or field.refused or field.unused)
        ):
            made[known] = inner  # what most leaves are
            continue
        checked = check(field, inner, f"{path}.{known}" if path else known, found)
        if checked is not None:
            made[known] = checked
    if others and node.open != "-":
        found.warnings.append((path, f"{', '.join(sorted(others))}: {node.open}"))
    if node.required:
        empty = [key for key in node.required if value.get(key) in (None, "")]
        if empty:
            given = [key for key, inner in value.items() if inner not in (None, "")]
            filled = {_SNAKE.sub(lambda m: m[1].upper(), key) for key in given}
            found.errors += [(_below(path, key), "Required value") for key in empty if key not in filled]
    for group in node.one_of:
        chosen = [key for key in group if made.get(key) is not None]
        if len(chosen) > 1:
            found.errors.append((path, f"only one of {', '.join(group)} may be given, got {' and '.join(chosen)}"))
    return made


def _unknown(key: str, fields: Mapping[str, Node]) -> str:
    from difflib import get_close_matches  # a sidecar that is given no mistakes never needs it

    near = get_close_matches(key, fields, n=1, cutoff=0.6)
    if near:
        return f'unknown field "{key}": did you mean "{near[0]}"?'
    known = ", ".join(sorted(fields)) or "none"
    return f'unknown field "{key}"; known here: {known if len(known) < 300 else known[:300] + " ..."}'


def _wrong(path: str, expected: str, value: Any, found: Findings) -> None:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", int: "a number", float: "a number"}
    shown = f" ({str(value)[:60]!r})" if isinstance(value, (str, int, float)) and not isinstance(value, bool) else ""
    found.errors.append((path, f"expected {expected}, got {names.get(type(value), 'something else')}{shown}"))


def _items(node: Node, value: Any, path: str, found: Findings) -> Any:
    if not isinstance(value, list):
        return _wrong(path, "a list", value, found)
    if len(value) < node.least:
        found.errors.append((path, "Required value: must have at least one entry"))
    assert node.item is not None
    made = []
    for index, inner in enumerate(value):
        at = f"{path}[{index}]"
        if inner is None:
            found.errors.append((at, "expected a value, got null"))
            continue
        checked = check(node.item, inner, at, found)
        if checked is not None:
            made.append(checked)
    return made


def _table(node: Node, value: Any, path: str, found: Findings) -> Any:
    if not isinstance(value, dict):
        return _wrong(path, "an object", value, found)
    assert node.item is not None
    made = {}
    for key, inner in value.items():
        if inner is None and node.item.kind == "object":
            inner = {}
        checked = check(node.item, inner, f"{path}[{key}]", found)
        made[key] = "" if checked is None and node.item.kind == "text" else checked
    return {key: inner for key, inner in made.items() if inner is not None}


def _text(node: Node, value: Any, path: str, found: Findings) -> Any:
    if not isinstance(value, str):
        hint = " in quotes" if isinstance(value, (int, float)) else ""
        return _wrong(path, f"text{hint}", value, found)
    if node.values and value not in node.values:
        from difflib import get_close_matches

        near = get_close_matches(value.upper(), [v.upper() for v in node.values], n=1)
        meant = next((v for v in node.values if near and v.upper() == near[0]), "")
        hint = f'; did you mean "{meant}"?' if meant else ""
        supported = ", ".join(f'"{v}"' for v in node.values if v)
        found.errors.append((path, f'Unsupported value: "{value}": supported values: {supported}{hint}'))
        return None
    if node.pattern and not re.fullmatch(node.pattern, value):
        found.errors.append((path, f'Invalid value: "{value[:80]}": must match {node.pattern}'))
    return value


def _number(node: Node, value: Any, path: str, found: Findings) -> Any:
    whole = node.kind == "integer"
    if whole and isinstance(value, float) and value.is_integer():
        value = int(value)
    if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)):
        return _wrong(path, "a whole number" if whole else "a number", value, found)
    if (node.low is not None and value < node.low) or (node.high is not None and value > node.high) or value != value:
        found.errors.append((path, f"Invalid value: {value}: must be {_range(node)}"))
        return None
    return value


def _range(node: Node) -> str:
    if node.low is not None and node.high is not None:
        return f"between {node.low:g} and {node.high:g}, inclusive"
    return f"at least {node.low:g}" if node.low is not None else f"at most {node.high:g}"


def _flag(node: Node, value: Any, path: str, found: Findings) -> Any:
    return value if isinstance(value, bool) else _wrong(path, "true or false", value, found)


def _duration(node: Node, value: Any, path: str, found: Findings) -> Any:
    if not isinstance(value, str):
        return _wrong(path, "a duration such as 5s, 100ms or 1h30m", value, found)
    seconds = parse_duration(value)
    if seconds is None:
        found.errors.append((path, f'Invalid value: "{value}": expected a duration with a unit, such as 5s or 100ms'))
        return None
    if node.low is not None and seconds < node.low:
        found.errors.append((path, f'Invalid value: "{value}": must be at least {node.low * 1000:g}ms'))
        return None
    if seconds > DURATION_MAX_S:
        found.errors.append((path, f'Invalid value: "{value[:60]}": must be at most {DURATION_MAX_S / 3600:g}h'))
        return None
    if abs(seconds * 1000 - round(seconds * 1000)) > 1e-6:
        found.errors.append((path, f'Invalid value: "{value}": must be whole milliseconds'))
        return None
    return seconds


def _int_or_text(node: Node, value: Any, path: str, found: Findings) -> Any:
    if isinstance(value, bool) or not isinstance(value, (int, str)):
        return _wrong(path, "a number or a name", value, found)
    return value


_CHECKS: dict[str, Callable[[Node, Any, str, Findings], Any]] = {
    "object": _object,
    "list": _items,
    "map": _table,
    "text": _text,
    "integer": _number,
    "number": _number,
    "boolean": _flag,
    "duration": _duration,
    "int-or-text": _int_or_text,
    "any": lambda node, value, path, found: value,
}


def openapi(node: Node) -> dict[str, Any]:
    """An OpenAPI v3 schema that allows what `check` allows (bounds are left to `check`)."""
    made: dict[str, Any] = {"description": node.doc} if node.doc else {}
    if node.kind == "object":
        made["type"] = "object"
        if node.fields:
            made["properties"] = {name: openapi(field) for name, field in node.fields.items()}
        if node.required:
            made["required"] = list(node.required)
        if node.open or not node.fields:
            made["x-kubernetes-preserve-unknown-fields"] = True
    elif node.kind == "list":
        assert node.item is not None
        made |= {"type": "array", "items": openapi(node.item)}
    elif node.kind == "map":
        assert node.item is not None
        made |= {"type": "object", "additionalProperties": openapi(node.item)}
    elif node.kind == "int-or-text":
        made |= {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    elif node.kind == "any":
        made["x-kubernetes-preserve-unknown-fields"] = True
    else:
        made["type"] = {"text": "string", "duration": "string"}.get(node.kind, node.kind)
        if node.values:
            made["enum"] = [value for value in node.values if value]
    return made
