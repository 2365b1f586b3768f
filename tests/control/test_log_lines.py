"""A record of the log is one line, whatever is told in it."""

from __future__ import annotations

import logging

from fairlead.control.role_common import OneLine


def line_of(message: str, *told: object) -> str:
    record = logging.LogRecord("fairlead.feed", logging.ERROR, "", 1, message, told, None)
    return OneLine("%(levelname)s %(name)s: %(message)s").format(record)


def test_no_line_is_forged_by_what_somebody_says() -> None:
    forged = "a\n2026-12-01 00:00:00 INFO fairlead.api: forged\r\x1b[31m\x85\u2028\x00"
    assert line_of("%s refused: %s", "sidecar/default/w", forged) == (
        "ERROR fairlead.feed: sidecar/default/w refused: a\\n2026-12-01 00:00:00 INFO fairlead.api: forged"
        "\\r\\x1b[31m\\x85\\u2028\\x00"
    )
    assert line_of("Gruß\tan %s", "日本") == "ERROR fairlead.feed: Gruß\tan 日本"


def test_a_traceback_keeps_its_lines() -> None:
    try:
        raise ValueError("x")
    except ValueError as error:
        record = logging.LogRecord("n", logging.ERROR, "", 1, "m", (), (type(error), error, error.__traceback__))
    assert OneLine("%(message)s").format(record).splitlines()[:2] == ["m", "Traceback (most recent call last):"]
