"""Writes of one turn of the event loop, put off to its end.

What a batch of reads leads to is written in one go after the last of them: a peer wakes once, not once a write, and
waking it is a large part of what a write costs. Nothing waits longer than the turn. Runs compiled (with outbox.pxd) or
as it stands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

PUT_OFF_MOST = 16 * 1024
"""Octets: a longer piece is written at once, so that back-pressure is felt within the turn."""


class Outbox:
    """`soon(callback)` calls back once, after the reads of this turn. Members have `flush()`."""

    def __init__(self, soon: Callable[[Callable[[], None]], Any]) -> None:
        self.soon = soon
        self.members: list[Any] = []

    def add(self, member: Any) -> None:
        """`member` has something to write; to be called once until it is flushed."""
        if not self.members:
            self.soon(self.flush)
        self.members.append(member)

    def flush(self) -> None:
        members = self.members
        self.members = []
        for member in members:
            member.flush()
