"""The last contribution on disk: the same again, private, never half."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.registry.keep import Keep
from fairlead.registry.model import Endpoint, Facts, Service

HOST = "web.default.svc.cluster.local"
FACTS = Facts(services={HOST: Service(HOST, "default", "web")}, endpoints={HOST: (Endpoint("10.0.0.1", 80),)})


def test_what_is_saved_is_loaded_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    keep = Keep(tmp_path / "deep" / "source.json")
    assert keep.load() is None
    keep.save(FACTS, 12.5)
    assert Keep(keep.path).load() == (FACTS, 12.5)
    assert keep.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("content", [b"", b"garbage", b"{}", b'{"format": 99, "saved_at": 1, "facts": {}}'])
def test_what_cannot_be_read_is_told_and_not_used(
    tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "source.json"
    path.write_bytes(content)
    assert Keep(path).load() is None
    assert str(path) in caplog.text


def test_where_nothing_can_be_written_the_old_stays(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    keep = Keep(tmp_path / "source.json")
    keep.save(FACTS, 1.0)
    (tmp_path / "source.new").mkdir()
    keep.save(Facts(), 2.0)
    assert "could not be written" in caplog.text
    assert keep.load() == (FACTS, 1.0)
