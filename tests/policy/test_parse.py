"""Documents to typed resources."""

from __future__ import annotations

import pytest

from fairlead.policy.parse import Parsed, parse, shared
from fairlead.policy.resources import DestinationRule, MeshConfig, NetworkPolicy, PeerAuthentication, VirtualService
from fairlead.registry.documents import load


def one(text: str) -> Parsed:
    documents, problems = load(text, "f.yaml")
    assert problems == []
    return parse(documents[0])


def test_meta_and_spec_of_a_virtual_service() -> None:
    parsed = one("""
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop, labels: {a: b}, annotations: {c: d}, resourceVersion: "7",
           creationTimestamp: "1970-01-01T00:01:00Z"}
spec:
  hosts: [web]
  http:
    - timeout: 1.5s
      match: [{uri: {prefix: /}, headers: {x: {}}}]
      retries: {attempts: 2, per_try_timeout: 100ms, retryOn: 5xx}
      fault: {delay: {fixedDelay: 2s, percentage: {value: 0.5}}}
      route: [{destination: {host: a, port: {number: 80}}, weight: 1}]
""")
    assert parsed.errors == []
    rule = parsed.resource
    assert isinstance(rule, VirtualService)
    assert (rule.meta.key, rule.meta.created, rule.meta.resource_version, rule.meta.source) == (
        "shop/web", 60.0, "7", "f.yaml:2",
    )  # fmt: skip
    route = rule.spec.http[0]
    assert route.timeout == 1.5
    assert route.retries is not None
    assert route.retries.per_try_timeout == 0.1
    assert route.match[0].headers["x"].exact is None
    assert route.fault is not None
    assert route.fault.delay is not None
    assert route.fault.delay.fixed_delay == 2.0
    assert route.route[0].destination.port is not None


def test_odd_names_of_destination_rules() -> None:
    rule = one("{apiVersion: networking.istio.io/v1, kind: DestinationRule, metadata: {name: a}, spec: {host: a, "
               "trafficPolicy: {connectionPool: {http: {http1MaxPendingRequests: 1, http2MaxRequests: 2}}, "
               "outlierDetection: {consecutive5xxErrors: 3}}}}").resource  # fmt: skip
    assert isinstance(rule, DestinationRule)
    policy = rule.spec.traffic_policy
    assert policy is not None
    assert policy.connection_pool is not None
    assert policy.connection_pool.http is not None
    assert policy.connection_pool.http.http1_max_pending_requests == 1
    assert policy.connection_pool.http.http2_max_requests == 2
    assert policy.outlier_detection is not None
    assert policy.outlier_detection.consecutive5xx_errors == 3


@pytest.mark.parametrize(
    ("spec", "types"),
    [
        ("{podSelector: {}}", ["Ingress"]),
        ("{podSelector: {}, egress: []}", ["Ingress"]),
        ("{podSelector: {}, egress: [{}]}", ["Ingress", "Egress"]),
        ("{podSelector: {}, policyTypes: []}", ["Ingress"]),
        ("{podSelector: {}, policyTypes: [Egress], ingress: [{}]}", ["Egress"]),
    ],
)
def test_policy_types_are_defaulted_as_the_api_server_does(spec: str, types: list[str]) -> None:
    policy = one(
        f"{{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {{name: a}}, spec: {spec}}}"
    ).resource
    assert isinstance(policy, NetworkPolicy)
    assert policy.spec.policy_types == types


def test_peers_keep_absent_and_empty_apart() -> None:
    policy = one("{apiVersion: networking.k8s.io/v1, kind: NetworkPolicy, metadata: {name: a}, spec: {podSelector: {}, "
                 "ingress: [{from: [{namespaceSelector: {}}]}]}}").resource  # fmt: skip
    assert isinstance(policy, NetworkPolicy)
    peer = policy.spec.ingress[0].from_[0]
    assert peer.pod_selector is None
    assert peer.namespace_selector is not None


def test_integer_keys_and_cluster_kinds() -> None:
    peer = one("{apiVersion: security.istio.io/v1, kind: PeerAuthentication, metadata: {name: a}, spec: {selector: "
               "{matchLabels: {a: b}}, portLevelMtls: {8080: {mode: STRICT}}}}").resource  # fmt: skip
    assert isinstance(peer, PeerAuthentication)
    assert peer.spec.port_level_mtls["8080"].mode == "STRICT"
    mesh = one("{apiVersion: fairlead.dev/v1, kind: MeshConfig, metadata: {name: default}, spec: {accessLogFile: ''}}")
    assert mesh.namespace == ""
    assert isinstance(mesh.resource, MeshConfig)
    assert mesh.resource.spec.access_log_file == ""
    assert mesh.resource.spec.connect_timeout == 10.0


def test_what_is_wrong_has_no_resource() -> None:
    parsed = one("{apiVersion: networking.istio.io/v1, kind: VirtualService, metadata: {name: a}, spec: {http: 3}}")
    assert parsed.resource is None
    assert not parsed.usable
    assert parsed.errors[0][0] == "spec.http"


def test_what_normalising_does_not_change_is_kept_once() -> None:
    given = {"a": {"b": [1, {"c": "x"}], "d": "3s"}, "e": [1.0, True]}
    made = {"a": {"b": [1, {"c": "x"}], "d": 3.0}, "e": [1, 1]}
    kept = shared(made, given)
    assert kept == {"a": {"b": [1, {"c": "x"}], "d": 3.0}, "e": [1, 1]}
    assert kept["a"]["b"] is given["a"]["b"]  # type: ignore[index]
    assert [type(value) for value in kept["e"]] == [int, int]
    assert shared({"a": [1, 2]}, given) == {"a": [1, 2]}
    assert shared([1, 2, 3], [1, 2]) == [1, 2, 3]
    assert shared(given, given) is given


def test_an_object_that_normalising_does_not_change_is_kept_as_it_was_written() -> None:
    (plain, durations), _ = load("""
apiVersion: v1
kind: Service
metadata: {name: web, labels: {app: web}}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, labels: {app: web}}
spec: {hosts: [web], http: [{timeout: 3s, route: [{destination: {host: web}}]}]}
""", "web.yaml")  # fmt: skip
    assert parse(plain).body is plain.body
    changed = parse(durations)
    assert changed.body["spec"]["http"][0]["timeout"] == 3.0
    assert changed.body["spec"]["hosts"] is durations.body["spec"]["hosts"]
    assert changed.body["metadata"] is durations.body["metadata"]
    assert durations.body["spec"]["http"][0]["timeout"] == "3s"


def test_what_is_kept_for_another_look_says_the_same_again() -> None:
    (document,), _ = load("apiVersion: v1\nkind: Service\nmetadata: {name: web}\nspec: {ports: [{port: 0}]}\n", "f")
    known = parse(document)
    errors = list(known.errors)
    assert errors
    known.keep()
    first, second = known.again(), known.again()
    first.errors.append(("more", "more"))
    first.references.append(("more", "more"))
    assert second.errors == errors
    assert second.references == []
    assert known.again().warnings == []
