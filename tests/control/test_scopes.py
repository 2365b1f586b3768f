"""Which facts each sidecar is to have: by its Sidecar resource, or by what it uses; and whom policies look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.control import scopes as scopes_module
from fairlead.control.push import ALL, NONE
from fairlead.control.scopes import Scopes
from fairlead.policy.parse import parse
from fairlead.policy.sidecars import known_services
from fairlead.policy.validate import resources_of
from fairlead.registry.documents import Document
from fairlead.registry.model import Changed, Endpoint, Service, ServicePort, Workload
from fairlead.registry.snapshot import Snapshot

HTTP = (ServicePort(80, "http"),)
ME = Workload("shop", "me", ("10.0.0.9",), labels={"app": "me"})
DOMAIN = "cluster.local"


def host(name: str, namespace: str = "shop") -> str:
    return f"{name}.{namespace}.svc.{DOMAIN}"


def service(name: str, namespace: str = "shop", **more: Any) -> Service:
    return Service(host(name, namespace), namespace, name, more.pop("ports", HTTP), **more)


def snapshot(
    *services: Service,
    endpoints: Mapping[str, tuple[Endpoint, ...]] | None = None,
    workloads: tuple[Workload, ...] = (),
    version: int = 1,
    changed: Changed | None = None,
) -> Snapshot:
    ends = {one.host: (endpoints or {}).get(one.host, (Endpoint("10.1.0.1", 80),)) for one in services}
    known = {one.key: one for one in workloads}
    return Snapshot(version, {one.host: one for one in services}, ends, known, changed=changed)


def sidecar(name: str, *hosts: str, namespace: str = "shop", labels: dict[str, str] | None = None) -> dict[str, Any]:
    spec: dict[str, Any] = {"egress": [{"hosts": list(hosts)}]} if hosts else {}
    if labels:
        spec["workloadSelector"] = {"labels": labels}
    return {"apiVersion": "networking.istio.io/v1", "kind": "Sidecar", "spec": spec,
            "metadata": {"name": name, "namespace": namespace}}  # fmt: skip


def routing(name: str, of: str, to: str, namespace: str = "shop") -> dict[str, Any]:
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService",
            "metadata": {"name": name, "namespace": namespace},
            "spec": {"hosts": [of], "http": [{"route": [{"destination": {"host": to}}]}]}}  # fmt: skip


def key_of(body: dict[str, Any]) -> str:
    plural = {"Sidecar": "sidecars.networking.istio.io", "VirtualService": "virtualservices.networking.istio.io",
              "NetworkPolicy": "networkpolicies.networking.k8s.io",
              "PeerAuthentication": "peerauthentications.security.istio.io"}[body["kind"]]  # fmt: skip
    return f"object/{plural}/{body['metadata']['namespace']}/{body['metadata']['name']}"


def test_without_anything_said_everything_is_for_everybody() -> None:
    scopes = Scopes()
    scopes.facts(snapshot(service("a")))
    assert scopes.of("r", ME, NONE, False) is ALL


def test_a_mesh_is_large_from_some_thousand_endpoints_on_and_who_has_all_is_told_later(monkeypatch: Any) -> None:
    monkeypatch.setattr(scopes_module, "LARGE", 2)
    scopes = Scopes()
    for count, auto, outgrown in ((2, False, False), (3, True, False), (4, True, False), (5, True, True)):
        scopes.facts(
            snapshot(service("a"), endpoints={host("a"): tuple(Endpoint("10.0.0.1", n) for n in range(count))})
        )
        assert (scopes.scoped("auto"), scopes.scoped("auto", has_all=True)) == (auto, outgrown)
    assert scopes.scoped("used")
    assert not scopes.scoped("all")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.none() | st.integers(0, 3), st.booleans()), max_size=10))
def test_the_endpoints_of_a_mesh_are_counted_right_whatever_changes(steps: list[tuple[str, int | None, bool]]) -> None:
    scopes, endpoints = Scopes(), dict[str, tuple[Endpoint, ...]]()
    for version, (name, count, looked_at) in enumerate(steps, 1):
        endpoints = {key: value for key, value in endpoints.items() if key != name}
        if count is not None:
            endpoints[name] = tuple(Endpoint("10.0.0.1", number) for number in range(count))
        scopes.facts(Snapshot(version, {}, endpoints, changed=Changed(frozenset((name,)))))
        if looked_at:
            with pytest.MonkeyPatch.context() as patch:
                total = sum(map(len, endpoints.values()))
                for least in (total - 1, total):
                    patch.setattr(scopes_module, "LARGE", least)
                    assert scopes.scoped("auto") == (total > least)


def test_by_use_all_names_are_known_and_the_endpoints_of_what_is_used_owned_or_needed_before() -> None:
    scopes = Scopes()
    own = {host("mine"): (Endpoint("10.0.0.9", 80, workload="shop/me"),), host("listed"): (Endpoint("10.0.0.9", 80),)}
    scopes.facts(
        snapshot(
            service("mine"), service("listed"), service("used"), service("other"), service("headless", headless=True),
            service("udp", ports=(ServicePort(53, protocol="UDP"),)),
            Service("api.example", "shop", "api", HTTP, external=True), endpoints=own,
        )
    )  # fmt: skip
    scope = scopes.of("r", ME, frozenset((host("used"),)), True)
    assert scope.services is None
    assert scope.endpoints == {host("mine"), host("listed"), host("used"), host("headless"), host("udp"), "api.example"}
    assert scope.workloads == {"shop/me"}
    assert scopes.of("r", ME, frozenset((host("used"),)), True) is scope, "nothing has changed"
    assert scopes.of("r", ME, frozenset((host("other"),)), True) is not scope


def test_a_sidecar_resource_names_what_is_sent_with_what_is_routed_to_and_the_own_services() -> None:
    scopes = Scopes()
    own = {host("mine", "other"): (Endpoint("10.0.0.9", 80, workload="shop/me"),)}
    scopes.facts(
        snapshot(service("a"), service("b"), service("c", "far"), service("mine", "other"), service("x", "far"),
                 endpoints=own)
    )  # fmt: skip
    rules = [sidecar("s", "./a.shop.svc.cluster.local"), routing("v", host("a"), host("c", "far"))]
    scopes.objects({key_of(one): one for one in rules})
    scope = scopes.of("r", ME, frozenset((host("x", "far"),)), True)
    assert scope.services == scope.endpoints == {host("a"), host("c", "far"), host("mine", "other")}
    assert scopes.of("r", ME, NONE, False) is scope, "whether the mesh is large or not"
    elsewhere = Workload("far", "else")
    assert scopes.of("e", elsewhere, NONE, False) is ALL, "that Sidecar is not for it"
    scopes.objects({key_of(rules[0]): None})
    assert scopes.of("r", ME, NONE, False) is ALL


def policy(namespace: str, **peer: Any) -> dict[str, Any]:
    return {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": {"name": "p", "namespace": namespace},
            "spec": {"podSelector": {}, "ingress": [{"from": [peer]}]}}  # fmt: skip


def test_workloads_are_told_where_policies_look_at_them() -> None:
    scopes = Scopes()
    others = (ME, Workload("shop", "b"), Workload("far", "c"))
    scopes.facts(snapshot(service("a"), workloads=others))
    inside, across = policy("shop", podSelector={"matchLabels": {"app": "b"}}), policy("shop", namespaceSelector={})
    elsewhere = policy("far", namespaceSelector={})

    def told() -> Any:
        return scopes.of("r", ME, NONE, True).workloads

    scopes.objects({key_of(elsewhere): elsewhere})
    assert told() == {"shop/me"}
    scopes.objects({key_of(inside): inside})
    assert told() == {"shop/me", "shop/b"}
    scopes.facts(snapshot(service("a"), workloads=(*others, Workload("shop", "d")), version=2))
    assert told() == {"shop/me", "shop/b", "shop/d"}
    scopes.objects({key_of(across): across})
    assert told() is None
    scopes.objects({key_of(across): None})
    plain = {"apiVersion": "security.istio.io/v1", "kind": "PeerAuthentication", "spec": {"mtls": {"mode": "DISABLE"}},
             "metadata": {"name": "p", "namespace": "far"}}  # fmt: skip
    scopes.objects({key_of(plain): plain})
    assert told() is None


NAMES = ("a", "b", "c", "d")
EGRESS = ["./*", "far/*", "*/a.*", "*/*", "far/b.far.svc.cluster.local"]
STEPS = st.one_of(
    st.tuples(st.just("service"), st.sampled_from(NAMES), st.sampled_from(["shop", "far", None])),
    st.tuples(st.just("sidecar"), st.none() | st.lists(st.sampled_from(EGRESS), min_size=1, max_size=2), st.none()),
    st.tuples(st.just("route"), st.sampled_from(NAMES), st.none() | st.sampled_from(NAMES)),
    st.tuples(st.just("ends"), st.sampled_from(NAMES), st.sampled_from(["shop/me", "far/x", ""])),
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(st.lists(STEPS, max_size=12))
def test_kept_up_to_date_it_is_what_everything_at_once_gives(steps: list[Any]) -> None:
    scopes = Scopes()
    services: dict[str, Service] = {}
    ends: dict[str, tuple[Endpoint, ...]] = {}
    objects: dict[str, dict[str, Any]] = {}
    for version, (what, one, two) in enumerate(steps, 1):
        touched: set[str] = set()
        if what == "service":
            for namespace in ("shop", "far"):
                services.pop(host(one, namespace), None)
                touched.add(host(one, namespace))
            if two is not None:
                services[host(one, two)] = service(one, two)
        elif what == "ends":
            name = host(one, "far")
            touched.add(name)
            ends[name] = (Endpoint("10.0.0.7", 80, workload=two),)
        else:
            body = (
                sidecar("s", *one)
                if what == "sidecar" and one
                else routing(f"v{one}", host(one, "far"), host(two or "a"))
            )
            key = key_of(sidecar("s")) if what == "sidecar" else key_of(body)
            if (what == "sidecar" and one) or (what == "route" and two):
                objects[key] = body
                scopes.objects({key: body})
            else:
                objects.pop(key, None)
                scopes.objects({key: None})
        known = {name: ends.get(name, ()) for name in services}
        scopes.facts(Snapshot(version, dict(services), known, changed=Changed(frozenset(touched))))
        scope = scopes.of("r", ME, frozenset(("u",)), True)
        own = {name for name, listed in known.items() if any(end.workload == "shop/me" for end in listed)}
        resources = resources_of([parse(Document.of(body, "x")) for body in objects.values()])
        if not resources.sidecars:
            assert (scope.services, scope.endpoints) == (None, own | {"u"})
        else:
            wanted = known_services(resources.sidecars[0], services, resources.virtual_services, ME, DOMAIN)
            assert scope.services is not None
            assert scope.services & services.keys() == wanted.keys() | own
            assert scope.endpoints == scope.services
