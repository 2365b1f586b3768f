"""Tokens are read strictly: nothing that two readers could understand in two ways."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairlead.policy.json_web_token import (
    Token,
    TokenError,
    audience_fault,
    decode,
    key_fault,
    plain_audience,
    read_keys,
    time_fault,
)
from tests.tokens import ALGORITHMS, ISSUER, Signer, b64, jwks, signer, unsigned

NOW = 1_700_000_000.0
GOOD = f"{b64({'alg': 'RS256'})}.{b64({'iss': ISSUER})}.c2ln"


def made(
    header: dict[str, object] | str, payload: dict[str, object] | str | None, signature: str, raw: str = ""
) -> str:
    return f"{b64(header)}.{raw or b64(payload or '')}.{signature}"


def test_a_token_is_read() -> None:
    token = Token(signer("ES256").token({"groups": ["a"]}))
    assert (token.algorithm, token.key_id, token.issuer) == ("ES256", "one", ISSUER)
    assert token.claims["groups"] == ["a"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a.b", "3 sections"),
        ("a.b.c.d", "3 sections"),
        ("..", "3 sections"),
        (GOOD + ".", "3 sections"),
        (unsigned(), "3 sections"),
        (unsigned(signature="AAAA"), "[alg] is not supported"),
        (unsigned(algorithm="None", signature="AAAA"), "[alg] is not supported"),
        (unsigned(algorithm="HS256", signature="AAAA"), "[alg] is not supported"),
        (unsigned(algorithm="rs256", signature="AAAA"), "[alg] is not supported"),
        (made({"kid": "x"}, None, "AAAA", raw="e30"), "[alg] field is required"),
        (made({"alg": ["RS256"]}, None, "AAAA", raw="e30"), "[alg] field is required"),
        (made({"alg": "RS256", "kid": 7}, None, "AAAA", raw="e30"), "[kid] field is not a string"),
        (made({"alg": "RS256", "crit": ["b64"], "b64": False}, None, "AAAA", raw="e30"), "[crit]"),
        (made("[1]", None, "AAAA", raw="e30"), "header is an invalid JSON"),
        (made({"alg": "RS256"}, "{", "AAAA"), "payload is an invalid JSON"),
        (made({"alg": "RS256"}, '{"iss": "a", "iss": "b"}', "AAAA"), "a member twice"),
        (made('{"alg": "none", "alg": "RS256"}', None, "AAAA", raw="e30"), "a member twice"),
        (made({"alg": "RS256"}, '{"o": {"a": 1, "a": 2}}', "AAAA"), "a member twice"),
        (made({"alg": "RS256"}, '{"exp": NaN}', "AAAA"), "NaN is no number"),
        (made({"alg": "RS256"}, "[" * 5000, "AAAA"), "payload is an invalid JSON"),
        (made({"alg": "RS256"}, '{"iss": 5}', "AAAA"), "[iss] field is not a string"),
        (made({"alg": "RS256"}, '{"sub": ["a"]}', "AAAA"), "[sub] field is not a string"),
        (made({"alg": "RS256"}, None, "AAAA", raw="e30="), "payload is an invalid Base64url"),
        (made({"alg": "RS256"}, None, "AA+A", raw="e30"), "signature is an invalid Base64url"),
        (made({"alg": "RS256"}, None, "AA A", raw="e30"), "signature is an invalid Base64url"),
        (made({"alg": "RS256"}, None, "AAAAA", raw="e30"), "signature is an invalid Base64url"),
        (made({"alg": "RS256"}, None, "AB", raw="e30"), "signature is an invalid Base64url"),
        (made({"alg": "RS256"}, None, "AAAA", raw="e31"), "payload is an invalid Base64url"),
        (GOOD + "A" * 16384, "longer than 16384"),
    ],
)
def test_what_is_no_token_is_refused_with_the_reason(text: str, says: str) -> None:
    with pytest.raises(TokenError) as caught:
        Token(text)
    assert says in str(caught.value)


@given(st.binary(max_size=40))
def test_there_is_one_way_to_write_octets(data: bytes) -> None:
    text = b64(data)
    assert decode(text, "x") == data
    for other in (text + "=", text + "A==", "A" + text[1:] if text and text[0] != "A" else text + "\n"):
        try:
            assert decode(other, "x") != data
        except TokenError:
            pass


@given(st.text(max_size=200))
def test_reading_never_fails_in_another_way(text: str) -> None:
    for whole in (text, f"{b64({'alg': 'RS256'})}.{b64(text)}.AAAA"):
        try:
            Token(whole)
        except TokenError:
            pass


@pytest.mark.parametrize(
    ("claims", "fault"),
    [
        ({}, ""),
        ({"exp": NOW - 59}, ""),
        ({"exp": NOW - 60}, "Jwt is expired"),
        ({"exp": NOW + 3600, "nbf": NOW + 60}, ""),
        ({"nbf": NOW + 61}, "Jwt not yet valid"),
        ({"exp": 0}, "Jwt is expired"),
        ({"exp": "9999999999"}, "Jwt payload [exp] field is not a positive number"),
        ({"exp": True}, "Jwt payload [exp] field is not a positive number"),
        ({"exp": None}, "Jwt payload [exp] field is not a positive number"),
        ({"exp": -1}, "Jwt payload [exp] field is not a positive number"),
        ({"exp": float("inf")}, "Jwt payload [exp] field is not a positive number"),
        ({"nbf": [1]}, "Jwt payload [nbf] field is not a positive number"),
    ],
)
def test_time_is_judged_with_a_minute_of_leeway(claims: dict[str, object], fault: str) -> None:
    assert time_fault(claims, NOW) == fault


def test_audiences_are_compared_as_envoy_does() -> None:
    wanted = frozenset(map(plain_audience, ["https://shop.example.com/"]))
    for good in ("shop.example.com", "http://shop.example.com", ["x", "https://shop.example.com"]):
        assert audience_fault({"aud": good}, wanted) == ""
    wrong: list[dict[str, Any]] = [
        {},
        {"aud": []},
        {"aud": "shop"},
        {"aud": "SHOP.example.com"},
        {"aud": "shop.example.com.evil"},
    ]
    for bad in wrong:
        assert audience_fault(bad, wanted) == "Audiences in Jwt are not allowed"
    with pytest.raises(TokenError):
        audience_fault({"aud": 5}, wanted)
    assert audience_fault({"aud": "anything"}, frozenset()) == ""


def test_keys_that_cannot_prove_anything_are_told_apart() -> None:
    good = signer("RS256").jwk
    assert key_fault(good) == ""
    for algorithm in ALGORITHMS:
        assert key_fault(signer(algorithm).jwk) == ""
    for change, says in (
        ({"d": "AQAB"}, "private"),
        ({"kty": "oct", "k": "c2VjcmV0"}, "private or secret"),
        ({"kty": "oct"}, "not supported"),
        ({"use": "enc"}, "use is not sig"),
        ({"key_ops": ["sign"]}, "without verify"),
        ({"alg": "ES256"}, "none of a RSA key"),
        ({"alg": "HS256"}, "none of a RSA key"),
        ({"n": "AQAB"}, "fewer than 2048 bits"),
        ({"n": 5}, "has no n"),
        ({"e": "!!"}, "not base64url"),
        ({"kid": 5}, "kid is not a text"),
    ):
        assert says in key_fault({**good, **change}), change
    assert "crv" in key_fault({**signer("ES256").jwk, "crv": "secp256k1"})
    assert "1024" not in key_fault(good) and "fewer than 2048" in key_fault(Signer("RS256", bits=1024).jwk)


def test_a_set_of_keys_is_read_and_what_is_none_refused() -> None:
    keys, faults = read_keys(json.dumps({"keys": [signer("RS256").jwk, {"kty": "oct"}, 5]}).encode())
    assert [key["kty"] for key in keys] == ["RSA"]
    assert faults == ["keys[1]: kty 'oct' is not supported; RSA, EC and OKP are", "keys[2]: it is no object"]
    for bad in (b"", b"[]", b"{}", b'{"keys": {}}', b"\xff"):
        with pytest.raises(TokenError):
            read_keys(bad)
    assert len(read_keys(jwks(signer("RS256"), signer("EdDSA")).encode())[0]) == 2
