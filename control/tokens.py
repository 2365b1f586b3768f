"""Workload tokens: a secret handed to one workload (or to all of one service account) to get its identity with.

`flt_ID_SECRET`; the store keeps the SHA-256 of the secret (256 random bits: no slower hash is needed), what the token
is bound to, and until when. A one-time token is good for one certificate, whoever comes first.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import msgspec
from msgspec import Struct

from .store import Change, Key, Objects, Stored, Write

RESOURCE = "workloadtokens.internal.fairlead.dev"
"""Not in the catalog: the object API does not show tokens."""
PREFIX = "flt"
ID_BYTES = 8
SECRET_BYTES = 32
TTL_MAX_S = 366 * 86400.0
KEEP_EXPIRED_S = 86400.0
"""So long the list still shows a token that has expired."""
NOTED_S = 60.0
"""The use of a token that can be used again is written no oftener than this."""


class TokenError(Exception):
    """The token is not good; the message says why without repeating it."""


class SpentError(TokenError):
    """It was good, and is not any more."""

    def __init__(self, token: Token, why: str) -> None:
        super().__init__(why)
        self.token = token


class Token(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """What is kept of a token."""

    id: str
    namespace: str
    service_account: str
    workload: str = ""
    """Bound to this one workload; empty: to any of the service account."""
    created_at: float = 0.0
    created_by: str = ""
    expires_at: float = 0.0
    one_time: bool = False
    labels: dict[str, str] = {}
    """What workloads with it may say of themselves (claims.py)."""
    addresses: tuple[str, ...] = ()
    """Addresses and networks, likewise."""
    used_at: float = 0.0
    """When it was last traded for a certificate; 0: never."""


class _Kept(Struct, frozen=True):
    """The body of the object."""

    token: Token
    digest: str = "0" * 64


_kept = lru_cache(4096)(msgspec.json.Decoder(_Kept).decode)
"""A request reads its token several times, and most have come before."""


def make(
    draw: bytes, namespace: str, service_account: str, *, now: float, ttl_s: float, one_time: bool = False,
    workload: str = "", created_by: str = "", labels: dict[str, str] | None = None, addresses: tuple[str, ...] = (),
) -> tuple[str, Token, Write]:  # fmt: skip
    """(the token's text, what is kept, the write that keeps it) from ID_BYTES + SECRET_BYTES random bytes."""
    if len(draw) != ID_BYTES + SECRET_BYTES:
        raise ValueError("a token needs all its random bytes")
    if not 0 < ttl_s <= TTL_MAX_S:
        raise TokenError(f"ttlSeconds: expected more than 0 and at most {TTL_MAX_S:.0f}")
    name = draw[:ID_BYTES].hex()
    secret = base64.urlsafe_b64encode(draw[ID_BYTES:]).rstrip(b"=").decode()
    token = Token(
        name, namespace, service_account, workload, now, created_by, now + ttl_s, one_time, labels or {}, addresses
    )
    body = {"metadata": {"name": name}, "digest": _digest(secret), "token": msgspec.to_builtins(token)}
    return f"{PREFIX}_{name}_{secret}", token, Write(Key(RESOURCE, "", name), body, expect=0)


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode("utf-8", "surrogateescape")).hexdigest()


def known(objects: Objects, name: str) -> Token | None:
    """What is kept of the token with this id."""
    stored = objects.get(Key(RESOURCE, "", name))
    return _kept(stored.body).token if stored is not None else None


def is_token(text: str) -> bool:
    """Whether this looks like a workload token, good or not."""
    return text.startswith(f"{PREFIX}_")


def verify(objects: Objects, text: str, now: float) -> tuple[Token, Stored]:
    """What a token stands for. Raises TokenError."""
    prefix, _, rest = text.partition("_")
    name, _, secret = rest.partition("_")
    stored = objects.get(Key(RESOURCE, "", name)) if prefix == PREFIX and name.isalnum() else None
    kept = _kept(stored.body) if stored else None
    matches = hmac.compare_digest(kept.digest if kept is not None else "0" * 64, _digest(secret))
    if stored is None or kept is None or not matches:
        raise TokenError("the token is not known here: it was revoked, or made by another control plane")
    token = kept.token
    if now >= token.expires_at:
        raise SpentError(token, "the token has expired; make a new one with `fairlead token create`")
    if token.one_time and token.used_at:
        raise SpentError(
            token,
            "the one-time token has been used; make a new one with `fairlead token create`, and have control on https, "
            "where a sidecar goes on with its certificate",
        )
    return token, stored


def used(stored: Stored, now: float) -> Write:
    """The write that notes the use; of two at once only one succeeds, as it expects the version that was verified."""
    body = stored.object()
    body["token"]["usedAt"] = now
    return Write(stored.key, body, expect=stored.version)


def unused(objects: Objects, name: str, now: float) -> Write | None:
    """The write that takes back what was noted at `now`; None where that is not what is noted."""
    stored = objects.get(Key(RESOURCE, "", name))
    body = stored.object() if stored is not None else {}
    if stored is None or body["token"].get("usedAt") != now:
        return None
    del body["token"]["usedAt"]
    return Write(stored.key, body, expect=stored.version)


def used_again(objects: Objects, name: str, now: float) -> Write | None:
    """Likewise of a token that is not spent by it; None where that need not be written (again)."""
    stored = objects.get(Key(RESOURCE, "", name))
    if stored is None or now - _kept(stored.body).token.used_at < NOTED_S:
        return None
    return used(stored, now)


def listed(objects: Objects) -> list[dict[str, Any]]:
    """All tokens without their secrets."""
    return [stored.object()["token"] for stored in objects.all(RESOURCE)]


def revoked(changes: Iterable[Change], now: float) -> frozenset[str]:
    """Ids of the tokens that were taken back before their end."""
    return frozenset(
        change.key.name
        for change in changes
        if change.key.resource == RESOURCE
        and change.after is None
        and change.before is not None
        and change.before.object()["token"].get("expiresAt", 0.0) > now
    )


def outdated(objects: Objects, now: float) -> list[Write]:
    """Writes that forget tokens which expired long ago."""
    return [
        Write(stored.key, None, expect=stored.version)
        for stored in objects.all(RESOURCE)
        if stored.object()["token"].get("expiresAt", 0.0) + KEEP_EXPIRED_S < now
    ]
