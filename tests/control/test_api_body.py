"""Bodies of requests: to values, or refused with what is wrong."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.admission import DEPTH_MAX
from fairlead.control.api_body import PATCH_TYPES, duplicate_fields, read_body, read_json, read_patch
from fairlead.control.kinds import load_yaml
from fairlead.control.status import StatusError

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(JSON)
def test_json_is_read_as_it_stands_and_names_nothing_twice(value: Any) -> None:
    assert read_body(json.dumps(value).encode(), "Application/JSON; charset=utf-8", load_yaml, True) == (value, [])


@given(st.binary(max_size=40))
def test_any_octets_are_a_value_or_a_refusal(data: bytes) -> None:
    for media in ("", "application/yaml", "application/vnd.kubernetes.protobuf"):
        try:
            read_body(data, media, load_yaml, True)
        except StatusError as error:
            assert error.code in (400, 415)  # noqa: PT017


def test_fields_that_stand_twice_are_named_at_any_depth() -> None:
    assert read_json(b'{"a": {"b": 1, "c": 2, "b": 3}, "a": 1}', True) == ({"a": 1}, ["b", "a"])
    assert read_json(b'{"a": 1, "a": 2}', False) == ({"a": 2}, [])
    assert duplicate_fields(b"no json") == []


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"{", "not JSON"),
        (b'"\xff"', "UTF-8|not JSON"),
        (b"[" * 100_000 + b"]" * 100_000, "nests too deep|not JSON"),
        (b"[" * (DEPTH_MAX + 1) + b"]" * (DEPTH_MAX + 1), "nests too deep"),
    ],
)
def test_what_is_no_json_or_too_deep_is_refused(data: bytes, says: str) -> None:
    with pytest.raises(StatusError, match=says):
        read_body(data, "application/json", load_yaml, True)


def test_yaml_keeps_to_the_same_depth() -> None:
    with pytest.raises(StatusError, match=r"nests too deep|not YAML"):
        read_body(b"a: " + b"[" * 200 + b"]" * 200, "application/yaml", load_yaml, False)


@pytest.mark.parametrize(("media", "kind"), PATCH_TYPES.items())
def test_each_kind_of_patch_has_its_media_type(media: str, kind: str) -> None:
    assert read_patch(b'{"a": 1}', media, load_yaml) == (kind, {"a": 1}, [])


def test_an_apply_patch_is_json_or_yaml_with_duplicates_told() -> None:
    apply = "application/apply-patch+yaml"
    assert read_patch(b' {"a": 1, "a": 2}', apply, load_yaml) == ("apply", {"a": 2}, ["a"])
    assert read_patch(b"a: 1\n", apply, load_yaml) == ("apply", {"a": 1}, [])


def test_another_media_type_is_refused_with_those_that_are_known() -> None:
    with pytest.raises(StatusError, match=r"\(none\).*json-patch\+json") as refused:
        read_patch(b"{}", "", load_yaml)
    assert refused.value.code == 415
    with pytest.raises(StatusError, match=r"text/plain.*application/json, application/yaml"):
        read_body(b"{}", "text/plain", load_yaml, True)
