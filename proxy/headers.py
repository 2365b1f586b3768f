"""Heads as they go on: what stays behind on this hop, what policy changes, what a proxy adds.

Bytes are passed on and not rebuilt: in the common case a forwarded head is the head that came, without the lines that
its `cuts` name, and with ours at its end. Runs compiled (with headers.pxd) or as it stands.
"""

from __future__ import annotations

from ..policy.format_operators import Template
from ..policy.tables import HeaderOps
from .header_formats import Formatted
from .message import BIT, RequestHead, ResponseHead, needle

# Header operations of policy never touch these: they are the codec's, or the rewrite's.
_UNTOUCHABLE = frozenset(
    {
        "content-length",
        "transfer-encoding",
        "connection",
        "upgrade",
        "keep-alive",
        "te",
        "trailer",
        "host",
        ":authority",
    }
)
_NO_TRAILER = _UNTOUCHABLE | {
    *("authorization", "cookie", "set-cookie", "proxy-connection", "proxy-authorization", "proxy-authenticate"),
    *("www-authenticate", "content-encoding", "content-type", "content-range", "cache-control", "expires", "date"),
    *("location", "vary", "age", "expect", "max-forwards", "pragma", "range", "warning", "forwarded", "http2-settings"),
}
_NO_TRAILER_PREFIXES = (b"x-forwarded-", b"x-envoy-", b"x-fairlead-", b"if-", b"access-control-")
_FORGED = (
    BIT["x-envoy-attempt-count"]
    | BIT["x-envoy-expected-rq-timeout-ms"]
    | BIT["x-forwarded-client-cert"]
    | BIT["x-envoy-original-path"]
    | BIT["x-fairlead-reason"]
)
"""What a client may not tell an endpoint in our name."""
_XFCC = BIT["x-forwarded-client-cert"]
_SERVICE_TIME = BIT["x-envoy-upstream-service-time"]
_FORGED_NEEDLES = tuple(
    needle(name)
    for name in (
        "x-envoy-attempt-count",
        "x-envoy-expected-rq-timeout-ms",
        "x-forwarded-client-cert",
        "x-envoy-original-path",
        "x-fairlead-reason",
    )
)
_XFCC_NEEDLES = (needle("x-forwarded-client-cert"),)
_SERVICE_TIME_NEEDLES = (needle("x-envoy-upstream-service-time"),)
_HOST_NEEDLES = (needle("host"),)
_ORIGINAL_HOST_NEEDLES = (*_HOST_NEEDLES, needle("x-envoy-original-host"))
_LIMITED_NEEDLES = (needle("max-forwards"),)
_SECRET_NEEDLES = tuple(needle(name) for name in ("max-forwards", "authorization", "cookie", "proxy-authorization"))
_TOLD = frozenset((b"forwarded", b"x-real-ip", b"x-client-ip", b"x-cluster-client-ip", b"true-client-ip"))
"""Headers in which proxies tell where a request came from; nobody else may."""
_TOLD_PREFIXES = (b"x-forwarded-", b"x-envoy-", b"x-fairlead-", b"x-original-forwarded-")
_KEPT_OF_TRUSTED = frozenset((b"x-forwarded-proto", b"x-forwarded-host", b"x-forwarded-port"))
_ID = BIT["x-request-id"]
_PROTO = BIT["x-forwarded-proto"]
_FOR = BIT["x-forwarded-for"]

REASON_PHRASES = {
    100: "Continue",
    101: "Switching Protocols",
    200: "OK",
    301: "Moved Permanently",
    302: "Found",
    303: "See Other",
    307: "Temporary Redirect",
    308: "Permanent Redirect",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    413: "Content Too Large",
    414: "URI Too Long",
    417: "Expectation Failed",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
    505: "HTTP Version Not Supported",
}


class Prepared:
    """Header operations in the form in which the proxy applies them; kept in HeaderOps.wire."""

    def __init__(self, ops: HeaderOps) -> None:
        removed = [name for name in ops.remove if name != "date"]  # every answer has one, as with Envoy
        self.gone = tuple(
            needle(name) for name in (*removed, *(name for name, _ in ops.set)) if name not in _UNTOUCHABLE
        )
        self.added = b"".join(
            name.encode("latin-1", "replace") + b": " + clean(value) + b"\r\n"
            for name, value in (*ops.set, *ops.add)
            if name not in _UNTOUCHABLE
        )
        self.lower = b"\r\n" + self.added.lower()
        dynamic = any(isinstance(value, Template) for _, value in (*ops.set, *ops.add))
        self.formatted = Formatted(ops) if dynamic else None
        """Where values have format operators: to be filled first; the rest of this is of no use then."""


def clean(value: str) -> bytes:
    """A header value as bytes; what could end the line becomes a blank."""
    return value.replace("\r", " ").replace("\n", " ").replace("\0", " ").encode("utf-8", "replace")


def prepared(ops: HeaderOps) -> Prepared:
    if ops.wire is None:
        ops.wire = Prepared(ops)
    found: Prepared = ops.wire
    return found


def without(block: bytes, needles: tuple[bytes, ...]) -> bytes:
    """Header lines (each with its line end) without those that begin as one of `needles` says."""
    text = b"\r\n" + block
    lower = text.lower()
    for sought in needles:
        at = lower.find(sought)
        while at >= 0:
            end = lower.find(b"\r\n", at + 2)
            text = text[:at] + text[end:]
            lower = lower[:at] + lower[end:]
            at = lower.find(sought, at)
    return text[2:]


def kept(raw: bytes, first: int, cuts: list[int] | None) -> bytes:
    """The header lines from `first` on without the cuts and without the empty line at the end."""
    octets = raw  # compiled: a pointer, of which slices are cheap
    end = len(raw) - 2
    if cuts is None:
        return octets[first:end]
    if len(cuts) == 2:
        return octets[first : cuts[0]] + octets[cuts[1] : end]
    pieces = []
    at = first
    for k in range(0, len(cuts), 2):
        pieces.append(raw[at : cuts[k]])
        at = cuts[k + 1]
    pieces.append(raw[at:-2])
    return b"".join(pieces)


def request_bytes(
    head: RequestHead, path: str, authority: str, ops: HeaderOps | None, inbound: bool, extra: bytes
) -> bytes:
    """The head as it goes to an endpoint, whole. `authority`: new Host, or empty; `extra`: our own lines."""
    if (
        head.cuts is None
        and ops is None
        and not authority
        and not head.seen & (_XFCC if inbound else _FORGED)
        and head.seen & 1
        and path == head.target
        and head.minor == 1
    ):  # nothing to change: as it came, and ours
        octets = head.raw  # compiled: a pointer
        return b"".join((octets[: len(head.raw) - 2], extra, head.told, b"\r\n"))
    block = kept(head.raw, head.first, head.cuts)
    forged = head.seen & (_XFCC if inbound else _FORGED)
    if forged:
        block = without(block, _XFCC_NEEDLES if inbound else _FORGED_NEEDLES)
    if authority:
        block = (
            b"Host: "
            + clean(authority)
            + b"\r\n"
            + without(block, _HOST_NEEDLES if inbound else _ORIGINAL_HOST_NEEDLES)
        )
    elif not head.seen & 1 and head.authority:  # an absolute target in HTTP/1.0
        block = b"Host: " + head.authority.encode() + b"\r\n" + block
    raw = head.raw  # compiled: a pointer
    if path == head.target and head.minor == 1:
        first = raw[: head.first]
    else:
        first = (head.method + " " + path + " HTTP/1.1\r\n").encode("utf-8", "replace")
    if ops is None:
        return b"".join((first, block, extra, head.told, b"\r\n"))
    # Ours too: what a rule sets or removes is the last word, as with Envoy.
    wire = prepared(ops)
    block = b"".join((block, extra, head.told))
    if wire.gone:
        block = without(block, wire.gone)
    return b"".join((first, block, wire.added, b"\r\n"))


def response_bytes(head: ResponseHead, ops: HeaderOps | None, extra: bytes) -> bytes:
    """The head as it goes to the client, whole."""
    if ops is None and not head.seen & _SERVICE_TIME and head.minor == 1:
        octets = head.raw  # compiled: a pointer
        end = len(head.raw) - 2
        cuts = head.cuts
        if cuts is None:
            return b"".join((octets[:end], extra, b"\r\n"))
        if len(cuts) == 2:
            begin: int = cuts[0]
            after: int = cuts[1]
            return b"".join((octets[:begin], octets[after:end], extra, b"\r\n"))
    block = kept(head.raw, head.first, head.cuts)
    if head.seen & _SERVICE_TIME:
        block = without(block, _SERVICE_TIME_NEEDLES)
    raw = head.raw  # compiled: a pointer
    first = raw[: head.first] if head.minor == 1 else b"HTTP/1.1" + raw[8 : head.first]
    if ops is None:
        return b"".join((first, block, extra, b"\r\n"))
    wire = prepared(ops)
    block = block + extra
    if wire.gone:
        block = without(block, wire.gone)
    return b"".join((first, block, wire.added, b"\r\n"))


def own_response(
    status: int, body: bytes, close: bool, reason: str = "", lines: bytes = b"", no_body: bool = False
) -> bytes:
    """An answer of our own. `reason`: FL-... code, or empty; `lines`: more header lines, each with its line end."""
    phrase = REASON_PHRASES.get(status, "Status")
    text = b"HTTP/1.1 %d %b\r\n" % (status, phrase.encode())
    if status != 204 and status != 304 and status >= 200:
        text += b"content-length: %d\r\n" % len(body)
        if body and b"content-type:" not in lines.lower():
            text += b"content-type: text/plain; charset=utf-8\r\n"
    else:
        body = b""
    if reason:
        text += b"x-fairlead-reason: %b\r\n" % reason.encode()
    if close:
        text += b"connection: close\r\n"
    text += lines + b"\r\n"
    return text if no_body else text + body


def at_edge(head: RequestHead, source_ip: str, trusted_proxies: int) -> None:
    """Take out of a request what its sender, whom nobody vouches for, says of its origin, and note what we know.

    Of X-Forwarded-For the last `trusted_proxies` entries stay: the proxies before us wrote them. At a gateway that
    nobody stands before the request gets an identifier of our own: a stranger's would mix its lines with others' in
    every log behind us (Envoy's edge does so too; sidecars keep what their apps say). To be called before
    policy sees the request, so that policy, endpoint and log see the same.
    """
    entries: list[bytes] = []
    lines: list[bytes] = []
    dropped = False
    seen = head.seen
    names_anew = not trusted_proxies and head.arrival is not None and head.arrival.listener == "gateway"
    for line in kept(head.raw, head.first, head.cuts).split(b"\r\n"):
        if not line:
            continue
        name, _, value = line.partition(b":")
        name = name.lower()
        if names_anew and name == b"x-request-id":
            dropped = True
            seen &= ~_ID
        elif name in _TOLD or name.startswith(_TOLD_PREFIXES):
            if trusted_proxies and name in _KEPT_OF_TRUSTED:
                lines.append(line)
                continue
            dropped = True
            if name == b"x-forwarded-for":
                entries += [entry.strip(b" \t") for entry in value.split(b",")]
            seen &= ~BIT.get(name.decode("latin-1"), 0)
        else:
            lines.append(line)
    if dropped:
        block = b"".join([line + b"\r\n" for line in lines])
        head.replace(head.raw[: head.first] + block + b"\r\n")
    told = entries[-trusted_proxies:] if trusted_proxies else []
    head.told = b"x-forwarded-for: " + b",".join([*told, source_ip.encode()]) + b"\r\n"
    if trusted_proxies and len(told) == trusted_proxies:  # fewer: it came past one of them
        head.remote_ip = told[0].decode("latin-1")
    if not seen & _PROTO:
        head.told += b"x-forwarded-proto: https\r\n" if head.scheme == "https" else b"x-forwarded-proto: http\r\n"
    head.seen = seen | _PROTO | _FOR


def count_forwards(head: RequestHead) -> int:
    """TRACE and OPTIONS (RFC 9110 section 7.6.2): how far the request may still go, counted down in its head; -1:
    not said. TRACE takes no credentials along (section 9.3.8). Raises ValueError."""
    text = head.header("max-forwards")
    block = without(
        kept(head.raw, head.first, head.cuts), _SECRET_NEEDLES if head.method == "TRACE" else _LIMITED_NEEDLES
    )
    left = -1
    if text is not None:
        if not (text.isascii() and text.isdigit() and len(text) <= 9):
            raise ValueError(f"Max-Forwards: expected a number, got {text[:40]!r}")
        left = int(text)
        block += b"max-forwards: %d\r\n" % max(left - 1, 0)
    head.replace(head.raw[: head.first] + block + b"\r\n")
    return left


def announced(names: str) -> bytes:
    """The Trailer line for those of `names` that may be passed on; empty where there are none."""
    good = []
    for name in names.encode("latin-1").split(b","):
        name = name.strip(b" \t")
        if name and _may_trail(name.lower()):
            good.append(name)
    return b"trailer: " + b", ".join(good) + b"\r\n" if good else b""


def _may_trail(name: bytes) -> bool:
    name = name.replace(b"_", b"-")  # as servers with CGI's names read it
    return name.decode("latin-1") not in _NO_TRAILER and name not in _TOLD and not name.startswith(_NO_TRAILER_PREFIXES)


def safe_trailers(block: bytes) -> bytes:
    """Trailer lines that may be passed on: none that frames, routes, authorises or stays on this hop."""
    lines = []
    for line in block.split(b"\r\n"):
        if line and _may_trail(line.partition(b":")[0].lower()):
            lines.append(line + b"\r\n")
    return b"".join(lines)
