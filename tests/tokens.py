"""Issuers for tests: keys of each kind, sets of them, and tokens good and forged."""

from __future__ import annotations

import hashlib
import hmac
import json
from base64 import urlsafe_b64encode
from functools import cache
from typing import Any

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

ISSUER = "https://issuer.example.com"
SIZES = {"256": hashes.SHA256(), "384": hashes.SHA384(), "512": hashes.SHA512()}
CURVES: dict[str, tuple[str, ec.EllipticCurve, int]] = {
    "ES256": ("P-256", ec.SECP256R1(), 32),
    "ES384": ("P-384", ec.SECP384R1(), 48),
    "ES512": ("P-521", ec.SECP521R1(), 66),
}
ALGORITHMS = ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA")


def b64(data: bytes | str | dict[str, Any]) -> str:
    if isinstance(data, dict):
        data = json.dumps(data)
    return urlsafe_b64encode(data.encode() if isinstance(data, str) else data).rstrip(b"=").decode()


def _octets(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8, "big")


class Signer:
    """A key pair and what may be made with it."""

    def __init__(self, algorithm: str, key_id: str = "one", bits: int = 2048) -> None:
        self.algorithm = algorithm
        self.key_id = key_id
        self.key: Any
        if algorithm[:2] in ("RS", "PS"):
            self.key = rsa.generate_private_key(65537, bits)
        elif algorithm in CURVES:
            self.key = ec.generate_private_key(CURVES[algorithm][1])
        else:
            self.key = ed25519.Ed25519PrivateKey.generate()

    @property
    def jwk(self) -> dict[str, Any]:
        public = self.key.public_key()
        made: dict[str, Any] = {"kid": self.key_id, "use": "sig"}
        if isinstance(public, rsa.RSAPublicKey):
            numbers = public.public_numbers()
            return made | {"kty": "RSA", "n": b64(_octets(numbers.n)), "e": b64(_octets(numbers.e))}
        if isinstance(public, ec.EllipticCurvePublicKey):
            curve, _, size = CURVES[self.algorithm]
            point = public.public_numbers()
            x, y = point.x.to_bytes(size, "big"), point.y.to_bytes(size, "big")
            return made | {"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)}
        raw = public.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
        return made | {"kty": "OKP", "crv": "Ed25519", "x": b64(raw)}

    @property
    def public_pem(self) -> bytes:
        """As somebody has it who knows the public key alone."""
        pem: bytes = self.key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        return pem

    def sign(self, signed: bytes, algorithm: str = "") -> bytes:
        algorithm = algorithm or self.algorithm
        if algorithm == "EdDSA":
            return bytes(self.key.sign(signed))
        digest = SIZES[algorithm[2:]]
        if algorithm in CURVES:
            size = CURVES[algorithm][2]
            r, s = decode_dss_signature(self.key.sign(signed, ec.ECDSA(digest)))
            return r.to_bytes(size, "big") + s.to_bytes(size, "big")
        if algorithm.startswith("PS"):
            return bytes(self.key.sign(signed, padding.PSS(padding.MGF1(digest), digest.digest_size), digest))
        return bytes(self.key.sign(signed, padding.PKCS1v15(), digest))

    def token(self, claims: dict[str, Any] | str | None = None, **header: Any) -> str:
        """Signed as its header says. `claims`: added to iss and sub; text: the whole payload as it is."""
        head = {"alg": self.algorithm, "kid": self.key_id, "typ": "JWT", **header}
        head = {name: value for name, value in head.items() if value is not None}
        payload = claims if isinstance(claims, str) else {"iss": ISSUER, "sub": "alice", **(claims or {})}
        signed = f"{b64(head)}.{b64(payload)}"
        return f"{signed}.{b64(self.sign(signed.encode(), self.algorithm))}"


def unsigned(claims: dict[str, Any] | None = None, algorithm: str = "none", signature: str = "") -> str:
    return f"{b64({'alg': algorithm})}.{b64({'iss': ISSUER, 'sub': 'alice', **(claims or {})})}.{signature}"


def confused(signer: Signer) -> str:
    """HS256 with the public key as secret."""
    signed = f"{b64({'alg': 'HS256', 'kid': signer.key_id})}.{b64({'iss': ISSUER, 'sub': 'alice'})}"
    return f"{signed}.{b64(hmac.new(signer.public_pem, signed.encode(), hashlib.sha256).digest())}"


@cache
def signer(algorithm: str = "RS256") -> Signer:
    """One of each kind for all tests: RSA keys take a while."""
    return Signer(algorithm)


def jwks(*signers: Signer) -> str:
    return json.dumps({"keys": [one.jwk for one in signers]})
