"""Where things stand: each step of an explanation with the file and line, or the revision, of what it speaks of."""

# ruff: noqa: E501 - manifests in one line
from __future__ import annotations

from typing import Any

from fairlead.policy.explain import Explainer
from fairlead.policy.explain_places import Places
from fairlead.policy.world import World
from fairlead.registry.documents import Document, load

TEXT = """
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec:
  selector: {app: web}
  ports: [{name: http, port: 80}]
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}, annotations: {fairlead.dev/address: 127.0.1.1}}
spec: {containers: [{name: c, ports: [{name: http, containerPort: 80}]}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: web, namespace: shop}
spec:
  hosts: [web]
  http:
  - match:
    - uri: {prefix: /a}
      headers:
        x-a: {exact: b}
    - uri: {prefix: /b}
    route: [{destination: {host: web}}]
  - match: [{uri: {prefix: /d}}]
    delegate: {name: inner}
  - route:
    - destination: {host: web}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: inner, namespace: shop}
spec:
  http:
  - match:
    - method: {exact: PUT}
    route: [{destination: {host: web}}]
  - route: [{destination: {host: web}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web, namespace: shop}
spec:
  podSelector: {}
  ingress:
  - from:
    - podSelector: {matchLabels: {app: nobody}}
  - ports:
    - port: 81
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: web, namespace: shop}
spec:
  mtls:
    mode: PERMISSIVE
"""


def line(of: str, after: str = "") -> int:
    """The line of a text, behind another."""
    start = TEXT.index(after) if after else 0
    return TEXT.count("\n", 0, TEXT.index(of, start)) + 1


def asked(path: str, documents: list[Document] | None = None, **more: Any) -> list[dict[str, Any]]:
    documents = documents if documents is not None else load(TEXT, "f.yaml")[0]
    world, _ = World.load(documents)
    answer = Explainer(world, Places(documents)).explain(
        {"url": f"http://web.shop{path}", "from_namespace": "shop", **more}
    )
    trace: list[dict[str, Any]] = answer["trace"]
    return trace


def test_each_condition_that_failed_has_the_line_of_its_field() -> None:
    routes = [(step["why"], step.get("line")) for step in asked("/a/x") if step["step"] == "route"]
    assert routes[:2] == [
        ("header x-a is absent, wanted exact 'b'", line("x-a:")),
        ("path is '/a/x', wanted prefix '/b'", line("- uri: {prefix: /b}")),
    ]
    policies = [(step["why"], step["line"]) for step in asked("/x") if step["step"] == "network-policy-ingress"]
    assert policies[0][0].endswith("it has no label app, wanted app=nobody") and policies[0][1] == line("- from:")
    assert policies[1] == ("port is 80/TCP, wanted 81/TCP", line("- ports:", "kind: NetworkPolicy"))
    (peer,) = [step for step in asked("/x") if step["step"] == "peer-authentication"]
    assert (peer["file"], peer["line"]) == ("f.yaml", line("  mtls:"))


def test_the_route_that_is_taken_has_the_line_of_its_block_or_of_itself() -> None:
    matched = [step["line"] for step in asked("/b") if step["result"] == "match"]
    assert matched == [line("- uri: {prefix: /b}")]
    assert [step["line"] for step in asked("/x") if step["result"] == "match"] == [line("  - route:\n")]


def test_a_route_of_a_delegate_stands_where_it_is_written_and_names_it() -> None:
    trace = asked("/d", method="PUT")
    (taken,) = [step for step in trace if step["result"] == "match"]
    assert (taken["delegate"], taken["resource"]) == ("shop/inner", "VirtualService shop/inner")
    assert taken["line"] == line("- match:", "name: inner")
    (taken,) = [step for step in asked("/d") if step["result"] == "match"]
    assert (taken["delegate"], taken["line"]) == ("shop/inner", line("- match: [{uri: {prefix: /d}}]"))


def test_services_and_workloads_have_their_place_too() -> None:
    trace = asked("/b")
    (destination,) = [step for step in trace if step["step"] == "destination"]
    assert (destination["resource"], destination["line"]) == ("Service shop/web", line("selector:"))
    (asked_for,) = [step for step in trace if step["step"] == "policy"]
    assert (asked_for["resource"], asked_for["line"]) == ("Pod shop/web-1", line("apiVersion: v1\nkind: Pod"))


def test_of_a_live_mesh_there_are_revisions() -> None:
    documents = [
        Document.of({**one.body, "metadata": {**one.body["metadata"], "resourceVersion": "7"}}, "")
        for one in load(TEXT, "f.yaml")[0]
    ]
    assert {step["revision"] for step in asked("/b", documents) if "resource" in step} == {"7"}
    assert all("file" not in step for step in asked("/b", documents))
    places = Places([], {"Pod shop/web-1": "12"})
    assert places.at("Pod shop/web-1") == {"revision": "12"} and places.at("Pod shop/other") == {}
    assert (places.workload("shop/web-1"), places.workload("shop/web-2")) == ("Pod shop/web-1", "")


def test_json_has_no_lines_and_still_its_file() -> None:
    text = '{"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a\\ud83d\\ude00"}, "spec": {"ports": [{"port": 80}]}}'
    documents, _ = load(text, "f.json")
    assert Places(documents).at(f"Service default/{documents[0].name}", "spec") == {"file": "f.json", "line": 1}
