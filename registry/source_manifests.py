"""Shell: manifests from files and folders, read again when they change.

Folders are looked at every half second: names, sizes and times, and only what is new is read. A file that cannot be
read keeps its last good documents, and the problem is told; the other files go on.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable, Iterable
from pathlib import Path

from .digest import blake2b
from .documents import Document, Problem, load
from .model import SourceStatus

POLL_S = 0.5
SUFFIXES = frozenset((".yaml", ".yml", ".json"))
STDIN = "-"


class Manifests:
    """`changed(documents, problems)` is called with everything after each change; `status` when readability changes."""

    name = "manifests"

    def __init__(
        self,
        paths: Iterable[str],
        changed: Callable[[list[Document], list[Problem]], None],
        status: Callable[[SourceStatus], None] | None = None,
        default_namespace: str = "default",
    ) -> None:
        self._paths = list(paths)
        self._changed = changed
        self._status = status
        self._namespace = default_namespace
        self._seen: dict[str, tuple[int, int, int]] = {}
        self._digests: dict[str, bytes] = {}
        self._good: dict[str, list[Document]] = {}
        self._problems: dict[str, list[Problem]] = {}
        self._wake = asyncio.Event() if _running() else None

    def read(self) -> bool:
        """Look once; whether anything changed (then `changed` was called)."""
        found, missing = self._files()
        news = missing != [p for p in self._problems if p in missing] or bool(
            set(self._problems) - set(found) - set(missing)
        )
        for name in [name for name in self._good if name not in found]:
            if name in missing:
                continue  # its folder or the file itself cannot be looked at just now: it keeps its documents
            del self._good[name]
            self._seen.pop(name, None)
            self._digests.pop(name, None)
            news = True
        for name in [name for name in self._problems if name not in found and name not in missing]:
            del self._problems[name]
        for name in missing:
            if name not in self._problems:
                self._problems[name] = [
                    Problem(
                        name,
                        "no such file or folder, or one that may not be looked at; what was read before stays in force",
                    )
                ]
                news = True
        for name, mark in found.items():
            if self._seen.get(name) != mark:
                self._seen[name] = mark
                news |= self._read_file(name)
        if news:
            documents = [document for name in sorted(self._good) for document in self._good[name]]
            self._changed(documents, [problem for name in sorted(self._problems) for problem in self._problems[name]])
        self._tell()
        return news

    def _files(self) -> tuple[dict[str, tuple[int, int, int]], list[str]]:
        found: dict[str, tuple[int, int, int]] = {}
        missing: list[str] = []
        for name in self._paths:
            if name == STDIN:
                found[name] = self._seen.get(name, (0, 0, 0))
                continue
            path = Path(name)
            try:
                if path.is_dir():
                    files = sorted(p for p in path.rglob("*") if p.suffix in SUFFIXES and p.is_file())
                else:
                    files = [path]
                for file in files:
                    stat = file.stat()
                    found[str(file)] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
            except OSError:
                missing.append(name)
        return found, missing

    def _read_file(self, name: str) -> bool:
        try:
            text = sys.stdin.buffer.read() if name == STDIN else Path(name).read_bytes()
        except OSError as error:
            self._problems[name] = [Problem(name, f"cannot be read: {error.strerror or error}")]
            return True
        digest = blake2b(text, digest_size=16).digest()
        if self._digests.get(name) == digest:
            return False
        self._digests[name] = digest
        documents, problems = load(text, "<stdin>" if name == STDIN else name, self._namespace)
        if problems:
            kept = "; its last good documents stay in force" if self._good.get(name) else ""
            self._problems[name] = [Problem(p.source, p.message + kept, p.path) for p in problems]
            if name not in self._good:
                self._good[name] = documents  # the first time: what could be read of it
        else:
            self._problems.pop(name, None)
            self._good[name] = documents
        return True

    def unread(self) -> list[Problem]:
        """Paths of which nothing could be read, ever: at the start a mistake in the settings."""
        return [found[0] for name, found in self._problems.items() if name not in self._digests]

    def _tell(self) -> None:
        if self._status is not None:
            problems = tuple(str(problem) for found in self._problems.values() for problem in found)
            state = "stale" if problems else "live"
            self._status(SourceStatus("manifests", state, time.time(), problems[0] if problems else "", problems))

    def look_now(self) -> None:
        """Look again at once (SIGHUP)."""
        if self._wake is not None:
            self._wake.set()

    async def run(self) -> None:
        """Look for ever."""
        self._wake = self._wake or asyncio.Event()
        while True:
            try:
                async with asyncio.timeout(POLL_S):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            self.read()


def _running() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
