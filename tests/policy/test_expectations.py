"""Tests of policy/expectations.py."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.expectations import cases_of, differences, is_tests, manifests_of
from fairlead.policy.explain import Explainer
from fairlead.policy.world import World
from fairlead.registry.documents import Document, load

MESH = """
kind: Service
apiVersion: v1
metadata: {name: web}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80, targetPort: 8080}]
---
kind: Pod
apiVersion: v1
metadata: {name: web-1, labels: {app: web, version: v1}, annotations: {fairlead.dev/address: 10.0.0.1}}
spec: {containers: [{name: web, ports: [{containerPort: 8080}]}]}
---
kind: Pod
apiVersion: v1
metadata: {name: client-1, labels: {app: client}, annotations: {fairlead.dev/address: 10.0.0.9}}
spec: {containers: [{name: client}]}
---
kind: DestinationRule
apiVersion: networking.istio.io/v1
metadata: {name: web}
spec: {host: web, subsets: [{name: v1, labels: {version: v1}}, {name: v2, labels: {version: v2}}]}
---
kind: VirtualService
apiVersion: networking.istio.io/v1
metadata: {name: web}
spec:
  hosts: [web]
  http:
    - match: [{uri: {exact: /old}}]
      redirect: {uri: /new}
    - match: [{uri: {exact: /teapot}}]
      directResponse: {status: 418, body: {string: short}}
    - match: [{uri: {prefix: /split}}]
      rewrite: {uri: /both}
      timeout: 2s
      route:
        - {destination: {host: web, subset: v1}, weight: 1}
        - {destination: {host: web, subset: v2}, weight: 3}
    - route: [{destination: {host: web, subset: v1}}]
---
kind: NetworkPolicy
apiVersion: networking.k8s.io/v1
metadata: {name: web}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress: [{from: [{podSelector: {matchLabels: {app: client}}}]}]
"""


def document(text: str) -> Document:
    documents, problems = load(text, "tests.yaml")
    assert not problems
    return documents[0]


def explained(question: dict[str, Any]) -> dict[str, Any]:
    documents, problems = load(MESH, "mesh.yaml")
    assert not problems
    world, reports = World.load(documents)
    assert all(report.valid for report in reports)
    return Explainer(world).explain(question)


def answer(path: str = "/", **question: Any) -> dict[str, Any]:
    return explained({"from": "default/client-1", "url": f"http://web.default{path}", **question})


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/", {"to": "web"}),
        ("/", {"to": "web.default:80", "subset": "v1", "allowed": True}),
        ("/", {"to": "web.default.svc.cluster.local", "by": "NetworkPolicy default/web"}),
        ("/", {"endpoints": ["10.0.0.1:8080"], "route": 3, "timeout_s": None, "redirect": None}),
        ("/", {"endpoints": [{"address": "10.0.0.1", "ready": True}]}),
        ("/old", {"verdict": "redirect", "location": "http://web.default/new", "status": 301}),
        ("/teapot", {"status": 418, "body": "short", "directResponse": {"status": 418}}),
        ("/split/it", {"path": "/both/it", "timeout_s": 2, "destinations": [{"weight": 1}, {"weight": 3}]}),
        ("/split/it", {"to": "web", "subset": ["v1", "v2"]}),
        ("/split/it", {"to": ["web:80", "web:80"], "request": {"path": "/both/it", "method": "GET"}}),
    ],
)
def test_an_answer_that_has_what_is_named_is_as_expected(path: str, expected: dict[str, Any]) -> None:
    assert differences(expected, answer(path)) == []


@pytest.mark.parametrize(
    ("path", "expected", "told"),
    [
        ("/", {"to": "we"}, "to: expected we, got web.default.svc.cluster.local:80"),
        ("/", {"to": "web:81"}, "to: expected web:81, got web.default.svc.cluster.local:80"),
        ("/", {"to": ["web", "web"]}, "to: expected [web, web], got web.default.svc.cluster.local:80"),
        ("/old", {"to": "web"}, "to: expected web, got no destination"),
        ("/", {"subset": "v2"}, "subset: expected v2, got v1"),
        ("/split", {"subset": "v2"}, "subset: expected v2, got [v1, v2]"),
        ("/", {"allowed": False}, "allowed: expected false, got true"),
        (
            "/",
            {"by": "NetworkPolicy default/we"},
            "by: expected NetworkPolicy default/we, got NetworkPolicy default/web",
        ),
        ("/", {"endpoints": []}, "endpoints: expected [] to be ready, got [10.0.0.1:8080]"),
        ("/", {"location": "/x"}, "location: expected /x, got null"),
        ("/", {"request": {"pth": "/"}}, "request.pth: expected /, there is none (there are [method, "),
        ("/", {"retries": None}, "retries: expected null, got {attempts: 2"),
        ("/split", {"destinations": [{"weight": 1}]}, "destinations: expected [{weight: 1}], got [{host: "),
        ("/split", {"destinations": [{"weight": 1}, {"weight": 4}]}, "destinations[1].weight: expected 4, got 3"),
        ("/teapot", {"status": True}, "status: expected true, got 418"),
        ("/", {"reason": ""}, "reason: expected '', got null"),
        ("/", {"route": "3"}, "route: expected '3', got 3"),
    ],
)
def test_what_is_not_as_expected_is_told_with_both(path: str, expected: dict[str, Any], told: str) -> None:
    found = differences(expected, answer(path))
    assert len(found) == 1
    assert found[0].startswith(told)


def test_a_refusal_is_told_with_its_reason() -> None:
    refused = explained({"from_labels": "app=other", "url": "http://web.default/"})
    assert differences({"verdict": "denied", "allowed": False, "by": "NetworkPolicy default/web"}, refused) == []
    (told,) = differences({"by": None}, refused)
    assert "no ingress rule of NetworkPolicy default/web admits" in told


def test_a_file_is_read_with_its_defaults_and_each_test_knows_its_line() -> None:
    read = document("""
manifests: [a.yaml, b]
defaults: {from: default/client-1, headers: {x-a: "1"}}
tests:
- request: POST http://web.default/x
  expect: {verdict: route}
- name: another
  from: default/other
  request: {url: "http://web.default", method: PUT}
  expect: {verdict: denied}
""")
    assert is_tests(read)
    assert manifests_of(read) == ["a.yaml", "b"]
    cases, problems = cases_of(read)
    assert not problems
    assert [(case.source, case.name) for case in cases] == [
        ("tests.yaml:5", "POST http://web.default/x"), ("tests.yaml:7", "another"),
    ]  # fmt: skip
    assert cases[0].question == {
        "from": "default/client-1", "headers": {"x-a": "1"}, "method": "POST", "url": "http://web.default/x",
    }  # fmt: skip
    assert cases[1].question["from"] == "default/other"


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("tests: []", "tests.yaml:1: tests: expected a list of tests"),
        ("tests: 3", "tests.yaml:1: tests: expected a list of tests"),
        ("tests: [5]", "tests.yaml:1: tests[0]: expected an object with `request` and `expect`"),
        ("tests: [{request: GET http://a}]", "tests[0].expect: expected an object with at least one of verdict, "),
        ("tests: [{expect: {to: a}}]", "tests[0].request: expected `METHOD URL`"),
        ("tests: [{request: GET http://a, expect: {too: a}}]", "tests[0].expect.too: unknown; did you mean to?"),
        ("tests: [{request: GET http://a, expect: {to: a}, form: a/b}]", "tests[0]: form: unknown; did you mean from"),
        ("tests: [{request: GET ftp://a, expect: {to: a}}]", "tests[0]: url: 'ftp://a' begins with ftp://"),
        (
            "tests: [{request: GET http://a, expect: {to: a}}]\nmanifest: x",
            "manifest: unknown; did you mean manifests?",
        ),
        ("tests: [{request: GET http://a, expect: {to: a}}]\nmanifests: [3]", "manifests: expected a path or a list"),
        ("tests: [{request: GET http://a, expect: {to: a}}]\ndefaults: x", "defaults: expected an object"),
    ],
)
def test_what_cannot_be_used_is_told_with_its_place_and_the_remedy(text: str, told: str) -> None:
    _, problems = cases_of(document(text))
    assert any(told in str(problem) for problem in problems), [str(problem) for problem in problems]


def test_a_manifest_is_no_file_of_tests() -> None:
    assert not is_tests(document("kind: Service\napiVersion: v1\nmetadata: {name: a}\ntests: []"))
    assert not is_tests(document("some: thing"))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(JSON, JSON, JSON, JSON)
def test_any_file_is_read_or_refused(tests: Any, test: Any, request: Any, expected: Any) -> None:
    for body in ({"tests": tests}, {"tests": [test]}, {"tests": [{"request": request, "expect": expected}]}):
        cases, problems = cases_of(Document.of(body, "x"))
        assert cases or problems


@given(
    st.dictionaries(st.sampled_from(["to", "subset", "by", "endpoints", "path", "location", "request", "status"]), JSON)
)
def test_any_expectation_is_met_or_told(expected: dict[str, Any]) -> None:
    found = differences(expected, ANSWER)
    assert all(isinstance(one, str) for one in found)


ANSWER = answer("/split")
