"""Signatures of tokens (RFC 7518, 8037). The only file of the data path that needs cryptography: ten megabytes, so it
is imported when a RequestAuthentication applies, and by nobody else."""

from __future__ import annotations

from base64 import urlsafe_b64decode
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256, SHA384, SHA512, HashAlgorithm

from ..policy.json_web_token import ALGORITHMS, Token

_HASHES: dict[str, HashAlgorithm] = {"256": SHA256(), "384": SHA384(), "512": SHA512()}
_CURVES: dict[str, tuple[ec.EllipticCurve, int]] = {
    "P-256": (ec.SECP256R1(), 32),
    "P-384": (ec.SECP384R1(), 48),
    "P-521": (ec.SECP521R1(), 66),
}
Check = Callable[[str, bytes, bytes], None]
"""(algorithm, signature, what is signed); raises InvalidSignature."""


class Key:
    __slots__ = ("algorithm", "check", "curve", "key_id", "kind")

    def __init__(self, jwk: Mapping[str, Any]) -> None:
        """Raises ValueError for numbers that make no key. `jwk`: one that `json_web_token.key_fault` lets through."""
        self.kind: str = jwk["kty"]
        self.curve: str = jwk.get("crv", "")
        self.key_id: str = jwk.get("kid", "")
        self.algorithm: str = jwk.get("alg") or ""
        self.check: Check = {"RSA": _rsa, "EC": _ec, "OKP": _ed}[self.kind](jwk)

    def fits(self, token: Token) -> bool:
        """The key says what it is good for; the token's `alg` only says which of that was used."""
        kind, curve = ALGORITHMS[token.algorithm]
        if kind != self.kind or (curve and curve != self.curve):
            return False
        if self.algorithm and self.algorithm != token.algorithm:
            return False
        return not token.key_id or not self.key_id or token.key_id == self.key_id


class KeySet:
    """Keys of one issuer."""

    def __init__(self, jwks: Sequence[Mapping[str, Any]]) -> None:
        self.keys: list[Key] = []
        for jwk in jwks:
            try:
                self.keys.append(Key(jwk))
            except ValueError:
                continue  # a point that is on no curve, a modulus that is none

    def knows(self, token: Token) -> bool:
        """Whether any key may have signed it."""
        return any(key.fits(token) for key in self.keys)

    def proves(self, token: Token) -> bool:
        for key in self.keys:
            if key.fits(token):
                try:
                    key.check(token.algorithm, token.signature, token.signed)
                except (InvalidSignature, ValueError):
                    continue
                return True
        return False


def _number(jwk: Mapping[str, Any], name: str) -> int:
    return int.from_bytes(_octets(jwk, name), "big")


def _octets(jwk: Mapping[str, Any], name: str) -> bytes:
    text = jwk[name].rstrip("=")
    return urlsafe_b64decode(text + "=" * (-len(text) % 4))


def _rsa(jwk: Mapping[str, Any]) -> Check:
    key = rsa.RSAPublicNumbers(_number(jwk, "e"), _number(jwk, "n")).public_key()

    def check(algorithm: str, signature: bytes, signed: bytes) -> None:
        digest = _HASHES[algorithm[2:]]
        if algorithm.startswith("PS"):
            key.verify(signature, signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest)
        else:
            key.verify(signature, signed, padding.PKCS1v15(), digest)

    return check


def _ec(jwk: Mapping[str, Any]) -> Check:
    curve, size = _CURVES[jwk["crv"]]
    key = ec.EllipticCurvePublicNumbers(_number(jwk, "x"), _number(jwk, "y"), curve).public_key()

    def check(algorithm: str, signature: bytes, signed: bytes) -> None:
        if len(signature) != 2 * size:
            raise InvalidSignature
        halves = int.from_bytes(signature[:size], "big"), int.from_bytes(signature[size:], "big")
        key.verify(encode_dss_signature(*halves), signed, ec.ECDSA(_HASHES[algorithm[2:]]))

    return check


def _ed(jwk: Mapping[str, Any]) -> Check:
    key = ed25519.Ed25519PublicKey.from_public_bytes(_octets(jwk, "x"))

    def check(_algorithm: str, signature: bytes, signed: bytes) -> None:
        key.verify(signature, signed)

    return check
