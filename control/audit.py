"""The audit log: one JSON object a line for every write, every certificate, and every refusal. Never a secret.

Who, from where, what, and how it ended. Bodies are not recorded, so neither are the contents of Secrets, tokens or
keys.
JSON escapes control characters, so that no line can be forged through a name.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from functools import lru_cache
from math import floor
from typing import Any

import msgspec

FEED = "/fairlead/v1/feed/"
TEXT_MAX = 1000
"""Longer texts are cut."""


class Audit:
    """`write` takes one finished line; it must not raise."""

    def __init__(self, write: Callable[[bytes], None]) -> None:
        self._write = write

    def record(self, now: float, **fields: Any) -> None:
        """Fields with empty values are left out. What sidecars say of the feed, thousands of times a second, is no line
        unless it is refused."""
        if fields.get("code") == 204 and str(fields.get("path")).startswith(FEED):
            return
        line: dict[str, Any] = {"time": timestamp(now)}
        for key, value in fields.items():
            if value or isinstance(value, (int, float, tuple)):  # no more comparisons: there are two dozen fields
                line[key] = value[:TEXT_MAX] if isinstance(value, str) else value
        try:
            encoded = msgspec.json.encode(line)
        except (TypeError, ValueError, UnicodeError):
            encoded = msgspec.json.encode({key: repr(value)[:TEXT_MAX] for key, value in line.items()})
        self._write(encoded + b"\n")


def timestamp(now: float) -> str:
    """RFC 3339 with microseconds, as Kubernetes' MicroTime."""
    whole = floor(now)
    micros = round((now - whole) * 1e6)
    return f"{_second(whole + micros // 1_000_000)}.{micros % 1_000_000:06}Z"


def seconds_timestamp(now: float) -> str:
    """RFC 3339 to the second, as Kubernetes' Time."""
    return f"{_second(floor(now))}Z"


@lru_cache(16)
def _second(whole: int) -> str:
    return datetime.fromtimestamp(whole, UTC).strftime("%Y-%m-%dT%H:%M:%S")
