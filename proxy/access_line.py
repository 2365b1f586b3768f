"""The line of Envoy's default access log format for an exchange that went well: nearly every line there is.

`access_log` has the formats in general. Runs compiled (with access_line.pxd) or as it stands.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from .message import BIT, Outcome, RequestHead

COMPILED = not __file__.endswith((".py", ".pyc"))
_UNSAFE = re.compile(r'[\x00-\x1f\x7f-\xa0"\\\u2028\u2029\ud800-\udfff]')
_FORWARDED_FOR = BIT["x-forwarded-for"]
_USER_AGENT = BIT["user-agent"]


class Seconds:
    """The last whole second as text: made once for all lines of it."""

    def __init__(self) -> None:
        self.at = -1
        self.text = ""

    def of(self, at: int) -> str:
        """Second `at` of the wall clock as `2026-01-31T23:59:59`."""
        if at != self.at:
            self.text = datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")
            self.at = at
        return self.text


def _plain(text: str) -> bool:
    """Whether nothing in the text needs escaping: visible ASCII and blanks, no quotes, no backslashes."""
    if COMPILED:
        for letter in text:  # noqa: SIM110 (a loop in C; a generator would not be)
            if letter < " " or letter > "~" or letter == '"' or letter == "\\":
                return False
        return True
    return text.isascii() and text.isprintable() and '"' not in text and "\\" not in text


def _escape(found: re.Match[str]) -> str:
    return f"\\x{ord(found[0]) & 0xFF:02x}"


def escaped(text: str) -> str:
    """The text with everything escaped that could end its field or its line."""
    return text if _plain(text) else _UNSAFE.sub(_escape, text)


def _shown(text: str) -> str:
    return escaped(text) if text else "-"


def _milliseconds(seconds: float) -> int:
    return int(seconds * 1000.0 + 0.5)


def usual_line(outcome: Outcome, skew: float, seconds: Seconds) -> str | None:
    """The line of an exchange that went well; None: it is another case. `skew`: wall minus monotonic clock, seconds."""
    request: RequestHead | None = outcome.request
    endpoint = outcome.endpoint
    if request is None or endpoint is None or outcome.reason or not outcome.first_at or not outcome.sent_at:
        return None
    protocol = "HTTP/2" if request.major == 2 else "HTTP/1.1" if request.minor else "HTTP/1.0"
    started = outcome.started_at
    at = int((outcome.started_unix or started + skew) * 1000)
    whole = at // 1000
    seen = request.seen
    forwarded_for = "-" if not seen & _FORWARDED_FOR else _shown(request.header("x-forwarded-for") or "")
    user_agent = "-" if not seen & _USER_AGENT else _shown(request.header("user-agent") or "")
    request_id = outcome.request_id or request.header("x-request-id") or ""
    return (
        f"[{seconds.of(whole)}.{at - whole * 1000:03d}Z] "
        f'"{_shown(request.method)} {_shown(outcome.original_path or request.path)} {protocol}" '
        f"{outcome.status} {_shown(outcome.flag)} {outcome.received_bytes} {outcome.sent_bytes} "
        f"{_milliseconds(outcome.ended_at - started)} {_milliseconds(outcome.first_at - outcome.sent_at)} "
        f'"{forwarded_for}" "{user_agent}" "{_shown(request_id)}" '
        f'"{_shown(outcome.authority or request.authority)}" "{_shown(endpoint.address)}:{endpoint.port}" -\n'
    )
