"""HPACK, both directions, without I/O (RFC 7541).

A Field is made once and shared by every head that names it: what kind it is, whether it may stand in a head at all and
its line of an HTTP/1.1 head are found when it enters a table, not each time. The encoder likewise knows a line that it
has sent before by its octets. Runs compiled (with hpack.pxd) or as it stands. Long because both directions share what
is known of names.
"""

from __future__ import annotations

from .huffman import huffman_decode, huffman_encode

PLAIN, METHOD, SCHEME, AUTHORITY, PATH, STATUS, PROTOCOL, HOST, COOKIE, BAD = range(10)
"""Kinds of a field."""

_STATIC_TEXT = (
    ":authority=;:method=GET;:method=POST;:path=/;:path=/index.html;:scheme=http;:scheme=https;:status=200;:status=204;"
    ":status=206;:status=304;:status=400;:status=404;:status=500;accept-charset=;accept-encoding=gzip, deflate;"
    "accept-language=;accept-ranges=;accept=;access-control-allow-origin=;age=;allow=;authorization=;cache-control=;"
    "content-disposition=;content-encoding=;content-language=;content-length=;content-location=;content-range=;"
    "content-type=;cookie=;date=;etag=;expect=;expires=;from=;host=;if-match=;if-modified-since=;if-none-match=;if-range=;"
    "if-unmodified-since=;last-modified=;link=;location=;max-forwards=;proxy-authenticate=;proxy-authorization=;range=;"
    "referer=;refresh=;retry-after=;server=;set-cookie=;strict-transport-security=;transfer-encoding=;user-agent=;vary=;"
    "via=;www-authenticate="
)
"""RFC 7541 appendix A."""
_STATIC_PAIRS: list[tuple[bytes, bytes]] = [
    (name.encode(), value.encode()) for name, _, value in (pair.partition("=") for pair in _STATIC_TEXT.split(";"))
]
_KINDS: dict[bytes, int] = {
    b":method": METHOD,
    b":scheme": SCHEME,
    b":authority": AUTHORITY,
    b":path": PATH,
    b":status": STATUS,
    b":protocol": PROTOCOL,
    b"host": HOST,
    b"cookie": COOKIE,
    b"te": BAD,
    b"connection": BAD,
    b"keep-alive": BAD,
    b"proxy-connection": BAD,
    b"transfer-encoding": BAD,
    b"upgrade": BAD,
}
"""Of the names that are not PLAIN (`te` is with the value `trailers`)."""
_HOP = frozenset((b"connection", b"keep-alive", b"proxy-connection", b"transfer-encoding", b"upgrade", b"host"))
_TOKEN = b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyz"
_SECRET = frozenset((b"authorization", b"cookie", b"set-cookie", b"proxy-authorization"))
_never: dict[bytes, bool] = {}
"""Names whose values no table may hold; a peer that says so of another name is believed (section 6.2.3)."""
_NEVER_MOST = 256
_UNIQUE = frozenset(
    (
        *(b":path", b"x-request-id", b"traceparent", b"tracestate", b"b3", b"x-b3-traceid", b"x-b3-spanid"),
        *(b"x-b3-parentspanid", b"content-range", b"range", b"location"),
    )
)
"""Names whose values are seldom the same twice: sent as they are, remembered nowhere."""
_FRESH = frozenset(
    (
        *(b"date", b"age", b"content-length", b"etag", b"last-modified", b"expires", b"if-match", b"if-none-match"),
        *(b"if-modified-since", b"if-unmodified-since", b"x-envoy-upstream-service-time", b"x-fairlead-reason"),
        *(b"x-envoy-expected-rq-timeout-ms", b"grpc-timeout"),
    )
)
"""Names whose values are the same for a while: not worth a place in the table."""
_OVERHEAD = 32
"""What an entry counts beyond its name and value (section 4.1)."""
_ENTRY_MOST = 1024
"""Octets of an entry that we put into a table."""
_LINES_MOST = 512
_LINE_MOST = 512
_INTEGER_MOST = 1 << 28
COMPILED = not __file__.endswith((".py", ".pyc"))


class HpackError(Exception):
    """COMPRESSION_ERROR: the connection must end. `str()`: why."""


def _kept_out(name: bytes) -> bool:
    """Whether values of this name go into no table and no cache."""
    return name in _UNIQUE or name in _SECRET or _is_never(name)


def _is_never(name: bytes) -> bool:
    """Whether somebody sent this name as never to be indexed; where too many were, any that is not _KNOWN."""
    return name in _never or (len(_never) >= _NEVER_MOST and name not in _KNOWN)


class Field:
    """One field; never changed after it is made."""

    def __init__(self, name: bytes, value: bytes, sensitive: bool = False) -> None:
        self.name = name
        self.value = value
        self.sensitive = sensitive
        """It came as one that no table may hold."""
        self.line = b""
        """Of PLAIN: `name: value` CRLF."""
        self.why = ""
        """Of BAD: why."""
        self.kind = PLAIN
        kind = _KINDS.get(name)
        if kind is not None:
            self.kind = kind
        if len(value.translate(None, b"\r\n\0")) != len(value):
            self._refuse("a field's value has an octet that none may have")
        elif value and (value[0] in b" \t" or value[len(value) - 1] in b" \t"):
            self._refuse("a field's value begins or ends with white space")
        elif kind is None:
            if not name or name.translate(None, _TOKEN):
                self._refuse(f"{name[:40]!r} is no field's name")
            else:
                self.line = b"".join((name, b": ", value, b"\r\n"))
        elif kind == BAD:
            if name == b"te" and value == b"trailers":
                self.kind = PLAIN
                self.line = b"te: trailers\r\n"
            else:
                self._refuse(f"the field {name.decode('latin-1')} belongs to HTTP/1 connections")

    def _refuse(self, why: str) -> None:
        self.kind = BAD
        self.why = why


_STATIC: list[Field] = [Field(name, value) for name, value in _STATIC_PAIRS]
_STATIC_FIELDS: dict[tuple[bytes, bytes], int] = {
    pair: number for number, pair in reversed(list(enumerate(_STATIC_PAIRS, 1))) if pair[1]
}
_STATIC_NAMES: dict[bytes, int] = {name: number for number, (name, _) in reversed(list(enumerate(_STATIC_PAIRS, 1)))}
_KNOWN = frozenset(
    (
        *(*_STATIC_NAMES, *_HOP, b"te", b"trailer", b"grpc-status", b"grpc-message", b"grpc-encoding"),
        *(b"x-forwarded-for", b"x-forwarded-proto", b"x-forwarded-host", b"x-real-ip", b"forwarded", b"origin"),
        b"grpc-accept-encoding",
        *(b"x-envoy-attempt-count", b"content-security-policy", b"x-content-type-options", b"x-frame-options"),
    )
)
"""Names that are indexed until somebody says of the very name that no table may hold it."""


class Decoder:
    """Reads the blocks of one connection, in their order."""

    def __init__(self, max_table: int = 4096, max_list: int = 61440) -> None:
        self.max_table = max_table
        """Octets of the dynamic table that we announced."""
        self.max_list = max_list
        """Octets of a head, each field counted with 32 more."""
        self.too_large = False
        """The last block's list was larger: it was read for the table only."""
        self._size_most = max_table
        self._size = 0
        self._table: list[Field] | None = None
        """The newest at the end."""
        self._block = b""
        self._at = 0

    def decode(self, block: bytes) -> list[Field]:
        """A block's fields in order. Raises HpackError."""
        self._block = block
        self._at = 0
        self.too_large = False
        fields: list[Field] = []
        size = len(block)
        octets = block  # compiled: a pointer
        total = 0
        begun = False
        while self._at < size:
            first = octets[self._at]
            if first & 0x80:
                field = self._entry(self._integer(0x7F))
            elif first & 0x40:
                field = self._literal(0x3F, False)
                self._insert(field)
            elif first & 0x20:
                if begun:
                    raise HpackError("a change of the table's size within a block")
                self._resize(self._integer(0x1F))
                continue
            else:
                field = self._literal(0x0F, (first & 0x10) != 0)
            begun = True
            total += len(field.name) + len(field.value) + _OVERHEAD
            if total <= self.max_list:
                fields.append(field)
            elif not self.too_large:
                self.too_large = True
                fields.clear()
        self._block = b""
        return fields

    def _integer(self, mask: int) -> int:
        """Section 5.1."""
        octets = self._block  # compiled: a pointer, of which len() is C's strlen
        size = len(self._block)
        value = octets[self._at] & mask
        self._at += 1
        if value < mask:
            return value
        shift = 0
        while True:
            if self._at >= size:
                raise HpackError("the block ends within a number")
            octet = octets[self._at]
            self._at += 1
            value += (octet & 127) << shift
            if value > _INTEGER_MOST:
                raise HpackError("a number that is too large")
            if octet < 128:
                return value
            shift += 7
            if shift > 28:
                raise HpackError("a number of too many octets")

    def _skip(self) -> None:
        """Go past a string."""
        if self._at >= len(self._block):
            raise HpackError("the block ends before a string")
        length = self._integer(0x7F)
        if length > len(self._block) - self._at:
            raise HpackError("the block ends within a string")
        self._at += length

    def _string(self) -> bytes:
        """Section 5.2."""
        block = self._block
        size = len(block)
        if self._at >= size:
            raise HpackError("the block ends before a string")
        coded = block[self._at] & 0x80
        length = self._integer(0x7F)
        at = self._at
        if length > size - at:
            raise HpackError("the block ends within a string")
        self._at = at + length
        octets = block  # compiled: a pointer
        if not coded:
            return octets[at : at + length]
        text = huffman_decode(block, at, at + length)
        if text is None:
            raise HpackError("a string that is no Huffman code")
        return text

    def _entry(self, index: int) -> Field:
        if index <= 61:
            if index == 0:
                raise HpackError("the index 0")
            return _STATIC[index - 1]
        table = self._table
        have = len(table) if table is not None else 0
        if table is None or index - 61 > have:
            raise HpackError(f"the index {index}, of which the table has no entry")
        return table[have - (index - 61)]

    def _literal(self, mask: int, sensitive: bool) -> Field:
        """A literal (section 6.2). One that came before, on whatever connection, is known by its octets."""
        start = self._at
        index = self._integer(mask)
        begin = self._at
        if index <= 61:
            if not index:
                self._skip()
            self._skip()
            octets = self._block  # compiled: a pointer
            key = octets[start : self._at]
            known = _literals.get(key)
            if known is not None:
                return known
            self._at = begin
        name = self._entry(index).name if index else self._string()
        value = self._string()
        field = Field(name, value, sensitive)
        if index <= 61 and not sensitive and len(key) <= _LITERAL_MOST and not _kept_out(name):
            if len(_literals) >= _LITERALS_MOST:
                _literals.clear()
            _literals[key] = field
        if sensitive and name not in _SECRET:
            if _is_never(name):
                return field
            _never[name] = True
            _literals.clear()
            _lines.clear()
            _prefixes.clear()
        return field

    def _insert(self, field: Field) -> None:
        need = len(field.name) + len(field.value) + _OVERHEAD
        self._evict(self._size_most - need)
        if need <= self._size_most:
            if self._table is None:
                self._table = []
            self._table.append(field)
            self._size += need

    def _evict(self, most: int) -> None:
        """Section 4.3: until no more than `most` octets are left."""
        table = self._table
        if table is None:
            return
        gone = 0
        while self._size > most and gone < len(table):
            oldest = table[gone]
            self._size -= len(oldest.name) + len(oldest.value) + _OVERHEAD
            gone += 1
        if gone:
            del table[:gone]

    def _resize(self, size: int) -> None:
        if size > self.max_table:
            raise HpackError(f"a table of {size} octets; the most is {self.max_table}")
        self._size_most = size
        self._evict(size)


_literals: dict[bytes, Field] = {}
"""By the octets of the literal; only where they do not speak of the dynamic table."""
_LITERALS_MOST = 512
_LITERAL_MOST = 256

# What to do with a line.
_DROP, _STATIC_HIT, _INDEX, _LITERAL = range(4)


class Line:
    """How a field is sent; shared by all encoders."""

    def __init__(self, name: bytes, value: bytes) -> None:
        self.how = _LITERAL
        self.size = len(name) + len(value) + _OVERHEAD
        self.octets = b""
        """STATIC_HIT: the index; INDEX, LITERAL: the whole literal."""
        if name in _HOP or (name == b"te" and value.lower() != b"trailers"):
            self.how = _DROP
            return
        full = _STATIC_FIELDS.get((name, value), 0)
        if full:
            self.how = _STATIC_HIT
            self.octets = bytes((0x80 | full,))
            return
        if name in _FRESH or self.size > _ENTRY_MOST:
            first, mask = 0, 0x0F
        else:
            self.how = _INDEX
            first, mask = 0x40, 0x3F
        index = _STATIC_NAMES.get(name, 0)
        if index:
            self.octets = _number(first, mask, index) + _text(value)
        else:
            self.octets = bytes((first,)) + _text(name) + _text(value)


_lines: dict[bytes, Line] = {}
"""By the octets of the line, without its end."""


def _number(first: int, mask: int, value: int) -> bytes:
    """Section 5.1: an integer in the low bits (`mask`) of its first octet and those that follow."""
    if value < mask:
        return bytes((first | value,))
    octets = [first | mask]
    value -= mask
    while value >= 128:
        octets.append(128 | (value & 127))
        value >>= 7
    octets.append(value)
    return bytes(octets)


def _text(text: bytes) -> bytes:
    """Section 5.2: a string, by Huffman's code where that is shorter."""
    coded = huffman_encode(text)
    if len(coded) < len(text):
        return _number(0x80, 0x7F, len(coded)) + coded
    return _number(0, 0x7F, len(text)) + text


def _plain(name: bytes, value: bytes) -> bytes:
    """A literal that no table gets, without Huffman's code: what is sent once is not worth the time."""
    prefix = _prefixes.get(name)
    if prefix is None:
        first = 0x10 if name in _SECRET or _is_never(name) else 0
        index = _STATIC_NAMES.get(name, 0)
        prefix = _number(first, 0x0F, index) if index else bytes((first,)) + _text(name)
        _prefixes[name] = prefix
    size = len(value)
    return b"".join((prefix, _ONE[size] if size < 127 else _number(0, 0x7F, size), value))


_prefixes: dict[bytes, bytes] = {}
"""Of the names in _UNIQUE and _never: how their literals begin."""
_ONE: list[bytes] = [bytes((octet,)) for octet in range(128)]
_INDEXED: list[bytes] = [_number(0x80, 0x7F, index) for index in range(256)]


class Encoder:
    """Writes the blocks of one connection: fields are added, then the block is taken."""

    def __init__(self, max_table: int = 4096) -> None:
        self.max_table = max_table
        self._size_most = max_table
        self._size = 0
        self._count = 0
        """Entries put into the table so far; the newest has index 62."""
        self._table: list[Line] | None = None
        """The newest at the end."""
        self._places: dict[Line, int] | None = None
        """The count at which an entry was put in."""
        self._parts: list[bytes] = []
        self._lowest = -1
        """The least size that the peer wanted since the last block; -1: it wants no change."""

    def resize(self, size: int) -> None:
        """The peer's SETTINGS_HEADER_TABLE_SIZE, in octets; the next block says what is made of it."""
        size = min(size, self.max_table)
        if self._lowest < 0 or size < self._lowest:
            self._lowest = size
        self._size_most = size
        self._evict(size)

    def field(self, name: bytes, value: bytes) -> None:
        """Add a field; `name` in lower case."""
        if name == b":path":
            self._parts.append(_plain(name, value))
            return
        key = b"".join((name, b": ", value))
        line = _lines.get(key)
        if line is None:
            line = self._new(key, name, value)
        self._add(line)

    def lines(self, text: bytes, at: int) -> None:
        """Add the header lines of an HTTP/1.1 text from octet `at` on; what belongs to a connection is left out."""
        size = len(text)
        octets = text  # compiled: a pointer
        while at < size:
            end = _crlf(text, at, size) if COMPILED else text.find(b"\r\n", at)
            if end < 0:
                end = size
            if end == at:
                return
            key = octets[at:end]
            at = end + 2
            line = _lines.get(key)
            if line is None:
                colon = key.find(b":")
                name = key[:colon].lower()
                value = key[colon + 1 :].strip(b" \t")
                if _kept_out(name):
                    self._parts.append(_plain(name, value))
                    continue
                line = self._new(key, name, value)
            self._add(line)

    def take(self) -> bytes:
        """The block; what is added from now on is the next one's."""
        parts = self._parts
        block = b"".join(parts)
        parts.clear()
        if self._lowest >= 0:
            told = _number(0x20, 0x1F, self._size_most)
            if self._lowest < self._size_most:
                told = _number(0x20, 0x1F, self._lowest) + told
            self._lowest = -1
            block = told + block
        return block

    def _new(self, key: bytes, name: bytes, value: bytes) -> Line:
        line = Line(name, value)
        if len(key) <= _LINE_MOST:
            if len(_lines) >= _LINES_MOST:
                _lines.clear()
            _lines[key] = line
        return line

    def _add(self, line: Line) -> None:
        how = line.how
        if how == _DROP:
            return
        if how == _INDEX:
            places = self._places
            if places is not None:
                place = places.get(line)
                if place is not None:
                    self._parts.append(_INDEXED[61 + self._count - place])
                    return
            self._insert(line)
        self._parts.append(line.octets)

    def _insert(self, line: Line) -> None:
        self._evict(self._size_most - line.size)
        if line.size > self._size_most:
            return
        if self._table is None or self._places is None:
            self._table = []
            self._places = {}
        self._table.append(line)
        self._places[line] = self._count
        self._count += 1
        self._size += line.size

    def _evict(self, most: int) -> None:
        table, places = self._table, self._places
        if table is None or places is None:
            return
        gone = 0
        while self._size > most and gone < len(table):
            oldest = table[gone]
            self._size -= oldest.size
            places.pop(oldest, None)
            gone += 1
        if gone:
            del table[:gone]


def _crlf(text: bytes, at: int, stop: int) -> int:
    """Where the first CRLF of text[at:stop] begins, -1: nowhere; for the compiled module."""
    at += 1
    while at < stop:
        if text[at] == 10 and text[at - 1] == 13:
            return at - 1
        at += 1
    return -1
