"""A verified peer certificate to its identity: the SPIFFE rules that OpenSSL does not check.

OpenSSL has checked chain, validity and purpose when a certificate comes here. It accepts leaves with no or several URI
names, leaves that are authorities, and leaves signed by such leaves (measured); an X.509-SVID must be none of that
(SPIFFE X509-SVID, sections 2 to 5). The reader below takes DER only, in its shortest form, and refuses everything else.
"""

from __future__ import annotations

from collections.abc import Callable

from . import identity
from .identity import IdentityError, SpiffeId

OID_SUBJECT_ALT_NAME = bytes.fromhex("551d11")
OID_BASIC_CONSTRAINTS = bytes.fromhex("551d13")
OID_KEY_USAGE = bytes.fromhex("551d0f")
OID_EXTENDED_KEY_USAGE = bytes.fromhex("551d25")
OID_AUTHORITY_KEY_ID = bytes.fromhex("551d23")
OID_SERVER_AUTH = bytes.fromhex("2b06010505070301")
OID_CLIENT_AUTH = bytes.fromhex("2b06010505070302")
SEQUENCE, BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING, OID = 0x30, 0x01, 0x02, 0x03, 0x04, 0x06
UTC_TIME, GENERALIZED_TIME = 0x17, 0x18
URI = 0x86
DIGITAL_SIGNATURE, KEY_CERT_SIGN, CRL_SIGN = 0x80, 0x04, 0x02
MAX_OCTETS = 16 * 1024


class Leaf:
    """What of a certificate matters to identity."""

    __slots__ = (
        "authority_key_id",
        "extended_usages",
        "is_authority",
        "key_usage",
        "key_usage_critical",
        "not_after",
        "not_before",
        "serial",
        "uris",
    )

    def __init__(self) -> None:
        self.serial = 0
        self.not_before = 0.0
        """Unix seconds."""
        self.not_after = 0.0
        self.uris: list[str] = []
        self.is_authority = False
        self.key_usage = -1
        """First octet of the bit string; -1: absent."""
        self.key_usage_critical = False
        self.extended_usages: list[bytes] | None = None
        self.authority_key_id = b""
        """Which key it was signed by, as it says; empty: it does not."""


def elements(data: bytes) -> list[tuple[int, bytes]]:
    """The (tag, content) pairs that fill `data`; raises IdentityError for anything that is not strict DER."""
    found = []
    at = 0
    while at < len(data):
        if at + 2 > len(data):
            raise IdentityError("certificate: cut off")
        tag, length = data[at], data[at + 1]
        if tag & 0x1F == 0x1F:
            raise IdentityError("certificate: a tag of more than one octet")
        at += 2
        if length >= 0x80:
            count = length & 0x7F
            if not 1 <= count <= 3 or at + count > len(data):
                raise IdentityError("certificate: a length that DER does not allow")
            length = int.from_bytes(data[at : at + count], "big")
            if length < 0x80 or length >> (8 * (count - 1)) == 0:
                raise IdentityError("certificate: a length that is not in its shortest form")
            at += count
        if at + length > len(data):
            raise IdentityError("certificate: cut off")
        found.append((tag, data[at : at + length]))
        at += length
    return found


def only(data: bytes, tag: int, what: str) -> bytes:
    """The content of the one element that fills `data`."""
    found = elements(data)
    if len(found) != 1 or found[0][0] != tag:
        raise IdentityError(f"certificate: {what} is malformed")
    return found[0][1]


def read_leaf(der: bytes) -> Leaf:
    """The facts of an X.509 certificate in DER; raises IdentityError."""
    if len(der) > MAX_OCTETS:
        raise IdentityError(f"certificate: more than {MAX_OCTETS} octets")
    outer = elements(only(der, SEQUENCE, "the whole"))
    if len(outer) != 3 or outer[0][0] != SEQUENCE:
        raise IdentityError("certificate: not a certificate")
    body = elements(outer[0][1])
    if len(body) < 7 or body[0] != (0xA0, b"\x02\x01\x02") or body[1][0] != INTEGER:
        raise IdentityError("certificate: expected version 3")
    leaf = Leaf()
    leaf.serial = int.from_bytes(body[1][1], "big", signed=True)
    if body[4][0] != SEQUENCE:
        raise IdentityError("certificate: the validity is malformed")
    times = elements(body[4][1])
    if len(times) != 2:
        raise IdentityError("certificate: the validity is malformed")
    leaf.not_before, leaf.not_after = (read_time(tag, content) for tag, content in times)
    extensions = [content for tag, content in body[7:] if tag == 0xA3]
    if len(extensions) != 1:
        raise IdentityError("certificate: no extensions, so no identity")
    seen: set[bytes] = set()
    for tag, content in elements(only(extensions[0], SEQUENCE, "the list of extensions")):
        parts = elements(content) if tag == SEQUENCE else []
        if not 2 <= len(parts) <= 3 or parts[0][0] != OID or parts[-1][0] != OCTET_STRING:
            raise IdentityError("certificate: an extension is malformed")
        if parts[0][1] in seen:
            raise IdentityError("certificate: an extension stands twice")
        seen.add(parts[0][1])
        _read_extension(leaf, parts[0][1], parts[-1][1], len(parts) == 3 and parts[1] == (BOOLEAN, b"\xff"))
    return leaf


def _read_extension(leaf: Leaf, oid: bytes, value: bytes, critical: bool) -> None:
    if oid == OID_SUBJECT_ALT_NAME:
        for tag, content in elements(only(value, SEQUENCE, "subjectAltName")):
            if tag == URI:
                if any(octet < 0x21 or octet > 0x7E for octet in content):
                    raise IdentityError("certificate: a URI name with octets that no URI has")
                leaf.uris.append(content.decode("ascii"))
    elif oid == OID_BASIC_CONSTRAINTS:
        parts = elements(only(value, SEQUENCE, "basicConstraints"))
        if parts and parts[0][0] == BOOLEAN and parts[0][1] not in (b"\xff", b"\x00"):
            raise IdentityError("certificate: a boolean that DER does not allow")
        leaf.is_authority = bool(parts) and parts[0] == (BOOLEAN, b"\xff")
    elif oid == OID_KEY_USAGE:
        bits = only(value, BIT_STRING, "keyUsage")
        if len(bits) < 2:
            raise IdentityError("certificate: keyUsage is empty")
        leaf.key_usage, leaf.key_usage_critical = bits[1], critical
    elif oid == OID_AUTHORITY_KEY_ID:
        for tag, content in elements(only(value, SEQUENCE, "authorityKeyIdentifier")):
            if tag == 0x80:
                leaf.authority_key_id = content
    elif oid == OID_EXTENDED_KEY_USAGE:
        leaf.extended_usages = [content for _, content in elements(only(value, SEQUENCE, "extendedKeyUsage"))]


def read_time(tag: int, content: bytes) -> float:
    """UTCTime or GeneralizedTime as Unix seconds (RFC 5280, 4.1.2.5)."""
    text = content.decode("latin-1")
    if tag == UTC_TIME and len(text) == 13:
        text = ("19" if text[:2] >= "50" else "20") + text
    elif tag != GENERALIZED_TIME:
        raise IdentityError("certificate: a time is malformed")
    if len(text) != 15 or not text.endswith("Z") or not text[:14].isdigit() or not text.isascii():
        raise IdentityError("certificate: a time is malformed")
    year, month, day = int(text[:4]), int(text[4:6]), int(text[6:8])
    hour, minute, second = int(text[8:10]), int(text[10:12]), int(text[12:14])
    if not (1 <= month <= 12 and 1 <= day <= 31 and hour < 24 and minute < 60 and second < 60):
        raise IdentityError("certificate: a time is malformed")
    # Days from civil date (Howard Hinnant's algorithm), so that this core needs no clock or calendar.
    years = year - (month <= 2)
    era, of_era = divmod(years, 400)
    of_year = (153 * (month + (-3 if month > 2 else 9)) + 2) // 5 + day - 1
    days = era * 146097 + of_era * 365 + of_era // 4 - of_era // 100 + of_year - 719468
    return float(days * 86400 + hour * 3600 + minute * 60 + second)


_known: dict[bytes, tuple[float, SpiffeId, int]] = {}
"""End, identity and serial number of certificates that were found good: the same peers connect again and again."""
_KNOWN_MOST = 512


def identity_of(der: bytes | None, now: float = 0.0) -> SpiffeId:
    """The workload that a verified leaf stands for; raises IdentityError that says why it stands for none.

    `now`: Unix seconds. A resumed TLS session shows the certificate of its first handshake, and OpenSSL does not look
    at it again (RFC 8446, 4.6.1: the ticket may live for days), so whether it has ended is asked here.
    """
    return read(der, now)[0]


def read(der: bytes | None, now: float = 0.0) -> tuple[SpiffeId, int]:
    """The same with the certificate's serial number."""
    if not der:
        raise IdentityError("the peer showed no certificate")
    known = _known.get(der)
    if known is None:
        leaf = read_leaf(der)
        known = leaf.not_after, _identity_in(leaf), leaf.serial
        if len(_known) >= _KNOWN_MOST:
            _known.clear()
        _known[der] = known
    if known[0] < now:
        raise IdentityError("the certificate has ended")
    return known[1], known[2]


def _identity_in(leaf: Leaf) -> SpiffeId:
    if leaf.is_authority:
        raise IdentityError("the certificate is an authority's, which may not be used for a connection")
    if leaf.key_usage < 0 or not leaf.key_usage_critical or not leaf.key_usage & DIGITAL_SIGNATURE:
        raise IdentityError("the certificate's keyUsage does not allow digital signatures, or is not critical")
    if leaf.key_usage & (KEY_CERT_SIGN | CRL_SIGN):
        raise IdentityError("the certificate's keyUsage allows signing of certificates")
    if leaf.extended_usages is not None and not {OID_SERVER_AUTH, OID_CLIENT_AUTH} <= set(leaf.extended_usages):
        raise IdentityError("the certificate's extendedKeyUsage lacks serverAuth or clientAuth")
    if len(leaf.uris) != 1:
        raise IdentityError(f"the certificate has {len(leaf.uris)} URI names; an identity is exactly one")
    return identity.parse(leaf.uris[0])


def expect(
    der: bytes | None, allowed: tuple[str, ...], trust_domains: tuple[str, ...], now: float = 0.0,
    revoked: Callable[[int, SpiffeId], str] | None = None,
) -> str:  # fmt: skip
    """Why a server's certificate is not one of those that the service may have; empty: it is."""
    try:
        found, serial = read(der, now)
    except IdentityError as error:
        return str(error)
    if revoked is not None and (why := revoked(serial, found)):
        return why
    if found.trust_domain not in trust_domains:
        return f"the peer is {found}, of a trust domain that is not ours ({', '.join(trust_domains)})"
    if str(found) not in allowed:
        return f"the peer is {found}; the service may be {' or '.join(allowed) if allowed else 'nobody known'}"
    return ""
