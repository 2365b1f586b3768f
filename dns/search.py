"""The client's search list, walked here: with `ndots:5` a short name then costs one question instead of four.

A stub with `search NS.svc.ZONE svc.ZONE ZONE` asks for `NAME.NS.svc.ZONE` first. Where that is missing, what it would
ask next is looked up at once, and the first name that exists is given behind a CNAME. The namespace stands in the
question; with `client` it must also be that of the workload that asks, since others may mean the name as written.
"""

from __future__ import annotations

from collections.abc import Iterator

from .message import labels_of, wire_name
from .records import Found, ZoneOptions

LONGEST_NAME = 255


class Walk:
    """One walk down a search list: what is left of it, and what its outcome depends on so far."""

    __slots__ = ("denial", "depends", "left")

    def __init__(self, denial: Found, left: Iterator[bytes]) -> None:
        self.denial = denial
        """What is said if nothing on the list exists."""
        self.left = left
        self.depends = list(denial.depends)


class SearchList:
    """The search domains of clients in any namespace."""

    def __init__(self, options: ZoneOptions) -> None:
        self._services = wire_name(f"svc.{options.cluster_domain}")
        self._rest = [self._services, wire_name(options.cluster_domain), *map(wire_name, options.search)]

    def split(self, name: bytes) -> tuple[bytes, bytes] | None:
        """(what the client asked for, its namespace) if the name ends in the first search domain of some client."""
        if not name.endswith(self._services):
            return None
        left = name[: -len(self._services)]
        labels = labels_of(left + b"\0")
        if len(labels) < 2 or sum(1 + len(label) for label in labels) != len(left):
            return None
        namespace = labels[-1]
        return left[: -1 - len(namespace)], namespace

    def candidates(self, base: bytes) -> Iterator[bytes]:
        """What a stub asks next, in its order; the name as given comes last."""
        for domain in self._rest:
            if len(base) + len(domain) <= LONGEST_NAME:
                yield base + domain
        yield base + b"\0"
