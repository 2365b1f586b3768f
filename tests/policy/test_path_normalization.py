"""One path for policy and application: what each mode does and leaves."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fairlead.policy.path_normalization import MODES, PathError, normalize_path

# One row a shape of security work on paths: what each mode makes of it, in the order of MODES; None: refused.
SHAPES: dict[str, tuple[str | None, str | None, str | None, str | None]] = {
    "/": ("/", "/", "/", "/"),
    "*": ("*", "*", "*", "*"),
    "/a/./b/../c": ("/a/./b/../c", "/a/c", "/a/c", "/a/c"),
    "/../../x": ("/../../x", "/x", "/x", "/x"),
    "/a/..": ("/a/..", "/", "/", "/"),
    "/a/.": ("/a/.", "/a/", "/a/", "/a/"),
    "/a/b/.": ("/a/b/.", "/a/b/", "/a/b/", "/a/b/"),
    "/.": ("/.", "/", "/", "/"),
    "/..": ("/..", "/", "/", "/"),
    "/...": ("/...", "/...", "/...", "/..."),
    "/.a": ("/.a", "/.a", "/.a", "/.a"),
    "/a.": ("/a.", "/a.", "/a.", "/a."),
    "/a//b": ("/a//b", "/a//b", "/a/b", "/a/b"),
    "//a///b": ("//a///b", "//a///b", "/a/b", "/a/b"),
    "/a//../b": ("/a//../b", "/a/b", "/a/b", "/a/b"),
    "/a/..//b": ("/a/..//b", "//b", "/b", "/b"),
    "/a/": ("/a/", "/a/", "/a/", "/a/"),
    "/A": ("/A", "/A", "/A", "/A"),
    "/%41": ("/%41", "/A", "/A", "/A"),
    "/%61%7e%20%2F": ("/%61%7e%20%2F", "/a~%20%2F", "/a~%20%2F", "/a~%20/"),
    "/a/%2e%2E/b": ("/a/%2e%2E/b", "/b", "/b", "/b"),
    "/a/.%2e/b": ("/a/.%2e/b", "/b", "/b", "/b"),
    "/a/%2e/b": ("/a/%2e/b", "/a/b", "/a/b", "/a/b"),
    "/a%2Fb": ("/a%2Fb", "/a%2Fb", "/a%2Fb", "/a/b"),
    "/a%2fb": ("/a%2fb", "/a%2fb", "/a%2fb", "/a/b"),
    "/a%2F..%2Fb": ("/a%2F..%2Fb", "/a%2F..%2Fb", "/a%2F..%2Fb", "/b"),
    "/a%2F%2f..%5cb": ("/a%2F%2f..%5cb", "/a%2F%2f..%5cb", "/a%2F%2f..%5cb", "/a/b"),
    "/a%5Cb": ("/a%5Cb", "/a%5Cb", "/a%5Cb", "/a/b"),
    "/a%5c..%5cb": ("/a%5c..%5cb", "/a%5c..%5cb", "/a%5c..%5cb", "/b"),
    "/a\\b": ("/a\\b", "/a/b", "/a/b", "/a/b"),
    "\\a": ("\\a", "/a", "/a", "/a"),
    "/a\\..\\b": ("/a\\..\\b", "/b", "/b", "/b"),
    "/a%252Fb": ("/a%252Fb", "/a%252Fb", "/a%252Fb", "/a%252Fb"),
    "/%252e%252e/a": ("/%252e%252e/a", "/%252e%252e/a", "/%252e%252e/a", "/%252e%252e/a"),
    "/a;x=1/b": ("/a;x=1/b", "/a;x=1/b", "/a;x=1/b", "/a;x=1/b"),
    "/a;/b": ("/a;/b", "/a;/b", "/a;/b", "/a;/b"),
    "/..;/a": ("/..;/a", None, None, None),
    "/.;x/a": ("/.;x/a", None, None, None),
    "/%2e%2e;x/a": ("/%2e%2e;x/a", None, None, None),
    "/a/..%3b/b": ("/a/..%3b/b", None, None, None),
    "/%c0%ae%c0%ae/a": ("/%c0%ae%c0%ae/a", None, None, None),
    "/%c0%af": ("/%c0%af", None, None, None),
    "/%e0%80%af": ("/%e0%80%af", None, None, None),
    "/%f0%80%80%af": ("/%f0%80%80%af", None, None, None),
    "/%c3%a9": ("/%c3%a9", "/%c3%a9", "/%c3%a9", "/%c3%a9"),
    "/%e0%a4%b9": ("/%e0%a4%b9", "/%e0%a4%b9", "/%e0%a4%b9", "/%e0%a4%b9"),
    "/%f0%9f%98%80": ("/%f0%9f%98%80", "/%f0%9f%98%80", "/%f0%9f%98%80", "/%f0%9f%98%80"),
    "/%zz": ("/%zz", None, None, None),
    "/%2": ("/%2", None, None, None),
    "/%": ("/%", None, None, None),
    "/%2%65": ("/%2%65", None, None, None),  # decoded once it would be `%2e`
    "/%%32e": ("/%%32e", None, None, None),
    "/%0d%0aX:y": ("/%0d%0aX:y", "/%0d%0aX:y", "/%0d%0aX:y", "/%0d%0aX:y"),
    "/a%00b": (None, None, None, None),
    "/%00": (None, None, None, None),
    "/a#b": (None, None, None, None),
    "/a?b#c": (None, None, None, None),
    "/a?x=/../b%61//%2F%zz": ("/a?x=/../b%61//%2F%zz",) * 4,
    "/a%3fb/../c": ("/a%3fb/../c", "/c", "/c", "/c"),
    "/a%23": ("/a%23", "/a%23", "/a%23", "/a%23"),
}


@pytest.mark.parametrize("target", SHAPES)
@pytest.mark.parametrize("number", range(len(MODES)))
def test_each_shape_has_one_normal_form_in_each_mode_or_none(target: str, number: int) -> None:
    expected = SHAPES[target][number]
    if expected is None:
        with pytest.raises(PathError):
            normalize_path(target, MODES[number])
    else:
        assert normalize_path(target, MODES[number]) == expected


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["/a%00b", "/a#b", "/a\x00"])
def test_nul_and_fragments_are_refused_in_every_mode(mode: str, target: str) -> None:
    with pytest.raises(PathError):
        normalize_path(target, mode)


# How servers read a path that they get: each mode protects from those up to its own.
def read_unreserved(path: str) -> str:
    return re.sub("%([0-9A-Fa-f]{2})", lambda m: c if (c := chr(int(m[1], 16))) in UNRESERVED else m[0], path)


def read_dots(path: str) -> str:
    out: list[str] = []
    for segment in path.replace("\\", "/").split("/")[1:]:
        if segment == "..":
            del out[-1:]
        elif segment != ".":
            out.append(segment)
    return "/" + "/".join(out) + ("/" if path.endswith(("/.", "/..")) and out else "")


def read_merged(path: str) -> str:
    return re.sub("//+", "/", path)


def read_slashes(path: str) -> str:
    return re.sub("%2[Ff]|%5[Cc]", "/", path)


UNRESERVED = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
READINGS: dict[str, list[Callable[[str], str]]] = {
    "NONE": [],
    "BASE": [read_unreserved, read_dots],
    "MERGE_SLASHES": [read_unreserved, read_dots, read_merged],
    "DECODE_AND_MERGE_SLASHES": [read_unreserved, read_dots, read_merged, read_slashes],
}


@given(st.text("/.\\%2eEfF5c?a;0C", max_size=40), st.sampled_from(MODES))
@example("/a//..", "BASE")
def test_a_server_that_reads_as_the_mode_does_sees_what_policy_saw(rest: str, mode: str) -> None:
    try:
        once = normalize_path("/" + rest, mode)
    except PathError:
        return
    assert once.startswith("/")
    assert normalize_path(once, mode) == once
    path = once.partition("?")[0]
    for reading in READINGS[mode]:
        assert reading(path) == path
