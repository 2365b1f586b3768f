"""What is known of the request being handled: who asks, what for, and what the audit log is to say of it."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from .api_request import Target
from .auth import NOBODY, Principal


class Context:
    """One per request, made by the outermost handler."""

    __slots__ = ("audit", "name", "principal", "target")

    def __init__(self) -> None:
        self.principal = Principal(NOBODY, "unknown")
        self.target: Target | None = None
        self.name = ""
        """Of an object that got its name here."""
        self.audit: dict[str, Any] = {}
        """Further fields of the audit line."""


_context: ContextVar[Context] = ContextVar("fairlead_request")


def begin() -> Context:
    """A new context for the request that this task handles now."""
    made = Context()
    _context.set(made)
    return made


def current() -> Context:
    """The context of the request that this task handles."""
    return _context.get()
