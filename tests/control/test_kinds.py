"""The check of the kinds that the API serves: what `fairlead validate` says, without what is the door's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairlead.control.catalog import Catalog
from fairlead.control.kinds import check, load_yaml
from fairlead.policy.kinds import KINDS
from tests.control.serving import api_in

RESOURCES = Catalog(KINDS).by_name


def judged(resource: str, version: str = "v1", **body: Any) -> Any:
    return check(RESOURCES[resource], version, {"metadata": {"name": "a"}, **body})


def test_schema_and_meaning_are_told_with_their_paths_and_metadata_is_the_doors() -> None:
    found = judged("virtualservices.networking.istio.io", spec={"hosts": ["a"], "frob": 1}, metadata={"labels": 5})
    assert [path for path, _ in found.unknown] == ["spec.frob"]
    assert [path for path, _ in found.errors] == ["spec"]
    assert [path for path, _ in judged("secrets", data={"a": "?"}).errors] == ["data[a]"]


def test_what_is_kept_without_a_schema_is_taken_as_it_is() -> None:
    event = Catalog(KINDS).by_name["events"]
    found = check(event, "v1", {"anything": 1})
    assert not (found.errors or found.unknown or found.warnings)


@pytest.mark.parametrize(
    ("text", "says"),
    [(b"a: [", "body"), (b"kind: A\n---\nkind: B\n", "expected one document, got 2"), (b"", "got 0")],
)
def test_a_body_of_yaml_is_one_document(text: bytes, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        load_yaml(text)
    assert load_yaml(b"kind: A\nx: 1\n") == {"kind": "A", "x": 1}


@pytest.mark.asyncio
async def test_a_secret_is_refused_and_kept_as_kubernetes_does(tmp_path: Path) -> None:
    path = "/api/v1/namespaces/default/secrets"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "a"}, "data": {"k": "plain text"}}
    async with api_in(tmp_path) as (_, client):
        told = await client.post(path, secret, 422)
        assert told["details"]["causes"][0]["field"] == "data[k]"
        assert "plain" not in told["message"]
        made = await client.post(path, {**secret, "data": {"k": "eA=="}, "immutable": True})
        told = await client.put(f"{path}/a", {**made, "data": {"k": "eQ=="}}, 422)
        assert told["message"] == 'Secret "a" is invalid: data: Forbidden: field is immutable when `immutable` is set'
        labelled = await client.put(f"{path}/a", {**made, "metadata": {**made["metadata"], "labels": {"x": "y"}}})
        assert labelled["data"] == {"k": "eA=="}
