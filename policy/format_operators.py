"""Envoy's format operators (`%COMMAND%`, `%COMMAND(X):10%`) in values of header operations: read and named here, given
their values by the proxy (`proxy/header_formats.py`).

Source: Envoy's substitution formatter; https://www.envoyproxy.io/docs/envoy/latest/configuration/advanced/substitution_formatter
"""

from __future__ import annotations

import re

PLAIN = frozenset(
    (
        *("START_TIME", "PROTOCOL", "ROUTE_NAME", "HOSTNAME", "REQUESTED_SERVER_NAME", "STREAM_ID", "DURATION"),
        *("RESPONSE_CODE", "RESPONSE_FLAGS", "RESPONSE_CODE_DETAILS", "CONNECTION_TERMINATION_DETAILS"),
        *("BYTES_RECEIVED", "BYTES_SENT", "GRPC_STATUS", "GRPC_STATUS_NUMBER", "POLICY", "REASON", "WHY"),
        *(f"DOWNSTREAM{part}_REMOTE_{what}" for part in ("", "_DIRECT") for what in ("ADDRESS", "PORT")),
        *(f"DOWNSTREAM{part}_LOCAL_{what}" for part in ("", "_DIRECT") for what in ("ADDRESS", "PORT")),
        *(f"DOWNSTREAM{part}_{side}_ADDRESS_WITHOUT_PORT" for part in ("", "_DIRECT") for side in ("REMOTE", "LOCAL")),
        *("DOWNSTREAM_PEER_URI_SAN", "UPSTREAM_HOST", "UPSTREAM_CLUSTER", "UPSTREAM_CLUSTER_RAW"),
        *(f"UPSTREAM_{side}_{what}" for side in ("REMOTE", "LOCAL") for what in ("ADDRESS", "PORT")),
        *(f"UPSTREAM_{side}_ADDRESS_WITHOUT_PORT" for side in ("REMOTE", "LOCAL")),
        *("UPSTREAM_REQUEST_ATTEMPT_COUNT", "UPSTREAM_TRANSPORT_FAILURE_REASON"),
    )
)
"""Operators without an argument; START_TIME may have one. POLICY, REASON and WHY are Fairlead's own."""
HEADERS = ("REQ", "RESP")
"""Those that name a header, and perhaps another one to take where the first is missing: `REQ(X?Y)`."""
_ELSEWHERE = (
    "DYNAMIC_METADATA", "CLUSTER_METADATA", "METADATA", "FILTER_STATE", "UPSTREAM_FILTER_STATE", "UPSTREAM_METADATA",
    "PER_REQUEST_STATE", "FILTER_CHAIN_NAME", "VIRTUAL_CLUSTER_NAME", "CEL",
)  # fmt: skip
_UNKNOWN_HERE = frozenset(
    (
        *("START_TIME_LOCAL", "EMIT_TIME", "EMIT_TIME_LOCAL", "COMMON_DURATION", "REQUEST_DURATION", "CUSTOM_FLAGS"),
        *("REQUEST_TX_DURATION", "RESPONSE_DURATION", "RESPONSE_TX_DURATION", "ROUNDTRIP_DURATION", "UNIQUE_ID"),
        *("TRAILER", "REQUEST_HEADERS_BYTES", "RESPONSE_HEADERS_BYTES", "RESPONSE_TRAILERS_BYTES", "CONNECTION_ID"),
        *("RESPONSE_FLAGS_LONG", "TRACE_ID", "SPAN_ID", "QUERY_PARAM", "QUERY_PARAMS", "PATH", "ACCESS_LOG_TYPE"),
        *("TLS_JA3_FINGERPRINT", "TLS_JA4_FINGERPRINT", "LOCAL_REPLY_BODY", "BYTES_RETRANSMITTED"),
    )
)
_UNKNOWN_PREFIXES = ("DOWNSTREAM_", "UPSTREAM_")
_OPERATOR = re.compile(r"%([A-Z][A-Z0-9_]*)(?:\(([^)]*)\))?(?::([0-9]{1,5}))?%")


class FormatError(ValueError):
    """A value that cannot be read; the message says what is wrong and what may be written."""


class Operator:
    """One operator in a value; `most`: characters of it to take, -1: all."""

    __slots__ = ("argument", "most", "name")

    def __init__(self, name: str, argument: str, most: int = -1) -> None:
        self.name = name
        self.argument = argument
        self.most = most


class Template(str):
    """A header value with operators in it: as text what was written."""

    __slots__ = ("pieces",)
    pieces: tuple[str | Operator, ...]


def read(text: str) -> str | Template:
    """A header operation's value: plain text with `%%` turned into `%`, or a Template. Raises FormatError."""
    if "%" not in text:
        return text
    pieces: list[str | Operator] = []
    plain = ""
    at = 0
    while at < len(text):
        mark = text.find("%", at)
        if mark < 0:
            break
        plain += text[at:mark]
        if text.startswith("%%", mark):
            plain += "%"
            at = mark + 2
            continue
        found = _OPERATOR.match(text, mark)
        if found is None:
            raise FormatError("a single '%': write %% for a percent sign, %COMMAND% for a format operator")
        if plain:
            pieces.append(plain)
            plain = ""
        pieces.append(Operator(found[1], found[2] or "", int(found[3]) if found[3] else -1))
        at = found.end()
    plain += text[at:]
    if not pieces:
        return plain
    template = Template(text)
    template.pieces = (*pieces, plain) if plain else tuple(pieces)
    return template


def fault(operator: Operator) -> str:
    """Why there can be no such operator; empty: there is one, in Envoy at least."""
    name = operator.name
    if name in HEADERS:
        return "" if operator.argument.strip("?") else f"%{name}% needs the name of a header: %{name}(X-NAME)%"
    if name in PLAIN or left_out(operator):
        return ""
    return f"there is no format operator %{name}%; known are REQ(X?Y), RESP(X?Y), {', '.join(sorted(PLAIN))}"


def left_out(operator: Operator) -> str:
    """Why one of Envoy's operators has no value here; empty: it has one, or there is none of this name."""
    name = operator.name
    if name in HEADERS or name in PLAIN:
        return ""
    if name == "ENVIRONMENT":
        return "it would show the sidecar's environment, tokens included, to whoever may write a route"
    if name in _ELSEWHERE:
        return "it is state of Envoy's own"
    return "it is not known here" if name in _UNKNOWN_HERE or name.startswith(_UNKNOWN_PREFIXES) else ""
