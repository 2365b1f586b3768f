"""What connected sidecars tell of themselves, laid over what sources say of their workloads.

A mesh port once learned stays: were it dropped whenever a sidecar or control restarts, peers would fall back to plain
text, past the policies of the destination. It goes when the workload goes. A workload that no source declares exists
as long as its sidecar has told of it; while that is not connected, the workload is not ready. Whether an app is ready
is its sidecar's to say, if that checks it: it goes before what sources say of the workload's readiness.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable

import msgspec

from ..registry.checks import Check
from ..registry.model import Facts, Workload, WorkloadPort
from ..registry.shards import amended, sharded

AWAY_S = 86400.0
"""So long what is known of a workload that only its sidecar told of outlives its connection: names of allocations and
containers are never used again."""
AWAY_MOST = 1000
"""Of a service account's; the longest away are forgotten first."""


class Known(msgspec.Struct, frozen=True, omit_defaults=True):
    """A sidecar as last heard of."""

    namespace: str
    workload: str
    address: str = ""
    mesh_port: int = 0
    service_account: str = ""
    labels: dict[str, str] = {}
    ports: tuple[int, ...] = ()
    gateway: bool = False
    """It need have no mesh port."""
    left: bool = False
    """It drains, or has ended after it had: its workload takes no more until a sidecar of it connects again."""
    checked: bool = False
    """It checks its app: it is heard without a mesh port, too."""
    unhealthy: str = ""
    """Why its app is not ready, as its checks say; stays while the sidecar is away, since nobody knows better."""
    named: bool = True
    """Not only its own word says that the workload has this name (claims.py). What follows: of its WorkloadGroup."""
    proved: bool = False
    """The service account is shown, not only said."""
    service_ports: dict[str, int] = {}
    locality: str = ""
    weight: int = 1
    checks: tuple[Check, ...] = ()
    away: float = 0.0
    """Since when it is known not to be connected (Unix seconds), where no source declares it; 0: it is, or is not known
    not to be."""

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.workload}"

    def is_of(self, account: str | None) -> bool:
        """Whether it is no other account's, as far as anybody has shown; None: nobody's yet."""
        return not self.proved or account in (None, self.service_account)


class Sidecars:
    """All sidecars ever heard of, and which of them are connected now."""

    def __init__(self, kept: bytes = b"") -> None:
        """`kept`: what `dump` gave before a restart. Raises ValueError where it cannot be read."""
        known = msgspec.json.decode(kept, type=list[Known]) if kept else []
        self.known: dict[str, Known] = {one.key: one for one in known}
        self._seen: set[str] = set()
        """Connected at some time in this process's life."""
        self._gone: set[str] = set()
        """Of these, the ones that are not connected any more."""

    def dump(self) -> bytes:
        return msgspec.json.encode(sorted(self.known.values(), key=lambda one: one.key))

    def connected(self, now: Iterable[Known]) -> frozenset[str]:
        """Take those that are connected now; the workloads of which anything is new to the overlay."""
        present: dict[str, Known] = {}
        for one in now:
            before = self.known.get(one.key)
            if one.mesh_port or one.gateway or (before is None and (one.left or one.checked)):
                present[one.key] = one
            elif before is not None and one.checked:
                present[one.key] = msgspec.structs.replace(one, mesh_port=before.mesh_port)
            elif before is not None:
                present[one.key] = msgspec.structs.replace(before, left=one.left, checked=False, unhealthy="", away=0.0)
        self._seen |= set(present)
        gone = self._seen - set(present)
        merged = {**self.known, **present}
        changed = {key for key, one in present.items() if self.known.get(key) != one} | (gone ^ self._gone)
        self.known, self._gone = merged, gone
        return frozenset(changed)

    def gone(self, absent: Iterable[Known]) -> None:
        """Other control planes say what is known of these, and that they are connected nowhere."""
        for one in absent:
            if one.key not in self.known or one.key in self._gone or one.key not in self._seen:
                self.known[one.key] = one
            self._seen.add(one.key)

    def forget(self, removed: Iterable[str]) -> None:
        """Drop what is known of workloads whose declaration was removed, unless their sidecars are connected."""
        for key in removed:
            if key in self.known and (key in self._gone or key not in self._seen):
                del self.known[key]
                self._gone.discard(key)
                self._seen.discard(key)

    def expire(self, declared: Callable[[str], bool], now: float) -> frozenset[str]:
        """Forget workloads that no source declares, and that have not been connected for long, or are too many of one
        account; which. `now`: Unix seconds. To be called now and then."""
        away: dict[tuple[str, str], list[Known]] = {}
        for key, one in self.known.items():
            if declared(key) or (key in self._seen and key not in self._gone):
                continue
            if not one.away:
                one = self.known[key] = msgspec.structs.replace(one, away=now)
            away.setdefault((one.namespace, one.service_account), []).append(one)
        found = set()
        for many in away.values():
            many.sort(key=lambda one: -one.away)
            found |= {one.key for at, one in enumerate(many) if at >= AWAY_MOST or now - one.away > AWAY_S}
        self._drop(found)
        return frozenset(found)

    def _drop(self, keys: set[str]) -> None:
        for key in keys:
            del self.known[key]
        self._seen -= keys
        self._gone -= keys

    def disown(self, holder: Callable[[str], str | None]) -> frozenset[str]:
        """Forget what was told by who had another account than the workload's by now (`holder`); of which workloads."""
        found = {key for key, one in self.known.items() if not one.is_of(holder(key))}
        self._drop(found)
        return frozenset(found)

    def leave(self, key: str) -> bool:
        """A sidecar that is not connected now says that it drains; whether that is new."""
        one = self.known.get(key)
        if one is None or one.left:
            return False
        self.known[key] = msgspec.structs.replace(one, left=True)
        return True

    def left(self) -> list[str]:
        """Workloads that take no more."""
        return [key for key, one in self.known.items() if one.left]

    def over(self, facts: Facts, before: Facts | None = None, touched: Iterable[str] | None = None) -> Facts:
        """The facts with the mesh ports and the health of the workloads in it.

        `before`: what this gave last, where nothing but the workloads `touched` is different for it.
        """
        workloads = facts.workloads
        if before is not None and touched is not None:
            found = {key: self._laid(key, workloads[key]) if key in workloads else None for key in touched}
            made = amended(before.workloads, found)
        else:
            made = sharded({key: self._laid(key, workload) for key, workload in workloads.items()})
        return msgspec.structs.replace(facts, workloads=made)

    def _laid(self, key: str, workload: Workload) -> Workload:
        known = self.known.get(key)
        return workload if known is None else _laid_over(workload, known)

    def alone(
        self, declared: Container[str], before: Facts | None = None, touched: Iterable[str] | None = None
    ) -> Facts:
        """The workloads that only their sidecars tell of. `before`: as in `over`."""
        if before is None or touched is None:
            made = {key: self._alone(key, one) for key, one in self.known.items() if key not in declared}
            return Facts(workloads=sharded(made))
        found = {
            key: self._alone(key, self.known[key]) if key in self.known and key not in declared else None
            for key in touched
        }
        return Facts(workloads=amended(before.workloads, found))

    def _alone(self, key: str, one: Known) -> Workload:
        gone = key in self._gone
        return Workload(
            namespace=one.namespace,
            name=one.workload,
            addresses=(one.address,) if one.address else (),
            ports=(
                *(WorkloadPort(port, name) for name, port in one.service_ports.items()),
                *(WorkloadPort(port) for port in one.ports if port not in one.service_ports.values()),
            ),
            service_ports=one.service_ports,
            locality=one.locality,
            weight=one.weight,
            checks=one.checks,
            unnamed=not one.named,
            labels=one.labels,
            service_account=one.service_account or "default",
            mesh_port=one.mesh_port,
            ready=not gone and not one.unhealthy,
            why="its sidecar is not connected to control" if gone else one.unhealthy,
            source="sidecars",
            unhealthy=one.unhealthy,
        )


def _laid_over(workload: Workload, known: Known) -> Workload:
    mesh_port = workload.mesh_port or known.mesh_port
    if known.unhealthy:
        return msgspec.structs.replace(
            workload, mesh_port=mesh_port, ready=False, why=known.unhealthy, unhealthy=known.unhealthy
        )
    return msgspec.structs.replace(workload, mesh_port=mesh_port) if mesh_port != workload.mesh_port else workload
