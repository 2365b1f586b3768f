"""A document to its kind, its normalised object and the typed resource that `compile` reads; everything wrong at once.

The object's schema and meaning are checked here; what it refers to is `validate`'s.
"""

from __future__ import annotations

from collections.abc import Mapping
from operator import is_
from typing import Any

import msgspec

from ..registry.documents import Document
from ..registry.facts import created
from ..registry.kinds import Kind
from ..registry.schema import Findings, check
from . import resources as r
from .kinds import BY_NAME, why_unknown
from .validate_kind import check_meaning, check_metadata

RESOURCES: dict[str, tuple[Any, Any]] = {
    "VirtualService": (r.VirtualService, r.VirtualServiceSpec),
    "DestinationRule": (r.DestinationRule, r.DestinationRuleSpec),
    "NetworkPolicy": (r.NetworkPolicy, r.NetworkPolicySpec),
    "PeerAuthentication": (r.PeerAuthentication, r.PeerAuthenticationSpec),
    "AuthorizationPolicy": (r.AuthorizationPolicy, r.AuthorizationPolicySpec),
    "RequestAuthentication": (r.RequestAuthentication, r.RequestAuthenticationSpec),
    "Gateway": (r.Gateway, r.GatewaySpec),
    "Sidecar": (r.Sidecar, r.SidecarSpec),
    "Ingress": (r.Ingress, r.IngressSpec),
    "IngressClass": (r.IngressClass, r.IngressClassSpec),
    "Secret": (r.Secret, r.SecretSpec),
    "LocalRateLimit": (r.LocalRateLimit, r.LocalRateLimitSpec),
    "MeshConfig": (r.MeshConfig, r.MeshConfigSpec),
}
"""Kinds with a typed resource, and their spec; the others become facts, or are only kept."""

Resource = (
    r.VirtualService
    | r.DestinationRule
    | r.NetworkPolicy
    | r.PeerAuthentication
    | r.AuthorizationPolicy
    | r.RequestAuthentication
    | r.Gateway
    | r.Sidecar
    | r.Ingress
    | r.IngressClass
    | r.Secret
    | r.LocalRateLimit
    | r.MeshConfig
)


WHAT = {"apiVersion", "kind"}
_NOTHING: list[tuple[str, str]] = []


class Parsed:
    """What a document is."""

    __slots__ = ("body", "document", "errors", "kind", "namespace", "references", "resource", "warnings")

    def __init__(self, document: Document) -> None:
        self.document = document
        self.kind: Kind | None = None
        self.namespace = document.namespace
        """Empty for kinds without one."""
        self.body: dict[str, Any] = {}
        """Normalised: durations in seconds, camelCase; the document's own where that changes nothing, apiVersion and
        kind then among it."""
        self.resource: Resource | None = None
        self.errors: list[tuple[str, str]] = []
        self.warnings: list[tuple[str, str]] = []
        self.references: list[tuple[str, str]] = []
        """Errors of references to other objects: the object is not valid, but does no harm (see `World.load`)."""

    def keep(self) -> None:
        """It is only asked `again` from now on: let go of what is empty."""
        self.errors = self.errors or _NOTHING
        self.warnings = self.warnings or _NOTHING
        self.references = _NOTHING

    def again(self) -> Parsed:
        """The same, for another look at its references."""
        made = Parsed(self.document)
        made.kind, made.namespace, made.body, made.resource = self.kind, self.namespace, self.body, self.resource
        made.errors, made.warnings = list(self.errors), list(self.warnings)
        return made

    @property
    def usable(self) -> bool:
        return not self.errors


def check_object(
    kind: Kind, body: Mapping[str, Any], namespace: str, *, with_metadata: bool = True
) -> tuple[dict[str, Any], Findings]:
    """(normalised object with its metadata, findings) of an object of a known kind. Never raises.

    The meaning is judged only where the schema found no error, as it relies on the types of fields.
    `with_metadata` False: names, labels and annotations are judged by the caller.
    """
    found = Findings()
    if kind.inert:
        found.warnings.append(("", f"{kind.kind} {kind.inert}"))
    rest = {key: value for key, value in body.items() if key not in ("apiVersion", "kind", "metadata")}
    made = check(kind.schema, rest, "", found)
    made = made if isinstance(made, dict) else {}
    metadata = body.get("metadata")
    metadata = metadata if isinstance(metadata, dict) else {}
    made["metadata"] = check_metadata(found, metadata, kind) if with_metadata else metadata
    if not found.errors:
        check_meaning(found, kind, made, namespace)
    return made, found


def parse(document: Document, checked: tuple[dict[str, Any], Findings] | None = None) -> Parsed:
    """Everything that the document says by itself, and what is wrong with it. Never raises.

    `checked`: what `check_object` has just said of the same object without its metadata, which is taken apart here.
    Then nothing is shared with the document, which is to go (`moved`).
    """
    parsed = Parsed(document)
    kind = BY_NAME.get((document.api_version, document.kind))
    if kind is None:
        parsed.errors.append(("kind" if document.api_version else "apiVersion",
                              why_unknown(document.api_version, document.kind)))  # fmt: skip
        return parsed
    parsed.kind = kind
    if not kind.namespaced:
        parsed.namespace = ""
    if not document.name:
        parsed.errors.append(("metadata.name", "Required value: name is required"))
    if checked is None:
        made, found = check_object(kind, document.body, parsed.namespace)
    else:
        made, found = checked[0], Findings()
        found.errors, found.unknown = list(checked[1].errors), list(checked[1].unknown)
        found.warnings = list(checked[1].warnings)
        made["metadata"] = check_metadata(found, document.body.get("metadata") or {}, kind)
    parsed.body = made
    if checked is None:
        given = document.body
        body = {key: shared(value, given.get(key)) for key, value in made.items()}
        same = body.keys() == given.keys() - WHAT and all(value is given[key] for key, value in body.items())
        parsed.body = given if same else body
    parsed.errors += found.unknown + found.errors
    parsed.warnings = found.warnings
    if not parsed.errors and kind.kind in RESOURCES:
        try:
            parsed.resource = resource_of(kind, parsed.body, document.name, parsed.namespace, document.source)
        except msgspec.ValidationError as error:  # the schema should have seen it; say so rather than fail
            parsed.errors.append((str(error).rpartition("`$")[2].strip(".`"), str(error)))
    return parsed


def moved(parsed: Parsed, document: Document) -> Parsed:
    """The same rule as another document states it, which differs in metadata and status alone."""
    made = parsed.again()
    made.document = document
    metadata = document.body["metadata"]
    made.body = {**parsed.body, "metadata": metadata}
    if parsed.resource is not None:
        meta = meta_of(metadata, document.name, parsed.namespace, document.source)
        made.resource = msgspec.structs.replace(parsed.resource, meta=meta)
    return made


def shared(made: Any, given: Any) -> Any:
    """`given` where normalising has changed nothing in it, else `made` with such parts of `given`: both are kept."""
    if type(made) is not type(given):
        return made
    if isinstance(made, dict):
        for key, value in made.items():
            if key in given:
                made[key] = shared(value, given[key])
        same = len(made) == len(given) and all(key in given and value is given[key] for key, value in made.items())
        return given if same else made
    if isinstance(made, list):
        made[:] = map(shared, made, given) if len(made) == len(given) else made
        return given if len(made) == len(given) and all(map(is_, made, given)) else made
    return given if made == given else made


def resource_of(kind: Kind, body: Mapping[str, Any], name: str, namespace: str, source: str) -> Resource:
    """The typed resource of a normalised object. Raises msgspec.ValidationError where it is not one."""
    resource, spec_type = RESOURCES[kind.kind]
    meta = meta_of(body["metadata"], name, namespace, source)
    spec = dict((body if kind.kind == "Secret" else body.get("spec")) or {})
    if kind.kind == "NetworkPolicy" and not spec.get("policyTypes"):
        spec["policyTypes"] = ["Ingress", *(["Egress"] if spec.get("egress") else [])]
    if kind.kind == "MeshConfig" and (spec.get("pathNormalization") or {}).get("normalization") == "DEFAULT":
        spec["pathNormalization"] = {"normalization": "BASE"}
    made: Resource = resource(meta=meta, spec=msgspec.convert(spec, spec_type))
    return made


def meta_of(metadata: Mapping[str, Any], name: str, namespace: str, source: str) -> r.Meta:
    return r.Meta(
        name=name,
        namespace=namespace,
        labels=metadata.get("labels") or {},
        annotations=metadata.get("annotations") or {},
        created=created(metadata),
        resource_version=str(metadata.get("resourceVersion") or ""),
        source=source,
    )
