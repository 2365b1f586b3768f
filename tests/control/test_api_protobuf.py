"""Protobuf bodies as kubectl sends them (test_kubectl.py has the real ones), and every other sequence of bytes."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.api_protobuf import MAGIC, decode


def varint(value: int) -> bytes:
    out = b""
    while value >= 0x80:
        out += bytes((value & 0x7F | 0x80,))
        value >>= 7
    return out + bytes((value,))


def data(number: int, content: bytes | str) -> bytes:
    content = content.encode() if isinstance(content, str) else content
    return varint(number << 3 | 2) + varint(len(content)) + content


def number(field: int, value: int) -> bytes:
    return varint(field << 3) + varint(value % 2**64)


def unknown(api_version: str, kind: str, raw: bytes) -> bytes:
    return MAGIC + data(1, data(1, api_version) + data(2, kind)) + data(2, raw) + data(3, "") + data(4, "")


PORT = data(1, "http") + data(2, "TCP") + number(3, 80) + data(4, number(1, 0) + number(2, 8080) + data(3, ""))
SERVICE = unknown(
    "v1",
    "Service",
    data(1, data(1, "web") + data(3, "") + data(8, b"") + data(11, data(1, "app") + data(2, "web")))
    + data(2, data(1, PORT) + data(2, data(1, "app") + data(2, "web")) + data(4, "ClusterIP") + number(9, 0)[:0])
    + data(3, data(1, b"")),
)


def test_a_service_is_read_as_its_json_would_be() -> None:
    assert decode(SERVICE) == {
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": {"name": "web", "labels": {"app": "web"}},
        "spec": {
            "ports": [{"name": "http", "protocol": "TCP", "port": 80, "targetPort": 8080}],
            "selector": {"app": "web"},
            "type": "ClusterIP",
        },
        "status": {"loadBalancer": {}},
    }


def test_numbers_may_be_negative_and_secrets_are_base64() -> None:
    body = unknown("v1", "Secret", data(1, data(1, "s") + number(7, -1)) + data(2, data(1, "k") + data(2, b"\xff")))
    assert decode(body)["metadata"]["generation"] == -1
    assert decode(body)["data"] == {"k": "/w=="}


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (b"{}", "not a Kubernetes protobuf"),
        (unknown("apps/v1", "DaemonSet", b""), "apps/v1/DaemonSet is not accepted"),
        (unknown("v1", "Service", data(99, b"")), "field 99 of v1/Service"),
        (unknown("v1", "Service", data(2, number(1, 5))), "expected a message"),
        (unknown("v1", "Service", b"\x09" + bytes(8)), "wire type 1"),
        (unknown("v1", "Service", b"\xff" * 12), "cut off, or too long"),
    ],
)
def test_what_cannot_be_read_is_refused_by_name(body: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        decode(body)


def test_a_message_cut_at_any_byte_is_read_or_refused() -> None:
    for length in range(len(SERVICE)):
        with contextlib.suppress(ValueError):
            decode(SERVICE[:length])


@given(st.binary(max_size=80), st.sampled_from(["Service", "Secret", "Namespace", "DeleteOptions"]))
def test_any_bytes_are_read_or_refused(raw: bytes, kind: str) -> None:
    for body in (MAGIC + raw, unknown("v1", kind, raw), unknown("v1", kind, data(1, raw) + data(2, raw))):
        with contextlib.suppress(ValueError):
            decode(body)
