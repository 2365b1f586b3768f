"""Shell: pages of 2 MiB for the memory of a large registry (Linux, madvise(2) with MADV_COLLAPSE, from 6.1 on).

What one answer needs lies anywhere among a hundred megabytes, so with pages of 4 KiB the processor has to look up where
nearly each piece of it is. Measured with 100,000 endpoints: 4 to 6 % of a query's processor time, and 2 MB more
resident. Python's own arenas are not asked for with a hint, and `glibc.malloc.hugetlb` does not reach them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

PAGE = 2 << 20
PAUSE_S = 0.02
"""Between two pages, each of which stops who needs new memory: 0.5 ms, and 5 on a virtual machine that has to get it
from its host."""
_ENABLED = Path("/sys/kernel/mm/transparent_hugepage/enabled")
_MAPS = Path("/proc/self/maps")
_HUGEPAGE, _COLLAPSE = 14, 25
_running = threading.Lock()


def pages(maps: Iterable[str]) -> Iterator[int]:
    """Where whole large pages fit into private memory that stands in no file, by the lines of /proc/PID/maps."""
    for line in maps:
        where, rights, _, _, inode, *name = line.split()
        if not rights.startswith("rw") or not rights.endswith("p") or inode != "0" or name not in ([], ["[heap]"]):
            continue
        start, end = (int(one, 16) for one in where.split("-"))
        yield from range(-(-start // PAGE) * PAGE, end - PAGE + 1, PAGE)


def collapse(
    advise: Callable[[int, int, int], int] | None = None,
    pause: Callable[[float], None] = time.sleep,
    maps: Path = _MAPS,
    enabled: Path = _ENABLED,
) -> int:
    """How many large pages there are now for what this process holds; 0 where the system has none, or wants none."""
    try:
        if "[never]" in enabled.read_text():  # MADV_COLLAPSE would not ask
            return 0
        advise = advise or _library()
        found = list(pages(maps.read_text().splitlines()))
    except (OSError, AttributeError, ValueError, ImportError):
        return 0
    done = 0
    for at in found:
        if advise(at, PAGE, _COLLAPSE) == 0:
            advise(at, PAGE, _HUGEPAGE)  # so that it stays one
            done += 1
            pause(PAUSE_S)
    return done


def collapse_soon() -> None:
    """In a thread, which ends with the process; one at a time."""

    def run() -> None:
        with _running:
            collapse()

    if not _running.locked():
        threading.Thread(target=run, name="huge-pages", daemon=True).start()


def _library() -> Callable[[int, int, int], int]:
    """madvise(2). Raises AttributeError, OSError where there is none."""
    import ctypes

    found = ctypes.CDLL(None).madvise
    found.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    found.restype = ctypes.c_int

    def advise(at: int, size: int, what: int) -> int:
        return int(found(at, size, what))

    return advise
