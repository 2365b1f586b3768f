"""Write an answer within a size: names compressed, records rotated, EDNS last, padded where that is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

from .message import (
    AAAA,
    CNAME,
    IN,
    LONGEST,
    MX,
    NOERROR,
    NS,
    PTR,
    SOA,
    SRV,
    A,
    Query,
    RRset,
    name_end,
    opt_record,
    read_query,
)

_ROTATED = frozenset((A, AAAA, SRV))
_HEADER = Struct("!HHHHHH")
_FIXED = Struct("!HHIH")
_DENIAL = Struct("!HHHHH")
_U16 = Struct("!H")


class _Writer:
    """Octets of the sections after the question, and where names stand in them."""

    __slots__ = ("names", "out", "room")

    def __init__(self, key: bytes, question: bytes, room: int) -> None:
        self.out = bytearray(question)
        self.room = room + len(question)
        self.names: dict[bytes, int] = {}
        self._note(key, 12)

    def _note(self, name: bytes, offset: int) -> None:
        """The name, and each name above it, can be pointed at from now on."""
        at = 0
        names = self.names
        while name[at] and offset + at < 0x4000:
            tail = name[at:]
            if tail in names:
                return
            names[tail] = offset + at
            at += 1 + name[at]

    def name(self, name: bytes, offset: int) -> bytes:
        """The name as compressed as it can be at `offset`; `name` as it is to be read, in any case."""
        key = name.lower()
        at = 0
        while key[at]:
            known = self.names.get(key[at:])
            if known is not None:
                self._note(key, offset)
                return name[:at] + _U16.pack(0xC000 | known)
            at += 1 + key[at]
        self._note(key, offset)
        return name

    def add(self, rrset: RRset, turn: int, whole: bool) -> tuple[int, bool]:
        """Append its records, starting with number `turn`; (how many, whether that was all).

        `whole`: all or none; else as many as fit.
        """
        rdata = rrset.rdata
        rtype = rrset.rtype
        if turn and rtype in _ROTATED and len(rdata) > 1:
            turn %= len(rdata)
            rdata = rdata[turn:] + rdata[:turn]
        start = len(self.out)
        count = 0
        for data in rdata:
            before = len(self.out)
            owner = self.name(rrset.owner, 12 + before)
            if rtype in _COMPRESSED:
                data = self._squeezed(rtype, data, 12 + before + len(owner) + 10)
            if before + len(owner) + 10 + len(data) > self.room:
                if whole:
                    del self.out[start:]
                    self.names = {name: at for name, at in self.names.items() if at < 12 + start}
                    count = 0
                return count, False
            self.out += owner
            self.out += _FIXED.pack(rtype, IN, rrset.ttl, len(data))
            if rtype == SRV:
                self._note(data[6:].lower(), 12 + len(self.out) + 6)
            self.out += data
            count += 1
            if count == 1 and len(rdata) > 1 and not whole and rtype in (A, AAAA):
                count += self._add_addresses(rrset, rdata[1:])
                if count > 1:
                    return count, count == len(rdata)
        return count, True

    def _add_addresses(self, rrset: RRset, rdata: tuple[bytes, ...]) -> int:
        """As many further records as fit, of a set of addresses whose first has just been written."""
        again = self.name(rrset.owner, 12 + len(self.out)) + _FIXED.pack(rrset.rtype, IN, rrset.ttl, len(rdata[0]))
        if len(again) > 12:  # too far along to be pointed at
            return 0
        count = min(len(rdata), (self.room - len(self.out)) // (12 + len(rdata[0])))
        if count > 0:
            self.out += again + again.join(rdata[:count])
        return max(count, 0)

    def _squeezed(self, rtype: int, data: bytes, offset: int) -> bytes:
        """Rdata of the types whose names may be compressed (RFC 1035; RFC 3597 section 4 forbids it for others)."""
        if rtype == SOA:
            split = name_end(data, 0)
            first = self.name(data[:split], offset)
            rest = data[split:]
            split = name_end(rest, 0)
            return first + self.name(rest[:split], offset + len(first)) + rest[split:]
        if rtype == MX:
            return data[:2] + self.name(data[2:], offset + 2)
        return self.name(data, offset)


_COMPRESSED = frozenset((NS, CNAME, PTR, SOA, MX))


def write_answer(
    query: Query,
    rcode: int,
    answer: Sequence[RRset] = (),
    authority: Sequence[RRset] = (),
    additional: Sequence[RRset] = (),
    *,
    limit: int,
    aa: bool = False,
    ra: bool = False,
    ad: bool = False,
    turn: int = 0,
    extended_errors: Sequence[int] = (),
) -> bytes:
    """The reply from its flags on: what follows the two octets of the ID.

    `limit`: octets of the whole message. Answers that do not fit set TC, with as many whole records as do; authority
    likewise; additional records are left out in silence (RFC 2181 section 9). `turn` rotates addresses and SRV.
    """
    opt = opt_record(query, rcode, extended_errors) if query.edns else b""
    writer = _Writer(query.key, query.question, limit - 12 - len(query.question) - len(opt))
    counts = [0, 0, 0]
    cut = False
    for section, rrsets in ((0, answer), (1, authority)):
        for rrset in rrsets:
            if not cut:
                count, complete = writer.add(rrset, turn, False)
                counts[section] += count
                cut = not complete
    for rrset in () if cut else additional:
        count, complete = writer.add(rrset, turn, True)
        counts[2] += count
        if not complete:
            break
    flags = 0x8000 | (aa and 0x400) | (cut and 0x200) | (query.rd and 0x100) | (ra and 0x80) | (ad and 0x20)
    flags |= (query.cd and 0x10) | rcode & 15
    counts[2] += bool(opt)
    reply = _HEADER.pack(0, flags, 1 if query.question else 0, *counts)[2:] + bytes(writer.out) + opt
    return padded(reply, len(opt), query.block, limit) if query.block and opt else reply


def write_denial(query: Query, rcode: int, authority: bytes, *, ra: bool) -> bytes:
    """As `write_answer` for our own zone's "no": `authority` is the SOA record as it stands behind such a question."""
    opt = opt_record(query, rcode, ()) if query.edns else b""
    flags = 0x8400 | (query.rd and 0x100) | (ra and 0x80) | (query.cd and 0x10) | rcode
    reply = _DENIAL.pack(flags, 1, 0, 1, 1 if opt else 0) + query.question + authority + opt
    return padded(reply, len(opt), query.block, LONGEST) if query.block and opt else reply


def padded(reply: bytes, opt: int, block: int, limit: int) -> bytes:
    """A reply after its ID, which ends in an OPT record of so many octets, brought to a multiple of `block` octets."""
    size = len(reply) + 2 + 4
    fill = min(-size % block, limit - size)
    if fill < 0:
        return reply
    at = len(reply) - opt + 9
    length = (reply[at] << 8 | reply[at + 1]) + 4 + fill
    return reply[:at] + _U16.pack(length) + reply[at + 2 :] + b"\0\x0c" + _U16.pack(fill) + bytes(fill)


def slip(message: bytes) -> bytes | None:
    """A reply without records that says to ask again over TCP."""
    query = read_query(message)
    if not isinstance(query, Query) or not query.question:
        return None
    opt = opt_record(query, NOERROR, ()) if query.edns else b""
    flags = 0x8200 | (query.rd and 0x100) | (query.cd and 0x10)
    return message[:2] + _DENIAL.pack(flags, 1, 0, 0, 1 if opt else 0) + query.question + opt
