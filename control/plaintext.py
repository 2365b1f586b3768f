"""The ledger of who still comes in plaintext, by destination, as sidecars report it; and whom a switch to STRICT would
refuse.

An entry is kept for thirty days; it stands in the way of STRICT for one day after the source was last seen. What a
sidecar refuses already (it is STRICT) is shown, and stands in nobody's way.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from ..policy.peer_authentication import peer_mode
from ..policy.resources import PeerAuthentication
from ..registry.model import Workload
from ..registry.snapshot import Snapshot

KEPT_S = 30 * 86400.0
BLOCKS_S = 86400.0
ENTRIES_MOST = 1000
"""Of one destination; the one seen longest ago goes first."""
NAMED_MOST = 10
FORCE = "fairlead.dev/force"


class Report(msgspec.Struct):
    """One line of POST /fairlead/v1/feed/plaintext."""

    source: str
    port: int
    connections: int = 0
    refused: int = 0
    first_ago_s: float = 0.0
    last_ago_s: float = 0.0


class Entry(msgspec.Struct):
    """`source`: the one workload at the address when it was seen, or empty. Times in Unix seconds."""

    destination: str
    port: int
    address: str
    source: str = ""
    connections: int = 0
    refused: int = 0
    first_seen: float = 0.0
    last_seen: float = 0.0

    @property
    def who(self) -> str:
        return f"{self.source} ({self.address})" if self.source else self.address or "others"


class Forgotten(msgspec.Struct, frozen=True):
    """What an operator has told to forget: of a destination (or a namespace), or of one source there."""

    namespace: str
    workload: str = ""
    source: str = ""
    at: float = 0.0
    """What came later counts."""

    def holds(self, entry: Entry) -> bool:
        return (
            entry.last_seen <= self.at
            and _is_of(entry.destination, self.namespace, self.workload)
            and (not self.source or self.source in (entry.source, entry.address))
        )


class PlaintextLedger:
    """`kept`: what `dump` gave before a restart; raises ValueError where it cannot be read."""

    def __init__(self, kept: bytes = b"") -> None:
        entries = msgspec.json.decode(kept, type=list[Entry]) if kept else []
        self._entries: dict[str, dict[tuple[str, int], Entry]] = {}
        for entry in entries:
            self._entries.setdefault(entry.destination, {})[entry.address, entry.port] = entry

    def dump(self, since: float = 0.0) -> bytes:
        """Those seen since then."""
        return msgspec.json.encode(
            [one for own in self._entries.values() for one in own.values() if one.last_seen >= since]
        )

    def take(self, destination: str, reports: Sequence[Report], snapshot: Snapshot, now: float) -> None:
        """A sidecar's report."""
        own = self._entries.setdefault(destination, {})
        for report in reports:
            at = snapshot.workloads_at(report.source) if report.source else ()
            entry = own.get((report.source, report.port))
            if entry is None:
                entry = own[report.source, report.port] = Entry(
                    destination, report.port, report.source, first_seen=now - report.first_ago_s
                )
            entry.source = at[0].key if len(at) == 1 else ""
            entry.connections += report.connections
            entry.refused += report.refused
            entry.last_seen = max(entry.last_seen, now - report.last_ago_s)
        for key in [key for key, entry in own.items() if entry.last_seen < now - KEPT_S]:
            del own[key]
        while len(own) > ENTRIES_MOST:
            del own[min(own, key=lambda key: own[key].last_seen)]

    def drop(self, forgotten: Sequence[Forgotten]) -> int:
        """Forget these; how many entries."""
        gone = 0
        for own in self._entries.values() if forgotten else ():
            for key in [key for key, entry in own.items() if any(one.holds(entry) for one in forgotten)]:
                del own[key]
                gone += 1
        return gone

    def count(self, one: Forgotten) -> int:
        return sum(1 for entry in self.entries() if one.holds(entry))

    def entries(self, namespace: str = "", workload: str = "") -> list[Entry]:
        found = [
            entry
            for destination, own in self._entries.items()
            if not namespace or _is_of(destination, namespace, workload)
            for entry in own.values()
        ]
        return sorted(found, key=lambda one: (one.destination, one.port, one.source, one.address))

    def rows(
        self,
        entries: Iterable[Entry],
        policies: Sequence[PeerAuthentication],
        root: str,
        snapshot: Snapshot,
        now: float,
    ) -> list[dict[str, Any]]:
        """For people and scripts: each entry, the mode in force where it came to, and whether it blocks STRICT."""
        return [
            {
                **msgspec.to_builtins(entry),
                "mode": (mode := mode_of(policies, root, snapshot, entry)),
                "blocks": mode != "STRICT" and entry.last_seen > now - BLOCKS_S,
            }
            for entry in entries
        ]

    def refused_by(
        self,
        before: Sequence[PeerAuthentication],
        after: Sequence[PeerAuthentication],
        root: str,
        snapshot: Snapshot,
        now: float,
        new_root: str | None = None,
    ) -> list[Entry]:
        """Who came lately where these policies would no longer take plaintext. `root`: the root namespace, and
        `new_root` the one after, where it is another."""
        return [
            entry
            for entry in self.entries()
            if entry.last_seen > now - BLOCKS_S
            and mode_of(before, root, snapshot, entry) != "STRICT"
            and mode_of(after, root if new_root is None else new_root, snapshot, entry) == "STRICT"
        ]


def _is_of(destination: str, namespace: str, workload: str) -> bool:
    return destination == f"{namespace}/{workload}" if workload else destination.startswith(f"{namespace}/")


def mode_of(policies: Sequence[PeerAuthentication], root: str, snapshot: Snapshot, entry: Entry) -> str:
    namespace, _, name = entry.destination.partition("/")
    workload = snapshot.workloads.get(entry.destination) or Workload(namespace, name)
    return peer_mode(policies, root, workload, entry.port).mode


def refusal(entries: Sequence[Entry], now: float) -> str:
    """In one sentence who would be refused, and what to do."""
    told = [
        f"{entry.destination} port {entry.port or 'unknown'}: {entry.who}, {entry.connections} "
        f"connection{'' if entry.connections == 1 else 's'}, last {age(now - entry.last_seen)} ago"
        for entry in entries[:NAMED_MOST]
    ]
    more = f"; and {len(entries) - NAMED_MOST} more" if len(entries) > NAMED_MOST else ""
    return (
        f"STRICT would refuse who still comes in plaintext: {'; '.join(told)}{more}. Give these clients a sidecar "
        "(fairlead mtls shows them), or force it: fairlead apply --force, "
        f'fairlead mtls strict --force, or the annotation {FORCE}: "true"'
    )


def age(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{int(seconds // size)} {unit}"
    return f"{max(0, int(seconds))} s"
