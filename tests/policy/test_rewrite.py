"""Rewritten targets, and where redirects lead; the cases of whole requests stand in test_decide."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.match import HttpMatch
from fairlead.policy.resources import HTTPMatchRequest, HTTPRedirect, HTTPRewrite, StringMatch
from fairlead.policy.rewrite import redirect_location, replace_all, rewrite_target, split_target, substitution


def matching(**uri: str) -> HttpMatch:
    return HttpMatch(HTTPMatchRequest(uri=StringMatch(**uri) if uri else None))


@given(st.text("/a?#=", max_size=12))
def test_a_target_is_cut_before_the_first_sign_of_a_query_and_nothing_is_lost(target: str) -> None:
    path, rest = split_target(target)
    assert path + rest == target
    assert not set(path) & set("?#")
    assert rest == "" or rest[0] in "?#"


@pytest.mark.parametrize(
    ("uri", "new", "target", "becomes"),
    [
        ({"prefix": "/old"}, "/new", "/old/x?q=/old", "/new/x?q=/old"),
        ({"prefix": "/old/"}, "/", "/old/x#f", "/x#f"),
        ({"exact": "/old"}, "/new", "/old?q", "/new?q"),
        ({"regex": "/o.*"}, "/new", "/other", "/new"),
        ({}, "/new", "/old", "/newold"),
        ({}, "", "/old?q", "/old?q"),
    ],
)
def test_what_the_condition_matched_is_replaced(uri: dict[str, str], new: str, target: str, becomes: str) -> None:
    assert rewrite_target(target, matching(**uri), HTTPRewrite(uri=new), None) == becomes


@pytest.mark.parametrize(
    ("pattern", "template", "text", "becomes"),
    [
        ("b*", "x", "abc", "xaxcx"),  # RE2's GlobalReplace; Python's sub gives xaxxcx
        ("a|", "x", "aa", "xx"),
        ("/v(\\d)", r"/\1/\0", "/v1/v2", "/1//v1/2//v2"),
        ("a", r"\\1", "a", r"\1"),
        ("a", "\\", "a", "\\"),
        ("a", r"\n", "a", r"\n"),
        ("a", r"\g<0>", "a", r"\g<0>"),
    ],
)
def test_a_regex_replaces_as_re2_does(pattern: str, template: str, text: str, becomes: str) -> None:
    assert replace_all(re.compile(pattern), substitution(template), text) == becomes


@given(st.text("\\019gn<>a٣", max_size=8))
def test_no_replacement_text_is_an_error_of_pythons(template: str) -> None:
    assert isinstance(
        replace_all(re.compile("(a)(b)?(c)?(d)?(e)?(f)?(g)?(h)?(i)?"), substitution(template), "xaby"), str
    )


@pytest.mark.parametrize(
    ("redirect", "authority", "location"),
    [
        ({}, "web", "http://web/a?q"),
        ({"uri": "/b"}, "web:8080", "http://web:8080/b?q"),
        ({"uri": "/b?own"}, "web", "http://web/b?own"),
        ({"authority": "other"}, "web:8080", "http://other/a?q"),
        ({"scheme": "https"}, "web:80", "https://web/a?q"),
        ({"scheme": "https"}, "web:8080", "https://web:8080/a?q"),
        ({"scheme": "http"}, "web:80", "http://web:80/a?q"),
        ({"scheme": "https", "port": 443}, "web:8080", "https://web/a?q"),
        ({"port": 8443}, "web", "http://web:8443/a?q"),
        ({"derive_port": "FROM_REQUEST_PORT"}, "web:1", "http://web:9000/a?q"),
        ({"derive_port": "FROM_PROTOCOL_DEFAULT"}, "web:1", "http://web/a?q"),
        ({"prefix_rewrite": "/new/"}, "[::1]:8080", "http://[::1]:8080/new/a?q"),
        ({"port": 81}, "[::1]", "http://[::1]:81/a?q"),
    ],
)
def test_a_redirect_leads_where_it_says(redirect: dict[str, Any], authority: str, location: str) -> None:
    told = HTTPRedirect(**redirect)
    assert redirect_location(told, matching(), "/a?q", authority, "http", 9000) == location
