"""Headers in Envoy's words where one line is not all: those that must all have a value, and those that peers without an
identity may not send."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from .xds_node import JSON, typed

MADE_UP = ("forwarded", "x-real-ip", "x-client-ip", "x-cluster-client-ip", "true-client-ip")
MADE_UP_PREFIXES = ("x-forwarded-", "x-envoy-", "x-fairlead-", "x-original-forwarded-")
"""In which proxies tell where a request came from (as `proxy/headers.py` takes them out)."""
EXTERNAL = "x-envoy-external-address"
"""Envoy's own word for a client's address, which x-forwarded-for has: no sidecar of ours tells it."""


def without_made_up() -> list[JSON]:
    """The extension that takes them out before Envoy looks at, or adds to, them."""
    mutations: list[JSON] = [{"remove": name} for name in MADE_UP]
    mutations += [{"remove_on_match": {"key_matcher": {"prefix": one}}} for one in MADE_UP_PREFIXES]
    config = typed("http.early_header_mutation.header_mutation.v3.HeaderMutation", mutations=mutations)
    return [{"name": "envoy.http.early_header_mutation.header_mutation", "typed_config": config}]


def outside(values: Sequence[str]) -> str | None:
    """A regular expression of all texts that have the shape (exact, `prefix*`, `*suffix`, `*`) of none of `values`.
    None: prefixes and suffixes together are more than one can say without looking back."""
    if "*" in values:
        return "(?:)"
    if all(one.startswith("*") for one in values):
        return _others([one[:0:-1] for one in values], True, True)
    if any(one.startswith("*") for one in values):
        return None
    exact = [one for one in values if not one.endswith("*")]
    return _others(exact, False, False, [one[:-1] for one in values if one.endswith("*")])


def _others(whole: Sequence[str], mirrored: bool, open_: bool, begins: Sequence[str] = ()) -> str:
    """`mirrored`: the texts stand backwards, and are looked at from the end. `open_`: they are beginnings, too."""
    tree: dict[str, Any] = {}
    for text, is_begin in [*((one, open_) for one in whole), *((one, True) for one in begins)]:
        at = tree
        for character in text:
            at = at.setdefault(character, {})
        at["begin" if is_begin else "end"] = True
    return _walk(tree, mirrored)


def _walk(tree: dict[str, Any], mirrored: bool) -> str:
    """All that leaves the tree, or ends where nothing ends in it."""
    children = {key: one for key, one in tree.items() if key != "end"}
    other = "[^" + "".join(_in_class(one) for one in children) + "]" if children else "."
    ways = [rf".*{other}" if mirrored else rf"{other}.*"]
    for character, child in children.items():
        if "begin" in child:
            continue  # whatever comes after has the shape
        inner = _walk(child, mirrored)
        ways.append(f"{inner}{re.escape(character)}" if mirrored else f"{re.escape(character)}{inner}")
    if "end" not in tree:
        ways.append("")
    return f"(?:{'|'.join(ways)})"


def _in_class(character: str) -> str:
    return "\\" + character if character in r"\]^-[" else character
