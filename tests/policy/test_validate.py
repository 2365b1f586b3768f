"""One report a document, exactly as the contract says, whatever the documents are."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.policy.kinds import KINDS
from fairlead.policy.validate import validate
from fairlead.policy.world import World
from fairlead.registry.documents import Document
from tests.policy.judging import errors, reports

MIXED = """\
apiVersion: v1
kind: Namespace
metadata: {name: shop}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata:
  name: web
  namespace: shop
spec:
  hosts: [web]
  http:
    - rout: []
      timeout: 5
---
kind: [
---
apiVersion: networking.istio.io/v9
kind: VirtualService
metadata: {name: x}
---
apiVersion: v1
kind: Sevrice
metadata: {name: x}
---
just text
---
apiVersion: security.istio.io/v1
kind: WasmPlugin
metadata: {name: x}
spec: {}
"""


def test_reports_come_in_the_order_of_the_documents_with_the_contract_s_keys() -> None:
    found = [report.to_json() for report in reports(MIXED)]
    assert [list(one) for one in found] == [["source", "kind", "namespace", "name", "valid", "errors", "warnings"]] * 7
    assert [(one["source"], one["kind"], one["namespace"], one["name"], one["valid"]) for one in found] == [
        ("f.yaml:1", "Namespace", "", "shop", True),
        ("f.yaml:5", "VirtualService", "shop", "web", False),
        (found[2]["source"], "", "", "", False),
        ("f.yaml:18", "VirtualService", "default", "x", False),
        ("f.yaml:22", "Sevrice", "default", "x", False),
        ("f.yaml:26", "", "", "", False),
        ("f.yaml:28", "WasmPlugin", "default", "x", False),
    ]
    assert found[1]["errors"] == [
        {"path": "spec.http[0].rout", "message": 'unknown field "rout": did you mean "route"?', "line": 13},
        {"path": "spec.http[0].timeout", "line": 14,
         "message": "expected a duration such as 5s, 100ms or 1h30m, got a number ('5')"},
    ]  # fmt: skip
    assert "is of networking.istio.io/v1 or" in found[3]["errors"][0]["message"]
    assert "did you mean Service?" in found[4]["errors"][0]["message"]
    assert "there are no WebAssembly filters" in found[6]["errors"][0]["message"]


def test_sentences_name_file_and_line_of_the_field() -> None:
    assert [report.sentences() for report in reports(MIXED)][1] == [
        'f.yaml:13: spec.http[0].rout: unknown field "rout": did you mean "route"?',
        "f.yaml:14: spec.http[0].timeout: expected a duration such as 5s, 100ms or 1h30m, got a number ('5')",
    ]


def test_a_second_object_of_the_same_name_is_an_error_also_in_another_version() -> None:
    text = (
        "apiVersion: networking.istio.io/%s\nkind: Sidecar\nmetadata: {name: a}\nspec: {egress: [{hosts: ['*/*']}]}\n"
    )
    found = reports(text % "v1" + "---\n" + text % "v1beta1")
    assert [report.valid for report in found] == [True, False]
    assert "stands at f.yaml:1 already" in found[1].errors[0].message


@pytest.mark.parametrize(
    ("text", "path", "says"),
    [
        ("kind: Service\nmetadata: {name: a}", "apiVersion", "must both be given"),
        ("apiVersion: v1\nmetadata: {name: a}", "kind", "must both be given"),
        ("apiVersion: v1\nkind: Namespace", "metadata.name", "Required"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: A}", "metadata.name", "lower-case"),
        ("apiVersion: rbac.authorization.k8s.io/v1\nkind: ClusterRole\nmetadata: {name: a}\n"
         "aggregationRule: {clusterRoleSelectors: [{matchExpressions: [{key: a, operator: Foo}]}]}",
         "aggregationRule.clusterRoleSelectors[0].matchExpressions[0].operator", "not a valid selector operator"),
        ("apiVersion: fairlead.dev/v1\nkind: MeshConfig\nmetadata: {name: A_b}", "metadata.name", "lower case"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: 5}", "metadata.name", "in quotes"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a, label: {}}", "metadata.label", "unknown field"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {x: 1}}", "metadata.labels[x]", "quotes"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a, labels: {'x y': a}}", "metadata.labels", "name part"),
        ("apiVersion: v1\nkind: Namespace\nmetadata: {name: a}\nspce: {}", "spce", 'did you mean "spec"'),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: a}", "spec", "Required"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: a, creationTimestamp: x}\nspec: {ports: [{port: 1}]}",
         "metadata.creationTimestamp", "a time"),
        ("apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: B}\nspec: {ports: [{port: 1}]}",
         "metadata.namespace", "lower case"),
        ("apiVersion: v1\nkind: Service\nmetadata: 3\nspec: {ports: [{port: 1}]}", "metadata.name", "Required"),
    ],
)  # fmt: skip
def test_the_envelope(text: str, path: str, says: str) -> None:
    found = errors(text)
    assert path in found, found
    assert says in found[path]


WORDS = tuple(
    """
    hosts http route destination host subset port number weight match uri exact regex headers trafficPolicy
    loadBalancer simple subsets name labels podSelector matchLabels ingress from ipBlock cidr except ports endPort
    protocol rules source principals selector mtls mode portLevelMtls servers tls endpoints address resolution
    spec metadata status retries retryOn attempts fault abort gateways exportTo to distribute localityLbSetting
    consistentHash maglev tableSize containers addresses
    """.split()  # noqa: SIM905
)
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 70000), st.floats(), st.text(max_size=6),
    st.sampled_from(("*", "web", "a.b", "1s", "0s", "10.0.0.0/8", "STATIC", "DNS", "HTTP", "mesh", ".", "In", "(")),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), inner, max_size=4)
    ),
    max_leaves=12,
)


@st.composite
def bodies(draw: st.DrawFn) -> dict[str, Any]:
    kind = draw(st.sampled_from(KINDS))
    body: dict[str, Any] = {"apiVersion": kind.api_versions[0], "kind": kind.kind, "metadata": {"name": "a"}}
    return body | draw(
        st.dictionaries(st.sampled_from(("spec", "metadata", "status", "rules", "x")), VALUES, max_size=3)
    )


SHAPED = st.recursive(LEAVES, lambda inner: st.lists(inner, max_size=2), max_leaves=3)


@st.composite
def near_bodies(draw: st.DrawFn) -> dict[str, Any]:
    """Objects whose fields are those of their schema, with values of any kind in places."""
    kind = draw(st.sampled_from(KINDS))

    def of(node: Any, depth: int) -> Any:
        if depth > 5 or draw(st.integers(0, 11)) == 0:
            return draw(SHAPED)
        if node.kind == "object":
            names = sorted(node.fields)
            chosen = draw(st.lists(st.sampled_from(names), max_size=4, unique=True)) if names else []
            return {name: of(node.fields[name], depth + 1) for name in {*chosen, *node.required}}
        if node.kind == "list":
            return [of(node.item, depth + 1) for _ in range(draw(st.integers(0, 2)))]
        if node.kind == "map":
            return {draw(st.sampled_from(("a", "80", "x-b", ""))): of(node.item, depth + 1)}
        if node.kind == "text":
            return draw(
                st.sampled_from(node.values or ("web", "*", "a.b", "", "10.0.0.1", "10.0.0.0/8", "5xx", "[", "%"))
            )
        if node.kind == "duration":
            return draw(st.sampled_from(("1s", "0s", "1")))
        if node.kind in ("integer", "int-or-text", "number"):
            return draw(st.sampled_from((0, 1, 80, 100, 99999)))
        return draw(st.booleans())

    made = of(kind.schema, 0)
    head = {"apiVersion": kind.api_versions[0], "kind": kind.kind, "metadata": {"name": "a"}}
    return head | made if isinstance(made, dict) else head


@settings(max_examples=250, deadline=None)
@given(st.lists(st.one_of(bodies(), near_bodies()), max_size=3))
def test_garbage_gets_a_report_for_each_document_and_never_raises(found: list[dict[str, Any]]) -> None:
    documents = [Document.of(body, "garbage") for body in found]
    told = validate(documents)
    assert len(told) == len(documents)
    for report in told:
        assert all(isinstance(one.path, str) and one.message for one in (*report.errors, *report.warnings))
    world, loaded = World.load(documents)
    assert len(loaded) == len(documents)
    assert world.snapshot is not None
