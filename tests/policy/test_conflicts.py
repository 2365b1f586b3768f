"""Of two rules for one place the younger says that the older has it."""

from __future__ import annotations

from typing import Any

import pytest

from fairlead.policy.conflicts import Conflict, check_conflicts
from fairlead.policy.parse import parse
from fairlead.policy.validate import resources_of
from fairlead.registry.documents import Document


def found(kind: str, specs: list[dict[str, Any]], namespace: str = "shop") -> list[list[str]]:
    """What is said of rules of these specs, oldest first."""
    group = "networking" if kind == "Sidecar" else "security"
    documents = [
        Document.of(
            {
                "apiVersion": f"{group}.istio.io/v1",
                "kind": kind,
                "metadata": {
                    "name": f"r{n}",
                    "namespace": namespace,
                    "creationTimestamp": f"2025-01-0{n + 1}T00:00:00Z",
                },
                "spec": spec,
            },
            f"r{n}",
        )
        for n, spec in enumerate(specs)
    ]
    parsed = [parse(document) for document in documents]
    assert all(one.usable for one in parsed), [one.errors for one in parsed]
    check_conflicts(parsed, resources_of(parsed))
    return [[message for _, message in one.warnings if isinstance(message, Conflict)] for one in parsed]


@pytest.mark.parametrize(
    ("kind", "field", "spec"),
    [("PeerAuthentication", "matchLabels", {"mtls": {"mode": "STRICT"}}), ("Sidecar", "labels", {})],
)
def test_the_same_selector_is_the_same_place(kind: str, field: str, spec: dict[str, Any]) -> None:
    selector = "selector" if kind == "PeerAuthentication" else "workloadSelector"
    web = {**spec, selector: {field: {"app": "web"}}}
    assert found(kind, [web, {**spec, selector: {field: {"app": "db"}}}, spec]) == [[], [], []]
    first, second, third = found(kind, [web, web, web])
    assert first == []
    assert len(second) == len(third) == 1
    assert f"{kind} shop/r0 with the same selector is older" in third[0]
    whole = found(kind, [spec, spec])
    assert f"{kind} shop/r0 of the namespace as a whole is older" in whole[1][0]
