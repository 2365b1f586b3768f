"""When memory is given back."""

from __future__ import annotations

import asyncio
import ctypes
import gc
import mmap
import subprocess
import sys

import pytest

from fairlead.mesh.memory import CONNECTIONS, LATER, REQUESTS, Tidy, settle
from fairlead.proxy import poller
from fairlead.proxy.poller import malloc_trim

pytestmark = pytest.mark.asyncio


async def turned(tidy: Tidy) -> None:
    """One look, as the timer has it."""
    tidy._look()
    tidy.stop()


async def test_memory_is_given_back_after_enough_connections_and_not_for_fewer() -> None:
    made = 0
    trimmed = asyncio.Event()
    loop = asyncio.get_running_loop()
    tidy = Tidy(lambda: made, lambda: loop.call_soon_threadsafe(trimmed.set))
    await turned(tidy)
    made = CONNECTIONS - 1
    await turned(tidy)
    assert tidy.trims == 0
    made = CONNECTIONS
    await turned(tidy)
    await asyncio.wait_for(trimmed.wait(), 5)
    assert tidy.trims == 1


async def test_once_more_when_it_is_quiet_and_then_now_and_then() -> None:
    tidy = Tidy(lambda: CONNECTIONS, lambda: None)
    seen = []
    for _ in range(2 * LATER + 1):
        await turned(tidy)
        seen.append(tidy.trims)
    assert [period for period in range(1, len(seen)) if seen[period] > seen[period - 1]] == [1, LATER, 2 * LATER]


async def test_after_many_requests_once_there_are_no_more_and_not_again() -> None:
    did = 0
    tidy = Tidy(lambda: 0, lambda: None, did=lambda: did)
    seen = []
    for now in (REQUESTS - 1, REQUESTS - 1, REQUESTS, 2 * REQUESTS, 2 * REQUESTS, 2 * REQUESTS, 2 * REQUESTS + 9):
        did = now
        await turned(tidy)
        seen.append(tidy.trims)
    assert seen == [0, 0, 0, 0, 1, 1, 1]


async def test_glibc_gives_back_what_lies_between_what_is_used() -> None:
    lib = ctypes.CDLL(None)
    lib.malloc.restype = ctypes.c_void_p
    lib.malloc.argtypes, lib.free.argtypes = [ctypes.c_size_t], [ctypes.c_void_p]
    size = 100_000  # below the size from which glibc maps each piece by itself
    pieces = [lib.malloc(size) for _ in range(400)]
    for piece in pieces:
        ctypes.memset(piece, 1, size)
    full = resident()
    for piece in pieces[:-1]:  # the last holds the top of the heap
        lib.free(piece)
    assert malloc_trim()
    left = resident()
    lib.free(pieces[-1])
    assert full - left > 300 * size


def resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * mmap.PAGESIZE


async def test_both_ways_of_asking_the_c_library_say_the_same() -> None:
    assert poller._library("mallopt", -1, 1 << 22) == 1 and poller.mallopt(-1, 1 << 22)
    assert not poller._library("mallopt_of_another_library", 1, 2), "one that has none is left as it is"
    assert poller._library("malloc_trim", 0) in (0, 1)


async def test_once_settled_what_large_reads_are_read_into_is_not_got_from_the_system_each_time() -> None:
    script = (
        "import resource, sys\n"
        "from fairlead.mesh.memory import settle\n"
        "if sys.argv[1] == 'settled': settle()\n"
        "def faults(): return resource.getrusage(resource.RUSAGE_SELF).ru_minflt\n"
        "block = b'x' * 65536\n"
        "before = faults()\n"
        "for size in (1, 3, 8):\n"
        "    for _ in range(500): read = [block * 4 for _ in range(size)]; del read\n"
        "print(faults() - before)\n"
    )

    def faults(how: str) -> int:
        return int(subprocess.run([sys.executable, "-P", "-c", script, how], capture_output=True, check=True).stdout)

    assert faults("settled") < 2000 < 20_000 < faults("as it is")


async def test_what_starting_left_behind_goes_back_once_all_that_stays_is_there() -> None:
    asked: list[object] = []
    settle(lambda *option: asked.append(option), lambda: asked.append("trim"))
    gc.unfreeze()  # of this process, which goes on to other tests
    assert asked[0] == "trim"
    assert len(asked) == 3
