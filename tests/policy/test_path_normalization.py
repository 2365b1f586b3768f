"""One path for policy and application: what each mode does and leaves."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.path_normalization import MODES, PathError, normalize_path


@pytest.mark.parametrize(
    ("mode", "target", "normal"),
    [
        ("NONE", "/a/../b//c%2e", "/a/../b//c%2e"),
        ("BASE", "/a/./b/../c", "/a/c"),
        ("BASE", "/../../x", "/x"),
        ("BASE", "/a/..", "/"),
        ("BASE", "/a/b/.", "/a/b/"),
        ("BASE", "/a\\b", "/a/b"),
        ("BASE", "/a/%2e%2E/b", "/b"),
        ("BASE", "/%61%7e%20%2F", "/a~%20%2F"),
        ("BASE", "/a//b", "/a//b"),
        ("BASE", "/a//../b", "/a/b"),
        ("BASE", "/x?a=/../b%61", "/x?a=/../b%61"),
        ("BASE", "*", "*"),
        ("BASE", "/...", "/..."),
        ("BASE", "/..;/x", "/..;/x"),
        ("MERGE_SLASHES", "/a//../b", "/a/b"),
        ("MERGE_SLASHES", "//a///b", "/a/b"),
        ("MERGE_SLASHES", "/a%2Fb", "/a%2Fb"),
        ("DECODE_AND_MERGE_SLASHES", "/a%2F%2f..%5cb", "/a/b"),
        ("DECODE_AND_MERGE_SLASHES", "/a%252Fb", "/a%252Fb"),
    ],
)
def test_modes(mode: str, target: str, normal: str) -> None:
    assert normalize_path(target, mode) == normal


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("target", ["/a%00b", "/a#b", "/a\x00"])
def test_nul_and_fragments_are_refused_in_every_mode(mode: str, target: str) -> None:
    with pytest.raises(PathError):
        normalize_path(target, mode)


@given(st.text("/.\\%2eEfF5c?a;", max_size=40), st.sampled_from(MODES))
def test_what_is_normal_stays_so_unless_decoding_made_a_new_escape(rest: str, mode: str) -> None:
    once = normalize_path("/" + rest, mode)
    assert once.startswith("/")
    if "%" not in once:
        assert normalize_path(once, mode) == once
    if mode != "NONE":
        assert "/../" not in once.partition("?")[0] + "/"
