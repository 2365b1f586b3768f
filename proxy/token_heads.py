"""Heads of requests whose token was looked at: the token goes, so does what only we may tell; a rule's words come."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import unquote_plus

from ..policy.json_web_token import Token
from ..policy.request_authentication import COOKIE, HEADER, PARAMETER, Place, TokenRule, claim_text
from .headers import clean, kept
from .message import BIT, RequestHead


def rewrite(
    head: RequestHead, stripped: tuple[str, ...], places: Sequence[Place] = (), told: Sequence[bytes] = ()
) -> None:
    """`stripped`: headers that go, whoever sent them; `places`: where tokens stand that go no further; `told`: lines of
    ours."""
    gone = {name.encode("latin-1") for name in stripped}
    gone |= {place.name.encode("latin-1") for place in places if place.kind == HEADER}
    parameters = {place.name for place in places if place.kind == PARAMETER}
    cookies = {place.name.encode("latin-1") for place in places if place.kind == COOKIE}
    if parameters:
        path, mark, query = head.path.partition("?")
        left = [part for part in query.split("&") if unquote_plus(part.partition("=")[0]) not in parameters]
        head.path = path + ("?" + "&".join(left) if mark and left else "")
    lines, changed = [], bool(told)
    for line in kept(head.raw, head.first, head.cuts).split(b"\r\n"):
        name = line.partition(b":")[0].lower()
        if not line:
            continue
        if name in gone or name.replace(b"_", b"-") in gone:  # servers with CGI's names read both alike
            changed = True
            head.seen &= ~BIT.get(name.decode("latin-1"), 0)
            continue
        if cookies and name == b"cookie":
            parts = [part.strip(b" \t") for part in line.partition(b":")[2].split(b";")]
            parts = [part for part in parts if part and part.partition(b"=")[0] not in cookies]
            changed = True
            if not parts:
                continue
            line = b"cookie: " + b"; ".join(parts)
        lines.append(line)
    if changed:
        block = b"".join([line + b"\r\n" for line in (*lines, *told)])
        head.replace(head.raw[: head.first] + block + b"\r\n")


def told_of(rule: TokenRule, token: Token) -> list[bytes]:
    """Header lines that tell the app of a token that was proved."""
    told = []
    if rule.payload_header:
        told.append(rule.payload_header.encode() + b": " + token.payload.encode())
    for name, path in rule.claim_headers:
        value = claim_text(token.claims, path)
        if value is not None:
            told.append(name.encode() + b": " + clean("".join(c for c in value if c >= " " and c != "\x7f")))
    return told
