"""One path for policy, routing and the endpoint: Istio's path normalisation modes as a pure function.

The normalised path must be the one that is forwarded, or a rule and the application would see different things.
"""

from __future__ import annotations

import re

MODES = ("NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES")

_UNRESERVED = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~")
_ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
_HALF_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
# UTF-8 that says in two to four octets what fits in fewer (RFC 3629 section 3): `%C0%AF` is a slash for lax decoders.
_OVERLONG = re.compile(
    r"%[Cc][01]%[89AaBb][0-9A-Fa-f]|%[Ee]0%[89][0-9A-Fa-f]%[89AaBb][0-9A-Fa-f]|%[Ff]0%8[0-9A-Fa-f]%[89AaBb][0-9A-Fa-f]"
)
_DOT_WITH_PARAMETER = re.compile(r"/\.\.?(?:;|%3[Bb])")
_ESCAPED_SLASH = re.compile(r"%2[Ff]|%5[Cc]")
_SLASHES = re.compile(r"/{2,}")


class PathError(ValueError):
    """The request target may not be passed on (400, FL-MALFORMED); `str()` says why."""


def normalize_path(target: str, mode: str = "BASE") -> str:
    """`target` (path with query, origin form) as policy, routing and the endpoint shall see it.

    NONE leaves it; BASE resolves dot segments (RFC 3986 section 5.2.4), turns `\\` into `/` and decodes escapes of
    unreserved characters; MERGE_SLASHES then folds `//`; DECODE_AND_MERGE_SLASHES first decodes `%2F` and `%5C`. The
    query is never touched, double encoding is never resolved. Raises PathError on a fragment or `%00` in every mode,
    and in all but NONE on what has no normal form: half an escape, overlong UTF-8, a dot segment with a parameter.
    """
    if "#" in target:
        raise PathError("the request target has a fragment")
    path, mark, query = target.partition("?")
    if "%00" in path or "\x00" in path:
        raise PathError("the path has a NUL character")
    if mode == "NONE" or not path.startswith(("/", "\\")):
        return target
    if "%" in path:
        if _HALF_ESCAPE.search(path):
            raise PathError("the path has a `%` that begins no escape; a literal one is written `%25`")
        if _OVERLONG.search(path):
            raise PathError("the path has overlong UTF-8")
        if mode == "DECODE_AND_MERGE_SLASHES":
            path = _ESCAPED_SLASH.sub("/", path)
        path = _ESCAPE.sub(_decode_unreserved, path)
    path = path.replace("\\", "/")
    if "/." in path:
        if _DOT_WITH_PARAMETER.search(path):
            raise PathError("the path has a dot segment with a parameter")
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
