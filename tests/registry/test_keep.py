"""The last contribution on disk: the same again, private, never half."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from fairlead.registry.keep import Keep
from fairlead.registry.model import Endpoint, Facts, Service, Workload

HOST = "web.default.svc.cluster.local"
FACTS = Facts(services={HOST: Service(HOST, "default", "web")}, endpoints={HOST: (Endpoint("10.0.0.1", 80),)})


def test_what_is_saved_is_loaded_and_only_its_owner_may_read_it(tmp_path: Path) -> None:
    keep = Keep(tmp_path / "deep" / "source.json")
    assert keep.load() is None
    keep.save(FACTS, 12.5)
    assert Keep(keep.path).load() == (FACTS, 12.5)
    assert keep.path.stat().st_mode & 0o777 == 0o600


HEAD = b'{"format": 2, "saved_at": 1, "namespaces": {}}\n'


@pytest.mark.parametrize(
    "content",
    [
        b"", b"garbage", b"{}", b"\xff\xfe", b'{"format": 99, "saved_at": 1, "namespaces": {}}\n', HEAD,
        HEAD + b'{"host": "a", "endpoints": []}\n', HEAD + b"garbage\n{}\n", HEAD + b'{"workloads": [{}]}\n{}\n',
    ],
)  # fmt: skip
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


def many(count: int) -> Facts:
    hosts = [f"s{number}.default.svc.cluster.local" for number in range(count)]
    return Facts(
        {host: Service(host, "default", host.partition(".")[0]) for host in hosts[1:]},
        {host: (Endpoint("10.0.0.1", 80, labels={"v": "1"}), Endpoint("10.0.0.2", 80)) for host in hosts},
        {f"default/w{number}": Workload("default", f"w{number}", ("10.0.0.1",)) for number in range(count * 3)},
        {"default": {"a": "b"}, "empty": {}},
    )


def test_all_of_a_large_registry_comes_back(tmp_path: Path) -> None:
    keep = Keep(tmp_path / "source.json")
    keep.save(many(150), 3.0)
    assert keep.load() == (many(150), 3.0)


@pytest.mark.asyncio
async def test_of_changes_that_come_while_one_is_written_the_last_counts_and_the_loop_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep, begun, go_on = Keep(tmp_path / "source.json"), threading.Event(), threading.Event()
    written: list[float] = []
    write = keep._write_alone

    def slow(facts: Facts, now: float) -> None:
        written.append(now)
        begun.set()
        assert go_on.wait(20.0)
        write(facts, now)

    monkeypatch.setattr(keep, "_write_alone", slow)
    monkeypatch.setattr("fairlead.registry.keep.PAUSE_S", 0.0)
    monkeypatch.setattr("fairlead.registry.keep.SHARE", 0)
    keep.save(FACTS, 1.0)
    while not begun.is_set():
        await asyncio.sleep(0)
    for number in range(2, 50):
        keep.save(many(number), float(number))
    go_on.set()
    async with asyncio.timeout(20.0):
        while keep._writing is not None:
            await asyncio.sleep(0)
    assert written == [1.0, 49.0]
    assert keep.load() == (many(49), 49.0)


def test_what_is_still_to_be_written_when_the_loop_ends_is_written(tmp_path: Path) -> None:
    keep = Keep(tmp_path / "source.json")

    async def role() -> None:
        keep.save(FACTS, 1.0)
        await asyncio.sleep(0)
        keep.save(many(3), 2.0)

    asyncio.run(role())
    assert keep.load() == (many(3), 2.0)
