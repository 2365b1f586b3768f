"""Id tokens of OpenID Connect as credentials, with the meaning of kube-apiserver's `--oidc-*` flags.

A core: keys are given to it, and the time. OpenID Connect Core 3.1.3.7. Tokens, sets of keys and signatures are read as
those of end users are (policy/json_web_token.py, proxy/signatures.py): only asymmetric signatures are known, so that a
public key can never be taken for a shared secret, and `none` does not exist.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isfinite
from typing import Any

from msgspec import Struct

from ..policy.json_web_token import ALGORITHMS as KNOWN
from ..policy.json_web_token import Token, TokenError
from ..proxy.signatures import KeySet

SKEW_S = 10.0
"""So much later than our clock a token may have been issued, or become valid."""
ALGORITHMS = tuple(name for name in KNOWN if name != "EdDSA")
"""Those of kube-apiserver."""


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


def looks_like_token(text: str) -> bool:
    """Whether a bearer token has the form of a JSON Web Token."""
    return text.count(".") == 2 and text.startswith("ey")


def verify(settings: Settings, keys: KeySet, text: str, now: float) -> tuple[str, tuple[str, ...]]:
    """(user name, groups) of an id token. Raises OidcError, and UnknownKeyError where new keys could help."""
    try:
        token = Token(text)
    except TokenError as error:
        raise OidcError(f"the id token cannot be used: {error}") from None
    if token.issuer != settings.issuer_url:
        raise OidcError(f"the id token is of another issuer than {settings.issuer_url}")
    if token.algorithm not in settings.signing_algs or token.algorithm not in ALGORITHMS:
        raise OidcError(f"the id token is signed by {token.algorithm}; accepted are {', '.join(settings.signing_algs)}")
    if not keys.knows(token):
        raise UnknownKeyError("no key of the issuer fits the id token")
    if not keys.proves(token):
        raise UnknownKeyError("the signature of the id token is not good")
    _check_times(token.claims, now)
    _check_audience(settings, token.claims)
    return _user(settings, token.claims)


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    def time_of(name: str) -> float | None:
        value = claims.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
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
