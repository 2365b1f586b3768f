"""The steps of a root's rotation, and what each has to wait for, so that no handshake fails on the way.

    distributing   everybody is told the new root; the old authority goes on issuing
    issuing        the new authority issues; everybody asks for a new certificate soon; both roots are trusted
    (done)         the old root is dropped

The second begins when every connected sidecar trusts the new root: before that, some peer would refuse its
certificates. The third when no certificate of the old root is in use any more. (SPIFFE, SPIRE and Consul rotate so.)
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping
from typing import Any

import msgspec

from .issued import Issued

DISTRIBUTING, ISSUING = "distributing", "issuing"
SHOWN_MOST = 20
"""Workloads named as reasons; of others the number is given."""


class Holder(msgspec.Struct, frozen=True, rename="camel"):
    """A connected sidecar: what it trusts and what it holds, as it says."""

    name: str
    """role/namespace/workload."""
    workload: str
    """namespace/name."""
    told: bool = False
    """It has said anything of it."""
    trusts: tuple[str, ...] = ()
    """SHA-256 of each root."""
    serial: str = ""
    issuer: str = ""
    not_after: float = 0.0
    static: bool = False
    """Its certificate is a file that its operator gives it, not control."""
    mute: bool = False
    """An Envoy or gRPC application, which says nothing of it; it has its roots with each certificate, as recorded."""


class RotationError(ValueError):
    """The step cannot be taken; the message says why and what to do."""


def lacking(holders: Iterable[Holder], fingerprint: str, issued: Issued, since: float, now: float) -> list[str]:
    """Why nothing may be issued under this root, distributed `since`, yet: who does not trust it."""
    found = []
    renewed = {leaf.workload for leaf in issued.last(now) if leaf.issued_at >= since}
    for one in holders:
        if one.mute:
            if one.workload not in renewed:
                found.append(f"{one.name} (Envoy or gRPC) gets the new root with its next certificate")
        elif not one.told:
            found.append(f"{one.name} has not said what it trusts (it may be of an older version, or just starting)")
        elif fingerprint not in one.trusts:
            how = "; its roots are its operator's file (--ca)" if one.static else ""
            found.append(f"{one.name} does not trust the new root yet{how}")
    return found


def using(
    holders: Iterable[Holder], issued: Issued, issuer: str, now: float, revoked: Container[str] = ()
) -> list[str]:
    """Why the old root may not be dropped yet: who still uses a certificate of the authority with this key id. One of
    the serials `revoked` is of no use already: nobody is cut off."""
    found, connected, mute = [], set(), set()
    for one in holders:
        if one.mute:
            mute.add(one.workload)
            continue
        connected.add(one.workload)
        if not one.told:
            found.append(f"{one.name} has not said what it holds (it may be of an older version, or just starting)")
        elif one.issuer == issuer and one.serial not in revoked:
            how = "; it is its operator's file (--cert)" if one.static else ""
            found.append(f"{one.name} uses a certificate of the old root for another {one.not_after - now:.0f} s{how}")
    for leaf in issued.last(now, revoked):
        if leaf.issuer == issuer and leaf.workload not in connected:
            away = "" if leaf.workload in mute else " is not connected;"
            left = f"{leaf.not_after - now:.0f} s"
            found.append(f"{leaf.workload}{away or ':'} its certificate of the old root is good for another {left}")
    return found


def told(reasons: list[str]) -> str:
    more = f"; and {len(reasons) - SHOWN_MOST} more" if len(reasons) > SHOWN_MOST else ""
    return "; ".join(reasons[:SHOWN_MOST]) + more


def holders_of(members: Mapping[str, Any]) -> list[Holder]:
    """The members of a feed that take part in mutual TLS."""
    return [
        Holder(
            key, f"{m.namespace}/{m.workload}", m.trust is not None,
            tuple(m.trust.roots) if m.trust else (), m.trust.serial if m.trust else "",
            m.trust.issuer if m.trust else "", m.trust.not_after if m.trust else 0.0,
            m.trust.static if m.trust else False, bool(m.proxy),
        )
        for key, m in sorted(members.items())
        if m.role != "dns"
    ]  # fmt: skip
