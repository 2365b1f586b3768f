"""Signatures: what a key proves, and that the key alone says by which algorithm."""

from __future__ import annotations

import pytest

from fairlead.policy.json_web_token import Token
from fairlead.proxy.signatures import KeySet
from tests.tokens import ALGORITHMS, Signer, b64, signer


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_each_algorithm_proves_its_own_tokens_and_no_changed_ones(algorithm: str) -> None:
    own = signer(algorithm)
    keys = KeySet([own.jwk])
    token = Token(own.token())
    assert keys.proves(token)
    head, payload, signature = own.token().split(".")
    for forged in (
        f"{head}.{b64({'iss': token.issuer, 'sub': 'root'})}.{signature}",
        f"{b64({'alg': algorithm, 'kid': 'one', 'x': 1})}.{payload}.{signature}",
        f"{head}.{payload}.{b64(bytes(len(token.signature)))}",
        f"{head}.{payload}.{b64(token.signature[:-1])}",
        f"{head}.{payload}.{b64(token.signature + b'x')}",
    ):
        assert not keys.proves(Token(forged))


@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_no_other_algorithm_is_taken_than_the_keys(algorithm: str) -> None:
    keys = KeySet([{**signer(algorithm).jwk, "alg": algorithm}])
    for other in ALGORITHMS:
        if other != algorithm:
            assert not keys.knows(Token(signer(other).token()))


def test_a_key_without_alg_takes_what_its_kind_can_do_and_nothing_else() -> None:
    own = signer("RS256")
    keys = KeySet([own.jwk])
    signed = f"{b64({'alg': 'PS256'})}.{b64({'iss': 'x'})}"
    assert keys.proves(Token(f"{signed}.{b64(own.sign(signed.encode(), 'PS256'))}"))
    assert not keys.knows(Token(signer("ES256").token()))
    assert not keys.proves(Token(own.token(alg="PS256")))  # said PS256, signed by RS256


def test_a_key_id_chooses_the_key_and_means_nothing_else() -> None:
    one, two = signer("ES256"), Signer("ES256", "two")
    keys = KeySet([one.jwk, two.jwk])
    assert keys.proves(Token(two.token()))
    assert keys.proves(Token(two.token(kid=None)))  # without one all are tried
    assert not keys.proves(Token(two.token(kid="one")))
    for trick in ("../../etc/passwd", "x' OR 1=1", "", "ONE", "one\u0000", "two "):
        token = Token(two.token(kid=trick))
        assert keys.knows(token) == (trick == "") and keys.proves(token) == (trick == "")
    stranger = Signer("ES256", "one")
    assert not keys.proves(Token(stranger.token(jwk=stranger.jwk, jku="https://evil.example.com/", x5u="file:///x")))


def test_keys_that_are_no_keys_are_left_out() -> None:
    bad = {**signer("ES256").jwk, "x": signer("ES256").jwk["y"]}
    assert KeySet([bad]).keys == []
    assert len(KeySet([bad, signer("EdDSA").jwk]).keys) == 1
