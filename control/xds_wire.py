"""Envoy's messages as octets and back: dictionaries as protobuf's JSON has them, by the table of `xds_schema`.

Names are those of the .proto files. A duration is text (`1.5s`), an enumeration a name or a number, an Any a dictionary
with `@type` and the message's fields; octets in the place of a message are taken as they are. Each field that is given
is written, so that a member of a `oneof` counts when its value is empty.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Any

from .protobuf_wire import LENGTH, VARINT, WireError, framed, read_varint, varint
from .xds_schema import ENUMS, MESSAGES

PREFIX = "type.googleapis.com/"
DEPTH_MAX = 64
"""Messages within messages that are read."""
FIXED64, FIXED32 = 1, 5
_WRAPPED = {"uint?": "uint", "bool?": "bool", "double?": "double", "string?": "string"}
_NUMBERS = frozenset(("uint", "int", "bool"))


class _Field:
    __slots__ = ("is_map", "kind", "number", "repeated")

    def __init__(self, number: int, kind: str) -> None:
        self.number = number
        self.repeated = kind.startswith("*")
        self.is_map = kind.startswith("map:")
        self.kind = kind.removeprefix("*").removeprefix("map:")


def _tables() -> tuple[dict[str, dict[str, _Field]], dict[str, dict[str, int]]]:
    def lines(text: str) -> list[list[str]]:
        found: list[list[str]] = []
        for line in text.strip().splitlines():
            if line.startswith(" "):
                found[-1] += line.split()
            else:
                found.append(line.split())
        return found

    messages: dict[str, dict[str, _Field]] = {}
    for name, *fields in lines(MESSAGES):
        own = messages[name] = {}
        for one in fields:
            field, _, rest = one.partition("=")
            number, _, kind = rest.partition(":")
            own[field] = _Field(int(number), kind)
    enums = {name: {k: int(v) for k, _, v in (one.partition("=") for one in values)} for name, *values in lines(ENUMS)}
    return messages, enums


_MESSAGES, _ENUMS = _tables()


# --- writing --------------------------------------------------------------------------------------------------------


def encode(name: str, value: Mapping[str, Any]) -> bytes:
    """A message by its full name (without `envoy.`). Raises WireError for a field that it has not."""
    fields = _MESSAGES.get(name)
    if fields is None:
        raise WireError(f"message {name} is not in the table")
    out = []
    for key, one in value.items():
        if key == "@type" or one is None:
            continue
        field = fields.get(key)
        if field is None:
            raise WireError(f"{name} has no field {key} in the table")
        if field.is_map:
            for entry, content in sorted(one.items()):
                pair = framed(1, str(entry).encode()) + _single(2, field.kind, content)
                out.append(framed(field.number, pair))
        elif field.repeated:
            if field.kind in _NUMBERS or field.kind in _ENUMS:
                out.append(framed(field.number, b"".join(varint(_number(field.kind, each)) for each in one)))
            else:
                out += [_single(field.number, field.kind, each) for each in one]
        else:
            out.append(_single(field.number, field.kind, one))
    return b"".join(out)


def _number(kind: str, value: Any) -> int:
    if kind in _ENUMS and isinstance(value, str):
        try:
            return _ENUMS[kind][value]
        except KeyError:
            raise WireError(f"{kind} has no value {value}") from None
    return int(value)


def _single(number: int, kind: str, value: Any) -> bytes:
    if kind == "string":
        return framed(number, str(value).encode())
    if kind in _NUMBERS or kind in _ENUMS:
        return varint(number << 3 | VARINT) + varint(_number(kind, value))
    if kind == "double":
        return varint(number << 3 | FIXED64) + struct.pack("<d", value)
    if kind == "float":
        return varint(number << 3 | FIXED32) + struct.pack("<f", value)
    if isinstance(value, bytes):  # of `bytes`, and of a message that is already written
        return framed(number, value)
    if kind in _WRAPPED:
        return framed(number, _single(1, _WRAPPED[kind], value))
    if kind == "any":
        return framed(number, encode_any(value))
    if kind == "duration":
        return framed(number, _duration(value))
    if kind == "struct":
        return framed(number, _struct(value))
    return framed(number, encode(kind, value))


def encode_any(value: Mapping[str, Any]) -> bytes:
    """A google.protobuf.Any of a dictionary with `@type`."""
    url = str(value["@type"])
    name = url.removeprefix(PREFIX).removeprefix("envoy.")
    return framed(1, url.encode()) + framed(2, encode(name, value))


def _duration(text: str) -> bytes:
    nanos = round(float(text.removesuffix("s")) * 1_000_000_000)
    seconds, rest = divmod(nanos, 1_000_000_000)
    found = varint(1 << 3 | VARINT) + varint(seconds)
    return found + varint(2 << 3 | VARINT) + varint(rest) if rest else found


def _struct(value: Mapping[str, Any]) -> bytes:
    return b"".join(framed(1, framed(1, key.encode()) + framed(2, _value(one))) for key, one in sorted(value.items()))


def _value(value: Any) -> bytes:
    if value is None:
        return varint(1 << 3 | VARINT) + b"\0"
    if isinstance(value, bool):
        return varint(4 << 3 | VARINT) + varint(value)
    if isinstance(value, (int, float)):
        return varint(2 << 3 | FIXED64) + struct.pack("<d", value)
    if isinstance(value, str):
        return framed(3, value.encode())
    if isinstance(value, Mapping):
        return framed(5, _struct(value))
    return framed(6, b"".join(framed(1, _value(one)) for one in value))


# --- reading --------------------------------------------------------------------------------------------------------


def _parts(data: bytes) -> list[tuple[int, int, int, bytes]]:
    """(field number, wire type, number, octets) of a message's fields, in order."""
    found, at = [], 0
    while at < len(data):
        key, at = read_varint(data, at)
        number, wire = key >> 3, key & 7
        value, content = 0, b""
        if wire == VARINT:
            value, at = read_varint(data, at)
        elif wire in (LENGTH, FIXED64, FIXED32):
            size = 8 if wire == FIXED64 else 4
            if wire == LENGTH:
                size, at = read_varint(data, at)
            if at + size > len(data):
                raise WireError("a field is cut off")
            content = data[at : at + size]
            at += size
        else:
            raise WireError(f"wire type {wire} is not known")
        if not number:
            raise WireError("a field has the number 0")
        found.append((number, wire, value, content))
    return found


def decode(name: str, data: bytes, depth: int = 0) -> dict[str, Any]:
    """A message as a dictionary; fields that are not in the table are left out. Raises WireError."""
    if depth > DEPTH_MAX:
        raise WireError("messages stand too deep in messages")
    by_number = {field.number: (key, field) for key, field in _MESSAGES[name].items()}
    found: dict[str, Any] = {}
    for number, wire, value, content in _parts(data):
        known = by_number.get(number)
        if known is None:
            continue
        key, field = known
        packed = field.repeated and wire == LENGTH and (field.kind in _NUMBERS or field.kind in _ENUMS)
        if field.is_map:
            entry, one = "", None
            for part, way, numeral, octets in _parts(content):
                if part == 1:
                    entry = _text(octets)
                elif part == 2:
                    one = _read(field.kind, way, numeral, octets, depth + 1)
            found.setdefault(key, {})[entry] = one if one is not None else _default(field.kind)
        elif packed:
            at = 0
            while at < len(content):
                each, at = read_varint(content, at)
                found.setdefault(key, []).append(each)
        elif field.repeated:
            found.setdefault(key, []).append(_read(field.kind, wire, value, content, depth + 1))
        else:
            found[key] = _read(field.kind, wire, value, content, depth + 1)
    return found


def _default(kind: str) -> Any:
    return "" if kind == "string" else {}


def _text(octets: bytes) -> str:
    try:
        return octets.decode()
    except UnicodeDecodeError:
        raise WireError("a text is not UTF-8") from None


def _read(kind: str, wire: int, value: int, content: bytes, depth: int) -> Any:
    numeric = kind in _NUMBERS or kind in _ENUMS
    expected = VARINT if numeric else FIXED64 if kind == "double" else FIXED32 if kind == "float" else LENGTH
    if wire != expected:
        raise WireError(f"wire type {wire} in the place of {kind}")
    if kind == "bool":
        return bool(value)
    if numeric:
        signed = value - (1 << 64) if kind == "int" and value >> 63 else value
        return next((k for k, v in _ENUMS[kind].items() if v == value), value) if kind in _ENUMS else signed
    if kind == "string":
        return _text(content)
    if kind in ("double", "float"):
        return struct.unpack("<d" if kind == "double" else "<f", content)[0]
    if kind == "bytes":
        return content
    if kind in _WRAPPED:
        inner = [_read(_WRAPPED[kind], way, numeral, octets, depth) for _, way, numeral, octets in _parts(content)]
        return inner[-1] if inner else {"uint?": 0, "bool?": False, "double?": 0.0, "string?": ""}[kind]
    if kind == "any":
        return _read_any(content, depth)
    if kind == "duration":
        parts = {number: numeral for number, _, numeral, _ in _parts(content)}
        text = f"{parts.get(1, 0)}.{parts.get(2, 0):09}".rstrip("0").rstrip(".")
        return f"{text}s"
    if kind == "struct":
        return _read_struct(content, depth)
    return decode(kind, content, depth)


def _read_any(content: bytes, depth: int) -> dict[str, Any]:
    parts = {number: octets for number, _, _, octets in _parts(content)}
    url = _text(parts.get(1, b""))
    name = url.removeprefix(PREFIX).removeprefix("envoy.")
    if name not in _MESSAGES:
        return {"@type": url, "value": parts.get(2, b"")}
    return {"@type": url, **decode(name, parts.get(2, b""), depth + 1)}


def _read_struct(content: bytes, depth: int) -> dict[str, Any]:
    if depth > DEPTH_MAX:
        raise WireError("values stand too deep in values")
    found = {}
    for number, _, _, octets in _parts(content):
        if number == 1:
            pair = {part: inner for part, _, _, inner in _parts(octets)}
            found[_text(pair.get(1, b""))] = _read_value(pair.get(2, b""), depth + 1)
    return found


def _read_value(content: bytes, depth: int) -> Any:
    for number, wire, value, octets in _parts(content):
        if number == 2 and wire == FIXED64:
            return struct.unpack("<d", octets)[0]
        if number == 3:
            return _text(octets)
        if number == 4:
            return bool(value)
        if number == 5:
            return _read_struct(octets, depth)
        if number == 6:
            if depth > DEPTH_MAX:
                raise WireError("values stand too deep in values")
            return [_read_value(inner, depth + 1) for one, _, _, inner in _parts(octets) if one == 1]
    return None
