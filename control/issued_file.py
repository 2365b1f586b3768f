"""Shell: the record of what was issued, as a file of lines: they are added before their certificates are handed out."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Sequence
from pathlib import Path

from .issued import IssuedLeaf, line_of, read

COMPACT_LINES = 20_000
"""So many lines more than there are certificates, and the file is written anew."""
logger = logging.getLogger("fairlead.certificates")


class IssuedFile:
    """An Issued that a restart finds again. What the kernel had not written when the host died is lost: then the
    sidecars, when they connect, say what they hold."""

    def __init__(self, path: Path, now: float) -> None:
        """Raises OSError."""
        self._path = path
        self._descriptor = -1
        lines = path.read_bytes().splitlines() if path.exists() else []
        self.record, damaged = read(lines, now)
        if damaged:
            logger.warning("%s: %d lines cannot be read and are left out", path, damaged)
        try:
            self._compact(now)
        except OSError as error:  # a full disk: what is there is kept as it is
            logger.warning("%s cannot be compacted: %s", path, error)
            self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)

    def add(self, leaves: Sequence[IssuedLeaf]) -> None:
        """By one write."""
        for leaf in leaves:
            self.record.add(leaf)
        self._lines += len(leaves)
        try:
            os.write(self._descriptor, b"".join(map(line_of, leaves)))
            if self._lines > COMPACT_LINES and self._lines > 2 * len(self.record):
                self._compact(leaves[-1].issued_at)
        except OSError as error:  # a full disk keeps nobody from a certificate
            serials = ", ".join(leaf.serial for leaf in leaves)
            logger.error("%s: %s: after a restart `fairlead certs` will not know %s", self._path, error, serials)

    def _compact(self, now: float) -> None:
        self.record.forget(now)
        draft = self._path.with_suffix(".new")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"".join(map(line_of, self.record.all(now))))
            draft.replace(self._path)
        except OSError:
            os.close(descriptor)
            with contextlib.suppress(OSError):
                draft.unlink()
            raise
        self.close()
        self._descriptor, self._lines = descriptor, len(self.record)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
