"""What is special about gRPC: its statuses, its deadlines, and answers of our own that its clients understand.

After "gRPC over HTTP2" (PROTOCOL-HTTP2.md of grpc/grpc) and Envoy's mapping between statuses of HTTP and of gRPC.
"""

from __future__ import annotations

from .message import RequestHead, ResponseHead

NAMES = (
    "OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS",
    "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED",
    "INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED",
)  # fmt: skip
UNKNOWN, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED = 2, 4, 8
_OF_HTTP = {400: 13, 401: 16, 403: 7, 404: 12, 429: 14, 502: 14, 503: 14, 504: 14}
_TO_HTTP = (200, 499, 500, 400, 504, 404, 409, 403, 429, 400, 409, 400, 501, 500, 503, 500, 401)
RETRY_ON = {1: "cancelled", 4: "deadline-exceeded", 8: "resource-exhausted", 13: "internal", 14: "unavailable"}
"""Retry conditions by the status that they mean."""
_UNITS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_PLAIN = frozenset(range(0x20, 0x7F)) - {0x25}


def is_call(head: RequestHead | ResponseHead) -> bool:
    """Whether a head of HTTP/2 is of a gRPC call: application/grpc, also with +proto and parameters, not grpc-web."""
    kind = head.header("content-type")
    return kind is not None and kind.startswith("application/grpc") and kind[16:17] in ("", "+", ";", " ")


def timeout_s(head: RequestHead) -> float | None:
    """grpc-timeout in seconds: 1 to 8 digits and a unit; None where absent or something else."""
    said = head.header("grpc-timeout")
    if said is None or not 2 <= len(said) <= 9:
        return None
    digits, unit = said[:-1], _UNITS.get(said[-1])
    if unit is None or not (digits.isascii() and digits.isdigit()):
        return None
    return int(digits) * unit


def number(name: str) -> int:
    """The status of a name (`UNAVAILABLE`); UNKNOWN for a name that is none."""
    upper = name.upper()
    return NAMES.index(upper) if upper in NAMES else UNKNOWN


def of_http(status: int) -> int:
    """The gRPC status that stands for an HTTP status where an answer has none of its own."""
    return _OF_HTTP.get(status, UNKNOWN)


def http_status(status: int) -> int:
    """The HTTP status that stands for a gRPC status, for outlier detection and retries."""
    return _TO_HTTP[status] if status < len(_TO_HTTP) else 500


def status_in(trailers: bytes) -> str:
    """grpc-status among trailer lines; empty: none that is a number."""
    for line in trailers.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"grpc-status":
            said = value.strip(b" \t")
            if said.isdigit() and len(said) < 4:
                return said.decode()
    return ""


def encoded(message: str) -> bytes:
    """A grpc-message: octets of UTF-8 outside of visible ASCII, and `%`, percent-encoded."""
    return b"".join(
        bytes((octet,)) if octet in _PLAIN else b"%%%02X" % octet for octet in message.encode("utf-8", "replace")
    )


def own_answer(status: int, why: str, reason: str, lines: bytes = b"") -> bytes:
    """A trailers-only answer as a head's text. `reason`: FL-... code; `lines`: more header lines."""
    return b"HTTP/1.1 200 OK\r\ncontent-type: application/grpc\r\ngrpc-status: %d\r\ngrpc-message: %b\r\n" % (
        status,
        encoded(why),
    ) + b"x-fairlead-reason: %b\r\n%b\r\n" % (reason.encode(), lines)
