"""The storages of stores, for tests: a folder, a real etcd, a real Consul, each test below a prefix of its own."""

from __future__ import annotations

import contextlib
import itertools
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

from fairlead.control.store import Store
from fairlead.control.store_open import backend_of
from fairlead.control.store_shared import SharedStore
from fairlead.control.store_sqlite import SqliteStore
from tests.servers import DEADLINE_S, Consul, Etcd, Server

_numbers = itertools.count(1)


class Storage:
    """Where a test's store is; `open` as often as there are to be control planes."""

    def __init__(self, kind: str, url: str) -> None:
        self.kind = kind
        self.url = url

    @contextlib.asynccontextmanager
    async def open(self, **settings: Any) -> AsyncIterator[Store]:
        store: Store
        if self.kind == "sqlite":
            store = await SqliteStore.open(self.url.partition(":")[2], **settings)
        else:
            store = await SharedStore.open(backend_of(self.url, {}), **settings)
        try:
            yield store
        finally:
            await store.close()


@contextlib.contextmanager
def serving(server: Server, ready: str) -> Iterator[Server]:
    """The server, until the end of the module: its tests have a loop each. `ready` is answered when it is."""
    with (server.folder / "log").open("ab") as log:
        process = subprocess.Popen(server.command(), stdout=log, stderr=log, cwd=server.folder)
    try:
        end = time.monotonic() + DEADLINE_S
        while True:
            with contextlib.suppress(OSError):
                answer = urllib.request.urlopen(server.url + ready, timeout=1.0).read()
                if len(answer) > 4:
                    break
            assert time.monotonic() < end, (server.folder / "log").read_text()[-2000:]
            time.sleep(0.05)
        yield server
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def storages(kind: str, folder: Path) -> Iterator[Any]:
    """A function that makes a new Storage."""
    if kind == "sqlite":
        yield lambda: Storage(kind, f"sqlite:{folder}/{next(_numbers)}/store.db")
        return
    made, ready = (Etcd(folder), "/health") if kind == "etcd" else (Consul(folder), "/v1/status/leader")
    with serving(made, ready) as server:
        host = server.url.partition("://")[2]
        yield lambda: Storage(kind, f"{kind}://{host}/test-{next(_numbers)}")
