"""Id tokens of OpenID Connect as credentials, with the meaning of kube-apiserver's `--oidc-*` flags.

A core: keys are given to it, and the time. RFC 7515, 7517, 7518, 7519; OpenID Connect Core 3.1.3.7. Only asymmetric
signatures are known, so that a public key can never be taken for a shared secret, and `none` does not exist.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from msgspec import Struct

TOKEN_BYTES_MAX = 16 << 10
KEYS_MAX = 100
RSA_BITS_MIN = 2048
SKEW_S = 10.0
"""So much later than our clock a token may have been issued, or become valid."""
ALGORITHMS = ("RS256", "RS384", "RS512", "ES256", "ES384", "ES512", "PS256", "PS384", "PS512")
_HASHES: dict[str, Callable[[], hashes.HashAlgorithm]] = {
    "256": hashes.SHA256, "384": hashes.SHA384, "512": hashes.SHA512
}  # fmt: skip
_CURVES: dict[str, tuple[type[ec.EllipticCurve], int]] = {
    "ES256": (ec.SECP256R1, 32), "ES384": (ec.SECP384R1, 48), "ES512": (ec.SECP521R1, 66)
}  # fmt: skip
_CURVE_NAMES: dict[str, type[ec.EllipticCurve]] = {"P-256": ec.SECP256R1, "P-384": ec.SECP384R1, "P-521": ec.SECP521R1}
PublicKey = rsa.RSAPublicKey | ec.EllipticCurvePublicKey


class OidcError(Exception):
    """The token is not good; the message says why without repeating it."""


class UnknownKeyError(OidcError):
    """No key is known with which it could have been signed: the issuer may have a new one."""


class Settings(Struct, frozen=True):
    """As kube-apiserver's flags of the same names."""

    issuer_url: str
    client_id: str
    username_claim: str = "sub"
    username_prefix: str = ""
    """Empty: `ISSUER#` for every claim but email; `-`: none."""
    groups_claim: str = ""
    groups_prefix: str = ""
    required_claims: Mapping[str, str] = {}
    signing_algs: tuple[str, ...] = ("RS256",)

    def user_prefix(self) -> str:
        if self.username_prefix:
            return "" if self.username_prefix == "-" else self.username_prefix
        return "" if self.username_claim == "email" else f"{self.issuer_url}#"


class Keys(Struct, frozen=True):
    """A JSON Web Key Set: (key id, algorithm it is for or empty, key)."""

    keys: tuple[tuple[str, str, PublicKey], ...] = ()

    def for_token(self, key_id: str, algorithm: str) -> list[PublicKey]:
        kind = ec.EllipticCurvePublicKey if algorithm.startswith("ES") else rsa.RSAPublicKey
        return [
            key
            for name, only, key in self.keys
            if (not key_id or name == key_id) and (not only or only == algorithm) and isinstance(key, kind)
        ]


def read_keys(data: bytes) -> Keys:
    """A JWKS document; keys of kinds that are not known here are passed over. Raises ValueError."""
    try:
        body = msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise ValueError(f"the key set is not JSON: {error}") from None
    listed = body.get("keys") if isinstance(body, dict) else None
    if not isinstance(listed, list):
        raise ValueError("the key set has no list `keys`")
    found: list[tuple[str, str, PublicKey]] = []
    for one in listed[:KEYS_MAX]:
        if not isinstance(one, dict) or one.get("use") not in (None, "sig"):
            continue
        try:
            key = _read_key(one)
        except (ValueError, KeyError, TypeError):
            continue
        if key is not None:
            found.append((str(one.get("kid", "")), str(one.get("alg", "")), key))
    return Keys(tuple(found))


def _read_key(one: Mapping[str, Any]) -> PublicKey | None:
    if one.get("kty") == "RSA":
        key = rsa.RSAPublicNumbers(_number(one["e"]), _number(one["n"])).public_key()
        return key if key.key_size >= RSA_BITS_MIN else None
    if one.get("kty") == "EC":
        return ec.EllipticCurvePublicNumbers(
            _number(one["x"]), _number(one["y"]), _CURVE_NAMES[one["crv"]]()
        ).public_key()
    return None


def _number(text: str) -> int:
    return int.from_bytes(_octets(text), "big")


def _octets(text: str) -> bytes:
    """base64url without padding. Raises ValueError."""
    if not isinstance(text, str) or "=" in text:
        raise ValueError("expected base64url without padding")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError(str(error)) from None


def _json(part: str) -> dict[str, Any]:
    try:
        value = msgspec.json.decode(_octets(part))
    except (ValueError, msgspec.DecodeError, RecursionError):
        raise OidcError("the id token cannot be read") from None
    if not isinstance(value, dict):
        raise OidcError("the id token cannot be read")
    return value


def looks_like_token(text: str) -> bool:
    """Whether a bearer token has the form of a JSON Web Token."""
    return text.count(".") == 2 and text.startswith("ey")


def issuer_of(text: str) -> str:
    """What an unverified token says of its issuer; empty where it says nothing."""
    try:
        return str(_json(text.split(".")[1]).get("iss", ""))
    except (OidcError, IndexError):
        return ""


def verify(settings: Settings, keys: Keys, text: str, now: float) -> tuple[str, tuple[str, ...]]:
    """(user name, groups) of an id token. Raises OidcError, and UnknownKeyError where new keys could help."""
    if len(text) > TOKEN_BYTES_MAX:
        raise OidcError(f"the id token is longer than {TOKEN_BYTES_MAX} bytes")
    parts = text.split(".")
    if len(parts) != 3:
        raise OidcError("the id token cannot be read")
    header, claims = _json(parts[0]), _json(parts[1])
    if claims.get("iss") != settings.issuer_url:
        raise OidcError(f"the id token is of another issuer than {settings.issuer_url}")
    algorithm = header.get("alg")
    if algorithm not in settings.signing_algs or algorithm not in ALGORITHMS:
        raise OidcError(
            f"the id token is signed by {str(algorithm)[:20]!r}; accepted are {', '.join(settings.signing_algs)}"
        )
    if "crit" in header:
        raise OidcError("the id token demands extensions that are not known here (crit)")
    try:
        signature = _octets(parts[2])
    except ValueError:
        raise OidcError("the id token cannot be read") from None
    candidates = keys.for_token(str(header.get("kid", "")), algorithm)
    if not candidates:
        raise UnknownKeyError("no key of the issuer fits the id token")
    signed = f"{parts[0]}.{parts[1]}".encode()
    if not any(_is_signed(key, algorithm, signature, signed) for key in candidates):
        raise UnknownKeyError("the signature of the id token is not good")
    _check_times(claims, now)
    _check_audience(settings, claims)
    return _user(settings, claims)


def _is_signed(key: PublicKey, algorithm: str, signature: bytes, signed: bytes) -> bool:
    digest = _HASHES[algorithm[2:]]()
    try:
        if isinstance(key, rsa.RSAPublicKey):
            pad: padding.AsymmetricPadding = padding.PKCS1v15()
            if algorithm.startswith("PS"):
                pad = padding.PSS(mgf=padding.MGF1(digest), salt_length=digest.digest_size)
            key.verify(signature, signed, pad, digest)
            return True
        curve, size = _CURVES[algorithm]
        if not isinstance(key.curve, curve) or len(signature) != 2 * size:
            return False
        r, s = (int.from_bytes(half, "big") for half in (signature[:size], signature[size:]))
        key.verify(encode_dss_signature(r, s), signed, ec.ECDSA(digest))
    except (InvalidSignature, ValueError):
        return False
    return True


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    def time_of(name: str) -> float | None:
        value = claims.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise OidcError(f"the id token's {name} is not a number")
        return float(value)

    expires, begins, issued = time_of("exp"), time_of("nbf"), time_of("iat")
    if expires is None:
        raise OidcError("the id token has no exp")
    if now >= expires:
        raise OidcError(f"the id token has expired {now - expires:.0f} s ago; sign in again")
    for name, at in (("nbf", begins), ("iat", issued)):
        if at is not None and at > now + SKEW_S:
            raise OidcError(f"the id token is {at - now:.0f} s from the future ({name}): compare the clocks")


def _check_audience(settings: Settings, claims: Mapping[str, Any]) -> None:
    audience = claims.get("aud")
    listed = audience if isinstance(audience, list) else [audience]
    if settings.client_id not in listed:
        raise OidcError(f"the id token is for another audience than {settings.client_id}")
    for name, value in settings.required_claims.items():
        if claims.get(name) != value:
            raise OidcError(f"the id token's claim {name} is not {value}")


def _user(settings: Settings, claims: Mapping[str, Any]) -> tuple[str, tuple[str, ...]]:
    name = claims.get(settings.username_claim)
    if not isinstance(name, str) or not name or not name.isprintable():
        raise OidcError(f"the id token has no claim {settings.username_claim} with a name")
    if settings.username_claim == "email" and claims.get("email_verified", True) is not True:
        raise OidcError("the issuer has not verified the email of the id token")
    groups: list[str] = []
    if settings.groups_claim and (told := claims.get(settings.groups_claim)) is not None:
        listed = [told] if isinstance(told, str) else told
        if not isinstance(listed, list) or not all(isinstance(group, str) for group in listed):
            raise OidcError(f"the id token's claim {settings.groups_claim} is not a list of texts")
        groups = [settings.groups_prefix + group for group in listed]
    name = settings.user_prefix() + name
    if name.startswith("system:") or any(group.startswith("system:") for group in groups):
        raise OidcError(
            "users and groups that begin with system: cannot come from an issuer; set --oidc-username-prefix and "
            "--oidc-groups-prefix"
        )
    return name, tuple(groups)
