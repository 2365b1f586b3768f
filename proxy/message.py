"""What the proxy passes around: heads of requests and responses, protocol errors, and outcomes.

A head keeps its bytes as they came (`raw`) and only the facts that nearly every exchange needs; any other header is
looked for when somebody asks. Runs compiled (with message.pxd) or as it stands.
"""

from __future__ import annotations

from typing import Any

from ..registry.reasons import MALFORMED, Reason

# The headers that the codec recognises while it scans; a head's `seen` has bit N for the Nth.
KNOWN: tuple[str, ...] = (
    "host",
    "content-length",
    "transfer-encoding",
    "connection",
    "upgrade",
    "expect",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "http2-settings",
    "x-request-id",
    "x-forwarded-proto",
    "x-forwarded-for",
    "x-forwarded-client-cert",
    "x-envoy-attempt-count",
    "x-envoy-expected-rq-timeout-ms",
    "x-envoy-upstream-service-time",
    "x-fairlead-reason",
    "x-envoy-original-path",
    "traceparent",
    "user-agent",
    "date",
    "server",
)
BIT: dict[str, int] = {name: 1 << number for number, name in enumerate(KNOWN)}
_bit = BIT
_NEEDLES: dict[str, bytes] = {}
_NEEDLES_MOST = 4096

LINES_NOTED = 32
"""Header lines of a head that are found without a search."""
COMPILED = not __file__.endswith((".py", ".pyc"))


class TruncatedError(ConnectionError):
    """A TLS peer closed its connection without close_notify: nothing says that this was its end."""


class ProtocolError(Exception):
    """A peer's bytes break the protocol. `str()` is one sentence: what was expected, what came, where."""

    def __init__(self, why: str, reason: Reason = MALFORMED, status: int = 0) -> None:
        super().__init__(why)
        self.reason = reason
        self.status = status or reason.status
        """What to answer, where the peer is a client."""


def needle(name: str) -> bytes:
    """How a line of the header `name` (lower case) begins in a lower-cased head."""
    found = _NEEDLES.get(name)
    if found is None:
        found = b"\r\n" + name.encode("latin-1", "replace") + b":"
        if len(_NEEDLES) < _NEEDLES_MOST:  # names come from configuration; this is for those that do not
            _NEEDLES[name] = found
    return found


def crlf_at(text: bytes, at: int, stop: int) -> int:
    """Where the first CRLF of text[at:stop] begins, -1: nowhere; for compiled modules."""
    at += 1
    while at < stop:
        octet = text[at]
        if octet == 10:
            if text[at - 1] == 13:
                return at - 1
            at += 2
        elif octet == 13:
            at += 1
        else:
            at += 2
    return -1


def _is_name(text: bytes, at: int, needle: bytes, size: int) -> bool:
    """Whether the name in `needle` (CRLF, name in lower case, colon) is at text[at:], in whatever case; for compiled
    modules."""
    for k in range(size):
        octet = text[at + k]
        if 65 <= octet <= 90:
            octet += 32
        if octet != needle[k + 2]:
            return False
    return True


class Head:
    """What heads of requests and responses share. Made by the codec, from bytes that it has checked."""

    lines: Any

    def __init__(self) -> None:
        self.raw = b""
        """The whole head, up to and with its empty line."""
        self.first = 0
        """Where in `raw` the first header line begins."""
        self.major = 1
        """2: it came by HTTP/2, and `raw` is what it would be in HTTP/1.1."""
        self.minor = 1
        """HTTP/1.`minor`."""
        self.seen = 0
        """Which headers of KNOWN there are."""
        self.cuts: list[int] | None = None
        """Begin, end, begin, end ... of the lines that stay on this hop (Connection, what it names, and so on)."""
        self.content_length = -1
        """Of the body that follows; -1: not said."""
        self.chunked = False
        self.keep_alive = True
        """The peer will go on with this connection after this message."""
        self.upgrade = ""
        """The protocol asked for or switched to, in lower case, where Connection names Upgrade; else empty."""
        self.te_trailers = False
        """TE says that its sender takes trailers."""
        self.line_count = -1
        """Of `lines`: where each header line begins, and something of its name; -1: not noted."""
        self._lower: bytes | None = None

    def has(self, bit: int) -> bool:
        return (self.seen & bit) != 0

    def lower(self) -> bytes:
        """`raw` from the line end before the first header on, in lower case, for searches by `needle(name)`."""
        if self._lower is None:
            self._lower = self.raw[self.first - 2 :].lower()
        return self._lower

    def header(self, name: str) -> str | None:
        """Value of a header by its lower-case name, several lines joined with `,`; None where absent."""
        bit = _bit.get(name)
        if bit is not None and not self.has(bit):
            return None
        sought = needle(name)
        if COMPILED and self.line_count >= 0:
            return self._find(self.raw, sought)
        lower = self.lower()
        at = lower.find(sought)
        if at < 0:
            return None
        shift = self.first - 2
        start = at + len(sought)
        end = lower.find(b"\r\n", start)
        value = self.raw[start + shift : end + shift].strip(b" \t").decode("latin-1")
        at = lower.find(sought, end)
        if at < 0:
            return value
        values = [value]
        while at >= 0:
            start = at + len(sought)
            end = lower.find(b"\r\n", start)
            values.append(self.raw[start + shift : end + shift].strip(b" \t").decode("latin-1"))
            at = lower.find(sought, end)
        return ",".join(values)

    def values(self, name: str) -> list[str]:
        """The value of each line of a header by its lower-case name, in order."""
        return [value for own, value in self.headers() if own.lower() == name]

    def note_line(self, start: int, name_size: int, first: int) -> None:
        """A header line begins at `start`, with a name of this size whose first octet, in lower case, is `first`; for
        compiled modules, which find lines by it."""
        count = self.line_count
        if 0 <= count < LINES_NOTED and name_size < 256 and start < 65536:
            self.lines[count] = start | (first << 16) | (name_size << 24)
            self.line_count = count + 1
        else:
            self.line_count = -1

    def _find(self, raw: bytes, sought: bytes) -> str | None:
        """`header` by the lines noted; for the compiled module."""
        text = raw  # compiled: pointers
        begin = sought
        size = len(sought) - 3
        key = (size << 8) | begin[2]
        values = None
        value = None
        for k in range(self.line_count):
            entry = self.lines[k]
            if entry >> 16 != key:
                continue
            at = entry & 65535
            if not _is_name(text, at, begin, size):
                continue
            at += size + 1
            end = ((self.lines[k + 1] & 65535) if k + 1 < self.line_count else len(raw) - 2) - 2
            while at < end and (text[at] == 32 or text[at] == 9):
                at += 1
            while end > at and (text[end - 1] == 32 or text[end - 1] == 9):
                end -= 1
            if value is None:
                value = text[at:end].decode("latin-1")
            elif values is None:
                values = [value, text[at:end].decode("latin-1")]
            else:
                values.append(text[at:end].decode("latin-1"))
        return value if values is None else ",".join(values)

    def headers(self) -> list[tuple[str, str]]:
        """All header lines in order, names as they came."""
        found = []
        for line in self.raw[self.first : -4].split(b"\r\n"):
            if line:
                name, _, value = line.partition(b":")
                found.append((name.decode("latin-1"), value.strip(b" \t").decode("latin-1")))
        return found

    def replace(self, raw: bytes) -> None:
        """Take another head's bytes, which begin with the same line and have no lines that stay on this hop."""
        self.raw = raw
        self.cuts = None
        self.line_count = -1
        self._lower = None


class RequestHead(Head):
    """A request's head; has what policy's `decide` reads (policy/tables.py, Request)."""

    def __init__(self) -> None:
        self.raw = b""
        self.first = 0
        self.major = 1
        self.minor = 1
        self.seen = 0
        self.cuts = None
        self.content_length = -1
        self.chunked = False
        self.keep_alive = True
        self.upgrade = ""
        self.te_trailers = False
        self.line_count = -1
        self._lower = None
        self.method = ""
        self.scheme = "http"
        self.authority = ""
        """Host as sent, with port where given; empty only in HTTP/1.0 without Host. CONNECT: the target."""
        self.path = ""
        """Request target with query; of an absolute-form target what follows the authority; the shell normalises it."""
        self.target = ""
        """Request target as it came."""
        self.expect_continue = False
        self.told = b""
        """Lines to add on the way on: what the edge knows of where it came from (headers.py, `at_edge`)."""
        self.arrival: Any = None
        """policy.tables.Arrival; set by whoever received it."""
        self.remote_ip = ""
        """The client's address as trusted proxies tell it; empty: none do."""
        self.claims: Any = None
        """Those of a verified token, for policy to see; None: there is none."""


class ResponseHead(Head):
    def __init__(self) -> None:
        self.raw = b""
        self.first = 0
        self.major = 1
        self.minor = 1
        self.seen = 0
        self.cuts = None
        self.content_length = -1
        self.chunked = False
        self.keep_alive = True
        self.upgrade = ""
        self.te_trailers = False
        self.line_count = -1
        self._lower = None
        self.status = 0
        self.until_close = False
        """The body ends with the connection."""


class Outcome:
    """How an exchange or a relay ended; handed to the observer once. Times in seconds of the monotonic clock."""

    def __init__(self) -> None:
        self.kind = "http"
        """http or tcp."""
        self.request: Any = None
        """RequestHead; None where there was none that could be read, and for tcp."""
        self.response: Any = None
        """The endpoint's ResponseHead, where one came."""
        self.arrival: Any = None
        """policy.tables.Arrival of the connection."""
        self.decision: Any = None
        """policy.tables.Decision; None where the request never came to one."""
        self.destination: Any = None
        """policy.tables.Destination picked; None where none was."""
        self.cluster: Any = None
        """LiveCluster used; None where none was."""
        self.endpoint: Any = None
        """policy.tables.ClusterEndpoint of the last try."""
        self.status = 0
        """HTTP status sent to the client; 0: none was."""
        self.reason = ""
        """FL-... code; empty: all went well."""
        self.flag = ""
        """Envoy's response flag that goes with the reason; several joined with `,`."""
        self.why = ""
        """One sentence with numbers in it, where there is a reason."""
        self.details = ""
        """Envoy's response code details (`via_upstream`, `route_not_found` ...)."""
        self.grpc = False
        """A gRPC call (RFC 9113 with content-type application/grpc)."""
        self.grpc_status = ""
        """grpc-status as the client saw it, a number as text; empty: none came."""
        self.original_path = ""
        """Path before rewriting, where it was rewritten."""
        self.authority = ""
        self.request_id = ""
        """x-request-id that the endpoint saw."""
        self.started_at = 0.0
        self.started_unix = 0.0
        """Wall clock at the start; 0: not taken (started_at and the clocks' difference tell it)."""
        self.sent_at = 0.0
        """When the head was given to the endpoint; 0: never."""
        self.first_at = 0.0
        """When the endpoint's response head came; 0: never."""
        self.ended_at = 0.0
        self.received_bytes = 0
        """Body bytes from the client; of a relay all bytes."""
        self.sent_bytes = 0
        """Body bytes to the client; of a relay all bytes."""
        self.attempts = 0
        """Tries made at an endpoint."""
        self.source_identity = ""
        self.upstream_tls = False
        self.upstream_local = ""
        """Local address of the connection to the endpoint, `ip:port`, where known."""
        self.local_address = ""
        """Of the client's connection, `ip:port`."""
        self.policy = ""
        """`kind namespace/name rule N` of the policy that refused it, or what a dry run or an audit noted; where the
        decision's own `policy` does not say it."""
        self.mirrored = False
        """A copy sent to a mirror; nobody waited for it."""
