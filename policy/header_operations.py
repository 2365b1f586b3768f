"""Header operations of routes and destinations, merged in Istio's order into one remove, set, add."""

from __future__ import annotations

from collections.abc import Sequence

from .format_operators import FormatError, Template, read
from .resources import HeaderOperations
from .tables import HeaderOps

AUTHORITY = ("host", ":authority")


def merged(levels: Sequence[HeaderOperations | None], removals_first: bool) -> HeaderOps | None:
    """One HeaderOps with the effect of several levels, the first level applied first; None where nothing is done.

    `removals_first`: the levels form one combined list (a route with one destination: every `remove` before any
    `set`). Otherwise each level is applied as a whole, so a later level's `remove` deletes what an earlier one set
    (a route with several destinations: the destination's level, then the route's). Empty values are ignored, and so
    is the authority, which `new_authority` answers for.
    """
    removed: dict[str, None] = {}
    final_set: dict[str, str] = {}
    added: dict[str, list[str]] = {}
    given = [level for level in levels if level is not None]
    if removals_first:
        for level in given:
            removed.update((name.lower(), None) for name in level.remove)
    for level in given:
        if not removals_first:
            for name in level.remove:
                removed[name.lower()] = None
                final_set.pop(name.lower(), None)
                added.pop(name.lower(), None)
        for name, value in level.set.items():
            if value and name.lower() not in AUTHORITY:
                final_set[name.lower()] = value_of(value)
                added.pop(name.lower(), None)
        for name, value in level.add.items():
            if value and name.lower() not in AUTHORITY:
                added.setdefault(name.lower(), []).append(value_of(value))
    if not (removed or final_set or added):
        return None
    return HeaderOps(
        set=tuple(final_set.items()),
        add=tuple((name, value) for name, values in added.items() for value in values),
        remove=tuple(name for name in removed if isinstance(final_set.get(name, Template()), Template)),
    )


def new_authority(*levels: HeaderOperations | None) -> str | None:
    """The authority that header operations ask for: earlier levels first, `set` before `add`."""
    for level in levels:
        for operations in (level.set, level.add) if level is not None else ():
            for name, value in operations.items():
                if name.lower() in AUTHORITY and value:
                    return unescaped(value)
    return None


def value_of(text: str) -> str:
    """The value with `%%` as a percent sign, or a Template. What cannot be read is passed on as written: validation has
    refused it."""
    try:
        return read(text)
    except FormatError:
        return text


def unescaped(value: str) -> str:
    """`%%` is a literal percent sign."""
    return value.replace("%%", "%") if "%%" in value else value
