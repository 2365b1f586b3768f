"""Shell: memory that closed connections and bursts of requests leave behind goes back to the system.

OpenSSL's objects and what large messages are read into lie between what stays, so glibc's heap keeps the pages of the
most that there ever was at once. Measured with 24,000 requests of ten kinds: 46 MB at rest, 37 after a trim.
"""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Callable
from typing import Any

from ..proxy import poller

PERIOD_S = 5.0
CONNECTIONS = 64
"""TLS connections since the last time that make a trim worth its milliseconds."""
REQUESTS = 1000
"""Requests since the last time that make one worth it, once there are no more."""
LATER = 12
"""Periods after which another follows, for those that closed in the meantime."""

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
"""Of mallopt(3): <malloc.h>."""
FROM_SYSTEM = 1 << 20
"""Octets of a piece that is got from the system, and given back, by itself."""
KEPT = 4 << 20
"""Free octets at the end of the heap above which they are given back."""


def settle(option: Callable[[int, int], Any] = poller.mallopt, trim: Callable[[], Any] = poller.malloc_trim) -> None:
    """After the start: what is there now stays, so the collector need not look at it again each time; what reading
    programs and manifests left behind goes back, 1 to 3 MB.

    And glibc keeps some of what is freed. By default it gives the end of its heap back as soon as 128 to 512 KiB of it
    are free, and gets pieces as large as what a full socket is read into from the system one by one: for large bodies,
    nearly every read had its pages zeroed anew. Measured with 1 MiB bodies: 2.4 times the processor time of one L7 hop,
    1.4 times that of a pair with mutual TLS. A C library without mallopt(3) is left as it is.
    """
    gc.collect()
    gc.freeze()
    trim()
    option(M_MMAP_THRESHOLD, FROM_SYSTEM)
    option(M_TRIM_THRESHOLD, KEPT)


class Tidy:
    """`made()` counts TLS connections, `did()` requests and connections that have ended."""

    def __init__(
        self,
        made: Callable[[], int],
        trim: Callable[[], Any] = poller.malloc_trim,
        period_s: float = PERIOD_S,
        did: Callable[[], int] = int,
    ) -> None:
        self._made = made
        self._did = did
        self._done = 0
        """What `did` said at the last look, and at the last trim."""
        self._tidied = 0
        self._trim = trim
        self._period_s = period_s
        self._seen = 0
        self._periods = 0
        """Since there were many new connections."""
        self._timer: asyncio.TimerHandle | None = None
        self.trims = 0

    def start(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._period_s, self._look)

    def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self.start()
        made, self._periods = self._made(), self._periods + 1
        done, before = self._did(), self._done
        self._done = done
        quiet = done == before and done - self._tidied >= REQUESTS
        if quiet:
            self._tidied = done
        elif made - self._seen >= CONNECTIONS:
            self._seen, self._periods = made, 0
        elif not self.trims or not (self._periods == 1 or self._periods % LATER == 0):
            return
        self.trims += 1
        asyncio.get_running_loop().run_in_executor(None, self._trim)
