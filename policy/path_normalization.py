"""One path for policy, routing and the endpoint: Istio's path normalisation modes as a pure function.

The normalised path must be the one that is forwarded, or a rule and the application would see different things.
"""

from __future__ import annotations

import re

MODES = ("NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES")

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_ESCAPED_SLASH = re.compile(r"%2[Ff]|%5[Cc]")
_SLASHES = re.compile(r"/{2,}")


class PathError(ValueError):
    """The request target may not be passed on (400, FL-MALFORMED); `str()` says why."""


def normalize_path(target: str, mode: str = "BASE") -> str:
    """`target` (path with query, origin form) as policy, routing and the endpoint shall see it.

    NONE leaves it; BASE resolves dot segments (RFC 3986 section 5.2.4), turns `\\` into `/` and decodes escapes of
    unreserved characters; MERGE_SLASHES then folds `//`; DECODE_AND_MERGE_SLASHES first decodes `%2F` and `%5C`. The
    query is never touched, double encoding is never resolved. Raises PathError on a fragment or `%00`, in every mode.
    """
    if "#" in target:
        raise PathError("the request target has a fragment")
    path, mark, query = target.partition("?")
    if "%00" in path or "\x00" in path:
        raise PathError("the path has a NUL character")
    if mode == "NONE" or not path.startswith(("/", "\\")):
        return target
    if "%" in path:
        if mode == "DECODE_AND_MERGE_SLASHES":
            path = _ESCAPED_SLASH.sub("/", path)
        path = _ESCAPE.sub(_decode_unreserved, path)
    path = path.replace("\\", "/")
    if "/." in path:
        path = remove_dot_segments(path)
    if mode != "BASE" and "//" in path:
        path = _SLASHES.sub("/", path)
    return path + mark + query


def remove_dot_segments(path: str) -> str:
    """RFC 3986 section 5.2.4 for a path that begins with `/`; it cannot climb above the root."""
    kept: list[str] = []
    segments = path.split("/")[1:]
    for segment in segments:
        if segment == "..":
            if kept:
                kept.pop()
        elif segment != ".":
            kept.append(segment)
    if segments[-1] in (".", ".."):
        kept.append("")
    return "/" + "/".join(kept)


def _decode_unreserved(found: re.Match[str]) -> str:
    character = chr(int(found[1], 16))
    return character if character in _UNRESERVED else found[0]
