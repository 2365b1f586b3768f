"""Shell: one of several workers that serve the same addresses: a sidecar that is told everything by its supervisor."""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import pickle
import select
import socket
import ssl
import stat
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import msgspec

from ..policy.world import Loader, World
from ..proxy.cluster import LiveCluster
from ..proxy.sockets import Inherited
from ..registry.documents import Document
from ..registry.model import Workload
from . import worker_link as say
from .contexts import Material
from .handover import Channel
from .identity import IdentityError
from .memory import settle
from .revocations import Revoked
from .shared_counts import SharedCounts, size
from .sidecar import DRAIN_IDLE_S, Sidecar
from .update import FeedMessage, Holdings, RefusedError, build_world

CONDITION_S = 1.0
"""How often a worker looks at how it is, besides at once when its listeners change."""
DOCUMENT = "document/"
"""Items of a supervisor that reads manifests: their documents, in the order of their keys."""
logger = logging.getLogger("fairlead.worker")


class Written(msgspec.Struct):
    """A document of a manifest as it travels."""

    source: str
    namespace: str
    body: dict[str, Any]


def items_of(documents: list[Document]) -> dict[str, bytes]:
    """Documents as items."""
    encode = msgspec.json.encode
    return {
        f"{DOCUMENT}{number:08d}": encode(Written(document.source, document.namespace, document.body))
        for number, document in enumerate(documents)
    }


def pieces(lines: bytes, most: int) -> Iterator[bytes]:
    """Whole lines, as many at a time as fit into `most` bytes; a longer line alone."""
    begin = 0
    while begin < len(lines):
        end = len(lines) if len(lines) - begin <= most else lines.rfind(b"\n", begin, begin + most) + 1
        if end <= begin:
            end = lines.find(b"\n", begin) + 1 or len(lines)
        yield lines[begin:end]
        begin = end


def difference(version: str, before: Mapping[str, bytes], now: Mapping[str, bytes]) -> bytes:
    """The line that makes a copy of `now` out of one of `before`."""
    changed = {key: msgspec.Raw(value) for key, value in now.items() if before.get(key) != value}
    gone = [key for key in before if key not in now]
    return msgspec.json.encode(FeedMessage(version, not before, changed, gone))


class Copy:
    """The supervisor's world, made again from its items: of control's feed, or documents of manifests."""

    def __init__(self) -> None:
        self._holdings = Holdings(partial(build_world, loader=Loader()))
        self._documents: dict[str, Document] = {}
        self._loader = Loader()

    def world(self, line: bytes) -> World:
        """The world after one more line. Raises RefusedError."""
        message = msgspec.json.decode(line, type=FeedMessage)
        written = [key for key in (*message.set, *message.remove) if key.startswith(DOCUMENT)]
        if not written and not self._documents:
            self._holdings.apply(line)
            return self._holdings.world()
        for key in message.remove:
            self._documents.pop(key, None)
        for key, value in message.set.items():
            made = msgspec.json.decode(value, type=Written)
            self._documents[key] = Document.of(made.body, made.source, made.namespace)
        world, _ = self._loader.load([self._documents[key] for key in sorted(self._documents)])
        return world  # what is wrong with single documents is the supervisor's to tell


class Worker:
    def __init__(self, memory_descriptor: int, sockets_descriptor: int) -> None:
        self._memory_descriptor = memory_descriptor
        self._channel = Channel(socket.socket(fileno=sockets_descriptor))
        self._inherited: list[Inherited] = []
        self._link = say.Link(say.Down, self._heard, self._gone)
        self._sidecar: WorkerSidecar | None = None
        self._copy = Copy()
        self._begin: say.Begin | None = None
        self._ending = asyncio.Event()
        self._drain_s = 0.0
        """Longest drain once `_ending` is set."""
        self._idle_s = DRAIN_IDLE_S
        self._started: asyncio.Task[None] | None = None
        self._served: asyncio.Task[None] | None = None
        self._offering: asyncio.Task[None] | None = None

    async def run(self, descriptor: int) -> int:
        """Serve until told to end, or until the supervisor is gone; the exit code."""
        pair = socket.socket(fileno=descriptor)
        pair.setblocking(False)
        self._inherited, _ = await self._channel.receive_sockets()
        await asyncio.get_running_loop().create_unix_connection(lambda: self._link, sock=pair)
        await self._ending.wait()
        code = 0
        if self._started is not None:
            await asyncio.gather(self._started, return_exceptions=True)
            code = 1 if self._started.exception() is not None else 0
        sidecar = self._sidecar
        if sidecar is not None and sidecar.engine is not None:
            if self._drain_s and not code:
                whole = await sidecar.drain(self._drain_s, self._idle_s)
                self._link.send(say.Drained(whole, sidecar.cut))
            await sidecar.close()
        self._link.close()
        return code

    # --- from the supervisor

    def _heard(self, message: Any) -> None:
        sidecar = self._sidecar
        if isinstance(message, say.Begin):
            self._set_up(message)
            return
        assert sidecar is not None
        if isinstance(message, say.Certificate):
            self._take(message)
        elif isinstance(message, say.Revocations):
            sidecar.contexts.revoke(Revoked(message.items))
        elif isinstance(message, say.Items):
            self._update(message)
        elif isinstance(message, say.Ask) and message.what == "sockets":
            self._offering = asyncio.get_running_loop().create_task(self._offer())
        elif isinstance(message, say.Ask):
            self._link.send(say.Told(message.number, sidecar.tell(message.what)))
        elif isinstance(message, say.Ejection):
            sidecar.take_ejection(message)
        elif isinstance(message, say.AppUnready):
            sidecar.told = message.told
            sidecar.app_is_unready(message.why)
        elif isinstance(message, say.ReopenLog):
            sidecar.reopen_log()
        elif isinstance(message, say.Leave):
            sidecar.leave()
        elif isinstance(message, say.Drain):
            if message.served_only:
                self._served = asyncio.get_running_loop().create_task(self._drain_served(message.deadline_s))
            else:
                self._idle_s = message.idle_s
                self._end(message.deadline_s)
        elif isinstance(message, say.End):
            self._end(0.0)

    def _set_up(self, begin: say.Begin) -> None:
        self._begin = begin
        memory = memoryview(mmap.mmap(self._memory_descriptor, size(begin.workers)))
        counts = SharedCounts(memory, begin.workers, begin.number, self._tell_ejection)
        self._sidecar = WorkerSidecar(pickle.loads(begin.options), counts, self._link)
        self._sidecar.sockets.give(self._inherited)

    def _take(self, message: say.Certificate) -> None:
        assert self._sidecar is not None
        try:
            self._sidecar.contexts.take(
                Material(message.certificates, message.key, message.roots, message.issued, message.ends)
            )
        except (IdentityError, ssl.SSLError) as error:  # the supervisor has taken it: this is a fault of ours
            self._link.send(say.Refused([f"certificate: {error}"]))
        else:
            self._link.send(say.Trusting(message.roots))

    def _update(self, message: say.Items) -> None:
        sidecar = self._sidecar
        assert sidecar is not None
        sidecar.counts.places = message.places
        sidecar.counts.bucket_places = message.buckets
        try:
            sidecar.update(self._copy.world(message.line))
        except RefusedError as error:
            self._link.send(say.Refused(error.reasons))
            return
        except Exception as error:
            logger.exception("a version cannot be put in force for a fault of ours")
            self._link.send(say.Refused([f"{type(error).__name__}: {error}"]))
            return
        self._link.send(say.Refused([]))
        sidecar.listen_to(message.listen)
        sidecar.tell_condition()
        if self._started is None:
            self._started = asyncio.get_running_loop().create_task(self._start())

    async def _start(self) -> None:
        assert self._sidecar is not None
        try:
            await self._sidecar.start()
            await self._sidecar.listened()
        except OSError as error:
            self._link.send(say.Listening(str(error)))
            self._end(0.0)
            raise
        settle()
        self._sidecar.watch_condition()
        self._sidecar.sockets.close_spare()
        self._link.send(say.Listening())

    async def _offer(self) -> None:
        """Copies of our listening sockets to the supervisor, for a successor."""
        assert self._sidecar is not None
        inherited, _ = await self._sidecar.offer()
        try:
            await self._channel.send_sockets(inherited)
        finally:
            for _, sock in inherited:
                sock.close()

    async def _drain_served(self, deadline_s: float) -> None:
        assert self._sidecar is not None
        self._link.send(say.Drained(await self._sidecar.drain_served(deadline_s), served_only=True))

    def _end(self, drain_s: float) -> None:
        self._drain_s = drain_s
        self._ending.set()

    def _gone(self) -> None:
        if not self._ending.is_set():
            logger.warning("the supervisor is gone: draining")
            self._end(self._begin.drain_s if self._begin is not None else 0.0)

    # --- to the supervisor

    def _tell_ejection(self, cluster: str, host: str, until: float, ejections: int, why: str) -> None:
        self._link.send(say.Ejection(cluster, host, until, ejections, why))


class WorkerSidecar(Sidecar):
    """A sidecar without ports of its own, which shares its listening addresses and its counts."""

    def __init__(self, options: Any, counts: SharedCounts, link: say.Link) -> None:
        super().__init__(options)
        self.sockets.reuse_port = True
        self.counts = counts
        self._link = link
        self._ejections: dict[tuple[str, str], say.Ejection] = {}
        """Of the others, for clusters whose pool is made later."""
        self._condition: say.Condition | None = None
        """As last told."""
        self._used: set[str] = set()
        """Services that the supervisor knows to be in use."""
        self.missing = self._ask
        self._timer: asyncio.TimerHandle | None = None

    def update(self, world: World) -> None:
        first = self.engine is None
        super().update(world)
        if first and self.engine is not None:
            self.engine.share = self._share
            self.engine.share_limits(self.counts.cell_of)
            if self.gateway is not None:
                self.gateway.on_change = self.tell_condition

    def _take_checks(self, workload: Workload) -> None:
        """The supervisor does."""

    def _share(self, live: LiveCluster) -> None:
        self.counts.share(live)
        if self._ejections and self.engine is not None:
            now = self.engine.clock()
            for key, known in list(self._ejections.items()):
                if known.until <= now:
                    del self._ejections[key]
                elif known.cluster == live.config.name:
                    live.take_ejection(known.host, known.until, known.ejections, known.why, now)

    def take_ejection(self, told: say.Ejection) -> None:
        self._ejections[(told.cluster, told.host)] = told
        pool = self.engine.pools.get(told.cluster) if self.engine is not None else None
        if pool is not None and self.engine is not None:
            pool.live.take_ejection(told.host, told.until, told.ejections, told.why, self.engine.clock())

    def listen_to(self, wanted: list[tuple[str, int, str, int]]) -> None:
        """Loopback addresses as the supervisor has handed them out."""
        now = {(address, port): (host, number) for address, port, host, number in wanted}
        if now == self._listen_wanted:
            return
        self._listen_wanted = now
        self._listen_failures.clear()
        if self.at and self._listen_task is None:
            self._listen_task = asyncio.get_running_loop().create_task(self._listen_loopbacks())

    async def listened(self) -> None:
        """Listen on the loopback addresses that are wanted now."""
        if self._listen_wanted:
            await self._listen_loopbacks()

    def _listening_changed(self) -> None:
        failures = [(address, port, why) for (address, port), why in self._listen_failures.items()]
        self._link.send(say.NotListened(failures))

    def _write(self, lines: bytes) -> None:
        """All workers write to the same place: to a pipe only as much at a time as does not mix with others' lines."""
        if self._log_descriptor >= 0 and stat.S_ISFIFO(os.fstat(self._log_descriptor).st_mode):
            for piece in pieces(lines, select.PIPE_BUF):
                super()._write(piece)
        else:
            super()._write(lines)

    def watch_condition(self) -> None:
        """Tell how we are, now and whenever it has changed."""
        self.tell_condition()
        self._timer = asyncio.get_running_loop().call_later(CONDITION_S, self.watch_condition)

    def _ask(self, host: str) -> bool:
        snapshot = self._tables.snapshot if self._tables is not None else None
        if snapshot is None or host not in snapshot.services or host in snapshot.endpoints:
            return False
        if host not in self._used:
            self._used.add(host)
            self._link.send(say.Uses([host], True))
        return True

    def tell_condition(self) -> None:
        if new := self.in_use() - self._used:
            self._used |= new
            self._link.send(say.Uses(sorted(new)))
        now = say.Condition(
            {name: why for name, check in self.checks.items() if (why := check())},
            {name: why for name, check in self.notes.items() if (why := check())},
            {name: at for name, at in self.at.items() if name.startswith("gateway:")},
        )
        if now != self._condition:
            self._condition = now
            self._link.send(now)

    async def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        await super().close()

    def tell(self, what: str) -> bytes:
        """The body of an admin page."""
        if what == "plaintext" and self.engine is not None:
            self.engine.note_plaintext()
            return msgspec.json.encode(self.engine.plaintext.take(self.engine.clock()))
        if what == "metrics":
            return "\n".join(self.metrics.lines()).encode()
        return msgspec.json.encode(self.clusters())
