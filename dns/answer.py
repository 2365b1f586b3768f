"""From a question to its answer: our zone, names that must not leave the host (RFC 6761), and replies of upstreams."""

from __future__ import annotations

from collections.abc import Sequence
from struct import pack

from .cache import Entry
from .message import (
    AAAA,
    EDE_STALE,
    LONGEST,
    NOERROR,
    NXDOMAIN,
    PAYLOAD,
    PTR,
    SOA,
    SRV,
    A,
    Query,
    RRset,
    parents,
    wire_name,
)
from .records import Found
from .write import write_answer

VARIANTS = 16
"""Rotations of one answer that are kept finished."""
_ROTATED = (A, AAAA, SRV)

_LOCALHOST = wire_name("localhost")
_LOOPBACK = {A: b"\x7f\0\0\1", AAAA: bytes(15) + b"\1"}
LOOPBACK_PTR = (wire_name("1.0.0.127.in-addr.arpa"), wire_name("1." + ".".join("0" * 31) + ".ip6.arpa"))
_NOWHERE = {wire_name(name) for name in ("invalid", "onion", "test", "alt")}
_RESOLVER = wire_name("resolver.arpa")
_DISCOVERY = wire_name("_dns.resolver.arpa")


def _denial(apex: bytes) -> RRset:
    times = pack("!5I", 1, 3600, 1200, 604800, 3600)
    return RRset(apex, SOA, 3600, (_LOCALHOST + wire_name("nobody.invalid") + times,))


def special(name: bytes, qtype: int) -> Found | None:
    """What every resolver must answer itself: localhost, invalid, onion, test, alt, resolver.arpa; else None."""
    if name in LOOPBACK_PTR:
        if qtype == PTR:
            return Found(NOERROR, (RRset(name, PTR, 3600, (_LOCALHOST,)),), depends=(name,))
        return Found(NOERROR, (), (_denial(name),), depends=(name,))
    above = (name, *parents(name))
    if len(above) < 2:
        return None
    top = above[-2]
    if top == _LOCALHOST:
        address = _LOOPBACK.get(qtype)
        answer = (RRset(name, qtype, 3600, (address,)),) if address else ()
        return Found(NOERROR, answer, () if answer else (_denial(top),), depends=(name,))
    if top in _NOWHERE:
        return Found(NXDOMAIN if name != top else NOERROR, (), (_denial(top),), depends=(name,))
    if _RESOLVER in above:
        known = name in (_RESOLVER, _DISCOVERY)
        return Found(NOERROR if known else NXDOMAIN, (), (_denial(_RESOLVER),), depends=(name,))
    return None


def size_limit(query: Query, tcp: bool) -> int:
    """Octets that the reply may have."""
    return LONGEST if tcp else min(query.payload, PAYLOAD)


def from_zone(query: Query, found: Found, *, tcp: bool, ra: bool, turn: int = 0) -> bytes:
    """The reply after its ID."""
    return write_answer(
        query,
        found.rcode,
        found.answer,
        found.authority,
        found.additional,
        limit=size_limit(query, tcp),
        aa=True,
        ra=ra,
        turn=turn,
    )


def from_upstream(
    query: Query, found: Found | None, entry: Entry, now: float, *, tcp: bool, turn: int = 0, stale: bool = False
) -> bytes:
    """The reply after its ID: what an upstream said, behind the aliases of ours that led there, if any."""
    answer, authority, additional = entry.at(now)
    return write_answer(
        query,
        entry.rcode,
        (*found.answer, *answer) if found else answer,
        authority,
        additional,
        limit=size_limit(query, tcp),
        aa=found is not None,  # RFC 6604: of the first owner name
        ra=True,
        ad=entry.ad and found is None and (query.ad or query.do),
        turn=turn,
        extended_errors=(EDE_STALE,) if stale else (),
    )


def refusal(query: Query, rcode: int, extended_error: int, *, ra: bool, aa: bool = False) -> bytes:
    """The reply after its ID: SERVFAIL or REFUSED, and why."""
    return write_answer(query, rcode, limit=PAYLOAD, aa=aa, ra=ra, extended_errors=(extended_error,))


def rotations(answer: Sequence[RRset], draw: float) -> tuple[list[int], bool]:
    """(where each variant of the answer starts, whether these are all).

    Up to VARIANTS of them; of larger sets as many, spread from a start told by `draw`, to be made anew when used up.
    """
    most = max((len(rrset.rdata) for rrset in answer if rrset.rtype in _ROTATED), default=1)
    first = int(draw * most)
    if most <= VARIANTS:
        return [(first + step) % most for step in range(most)], True
    return [(first + step * most // VARIANTS) % most for step in range(VARIANTS)], False
