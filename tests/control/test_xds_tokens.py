"""RequestAuthentication as Envoy's filter, and what policies ask of a proved token."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from fairlead.control.xds_node import Notes
from fairlead.control.xds_tokens import NEVER, NO_KEYS, claim_rules, principal_rules, proving_keys, token_filters
from fairlead.control.xds_wire import encode_any
from fairlead.policy.authorize_values import Subject, _claims, request_principal, shape
from fairlead.policy.peer import Peer
from fairlead.policy.request_authentication import TokenRules, token_rules
from fairlead.policy.tables import Arrival, SimpleRequest
from fairlead.registry.model import Workload
from tests.control.test_xds_rbac import metadata_holds
from tests.control.xds_worlds import world
from tests.tokens import Signer, jwks, signer

RULE = "RequestAuthentication default/u rule 0"
WORDS = st.sampled_from(["", "a", "b", "/", "a/b", "ab", "https://i", "i/a", "/a"])
SHAPES = st.one_of(st.just("*"), WORDS, WORDS.map(lambda one: one + "*"), WORDS.map(lambda one: "*" + one)).filter(bool)
ISSUERS = ["a", "https://i", "i", "a/b"]


def subject(claims: Any) -> Subject:
    request = SimpleRequest(Arrival("inbound"))
    request.claims = claims
    return Subject(Peer(), 80, request)


@given(SHAPES, st.sampled_from(ISSUERS), WORDS)
def test_a_request_principal_has_the_same_shapes_taken_apart(value: str, issuer: str, name: str) -> None:
    claims = {"iss": issuer, "sub": name}
    held = any(all(metadata_holds(one["metadata"], claims) for one in each) for each in principal_rules(ISSUERS, value))
    assert held == shape(value)(request_principal(subject(claims))), principal_rules(ISSUERS, value)
    for nothing in (None, {"iss": issuer}, {"sub": name}, {"iss": issuer, "sub": 7}):
        assert not any(
            all(metadata_holds(one["metadata"], nothing) for one in each) for each in principal_rules(ISSUERS, value)
        )


CLAIMS = st.recursive(
    st.one_of(st.sampled_from(["", "a", "a b", "b a", "ab", "b"]), st.integers(0, 3), st.booleans(), st.none()),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["x", "scope"]), inner, max_size=2)
    ), max_leaves=5,
)  # fmt: skip


PATHS = st.sampled_from([["x"], ["scope"], ["x", "scope"], ["x", "x"]])


@given(st.dictionaries(st.sampled_from(["x", "scope"]), CLAIMS), PATHS, st.sampled_from(["a", "a*", "*b", "*"]))
def test_claims_have_the_same_shapes(claims: dict[str, Any], path: list[str], value: str) -> None:
    match: Any = {"exact": value}
    if value == "*":
        match = {"safe_regex": {"regex": ".+"}}
    elif "*" in value:
        match = {"suffix": value[1:]} if value[0] == "*" else {"prefix": value[:-1]}
    if isinstance(claims.get("scope"), str):
        claims["scope"] = claims["scope"].split(" ")  # Envoy does so (normalize_payload_in_metadata), as a sidecar does
    ours = _claims(path)([value])(subject(claims))
    held = any(metadata_holds(one["metadata"], claims) for one in claim_rules(path, match, value))
    assert held == ours, (claims, claim_rules(path, match, value))


def rules_of(*jwt: dict[str, Any]) -> TokenRules:
    text = {"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication", "metadata": {"name": "u"},
            "spec": {"jwtRules": list(jwt)}}  # fmt: skip
    made = token_rules(
        world([text]).resources.request_authentications, "istio-system", Workload("default", "w", addresses=())
    )
    assert made is not None
    return made


def config(rules: TokenRules, note: Notes, **keys: str) -> dict[str, Any]:
    filters = token_filters(rules, lambda source: keys.get(source[0], ""), note)
    for one in filters:
        encode_any(one["typed_config"])
    return dict(filters[-1]["typed_config"])


def test_keys_that_are_not_there_prove_nothing_and_that_is_told() -> None:
    note = Notes()
    rules = rules_of({"issuer": "i", "jwksUri": "http://k/"})
    assert config(rules, note)["providers"][RULE]["local_jwks"] == {"inline_string": NO_KEYS}
    assert note.listed() == [
        "RequestAuthentication default/u rule 0: there are no keys of i (yet); requests with its tokens are refused"
    ]
    note = Notes()
    given = config(rules, note, url=jwks(signer("ES256")))["providers"][RULE]["local_jwks"]["inline_string"]
    assert json.loads(given) == {"keys": [signer("ES256").jwk]}
    assert note.listed() == []


def test_secret_keys_go_to_nobody() -> None:
    secret = {"kty": "oct", "k": "c2VjcmV0", "kid": "s"}
    both = json.dumps({"keys": [secret, Signer("ES256").jwk]})
    assert "c2VjcmV0" not in proving_keys(both)
    assert proving_keys(json.dumps({"keys": [secret]})) == proving_keys("[]") == proving_keys("x") == ""


def test_a_bad_token_is_refused_and_none_is_needed() -> None:
    key = {"jwks": jwks(signer("ES256"))}
    one = config(rules_of({"issuer": "i", **key}), Notes())["rules"][-1]["requires"]
    assert one == {"requires_any": {"requirements": [{"provider_name": RULE}, {"allow_missing": {}}]}}
    two = config(rules_of({"issuer": "i", **key}, {"issuer": "j", **key}), Notes())["rules"][-1]["requires"]
    first, second, each = two["requires_any"]["requirements"]
    assert (first, second) == ({"provider_name": RULE}, {"provider_name": RULE.replace("0", "1")})
    assert [one["requires_any"]["requirements"][1] for one in each["requires_all"]["requirements"]] == [
        {"allow_missing": {}}
    ] * 2


def test_what_envoy_would_overlook_is_refused_first() -> None:
    note = Notes()
    made = config(rules_of({"issuer": "i", "jwks": jwks(signer("ES256"))},
                           {"issuer": "j", "jwks": jwks(signer("ES256")), "fromCookies": ["c"]}), note)  # fmt: skip
    *refused, _ = made["rules"]
    assert [one["match"]["headers"][0]["name"] for one in refused] == ["authorization", ":path", "cookie"]
    assert all(one["requires"] == {"provider_name": NEVER} for one in refused)
    assert note.listed() == ["tokens in the cookie c are not carried out by xDS; requests with it are refused"]


def test_headers_that_tell_of_a_token_are_taken_from_everybody() -> None:
    rules = rules_of({"issuer": "i", "jwks": jwks(signer("ES256")), "outputPayloadToHeader": "x-payload",
                      "outputClaimToHeaders": [{"header": "user", "claim": "sub"}]})  # fmt: skip
    first, _ = token_filters(rules, lambda _: "", Notes())
    assert first["typed_config"]["mutations"]["request_mutations"] == [
        {"remove": "x-payload"}, {"remove": "x_payload"}, {"remove": "user"}
    ]  # fmt: skip
