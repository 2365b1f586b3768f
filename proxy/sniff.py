"""What a connection speaks, by its first bytes: TLS (with SNI and ALPN), HTTP/1, HTTP/2, or something opaque."""

from __future__ import annotations

import re

TLS, HTTP1, HTTP2, OPAQUE, MORE = "tls", "http", "http2", "opaque", "more"
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
HANDSHAKE = 0x16
"""A TLS record's type (RFC 8446 section 5.1), the first octet of a ClientHello."""
MAX_HELLO = 16 * 1024 + 5
MAX_LINE = 2048
"""Octets without a line end after which what begins like a request is taken for one."""
_METHOD = re.compile(rb"[A-Z][A-Z-]{1,15} (?:/|\*|[A-Za-z\[])")
_REQUEST_LINE_END = re.compile(rb" HTTP/[0-9]\.[0-9]\r?\n\Z")
_METHOD_START = re.compile(rb"[A-Z][A-Z-]{0,15} ?$")


def speaks(first: bytes) -> str:
    """One of the names above; `more`: too little to tell."""
    if not first:
        return MORE
    if first[0] == HANDSHAKE:
        if len(first) < 3:
            return MORE
        return TLS if first[1] == 3 else OPAQUE
    if first.startswith(PREFACE[:16]):  # its first line decides: HTTP/2 itself refuses another rest
        return HTTP2
    if PREFACE.startswith(first):
        return MORE
    if _METHOD.match(first):
        end = first.find(b"\n")
        if end >= 0:  # other protocols of lines begin like it
            return HTTP1 if _REQUEST_LINE_END.search(first[: end + 1]) else OPAQUE
        return MORE if len(first) < MAX_LINE else HTTP1
    if _METHOD_START.match(first):
        return MORE
    return OPAQUE


class Hello:
    """What a ClientHello says."""

    __slots__ = ("alpn", "sni")

    def __init__(self, sni: str = "", alpn: tuple[str, ...] = ()) -> None:
        self.sni = sni
        self.alpn = alpn


def client_hello(data: bytes) -> Hello | None:
    """SNI and ALPN of the ClientHello that `data` begins with; None: not whole yet. ValueError: it is not one.

    RFC 8446 section 4.1.2; a hello spread over several records is put together, within MAX_HELLO.
    """
    message = b""
    at = 0
    while True:
        if len(data) < at + 5:
            return None
        if data[at] != HANDSHAKE or data[at + 1] != 3:
            raise ValueError(f"expected a TLS handshake record, got octets {data[at : at + 2].hex()}")
        size = int.from_bytes(data[at + 3 : at + 5], "big")
        if size == 0 or at + size > MAX_HELLO:
            raise ValueError(f"a TLS record of {size} octets")
        message += data[at + 5 : at + 5 + size]
        if len(message) >= 4:
            if message[0] != 1:
                raise ValueError(f"expected a ClientHello, got handshake message {message[0]}")
            wanted = int.from_bytes(message[1:4], "big")
            if wanted > MAX_HELLO:
                raise ValueError(f"a ClientHello of {wanted} octets")
            if len(message) >= wanted + 4:
                return _hello(message[4 : wanted + 4])
        if len(data) < at + 5 + size:
            return None
        at += 5 + size


def _hello(body: bytes) -> Hello:
    try:
        at = 34
        at += 1 + body[at]
        at += 2 + int.from_bytes(body[at : at + 2], "big")
        at += 1 + body[at]
        if at >= len(body):
            return Hello()
        end = at + 2 + int.from_bytes(body[at : at + 2], "big")
        at += 2
        if end != len(body):
            raise ValueError("the ClientHello's extensions have another length than it says")
        hello = Hello()
        while at < end:
            kind = int.from_bytes(body[at : at + 2], "big")
            size = int.from_bytes(body[at + 2 : at + 4], "big")
            content = body[at + 4 : at + 4 + size]
            if at + 4 + size > end:
                raise ValueError("a ClientHello extension is cut short")
            if kind == 0 and len(content) > 5 and content[2] == 0:
                length = int.from_bytes(content[3:5], "big")
                hello.sni = content[5 : 5 + length].decode("ascii").lower()
            elif kind == 16:
                hello.alpn = _alpn(content)
            at += 4 + size
    except (IndexError, UnicodeDecodeError) as error:
        raise ValueError(f"the ClientHello is malformed: {error}") from None
    return hello


def _alpn(content: bytes) -> tuple[str, ...]:
    found = []
    at = 2
    while at < len(content):
        length = content[at]
        found.append(content[at + 1 : at + 1 + length].decode("latin-1"))
        at += 1 + length
    return tuple(found)
