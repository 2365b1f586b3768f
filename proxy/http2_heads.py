"""Heads of HTTP/2 as what the rest of the proxy knows: those of HTTP/1.1 (RFC 9113 sections 8.2, 8.3).

The fields that HPACK gives become the text of an HTTP/1.1 head, which the strict codec of http1.py reads: nothing
passes here that would be refused there, and a downgrade can inject nothing. Runs compiled (with http2_heads.pxd) or as
it stands.
"""

from __future__ import annotations

from typing import Any

from .headers import REASON_PHRASES
from .hpack import AUTHORITY, BAD, COOKIE, HOST, METHOD, PATH, PLAIN, PROTOCOL, SCHEME, STATUS
from .http1 import RequestParser, ResponseParser
from .message import ProtocolError, RequestHead, ResponseHead

_VALUE = bytes([0x09, 0x0D, 0x0A, *range(0x20, 0x7F), *range(0x80, 0x100)])
_STATUS_LINES: dict[bytes, bytes] = {
    b"%d" % status: b"HTTP/1.1 %d %b\r\n" % (status, REASON_PHRASES.get(status, "").encode())
    for status in range(100, 1000)
}


def request_head(fields: list[Any], ended: bool) -> RequestHead:
    """`ended`: no body follows. Raises ProtocolError; its status is 501 for what only HTTP/1.1 can do here."""
    method = path = scheme = authority = host = None
    lines: list[bytes] = [b""]
    cookies: list[bytes] | None = None
    for field in fields:
        kind = field.kind
        if kind == PLAIN:
            lines.append(field.line)
        elif kind == COOKIE:
            if cookies is None:
                cookies = []
            cookies.append(field.value)
        elif kind == HOST:
            if host is not None:
                raise ProtocolError("Host is given more than once")
            host = field.value
        elif kind == BAD:
            raise ProtocolError(field.why)
        elif len(lines) > 1 or cookies is not None or host is not None:
            raise ProtocolError(f"{field.name.decode('latin-1')} comes after other fields")
        elif kind == METHOD and method is None:
            method = field.value
        elif kind == PATH and path is None:
            path = field.value
        elif kind == SCHEME and scheme is None:
            scheme = field.value
        elif kind == AUTHORITY and authority is None:
            authority = field.value
        elif kind == PROTOCOL:
            raise ProtocolError("extended CONNECT (RFC 8441) is not offered", status=501)
        else:
            raise ProtocolError(f"{field.name.decode('latin-1')} is given twice, or is not for requests")
    if method is None:
        raise ProtocolError(":method is missing")
    if method == b"CONNECT":
        if scheme is not None or path is not None or authority is None:
            raise ProtocolError("CONNECT has :authority and neither :scheme nor :path")
        path = authority
    elif path is None or (path[:1] != b"/" and (path != b"*" or method != b"OPTIONS")):
        raise ProtocolError(":path begins with no `/`")
    elif scheme != b"http" and scheme != b"https":
        raise ProtocolError(":scheme is neither http nor https")
    if authority is None:
        authority = host if host is not None else b""
    elif host is not None and host != authority and host.lower() != authority.lower():
        raise ProtocolError(":authority and Host differ")
    if b" " in method or b" " in path:
        raise ProtocolError("a pseudo-header with octets that it may not have")
    lines[0] = b"%b %b HTTP/1.1\r\nhost: %b\r\n" % (method, path, authority)
    if cookies is not None:  # one line again (RFC 9113 section 8.2.3)
        lines.append(b"cookie: %b\r\n" % (cookies[0] if len(cookies) == 1 else b"; ".join(cookies)))
    lines.append(b"\r\n")
    parser = RequestParser()
    parser.feed(b"".join(lines))
    head = parser.read_head()
    if head is None:
        raise ProtocolError("the head is not whole")
    head.major = 2
    head.chunked = not ended and head.content_length < 0
    return head


def response_head(fields: list[Any], method: str, ended: bool) -> ResponseHead:
    """Of the response to a request with this method; also an interim one. Raises ProtocolError."""
    lines: list[bytes] = [b""]
    for field in fields:
        kind = field.kind
        if kind == PLAIN:
            lines.append(field.line)
        elif kind == STATUS and not lines[0] and len(lines) == 1:
            lines[0] = _STATUS_LINES.get(field.value, b"")
            if not lines[0] or field.value == b"101":
                raise ProtocolError("a status that HTTP/2 does not have")
        elif kind in (HOST, COOKIE):  # of no meaning here, and harmless
            lines.append(b"%b: %b\r\n" % (field.name, field.value))
        elif kind == BAD:
            raise ProtocolError(field.why)
        else:
            raise ProtocolError(f"{field.name.decode('latin-1')} is given twice or late, or is not for responses")
    if not lines[0]:
        raise ProtocolError(":status is missing")
    lines.append(b"\r\n")
    parser = ResponseParser()
    parser.expect(method)
    parser.feed(b"".join(lines))
    head = parser.read_head()
    if head is None:
        raise ProtocolError("the head is not whole")
    head.major = 2
    head.until_close = False
    head.keep_alive = True
    head.chunked = not ended and head.content_length < 0
    return head


def checked_trailers(fields: list[Any], ended: bool) -> bytes:
    """Trailer lines, each with its CRLF; `ended`: the stream ends with them, as it must. Raises ProtocolError."""
    if not ended:
        raise ProtocolError("HEADERS after the head that do not end the stream")
    lines = []
    for field in fields:
        if field.kind == PLAIN:
            lines.append(field.line)
        elif field.kind == BAD:
            raise ProtocolError(field.why)
        elif field.kind == COOKIE:
            lines.append(b"cookie: %b\r\n" % field.value)
        else:
            raise ProtocolError(f"{field.name.decode('latin-1')} among trailers")
    block = b"".join(lines)
    if block.translate(None, _VALUE):
        raise ProtocolError("trailers with octets that no field may have")
    return block
