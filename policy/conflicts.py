"""What one resource takes from another: kinds of findings by which a status condition is chosen, and further conflicts.

A finding of `validate_references` and `validate_relations` whose message is a `Conflict` names another resource that
says otherwise about the same thing; one whose message is `Missing` names what is referred to and is not there.
"""

from __future__ import annotations

from collections.abc import Sequence

from .parse import Parsed
from .resources import PeerAuthentication, Resources, Sidecar


class Conflict(str):
    """Two resources that cannot both be in force."""

    __slots__ = ()


class Missing(str):
    """A reference to something that is not there."""

    __slots__ = ()


def check_conflicts(parsed: Sequence[Parsed], resources: Resources) -> None:
    """Adds a warning to every PeerAuthentication and Sidecar that has no effect because an older one has its place."""
    first: dict[tuple[str, str, tuple[tuple[str, str], ...]], PeerAuthentication | Sidecar] = {}
    listed: list[PeerAuthentication | Sidecar] = [*resources.peer_authentications, *resources.sidecars]
    for each in listed:  # oldest first
        first.setdefault(_place(each), each)
    for one in parsed:
        rule = one.resource
        if not one.usable or one.kind is None or not isinstance(rule, (PeerAuthentication, Sidecar)):
            continue
        older = first.get(_place(rule), rule)
        if older is rule or older.meta.key == rule.meta.key:
            continue
        whom = "with the same selector" if _place(rule)[2] else "of the namespace as a whole"
        told = f"has no effect: {one.kind.kind} {older.meta.key} {whom} is older, and of these the oldest alone counts"
        path = "spec.workloadSelector" if isinstance(rule, Sidecar) else "spec.selector"
        one.warnings.append((path, Conflict(f"{told}; put both into one")))


def _place(rule: PeerAuthentication | Sidecar) -> tuple[str, str, tuple[tuple[str, str], ...]]:
    if isinstance(rule, Sidecar):
        chosen = rule.spec.workload_selector
        labels = chosen.labels if chosen is not None else {}
    else:
        selector = rule.spec.selector
        labels = selector.match_labels if selector is not None else {}
    return type(rule).__name__, rule.meta.namespace, tuple(sorted(labels.items()))
