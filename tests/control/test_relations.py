"""What all rules together make of each, for their status."""

from __future__ import annotations

from typing import Any

import yaml

from fairlead.control.conditions import Findings
from fairlead.control.relations import Relations
from fairlead.control.store import Key
from fairlead.policy.kinds import KINDS
from fairlead.registry.snapshot import Snapshot

RULES = """
kind: VirtualService
apiVersion: networking.istio.io/v1
metadata: {name: a, creationTimestamp: "2025-01-01T00:00:00Z"}
spec: {hosts: [web], http: [{route: [{destination: {host: web, subset: v1}}]}]}
---
kind: VirtualService
apiVersion: networking.istio.io/v1
metadata: {name: b, creationTimestamp: "2025-01-02T00:00:00Z"}
spec: {hosts: [web], http: [{route: [{destination: {host: web}}]}]}
---
kind: DestinationRule
apiVersion: networking.istio.io/v1
metadata: {name: a, creationTimestamp: "2025-01-01T00:00:00Z"}
spec: {host: web, subsets: [{name: v2, labels: {version: v2}}]}
---
kind: DestinationRule
apiVersion: networking.istio.io/v1
metadata: {name: b, creationTimestamp: "2025-01-02T00:00:00Z"}
spec: {host: web, subsets: [{name: v2, labels: {version: v3}}]}
---
kind: Gateway
apiVersion: networking.istio.io/v1
metadata: {name: a, creationTimestamp: "2025-01-01T00:00:00Z"}
spec: {selector: {app: gw}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ["*"]}]}
---
kind: Gateway
apiVersion: networking.istio.io/v1
metadata: {name: b, creationTimestamp: "2025-01-02T00:00:00Z"}
spec: {selector: {app: gw}, servers: [{port: {number: 80, name: tcp, protocol: TCP}, hosts: ["*"]}]}
---
kind: PeerAuthentication
apiVersion: security.istio.io/v1
metadata: {name: a, creationTimestamp: "2025-01-01T00:00:00Z"}
spec: {mtls: {mode: STRICT}}
---
kind: PeerAuthentication
apiVersion: security.istio.io/v1
metadata: {name: b, creationTimestamp: "2025-01-02T00:00:00Z"}
spec: {mtls: {mode: PERMISSIVE}}
---
kind: Sidecar
apiVersion: networking.istio.io/v1
metadata: {name: a, creationTimestamp: "2025-01-01T00:00:00Z"}
spec: {workloadSelector: {labels: {app: web}}, egress: [{hosts: ["./*"]}]}
---
kind: Sidecar
apiVersion: networking.istio.io/v1
metadata: {name: b, creationTimestamp: "2025-01-02T00:00:00Z"}
spec: {workloadSelector: {labels: {app: web}}, egress: [{hosts: ["*/*"]}]}
"""
NAMES = {kind.kind: kind.name for kind in KINDS}


def rules() -> dict[str, dict[str, Any]]:
    found = {}
    for body in yaml.safe_load_all(RULES):
        body["metadata"]["namespace"] = "default"
        found[f"object/{NAMES[body['kind']]}/default/{body['metadata']['name']}"] = body
    return found


def of(found: dict[Key, Findings], kind: str, name: str) -> Findings:
    return found[Key(NAMES[kind], "default", name)]


def test_of_two_that_cannot_both_be_in_force_the_younger_is_in_conflict() -> None:
    found = Relations().look(rules(), Snapshot())
    for kind, says in (
        ("VirtualService", "VirtualService default/a already"),
        ("DestinationRule", "DestinationRule default/a is older"),
        ("Gateway", "is not opened"),
        ("PeerAuthentication", "PeerAuthentication default/a of the namespace as a whole is older"),
        ("Sidecar", "Sidecar default/a with the same selector is older"),
    ):
        assert of(found, kind, "a").conflicts == (), kind
        ((_, message),) = of(found, kind, "b").conflicts
        assert says in message, kind


def test_what_is_referred_to_in_vain_is_missing() -> None:
    found = Relations().look(rules(), Snapshot())
    paths = [path for path, _ in of(found, "VirtualService", "a").missing]
    assert "spec.http[0].route[0].destination.subset" in paths
    assert "spec.http[0].route[0].destination.host" in paths


def test_a_second_look_says_the_same_and_forgets_what_is_gone() -> None:
    relations, given = Relations(), rules()
    first = relations.look(given, Snapshot())
    assert relations.look(given, Snapshot()) == first
    del given[f"object/{NAMES['VirtualService']}/default/a"]
    assert of(relations.look(given, Snapshot()), "VirtualService", "b").conflicts == ()


def test_what_cannot_be_used_is_told_with_its_errors() -> None:
    given = rules()
    given[f"object/{NAMES['VirtualService']}/default/a"]["spec"] = {"hosts": 5}
    assert of(Relations().look(given, Snapshot()), "VirtualService", "a").errors
