"""What is known of the request being handled: who asks, what for, and what the audit log is to say of it."""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

from .api_request import Target
from .auth import NOBODY, Principal
from .rbac import Attributes


class Context:
    """One per request, made by the outermost handler."""

    __slots__ = (
        "address",
        "audit",
        "charge",
        "check_work",
        "confirm",
        "counted",
        "decision",
        "force",
        "name",
        "permitted",
        "principal",
        "reason",
        "rule",
        "target",
        "wanted",
    )

    def __init__(self) -> None:
        self.principal = Principal(NOBODY, "unknown")
        self.target: Target | None = None
        self.name = ""
        """Of an object that got its name here."""
        self.reason = ""
        """Why the client changes something, as its request says."""
        self.audit: dict[str, Any] = {}
        """Further fields of the audit line."""
        self.address = ""
        """Of who asks."""
        self.confirm = ""
        """The confirmation under which changes are to be made."""
        self.force = False
        """Also what would cut off control, DNS or the author."""
        self.wanted: Attributes | None = None
        self.permitted = False
        """Whether permissions (`rbac`) allow it."""
        self.decision = ""
        """allow or forbid, where permissions were asked."""
        self.rule = ""
        """The binding and role that allowed it."""
        self.counted: tuple[str, bool] | None = None
        """(user, is a watch) as counted by the limits."""
        self.charge: Callable[[float], None] = lambda _seconds: None
        """Told what processor time this request takes."""
        self.check_work: Callable[[], None] = lambda: None
        """Refuses (StatusError 429) more work of a user who has taken too much."""


_context: ContextVar[Context] = ContextVar("fairlead_request")


def begin() -> Context:
    """A new context for the request that this task handles now."""
    made = Context()
    _context.set(made)
    return made


def who() -> str:
    """The name of who asks; control itself, where no request is handled."""
    context = _context.get(None)
    return context.principal.name if context is not None else "fairlead:control"


def reason_given() -> str:
    """Why, as the request says; empty: it does not."""
    context = _context.get(None)
    return context.reason if context is not None else ""


def current() -> Context:
    """The context of the request that this task handles."""
    return _context.get()
