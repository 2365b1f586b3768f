"""The OpenAPI v2 document, made of those of v3: JSON for people, protobuf for kubectl.

kubectl before 1.27 checks and explains by it, and later ones where `--output=plaintext-openapiv2` is asked for. In
protobuf it is an openapi.v2.Document, https://github.com/google/gnostic-models/blob/main/openapiv2/OpenAPIv2.proto ;
the numbers below are of its fields. Of the operations, only PATCH with its parameters is in it: that is where kubectl
looks for what a server can do.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec

from .openapi import OpenApi
from .protobuf_wire import framed, varint

V2_PROTOBUF = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
V2_PROTOBUF_ANSWER = "application/com.github.proto-openapi.spec.v2.v1.0+protobuf"
"""@ has no place in a media type, so the answer's is written otherwise."""
V3_REFERENCE, V2_REFERENCE = "#/components/schemas/", "#/definitions/"


class OpenApiV2:
    """Made at the first request; `documents` are those of v3."""

    def __init__(self, documents: OpenApi) -> None:
        self._documents = documents
        self._document: dict[str, Any] = {}
        self._protobuf = b""

    def document(self) -> dict[str, Any]:
        """GET /openapi/v2 as JSON."""
        if not self._document:
            definitions: dict[str, Any] = {}
            paths: dict[str, Any] = {}
            for path in self._documents.paths():
                found = msgspec.json.decode(self._documents.document(path)[0])
                for name, schema in found["components"]["schemas"].items():
                    definitions[name] = lowered(schema)
                for place, operations in found["paths"].items():
                    if "patch" in operations:
                        paths[place] = {"patch": _operation(operations["patch"])}
            info = {"title": "Fairlead", "version": self._documents.version}
            self._document = {"swagger": "2.0", "info": info, "paths": paths, "definitions": definitions}
        return self._document

    def protobuf(self) -> bytes:
        """The same as an openapi.v2.Document."""
        if not self._protobuf:
            made = self.document()
            info = _text(1, made["info"]["title"]) + _text(2, made["info"]["version"])
            paths = b"".join(
                framed(2, _text(1, place) + framed(2, framed(8, _operation_bytes(one["patch"]))))
                for place, one in made["paths"].items()
            )
            self._protobuf = (
                _text(1, "2.0") + framed(2, info) + framed(8, paths) + framed(9, _named(made["definitions"]))
            )  # fmt: skip
        return self._protobuf


def lowered(schema: Any) -> Any:
    """A schema of v3 as v2 has it: other references, and nothing that v2 does not know."""
    if not isinstance(schema, Mapping):
        return schema
    made: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "$ref":
            made[key] = str(value).replace(V3_REFERENCE, V2_REFERENCE)
        elif key == "allOf" and isinstance(value, list) and len(value) == 1:
            made |= lowered(value[0])
        elif key in ("items", "additionalProperties"):
            made[key] = lowered(value)
        elif key == "properties":
            made[key] = {name: lowered(own) for name, own in value.items()}
        elif key in ("type", "format", "description", "required", "enum") or key.startswith("x-"):
            made[key] = value
    if made.get("x-kubernetes-int-or-string"):
        made |= {"type": "string", "format": "int-or-string"}
    return made


def _operation(operation: Mapping[str, Any]) -> dict[str, Any]:
    parameters = [
        {"name": one["name"], "in": "query", "type": one["schema"]["type"], "uniqueItems": True}
        for one in operation["parameters"]
    ]
    extensions = {key: value for key, value in operation.items() if key.startswith("x-")}
    responses = {"200": {"description": "OK"}}
    return {"operationId": operation["operationId"], "parameters": parameters, "responses": responses, **extensions}


# --- protobuf ---------------------------------------------------------------------------------------------------------


def _text(field: int, text: str) -> bytes:
    return framed(field, text.encode())


def _true(field: int) -> bytes:
    return varint(field << 3) + b"\x01"


def _any(value: Any) -> bytes:
    """A message Any: the value as YAML, of which JSON is a part."""
    return _text(2, json.dumps(value))


def _extensions(field: int, of: Mapping[str, Any]) -> bytes:
    return b"".join(
        framed(field, _text(1, key) + framed(2, _any(value))) for key, value in of.items() if key.startswith("x-")
    )


def _named(schemas: Mapping[str, Any]) -> bytes:
    """Definitions and Properties: schemas by name."""
    return b"".join(framed(1, _text(1, name) + framed(2, _schema(own))) for name, own in schemas.items())


def _schema(schema: Mapping[str, Any]) -> bytes:
    made = b""
    for field, key in ((1, "$ref"), (2, "format"), (4, "description")):
        if schema.get(key):
            made += _text(field, schema[key])
    made += b"".join(_text(19, name) for name in schema.get("required") or ())
    made += b"".join(framed(20, _any(value)) for value in schema.get("enum") or ())
    more = schema.get("additionalProperties")
    if isinstance(more, Mapping):
        made += framed(21, framed(1, _schema(more)))
    elif more is True:
        made += framed(21, _true(2))
    if schema.get("type"):
        made += framed(22, _text(1, schema["type"]))
    if isinstance(schema.get("items"), Mapping):
        made += framed(23, framed(1, _schema(schema["items"])))
    if schema.get("properties"):
        made += framed(25, _named(schema["properties"]))
    return made + _extensions(31, schema)


def _operation_bytes(operation: Mapping[str, Any]) -> bytes:
    parameters = b""
    for one in operation["parameters"]:
        query = _text(2, "query") + _text(4, one["name"]) + _text(6, one["type"]) + _true(20)
        parameters += framed(8, framed(1, framed(2, framed(3, query))))
    response = framed(1, _text(1, "200") + framed(2, framed(1, _text(1, "OK"))))
    return _text(5, operation["operationId"]) + parameters + framed(9, response) + _extensions(13, operation)
