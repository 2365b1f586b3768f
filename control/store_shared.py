"""Shell: a store that several control planes share, over a key-value storage (`store_entries` says how it lies there).

A write is planned on what memory holds and committed in one transaction that also replaces the storage's head; where
another control plane was faster, its commits are read and the write is planned again. So memory is never ahead, and a
conflict is only told after looking. Whether a commit whose answer was lost happened is found out by its id.

Without the storage, memory goes on serving reads, and writes are refused. What happened meanwhile is read from the
log when it is back; where the log does not lead there (a backup was put back, too much has been forgotten),
everything is read, and watchers must list again.
Long because writing, following and finding out what became of a commit share one state, which is read best whole.
"""

from __future__ import annotations

import asyncio
import logging
import random
import secrets
import time
from collections.abc import Sequence

import msgspec

from ..registry.backoff import Backoff
from .store import (
    LOG_AGE_S,
    LOG_ENTRIES,
    UNKNOWN,
    Cause,
    Change,
    ConflictError,
    Key,
    Log,
    Objects,
    Stored,
    StoreError,
    StoreTooLargeError,
    StoreTrustError,
    StoreUnavailableError,
    Write,
    size,
)
from .store_backend import Backend
from .store_entries import (
    Entry,
    Head,
    Kept,
    State,
    changes_of,
    droppable,
    entry_of,
    kept,
    log_path,
    object_path,
    pack,
    part_path,
    state_of,
    write_entry,
)

COMMIT_S = 6.0
"""Longest time that a write waits for a storage that does not answer."""
OPEN_S = 15.0
SYNC_S = 3.0
WATCHDOG_S = 4.0
"""So often the storage is asked whether we have missed anything."""
TIDY_LEAST = 256
"""Commits to be dropped from the storage's log are gathered up to this number."""
logger = logging.getLogger("fairlead.store")


class _Gap(Exception):
    """The log does not lead from what memory holds to what is there."""


DISTRUST_MOST = 3
"""Tries of servers with which TLS does not come about; one of several may have another certificate."""


class SharedStore:
    """`await SharedStore.open(backend)`, then `write`; reads through `memory`."""

    shared = True

    def __init__(
        self,
        backend: Backend,
        *,
        log_entries: int = LOG_ENTRIES,
        log_age_s: float = LOG_AGE_S,
        commit_s: float = COMMIT_S,
    ) -> None:
        self.backend = backend
        self.url = backend.url
        self.memory = Objects()
        self._bounds = (log_entries, log_age_s)
        self._commit_s = commit_s
        self._head = Head()
        """The commit that memory is at."""
        self._entries: list[Kept] = []
        self._queue: list[tuple[Sequence[Write], Cause, asyncio.Future[list[Change]]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._tidying: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()
        self._problem = ""
        self._lost_at = 0.0
        """Since when (loop time) the storage has not answered; 0: it does."""
        self._closed = False

    @classmethod
    async def open(
        cls,
        backend: Backend,
        *,
        log_entries: int = LOG_ENTRIES,
        log_age_s: float = LOG_AGE_S,
        commit_s: float = COMMIT_S,
        open_s: float = OPEN_S,
    ) -> SharedStore:
        """Read everything, and follow from there. Raises StoreError; StoreUnavailableError after `open_s` seconds."""
        store = cls(backend, log_entries=log_entries, log_age_s=log_age_s, commit_s=commit_s)
        try:
            backoff, end = Backoff(0.1, 1.0), asyncio.get_running_loop().time() + open_s
            why, distrust = "", 0
            while True:
                try:
                    async with asyncio.timeout_at(end):
                        store._take_state(await store._load())
                    break
                except (StoreUnavailableError, TimeoutError) as error:
                    if str(error) and not why:
                        logger.warning("%s; trying for %g s", error, open_s)
                    why = str(error).removeprefix(f"store {backend.url}: ") or why
                    distrust += isinstance(error, StoreTrustError)
                    if distrust >= DISTRUST_MOST:
                        raise
                    if asyncio.get_running_loop().time() >= end:
                        told = why or f"nothing was answered within {open_s:g} s"
                        told = told if told.startswith("store ") else f"store {backend.url}: {told}"
                        raise StoreUnavailableError(f"{told}; is it running there?") from None
                    backend.next_server()
                await asyncio.sleep(backoff.pause(random.random()))
        except BaseException:
            await backend.close()
            raise
        store._following = asyncio.create_task(store._follow())
        return store

    # --- reading ----------------------------------------------------------------------------------------------------

    async def _load(self) -> State:
        head, objects, entries = await self.backend.load()
        log = Log(0, self._bounds[0], age_max_s=self._bounds[1])
        # Beside the loop: ten thousand objects take a noticeable part of a second.
        return await asyncio.to_thread(state_of, objects, entries, head, log)

    def _take_state(self, state: State) -> None:
        self._head, self._entries = state.head, state.entries
        if not self.memory.revision and not self.memory.resources():
            self.memory.load(state.objects.values())
            self.memory.revision, self.memory.log = state.head.revision, state.log
            return
        try:
            self.memory.replace(state.head.revision, state.log, state.objects)
        except Exception:
            logger.exception("a subscriber of the store failed")

    def _take(self, head: Head | None, entries: Sequence[Entry]) -> None:
        """Take commits that come after ours. Raises _Gap."""
        own = self._head
        if head is not None and (head.seq < own.seq or (head.seq == own.seq and head.id != own.id)):
            raise _Gap
        for entry in entries:
            if entry.seq <= self._head.seq:
                if entry.seq == self._head.seq and entry.id != self._head.id:
                    raise _Gap
                continue
            if entry.seq != self._head.seq + 1 or entry.previous != self._head.id:
                raise _Gap
            known: dict[Key, Stored] = {}
            for line in entry.lines:
                key = Key(line.resource, line.namespace, line.name)
                if (stored := self.memory.get(key)) is not None:
                    known[key] = stored
            self._applied(entry, changes_of(entry, known))
        if head is not None and head.seq > self._head.seq:
            raise _Gap

    def _applied(self, entry: Entry, changes: Sequence[Change]) -> None:
        """A commit is in the storage: memory takes it."""
        self._head = Head(entry.seq, entry.id, entry.revision)
        self._entries.append(kept(entry))
        if not changes:
            return
        try:
            self.memory.commit(changes)
        except Exception:
            logger.exception("a subscriber of the store failed")

    async def _reload(self) -> None:
        """Read everything, unless the log leads there from what we have. Raises StoreError."""
        async with self._reloading:
            before = self._head
            head, entries = await self.backend.head(), await self.backend.entries(before.seq - 1 if before.seq else 0)
            try:
                if before.seq and not any(one.seq == before.seq and one.id == before.id for one in entries):
                    raise _Gap
                self._take(None, entries)
                if self._head.seq < head.seq:
                    raise _Gap
            except _Gap:
                state = await self._load()
                if state.head.seq > self._head.seq or state.head.id != self._head.id:
                    logger.warning(
                        "store %s: its log does not lead from commit %d to %d; everything was read again",
                        self.url, self._head.seq, state.head.seq,
                    )  # fmt: skip
                    self._take_state(state)

    async def sync(self) -> None:
        """Return when memory has all that was in the storage when this was called. Raises StoreUnavailableError."""
        try:
            async with asyncio.timeout(SYNC_S):
                await self._catch_up()
        except TimeoutError:
            raise StoreUnavailableError(f"store {self.url}: no answer within {SYNC_S:g} s") from None

    async def _catch_up(self) -> None:
        head = await self.backend.head()
        if head.seq == self._head.seq and head.id == self._head.id:
            return
        try:
            after = self._head.seq
            self._take(head, await self.backend.entries(after) if head.seq > after else [])
        except _Gap:
            await self._reload()

    async def _follow(self) -> None:
        """Take what others commit, for ever."""
        backoff = Backoff(0.05, 2.0)
        while True:
            try:
                await self._follow_once(backoff)
            except _Gap:
                try:
                    await self._reload()
                    continue
                except StoreError as error:
                    self._lost(error)
            except StoreError as error:
                self._lost(error)
            except Exception as error:
                logger.exception("following the store failed")
                self._lost(StoreError(str(error)))
            self.backend.next_server()
            await asyncio.sleep(backoff.pause(random.random()))

    async def _follow_once(self, backoff: Backoff) -> None:
        tasks = [asyncio.create_task(self._pump(backoff)), asyncio.create_task(self._watch_over())]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            done.pop().result()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _pump(self, backoff: Backoff) -> None:
        async for head, entries in self.backend.follow(lambda: self._head.seq):
            self._take(head, entries)
            self._found()
            backoff.reset()

    async def _watch_over(self) -> None:
        """A watch that says nothing may have nothing to say, or hang: ask beside it. Raises StoreUnavailableError."""
        while True:
            await asyncio.sleep(WATCHDOG_S * random.uniform(0.75, 1.0))
            try:
                async with asyncio.timeout(SYNC_S):
                    head = await self.backend.head()
            except TimeoutError:
                raise StoreUnavailableError(f"store {self.url}: no answer within {SYNC_S:g} s") from None
            if head.seq < self._head.seq:
                raise _Gap
            await asyncio.sleep(1.0)
            if head.seq > self._head.seq:
                raise StoreUnavailableError(f"store {self.url}: its watch is behind, another server is asked")

    def _lost(self, error: StoreError) -> None:
        if not self._lost_at:
            self._lost_at = asyncio.get_running_loop().time()
            logger.warning("%s; reads and feeds go on", error)
        self._problem = str(error)

    def _found(self) -> None:
        if self._lost_at or self._problem:
            logger.info("store %s answers again", self.url)
        self._lost_at, self._problem = 0.0, ""

    # --- writing ----------------------------------------------------------------------------------------------------

    async def write(self, writes: Sequence[Write], cause: Cause = UNKNOWN) -> list[Change]:
        """All or nothing; in the storage of a majority when it returns. Raises ConflictError, StoreTooLargeError,
        StoreUnavailableError, StoreError."""
        if self._closed:
            raise StoreError("the store is closed")
        loop = asyncio.get_running_loop()
        if self._lost_at and loop.time() > self._lost_at + self._commit_s:
            raise StoreUnavailableError(
                f"store {self.url} cannot be reached since {loop.time() - self._lost_at:.0f} s ({self._problem}): "
                "nothing was changed; try again, or ask another control plane"
            )
        future: asyncio.Future[list[Change]] = loop.create_future()
        self._queue.append((writes, Cause(cause.author, cause.reason, cause.at or time.time()), future))
        if self._committing is None or self._committing.done():
            self._committing = loop.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        """Commit what waits, as much as fits in one transaction, until nothing waits."""
        while self._queue:
            batch = self._next_batch()
            try:
                await self._commit_batch(batch)
            except Exception as error:
                told = error if isinstance(error, StoreError) else StoreError(f"store {self.url}: {error}")
                if not isinstance(error, StoreError):
                    logger.exception("a commit failed")
                for _, _, future in batch:
                    if not future.done():
                        future.set_exception(told)

    def _next_batch(self) -> list[tuple[Sequence[Write], Cause, asyncio.Future[list[Change]]]]:
        """The first group of writes, whatever its size, and those after it that fit with it."""
        count = 0
        for index, (writes, _, _) in enumerate(self._queue):
            count += len(writes)
            if index and count > self.backend.writes_most - 2:
                batch, self._queue = self._queue[:index], self._queue[index:]
                return batch
        batch, self._queue = self._queue, []
        return batch

    async def _commit_batch(self, batch: list[tuple[Sequence[Write], Cause, asyncio.Future[list[Change]]]]) -> None:
        """Raises StoreUnavailableError, StoreError for all of the batch that has no answer yet."""
        looked, end = False, asyncio.get_running_loop().time() + self._commit_s
        tries = Backoff(0.002, 0.1)
        while True:
            planned: list[tuple[asyncio.Future[list[Change]], list[Change]]] = []
            refused: list[tuple[asyncio.Future[list[Change]], StoreError]] = []
            everything: list[Change] = []
            room = self.backend.bytes_most
            for index, (writes, cause, future) in enumerate(batch):
                if future.done():
                    continue  # nobody waits any more
                try:
                    changes = self._plan(writes, everything, cause)
                except StoreError as error:
                    refused.append((future, error))
                    continue
                room -= sum(size(change) for change in changes)
                if room < 0 and planned:  # for the next transaction
                    self._queue[:0] = batch[index:]
                    del batch[index:]
                    break
                everything += changes
                planned.append((future, changes))
            if not looked and any(isinstance(error, ConflictError) for _, error in refused):
                looked = True  # it may be in conflict with what we have not heard of only
                before = self._head
                await self.sync()
                if self._head != before:
                    continue
            if everything and not await self._commit(everything, end):
                if asyncio.get_running_loop().time() > end:
                    raise StoreUnavailableError(
                        f"store {self.url}: other control planes were faster for {self._commit_s:g} s: nothing was "
                        "changed; try again"
                    )
                await asyncio.sleep(tries.pause(random.random()))
                continue
            for future, changes in planned:
                if not future.done():
                    future.set_result(changes)
            for future, why in refused:
                if not future.done():
                    future.set_exception(why)
            return

    def _plan(self, writes: Sequence[Write], pending: Sequence[Change], cause: Cause) -> list[Change]:
        try:
            changes = self.memory.plan(writes, pending, cause)
        except StoreError:
            raise
        except Exception as error:
            raise StoreError(f"the object cannot be stored: {error}") from error
        for change in changes:
            if change.after is not None and len(change.after.body) > self.backend.value_most:
                found = len(pack(change.after.body))
                if found > self.backend.value_most:
                    raise StoreTooLargeError(
                        f"{change.key.resource} {change.key.namespace}/{change.key.name} is too large for store "
                        f"{self.url}: {found} bytes compressed, the limit is {self.backend.value_most}"
                    )
        return changes

    async def _commit(self, changes: list[Change], end: float) -> bool:
        """Commit to the storage and take it into memory; False: another was faster, and memory has what that did."""
        before = self._head
        last = {change.key: change.after for change in changes}
        puts = [(f"objects/{object_path(key)}", pack(one.body)) for key, one in last.items() if one is not None]
        deletes = [f"objects/{object_path(key)}" for key, one in last.items() if one is None]
        entry = entry_of(before, secrets.token_hex(8), changes)
        value, parts = write_entry(entry, self.backend.value_most)
        loose = bool(parts) or len(last) > self.backend.writes_most - 2
        if loose or len(value) + sum(len(octets) for _, octets in puts) > self.backend.bytes_most:
            loose = True
            entry = entry_of(before, entry.id, changes, loose=True)
            value, parts = write_entry(entry, self.backend.value_most)
        entry = msgspec.structs.replace(entry, parts=len(parts))
        head = Head(entry.seq, entry.id, entry.revision)
        try:
            for number, part in enumerate(parts):
                await self.backend.put(part_path(entry.id, number), part)
            now = [(f"log/{log_path(entry.seq)}", value)]
            if not await self._settle(before, head, now if loose else now + puts, [] if loose else deletes, end):
                return False
            if self._head.seq < entry.seq:  # else it came in by the watch already
                self._applied(entry, changes)
            if loose:
                await self._write_loose(list(last))
        except StoreUnavailableError as error:
            self._lost(error)
            raise
        self._found()
        self._tidy_soon()
        return True

    async def _settle(
        self, before: Head, head: Head, puts: Sequence[tuple[str, bytes]], deletes: Sequence[str], end: float
    ) -> bool:
        """Whether the commit is in the storage; tries until that is certain. Raises StoreUnavailableError."""
        loop, backoff, sent = asyncio.get_running_loop(), Backoff(0.05, 0.5), False
        while True:
            try:
                async with asyncio.timeout_at(max(end, loop.time() + 0.5)):
                    sent = True
                    if await self.backend.commit(before, head, puts, deletes):
                        return True
                    entries = await self.backend.entries(before.seq)
            except (StoreUnavailableError, TimeoutError) as error:
                self.backend.next_server()
                if loop.time() >= end:
                    raise StoreUnavailableError(
                        f"store {self.url}: {str(error) or 'no answer'}: it is not known whether the change was "
                        "written; read the object before you try again",
                        unknown=sent,
                    ) from None
                await asyncio.sleep(backoff.pause(random.random()))
                continue
            mine = any(entry.id == head.id for entry in entries)
            try:
                self._take(None, entries)
            except _Gap:
                await self._reload()
            return mine

    async def _write_loose(self, keys: Sequence[Key]) -> None:
        """Objects that did not fit into their commit's transaction; each time only if nothing has been committed since
        we looked, so that nothing newer is written over. Raises StoreUnavailableError."""
        left = list(keys)
        while left:
            chunk: list[tuple[Key, bytes]] = []
            room = self.backend.bytes_most
            while left and len(chunk) < self.backend.writes_most - 2:
                stored = self.memory.get(left[-1])
                value = pack(stored.body) if stored is not None else b""
                room -= len(value)
                if room < 0 and chunk:
                    break
                chunk.append((left.pop(), value))
            puts = [(f"objects/{object_path(key)}", value) for key, value in chunk if value]
            deletes = [f"objects/{object_path(key)}" for key, value in chunk if not value]
            if not await self.backend.commit(self._head, self._head, puts, deletes):
                left += [key for key, _ in chunk]
                await self._catch_up()

    # --- the storage's log ------------------------------------------------------------------------------------------

    def _tidy_soon(self) -> None:
        if self._tidying is not None and not self._tidying.done():
            return
        if len(self._entries) % TIDY_LEAST:
            return
        drop = droppable(self._entries, self.memory.log.floor)
        if len(drop) >= TIDY_LEAST:
            self._tidying = asyncio.create_task(self._tidy(drop))

    async def _tidy(self, drop: list[Kept]) -> None:
        """Drop commits from the storage's log that nobody needs any more."""
        try:
            for one in drop:
                if one.loose:
                    await self._write_loose(one.loose)
            await self.backend.delete([path for one in drop for path in one.paths])
            gone = {one.seq for one in drop}
            self._entries = [one for one in self._entries if one.seq not in gone]
        except StoreError as error:
            logger.warning("store %s: its log was not shortened: %s", self.url, error)

    # --- state ------------------------------------------------------------------------------------------------------

    def problem(self) -> str:
        """Why the storage cannot be reached; empty: it can."""
        return self._problem

    async def probe(self) -> str:
        """Where it could not be reached: ask again. The problem, empty: none."""
        if self._problem and not self._closed:
            try:
                await self.sync()
                self._found()
            except StoreError as error:
                self._problem = str(error)
        return self._problem

    async def close(self) -> None:
        """Finish what was accepted for writing, then leave the storage."""
        self._closed = True
        if self._committing is not None:
            await self._committing
        tasks = [task for task in (self._following, self._tidying) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.backend.close()
