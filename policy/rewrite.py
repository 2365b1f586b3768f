"""Rewriting of the request target, and the Location of a redirect."""

from __future__ import annotations

import re

from .match import HttpMatch
from .resources import HTTPRedirect, HTTPRewrite

DEFAULT_PORTS = {"http": 80, "https": 443}


def split_target(target: str) -> tuple[str, str]:
    """(path, the rest from `?` or `#` on) of a request target."""
    for at, character in enumerate(target):
        if character in "?#":
            return target[:at], target[at:]
    return target, ""


def replace_matched(path: str, match: HttpMatch, new: str) -> str:
    """What the path condition matched, replaced: a prefix textually, an exact or regex match as a whole.

    Without a path condition only the leading `/` is replaced (`/old` and `/new` give `/newold`, as in Istio).
    """
    if match.uri is None:
        return new + path[1:]
    if match.uri.kind == "prefix":
        return new + path[match.uri_length :]
    return new


def replace_prefix(path: str, match: HttpMatch, new: str) -> str:
    """A redirect's `prefixRewrite`: the matched prefix, or the leading `/`."""
    length = match.uri_length if match.uri is not None and match.uri.kind == "prefix" else 1
    return new + path[length:]


def rewrite_target(target: str, match: HttpMatch, rewrite: HTTPRewrite, pattern: re.Pattern[str] | None) -> str:
    """The new request target; the query is kept. `pattern` is `uriRegexRewrite.match`, compiled."""
    path, rest = split_target(target)
    if pattern is not None and rewrite.uri_regex_rewrite is not None:
        return replace_all(pattern, substitution(rewrite.uri_regex_rewrite.get("rewrite", "")), path) + rest
    return replace_matched(path, match, rewrite.uri) + rest if rewrite.uri else target


def replace_all(pattern: re.Pattern[str], template: str, text: str) -> str:
    """All that matches replaced as RE2's GlobalReplace does: an empty match right behind another one does not count."""
    end = -1

    def one(found: re.Match[str]) -> str:
        nonlocal end
        if found.start() == found.end() == end:
            return ""
        end = found.end()
        return found.expand(template)

    return pattern.sub(one, text)


def substitution(text: str) -> str:
    """RE2's replacement text (`\\1`, `\\\\`) as Python's, where any other escape would be an error."""

    def one(found: re.Match[str]) -> str:
        after = found[1]
        if after.isdigit() and after.isascii():
            return f"\\g<{after}>"
        return "\\\\" + ("" if after == "\\" else after)

    return re.sub(r"\\(.?)", one, text)


def redirect_location(
    redirect: HTTPRedirect, match: HttpMatch, target: str, authority: str, scheme: str, listener_port: int
) -> str:
    """Where a redirect leads. `listener_port` is the port the client dialled."""
    path, rest = split_target(target)
    new_scheme = redirect.scheme or scheme or "http"
    host = redirect.authority or authority
    name, colon, port = host.rpartition(":")
    if not (colon and port.isdigit()):
        name, port = host, ""
    if redirect.port or redirect.derive_port:
        number = redirect.port or (listener_port if redirect.derive_port == "FROM_REQUEST_PORT" else 0)
        host = name if not number or DEFAULT_PORTS.get(new_scheme) == number else f"{name}:{number}"
    elif redirect.scheme and redirect.scheme != scheme and port and int(port) == DEFAULT_PORTS.get(scheme):
        host = name
    if redirect.uri:
        path = redirect.uri
        if "?" in path:
            rest = ""
    elif redirect.prefix_rewrite:
        path = replace_prefix(path, match, redirect.prefix_rewrite)
    return f"{new_scheme}://{host}{path}{rest}"
