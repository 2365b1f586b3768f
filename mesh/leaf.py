"""A workload's certificate as DER, before it is signed: an X.509-SVID with nothing in it that is not ours to say.

The library's builder takes some 180 microseconds for each, most of them for parts that never change: these are made
once for each signer here, and a certificate is what differs (serial, times, key, identity) joined with them. Written
after RFC 5280 (4.1, 4.2) and SPIFFE X509-SVID (2 to 4); DER only, in its shortest form. Tests hold it against the
library's reader, and OpenSSL's.
"""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha1

SEQUENCE, INTEGER, BIT_STRING, OCTET_STRING = 0x30, 0x02, 0x03, 0x04
UTC_TIME, GENERALIZED_TIME, URI = 0x17, 0x18, 0x86
P256 = bytes.fromhex("3059301306072a8648ce3d020106082a8648ce3d030107034200")
"""SubjectPublicKeyInfo of a P-256 key up to its uncompressed point of 65 octets (RFC 5480)."""
POINT_OCTETS = 65
BASIC_CONSTRAINTS = bytes.fromhex("300c0603551d130101ff04023000")
"""cA false, critical."""
KEY_USAGE = bytes.fromhex("300e0603551d0f0101ff040403020780")
"""digitalSignature alone, critical."""
EXTENDED_KEY_USAGE = bytes.fromhex("301d0603551d250416301406082b0601050507030106082b06010505070302")
"""serverAuth and clientAuth."""
SAN_CRITICAL = bytes.fromhex("0603551d110101ff")
SUBJECT_KEY_ID = bytes.fromhex("301d0603551d0e04160414")
VERSION = b"\xa0\x03\x02\x01\x02"
NAMES_MOST = 4096
"""Identities whose extensions are kept for their next certificate."""
UTC_TIME_ENDS = 2524608000
"""2050-01-01: from here on GeneralizedTime (RFC 5280, 4.1.2.5)."""


def der(tag: int, content: bytes) -> bytes:
    size = len(content)
    if size < 0x80:
        return bytes((tag, size)) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return bytes((tag, 0x80 | len(octets))) + octets + content


def integer(value: int) -> bytes:
    """A positive one."""
    return der(INTEGER, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def time_of(unix: int) -> bytes:
    """Unix seconds as UTCTime or GeneralizedTime."""
    days, second = divmod(unix, 86400)
    # Civil date from days (Howard Hinnant's algorithm), so that this core needs no clock or calendar.
    era, of_era = divmod(days + 719468, 146097)
    years = (of_era - of_era // 1460 + of_era // 36524 - of_era // 146096) // 365
    of_year = of_era - (365 * years + years // 4 - years // 100)
    month = (5 * of_year + 2) // 153
    day = of_year - (153 * month + 2) // 5 + 1
    month += 3 if month < 10 else -9
    year = years + era * 400 + (month <= 2)
    text = f"{month:02}{day:02}{second // 3600:02}{second // 60 % 60:02}{second % 60:02}Z"
    if unix < UTC_TIME_ENDS:
        return der(UTC_TIME, f"{year % 100:02}{text}".encode())
    return der(GENERALIZED_TIME, f"{year:04}{text}".encode())


class Mould:
    """Makes the certificates of one signer. `issuer`: its name in DER; `key_id`: its subjectKeyIdentifier;
    `algorithm`: the AlgorithmIdentifier of its signatures in DER; `sign`: signs octets."""

    def __init__(self, issuer: bytes, key_id: bytes, algorithm: bytes, sign: Callable[[bytes], bytes]) -> None:
        self._sign = sign
        self._algorithm = algorithm
        self._before_times = algorithm + issuer
        self._fixed = BASIC_CONSTRAINTS + KEY_USAGE + EXTENDED_KEY_USAGE
        authority = der(OCTET_STRING, der(SEQUENCE, der(0x80, key_id)))
        self._authority_key_id = der(SEQUENCE, b"\x06\x03\x55\x1d\x23" + authority)
        self._times: tuple[tuple[int, int], bytes] = ((0, 0), b"")
        self._names: dict[str, bytes] = {}
        """The extensions up to the key's identifier, by identity."""

    def _extensions(self, identity: str) -> bytes:
        name = der(SEQUENCE, SAN_CRITICAL + der(OCTET_STRING, der(SEQUENCE, der(URI, identity.encode("ascii")))))
        rest = b"\0" * (len(SUBJECT_KEY_ID) + 20 + len(self._authority_key_id))
        whole = der(0xA3, der(SEQUENCE, self._fixed + name + rest))
        if len(self._names) >= NAMES_MOST:
            self._names.clear()
        found = self._names[identity] = whole[: -len(rest)] + SUBJECT_KEY_ID
        return found

    def make(self, serial: int, begins: int, ends: int, point: bytes, identity: str) -> bytes:
        """A certificate (DER) for the key with this uncompressed point of P-256; times in Unix seconds."""
        # Few steps: each of them costs several times as much right after two signatures, which fill the caches.
        if self._times[0] != (begins, ends):
            # No subject follows: the name is the critical subjectAltName (RFC 5280, 4.2.1.6).
            times = self._before_times + der(SEQUENCE, time_of(begins) + time_of(ends)) + b"\x30\x00" + P256
            self._times = (begins, ends), times
        key_id = sha1(point, usedforsecurity=False).digest()
        extensions = self._names.get(identity) or self._extensions(identity)
        body = b"".join((VERSION, integer(serial), self._times[1], point, extensions, key_id, self._authority_key_id))
        body = der(SEQUENCE, body)
        signature = self._sign(body)
        return der(SEQUENCE, b"".join((body, self._algorithm, der(BIT_STRING, b"\x00" + signature))))
