"""The table of all kinds: names, schemas, and manifests as people have them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from fairlead.policy.kinds import BY_NAME, KINDS, RULE_KINDS, why_unknown
from fairlead.policy.parse import RESOURCES, parse
from fairlead.policy.validate import validate
from fairlead.registry.documents import load
from fairlead.registry.kinds import FACT_KINDS
from fairlead.registry.kinds_kept import KEPT_KINDS, template_labels
from fairlead.registry.schema import Node, openapi

SAMPLES = Path(__file__).with_name("samples.yaml")
PUBLISHED = Path(__file__).with_name("samples_published.yaml")


def test_every_kind_of_the_contract_is_there_in_all_its_versions() -> None:
    istio = ("v1", "v1beta1", "v1alpha3")
    wanted = {
        "": (("v1",), ("Namespace", "Service", "Pod", "Secret")),
        "discovery.k8s.io": (("v1",), ("EndpointSlice",)),
        "networking.k8s.io": (("v1",), ("NetworkPolicy", "Ingress")),
        "networking.istio.io": (
            istio, ("VirtualService", "DestinationRule", "Gateway", "ServiceEntry", "WorkloadEntry", "Sidecar"),
        ),
        "security.istio.io": (
            ("v1", "v1beta1"), ("PeerAuthentication", "AuthorizationPolicy", "RequestAuthentication"),
        ),
        "rbac.authorization.k8s.io": (("v1",), ("Role", "RoleBinding", "ClusterRole", "ClusterRoleBinding")),
        "fairlead.dev": (("v1",), ("MeshConfig", "LocalRateLimit")),
    }  # fmt: skip
    for group, (versions, kinds) in wanted.items():
        for version in versions:
            for kind in kinds:
                assert (f"{group}/{version}" if group else version, kind) in BY_NAME


def test_names_are_unique() -> None:
    names = [name for kind in KINDS for name in (kind.plural, *kind.short_names)]
    assert len(names) == len(set(names))
    assert len({kind.name for kind in KINDS}) == len(KINDS)


def test_manifests_as_people_have_them_are_valid_unchanged() -> None:
    documents, problems = load(SAMPLES.read_bytes(), "samples.yaml")
    assert problems == []
    wrong = [sentence for report in validate(documents) for sentence in report.sentences() if not report.valid]
    assert wrong == []


def test_samples_together_use_every_kind_but_clusters_roles_and_pods() -> None:
    documents, _ = load(SAMPLES.read_bytes(), "samples.yaml")
    missing = {kind.kind for kind in (*FACT_KINDS, *RULE_KINDS)} - {document.kind for document in documents}
    assert missing == {"Pod", "ConfigMap", "ClusterRole", "ClusterRoleBinding"}


def test_published_forms_are_valid_unchanged_and_what_is_only_kept_says_what_to_do_instead() -> None:
    documents, problems = load(PUBLISHED.read_bytes(), "published.yaml")
    assert problems == []
    kept = {kind.kind for kind in KEPT_KINDS}
    assert kept <= {document.kind for document in documents}
    for report in validate(documents):
        assert report.valid, report.sentences()
        about = [told.message for told in report.warnings if not told.path]
        if report.kind in kept:
            assert len(about) == 1 and about[0].startswith(f"{report.kind} is kept, and ")
            assert ("fairlead run" in about[0]) == (template_labels(report.kind, {}) is not None)


def test_a_deployments_template_is_what_selectors_may_select() -> None:
    documents, _ = load(PUBLISHED.read_bytes(), "published.yaml")
    assert not [one for report in validate(documents) for one in report.sentences() if "selects no workload" in one]
    body = {"spec": {"jobTemplate": {"spec": {"template": {"metadata": {"labels": {"a": "b"}}}}}}}
    assert template_labels("CronJob", body) == {"a": "b"}
    assert template_labels("Deployment", {"spec": None}) == {} and template_labels("Service", body) is None
    lost = [one for one in documents if one.name != "ledger-v1"]
    wrong = [one for report in validate(lost) for one in report.sentences() if "selects no workload" in one]
    assert len(wrong) == 2 and all("app=ledger" in one for one in wrong), wrong


def test_kinds_that_nothing_acts_by_say_so_once() -> None:
    documents, _ = load(SAMPLES.read_bytes(), "samples.yaml")
    for report in validate(documents):
        inert = [told for told in report.warnings if "nothing acts by it yet" in told.message]
        assert len(inert) == 0  # there is none of them now


@pytest.mark.parametrize(
    ("version", "kind", "says"),
    [
        ("v1", "Sevice", "did you mean Service?"),
        ("v1", "Unheard", "known are AuthorizationPolicy, "),
        ("extensions/v1beta1", "Deployment", "Deployment is of apps/v1, not of extensions/v1beta1"),
        ("gateway.networking.k8s.io/v1", "Gateway", "use Istio's Gateway and VirtualService"),
        ("gateway.networking.k8s.io/v1", "HTTPRoute", "the Gateway API is not carried out"),
        ("networking.istio.io/v1", "EnvoyFilter", "there is no Envoy"),
        ("networking.istio.io/v1", "WasmPlugin", "there are no WebAssembly filters"),
        ("v1", "VirtualService", "is of networking.istio.io/v1 or networking.istio.io/v1beta1"),
        ("", "Service", "apiVersion and kind must both be given"),
    ],
)
def test_unknown_kinds_are_refused_with_what_was_meant(version: str, kind: str, says: str) -> None:
    assert says in why_unknown(version, kind)


def test_typed_resources_have_every_field_that_is_honoured() -> None:
    """A field that the schema takes must not get lost on its way to the typed resource."""
    import msgspec

    def fields_of(kind: Any) -> dict[str, Any]:
        return {field.encode_name: field.type for field in msgspec.structs.fields(kind)}

    def walk(node: Node, kind: Any, path: str) -> None:
        for part in getattr(kind, "__args__", ()):  # Optional, list, dict
            if isinstance(part, type) and issubclass(part, msgspec.Struct):
                return walk(node.item if node.item is not None else node, part, path)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and node.kind == "object":
            known = fields_of(kind)
            for name, field in node.fields.items():
                if field.refused or field.unused:
                    continue
                assert name in known, f"{path}.{name} is taken by the schema and lost"
                walk(field, known[name], f"{path}.{name}")
        return None

    for kind in KINDS:
        if kind.kind in RESOURCES:
            if kind.kind != "Secret":  # has no spec; what stands beside the data is not for us
                walk(kind.schema.fields["spec"], RESOURCES[kind.kind][1], kind.kind)


def test_samples_become_typed_resources() -> None:
    documents, _ = load(SAMPLES.read_bytes(), "samples.yaml")
    for document in documents:
        parsed = parse(document)
        assert parsed.errors == []
        assert (parsed.resource is not None) == (document.kind in RESOURCES)


def test_every_schema_has_an_openapi_form() -> None:
    for kind in KINDS:
        assert openapi(kind.schema)["type"] == "object"
