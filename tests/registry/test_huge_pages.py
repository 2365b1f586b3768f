"""Large pages are asked for where whole ones fit into memory of our own, and nowhere else."""

from __future__ import annotations

from pathlib import Path

import pytest

from fairlead.registry.huge_pages import PAGE, collapse, pages

MAPS = """
00400000-00800000 r-xp 00000000 08:01 77 /usr/bin/python3
00800000-00e01000 rw-p 00000000 00:00 0
10000000-10200000 rw-p 00000000 00:00 0                      [heap]
20000000-20400000 rw-p 00000000 08:01 78 /usr/lib/libc.so
30000000-30400000 rw-s 00000000 00:00 0
40000000-40400000 rw-p 00000000 00:00 0                      [stack]
50100000-502ff000 rw-p 00000000 00:00 0
60000000-60400000 r--p 00000000 00:00 0
"""


@pytest.fixture
def world(tmp_path: Path) -> dict[str, Path]:
    (tmp_path / "maps").write_text(MAPS.lstrip())
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    return {"maps": tmp_path / "maps", "enabled": tmp_path / "enabled"}


def test_whole_pages_of_private_memory_are_found() -> None:
    assert list(pages(MAPS.split("\n")[1:-1])) == [0x800000, 0xA00000, 0xC00000, 0x10000000]


def test_each_is_asked_for_and_those_that_came_are_counted(world: dict[str, Path]) -> None:
    asked: list[tuple[int, int]] = []
    waited: list[float] = []

    def advise(at: int, size: int, what: int) -> int:
        assert size == PAGE
        asked.append((at, what))
        return -1 if at == 0xA00000 else 0

    assert collapse(advise, waited.append, **world) == 3
    assert [at for at, what in asked if what == 25] == [0x800000, 0xA00000, 0xC00000, 0x10000000]
    assert [at for at, what in asked if what == 14] == [0x800000, 0xC00000, 0x10000000]
    assert len(waited) == 3, "what was not done takes no time"


def test_who_switched_them_off_gets_none(world: dict[str, Path]) -> None:
    world["enabled"].write_text("always madvise [never]\n")
    assert collapse(lambda *_: 0, lambda _: None, **world) == 0
    world["enabled"].unlink()
    assert collapse(lambda *_: 0, lambda _: None, **world) == 0


def test_what_is_in_memory_stays_as_it_is() -> None:
    held = [bytes(str(number), "ascii") * 10 for number in range(50_000)]
    assert collapse(pause=lambda _: None) >= 0
    assert held == [bytes(str(number), "ascii") * 10 for number in range(50_000)]
