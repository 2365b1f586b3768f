"""A whole zone in messages, for servers that may have it (AXFR, RFC 5936; IXFR gets all or nothing, RFC 1995)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain

from .message import AXFR, SOA, Malformed, Query, RRset, read_message
from .write import write_answer

FULL = 16_000
"""Octets from which on a message is sent: names in it can all be pointed at."""
_PIECE = 200
"""Records of one set that are handled together."""


class Transfer:
    """The messages of one transfer, each with its ID."""

    __slots__ = ("_id", "_query", "_records")

    def __init__(self, message: bytes, query: Query, soa: RRset, records: Iterable[RRset] | None) -> None:
        """`records`: all but the SOA, which comes first and last; None: the SOA alone."""
        self._id = message[:2]
        self._query = query
        self._records = (soa,) if records is None else chain((soa,), records, (soa,))

    def messages(self) -> Iterator[bytes]:
        held: list[RRset] = []
        size = 0
        for rrset in self._records:
            for at in range(0, len(rrset.rdata), _PIECE):
                piece = RRset(rrset.owner, rrset.rtype, rrset.ttl, rrset.rdata[at : at + _PIECE])
                octets = sum(len(rrset.owner) + 10 + len(data) for data in piece.rdata)
                if held and size + octets > FULL:
                    yield self._message(held)
                    held, size = [], 0
                held.append(piece)
                size += octets
        yield self._message(held)

    def _message(self, held: list[RRset]) -> bytes:
        return self._id + write_answer(self._query, 0, held, limit=65535, aa=True)


def wanted(query: Query, message: bytes, start: RRset) -> bool:
    """Whether all is to be sent; else who asks has this version already."""
    if query.qtype == AXFR:
        return True
    try:
        asked = read_message(message)
    except Malformed:
        return True
    known = [rrset for rrset in asked.authority if rrset.rtype == SOA]
    return not known or known[0].rdata[0][-20:-16] != start.rdata[0][-20:-16]
