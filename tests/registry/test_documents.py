"""Texts of strangers to documents: what is read, where it stands, and what is refused."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fairlead.registry.documents import DEPTH_MAX, Document, load

SERVICE = b"""\
# a comment
apiVersion: v1
kind: Service
metadata:
  name: web
  labels: {app: web}
spec:
  ports:
    - name: http
      port: 80
    - port: 443
"""


def one(text: str | bytes) -> Document:
    documents, problems = load(text, "f.yaml")
    assert problems == []
    assert len(documents) == 1
    return documents[0]


def refusal(text: str | bytes) -> str:
    documents, problems = load(text, "f.yaml")
    assert documents == []
    assert len(problems) == 1
    return str(problems[0])


def test_an_object_knows_what_it_is_and_where_it_stands() -> None:
    document = one(SERVICE)
    assert (document.api_version, document.kind, document.namespace, document.name) == (
        "v1", "Service", "default", "web",
    )  # fmt: skip
    assert document.source == "f.yaml:2"
    assert document.line_of("spec.ports[1].port") == 11
    assert document.at("spec.ports[0].port") == "f.yaml:10"
    assert document.line_of("spec.ports[0].protocol") == 9, "a field that is not there: the nearest above"
    assert document.line_of("metadata.labels[app]") == 6


def test_keys_in_brackets_find_their_lines() -> None:
    document = one("kind: X\nmetadata:\n  annotations:\n    fairlead.dev/mesh-port: '1'\nspec:\n  p:\n    8080: {a: 1}")
    assert document.line_of("metadata.annotations[fairlead.dev/mesh-port]") == 4
    assert document.line_of("spec.p[8080].a") == 7


def test_a_broken_document_does_not_take_the_others_with_it() -> None:
    documents, problems = load("kind: A\n---\nkind: [\n---\nkind: B\n---\n---\n# nothing\n---\nkind: C\n", "f.yaml")
    assert [document.kind for document in documents] == ["A", "B", "C"]
    assert [document.line for document in documents] == [1, 5, 10]
    assert len(problems) == 1
    assert problems[0].source.startswith("f.yaml:")


def test_a_list_becomes_its_items_with_their_lines() -> None:
    documents, problems = load(
        "apiVersion: v1\nkind: List\nitems:\n  - kind: A\n    spec:\n      x: 1\n  - kind: B\n  - 3\n", "f.yaml"
    )
    assert [(document.kind, document.source) for document in documents] == [("A", "f.yaml:4"), ("B", "f.yaml:7")]
    assert documents[0].line_of("spec.x") == 6
    assert [str(problem) for problem in problems] == ["f.yaml:8: expected an object in the list"]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("no", "no"), ("on", "on"), ("12:30:45", "12:30:45"), ("2024-01-01", "2024-01-01"), ("1_000", "1_000"),
        ("true", True), ("True", True), ("null", None), ("~", None), ("", None), ("0x1F", 31), ("0o17", 15), ("-3", -3),
        ("1e3", 1000.0), ("1.5", 1.5), ("'1'", "1"), ('"true"', "true"), ("2001:db8::1", "2001:db8::1"), ("=", "="),
    ],
)  # fmt: skip
def test_scalars_are_those_of_yaml_1_2(text: str, value: object) -> None:
    assert one(f"kind: A\nx: {text}\n").body["x"] == value


def test_integer_keys_are_text_as_in_json() -> None:
    assert one("kind: A\nports: {8080: {mode: STRICT}}").body["ports"] == {"8080": {"mode": "STRICT"}}


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: &x 1\nb: *x\n", "f.yaml:1: anchors"),
        ("a: 1\nb: 2\na: 3\n", "f.yaml:3: the key 'a' stands twice"),
        ("a: {b: 1, b: 2}\n", "the key 'b' stands twice"),
        ("a: " + "[" * 100_000, "nest"),
        ("a: " + "[" * (DEPTH_MAX + 1) + "]" * (DEPTH_MAX + 1), f"nested deeper than {DEPTH_MAX}"),
        ("x: {<<: {a: 1}}\n", "merge keys"),
        ("x: !!python/object:os.system {}\n", "tag"),
        ("? [a]\n: 1\n", "a key must be plain text"),
        ("- a\n", "expected an object"),
        ("just text", "expected an object"),
        (b"kind: \xff\n", "f.yaml:1: not UTF-8"),
        ("a: b: c\n", "f.yaml:1: not YAML"),
        ("a: 1\n\tb: 2\n", "f.yaml:2: not YAML"),
        ("a: \x07\n", "not YAML"),
    ],
)
def test_what_confuses_or_exhausts_a_reader_is_refused_with_its_line(text: str | bytes, says: str) -> None:
    assert says in refusal(text)


def test_json_is_read_too() -> None:
    body = {"apiVersion": "v1", "kind": "Service", "metadata": {"name": "web"}, "note": "\U0001f600", "big": 2**70}
    for text in (json.dumps(body), json.dumps(body, indent="\t"), json.dumps(body, ensure_ascii=False)):
        assert one(text).body == body
    assert "twice" in refusal('{"kind": "A",\n "kind": "B"}')


@given(st.integers(0, len(SERVICE)))
def test_a_text_cut_anywhere_is_read_or_refused(at: int) -> None:
    documents, problems = load(SERVICE[:at], "f.yaml")
    assert len(documents) + len(problems) <= 1


@settings(max_examples=150, deadline=None)
@given(st.one_of(st.binary(max_size=200), st.text(alphabet="ab:-{}[],'\"&*!|>?% \n\t#~1", max_size=200)))
def test_garbage_never_raises(text: bytes | str) -> None:
    documents, problems = load(text, "f.yaml")
    for document in documents:
        document.at("spec.http[0].match")
    assert all(problem.message for problem in problems)


def test_half_a_surrogate_pair_in_json_is_a_problem_and_not_a_text_nobody_can_print() -> None:
    for text in ('{"kind": "Service", "metadata": {"name": "\\ud800"}}', '{"\\udc00": 1}'):
        documents, problems = load(text, "a.json")
        assert documents == []
        assert len(problems) == 1
        str(problems[0]).encode()
    documents, problems = load('{"kind": "\\ud83d\\ude00"}', "a.json")
    assert (documents[0].kind, problems) == ("\U0001f600", [])
