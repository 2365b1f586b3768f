"""Audit lines."""

from __future__ import annotations

import json

from fairlead.control.audit import TEXT_MAX, Audit, seconds_timestamp, timestamp


def test_a_line_is_one_json_object_whatever_is_in_it() -> None:
    lines: list[bytes] = []
    Audit(lines.append).record(0.5, name="a\nb\x1b[31m", empty="", none=None, code=200, long="x" * 5000, bad="\ud800")
    assert lines[0].count(b"\n") == 1
    assert b"\x1b" not in lines[0]
    found = json.loads(lines[0])
    assert "empty" not in found
    assert "none" not in found
    assert len(found["long"]) <= TEXT_MAX + 2


def test_times_are_rfc_3339() -> None:
    assert timestamp(0.5) == "1970-01-01T00:00:00.500000Z"
    assert seconds_timestamp(0.5) == "1970-01-01T00:00:00Z"


def test_what_sidecars_say_of_the_feed_is_a_line_only_where_it_is_refused() -> None:
    lines: list[bytes] = []
    audit = Audit(lines.append)
    audit.record(0.0, path="/fairlead/v1/feed/ack", code=204)
    assert lines == []
    audit.record(0.0, path="/fairlead/v1/feed/ack", code=403)
    audit.record(0.0, path="/api/v1/namespaces/a/pods/b", code=204)
    assert len(lines) == 2
