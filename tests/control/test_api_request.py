"""Paths, queries and Accept headers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.api_request import negotiate, parse_path, parse_query
from fairlead.control.catalog import Catalog
from fairlead.control.status import StatusError
from fairlead.policy.kinds import KINDS

CATALOG = Catalog(KINDS)


@pytest.mark.parametrize(
    ("path", "parts"),
    [
        ("/api/v1/services", ("services", "", "", "")),
        ("/api/v1/namespaces/shop/services", ("services", "shop", "", "")),
        ("/api/v1/namespaces/shop/services/web", ("services", "shop", "web", "")),
        ("/api/v1/namespaces/shop/services/web/status", ("services", "shop", "web", "status")),
        ("/api/v1/namespaces", ("namespaces", "", "", "")),
        ("/api/v1/namespaces/shop", ("namespaces", "", "shop", "")),
        ("/api/v1/namespaces/shop/status", ("namespaces", "", "shop", "status")),
        ("/apis/networking.istio.io/v1beta1/namespaces/shop/gateways/a", ("gateways", "shop", "a", "")),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Aview", ("clusterroles", "", "system:view", "")),
        ("/api/v1/services/", ("services", "", "", "")),
    ],
)
def test_paths_name_objects_and_collections(path: str, parts: tuple[str, str, str, str]) -> None:
    target = parse_path(CATALOG, path)
    assert (target.resource.plural, target.namespace, target.name, target.subresource) == parts


@pytest.mark.parametrize(
    "path",
    ["/", "/api", "/api/v1", "/apis/x/v1", "/api/v1/namespaces/a/namespaces/b", "/api/v1/namespaces/a/services/b/c/d",
     "/api/v1/namespaces/a/services/b/scale", "/api/v1/services/web", "/apis/fairlead.dev/v1/nothing", "",
     "/api/v1/namespaces/a/secrets/b/status"],
)  # fmt: skip
def test_other_paths_are_not_found(path: str) -> None:
    with pytest.raises(StatusError) as refused:
        parse_path(CATALOG, path)
    assert refused.value.code == 404


@given(st.lists(st.sampled_from(["", "api", "apis", "v1", "namespaces", "services", "status", "a", "%2F", "%", "%ff"])))
def test_any_path_is_a_target_or_not_found(steps: list[str]) -> None:
    try:
        parse_path(CATALOG, "/" + "/".join(steps))
    except StatusError as error:
        code = error.code
    else:
        code = 404
    assert code == 404


@pytest.mark.parametrize(
    ("accept", "media", "as_"),
    [
        ("", "application/json", ""), ("*/*", "application/json", ""), ("text/html,*/*;q=0.8", "application/json", ""),
        ("application/yaml", "application/yaml", ""),
        ("application/json;as=Table;v=v1;g=meta.k8s.io", "application/json", "Table"),
        ("application/json;as=Table;v=v1beta1,application/json", "application/json", ""),
        ("application/vnd.kubernetes.protobuf,application/json;q=0.5", "application/json", ""),
        ("application/cbor, application/json ; as=PartialObjectMetadata;v=v1", "application/json",
         "PartialObjectMetadata"),
    ],
)  # fmt: skip
def test_the_first_form_that_is_served_is_taken(accept: str, media: str, as_: str) -> None:
    form = negotiate(accept)
    assert (form.media, form.as_) == (media, as_)


@pytest.mark.parametrize("accept", ["application/vnd.kubernetes.protobuf", "application/xml", "image/*", ";;,=="])
def test_a_form_that_is_not_served_is_refused(accept: str) -> None:
    with pytest.raises(StatusError) as refused:
        negotiate(accept)
    assert refused.value.code == 406


NAMES = ["watch", "limit", "continue", "resourceVersion", "resourceVersionMatch", "sendInitialEvents", "timeoutSeconds",
         "dryRun", "fieldManager", "fieldValidation", "force", "pretty", "includeObject"]  # fmt: skip


@given(st.dictionaries(st.sampled_from(NAMES), st.text(max_size=12) | st.sampled_from(["1", "true", "All", "Warn"])))
def test_any_query_is_read_or_refused(query: dict[str, str]) -> None:
    try:
        parse_query(query)
    except StatusError as error:
        code = error.code
    else:
        code = 400
    assert code in (400, 422)


@pytest.mark.parametrize(
    ("query", "says"),
    [
        ({"resourceVersionMatch": "Exact"}, "resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "0"}, 'is forbidden for resourceVersion "0"'),
        ({"resourceVersionMatch": "Exact", "resourceVersion": "5", "continue": "x"}, "when continue is provided"),
        ({"sendInitialEvents": "true"}, "sendInitialEvents is forbidden for list"),
        ({"watch": "1", "sendInitialEvents": "true"}, "requires setting resourceVersionMatch to NotOlderThan"),
        ({"watch": "1", "resourceVersionMatch": "NotOlderThan"}, "for watch unless sendInitialEvents is provided"),
    ],
)
def test_what_cannot_be_asked_together_is_refused_as_upstream(query: dict[str, str], says: str) -> None:
    with pytest.raises(StatusError, match=says) as refused:
        parse_query(query)
    assert refused.value.code == 422
    assert refused.value.body()["message"].startswith('ListOptions.meta.k8s.io "" is invalid: ')


def test_a_list_goes_on_by_its_token_alone() -> None:
    with pytest.raises(StatusError, match="specifying resource version is not allowed when using continue") as refused:
        parse_query({"continue": "x", "resourceVersion": "5"})
    assert refused.value.code == 400
