"""Every field says what it is."""

from __future__ import annotations

from fairlead.policy.kinds import BY_NAME, KINDS
from fairlead.registry.field_docs import DOCS, described
from fairlead.registry.schema import Node


def undescribed(node: Node, path: str) -> list[str]:
    found = []
    for name, field in node.fields.items():
        if not field.doc:
            found.append(f"{path}.{name}")
        found += undescribed(field, f"{path}.{name}")
    return found + (undescribed(node.item, path) if node.item is not None else [])


def test_every_field_of_every_kind_is_described() -> None:
    assert [path for kind in KINDS for path in undescribed(described(kind.schema), kind.kind)] == []


def test_the_place_decides_where_a_name_has_two_meanings() -> None:
    spec = described(BY_NAME["networking.istio.io/v1", "VirtualService"].schema).fields["spec"]
    http = spec.fields["http"].item
    assert http is not None
    match = http.fields["match"].item
    assert match is not None
    assert match.fields["uri"].doc == DOCS["match.uri"]
    assert http.fields["rewrite"].fields["uri"].doc == DOCS["uri"]
    assert spec.fields["tcp"].doc == DOCS["spec.tcp"]


def test_what_stands_in_a_schema_is_kept() -> None:
    service = described(BY_NAME["v1", "Service"].schema).fields["spec"]
    assert service.fields["clusterIP"].doc == "Virtual address; None: headless."


def test_no_description_is_for_nothing() -> None:
    names: set[str] = set()

    def walk(node: Node, parent: str) -> None:
        for name, field in node.fields.items():
            names.update((name, f"{parent}.{name}"))
            walk(field, name)
        if node.item is not None:
            walk(node.item, parent)

    for kind in KINDS:
        walk(kind.schema, "")
    assert set(DOCS) - names == set()
