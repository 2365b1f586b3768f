"""Whether documents may be used: schema, meaning of each kind, and references between them; one report a document."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..registry.documents import Document, Problem
from ..registry.facts import facts_of
from ..registry.merge import merge
from ..registry.model import Facts
from ..registry.snapshot import Snapshot
from .parse import Parsed, parse
from .resources import MeshConfig, Resources


class Told(Struct, frozen=True):
    """One thing that is wrong, or that its author should know."""

    path: str
    """`spec.http[0].route[0].weight`; empty: the whole document."""
    message: str
    at: str = ""
    """`file.yaml:14`, the line of the field."""

    def to_json(self) -> dict[str, Any]:
        line = self.at.rpartition(":")[2]
        return {"path": self.path, "message": self.message, "line": int(line) if line.isdecimal() else None}


class Report(Struct, frozen=True):
    """What is to be said of one document."""

    source: str
    """`file.yaml:12`."""
    kind: str = ""
    namespace: str = ""
    name: str = ""
    errors: tuple[Told, ...] = ()
    warnings: tuple[Told, ...] = ()

    @property
    def valid(self) -> bool:
        return not self.errors

    def to_json(self) -> dict[str, Any]:
        """The object of the contract (`fairlead validate -o json`)."""
        return {
            "source": self.source,
            "kind": self.kind,
            "namespace": self.namespace,
            "name": self.name,
            "valid": self.valid,
            "errors": [told.to_json() for told in self.errors],
            "warnings": [told.to_json() for told in self.warnings],
        }

    def sentences(self) -> list[str]:
        """Errors, then warnings, as lines for people."""
        return [
            f"{told.at or self.source}: {word}{told.path + ': ' if told.path else ''}{told.message}"
            for word, many in (("", self.errors), ("warning: ", self.warnings))
            for told in many
        ]


class Judged:
    """Documents together: what each is, and what may be used."""

    def __init__(
        self,
        documents: Sequence[Document],
        snapshot: Snapshot | None = None,
        read: Callable[[Document], Parsed] = parse,
        references: bool = True,
    ) -> None:
        """Without `references`, what documents refer to is not looked up: that makes no document unusable."""
        self.parsed = [read(document) for document in documents]
        _refuse_duplicates(self.parsed)
        self.resources = resources_of(self.parsed)
        facts = facts_of(
            [self._fact(one) for one in self.parsed if one.usable], "manifests", self.resources.mesh.spec.cluster_domain
        )
        self.only_rules = facts == Facts()
        """No document states a fact."""
        self.snapshot = _together(facts, snapshot)
        if references:
            from .validate_references import check_references  # not for sidecars that control feeds

            check_references(self.parsed, self.resources, self.snapshot)

    @staticmethod
    def _fact(parsed: Parsed) -> Document:
        """The document with its normalised object, in which snake_case is read, too."""
        document = parsed.document
        body = {"apiVersion": document.api_version, "kind": document.kind, **parsed.body}
        return Document(body, document.file, document.line, document.lines, parsed.namespace)

    def reports(self, *, strict: bool) -> list[Report]:
        """One for each document, in order. `strict`: references to what is missing are errors, not warnings."""
        return [report_of(one, strict=strict) for one in self.parsed]


def validate(documents: Sequence[Document], problems: Sequence[Problem] = ()) -> list[Report]:
    """A report for each document in order, those that could not be read among them. Never raises."""
    from .validate_relations import check_relations  # 0.9 MB, which no sidecar needs

    judged = Judged(documents)
    check_relations(judged.parsed, judged.resources, judged.snapshot)
    reports = judged.reports(strict=True)
    unread = list(problems)
    merged: list[Report] = []
    for document, report in zip(documents, reports, strict=True):
        while unread and _comes_before(unread[0], document):
            merged.append(unreadable(unread.pop(0)))
        merged.append(report)
    return merged + [unreadable(problem) for problem in unread]


def unreadable(problem: Problem) -> Report:
    """The report of a text that is no object."""
    return Report(problem.source, errors=(Told(problem.path, problem.message, problem.source),))


def _comes_before(problem: Problem, document: Document) -> bool:
    file, _, line = problem.source.rpartition(":")
    return file == document.file and line.isdigit() and int(line) < document.line


def report_of(parsed: Parsed, *, strict: bool) -> Report:
    document = parsed.document
    errors, warnings = parsed.errors, parsed.warnings
    if strict:
        errors = errors + parsed.references
    else:
        warnings = parsed.references + warnings
    return Report(
        document.source,
        document.kind,
        parsed.namespace if parsed.kind is not None else document.namespace,
        document.name,
        tuple(Told(path, message, document.at(path)) for path, message in errors),
        tuple(Told(path, message, document.at(path)) for path, message in warnings),
    )


def _refuse_duplicates(parsed: Sequence[Parsed]) -> None:
    seen: dict[tuple[str, str, str, str], Document] = {}
    for one in parsed:
        if one.kind is None or not one.document.name:
            continue
        key = (one.kind.group, one.kind.kind, one.namespace, one.document.name)
        first = seen.setdefault(key, one.document)
        if first is not one.document:
            message = f'Duplicate value: "{one.document.name}": {one.kind.kind} stands at {first.source} already'
            one.errors.append(("metadata.name", message))


def resources_of(parsed: Sequence[Parsed]) -> Resources:
    """The rules that may be used, each list in order of age."""
    lists: dict[str, list[Any]] = {}
    for one in parsed:
        if one.usable and one.resource is not None:
            lists.setdefault(type(one.resource).__name__, []).append(one.resource)
    ordered: Mapping[str, tuple[Any, ...]] = {
        name: tuple(sorted(found, key=lambda r: (r.meta.created, r.meta.name, r.meta.namespace)))
        for name, found in lists.items()
    }
    configs = ordered.get("MeshConfig", ())
    mesh = next((config for config in configs if config.meta.name == "default"), configs[0] if configs else None)
    return Resources(
        virtual_services=ordered.get("VirtualService", ()),
        destination_rules=ordered.get("DestinationRule", ()),
        network_policies=ordered.get("NetworkPolicy", ()),
        peer_authentications=ordered.get("PeerAuthentication", ()),
        authorization_policies=ordered.get("AuthorizationPolicy", ()),
        request_authentications=ordered.get("RequestAuthentication", ()),
        gateways=ordered.get("Gateway", ()),
        secrets=ordered.get("Secret", ()),
        sidecars=ordered.get("Sidecar", ()),
        ingresses=ordered.get("Ingress", ()),
        ingress_classes=ordered.get("IngressClass", ()),
        local_rate_limits=ordered.get("LocalRateLimit", ()),
        mesh=mesh or MeshConfig(),
    )


def _together(facts: Facts, snapshot: Snapshot | None) -> Snapshot:
    """The facts of the documents before those of a snapshot that we were given."""
    if snapshot is not None and facts == Facts():
        return snapshot
    contributions = [("manifests", facts)]
    if snapshot is not None:
        given = Facts(
            services=snapshot.services,
            endpoints=snapshot.endpoints,
            workloads=snapshot.workloads,
            namespaces=snapshot.namespaces,
        )
        contributions.append(("snapshot", given))
    return merge(contributions, snapshot.sources if snapshot is not None else {}, snapshot or Snapshot())
