"""The record on disk."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from fairlead.control import issued, issued_file
from fairlead.control.issued_file import IssuedFile
from tests.control.test_issued import leaf


def test_a_restart_knows_what_was_issued_and_the_file_is_private(tmp_path: Path) -> None:
    path = tmp_path / "issued.jsonl"
    first = IssuedFile(path, 0.0)
    first.add([leaf("1")])
    assert path.stat().st_mode & 0o777 == 0o600
    again = IssuedFile(path, 50.0)  # without a farewell of the first
    again.add([leaf("2", at=50, ends=200), leaf("3", at=50, ends=200)])
    assert [one.serial for one in again.record.all(50)] == ["1", "2", "3"]
    third = IssuedFile(path, 150.0)
    assert [one.serial for one in third.record.all(0)] == ["2", "3"]
    assert len(path.read_bytes().splitlines()) == 2, "what has ended is gone from the file, too"


def test_the_file_does_not_grow_without_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(issued_file, "COMPACT_LINES", 50)
    monkeypatch.setattr(issued, "LEAVES_PER_WORKLOAD", 8)
    made = IssuedFile(tmp_path / "issued.jsonl", 0.0)
    for number in range(500):
        made.add([leaf(str(number))])
    assert len((tmp_path / "issued.jsonl").read_bytes().splitlines()) <= 60


def test_a_disk_that_takes_nothing_keeps_nobody_from_a_certificate(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    made = IssuedFile(tmp_path / "issued.jsonl", 0.0)
    made.close()
    with caplog.at_level(logging.ERROR):
        made.add([leaf("1")])
    assert "will not know 1" in caplog.text
    assert [one.serial for one in made.record.all(0)] == ["1"]
