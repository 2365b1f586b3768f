"""Shell: the last contribution of a source on disk, for a cold start while the source does not answer."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import msgspec

from .model import Facts

FORMAT = 1
logger = logging.getLogger("fairlead.registry")


class _Kept(msgspec.Struct):
    format: int
    saved_at: float
    facts: Facts


class Keep:
    """One file for one source, replaced as a whole, readable by its owner only."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last: Facts | None = None

    def load(self) -> tuple[Facts, float] | None:
        """(facts, Unix seconds of saving); None: nothing there that can be used, with the reason logged."""
        try:
            kept = msgspec.json.decode(self.path.read_bytes(), type=_Kept)
        except FileNotFoundError:
            return None
        except (OSError, msgspec.MsgspecError) as error:
            logger.warning("%s cannot be used: %s", self.path, error)
            return None
        if kept.format != FORMAT:
            logger.warning("%s is of format %d, not %d: not used", self.path, kept.format, FORMAT)
            return None
        return kept.facts, kept.saved_at

    def save(self, facts: Facts, now: float) -> None:
        """Errors are logged; what was saved before stays."""
        if facts is self._last:
            return
        draft = self.path.with_suffix(".new")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(msgspec.json.encode(_Kept(FORMAT, now, facts)))
            draft.replace(self.path)
            self._last = facts
        except OSError as error:
            logger.error("%s could not be written: %s", self.path, error)
