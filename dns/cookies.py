"""DNS cookies (RFC 7873) that several servers can share (RFC 9018): who sends a good one was not made up by another."""

from __future__ import annotations

from struct import Struct

_TIMES = Struct("!I")
_HALVES = Struct("<QQ")
_WORD = Struct("<Q")
_MASK = 0xFFFFFFFFFFFFFFFF
VERSION = b"\1\0\0\0"
"""And three octets that are reserved."""
OLDEST_S, AHEAD_S, RENEW_S = 3600, 300, 1800
"""How old, or how far ahead of our clock, a good cookie may be; from which age on a new one is given."""


def siphash24(key: tuple[int, int], data: bytes) -> bytes:
    """SipHash-2-4 of `data`, 8 octets as its reference implementation writes them."""
    k0, k1 = key
    v0, v1 = k0 ^ 0x736F6D6570736575, k1 ^ 0x646F72616E646F6D
    v2, v3 = k0 ^ 0x6C7967656E657261, k1 ^ 0x7465646279746573
    whole = len(data) & ~7
    words = [word for (word,) in _WORD.iter_unpack(data[:whole])]
    words.append((len(data) & 0xFF) << 56 | int.from_bytes(data[whole:], "little"))
    for step in range(len(words) + 2):
        if step < len(words):
            v3 ^= words[step]
            rounds = 2
        elif step == len(words):
            v2 ^= 0xFF
            rounds = 4
        else:
            break
        for _ in range(rounds):
            v0 = (v0 + v1) & _MASK
            v1 = ((v1 << 13 | v1 >> 51) & _MASK) ^ v0
            v0 = (v0 << 32 | v0 >> 32) & _MASK
            v2 = (v2 + v3) & _MASK
            v3 = ((v3 << 16 | v3 >> 48) & _MASK) ^ v2
            v0 = (v0 + v3) & _MASK
            v3 = ((v3 << 21 | v3 >> 43) & _MASK) ^ v0
            v2 = (v2 + v1) & _MASK
            v1 = ((v1 << 17 | v1 >> 47) & _MASK) ^ v2
            v2 = (v2 << 32 | v2 >> 32) & _MASK
        if step < len(words):
            v0 ^= words[step]
    return _WORD.pack(v0 ^ v1 ^ v2 ^ v3)


class Cookies:
    """`secrets` have 16 octets each: the first makes cookies, all are good. `now` is in Unix seconds."""

    def __init__(self, secrets: tuple[bytes, ...]) -> None:
        if not secrets or any(len(secret) != 16 for secret in secrets):
            raise ValueError("a cookie secret has 16 octets (32 hexadecimal digits)")
        self._keys = [_HALVES.unpack(secret) for secret in secrets]

    def good(self, option: bytes, address: bytes, now: float) -> bool:
        """Whether we made this cookie (client's and server's part) for this address, not long ago."""
        if len(option) != 24 or option[8:12] != VERSION:
            return False
        age = self._age(option, now)
        if not -AHEAD_S <= age <= OLDEST_S:
            return False
        return any(siphash24(key, option[:16] + address) == option[16:] for key in self._keys)

    def reply(self, option: bytes, address: bytes, now: float) -> bytes:
        """The cookie to send back for one that came, of 8 octets or more."""
        if self.good(option, address, now) and self._age(option, now) < RENEW_S:
            return option
        start = option[:8] + VERSION + _TIMES.pack(int(now) & 0xFFFFFFFF)
        return start + siphash24(self._keys[0], start + address)

    @staticmethod
    def _age(option: bytes, now: float) -> int:
        """Seconds, in serial number arithmetic (RFC 1982)."""
        (made,) = _TIMES.unpack_from(option, 12)
        age = (int(now) - int(made)) & 0xFFFFFFFF
        return age - (1 << 32) if age >= 1 << 31 else age
