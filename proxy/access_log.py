"""Outcomes as lines: Envoy's text format or JSON. Collected on the path of a request, formatted and written in batches
(access_line.py).

Whatever a peer controls is escaped: no line breaks, no control characters, no quotes that end a field.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any

import msgspec

from .access_line import Lines, escaped
from .grpc import NAMES
from .message import Head, Outcome
from .metrics import denied_by

ENVOY_DEFAULT = (
    '[%START_TIME%] "%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%" %RESPONSE_CODE% %RESPONSE_FLAGS% '
    '%BYTES_RECEIVED% %BYTES_SENT% %DURATION% %RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)% "%REQ(X-FORWARDED-FOR)%" '
    '"%REQ(USER-AGENT)%" "%REQ(X-REQUEST-ID)%" "%REQ(:AUTHORITY)%" "%UPSTREAM_HOST%" %REASON%'
)
"""Envoy's default format, with Fairlead's reason behind it."""
JSON_KEYS = {
    "start_time": "START_TIME",
    "method": "REQ(:METHOD)",
    "path": "REQ(X-ENVOY-ORIGINAL-PATH?:PATH)",
    "protocol": "PROTOCOL",
    "response_code": "RESPONSE_CODE",
    "response_flags": "RESPONSE_FLAGS",
    "response_code_details": "RESPONSE_CODE_DETAILS",
    "connection_termination_details": "CONNECTION_TERMINATION_DETAILS",
    "upstream_transport_failure_reason": "UPSTREAM_TRANSPORT_FAILURE_REASON",
    "bytes_received": "BYTES_RECEIVED",
    "bytes_sent": "BYTES_SENT",
    "duration": "DURATION",
    "upstream_service_time": "RESP(X-ENVOY-UPSTREAM-SERVICE-TIME)",
    "x_forwarded_for": "REQ(X-FORWARDED-FOR)",
    "user_agent": "REQ(USER-AGENT)",
    "request_id": "REQ(X-REQUEST-ID)",
    "authority": "REQ(:AUTHORITY)",
    "upstream_host": "UPSTREAM_HOST",
    "upstream_cluster": "UPSTREAM_CLUSTER_RAW",
    "upstream_local_address": "UPSTREAM_LOCAL_ADDRESS",
    "downstream_local_address": "DOWNSTREAM_LOCAL_ADDRESS",
    "downstream_remote_address": "DOWNSTREAM_REMOTE_ADDRESS",
    "requested_server_name": "REQUESTED_SERVER_NAME",
    "route_name": "ROUTE_NAME",
    "grpc_status": "GRPC_STATUS",
    "reason": "REASON",
    "policy": "POLICY",
    "why": "WHY",
}
_OPERATOR = re.compile(r"%(?:([A-Z][A-Z0-9_]*(?:\([^)]*\))?)(?::(\d+))?)?%")
"""An operator with the length to cut it to, or `%%`."""
_FRACTION = re.compile(r"(%[1-9]?f|%s)")
_encode = msgspec.json.Encoder().encode
Value = str | int | None
Operator = Callable[[Outcome, float], Value]


class FormatError(ValueError):
    """An access log format that cannot be used; the message names the operator."""


def _start_time(outcome: Outcome, skew: float) -> str:
    milliseconds = int((outcome.started_unix or outcome.started_at + skew) * 1000)
    return f"{_second(milliseconds // 1000)}.{milliseconds % 1000:03d}Z"


@lru_cache(maxsize=64)
def _second(at: int) -> str:
    """A whole second as text, made once for all lines of it."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _path(outcome: Outcome, _skew: float) -> Value:
    return outcome.original_path or (outcome.request.path if outcome.request is not None else None)


def _service_time(outcome: Outcome, _skew: float) -> Value:
    return round((outcome.first_at - outcome.sent_at) * 1000) if outcome.first_at and outcome.sent_at else None


def _protocol(outcome: Outcome, _skew: float) -> Value:
    request = outcome.request
    if request is None:
        return None
    return "HTTP/2" if request.major == 2 else f"HTTP/1.{request.minor}"


def _grpc_status(outcome: Outcome, _skew: float) -> Value:
    """Envoy's %GRPC_STATUS%: the status' name in camel case, its number where it has none."""
    if not outcome.grpc_status:
        return None
    number = int(outcome.grpc_status)
    if number >= len(NAMES):
        return outcome.grpc_status
    return "OK" if not number else "".join(word.capitalize() for word in NAMES[number].split("_"))


def _remote(outcome: Outcome, _skew: float) -> Value:
    arrival = outcome.arrival
    return f"{arrival.source_ip}:{arrival.source_port}" if arrival is not None and arrival.source_ip else None


def _start_as(form: str) -> Operator:
    """START_TIME(FORM): strftime's letters in UTC, and `%s`, `%f`, `%3f` (Envoy)."""
    parts = _FRACTION.split(form)

    def text(outcome: Outcome, skew: float) -> Value:
        at = outcome.started_unix or outcome.started_at + skew
        moment = datetime.fromtimestamp(at, UTC)
        nanoseconds = f"{int(at % 1 * 1e9):09d}"
        done = ""
        for number, part in enumerate(parts):
            if number % 2:
                done += str(int(at)) if part == "%s" else nanoseconds[: int(part[1:-1] or 9)]
            elif part:
                done += moment.strftime(part)
        return done

    return text


def _half(whole: Operator, port: bool) -> Operator:
    """The port of an `ip:port`, or what stands before it."""

    def half(outcome: Outcome, skew: float) -> Value:
        text = whole(outcome, skew)
        if not isinstance(text, str):
            return None
        host, _, number = text.rpartition(":")
        return number if port else host

    return half


def _upstream(outcome: Outcome, _skew: float) -> Value:
    return f"{outcome.endpoint.address}:{outcome.endpoint.port}" if outcome.endpoint is not None else None


def _route(outcome: Outcome, _skew: float) -> Value:
    return outcome.decision.route if outcome.decision is not None else None


def _authority(outcome: Outcome, _skew: float) -> Value:
    return outcome.authority or (outcome.request.authority if outcome.request is not None else None)


def _id(outcome: Outcome, _skew: float) -> Value:
    return outcome.request_id or (outcome.request.header("x-request-id") if outcome.request is not None else None)


def _proto(outcome: Outcome, _skew: float) -> Value:
    """As the endpoint saw it: where the client said nothing, what it spoke."""
    request = outcome.request
    return (request.header("x-forwarded-proto") or request.scheme) if request is not None else None


OPERATORS: dict[str, Operator] = {
    "START_TIME": _start_time,
    "PROTOCOL": _protocol,
    "RESPONSE_CODE": lambda o, _: o.status,
    "RESPONSE_FLAGS": lambda o, _: o.flag or None,
    "RESPONSE_CODE_DETAILS": lambda o, _: o.details or None,
    "CONNECTION_TERMINATION_DETAILS": lambda o, _: o.why if o.kind == "tcp" and o.reason else None,
    "UPSTREAM_TRANSPORT_FAILURE_REASON": lambda o, _: o.why if o.flag == "UF" else None,
    "BYTES_RECEIVED": lambda o, _: o.received_bytes,
    "BYTES_SENT": lambda o, _: o.sent_bytes,
    "DURATION": lambda o, _: round((o.ended_at - o.started_at) * 1000),
    "UPSTREAM_HOST": _upstream,
    "UPSTREAM_CLUSTER": lambda o, _: o.cluster.config.name if o.cluster is not None else None,
    "UPSTREAM_CLUSTER_RAW": lambda o, _: o.cluster.config.name if o.cluster is not None else None,
    "UPSTREAM_LOCAL_ADDRESS": lambda o, _: o.upstream_local or None,
    "DOWNSTREAM_LOCAL_ADDRESS": lambda o, _: o.local_address or None,
    "DOWNSTREAM_PEER_URI_SAN": lambda o, _: o.source_identity or None,
    "REQUESTED_SERVER_NAME": lambda o, _: (o.arrival.sni or None) if o.arrival is not None else None,
    "ROUTE_NAME": _route,
    "STREAM_ID": _id,
    "UPSTREAM_REQUEST_ATTEMPT_COUNT": lambda o, _: o.attempts,
    "GRPC_STATUS": _grpc_status,
    "GRPC_STATUS_NUMBER": lambda o, _: o.grpc_status or None,
    "REASON": lambda o, _: o.reason or None,
    "POLICY": lambda o, _: denied_by(o) or o.policy or None,
    "WHY": lambda o, _: o.why or None,
}
for _own, _whole in (
    ("DOWNSTREAM_REMOTE", _remote),
    ("DOWNSTREAM_LOCAL", OPERATORS["DOWNSTREAM_LOCAL_ADDRESS"]),
    ("UPSTREAM_REMOTE", _upstream),
    ("UPSTREAM_LOCAL", OPERATORS["UPSTREAM_LOCAL_ADDRESS"]),
):
    for _name in (_own, _own.replace("DOWNSTREAM_", "DOWNSTREAM_DIRECT_")):
        OPERATORS |= {
            f"{_name}_ADDRESS": _whole,
            f"{_name}_ADDRESS_WITHOUT_PORT": _half(_whole, False),
            f"{_name}_PORT": _half(_whole, True),
        }
_PSEUDO: dict[str, Operator] = {
    ":method": lambda o, _: o.request.method if o.request is not None else None,
    ":path": lambda o, _: o.request.path if o.request is not None else None,
    ":authority": _authority,
    ":scheme": lambda o, _: o.request.scheme if o.request is not None else None,
    "x-request-id": _id,
    "x-forwarded-proto": _proto,
}


def _line(head: Head | None, name: str, first: bool) -> Value:
    """A header's value; of several lines the `first`, or all joined."""
    value = head.header(name) if head is not None else None
    return head.values(name)[0] if first and head is not None and value is not None and "," in value else value


def _response_line(name: str, first: bool) -> Operator:
    return lambda o, _: _line(o.response, name, first)


def _request_line(name: str, first: bool) -> Operator:
    return lambda o, _: _line(o.request, name, first)


def operator(name: str, first: bool = False) -> Operator:
    """The function for one operator's text, as `REQ(USER-AGENT)`; raises FormatError. `first`: of a header with several
    lines the first one, as Envoy does it, instead of all."""
    found = OPERATORS.get(name)
    if found is not None:
        return found
    word, bracket, inner = name.partition("(")
    if word == "START_TIME" and bracket:
        return _start_as(inner.removesuffix(")"))
    if word not in ("REQ", "RESP") or not bracket:
        raise FormatError(f"access log format: %{name}% is not known; known are REQ(), RESP(), {', '.join(OPERATORS)}")
    names = [part.lower() for part in inner.rstrip(")").split("?")]
    if word == "RESP":
        if names == ["x-envoy-upstream-service-time"]:
            return _service_time
        return _first([_response_line(n, first) for n in names])
    if names == ["x-envoy-original-path", ":path"]:
        return _path
    functions = [_PSEUDO.get(n) or _request_line(n, first) for n in names]
    return _first(functions)


def _first(functions: Sequence[Operator]) -> Operator:
    """The first value that there is."""
    if len(functions) == 1:
        return functions[0]

    def first(outcome: Outcome, skew: float) -> Value:
        for function in functions:
            value = function(outcome, skew)
            if value is not None:
                return value
        return None

    return first


def cut(function: Operator, most: str | None) -> Operator:
    """The function with at most so many characters of its text, as `%REQ(X):10%` asks."""
    if not most:
        return function
    end = int(most)

    def shortened(outcome: Outcome, skew: float) -> Value:
        value = function(outcome, skew)
        return value[:end] if isinstance(value, str) else value

    return shortened


def text_formatter(form: str) -> Callable[[Outcome, float], str]:
    """A format string to a function of one outcome; raises FormatError."""
    literals = [""]
    operators: list[Operator] = []
    at = 0
    for found in _OPERATOR.finditer(form):
        literals[-1] += form[at : found.start()]
        if found[1] is None:
            literals[-1] += "%%"
        else:
            operators.append(cut(operator(found[1]), found[2]))
            literals.append("")
        at = found.end()
    literals[-1] += form[at:].rstrip("\n") + "\n"
    stray = next((piece for piece in literals if "%" in piece.replace("%%", "")), None)
    if stray is not None:
        raise FormatError(f"access log format: an operator that cannot be read near {stray!r}")
    # One template for `%`: literal percent signs in it stay doubled, as people write them.
    template = "%s".join(literals)

    def line(outcome: Outcome, skew: float) -> str:
        return template % tuple([_shown(function(outcome, skew)) for function in operators])

    return line


def _shown(value: Value) -> str | int:
    if value.__class__ is str:
        return escaped(value) if value else "-"
    return "-" if value is None else value


def with_policy() -> Callable[[Outcome, float], str]:
    """Envoy's default format; where a policy refused, would refuse or notes, its name and rule stand behind it."""
    usual, policy = text_formatter(ENVOY_DEFAULT), OPERATORS["POLICY"]

    def line(outcome: Outcome, skew: float) -> str:
        text, by = usual(outcome, skew), policy(outcome, skew)
        return f'{text[:-1]} "{escaped(str(by))}"\n' if by else text

    return line


def json_formatter() -> Callable[[Outcome, float], str]:
    operators = {key: operator(name) for key, name in JSON_KEYS.items()}

    def line(outcome: Outcome, skew: float) -> str:
        told = {key: function(outcome, skew) for key, function in operators.items()}
        text = {
            key: value.encode("utf-8", "replace").decode() if isinstance(value, str) else value
            for key, value in told.items()
        }
        return _encode(text).decode() + "\n"

    return line


class AccessLog:
    """`lines.add` on the path of a request; a shell keeps `lines.skew` right, calls `lines.take` now and then, and
    writes what it gives."""

    def __init__(self, encoding: str = "TEXT", form: str = "", soon: Any = None) -> None:
        """`encoding`: TEXT or JSON; `form`: a format string, empty for Envoy's default; `soon`: see Lines. Raises
        FormatError."""
        line = json_formatter() if encoding == "JSON" else text_formatter(form) if form else with_policy()
        self.lines = Lines(line, encoding != "JSON" and (form or ENVOY_DEFAULT) == ENVOY_DEFAULT, soon)
        self.lost = 0
        """Lines taken that could not be written after all."""

    @property
    def written(self) -> int:
        return self.lines.taken - self.lost

    @property
    def dropped(self) -> int:
        return self.lines.dropped + self.lost
