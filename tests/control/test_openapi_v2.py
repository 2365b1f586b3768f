"""The OpenAPI v2 document: the same schemas in the forms that older kubectl reads."""

from __future__ import annotations

from typing import Any

from fairlead.control.catalog import Catalog
from fairlead.control.openapi import OpenApi
from fairlead.control.openapi_v2 import OpenApiV2, lowered
from fairlead.policy.kinds import KINDS
from fairlead.registry.schema import openapi


def read(data: bytes) -> dict[int, list[Any]]:
    """Fields of a protobuf message, by number."""
    found: dict[int, list[Any]] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        tag = varint()
        if tag & 7 == 0:
            found.setdefault(tag >> 3, []).append(varint())
        else:
            assert tag & 7 == 2
            length = varint()
            found.setdefault(tag >> 3, []).append(data[at : at + length])
            at += length
    return found


def made() -> OpenApiV2:
    return OpenApiV2(OpenApi(Catalog(KINDS), openapi, "1.2.3"))


def test_every_reference_leads_somewhere() -> None:
    document = made().document()

    def references(node: Any) -> list[str]:
        if isinstance(node, dict):
            own = [node["$ref"]] if isinstance(node.get("$ref"), str) else []
            return own + [one for value in node.values() for one in references(value)]
        return [one for value in node for one in references(value)] if isinstance(node, list) else []

    found = references(document["definitions"])
    assert found and all(one.removeprefix("#/definitions/") in document["definitions"] for one in found)
    assert document["swagger"] == "2.0" and document["info"]["version"] == "1.2.3"


def test_both_forms_say_the_same() -> None:
    both = made()
    document, fields = both.document(), read(both.protobuf())
    assert fields[1] == [b"2.0"]
    named = [read(one) for one in read(fields[9][0])[1]]
    assert [one[1][0].decode() for one in named] == list(document["definitions"])
    (rule,) = (read(one[2][0]) for one in named if one[1][0] == b"io.istio.networking.v1.VirtualService")
    properties = [read(one)[1][0].decode() for one in read(rule[25][0])[1]]
    own = document["definitions"]["io.istio.networking.v1.VirtualService"]
    assert properties == list(own["properties"])
    extensions = {read(one)[1][0] for one in rule[31]}
    assert b"x-kubernetes-group-version-kind" in extensions
    assert len(read(fields[8][0])[2]) == len(document["paths"]) > 0


def test_what_v2_does_not_know_is_left_out() -> None:
    assert lowered({"allOf": [{"$ref": "#/components/schemas/A"}], "default": {}, "nullable": True}) == {
        "$ref": "#/definitions/A"
    }
    either = {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}
    assert lowered(either) == {"x-kubernetes-int-or-string": True, "type": "string", "format": "int-or-string"}
