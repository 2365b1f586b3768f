"""JSON Web Tokens (RFC 7515, 7519) as text: read strictly, and judged by their claims. Signatures are others' business.

What two readers could understand in two ways is refused: a member twice, octets beyond the last digit of base64url,
numbers that are none, critical extensions. The sentences are Envoy's where Envoy has one.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode
from binascii import Error as Base64Error
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

TOKEN_MOST = 16384
"""Characters of a token that is looked at."""
LEEWAY_S = 60.0
"""How far an issuer's clock may be off (Envoy's default)."""
ALGORITHMS: dict[str, tuple[str, str]] = {
    **{f"{family}{size}": ("RSA", "") for family in ("RS", "PS") for size in (256, 384, 512)},
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
"""Key type and curve that a signature by an algorithm needs. Secret keys (HS256 ...) and `none` are not among them."""
PRIVATE_MEMBERS = ("d", "p", "q", "dp", "dq", "qi", "oth", "k")
RSA_BITS_LEAST = 2048
_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
_DIGITS = frozenset(_ALPHABET)


class TokenError(ValueError):
    """Why a token, or a set of keys, cannot be used: one sentence without anything secret in it."""


class Token:
    """A token that could be read; nothing of it is proved yet."""

    __slots__ = ("algorithm", "claims", "key_id", "payload", "signature", "signed")

    def __init__(self, text: str) -> None:
        """Raises TokenError."""
        if len(text) > TOKEN_MOST:
            raise TokenError(f"Jwt is longer than {TOKEN_MOST} characters")
        parts = text.split(".")
        if len(parts) != 3 or not all(parts):
            raise TokenError("Jwt is not in the form of Header.Payload.Signature with two dots and 3 sections")
        header = _object(decode(parts[0], "header"), "header")
        algorithm = header.get("alg")
        if not isinstance(algorithm, str):
            raise TokenError("Jwt header [alg] field is required and must be a string")
        if algorithm not in ALGORITHMS:
            raise TokenError("Jwt header [alg] is not supported")
        if "crit" in header:
            raise TokenError("Jwt header [crit] asks for an extension that is not supported")
        key_id = header.get("kid", "")
        if not isinstance(key_id, str):
            raise TokenError("Jwt header [kid] field is not a string")
        self.algorithm = algorithm
        self.key_id = key_id
        self.payload = parts[1]
        """As it stands in the token: base64url without padding."""
        self.claims: Mapping[str, Any] = _object(decode(parts[1], "payload"), "payload")
        self.signed = f"{parts[0]}.{parts[1]}".encode()
        self.signature = decode(parts[2], "signature")
        for name in ("iss", "sub"):
            if not isinstance(self.claims.get(name, ""), str):
                raise TokenError(f"Jwt payload [{name}] field is not a string")

    @property
    def issuer(self) -> str:
        return str(self.claims.get("iss", ""))


def decode(text: str, what: str) -> bytes:
    """Octets of base64url without padding, in the one way to write them. Raises TokenError."""
    if not _DIGITS.issuperset(text) or len(text) % 4 == 1:
        raise TokenError(f"Jwt {what} is an invalid Base64url encoded")
    try:
        data = urlsafe_b64decode(text + "=" * (-len(text) % 4))
    except (Base64Error, ValueError):
        raise TokenError(f"Jwt {what} is an invalid Base64url encoded") from None
    spare = {2: 0x0F, 3: 0x03}.get(len(text) % 4)
    if spare is not None and _value(text[-1]) & spare:
        raise TokenError(f"Jwt {what} is an invalid Base64url encoded")
    return data


def _value(digit: str) -> int:
    return _ALPHABET.index(digit)


def _pairs(pairs: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise TokenError("it has a member twice")
    return made


def _no_number(text: str) -> Any:
    raise TokenError(f"{text} is no number")


def read_json(data: bytes) -> Any:
    """JSON in which no object has a member twice. Raises TokenError."""
    try:
        return json.loads(data.decode("utf-8"), object_pairs_hook=_pairs, parse_constant=_no_number)
    except RecursionError:
        raise TokenError("it is nested too deeply") from None
    except (ValueError, TokenError) as error:
        raise TokenError(str(error)[:200]) from None


def _object(data: bytes, what: str) -> dict[str, Any]:
    try:
        made = read_json(data)
    except TokenError as error:
        raise TokenError(f"Jwt {what} is an invalid JSON: {error}") from None
    if not isinstance(made, dict):
        raise TokenError(f"Jwt {what} is an invalid JSON: it is no object")
    return made


def time_fault(claims: Mapping[str, Any], now: float, leeway_s: float = LEEWAY_S) -> str:
    """What is wrong with the token's time at `now` (Unix seconds); empty: nothing. One without `exp` does not end."""
    at: dict[str, float] = {}
    for name in ("nbf", "exp"):
        value = claims.get(name)
        if value is None and name not in claims:
            continue
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value) or value < 0:
            return f"Jwt payload [{name}] field is not a positive number"
        at[name] = value
    if "nbf" in at and at["nbf"] > now + leeway_s:
        return "Jwt not yet valid"
    if "exp" in at and at["exp"] + leeway_s <= now:
        return "Jwt is expired"
    return ""


def audiences(claims: Mapping[str, Any]) -> list[str]:
    """Raises TokenError."""
    value = claims.get("aud", [])
    found = [value] if isinstance(value, str) else value
    if not isinstance(found, list) or not all(isinstance(one, str) for one in found):
        raise TokenError("Jwt payload [aud] field is neither a string nor a list of strings")
    return found


def audience_fault(claims: Mapping[str, Any], wanted: frozenset[str]) -> str:
    """Compared as Envoy does: without `https://` or `http://` before them and one slash behind."""
    if not wanted:
        return ""
    return "" if wanted & {plain_audience(one) for one in audiences(claims)} else "Audiences in Jwt are not allowed"


def plain_audience(text: str) -> str:
    return text.removeprefix("https://").removeprefix("http://").removesuffix("/")


def key_fault(key: Any) -> str:
    """Why a member of a JWKS cannot prove tokens by itself; empty: it may."""
    if not isinstance(key, Mapping):
        return "it is no object"
    kind = key.get("kty")
    if any(name in key for name in PRIVATE_MEMBERS):
        return f"it holds a private or secret key (kty {kind}): publish its public half, and make a new pair"
    if kind not in ("RSA", "EC", "OKP"):
        return f"kty {str(kind)[:20]!r} is not supported; RSA, EC and OKP are"
    if key.get("use", "sig") != "sig":
        return "its use is not sig"
    if isinstance(key.get("key_ops"), list) and "verify" not in key["key_ops"]:
        return "its key_ops are without verify"
    if kind != "RSA" and key.get("crv") not in {curve for own, curve in ALGORITHMS.values() if own == kind}:
        return f"crv {str(key.get('crv'))[:20]!r} is not supported"
    if key.get("alg") is not None and ALGORITHMS.get(str(key["alg"]), ("",))[0] != kind:
        return f"alg {str(key['alg'])[:20]!r} is none of a {kind} key"
    for name in {"RSA": ("n", "e"), "EC": ("x", "y"), "OKP": ("x",)}[kind]:
        value = key.get(name)
        if not isinstance(value, str):
            return f"it has no {name}"
        try:
            data = decode(value.rstrip("="), name)
        except TokenError:
            return f"its {name} is not base64url"
        if name == "n" and int.from_bytes(data, "big").bit_length() < RSA_BITS_LEAST:
            return f"it has fewer than {RSA_BITS_LEAST} bits"
    if not isinstance(key.get("kid", ""), str):
        return "its kid is not a text"
    return ""


def read_keys(data: bytes) -> tuple[list[Mapping[str, Any]], list[str]]:
    """(keys that can prove tokens, why others cannot) of a JWKS. Raises TokenError where it is none."""
    try:
        made = read_json(data)
    except TokenError as error:
        raise TokenError(f"Jwks is an invalid JSON: {error}") from None
    keys = made.get("keys") if isinstance(made, dict) else None
    if not isinstance(keys, list):
        raise TokenError("Jwks does not have a list [keys]")
    good, faults = [], []
    for index, key in enumerate(keys):
        fault = key_fault(key)
        if fault:
            faults.append(f"keys[{index}]: {fault}")
        else:
            good.append(key)
    return good, faults
