"""What a RequestAuthentication may not say, with path and reason."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.policy.judging import errors, warnings
from tests.tokens import jwks, signer

URL = "https://issuer.example.com/keys"


def policy(**rule: Any) -> str:
    spec = {"jwtRules": [{"issuer": "https://issuer.example.com", **rule}]}
    return json.dumps({"apiVersion": "security.istio.io/v1", "kind": "RequestAuthentication",
                       "metadata": {"name": "it"}, "spec": spec})  # fmt: skip


def test_what_people_write_is_taken() -> None:
    for rule in (
        {}, {"jwksUri": URL}, {"jwks_uri": URL}, {"jwks": jwks(signer("ES256"))}, {"issuer": "a@b", "jwksUri": URL},
        {"jwksUri": URL, "audiences": ["shop"], "fromHeaders": [{"name": "x-jwt", "prefix": "T "}], "fromParams": ["t"],
         "fromCookies": ["c"], "outputPayloadToHeader": "x-payload", "forwardOriginalToken": True, "timeout": "3s",
         "outputClaimToHeaders": [{"header": "x-sub", "claim": "sub"}], "spaceDelimitedClaims": ["roles"]},
    ):  # fmt: skip
        assert errors(policy(**rule)) == {} and warnings(policy(**rule)) == {}


PRIVATE = json.dumps({"keys": [signer("ES256").jwk, {**signer("ES256").jwk, "d": "AA"}]})


@pytest.mark.parametrize(
    ("rule", "path", "says"),
    [
        ({"issuer": ""}, "issuer", "Required value"),
        ({"issuer": "a@b"}, "jwks", "no URL at which keys could be discovered"),
        ({"jwksUri": URL, "jwks_uri": URL}, "jwks_uri", "another name"),
        ({"jwksUri": URL, "jwks": jwks(signer("ES256"))}, "jwks", "only one of them"),
        ({"jwksUri": "file:///etc/passwd"}, "jwksUri", "must be a URL"),
        ({"jwksUri": "https://user:pw@x/"}, "jwksUri", "without user"),
        ({"jwksUri": "https:///keys"}, "jwksUri", "must be a URL"),
        ({"jwksUri": "https://x/ HTTP/1.1\r\nx: y"}, "jwksUri", "blanks"),
        ({"jwksUri": "https://x:99999/"}, "jwksUri", "must be a URL"),
        ({"jwks": "{"}, "jwks", "invalid JSON"),
        ({"jwks": '{"keys": []}'}, "jwks", "no key of it"),
        ({"jwks": '{"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}'}, "jwks", "private or secret"),
        ({"jwks": PRIVATE}, "jwks", "keys[1]: it holds a private or secret key"),
        ({"jwksUri": URL, "audiences": [""]}, "audiences[0]", "may not be empty"),
        ({"jwksUri": URL, "fromHeaders": [{"name": "a b"}]}, "fromHeaders[0].name", "not the name of a header"),
        ({"jwksUri": URL, "outputPayloadToHeader": "Host"}, "outputPayloadToHeader", "a meaning of its own"),
        ({"jwksUri": URL, "outputClaimToHeaders": [{"header": "x-forwarded-client-cert", "claim": "a"}]},
         "outputClaimToHeaders[0].header", "a meaning of its own"),
        ({"jwksUri": URL, "outputClaimToHeaders": [{"header": "x-a", "claim": ""}]},
         "outputClaimToHeaders[0].claim", "Required value"),
    ],
)  # fmt: skip
def test_each_mistake_is_named(rule: dict[str, Any], path: str, says: str) -> None:
    found = errors(policy(**rule))
    assert says in found[f"spec.jwtRules[0].{path}"]


def test_a_secret_of_a_key_is_repeated_nowhere() -> None:
    text = json.dumps({"keys": [{**signer("ES256").jwk, "d": "TOPSECRET"}]})
    assert "TOPSECRET" not in str(errors(policy(jwks=text)))


def test_what_is_unsafe_or_without_effect_is_said() -> None:
    assert "use https" in warnings(policy(jwksUri="http://issuer/keys"))["spec.jwtRules[0].jwksUri"]
    empty = "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {name: it}\nspec: {}\n"
    assert "has no effect" in warnings(empty)["spec.jwtRules"]
    mixed = json.dumps({"keys": [signer("ES256").jwk, {"kty": "oct"}]})
    assert "left out" in warnings(policy(jwks=mixed))["spec.jwtRules[0].jwks"]
