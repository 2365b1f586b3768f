"""Outcomes that wait for their lines in the access log, and the line of Envoy's default format for an exchange that
went well: nearly every line there is.

`access_log` has the formats in general. Runs compiled (with access_line.pxd) or as it stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from .message import BIT, Outcome, RequestHead

BATCH = 32
"""Outcomes whose lines are made at a time. They are kept for no longer, so that what they are made of is used again
while it is warm; and a longer pause would be felt by the requests behind it."""
HELD_MOST = 20_000
"""Lines that wait to be written, at most."""

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


def _number(number: int) -> str:
    return _NUMBERS[number] if 0 <= number < 1024 else str(number)


_NUMBERS = [str(number) for number in range(1024)]
_THOUSANDTHS = [f".{number:03d}Z] " for number in range(1000)]


def usual_line(outcome: Outcome, skew: float, seconds: Seconds) -> str | None:
    """The line of an exchange that went well; None: it is another case. `skew`: wall minus monotonic clock, seconds."""
    request: RequestHead | None = outcome.request
    endpoint = outcome.endpoint
    if (
        request is None
        or endpoint is None
        or outcome.reason
        or outcome.policy
        or not outcome.first_at
        or not outcome.sent_at
    ):
        return None
    protocol = ' HTTP/2" ' if request.major == 2 else ' HTTP/1.1" ' if request.minor else ' HTTP/1.0" '
    started = outcome.started_at
    at = int((outcome.started_unix or started + skew) * 1000)
    whole = at // 1000
    forwarded_for = "-" if not request.has(_FORWARDED_FOR) else _shown(request.header("x-forwarded-for") or "")
    user_agent = "-" if not request.has(_USER_AGENT) else _shown(request.header("user-agent") or "")
    request_id = outcome.request_id or request.header("x-request-id") or ""
    address = _shown(endpoint.address)
    return "".join(
        (
            "[", seconds.of(whole), _THOUSANDTHS[at - whole * 1000],
            '"', _shown(request.method), " ", _shown(outcome.original_path or request.path), protocol,
            _number(outcome.status), " ", _shown(outcome.flag), " ",
            _number(outcome.received_bytes), " ", _number(outcome.sent_bytes), " ",
            _number(_milliseconds(outcome.ended_at - started)), " ",
            _number(_milliseconds(outcome.first_at - outcome.sent_at)), ' "',
            forwarded_for, '" "', user_agent, '" "', _shown(request_id), '" "',
            _shown(outcome.authority or request.authority), '" "', address, ":", _number(endpoint.port), '" -\n',
        )
    )  # fmt: skip


class Lines:
    """Outcomes become lines in small batches, after the writes of the turn that brought them. What does not fit is
    dropped and counted, so that a slow disk never slows a request.

    `line(outcome, skew)` makes any line; where `usual`, that of an exchange that went well is made here. `soon(call)`:
    call in the next turn of the loop; None: lines are made when they are taken.
    """

    def __init__(self, line: Callable[[Outcome, float], str], usual: bool, soon: Any = None) -> None:
        self.line = line
        self.usual = usual
        self.soon = soon
        self.skew = 0.0
        """Wall clock minus monotonic clock, seconds; whoever takes the lines keeps it right."""
        self.waiting: list[Outcome] = []
        self.made: list[bytes] = []
        self.held = 0
        """Lines in `made`."""
        self.dropped = 0
        self.taken = 0
        """Lines given to be written."""
        self._due = False
        self._seconds = Seconds()

    def add(self, outcome: Outcome) -> None:
        waiting = self.waiting
        if len(waiting) + self.held >= HELD_MOST:
            self.dropped += 1
            return
        waiting.append(outcome)
        if not self._due and self.soon is not None and len(waiting) >= BATCH:
            self._due = True
            self.soon(self.make)

    def make(self) -> None:
        """Lines of those that wait."""
        self._due = False
        waiting = self.waiting
        if not waiting:
            return
        self.waiting = []
        skew = self.skew
        seconds = self._seconds
        lines: list[str] = []
        for outcome in waiting:
            try:
                text = usual_line(outcome, skew, seconds) if self.usual else None
                lines.append(text if text is not None else self.line(outcome, skew))
            except Exception:  # one line that cannot be made must not take the others with it
                self.dropped += 1
        self.held += len(lines)
        self.made.append("".join(lines).encode("utf-8", "replace"))

    def take(self) -> bytes:
        """All lines that there are, oldest first."""
        self.make()
        made = self.made
        self.made = []
        self.taken += self.held
        self.held = 0
        return b"".join(made)
