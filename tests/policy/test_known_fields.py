"""What one version knows of objects, and what of an object another does not."""

from __future__ import annotations

from pathlib import Path

from fairlead.policy.kinds import BY_NAME
from fairlead.policy.known_fields import Understanding, known_fields, schema_id
from fairlead.registry.documents import load


def virtual_service(**http: object) -> dict[str, object]:
    return {"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": "a", "new": 1},
            "spec": {"hosts": ["a"], "http": [{"route": [{"destination": {"host": "a"}}], **http}]}}  # fmt: skip


VIRTUAL_SERVICES = "virtualservices.networking.istio.io"


def test_it_understands_all_that_it_knows_itself() -> None:
    own = Understanding(known_fields())
    documents, problems = load((Path(__file__).parent / "samples.yaml").read_text(), "samples.yaml")
    assert not problems
    looked_at = 0
    for document in documents:
        kind = BY_NAME.get((document.api_version, document.kind))
        if kind is not None and kind.name in known_fields():
            assert own.lacks(kind.name, document.body) == []
            looked_at += 1
    assert looked_at > 20


def test_an_older_version_lacks_kinds_fields_and_words_by_name() -> None:
    fields = known_fields()
    older = {name: [path for path in paths if ".timeout" not in path and not path.endswith("=LEAST_REQUEST")]
             for name, paths in fields.items() if name != "localratelimits.fairlead.dev"}  # fmt: skip
    lacks = Understanding(older).lacks
    assert lacks(VIRTUAL_SERVICES, virtual_service()) == []
    assert lacks(VIRTUAL_SERVICES, virtual_service(timeout="1s")) == ["it does not know spec.http[].timeout"]
    assert lacks("localratelimits.fairlead.dev", {"spec": {}}) == ["it does not know this kind"]
    rule = {"spec": {"host": "a", "trafficPolicy": {"loadBalancer": {"simple": "LEAST_REQUEST"}}}}
    assert lacks("destinationrules.networking.istio.io", rule) == [
        "it does not know spec.trafficPolicy.loadBalancer.simple=LEAST_REQUEST"
    ]
    rule["spec"]["trafficPolicy"] = {"load_balancer": {"simple": "ROUND_ROBIN"}}
    assert lacks("destinationrules.networking.istio.io", rule) == [], "snake_case is the same field"


def test_maps_and_what_may_be_anything_are_not_looked_into() -> None:
    own = Understanding(known_fields())
    assert own.lacks(VIRTUAL_SERVICES, virtual_service(headers={"request": {"set": {"x-any": "1"}}})) == []
    assert own.lacks("secrets", {"data": {"tls.crt": "x"}, "type": "kubernetes.io/tls"}) == []


def test_the_name_of_what_is_known_is_the_same_each_time() -> None:
    assert schema_id() == schema_id()
    assert len(schema_id()) == 16
