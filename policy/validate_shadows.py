"""Routes and match blocks that nothing can reach: those that an earlier one takes all of, and those that nobody meets.

Whether one condition holds for everything that another holds for is told for exact and prefix values, for equal
regular expressions, and for the literal beginning of one; where it is not certain, nothing is said.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any

from ..registry.schema import Findings
from .validate_values import listed, mapping, warn

Object = Mapping[str, Any]
Block = tuple[str, Object]
"""(path, match block); a route without `match` is one block that holds for everything."""

LOOKED_AT_MAX = 50
"""Blocks of one kind that a block is compared with: a rule is judged whenever it is written."""
PATH_MAX = 1000
"""Characters of a path that are looked up."""
_NO_CONDITION = ("uri", "name", "statPrefix", "ignoreUriCase")
_NOTHING: dict[str, Any] = {}
_TEXTS = ("scheme", "method", "authority")
_TABLES = ("headers", "queryParams")
_LITERAL = re.compile(r"[^\\.+*?()|\[\]{}^$]*")


def check_shadows(found: Findings, kind: str, routes: list[Any], own_gateways: list[str]) -> None:
    """`kind`: http, tls or tcp."""
    if not routes:
        return
    earlier = _Earlier()
    for index, route in enumerate(routes):
        path = f"spec.{kind}[{index}]"
        blocks = _blocks(path, route)
        dead = []
        for at, block in blocks:
            first = next((one for one, other in earlier.candidates(block) if _covers(kind, other, block)), None)
            if first is not None:
                dead.append((at, first))
            elif kind == "http" and (why := never(block, own_gateways)):
                warn(found, at, f"is never met: {why}")
        if dead and len(dead) == len(blocks):
            by = ", ".join(dict.fromkeys(first for _, first in dead))
            warn(found, path, f"is never reached: {by} before it {_verb(dead)}; put it first, or remove it")
        else:
            for at, first in dead:
                warn(found, at, f"is never reached: {first} before it takes all that it would take")
        if route.get("delegate") is None:  # what a delegate has no route for goes on to the next
            earlier.add(blocks)


class _Earlier:
    """Blocks by what they ask of the path, so that a block is compared with those that could cover it, not with all."""

    def __init__(self) -> None:
        self._everything: list[Block] = []
        """Those without any condition; the newest last."""
        self._anything: list[Block] = []
        """Those that ask nothing of the path, or in a way that texts cannot be looked up by."""
        self._by_path: dict[tuple[str, str], list[Block]] = {}

    def add(self, blocks: list[Block]) -> None:
        for block in blocks:
            uri = mapping(block[1], "uri")
            kind = next((one for one in ("exact", "prefix", "regex") if uri.get(one) is not None), "")
            if not kind or block[1].get("ignoreUriCase") or _holds_always(uri):
                asks = any(value for key, value in block[1].items() if key not in _NO_CONDITION)
                (self._anything if asks else self._everything).append(block)
            else:
                self._by_path.setdefault((kind, uri[kind]), []).append(block)

    def candidates(self, block: Object) -> Iterator[Block]:
        yield from self._everything[: -LOOKED_AT_MAX - 1 : -1]  # what takes everything comes first
        yield from self._anything[: max(0, LOOKED_AT_MAX - len(self._everything))]
        uri = mapping(block, "uri")
        for kind in ("exact", "regex"):
            if uri.get(kind) is not None:
                yield from self._by_path.get((kind, uri[kind]), ())[:LOOKED_AT_MAX]
        text = _known(uri) if self._by_path else ""
        for length in range(1, min(len(text), PATH_MAX) + 1):
            yield from self._by_path.get(("prefix", text[:length]), ())[:LOOKED_AT_MAX]


def _known(uri: Object) -> str:
    """How every path begins for which the condition holds, as far as that is certain."""
    for key in ("exact", "prefix"):
        if uri.get(key) is not None:
            return str(uri[key])
    pattern = uri.get("regex") or ""
    return "" if "|" in pattern else _beginning(pattern)


def _verb(dead: list[tuple[str, str]]) -> str:
    single = len({first for _, first in dead}) == 1
    return "takes all that it would take" if single else "take all that it would take"


def _blocks(path: str, route: Object) -> list[Block]:
    matches = listed(route, "match")
    if not matches:
        return [(path, {})]
    return [(f"{path}.match[{number}]", block) for number, block in enumerate(matches)]


def _covers(kind: str, one: Object, other: Object) -> bool:
    """Whether `one` holds wherever `other` holds."""
    if not _covers_source(one, other):
        return False
    if kind == "http":
        return _covers_http(one, other)
    if one.get("destinationSubnets") and set(listed(other, "destinationSubnets")) - set(one["destinationSubnets"]):
        return False
    if one.get("destinationSubnets") and not other.get("destinationSubnets"):
        return False
    if one.get("sourceSubnet") and one["sourceSubnet"] != other.get("sourceSubnet"):
        return False
    if kind == "tls":
        names = {name.lower() for name in listed(one, "sniHosts")}
        return bool(other) and all(name.lower() in names for name in listed(other, "sniHosts"))
    return True


def _covers_source(one: Object, other: Object) -> bool:
    if one.get("port") and one["port"] != other.get("port"):
        return False
    if one.get("gateways"):
        return bool(other.get("gateways")) and set(other["gateways"]) <= set(one["gateways"])
    # Where gateways is given, source labels and namespace are not looked at.
    labels = {} if other.get("gateways") else mapping(other, "sourceLabels")
    namespace = "" if other.get("gateways") else other.get("sourceNamespace")
    if any(labels.get(key) != value for key, value in mapping(one, "sourceLabels").items()):
        return False
    return not one.get("sourceNamespace") or one["sourceNamespace"] == namespace


def _covers_http(one: Object, other: Object) -> bool:
    lower = bool(one.get("ignoreUriCase"))
    if not lower and other.get("ignoreUriCase") and not _holds_always(mapping(one, "uri")):
        return False
    if not _implied(mapping(one, "uri"), mapping(other, "uri"), lower, path=True):
        return False
    if any(key in one and not _implied(mapping(one, key), mapping(other, key)) for key in _TEXTS):
        return False
    for key in _TABLES:
        own, theirs = _folded(one, key), _folded(other, key)
        if any(name not in theirs or not _implied(value, theirs[name]) for name, value in own.items()):
            return False
    without, theirs = _folded(one, "withoutHeaders"), _folded(other, "withoutHeaders")
    return all(theirs.get(name) == value for name, value in without.items())


def _folded(block: Object, key: str) -> dict[str, Any]:
    if key not in block:
        return _NOTHING
    fold = key != "queryParams"
    return {name.lower() if fold else name: value for name, value in mapping(block, key).items()}


def _holds_always(match: Object) -> bool:
    return not match or match.get("prefix") in ("", "/") or match.get("regex") == ".*"


def _implied(one: Object, other: Object, lower: bool = False, path: bool = False) -> bool:
    """Whether the text condition `one` holds for every text for which `other` holds."""
    if not one or one.get("regex") == ".*" or (path and one.get("prefix") in ("", "/")):
        return True

    def folded(text: str) -> str:
        return text.lower() if lower else text

    if not other:
        return False
    if one.get("exact") is not None:
        return other.get("exact") is not None and folded(one["exact"]) == folded(other["exact"])
    if one.get("prefix") is not None:
        return folded(_known(other)).startswith(folded(one["prefix"]))
    if one.get("regex") is not None:
        return other.get("regex") is not None and one["regex"] == other["regex"]
    return True


def _beginning(pattern: str) -> str:
    """The characters with which every match of a regular expression begins."""
    found = _LITERAL.match(pattern)
    text = found[0] if found else ""
    return text[:-1] if pattern[len(text) : len(text) + 1] in ("*", "?", "{") else text


def never(block: Object, own_gateways: list[str]) -> str:
    """Why no request meets a block, whoever sends it; empty where one may."""
    uri = mapping(block, "uri")
    for key in ("exact", "prefix"):
        text = uri.get(key) or ""
        if text and not text.startswith("/") and not (key == "exact" and text == "*"):
            return f"uri is {key} {text!r}, and a path begins with '/'"
        if "?" in text or "#" in text:
            return f"uri is {key} {text!r}, and the path that is compared has no query: use queryParams"
    method = mapping(block, "method")
    text = method.get("exact") or ""
    if text and text != text.upper() and text.upper() in _METHODS:
        return f"method is exact {text!r}, and methods are written in capitals: {text.upper()}"
    if block.get("withoutHeaders") and block.get("headers"):
        absent = {
            name for name, value in _folded(block, "withoutHeaders").items() if not value or value.get("regex") == "*"
        }
        if both := sorted(absent & _folded(block, "headers").keys()):
            return f"header {both[0]} stands in headers and in withoutHeaders"
    gateways = listed(block, "gateways")
    if gateways and not set(gateways) & set(own_gateways or ["mesh"]):
        known = ", ".join(own_gateways or ["mesh"])
        return f"gateways is {', '.join(gateways)}, and the rule is for {known} only: add it to spec.gateways"
    return ""


_METHODS = frozenset(("GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH"))
