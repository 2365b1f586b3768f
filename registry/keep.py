"""Shell: the last contribution of a source on disk, for a cold start while the source does not answer.

A line of JSON for what it is, then a line for each service and each few workloads. Written by a thread, a few lines at
a time, so that traffic and queries go on; of changes that come meanwhile the last counts.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping
from itertools import chain, islice
from pathlib import Path

import msgspec

from .model import Endpoint, Facts, Service, Workload
from .shards import sharded

FORMAT = 2
WORKLOADS_A_LINE = 100
PAUSE_S, SHARE = 0.02, 10
"""Between two writes at least, and so many times as long as the last one took: a process that is killed has lost no
more than the changes of that time."""
_Services = dict[str, Service]
_Endpoints = dict[str, tuple[Endpoint, ...]]
_Workloads = dict[str, Workload]
logger = logging.getLogger("fairlead.registry")


class _Head(msgspec.Struct):
    format: int
    saved_at: float
    namespaces: Mapping[str, Mapping[str, str]]


class _Line(msgspec.Struct, omit_defaults=True):
    service: Service | None = None
    host: str = ""
    endpoints: tuple[Endpoint, ...] | None = None
    workloads: list[Workload] = []


class Keep:
    """One file for one source, replaced as a whole, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._wanted: tuple[Facts, float] | None = None
        self._writing: asyncio.Task[None] | None = None
        self._one_at_a_time = threading.Lock()

    def load(self) -> tuple[Facts, float] | None:
        """(facts, Unix seconds of saving); None: nothing there that can be used, with the reason logged."""
        try:
            with self.path.open("rb") as file:
                head = msgspec.json.decode(file.readline(), type=_Head)
                if head.format != FORMAT:
                    logger.warning("%s is of format %d, not %d: not used", self.path, head.format, FORMAT)
                    return None
                read_in: tuple[_Services, _Endpoints, _Workloads] = ({}, {}, {})
                read = msgspec.json.Decoder(_Line).decode
                complete = False
                for line in file:
                    if line == b"{}\n":
                        complete = True
                        break
                    _take(read_in, read(line))
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            logger.warning("%s cannot be used: %s", self.path, error)
            return None
        if not complete:
            logger.warning("%s cannot be used: its end is missing", self.path)
            return None
        services, endpoints, workloads = read_in
        facts = Facts(sharded(services), sharded(endpoints), sharded(workloads), head.namespaces)
        return facts, head.saved_at

    def save(self, facts: Facts, now: float) -> None:
        """Errors are logged; what was saved before stays. Within a running loop it is done by a thread, soon."""
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            self._write(facts, now)
            return
        self._wanted = (facts, now)
        if self._writing is None:
            self._writing = loop.create_task(self._write_wanted())

    async def _write_wanted(self) -> None:
        try:
            while self._wanted is not None:
                wanted, self._wanted = self._wanted, None
                began = time.monotonic()
                await asyncio.to_thread(self._write, *wanted)
                if self._wanted is not None:
                    await asyncio.sleep(max(PAUSE_S, SHARE * (time.monotonic() - began)))
        finally:
            self._writing = None
            if self._wanted is not None:  # the role ends
                self._write(*self._wanted)

    def _write(self, facts: Facts, now: float) -> None:
        with self._one_at_a_time:
            self._write_alone(facts, now)

    def _write_alone(self, facts: Facts, now: float) -> None:
        draft = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                for line in _lines(facts, now):
                    file.write(line)
            draft.replace(self.path)
        except OSError as error:
            logger.error("%s could not be written: %s", self.path, error)


def _lines(facts: Facts, now: float) -> Iterator[bytes]:
    encode = msgspec.json.encode
    yield encode(_Head(FORMAT, now, dict(facts.namespaces.items()))) + b"\n"
    for host in dict.fromkeys(chain(facts.services, facts.endpoints)):
        yield encode(_Line(facts.services.get(host), host, facts.endpoints.get(host))) + b"\n"
    workloads = iter(facts.workloads.values())
    while some := list(islice(workloads, WORKLOADS_A_LINE)):
        yield encode(_Line(workloads=some)) + b"\n"
    yield b"{}\n"


def _take(tables: tuple[_Services, _Endpoints, _Workloads], line: _Line) -> None:
    services, endpoints, workloads = tables
    if line.service is not None:
        services[line.host] = line.service
    if line.endpoints is not None:
        endpoints[line.host] = line.endpoints
    for workload in line.workloads:
        workloads[workload.key] = workload
