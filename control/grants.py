"""What tokens gave to workloads, kept in the store: a certificate that is renewed does not say by which token.

The grant of a token is written with the first certificate that it is traded for, and lasts as long as certificates of
the workload are asked for, and KEPT_S more. All control planes of a store see it.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .claims import Grant
from .store import Key, Objects, Stored, Write
from .tokens import Token

RESOURCE = "workloadgrants.internal.fairlead.dev"
"""Not in the catalog: the object API does not show it."""
KEPT_S = 30 * 86400.0
KEPT_MOST = 2000
"""Of one service account; the one that was asked for longest ago goes first."""


class Kept(msgspec.Struct, frozen=True, omit_defaults=True, rename="camel"):
    grant: Grant
    expires_at: float


def of_token(token: Token) -> Grant | None:
    """What a token gives; None: namespace and service account alone."""
    if not (token.labels or token.addresses or token.workload):
        return None
    return Grant(
        f"token {token.id}", token.namespace, token.service_account, token.workload, token.labels, token.addresses
    )


def key_of(namespace: str, service_account: str, workload: str) -> Key:
    return Key(RESOURCE, namespace, f"{service_account}:{workload}")


def workload_of(key: Key) -> str:
    """namespace/name of the workload that a key of these is about."""
    return f"{key.namespace}/{key.name.partition(':')[2]}"


def find(objects: Objects, namespace: str, service_account: str, workload: str, now: float) -> Grant | None:
    stored = objects.get(key_of(namespace, service_account, workload))
    kept = _kept(stored) if stored is not None else None
    return kept.grant if kept is not None and kept.expires_at > now else None


def issued(objects: Objects, token: Token | None, key: Key, now: float) -> list[Write]:
    """What is to be written when a workload gets a certificate, by this token or (None) by the one it has."""
    stored = objects.get(key)
    kept = _kept(stored) if stored is not None else None
    given = of_token(token) if token is not None else None
    if given is not None:
        grant = given
    elif kept is not None and kept.expires_at > now:
        grant = kept.grant
    else:
        return []
    if kept is not None and kept.grant == grant and kept.expires_at - now > KEPT_S / 2:
        return []
    body = {"metadata": {"namespace": key.namespace, "name": key.name},
            "kept": msgspec.to_builtins(Kept(grant, now + KEPT_S))}  # fmt: skip
    writes = [Write(key, body, expect=stored.version if stored is not None else 0)]
    if stored is None:
        account = key.name.partition(":")[0]
        own = [one for one in objects.all(RESOURCE, key.namespace) if one.key.name.partition(":")[0] == account]
        if len(own) >= KEPT_MOST:
            oldest = min(own, key=lambda one: before.expires_at if (before := _kept(one)) is not None else 0.0)
            writes.append(Write(oldest.key, None, expect=oldest.version))
    return writes


def outdated(objects: Objects, now: float) -> list[Write]:
    """Writes that forget what nobody has asked a certificate for in a long time."""
    return [
        Write(stored.key, None, expect=stored.version)
        for stored in objects.all(RESOURCE)
        if (kept := _kept(stored)) is None or kept.expires_at <= now
    ]


def from_token(objects: Objects, token: str) -> Iterable[Stored]:
    """What this token gave."""
    for stored in objects.all(RESOURCE):
        kept = _kept(stored)
        if kept is not None and kept.grant.origin == f"token {token}":
            yield stored


def _kept(stored: Stored) -> Kept | None:
    try:
        return msgspec.convert(stored.object()["kept"], Kept)
    except (KeyError, msgspec.ValidationError):
        return None  # of another version
