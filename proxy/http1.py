"""HTTP/1.1 as bytes, both roles: heads and bodies out of what a connection read (RFC 9112).

Feed bytes, then ask: `read_head` (None: more bytes needed), `read_body` (what is there now), `complete`,
`next_message`.
Whatever could be read in two ways is refused with ProtocolError: nothing is repaired. After an error the parser is
of no more use, and the connection must be closed. Runs compiled (with http1.pxd: one pass over the bytes) or as it
stands (searches and translations of whole blocks, since loops over bytes are slow in Python); both say the same.
Long because both roles share most of it, and one page shows what is refused.
"""

from __future__ import annotations

import re

from ..registry.reasons import TOO_LARGE, UP_MALFORMED
from .message import KNOWN, Head, ProtocolError, RequestHead, ResponseHead, crlf_at, needle

MAX_HEAD = 60 * 1024
"""Octets of a head, as Envoy's default."""
MAX_HEADERS = 100
MAX_TARGET = 16 * 1024
"""Octets of a request target."""
MAX_METHOD = 32
MAX_CHUNK_LINE = 1024
"""Octets of one chunk size line with its extensions."""
MAX_CHUNK_EXCESS = 16 * 1024
"""Octets of chunk lines beyond what is usual (16 a chunk, and twice the data) in one body."""
MAX_TRAILERS = 8 * 1024
MAX_INTERIM = 16
"""1xx heads before a final one."""

# States of a parser.
HEAD, LENGTH, CHUNK_SIZE, CHUNK_DATA, CHUNK_END, TRAILERS, UNTIL_CLOSE, TUNNEL, DONE = range(9)

_TCHAR = b"!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TARGET = bytes(c for c in range(0x21, 0x7F) if c != 0x23)  # visible ASCII without `#`
_VALUE = bytes([0x09, *range(0x20, 0x7F), *range(0x80, 0x100)])
_HEX = b"0123456789abcdefABCDEF"
_TOKEN_BIT, _TARGET_BIT, _VALUE_BIT, _NAME_BIT = 1, 2, 4, 8  # the last: a token's octets without `_`
_CLASSES = bytes(
    (_TOKEN_BIT if c in _TCHAR else 0)
    | (_TARGET_BIT if c in _TARGET else 0)
    | (_VALUE_BIT if c in _VALUE else 0)
    | (_NAME_BIT if c in _TCHAR and c != 0x5F else 0)
    for c in range(256)
)
_LOWER = bytes(range(256)).lower()
_PLAIN = _VALUE + b"\r\n"
_METHODS: dict[bytes, str] = {
    name.encode(): name for name in ("GET", "HEAD", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "CONNECT", "TRACE")
}
_HOST = re.compile(rb"(?:[A-Za-z0-9._-]{1,255}|\[[0-9A-Fa-f:.]{2,45}\])(?::([0-9]{1,5}))?")
_STATUS_LINE = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9][0-9])(?: [\t\x20-\x7e\x80-\xff]*)?")
_ABSOLUTE = re.compile(r"[Hh][Tt][Tt][Pp]://([^/?]*)(.*)")
_hosts: dict[bytes, str] = {}
_names: dict[bytes, int] = {name.encode(): number for number, name in enumerate(KNOWN)}
_names |= {name.title().encode(): number for number, name in enumerate(KNOWN)}
_CACHE_MOST = 4096

N_HOST, N_LENGTH, N_CODING, N_CONNECTION, N_UPGRADE, N_EXPECT, N_TE, N_LAST_CUT, N_SERVICE_TIME = (
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    10,
    17,
)
_HOST_BIT, _LENGTH_BIT, _CODING_BIT = 1, 2, 4
# What a Connection header may not take away from the next hop, whoever lists it there.
ESSENTIAL = frozenset(
    (
        *("host", "content-length", "transfer-encoding", "content-type", "content-encoding", "authorization"),
        *("cookie", "set-cookie", "expect", "forwarded", "via", "x-real-ip", "traceparent", "tracestate", "baggage"),
        *("b3", "x-request-id", "origin"),
    )
)
ESSENTIAL_PREFIXES = ("x-forwarded-", "x-envoy-", "x-fairlead-", "x-b3-", "sec-")
# Names that servers which take `_` for `-` (CGI, WSGI) would take for one that frames or is trusted.
_FOLDED = frozenset((b"content-length", b"transfer-encoding", b"proxy-authorization", b"x-real-ip", b"x-client-ip"))
_FOLDED_PREFIXES = (b"x-forwarded-", b"x-envoy-", b"x-fairlead-")

# A perfect hash of the known names by length, first and last character, for the compiled scanner.
_WIDTH = 32


def _perfect() -> tuple[int, int, bytes]:
    for a in range(1, 64):
        for b in range(1, 64):
            slots = [255] * 256
            for number, name in enumerate(KNOWN):
                key = (len(name) * a + ord(name[0]) * b + ord(name[-1])) & 255
                if slots[key] != 255:
                    break
                slots[key] = number
            else:
                return a, b, bytes(slots)
    raise AssertionError("no perfect hash for the known headers")


_HASH_A, _HASH_B, _SLOTS = _perfect()
_KNOWN_TEXT = b"".join(name.encode().ljust(_WIDTH, b"\0") for name in KNOWN)
_KNOWN_LENGTHS = bytes(len(name) for name in KNOWN)
COMPILED = not __file__.endswith((".py", ".pyc"))
# Plain names for what the .pxd declares as C pointers; the bytes above keep them alive.
_classes = _CLASSES
_lower = _LOWER
_slots = _SLOTS
_known_text = _KNOWN_TEXT
_known_lengths = _KNOWN_LENGTHS


def _shown(piece: bytes) -> str:
    return repr(piece[:40])[1:]


def check_host(value: bytes) -> str:
    """`uri-host[:port]` as text; raises ProtocolError. Names are letters, digits, `.`, `-`, `_`; or an IP literal."""
    found = _hosts.get(value)
    if found is None:
        match = _HOST.fullmatch(value)
        if match is None or (match[1] is not None and not 0 < int(match[1]) <= 65535):
            raise ProtocolError(f"Host: expected a name or address with an optional port, got {_shown(value)}")
        found = value.decode("ascii")
        if len(_hosts) >= _CACHE_MOST:
            _hosts.clear()
        _hosts[value] = found
    return found


def check_length(value: bytes) -> int:
    """Content-Length as a number; raises ProtocolError for anything but 1 to 18 digits."""
    if not value.isdigit() or len(value) > 18:  # bytes.isdigit is ASCII only
        raise ProtocolError(f"Content-Length: expected digits, got {_shown(value)}")
    return int(value)


def chunk(data: bytes) -> bytes:
    """One chunk of a chunked body; `data` must not be empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


LAST_CHUNK = b"0\r\n\r\n"


def _all_of(text: bytes, start: int, stop: int, kind: int) -> bool:
    """Whether all octets of text[start:stop] are of a class; for the compiled module."""
    while start < stop:
        if not _classes[text[start]] & kind:
            return False
        start += 1
    return True


def _empty_line(text: bytes, at: int, stop: int) -> int:
    """Where the first CRLF CRLF of text[at:stop] begins, -1: nowhere; for the compiled module."""
    at += 3
    while at < stop:
        octet = text[at]
        if octet == 10:
            if text[at - 1] == 13 and text[at - 2] == 10 and text[at - 3] == 13:
                return at - 3
            at += 2  # this LF may be the first of the two
        elif octet == 13:
            at += 1
        else:
            at += 4
    return -1


def _blank_at(text: bytes, at: int, stop: int) -> int:
    """Where the first blank of text[at:stop] is, -1: nowhere; for the compiled module."""
    while at < stop:
        if text[at] == 32:
            return at
        at += 1
    return -1


def _digits(text: bytes, size: int) -> int:
    """The number that at most 18 digits are, -1: there are others or none; for the compiled module."""
    if size == 0 or size > 18:
        return -1
    number = 0
    for k in range(size):
        octet = text[k]
        if octet < 48 or octet > 57:
            return -1
        number = number * 10 + (octet - 48)
    return number


class Parser:
    """What both roles share: the buffer, fields, bodies."""

    def __init__(self, max_head: int = MAX_HEAD, max_headers: int = MAX_HEADERS) -> None:
        self.max_head = max_head
        self.max_headers = max_headers
        self.state = HEAD
        self.complete = False
        """The message whose head was read has ended; `next_message` goes on to the one after it."""
        self.trailers = b""
        """Trailer lines of a chunked body that has ended, checked, each with its line end."""
        self._buffer = b""
        self._at = 0
        self._searched = 0
        self._left = 0
        self._excess = 0
        self._serves = False
        """A server's parser: reads requests."""
        self._may_skip = False
        """An empty line before the next request is skipped (RFC 9112 section 2.2)."""
        self._host: bytes | None = None
        self._length: bytes | None = None
        self._coding: bytes | None = None
        self._connection: bytes | None = None
        self._upgrade: bytes | None = None
        self._expect: bytes | None = None

    def feed(self, data: bytes) -> None:
        """Take what the connection read."""
        if self._at >= len(self._buffer):
            self._buffer = data
            self._at = 0
            self._searched = 0
        elif self._at == 0:
            self._buffer = self._buffer + data
        else:
            self._buffer = self._buffer[self._at :] + data
            self._searched = max(0, self._searched - self._at)
            self._at = 0

    def unread(self) -> int:
        """How many bytes are fed and not read."""
        return len(self._buffer) - self._at

    def take_rest(self) -> bytes:
        """All unread bytes, raw: after a switch of protocols."""
        octets = self._buffer
        rest = octets[self._at : len(self._buffer)]
        self._buffer = b""
        self._at = 0
        self._searched = 0
        return rest

    def next_message(self) -> None:
        """Go on to the next message on this connection."""
        self.state = HEAD
        self.complete = False
        self._searched = self._at

    # --- heads

    def _find_head(self) -> int:
        """Where the head that begins at `_at` ends; -1 where it is not whole yet. Checks what there is of it."""
        buffer = self._buffer
        at = self._at
        size = len(buffer)
        if size == at:
            return -1
        start = self._searched if self._searched > at else at
        end = _empty_line(buffer, start, size) if COMPILED else buffer.find(b"\r\n\r\n", start)
        if end >= 0:
            if end + 4 - at > self.max_head:
                raise self._error(f"the head has more than {self.max_head} octets", TOO_LARGE)
            return end + 4
        if self._may_skip and buffer[at : at + 1] == b"\r":
            if size == at + 1:
                return -1
            if buffer[at + 1 : at + 2] == b"\n":
                self._skip_line()
                return self._find_head()
        self._check_part(buffer, at, size)
        self._searched = max(at, size - 3)
        return -1

    def _skip_line(self) -> None:
        """The empty line that some clients send behind a body."""
        self._at += 2
        self._searched = self._at
        self._may_skip = False

    def _check_part(self, buffer: bytes, at: int, size: int) -> None:
        """Refuse an unfinished head as soon as it cannot become a good one."""
        if size - at > self.max_head:
            raise self._error(f"the head has more than {self.max_head} octets and no end", TOO_LARGE)
        fresh = buffer[self._searched if self._searched > at else at :]
        if buffer[at : at + 1].translate(None, _TCHAR):
            raise self._error(f"expected the start of a message, got {_shown(buffer[at:])}")
        bad = fresh.translate(None, _PLAIN)
        whole = fresh.count(b"\r\n")
        if bad:
            raise self._error(f"the head has octet {_shown(bad[:1])}, which no head may have")
        before = 1 if self._searched > at and fresh[:1] == b"\n" and buffer[: size - len(fresh)].endswith(b"\r") else 0
        if fresh.count(b"\n") - before != whole or fresh.count(b"\r") - (1 if fresh.endswith(b"\r") else 0) != whole:
            raise self._error("a line ends with a bare CR or LF")

    def _scan(self, head: Head, raw: bytes, start: int) -> None:
        """Check all header lines of `raw` from `start` on, and note those that are known."""
        self._host = self._length = self._coding = None
        self._connection = self._upgrade = self._expect = None
        head.raw = raw
        head.first = start
        if COMPILED:
            self._scan_bytes(head, raw, start, len(raw) - 2)
        else:
            self._scan_lines(head, raw, start)

    def _scan_bytes(self, head: Head, raw: bytes, i: int, end: int) -> None:
        """One pass, octet by octet; for the compiled module."""
        text = raw
        count = 0
        head.line_count = 0
        while i < end:
            start = i
            while _classes[text[i]] & 8:
                i += 1
            if text[i] == 95:
                while _classes[text[i]] & 1:
                    i += 1
                if self._serves:
                    self._check_folded(raw, start, i)
            length = i - start
            if length == 0 or text[i] != 58:
                raise self._bad_line(raw, start)
            slot = (length * _HASH_A + _lower[text[start]] * _HASH_B + _lower[text[i - 1]]) & 255
            number = _slots[slot]
            if number != 255:
                if _known_lengths[number] != length:
                    number = 255
                else:
                    base = number * 32
                    for k in range(length):
                        if _lower[text[start + k]] != _known_text[base + k]:
                            number = 255
                            break
            head.note_line(start, length, _lower[text[start]])
            i += 1
            while text[i] == 32 or text[i] == 9:
                i += 1
            value = i
            while _classes[text[i]] & 4:
                i += 1
            if text[i] != 13 or text[i + 1] != 10:
                raise self._bad_line(raw, start)
            count += 1
            if number != 255:
                stop = i
                while stop > value and (text[stop - 1] == 32 or text[stop - 1] == 9):
                    stop -= 1
                self._note(head, number, raw, start, value, stop, i + 2)
            i += 2
        if count > self.max_headers:
            raise self._error(f"the head has {count} headers, more than {self.max_headers}", TOO_LARGE)

    def _scan_lines(self, head: Head, raw: bytes, start: int) -> None:
        """The same by searches and translations; for plain Python."""
        block = raw[start:-4]
        if len(raw) - start <= 2:
            return
        if (
            block.translate(None, _PLAIN)
            or block.count(b"\n") != block.count(b"\r")
            or b"\n" in block.replace(b"\r\n", b"")
        ):
            raise self._bad_line(raw, start)
        lines = block.split(b"\r\n")
        if len(lines) > self.max_headers:
            raise self._error(f"the head has {len(lines)} headers, more than {self.max_headers}", TOO_LARGE)
        at = start
        for line in lines:
            after = at + len(line) + 2
            name, colon, value = line.partition(b":")
            number = _names.get(name)
            if number is None:
                if not colon or not name or name.translate(None, _TCHAR):
                    raise self._bad_line(raw, at)
                number = _names.get(name.lower(), 255)
                if len(_names) < _CACHE_MOST:
                    _names[name] = number
            if self._serves and b"_" in name:
                self._check_folded(raw, at, at + len(name))
            if number != 255:
                if not colon:
                    raise self._bad_line(raw, at)
                stripped = value.strip(b" \t")
                begin = at + len(name) + 1 + (len(value) - len(value.lstrip(b" \t")))
                self._note(head, number, raw, at, begin, begin + len(stripped), after)
            elif not colon:
                raise self._bad_line(raw, at)
            at = after

    def _bad_line(self, raw: bytes, start: int) -> ProtocolError:
        line = raw[start:].split(b"\r\n", 1)[0]
        return self._error(f"a header line at octet {start} is not `name: value`: {_shown(line)}")

    def _check_folded(self, raw: bytes, start: int, stop: int) -> None:
        """Refuse a name with `_` that some servers take for one that frames or is trusted."""
        name = raw[start:stop].lower().replace(b"_", b"-")
        if name in _FOLDED or name.startswith(_FOLDED_PREFIXES):
            raise self._error(f"{_shown(raw[start:stop])}: some servers take it for {name.decode('latin-1')}")

    def _note(self, head: Head, number: int, raw: bytes, start: int, value: int, stop: int, after: int) -> None:
        """A known header's line is raw[start:after], its value raw[value:stop]."""
        bit = 1 << number
        if number <= N_EXPECT:
            octets = raw  # compiled: a pointer
            text = octets[value:stop]
            twice = head.seen & bit
            if number == N_HOST:
                if twice:
                    raise self._error("Host is given more than once")
                self._host = text
            elif number == N_LENGTH:
                if twice:
                    raise self._error("Content-Length is given more than once")
                self._length = text
            elif number == N_CODING:
                if twice:
                    raise self._error("Transfer-Encoding is given more than once")
                self._coding = text
            elif number == N_CONNECTION:
                self._connection = text if self._connection is None else self._connection + b"," + text
            elif number == N_UPGRADE:
                self._upgrade = text if self._upgrade is None else self._upgrade + b"," + text
            else:
                self._expect = text if self._expect is None else self._expect + b"," + text
        if number == N_SERVICE_TIME and not self._serves:
            bit = 0  # that of another proxy before the endpoint; ours takes its place
        if not bit or (N_CODING <= number <= N_LAST_CUT and number != N_EXPECT):
            if number == N_TE:
                octets = raw
                for member in octets[value:stop].lower().split(b","):
                    if member.strip(b" \t") == b"trailers":
                        head.te_trailers = True
            cuts = head.cuts
            if cuts is None:
                head.cuts = [start, after]
            elif cuts[-1] == start:
                cuts[-1] = after
            else:
                cuts.append(start)
                cuts.append(after)
        head.seen |= bit

    def _read_connection(self, head: Head) -> None:
        """Connection, Upgrade: whether the connection goes on, what is asked for, which lines stay on this hop."""
        head.keep_alive = head.minor == 1
        if self._connection is None:
            return
        upgrade = False
        named: list[str] = []
        options = self._connection.lower()
        if options == b"keep-alive":
            head.keep_alive = True
            return
        close = False
        for option in options.split(b","):
            option = option.strip(b" \t")
            if not option:
                continue
            if option.translate(None, _TCHAR):
                raise self._error(f"Connection: expected names, got {_shown(option)}")
            if option == b"close":
                close = True
            elif option == b"keep-alive":
                head.keep_alive = True
            elif option == b"upgrade":
                upgrade = True
            else:
                name = option.decode("ascii")
                if name not in named:  # each costs a search of the head
                    if len(named) >= self.max_headers:
                        raise self._error(f"Connection names more than {self.max_headers} headers", TOO_LARGE)
                    named.append(name)
        if close:
            head.keep_alive = False
        if upgrade and self._upgrade is not None and head.minor == 1:
            head.upgrade = self._upgrade.decode("latin-1").lower()
        for name in named:
            if name not in ESSENTIAL and not name.startswith(ESSENTIAL_PREFIXES):
                _cut_named(head, name)

    def _start_body(self, head: Head) -> None:
        """Content-Length and Transfer-Encoding, which may not disagree; sets the state."""
        if self._coding is not None:
            if self._length is not None:
                raise self._error("both Content-Length and Transfer-Encoding are given")
            if head.minor == 0:
                raise self._error("Transfer-Encoding in HTTP/1.0")
            if self._coding.lower() != b"chunked":
                status = 501 if _other_coding(self._coding) else 400
                raise self._error(f"Transfer-Encoding: expected `chunked`, got {_shown(self._coding)}", None, status)
            head.chunked = True
            self.state = CHUNK_SIZE
            self._excess = 0
            self.trailers = b""
            return
        if self._length is not None:
            length = _digits(self._length, len(self._length)) if COMPILED else -1
            if length < 0:
                try:
                    length = check_length(self._length)
                except ProtocolError as error:
                    raise self._error(str(error)) from None
            head.content_length = length
            self._left = head.content_length
            if self._left:
                self.state = LENGTH
                return
        self.state = DONE
        self.complete = True

    def _error(self, why: str, reason: object = None, status: int = 0) -> ProtocolError:
        raise NotImplementedError

    # --- bodies

    def read_body(self) -> bytes:
        """Decoded body octets that are there now; empty: none yet, or `complete`. Raises ProtocolError."""
        have = len(self._buffer) - self._at
        if have == 0 or self.state == DONE or self.state == HEAD:
            return b""
        if self.state == LENGTH:
            if have <= self._left:
                out = self.take_rest()
                self._left -= have
            else:
                octets = self._buffer
                out = octets[self._at : self._at + self._left]
                self._at += self._left
                self._left = 0
            if self._left == 0:
                self.state = DONE
                self.complete = True
            return out
        if self.state == UNTIL_CLOSE or self.state == TUNNEL:
            return self.take_rest()
        return self._read_chunks()

    def _read_chunks(self) -> bytes:
        pieces: list[bytes] = []
        while True:
            if self.state == CHUNK_DATA:
                have = len(self._buffer) - self._at
                if have == 0:
                    break
                take = have if have < self._left else self._left
                pieces.append(self._buffer[self._at : self._at + take])
                self._at += take
                self._left -= take
                if self._left:
                    break
                self.state = CHUNK_END
            if self.state == CHUNK_END:
                end = self._buffer[self._at : self._at + 2]
                if end != b"\r\n":
                    if not b"\r\n".startswith(end):
                        raise self._error(f"expected CRLF after a chunk, got {_shown(end)}")
                    break
                self._at += 2
                self.state = CHUNK_SIZE
            if self.state == CHUNK_SIZE and not self._read_chunk_size():
                break
            if self.state == TRAILERS:
                self._read_trailers()
                break
        if len(pieces) == 1:
            return pieces[0]
        return b"".join(pieces)

    def _read_chunk_size(self) -> bool:
        buffer = self._buffer
        end = buffer.find(b"\r\n", self._at, self._at + MAX_CHUNK_LINE)
        if end < 0:
            part = buffer[self._at : self._at + MAX_CHUNK_LINE]
            if len(part) >= MAX_CHUNK_LINE or b"\n" in part or b"\r" in part[:-1]:
                raise self._error(f"expected a chunk size and CRLF, got {_shown(part)}")
            if part.split(b";", 1)[0].rstrip(b"\r").translate(None, _HEX):
                raise self._error(f"chunk size: expected hexadecimal digits, got {_shown(part)}")
            return False
        line = buffer[self._at : end]
        semicolon = line.find(b";")
        if semicolon >= 0:
            extension = line[semicolon:]
            line = line[:semicolon]
            if extension.translate(None, _VALUE):
                raise self._error(f"chunk extensions: octets that may not be there, {_shown(extension)}")
        if not line or len(line) > 15 or line.translate(None, _HEX):
            raise self._error(f"chunk size: expected 1 to 15 hexadecimal digits, got {_shown(line)}")
        self._left = int(line, 16)
        self._excess += end + 2 - self._at - 16 - 2 * self._left
        if self._excess < 0:
            self._excess = 0
        elif self._excess > MAX_CHUNK_EXCESS:
            raise self._error(f"chunks: more than {MAX_CHUNK_EXCESS} octets that are no data", TOO_LARGE, 413)
        self._at = end + 2
        self.state = CHUNK_DATA if self._left else TRAILERS
        return True

    def _read_trailers(self) -> None:
        buffer = self._buffer
        if buffer[self._at : self._at + 2] == b"\r\n":
            self._at += 2
        else:
            end = buffer.find(b"\r\n\r\n", self._at)
            size = (end + 4 if end >= 0 else len(buffer)) - self._at
            if size > MAX_TRAILERS:
                raise self._error(f"the trailers have more than {MAX_TRAILERS} octets", TOO_LARGE)
            if end < 0:
                part = buffer[self._at :]
                if part.translate(None, _PLAIN) or b"\n" in part.replace(b"\r\n", b"") or part[:1] in b"\n \t:":
                    if part:
                        raise self._error("a trailer line is not `name: value` and CRLF")
                return
            block = buffer[self._at : end + 2]
            for line in block[:-2].split(b"\r\n"):
                name, colon, value = line.partition(b":")
                if not colon or not name or name.translate(None, _TCHAR) or value.translate(None, _VALUE):
                    raise self._error(f"a trailer line is not `name: value`: {_shown(line)}")
            self.trailers = block
            self._at = end + 4
        self.state = DONE
        self.complete = True


def _other_coding(value: bytes) -> bool:
    """Whether this Transfer-Encoding is one that could be right, with codings that are not spoken here."""
    members = [member.strip(b" \t").lower() for member in value.split(b",")]
    return (
        len(members) > 1
        and members[-1] == b"chunked"
        and members.count(b"chunked") == 1
        and all(member and not member.translate(None, _TCHAR) for member in members)
    )


def _cut_named(head: Head, name: str) -> None:
    """Add every line of the header `name` to the head's cuts."""
    sought = needle(name)
    lower = head.lower()
    shift = head.first - 2
    at = lower.find(sought)
    spans = []
    while at >= 0:
        end = lower.find(b"\r\n", at + len(sought))
        spans.append((at + shift + 2, end + shift + 2))
        at = lower.find(sought, end)
    if not spans:
        return
    cuts = head.cuts or []
    spans += [(cuts[k], cuts[k + 1]) for k in range(0, len(cuts), 2)]
    merged: list[int] = []
    for begin, end in sorted(set(spans)):
        if merged and begin <= merged[-1]:
            merged[-1] = max(merged[-1], end)
        else:
            merged += (begin, end)
    head.cuts = merged


class RequestParser(Parser):
    """The server's side of a connection: requests, one after another."""

    def __init__(self, max_head: int = MAX_HEAD, max_headers: int = MAX_HEADERS, max_target: int = MAX_TARGET) -> None:
        Parser.__init__(self, max_head, max_headers)
        self.max_target = max_target
        self._serves = True
        self._may_skip = True

    def read_head(self) -> RequestHead | None:
        """The next request's head; None: more bytes needed. Call once a message, before `read_body`."""
        end = self._find_head()
        if end < 0:
            return None
        octets = self._buffer
        raw = octets[self._at : end] if self._at or end < len(self._buffer) else self._buffer
        head = RequestHead()
        line_end = crlf_at(raw, 0, len(raw)) if COMPILED else raw.find(b"\r\n")
        if line_end == 0 and self._may_skip:
            self._skip_line()
            return self.read_head()
        if line_end < 12:  # `G / HTTP/1.1`
            raise self._error(f"expected a request line, got {_shown(raw[:line_end])}")
        self._read_request_line(head, raw, line_end)
        self._scan(head, raw, line_end + 2)
        self._at = end
        self._searched = end
        self._may_skip = True
        self._read_connection(head)
        self._start_body(head)
        self._read_target(head)
        if self._length is not None and len(self._length) > 1 and self._length.startswith(b"0"):
            raise self._error(f"Content-Length: expected a number without zeros before it, got {_shown(self._length)}")
        if not self.complete and head.method == "TRACE":
            raise self._error("TRACE with a body")
        if self._expect is not None:
            self._read_expect(head)
        return head

    def _read_expect(self, head: RequestHead) -> None:
        """What is expected of a request that has a body to wait for; else it stays on this hop."""
        expected = self._expect
        if head.minor == 1:
            if expected is None or expected.lower() != b"100-continue":
                raise self._error(f"Expect: expected `100-continue`, got {_shown(expected or b'')}", None, 417)
            head.expect_continue = not self.complete
        if not head.expect_continue:
            _cut_named(head, "expect")

    def _read_request_line(self, head: RequestHead, raw: bytes, line_end: int) -> None:
        text = raw  # compiled: a pointer, of which slices are cheap
        last = line_end - 9  # ` HTTP/1.x`
        version = text[last:line_end]
        first = _blank_at(raw, 0, last + 1) if COMPILED else raw.find(b" ", 0, last + 1)
        method = text[0:first] if first > 0 else b""
        if version == b" HTTP/1.1":
            head.minor = 1
        elif version == b" HTTP/1.0":
            head.minor = 0
        elif version[:6] == b" HTTP/" and version[6:7].isdigit():
            raise self._error(f"expected HTTP/1.1 or HTTP/1.0, got {_shown(version[1:])}", None, 505)
        else:
            raise self._error(f"expected a request line, got {_shown(raw[:line_end])}")
        target = text[first + 1 : last] if last > first >= 0 else b""
        known = _METHODS.get(method)
        if known is None:
            if not method or len(method) > MAX_METHOD or method.translate(None, _TCHAR):
                raise self._error(f"expected a method, got {_shown(raw[:line_end])}")
            known = method.decode("ascii")
        if not target or not (_all_of(text, first + 1, last, 2) if COMPILED else not target.translate(None, _TARGET)):
            raise self._error(f"expected a request target, got {_shown(target)}")
        if len(target) > self.max_target:
            raise self._error(f"the request target has more than {self.max_target} octets", TOO_LARGE, 414)
        head.method = known
        head.target = target.decode("ascii")

    def _read_target(self, head: RequestHead) -> None:
        """Host, and the target's form, which may not disagree."""
        if self._host is not None:
            head.authority = check_host(self._host)
        elif head.minor == 1:
            raise self._error("Host is missing")
        target = head.target
        if head.method == "CONNECT":
            self._read_connect(head, target)
        elif target.startswith("/"):
            head.path = target
        elif target == "*":
            if head.method != "OPTIONS":
                raise self._error("the request target `*` is for OPTIONS only")
            head.path = target
        else:
            match = _ABSOLUTE.fullmatch(target)
            if match is None:
                raise self._error(f"expected a path or an http:// target, got {_shown(target.encode())}")
            authority = check_host(match[1].encode())
            if self._host is not None and authority.lower() != head.authority.lower():
                raise self._error(f"the target names {authority} and Host {head.authority}")
            head.authority = authority
            if head.method == "OPTIONS" and not match[2]:
                head.path = "*"  # RFC 9112 section 3.2.4
            else:
                head.path = match[2] if match[2].startswith("/") else "/" + match[2]

    def _read_connect(self, head: RequestHead, target: str) -> None:
        authority = check_host(target.encode())
        if authority[-1:] == "]" or ":" not in authority:
            raise self._error("CONNECT: the target has no port")
        if self._host is not None and head.authority.lower() not in (
            authority.lower(),
            authority.lower().rpartition(":")[0],
        ):
            raise self._error(f"CONNECT: the target is {authority} and Host {head.authority}")
        if head.chunked or head.content_length >= 0:
            raise self._error("CONNECT with a body")
        head.authority = authority

    def _error(self, why: str, reason: object = None, status: int = 0) -> ProtocolError:
        if reason is TOO_LARGE:
            return ProtocolError(why, TOO_LARGE, status)
        return ProtocolError(why, status=status)


class ResponseParser(Parser):
    """The client's side of a connection: `expect` a response before reading each."""

    def __init__(self, max_head: int = MAX_HEAD, max_headers: int = MAX_HEADERS) -> None:
        Parser.__init__(self, max_head, max_headers)
        self._method = ""
        self._interim = 0

    def expect(self, method: str) -> None:
        """A request with this method has been sent; its response is what comes next."""
        self._method = method
        self._interim = 0
        self.next_message()

    def read_head(self) -> ResponseHead | None:
        """The next head; None: more bytes needed. After a 1xx other than 101 call again: the final one follows."""
        end = self._find_head()
        if end < 0:
            return None
        octets = self._buffer
        raw = octets[self._at : end]
        head = ResponseHead()
        line_end = crlf_at(raw, 0, len(raw)) if COMPILED else raw.find(b"\r\n")
        # The two most common first, without a regular expression.
        if raw.startswith(b"HTTP/1.1 200 ") and (
            _all_of(raw, 13, line_end, 4) if COMPILED else not raw[13:line_end].translate(None, _VALUE)
        ):
            head.status = 200
        else:
            match = _STATUS_LINE.fullmatch(raw, 0, line_end)
            if match is None:
                raise self._error(f"expected a status line, got {_shown(raw[:line_end])}")
            head.minor = 1 if match[1] == b"1" else 0
            head.status = int(match[2])
        self._scan(head, raw, line_end + 2)
        self._at = end
        self._searched = end
        self._read_connection(head)
        self._read_framing(head)
        return head

    def _read_framing(self, head: ResponseHead) -> None:
        status = head.status
        if (status < 200 or status == 204) and self._length is not None:  # RFC 9110 section 8.6
            _cut_named(head, "content-length")
        if status < 200 and status != 101:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                raise self._error(f"more than {MAX_INTERIM} interim responses")
            return
        if status == 101:
            self.state = TUNNEL
            return
        self._start_body(head)
        if self._method == "HEAD" or status == 204 or status == 304:
            self.state = DONE
            self.complete = True
            head.chunked = False
        elif self._coding is None and self._length is None:
            self.state = UNTIL_CLOSE
            self.complete = False
            head.until_close = True
            head.keep_alive = False

    def eof(self) -> None:
        """The peer closed its side: the end of a close-delimited body; raises ProtocolError where more was promised."""
        if self.state == UNTIL_CLOSE or self.state == TUNNEL:
            self.state = DONE
            self.complete = True
        elif self.state != DONE:
            raise self._error("the connection ended before the response did")

    def _error(self, why: str, reason: object = None, status: int = 0) -> ProtocolError:
        return ProtocolError(why, UP_MALFORMED, 502)
