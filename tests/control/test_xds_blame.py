"""Refusals of Envoys and gRPC applications, and the rules that they are about."""

# ruff: noqa: E501 - manifests
from __future__ import annotations

from fairlead.control.xds_blame import blamed, origins
from tests.control.xds_worlds import tables_of, world

WORLD = """
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Pod
metadata: {name: client-1, annotations: {fairlead.dev/address: 10.0.0.1}}
spec: {containers: [{name: m}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: istio-system}
spec: {host: web.default.svc.cluster.local, subsets: [{name: v1, labels: {a: b}}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web}
spec:
  hosts: [web]
  http:
  - {match: [{uri: {regex: '/a{1,900}'}}, {headers: {x: {regex: 'b.*c'}}}], route: [{destination: {host: web}}]}
  - {route: [{destination: {host: web}}]}
"""


def test_a_refusal_is_about_the_rule_whose_name_cluster_or_expression_it_has() -> None:
    known = origins(tables_of(world(WORLD), "default/client-1"))
    for why, owners in (
        ("Cluster: Error adding/updating cluster(s) outbound|80||web.default.svc.cluster.local: no file",
         ["DestinationRule istio-system/web"]),
        ("Cluster: Error adding/updating cluster(s) outbound|80|v1|web.default.svc.cluster.local: no file",
         ["DestinationRule istio-system/web"]),
        ("RouteConfiguration: regex '/a{1,900}' RE2 program size of 901", ["VirtualService default/web"]),
        ("Listener: Error adding/updating listener(s) inbound: AuthorizationPolicy shop/p.x rule 0: bad", ["AuthorizationPolicy shop/p.x"]),
        ("Listener: Provider 'RequestAuthentication shop/users rule 1' in jwt_authn", ["RequestAuthentication shop/users"]),
        ("Listener: a gateway_443_spec.servers[0]_default/edge", []), ("Secret: who knows", []),
    ):  # fmt: skip
        assert blamed([why], known) == ([f"{one}: {why}" for one in owners] or [why]), why


def test_of_names_within_names_the_longest_counts() -> None:
    known = {"outbound|80||a.b": "DestinationRule x/short", "outbound|80||a.b.c": "DestinationRule x/long"}
    assert blamed(["Cluster: outbound|80||a.b.c: why"], known) == [
        "DestinationRule x/long: Cluster: outbound|80||a.b.c: why"
    ]
    both = blamed(["Cluster: outbound|80||a.b, outbound|80||a.b.c: why"], known)
    assert len(both) == 1, "a name within another is not told apart, and the longer counts"
