"""Judges a recorded history of several control planes: no update lost, none seen twice, one order for all.

Every write carries a mark of its own in the object, so that each event says which write it came from.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Op:
    """One write by a client. `outcome`: True acknowledged, False refused, None: nobody told."""

    client: str
    kind: str
    """put or delete."""
    key: str
    mark: str
    expect: int
    """The version that it insisted on; 0: that there is none."""
    outcome: bool | None
    version: int = 0
    """resourceVersion of the answer; 0: none in it."""


@dataclass(frozen=True)
class Event:
    kind: str
    """ADDED, MODIFIED, DELETED."""
    key: str
    version: int
    mark: str


@dataclass
class Watcher:
    """What one watcher saw: a list at `start`, and every event from there on, over all its reconnections."""

    name: str
    start: int
    listed: dict[str, tuple[int, str]]
    """(version, mark) by key."""
    events: list[Event] = field(default_factory=list)


@dataclass
class History:
    ops: list[Op] = field(default_factory=list)
    watchers: list[Watcher] = field(default_factory=list)
    finals: list[tuple[int, dict[str, tuple[int, str]]]] = field(default_factory=list)
    """What each control plane lists at the end: (version of the list, objects)."""


def check(history: History) -> list[str]:
    """Everything that is wrong; empty: nothing."""
    wrong, order = _one_order(history)
    return wrong + _compare_and_swap(history, order) + _final(history, order)


def _one_order(history: History) -> tuple[list[str], list[Event]]:
    """Versions only grow, and all watchers saw the same events between the same versions."""
    wrong: list[str] = []
    known: dict[int, Event] = {}
    for watcher in history.watchers:
        last = watcher.start
        for event in watcher.events:
            if event.version <= last:
                wrong.append(f"{watcher.name}: {event} after version {last}: seen twice, or out of order")
            last = max(last, event.version)
            other = known.setdefault(event.version, event)
            if (other.key, other.mark, other.kind) != (event.key, event.mark, event.kind):
                wrong.append(f"{watcher.name}: {event} is {other} to another watcher")
    order = [known[version] for version in sorted(known)]
    end = order[-1].version if order else 0
    for watcher in history.watchers:
        seen = {event.version for event in watcher.events}
        for event in order:
            if watcher.start < event.version <= end and event.version not in seen:
                wrong.append(f"{watcher.name} missed {event}")
        for key, (version, mark) in watcher.listed.items():
            if version > watcher.start:
                wrong.append(f"{watcher.name}: a list at {watcher.start} has {key} at {version} ({mark})")
    return wrong, order


def _compare_and_swap(history: History, order: list[Event]) -> list[str]:
    """Acknowledged writes happened, once, on the version that they expected; refused ones did not happen."""
    wrong: list[str] = []
    by_mark: dict[str, list[Event]] = {}
    before: dict[int, int] = {}
    """The version of the object before each event; 0: there was none."""
    current: dict[str, int] = {}
    for event in order:
        if event.kind != "DELETED":
            by_mark.setdefault(event.mark, []).append(event)
        before[event.version] = current.get(event.key, 0)
        current[event.key] = 0 if event.kind == "DELETED" else event.version
    deletions = {(event.key, before[event.version]) for event in order if event.kind == "DELETED"}
    versions: dict[int, str] = {}
    for op in history.ops:
        if op.kind == "delete":
            if op.outcome is True and (op.key, op.expect) not in deletions:
                wrong.append(f"{op}: acknowledged, and nobody saw it go")
            continue
        found = by_mark.get(op.mark, [])
        if len(found) > 1:
            wrong.append(f"{op}: happened {len(found)} times: {found}")
        if op.outcome is False and found:
            wrong.append(f"{op}: refused, and it happened: {found[0]}")
        if op.outcome is True:
            if not found:
                wrong.append(f"{op}: acknowledged, and lost")
            elif found[0].version != op.version:
                wrong.append(f"{op}: answered with version {op.version}, seen at {found[0].version}")
            if versions.setdefault(op.version, op.mark) != op.mark:
                wrong.append(f"{op}: version {op.version} was given to {versions[op.version]}, too")
        if found and before[found[0].version] != op.expect:
            wrong.append(f"{op}: happened on version {before[found[0].version]}")
    return wrong


def _final(history: History, order: list[Event]) -> list[str]:
    """All control planes end with the same objects, and these are what the events lead to."""
    wrong: list[str] = []
    for version, objects in history.finals[1:]:
        if objects != history.finals[0][1]:
            wrong.append(f"control planes end with other objects: {objects} at {version}, {history.finals[0]}")
    if history.finals and history.watchers:
        first = min(history.watchers, key=lambda one: one.start)
        state = dict(first.listed)
        for event in order:
            if event.version <= first.start:
                continue
            if event.kind == "DELETED":
                state.pop(event.key, None)
            else:
                state[event.key] = (event.version, event.mark)
        if state != history.finals[0][1]:
            wrong.append(f"events lead to {state}, listed is {history.finals[0][1]}")
    return wrong
