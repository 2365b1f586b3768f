"""Documents to a world: what is good is in force, what is not is told and left out."""

from __future__ import annotations

from fairlead.policy.world import Loader, World
from fairlead.registry.documents import Document, load
from fairlead.registry.model import Endpoint, Service, ServicePort
from fairlead.registry.snapshot import Snapshot

TEXT = """\
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}, annotations: {fairlead.dev/address: 10.0.0.1}}
spec: {serviceAccountName: web, containers: [{name: web}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: young, namespace: shop, creationTimestamp: "2026-01-02T00:00:00Z"}
spec: {hosts: [web], http: [{route: [{destination: {host: web, subset: nowhere}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: old, namespace: shop, creationTimestamp: "2026-01-01T00:00:00Z"}
spec: {hosts: [other], http: [{timeout: 1m30s, route: [{destination: {host: web}}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: broken, namespace: shop}
spec: {hosts: [web], http: [{}]}
---
apiVersion: fairlead.dev/v1
kind: MeshConfig
metadata: {name: default}
spec: {trustDomain: mesh.example, clusterDomain: mesh.local, pathNormalization: {normalization: DEFAULT}}
"""


def world(text: str = TEXT, snapshot: Snapshot | None = None) -> World:
    documents, problems = load(text, "f.yaml")
    assert problems == []
    return World.load(documents, snapshot)[0]


def test_facts_and_rules_of_good_documents_are_in_force() -> None:
    made = world()
    assert [rule.meta.key for rule in made.resources.virtual_services] == ["shop/old", "shop/young"], "in order of age"
    assert made.resources.virtual_services[0].spec.http[0].timeout == 90.0
    assert made.resources.virtual_services[0].meta.source == "f.yaml:16"
    assert made.resources.mesh.spec.trust_domain == "mesh.example"
    assert made.resources.mesh.spec.path_normalization.normalization == "BASE"
    endpoints = made.snapshot.endpoints["web.shop.svc.mesh.local"]
    assert [(e.address, e.port, e.service_account) for e in endpoints] == [("10.0.0.1", 8080, "web")]
    assert made.snapshot.namespaces["shop"]["kubernetes.io/metadata.name"] == "shop"


def test_what_is_wrong_is_told_for_each_document_and_a_missing_subset_only_warns() -> None:
    documents, _ = load(TEXT, "f.yaml")
    reports = World.load(documents)[1]
    assert [report.valid for report in reports] == [True, True, True, True, False, True]
    assert reports[4].errors[0].path == "spec.http[0].route"
    assert reports[2].warnings[0].path == "spec.http[0].route[0].destination.subset"


def test_a_snapshot_that_is_given_stands_below_the_documents() -> None:
    host = "db.shop.svc.cluster.local"
    given = Snapshot(
        7, {host: Service(host, "shop", "db", (ServicePort(5432),))}, {host: (Endpoint("10.0.0.9", 5432),)}
    )
    rules = TEXT.split("---\n")[3]
    assert world(rules, given).snapshot is given, "documents without facts change nothing"
    made = world(TEXT, given)
    assert made.snapshot.endpoints[host] == given.endpoints[host]
    assert "web.shop.svc.mesh.local" in made.snapshot.services


def test_nothing_is_a_world_too() -> None:
    made, reports = World.load([])
    assert reports == []
    assert made.resources.mesh.spec.cluster_domain == "cluster.local"


def test_a_loader_reads_again_only_what_changed() -> None:
    documents, _ = load(TEXT, "f.yaml")
    loader = Loader()
    first, told = loader.load(documents)
    again, told_again = loader.load(documents, Snapshot(3))
    assert again.resources is first.resources, "by this compile knows that it may keep what it has"
    assert told == told_again
    changed = [Document.of({**documents[3].body, "metadata": {"name": "new"}}, "f.yaml:15"), *documents]
    more, _ = loader.load(changed)
    assert more.resources is not first.resources
    old = {rule.meta.key: rule for rule in first.resources.virtual_services}
    assert all(old.get(rule.meta.key, rule) is rule for rule in more.resources.virtual_services)
    assert {rule.meta.name for rule in more.resources.virtual_services} == {"new", "old", "young"}
    fewer, _ = loader.load(documents[:2])
    assert fewer.resources.virtual_services == ()


def test_a_loader_gives_the_same_rules_for_other_facts_while_their_bodies_are_the_very_same() -> None:
    documents, _ = load(TEXT, "f.yaml")
    loader = Loader()
    _, told = loader.load(documents, references=False)
    rules = [
        document
        for document, report in zip(documents, told, strict=True)
        if report.valid and report.kind in ("VirtualService", "DestinationRule")
    ]
    first, _ = loader.load(rules, Snapshot(1), references=False)
    bodies = [document.body for document in rules]
    again = loader.again(bodies, Snapshot(2))
    assert again is not None and again.resources is first.resources and again.snapshot.version == 2
    assert loader.again([*bodies[1:], dict(bodies[0])], Snapshot(2)) is None
    assert loader.again(bodies[1:], Snapshot(2)) is None
    loader.load(documents)
    assert loader.again([document.body for document in documents], Snapshot(2)) is None, "some of them state facts"
