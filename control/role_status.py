"""Shell: writes into objects what sidecars took or refused and which resources contradict each other; ages events out.

Everything that happens within `PAUSE_S` is one look and one write to the store. All resources are looked at together
in a thread, and so seldom that it takes no more than a twentieth of the time.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..registry.snapshot import Snapshot
from .audit import seconds_timestamp
from .catalog import Catalog
from .conditions import Findings, Seat, number_of
from .events import event_write, outdated
from .feed_server import FeedServer, Member
from .managed_fields import after_update
from .push import Book
from .reconciler import Reconciler, StatusWrite
from .relations import Relations
from .store import Change, ConflictError, Key, Store, StoreError, Write

PAUSE_S = 0.25
TOGETHER_MOST = 50
"""Statuses in one write: with their events they fit into one transaction of a shared store."""
WORK_SHARE, PAUSE_S_MAX = 20, 2.0
"""While very many objects change, statuses wait for so many times as long as they took to be made the last time: then
what an object went through meanwhile is one status."""
FAULT_PAUSE_S = 5.0
LOOK_S_LEAST = 1.0
LOOK_SHARE = 20
"""After a look at all resources nobody looks again for so many times its length."""
RETRY_S = 5.0
"""After a write that the store could not do."""
SWEEP_S = 60.0
SWEEP_MOST = 500
MANAGER = "fairlead-control"
CHANGED = ("metadata", "status")
logger = logging.getLogger("fairlead.status")


def seats(members: Iterable[Member], epoch: str) -> list[Seat]:
    """The sidecars among those that are connected to the feed."""
    return [
        Seat(f"{one.namespace}/{one.workload}", number_of(one.taken, epoch), number_of(one.refused, epoch),
             tuple(one.reasons))
        for one in members
        if one.role in ("sidecar", "gateway")
    ]  # fmt: skip


class StatusWriter:
    """One per control plane. `rules` and `snapshot` give what is in force now; `run` is its work."""

    def __init__(
        self, store: Store, catalog: Catalog, book: Book, feed: FeedServer,
        rules: Callable[[], Mapping[str, dict[str, Any]]], snapshot: Callable[[], Snapshot],
        clock: Callable[[], float] = time.time, leads: Callable[[], bool] = lambda: True,
        elsewhere: Callable[[], Sequence[Seat]] = tuple,
    ) -> None:  # fmt: skip
        """`leads`: whether it is ours to write, of several control planes; `elsewhere`: sidecars of the others."""
        self._leads, self._elsewhere = leads, elsewhere
        self._led = True
        self._sweep_at = 0.0
        self._store, self._catalog, self._book, self._feed = store, catalog, book, feed
        self._rules, self._snapshot, self._clock = rules, snapshot, clock
        self.reconciler = Reconciler(store.memory, catalog, clock())
        self._relations = Relations()
        self._looked: tuple[Any, Any] = (None, None)
        """The rules and the snapshot of the last look."""
        self._look_at = 0.0
        self._worked_s = 0.0
        """How long the statuses of the last time took to be made."""
        self._wake = feed.hear()
        self._unsubscribe = store.memory.subscribe(self._take)
        self.written = 0
        """Statuses written so far."""

    def close(self) -> None:
        self._unsubscribe()
        self._feed.deafen(self._wake)

    def _take(self, changes: Sequence[Change]) -> None:
        if self.reconciler.take(changes, self._clock()):
            self._wake.set()

    async def run(self) -> None:
        """Until cancelled. A store that cannot be written is tried again."""
        self._wake.set()
        while True:
            try:
                async with asyncio.timeout(PAUSE_S * 2 if not self.reconciler.is_idle else LOOK_S_LEAST):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            await asyncio.sleep(max(PAUSE_S, min(self._worked_s * WORK_SHARE, PAUSE_S_MAX)))
            try:
                await self._work()
            except Exception:  # what is shown of rules must never end what serves them
                logger.exception("statuses are not written; they are tried again")
                await asyncio.sleep(FAULT_PAUSE_S)

    async def _work(self) -> None:
        if not self._leads():
            self._led = False
            self.reconciler.pending.clear()
            return
        if not self._led:  # whoever wrote before may have left something undone
            self._led, self._looked = True, (None, None)
            self.reconciler = Reconciler(self._store.memory, self._catalog, self._clock())
        await self._look()
        if self.reconciler.unseen and self._seats():
            self.reconciler.sidecars_are_there(self._clock())
        if not self.reconciler.is_idle:
            await self._write()
        if self._clock() >= self._sweep_at:
            self._sweep_at = self._clock() + SWEEP_S
            await self._try(outdated(self._store.memory, self._clock(), SWEEP_MOST))

    async def _look(self) -> None:
        """Look at all resources together, where anything has changed and it is time."""
        rules, snapshot = self._rules(), self._snapshot()
        if (rules is self._looked[0] and snapshot is self._looked[1]) or time.monotonic() < self._look_at:
            return
        begun = time.monotonic()
        try:
            found: dict[Key, Findings] = await asyncio.to_thread(self._relations.look, rules, snapshot)
        except Exception:
            logger.exception("what resources make of each other is not told")
            found = {}
        self._looked = (rules, snapshot)
        now = time.monotonic()
        self._look_at = now + max(LOOK_S_LEAST, (now - begun) * LOOK_SHARE)
        self.reconciler.take_findings(found)

    def _seats(self) -> list[Seat]:
        return [*seats(self._feed.members.values(), self._book.epoch), *self._elsewhere()]

    async def _write(self) -> None:
        now, begun = self._clock(), time.thread_time()
        tasks = self.reconciler.work(self._seats(), self._book.number, now)
        writes = {task.stored.key: self._writes_of(task, now) for task in tasks}
        self._worked_s = time.thread_time() - begun
        for start in range(0, len(tasks), TOGETHER_MOST):
            for task in await self._try_all(tasks[start : start + TOGETHER_MOST], writes):
                self.reconciler.failed(task.stored.key, now)

    def _writes_of(self, task: StatusWrite, now: float) -> list[Write]:
        """The object with its status, and its events."""
        key, before = task.stored.key, task.stored.object()
        resource = self._catalog.by_name[key.resource]
        after = {**before, "metadata": dict(before["metadata"]), "status": task.status}
        owner = (MANAGER, "Update", "status")
        # Of the rest nothing changes, and nobody's fields need be looked for there.
        old = {name: value for name, value in before.items() if name in CHANGED}
        new = {name: value for name, value in after.items() if name in CHANGED}
        after_update(old, new, key.resource, owner, resource.api_version(), seconds_timestamp(now))
        writes = [Write(key, after, task.stored.version)]
        for notice in task.notices:
            writes.append(
                event_write(
                    self._store.memory, task.stored, resource.api_version(), resource.kind, notice.type, notice.reason,
                    notice.message, now, secrets.token_bytes(16),
                )
            )  # fmt: skip
        return writes

    async def _try_all(self, tasks: list[StatusWrite], writes: Mapping[Key, list[Write]]) -> list[StatusWrite]:
        """Write all at once, without those whose objects somebody else has changed meanwhile; these."""
        left = list(tasks)
        failed: list[StatusWrite] = []
        while left:
            try:
                await self._store.write([write for task in left for write in writes[task.stored.key]])
                self.written += len(left)
                return failed
            except ConflictError as error:
                lost = [task for task in left if error.key == task.stored.key] or left
                failed += lost
                left = [task for task in left if task not in lost]
            except StoreError as error:
                logger.warning("status not written: %s", error)
                await asyncio.sleep(RETRY_S)
                return [*failed, *left]
        return failed

    async def _try(self, writes: list[Write]) -> None:
        if writes:
            try:
                await self._store.write(writes)
            except StoreError as error:
                logger.warning("events of the past not removed: %s", error)
