"""Messages on the wire: read a question strictly, take an answer apart; write.py writes one within a size.

Names are kept in wire form (length octets, ending in the root's zero): it is what arrives and what is sent, any octet
may stand in a label (RFC 2181 section 11), and lower-casing it is one call, since length octets are below "A".
dnslib makes questions to upstreams (forward.py); messages are read and written here, because dnslib writes compression
pointers past offset 16383, copies the client's flags into replies, refuses labels that are not UTF-8, and cuts the
question from truncated answers.
"""

from __future__ import annotations

from collections.abc import Sequence
from struct import Struct

NOERROR, FORMERR, SERVFAIL, NXDOMAIN, NOTIMP, REFUSED, NOTAUTH, BADVERS, BADCOOKIE = 0, 1, 2, 3, 4, 5, 9, 16, 23
A, NS, CNAME, SOA, PTR, MX, TXT, AAAA, SRV, OPT = 1, 2, 5, 6, 12, 15, 16, 28, 33, 41
IXFR, AXFR, ANY = 251, 252, 255
TYPE_NAMES = {1: "A", 2: "NS", 5: "CNAME", 6: "SOA", 12: "PTR", 15: "MX", 16: "TXT", 28: "AAAA", 33: "SRV"}
TYPE_NAMES |= {35: "NAPTR", 43: "DS", 48: "DNSKEY", 64: "SVCB", 65: "HTTPS", 251: "IXFR", 252: "AXFR", 255: "ANY"}
IN = 1
PAYLOAD = 1232
"""The largest answer sent over UDP, and the size we advertise (RFC 9715)."""
LONGEST = 65535
"""The largest message over TCP."""

# Extended errors (RFC 8914).
EDE_STALE, EDE_NOT_READY, EDE_PROHIBITED, EDE_NOT_OURS, EDE_UNSUPPORTED, EDE_NETWORK = 3, 14, 18, 20, 21, 23
NSID, COOKIE, KEEPALIVE, PADDING = 3, 10, 11, 12

_HEADER = Struct("!HHHHHH")
_FIXED = Struct("!HHIH")
_U16 = Struct("!H")


class Malformed(ValueError):
    """Octets that are no DNS message."""


class Query:
    """A well-formed question, and what its sender can take."""

    __slots__ = (
        "ad",
        "block",
        "cd",
        "cookie",
        "do",
        "edns",
        "keepalive",
        "key",
        "nsid",
        "options",
        "ordered",
        "pads",
        "payload",
        "plain",
        "qtype",
        "question",
        "rd",
    )

    def __init__(self, question: bytes, qtype: int, key: bytes) -> None:
        self.question = question
        """Name (as written by the client), type and class, as they came."""
        self.qtype = qtype
        self.key = key
        """The name in lower case."""
        self.rd = False
        self.ad = False
        self.cd = False
        self.edns = False
        self.do = False
        self.plain = True
        """No EDNS option, and nothing else that could differ between two askers of the same question."""
        self.ordered = False
        """The answer's order means something: it is not rotated."""
        self.cookie = b""
        """As it came: the client's 8 octets, and ours behind them if it has any (RFC 7873)."""
        self.nsid = self.keepalive = self.pads = False
        """Options that it sent (RFC 5001, 7828, 7830)."""
        self.options = b""
        """EDNS options for the reply."""
        self.block = 0
        """The reply is padded to a multiple of this."""
        self.payload = 512
        """What it takes over UDP, in octets."""

    @property
    def name(self) -> bytes:
        return self.question[:-4]


class RRset:
    """All records of one name and type."""

    __slots__ = ("owner", "rdata", "rtype", "ttl")

    def __init__(self, owner: bytes, rtype: int, ttl: int, rdata: tuple[bytes, ...]) -> None:
        self.owner = owner
        """In lower case; written as the client wrote it where it is the name asked for."""
        self.rtype = rtype
        self.ttl = ttl
        self.rdata = rdata
        """Names inside are not compressed."""

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, RRset)
            and self.rdata == other.rdata
            and self.ttl == other.ttl
            and self.rtype == other.rtype
            and self.owner == other.owner
        )

    def __hash__(self) -> int:
        return hash((self.owner, self.rtype))

    def __repr__(self) -> str:
        return f"RRset({show_name(self.owner)} {self.ttl} {TYPE_NAMES.get(self.rtype, self.rtype)} {self.rdata!r})"


class Message:
    """An answer taken apart: what an upstream said."""

    __slots__ = ("additional", "answer", "authority", "flags", "question", "rcode")

    def __init__(self, flags: int, rcode: int, question: bytes) -> None:
        self.flags = flags
        self.rcode = rcode
        self.question = question
        self.answer: list[RRset] = []
        self.authority: list[RRset] = []
        self.additional: list[RRset] = []


def wire_name(text: str) -> bytes:
    """The wire form of a dotted name, in lower case. Raises ValueError for what cannot be a name."""
    text = text.rstrip(".").lower()
    if not text:
        return b"\0"
    labels = [label.encode("utf-8") for label in text.split(".")]
    if any(not 0 < len(label) < 64 for label in labels):
        raise ValueError(f"{text!r} is not a DNS name: each label has 1 to 63 octets")
    name = b"".join(bytes((len(label),)) + label for label in labels) + b"\0"
    if len(name) > 255:
        raise ValueError(f"{text!r} is not a DNS name: longer than 255 octets")
    return name


def labels_of(name: bytes) -> list[bytes]:
    """The labels of an uncompressed name."""
    found = []
    at = 0
    while name[at]:
        found.append(name[at + 1 : at + 1 + name[at]])
        at += 1 + name[at]
    return found


def show_name(name: bytes) -> str:
    """For people, as zone files write it: dots inside a label and octets that do not print are escaped."""
    out = []
    for label in labels_of(name):
        for octet in label:
            plain = 0x21 <= octet < 0x7F and octet not in b'."\\;()@$'
            out.append(chr(octet) if plain else f"\\{octet:03d}" if octet != 0x2E else "\\.")
        out.append(".")
    return "".join(out) or "."


def parents(name: bytes) -> list[bytes]:
    """The names above, nearest first; the root last."""
    found = []
    at = 0
    while name[at]:
        at += 1 + name[at]
        found.append(name[at:])
    return found


def name_end(message: bytes, at: int) -> int:
    """Where the name at `at` ends. Raises Malformed."""
    start = at
    size = len(message)
    while True:
        if at >= size:
            raise Malformed("cut off in a name")
        octet = message[at]
        if octet == 0:
            if at - start > 254:
                raise Malformed("a name of more than 255 octets")
            return at + 1
        if octet >= 0xC0:
            if at + 1 >= size or ((octet & 0x3F) << 8 | message[at + 1]) >= start:
                raise Malformed("a compression pointer that does not point back")
            return at + 2
        if octet > 63:
            raise Malformed("a label type nobody uses")
        at += 1 + octet


def _name_at(message: bytes, at: int) -> tuple[bytes, int]:
    """(name without compression, where it ends). Raises Malformed; each pointer must go further back."""
    end = 0
    limit = at
    out = bytearray()
    while True:
        if at >= len(message):
            raise Malformed("cut off in a name")
        octet = message[at]
        if octet == 0:
            out.append(0)
            if len(out) > 255:
                raise Malformed("a name of more than 255 octets")
            return bytes(out), end or at + 1
        if octet >= 0xC0:
            if at + 1 >= len(message):
                raise Malformed("cut off in a pointer")
            target = (octet & 0x3F) << 8 | message[at + 1]
            if target >= limit:
                raise Malformed("a compression pointer that does not point back")
            end = end or at + 2
            at = limit = target
            continue
        if octet > 63:
            raise Malformed("a label type nobody uses")
        out += message[at : at + 1 + octet]
        if len(out) > 255 or at + 1 + octet > len(message):
            raise Malformed("a name that is too long or cut off")
        at += 1 + octet


def error(message: bytes, rcode: int, question_end: int = 12) -> bytes:
    """A reply of a header, and the question if it could be read; opcode, ID, RD and CD are the client's."""
    counts = b"\0\1\0\0\0\0\0\0" if question_end > 12 else bytes(8)
    return (
        message[:2] + bytes((0x80 | message[2] & 0x79, message[3] & 0x10 | rcode)) + counts + message[12:question_end]
    )


def read_query(message: bytes) -> Query | bytes | None:
    """The question; or the reply that refuses it, ready to send; or None where nothing may be said. Long because
    a message is read once, from its first octet to its last."""
    if len(message) < 12 or message[2] & 0x80:
        return None
    if message[2] & 0x78:
        return error(message, NOTIMP)
    _, _, questions, answers, authorities, additionals = _HEADER.unpack_from(message)
    end = 12
    try:
        size = len(message)
        if questions == 0 and answers == authorities == 0 and additionals == 1:
            return _read_cookie_only(message)
        if questions != 1:
            raise Malformed("not one question")
        stop = 12
        while True:  # no pointer can be right here: there is nothing before it to point to
            octet = message[stop] if stop < size else 255
            if octet > 63:
                raise Malformed("no name")
            stop += 1 + octet
            if not octet:
                break
        if stop > 267 or stop + 4 > size:
            raise Malformed("a name of more than 255 octets, or cut off")
        end = stop + 4
        query = Query(message[12:end], message[stop] << 8 | message[stop + 1], message[12:stop].lower())
        query.rd = bool(message[2] & 1)
        query.ad = bool(message[3] & 0x20)
        query.cd = bool(message[3] & 0x10)
        version = 0
        at = end
        for index in range(answers + authorities + additionals):
            query.plain = False
            start = at
            at = name_end(message, at)
            if at + 10 > size:
                raise Malformed("cut off in a record")
            rtype, rclass, ttl, length = _FIXED.unpack_from(message, at)
            at += 10 + length
            if at > size:
                raise Malformed("cut off in a record's data")
            if rtype == OPT:
                if query.edns or index < answers + authorities or message[start]:
                    raise Malformed("an OPT record too many, or out of place")
                query.edns = True
                query.payload = max(rclass, 512)
                query.do = bool(ttl & 0x8000)
                version = ttl >> 16 & 0xFF
                _read_options(query, message, at - length, at)
                query.plain = not length
        if at != size:
            raise Malformed("octets after the end")
        if additionals > 1 or answers or authorities:
            query.plain = False
    except Malformed:
        return error(message, FORMERR, end)
    if version:
        reply = error(message, BADVERS & 15, end)
        return reply[:10] + b"\0\1" + reply[12:] + opt_record(query, BADVERS, ())
    if message[end - 2 : end] != b"\0\1":
        return _refusal(message, query, end)
    return query


def _read_cookie_only(message: bytes) -> Query:
    """A message without a question that asks for a cookie (RFC 7873 section 5.4). Raises Malformed."""
    query = Query(b"", 0, b"\0")
    if len(message) < 23 or message[12:15] != b"\0\0\x29" or message[17] or message[18]:
        raise Malformed("not one question")
    if len(message) != 23 + (message[21] << 8 | message[22]):
        raise Malformed("cut off, or octets after the end")
    _read_options(query, message, 23, len(message))
    if not query.cookie:
        raise Malformed("not one question")
    query.rd = bool(message[2] & 1)
    query.edns = True
    query.plain = False
    query.payload = max(message[15] << 8 | message[16], 512)
    return query


def _read_options(query: Query, message: bytes, at: int, end: int) -> None:
    """EDNS options; those that we do not know are passed over (RFC 6891). Raises Malformed."""
    while at < end:
        if at + 4 > end:
            raise Malformed("cut off in an EDNS option")
        code, length = message[at] << 8 | message[at + 1], message[at + 2] << 8 | message[at + 3]
        at += 4 + length
        if at > end:
            raise Malformed("cut off in an EDNS option")
        if code == COOKIE:
            if length != 8 and not 16 <= length <= 40:
                raise Malformed("a cookie of a wrong length")
            query.cookie = query.cookie or message[at - length : at]
        elif code == NSID:
            query.nsid = True
        elif code == PADDING:
            query.pads = True
        elif code == KEEPALIVE:
            if length:
                raise Malformed("a client says no keepalive time")
            query.keepalive = True


def _refusal(message: bytes, query: Query, end: int) -> bytes:
    reply = error(message, REFUSED, end)
    if not query.edns:
        return reply
    return reply[:10] + b"\0\1" + reply[12:] + opt_record(query, REFUSED, ())


def opt_record(query: Query, rcode: int, extended_errors: Sequence[int]) -> bytes:
    options = query.options + b"".join(b"\0\x0f\0\2" + _U16.pack(code) for code in extended_errors)
    return b"\0" + _FIXED.pack(OPT, PAYLOAD, (rcode >> 4) << 24 | (0x8000 if query.do else 0), len(options)) + options


# Where names stand in the rdata of types that a sender may have compressed: (octets before, names).
_NAMES_IN = {NS: (0, 1), CNAME: (0, 1), PTR: (0, 1), SOA: (0, 2), MX: (2, 1), SRV: (6, 1)}
_NAMES_IN |= {3: (0, 1), 4: (0, 1), 7: (0, 1), 8: (0, 1), 9: (0, 1), 14: (0, 2), 17: (0, 2), 18: (2, 1), 21: (2, 1)}
_NAMES_IN |= {26: (2, 2), 39: (0, 1)}


def _rdata_at(message: bytes, rtype: int, at: int, length: int) -> bytes:
    """Rdata with its names written out. Raises Malformed."""
    end = at + length
    if (rtype == A and length != 4) or (rtype == AAAA and length != 16):
        raise Malformed("an address of a wrong length")
    layout = _NAMES_IN.get(rtype)
    if layout is None:
        return message[at:end]
    skip, names = layout
    out = message[at : at + skip]
    at += skip
    for _ in range(names):
        if at >= end:
            raise Malformed("rdata that ends before its name")
        name, at = _name_at(message, at)
        out += name
    if at > end or (rtype != SOA and at != end) or (rtype == SOA and end - at != 20):
        raise Malformed("rdata of a wrong length")
    return out + message[at:end]


def read_message(message: bytes) -> Message:
    """Take a reply apart; records of classes other than IN are left out. Raises Malformed."""
    if len(message) < 12:
        raise Malformed("shorter than a header")
    _, flags, questions, *counts = _HEADER.unpack_from(message)
    if questions != 1:
        raise Malformed("not one question")
    name, at = _name_at(message, 12)
    if at + 4 > len(message):
        raise Malformed("cut off in the question")
    found = Message(flags, flags & 15, name + message[at : at + 4])
    at += 4
    for section, count in zip((found.answer, found.authority, found.additional), counts, strict=True):
        for _ in range(count):
            owner, at = _name_at(message, at)
            if at + 10 > len(message):
                raise Malformed("cut off in a record")
            rtype, rclass, ttl, length = _FIXED.unpack_from(message, at)
            at += 10
            if at + length > len(message):
                raise Malformed("cut off in a record's data")
            if rtype == OPT:
                found.rcode |= ttl >> 24 << 4
            elif rclass == IN:
                data = _rdata_at(message, rtype, at, length)
                ttl = 0 if ttl > 0x7FFFFFFF else ttl  # RFC 2181 section 8
                last = section[-1] if section else None
                if last is not None and last.rtype == rtype and last.owner.lower() == owner.lower():
                    section[-1] = RRset(last.owner, rtype, min(last.ttl, ttl), (*last.rdata, data))
                else:
                    section.append(RRset(owner, rtype, ttl, (data,)))
            at += length
    return found
