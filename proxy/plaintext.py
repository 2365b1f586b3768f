"""Who still comes in plaintext: a sidecar's count by source address and own port, until control has taken it."""

from __future__ import annotations

from collections.abc import Iterable

SOURCES_MOST = 1000
"""Kept apart; what is more counts under an empty source."""


class Seen:
    """`first` and `last`: seconds of the clock that the ledger is told."""

    __slots__ = ("connections", "first", "last", "refused")

    def __init__(self, now: float) -> None:
        self.connections = 0
        self.refused = 0
        """Of these, refused by PeerAuthentication."""
        self.first = now
        self.last = now


class Ledger:
    def __init__(self) -> None:
        self._seen: dict[tuple[str, int], Seen] = {}
        self.total: dict[tuple[str, int], int] = {}
        """Connections in all, for metrics."""

    def came(self, source: str, port: int, refused: bool, now: float) -> None:
        """A connection to the workload's `port` (0: not known) without mutual TLS."""
        found = self._at(source, port, now)
        found.connections += 1
        found.refused += refused
        found.last = now
        key = (source, port)
        if key not in self.total and len(self.total) >= SOURCES_MOST:
            key = ("", port)
        self.total[key] = self.total.get(key, 0) + 1

    def lives(self, connections: Iterable[tuple[str, int]], now: float) -> None:
        """These are open still."""
        for source, port in connections:
            self._at(source, port, now).last = now

    def metric_samples(self) -> list[tuple[dict[str, str], float]]:
        return [({"source": source or "others", "port": str(port)}, n) for (source, port), n in self.total.items()]

    def _at(self, source: str, port: int, now: float) -> Seen:
        key = (source, port)
        found = self._seen.get(key)
        if found is None:
            if len(self._seen) >= SOURCES_MOST:
                key = ("", port)
                found = self._seen.get(key)
            if found is None:
                found = self._seen[key] = Seen(now)
        return found

    def take(self, now: float) -> list[dict[str, object]]:
        """What came since the last time, with ages in seconds."""
        taken, self._seen = self._seen, {}
        return [
            {"source": source, "port": port, "connections": one.connections, "refused": one.refused,
             "first_ago_s": round(now - one.first, 3), "last_ago_s": round(now - one.last, 3)}
            for (source, port), one in taken.items()
        ]  # fmt: skip

    def give_back(self, entries: Iterable[dict[str, object]], taken_at: float) -> None:
        """Control has not heard of them."""
        for entry in entries:
            found = self._at(str(entry["source"]), int(str(entry["port"])), taken_at)
            found.connections += int(str(entry["connections"]))
            found.refused += int(str(entry["refused"]))
            found.first = min(found.first, taken_at - float(str(entry["first_ago_s"])))
            found.last = max(found.last, taken_at - float(str(entry["last_ago_s"])))
