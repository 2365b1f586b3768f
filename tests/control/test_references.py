"""What an object refers to and is not there, told when it is written."""

from __future__ import annotations

from typing import Any

from fairlead.control.catalog import Catalog
from fairlead.control.references import References
from fairlead.control.store import Key, Objects, Write
from fairlead.policy.kinds import KINDS
from fairlead.registry.model import Service, ServicePort
from fairlead.registry.snapshot import Snapshot
from tests.control.serving import service, virtual_service

CATALOG = Catalog(KINDS)


class World:
    def __init__(self, snapshot: Snapshot | None = None) -> None:
        self.objects = Objects()
        self.references = References(self.objects, KINDS, (lambda: snapshot) if snapshot else None)

    def put(self, body: dict[str, Any]) -> None:
        resource = CATALOG.of_kind(body["apiVersion"], body["kind"])
        assert resource is not None
        key = Key(resource.name, "default" if resource.namespaced else "", body["metadata"]["name"])
        stored = {name: value for name, value in body.items() if name not in ("apiVersion", "kind")}
        stored["metadata"] = {"creationTimestamp": "2026-01-01T00:00:00Z", **stored["metadata"]}
        self.objects.commit(self.objects.plan([Write(key, stored)]))

    def drop(self, resource: str, name: str) -> None:
        self.objects.commit(self.objects.plan([Write(Key(resource, "default", name), None)]))

    def told(self, body: dict[str, Any]) -> list[str]:
        resource = CATALOG.of_kind(body["apiVersion"], body["kind"])
        assert resource is not None
        return [f"{path}: {message}" for path, message in self.references.warnings(resource, body, "default")]


def rule(host: str = "web", *subsets: str) -> dict[str, Any]:
    return {
        "apiVersion": "networking.istio.io/v1",
        "kind": "DestinationRule",
        "metadata": {"name": "rule"},
        "spec": {"host": host, "subsets": [{"name": name, "labels": {"version": name}} for name in subsets]},
    }


def to_subset(subset: str, name: str = "web") -> dict[str, Any]:
    body = virtual_service(name)
    body["spec"]["http"][0]["route"][0]["destination"]["subset"] = subset
    return body


def test_a_missing_service_is_told_until_it_is_there() -> None:
    world = World()
    assert "no service web.default.svc.cluster.local is known" in world.told(virtual_service("web"))[0]
    world.put(service("web"))
    assert world.told(virtual_service("web")) == []


def test_a_missing_subset_is_told_until_a_rule_defines_it_and_when_it_is_gone_again() -> None:
    world = World()
    world.put(service("web"))
    assert "spec.http[0].route[0].destination.subset" in world.told(to_subset("v1"))[0]
    world.put(rule("web", "v2"))
    assert "has v2" in world.told(to_subset("v1"))[0]
    world.put(rule("web", "v1"))
    assert world.told(to_subset("v1")) == []
    world.put(rule("*.svc.cluster.local", "v1"))
    assert world.told(to_subset("v1")) == []
    world.drop("destinationrules.networking.istio.io", "rule")
    assert len(world.told(to_subset("v1"))) == 1


def test_who_claims_a_host_that_is_taken_is_told_by_whom_and_who_has_it_is_not() -> None:
    world = World()
    world.put(service("web"))
    world.put(virtual_service("first"))
    assert "default/first already" in world.told(virtual_service("second"))[0]
    assert world.told(virtual_service("first")) == []


def test_short_names_follow_the_cluster_domain() -> None:
    world = World()
    world.put(rule("web", "v1"))
    world.put(service("web"))
    assert world.told(to_subset("v1")) == []
    config = {
        "apiVersion": "fairlead.dev/v1", "kind": "MeshConfig", "metadata": {"name": "default"},
        "spec": {"clusterDomain": "mesh.internal"},
    }  # fmt: skip
    world.put(config)
    assert world.told(to_subset("v1")) == []
    assert "web.default.svc.mesh.internal" in world.told(to_subset("v2"))[0]


def test_the_registrys_services_count_where_there_is_a_registry() -> None:
    host = "web.default.svc.cluster.local"
    world = World(Snapshot(1, {host: Service(host, "default", "web", (ServicePort(80),))}))
    assert world.told(virtual_service("web")) == []
    body = virtual_service("web")
    body["spec"]["http"][0]["route"][0]["destination"]["port"] = {"number": 81}
    assert "has no port 81" in world.told(body)[0]


def test_a_policy_about_tokens_is_told_of_only_while_nobody_proves_them() -> None:
    policy = {
        "apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy", "metadata": {"name": "joe"},
        "spec": {"rules": [{"from": [{"source": {"requestPrincipals": ["*"]}}]}]},
    }  # fmt: skip
    proof = {
        "apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": {"name": "jwt"},
        "spec": {"jwtRules": [{"issuer": "https://acme", "jwksUri": "https://acme/keys"}]},
    }  # fmt: skip
    world = World()
    in_the_root = {**policy, "metadata": {"name": "joe", "namespace": "istio-system"}}
    elsewhere = {**policy, "metadata": {"name": "joe", "namespace": "elsewhere"}}
    assert "no RequestAuthentication of this namespace" in world.told(policy)[0]
    world.put(proof)
    assert world.told(policy) == []
    assert world.told(in_the_root) == []
    assert "no RequestAuthentication of this namespace" in world.told(elsewhere)[0]
    world.drop("requestauthentications.security.istio.io", "jwt")
    assert len(world.told(policy)) == 1


def test_other_kinds_are_not_asked() -> None:
    pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "a"}, "spec": {"containers": [{"name": "a"}]}}
    assert World().told(pod) == []
