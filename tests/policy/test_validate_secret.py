"""What may stand in a Secret and a ConfigMap, as Kubernetes sees it; no message repeats a value."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.validate_secret import BYTES_MAX, check_fixed
from fairlead.registry.schema import Findings
from tests.policy.judging import errors

ONE = base64.b64encode(b"s3cret").decode()


def secret(kind: str = "Secret", annotations: Any = None, **fields: Any) -> str:
    metadata = {"name": "it", "annotations": annotations or {}}
    return json.dumps({"apiVersion": "v1", "kind": kind, "metadata": metadata, **fields})


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"data": {"a": ONE, "b.c_d-e": "", "..x"[1:]: ONE}},
        {"data": {"a": ONE[:4] + "\n" + ONE[4:] + "\n"}},
        {"stringData": {"a": "not base64: é"}},
        {"type": "kubernetes.io/tls", "data": {"tls.crt": ONE}, "stringData": {"tls.key": "k"}},
        {"type": "kubernetes.io/basic-auth", "data": {"password": ONE}},
        {"type": "kubernetes.io/dockerconfigjson", "stringData": {".dockerconfigjson": "{}"}},
        {"type": "example.com/own", "data": {"a": ONE}},
        {
            "type": "kubernetes.io/service-account-token",
            "annotations": {"kubernetes.io/service-account.name": "default"},
        },
    ],
)
def test_what_people_write_is_taken(fields: dict[str, Any]) -> None:
    assert errors(secret(**fields)) == {}


@pytest.mark.parametrize(
    ("fields", "path", "says"),
    [
        ({"data": {"a": "hidden!"}}, "data[a]", "must be base64; stringData takes it as it is"),
        ({"data": {"a": ONE[:-1]}}, "data[a]", "must be base64"),
        ({"data": {"a": "aé=="}}, "data[a]", "must be base64"),
        ({"data": {"a": "a-_="}}, "data[a]", "must be base64"),
        ({"data": {"a b": ONE}}, "data", "a key has at most 253"),
        ({"stringData": {"..a": "x"}}, "stringData", "a key has at most 253"),
        ({"data": {"k" * 254: ONE}}, "data", "a key has at most 253"),
        ({"stringData": {"a": "x" * BYTES_MAX, "b": "x"}}, "data", "may not be more than 1048576 bytes"),
        ({"type": "kubernetes.io/tls", "data": {"tls.crt": ONE}}, "data[tls.key]", "Required value"),
        ({"type": "kubernetes.io/ssh-auth"}, "data[ssh-privatekey]", "Required value"),
        ({"type": "kubernetes.io/basic-auth"}, "data", "username or password"),
        ({"type": "kubernetes.io/dockercfg", "data": {".dockercfg": ONE}}, "data[.dockercfg]", "must be JSON"),
        ({"type": "kubernetes.io/service-account-token"},
         "metadata.annotations[kubernetes.io/service-account.name]", "names its account"),
    ],
)  # fmt: skip
def test_each_mistake_of_a_secret_is_named(fields: dict[str, Any], path: str, says: str) -> None:
    found = errors(secret(**fields))
    assert list(found) == [path]
    assert says in found[path]
    assert "hidden" not in found[path]


def test_a_config_map_keeps_text_and_octets_apart() -> None:
    assert errors(secret("ConfigMap", data={"a": "any text"}, binaryData={"b": ONE})) == {}
    found = errors(secret("ConfigMap", data={"a": "x", "b": "y"}, binaryData={"a": ONE, "c": "?"}))
    assert found == {
        "data[a]": "Invalid value: this key stands in binaryData, too",
        "binaryData[c]": "Invalid value: it must be base64; data takes text as it is",
    }


@given(st.binary(max_size=60), st.text(max_size=60))
def test_a_value_is_taken_if_it_is_base64_and_only_then(octets: bytes, text: str) -> None:
    assert errors(secret(data={"a": base64.b64encode(octets).decode()})) == {}
    try:
        base64.b64decode(text.encode("ascii"), validate=True)
    except ValueError:
        assert list(errors(secret(data={"a": text.replace("\n", "?").replace("\r", "?")}))) == ["data[a]"]


@pytest.mark.parametrize(
    ("kind", "before", "after", "refused"),
    [
        ("Secret", {"data": {"a": "x"}}, {"data": {"a": "y"}, "immutable": True}, []),
        ("Secret", {"type": "Opaque"}, {"type": "kubernetes.io/tls"}, ["type"]),
        ("Secret", {}, {"type": "Opaque"}, []),
        ("Secret", {"immutable": True}, {"immutable": False}, ["immutable"]),
        ("Secret", {"immutable": True, "data": {"a": "x"}}, {"immutable": True, "data": {"a": "y"}}, ["data"]),
        ("Secret", {"immutable": True}, {"immutable": True, "data": {}}, []),
        ("ConfigMap", {"immutable": True, "data": {"a": "x"}}, {"data": {}}, ["immutable", "data"]),
        ("ConfigMap", {"immutable": True}, {"immutable": True, "binaryData": {"a": "eA=="}}, ["binaryData"]),
        ("ConfigMap", {"type": "a"}, {"type": "b"}, []),
        ("Service", {"immutable": True, "data": 1}, {"data": 2}, []),
    ],
)
def test_what_is_immutable_stays(kind: str, before: dict[str, Any], after: dict[str, Any], refused: list[str]) -> None:
    found = Findings()
    check_fixed(found, kind, before, after)
    assert [path for path, _ in found.errors] == refused
