"""Shell: the embedded store: SQLite with a write-ahead log, one writer thread, commits of many writes at once.

`synchronous=FULL`: a write is answered after its bytes are on the disk. Reads come from memory and go on when the disk
is full. A lock file keeps a second process from the same store.
"""

from __future__ import annotations

import asyncio
import fcntl
import logging
import os
import sqlite3
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from .store import (
    LOG_AGE_S,
    LOG_ENTRIES,
    UNKNOWN,
    Cause,
    Change,
    Key,
    Log,
    Objects,
    Stored,
    StoreError,
    StoreFullError,
    Write,
    is_internal,
)

FORMAT = 1
BATCH_MAX = 500
"""Most groups of writes in one commit."""
SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS objects (
    resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL, version INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (resource, namespace, name));
CREATE TABLE IF NOT EXISTS log (
    revision INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    before_version INTEGER NOT NULL, before_body BLOB, after_body BLOB,
    at REAL NOT NULL DEFAULT 0, author TEXT NOT NULL DEFAULT '', reason TEXT NOT NULL DEFAULT '');
"""
CAUSES = ("at REAL NOT NULL DEFAULT 0", "author TEXT NOT NULL DEFAULT ''", "reason TEXT NOT NULL DEFAULT ''")
"""Columns of the log that stores made before history was kept do not have."""
logger = logging.getLogger("fairlead.store")


class SqliteStore:
    """`await SqliteStore.open(path)`, then `write`; reads through `memory`."""

    shared = False

    def __init__(
        self, path: Path, *, log_entries: int = LOG_ENTRIES, log_age_s: float = LOG_AGE_S, pages_max: int = 0
    ) -> None:
        self.path = path
        self.url = f"sqlite:{path}"
        self.memory = Objects()
        self._log_entries = log_entries
        self._log_age_s = log_age_s
        self._pages_max = pages_max
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fairlead-store")
        self._database: sqlite3.Connection | None = None
        self._lock_file = -1
        self._floor = 0
        """Of the log on disk; only the thread touches it after opening."""
        self._queue: list[tuple[Sequence[Write], Cause, asyncio.Future[list[Change]]]] = []
        self._committing: asyncio.Task[None] | None = None
        self._problem = ""
        self._closed = False

    @classmethod
    async def open(
        cls,
        path: str | Path,
        *,
        log_entries: int = LOG_ENTRIES,
        log_age_s: float = LOG_AGE_S,
        pages_max: int = 0,
    ) -> SqliteStore:
        """Open or make the store. `pages_max` bounds its size in 4 KiB pages (0: the disk does). Raises StoreError."""
        store = cls(Path(path), log_entries=log_entries, log_age_s=log_age_s, pages_max=pages_max)
        try:
            await asyncio.get_running_loop().run_in_executor(store._thread, store._open)
        except BaseException:
            store._release()
            raise
        return store

    def _open(self) -> None:
        self.lock()
        try:
            self._load(sqlite3.connect(self.path, isolation_level=None, check_same_thread=False))
        except sqlite3.Error as error:
            raise StoreError(f"store {self.path}: {error}; restore it from a backup, or move it away") from error

    def lock(self) -> None:
        """Keep other processes out until `close`, whatever the file holds. Raises StoreError."""
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._lock_file = os.open(f"{self.path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            os.close(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600))  # readable for us alone
        except OSError as error:
            raise StoreError(f"store {self.path}: {error.strerror or error}") from error
        try:
            fcntl.flock(self._lock_file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise StoreError(f"store {self.path}: another process has it open; give each control its own") from None

    def _load(self, database: sqlite3.Connection) -> None:
        self._database = database
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        if self._pages_max:
            database.execute(f"PRAGMA max_page_count={int(self._pages_max)}")
        database.executescript(SCHEMA)
        meta = dict(database.execute("SELECT name, value FROM meta"))
        if meta.get("format", FORMAT) != FORMAT:
            raise StoreError(f"store {self.path}: written by another version of Fairlead (format {meta['format']})")
        database.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (FORMAT,))
        has = {row[1] for row in database.execute("PRAGMA table_info(log)")}
        for column in CAUSES:
            if column.partition(" ")[0] not in has:
                database.execute(f"ALTER TABLE log ADD COLUMN {column}")
        self.read(database)

    def read(self, database: sqlite3.Connection) -> None:
        """Everything in a store file, into memory. Raises sqlite3.Error."""
        meta = dict(database.execute("SELECT name, value FROM meta"))
        self._floor = meta.get("floor", 0)
        log = Log(self._floor, self._log_entries, age_max_s=self._log_age_s)
        for revision, resource, namespace, name, before_version, before_body, after_body, *cause in database.execute(
            "SELECT revision, resource, namespace, name, before_version, before_body, after_body, author, reason, at "
            "FROM log WHERE revision > ? ORDER BY revision",
            (self._floor,),
        ):
            key = Key(resource, namespace, name)
            before = Stored(key, before_version, before_body) if before_body is not None else None
            after = Stored(key, revision, after_body) if after_body is not None else None
            log.append(Change(revision, key, before, after, Cause(*cause)))
        self.memory = Objects(meta.get("revision", 0), log)
        self.memory.load(
            Stored(Key(resource, namespace, name), version, body)
            for resource, namespace, name, version, body in database.execute(
                "SELECT resource, namespace, name, version, body FROM objects"
            )
        )

    def fill(self, revision: int, objects: Sequence[Stored], floor: int, changes: Sequence[Change]) -> None:
        """Put a whole store into this one, which is empty; in the caller's thread. Raises StoreError."""
        database = self._database
        assert database is not None
        try:
            database.execute("BEGIN IMMEDIATE")
            database.executemany(
                "INSERT INTO objects VALUES (?,?,?,?,?)", ((*one.key, one.version, one.body) for one in objects)
            )
            for change in changes:
                self._log(database, change)
            database.execute("INSERT OR REPLACE INTO meta VALUES ('revision', ?)", (revision,))
            database.execute("INSERT OR REPLACE INTO meta VALUES ('floor', ?)", (floor,))
            database.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._explain(error) from error

    async def write(self, writes: Sequence[Write], cause: Cause = UNKNOWN) -> list[Change]:
        """All or nothing; durable when it returns. Raises ConflictError, StoreFullError, StoreError."""
        if self._closed:
            raise StoreError("the store is closed")
        loop = asyncio.get_running_loop()
        future: asyncio.Future[list[Change]] = loop.create_future()
        self._queue.append((writes, Cause(cause.author, cause.reason, cause.at or time.time()), future))
        if self._committing is None or self._committing.done():
            self._committing = loop.create_task(self._drain())
        return await future

    async def _drain(self) -> None:
        """Commit what waits, all that has come meanwhile in one transaction, until nothing waits."""
        while self._queue:
            batch, self._queue = self._queue[:BATCH_MAX], self._queue[BATCH_MAX:]
            planned: list[tuple[asyncio.Future[list[Change]], list[Change]]] = []
            refused: list[tuple[asyncio.Future[list[Change]], StoreError]] = []
            everything: list[Change] = []
            for writes, cause, future in batch:
                if future.cancelled():
                    continue  # nobody waits any more, and nothing has been promised
                try:
                    changes = self.memory.plan(writes, everything, cause)
                except StoreError as error:
                    refused.append((future, error))
                except Exception as error:
                    refused.append((future, StoreError(f"the object cannot be stored: {error}")))
                else:
                    everything += changes
                    planned.append((future, changes))
            failure = await self._take(everything) if everything else None
            for future, changes in planned:
                if future.done():
                    continue  # its writer was cancelled meanwhile
                if failure is not None:
                    future.set_exception(failure)
                else:
                    future.set_result(changes)
            # Told only now, when whoever tries again reads what it was in conflict with.
            for future, why in refused:
                if not future.done():
                    future.set_exception(why)

    async def _take(self, changes: list[Change]) -> StoreError | None:
        """Commit to the disk, then to memory; what went wrong."""
        try:
            await asyncio.get_running_loop().run_in_executor(self._thread, self._commit, changes)
        except Exception as error:
            told = error if isinstance(error, StoreError) else StoreError(f"store {self.path}: {error}")
            self._fail(told)
            return told
        self._recovered()
        try:
            self.memory.commit(changes)
        except Exception:
            logger.exception("a subscriber of the store failed")
        return None

    def _commit(self, changes: list[Change]) -> None:
        """In the thread: one transaction; raises StoreError with nothing changed."""
        database = self._database
        assert database is not None
        revision = changes[-1].revision
        try:
            database.execute("BEGIN IMMEDIATE")
            for change in changes:
                if change.after is None:
                    database.execute("DELETE FROM objects WHERE resource=? AND namespace=? AND name=?", change.key)
                else:
                    database.execute(
                        "INSERT OR REPLACE INTO objects VALUES (?,?,?,?,?)",
                        (*change.key, change.revision, change.after.body),
                    )
                if is_internal(change.key.resource):
                    continue
                self._log(database, change)
            database.execute("INSERT OR REPLACE INTO meta VALUES ('revision', ?)", (revision,))
            if self.memory.log.floor > self._floor:  # what memory has forgotten, forget here
                database.execute("DELETE FROM log WHERE revision <= ?", (self.memory.log.floor,))
                database.execute("INSERT OR REPLACE INTO meta VALUES ('floor', ?)", (self.memory.log.floor,))
            database.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._explain(error) from error
        except Exception:  # a text that is none in UTF-8: what is begun must not stay open, or nothing can be written
            self._roll_back()
            raise
        self._floor = self.memory.log.floor

    def _log(self, database: sqlite3.Connection, change: Change) -> None:
        before, after, cause = change.before, change.after, change.cause
        database.execute(
            "INSERT INTO log (revision, resource, namespace, name, before_version, before_body, after_body, at, "
            "author, reason) VALUES (?,?,?,?,?,?,?,?,?,?)",
            (change.revision, *change.key, before.version if before else 0, before.body if before else None,
             after.body if after else None, cause.at, cause.author, cause.reason),
        )  # fmt: skip

    def _roll_back(self) -> None:
        assert self._database is not None
        try:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")
        except sqlite3.Error as error:
            logger.error("store %s: roll back: %s", self.path, error)

    def _explain(self, error: sqlite3.Error) -> StoreError:
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code == sqlite3.SQLITE_FULL:
            return StoreFullError(
                f"the disk under {self.path.parent} is full: nothing was changed; free some space there and try again"
            )
        return StoreError(f"store {self.path}: {error}; nothing was changed")

    def _fail(self, error: StoreError) -> None:
        if not self._problem:
            logger.error("%s", error)
        self._problem = str(error)

    def _recovered(self) -> None:
        if self._problem:
            logger.info("store %s can be written again", self.path)
        self._problem = ""

    async def sync(self) -> None:
        """Nobody else writes to the file: memory always has everything."""

    def problem(self) -> str:
        """Why the last write failed for want of storage; empty: it did not."""
        return self._problem

    async def probe(self) -> str:
        """Where the last write failed: try a small one. The problem, empty: none."""
        if self._problem and not self._closed:
            try:
                await asyncio.get_running_loop().run_in_executor(self._thread, self._probe)
                self._recovered()
            except StoreError as error:
                self._problem = str(error)
        return self._problem

    def _probe(self) -> None:
        assert self._database is not None
        try:
            self._database.execute("BEGIN IMMEDIATE")
            self._database.execute("CREATE TABLE probe (filler BLOB)")
            self._database.execute("INSERT INTO probe VALUES (zeroblob(1048576))")
            self._database.execute("DROP TABLE probe")
            self._database.execute("COMMIT")
        except sqlite3.Error as error:
            self._roll_back()
            raise self._explain(error) from error

    async def close(self) -> None:
        """Finish what was accepted for writing, then close the files."""
        if self._closed:
            return
        self._closed = True
        if self._committing is not None:
            await self._committing
        await asyncio.get_running_loop().run_in_executor(self._thread, self._close_database)
        self._release()

    def _close_database(self) -> None:
        if self._database is not None:
            self._database.close()
            self._database = None

    def _release(self) -> None:
        self._thread.submit(self._close_database)
        self._thread.shutdown(wait=True)
        if self._lock_file >= 0:
            os.close(self._lock_file)
            self._lock_file = -1
