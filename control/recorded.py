"""What the API writes through: the store, with who changes something and why, and with claims of ClusterIPs.

A reason is what the request says (`Fairlead-Change-Cause`, `fairlead apply --reason`), else the annotation
`fairlead.dev/change-cause` or `kubernetes.io/change-cause`, where the write sets or changes it: one that was there
before speaks of an earlier change.

Where control planes share the store, each address of a Service is an object of its own, made in the same commit as
the Service: of two control planes that give out one address only the first succeeds, and the other looks again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .api_context import reason_given, who
from .cluster_ips import addresses_of
from .store import UNKNOWN, Cause, Change, Key, Objects, Store, Write

ANNOTATIONS = ("fairlead.dev/change-cause", "kubernetes.io/change-cause")
REASON_MOST = 1000
"""Characters of a reason that are kept."""
CLAIMS = "clusterips.internal.fairlead.dev"
SERVICES = "services"


class RecordedStore:
    """A Store over another."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.memory = store.memory
        self.shared = store.shared
        self.url = store.url

    async def write(self, writes: Sequence[Write], cause: Cause = UNKNOWN) -> list[Change]:
        """As the store's; the changes asked for, without those of claims."""
        if cause is UNKNOWN:
            cause = Cause(who(), (reason_given() or reason_of(self.memory, writes))[:REASON_MOST])
        if not self.shared:
            return await self._store.write(writes, cause)
        claims = claims_of(self.memory, writes)
        changes = await self._store.write([*claims, *writes], cause)
        return changes[len(claims) :]

    async def sync(self) -> None:
        await self._store.sync()

    def problem(self) -> str:
        return self._store.problem()

    async def probe(self) -> str:
        return await self._store.probe()

    async def close(self) -> None:
        await self._store.close()


def annotations_of(body: Mapping[str, Any]) -> Mapping[str, Any]:
    metadata = body.get("metadata")
    found = metadata.get("annotations") if isinstance(metadata, dict) else None
    return found if isinstance(found, dict) else {}


def reason_of(memory: Objects, writes: Sequence[Write]) -> str:
    """What an annotation that one of these writes sets or changes says."""
    for write in writes:
        if write.body is None:
            continue
        now = annotations_of(write.body)
        for name in ANNOTATIONS:
            if said := now.get(name):
                stored = memory.get(write.key)
                if stored is None or annotations_of(stored.object()).get(name) != said:
                    return str(said)
    return ""


def claims_of(memory: Objects, writes: Sequence[Write]) -> list[Write]:
    """The writes that claim the addresses of these Services, and give up those that they do not have any more."""
    claims: dict[str, Write] = {}
    for write in writes:
        if write.key.resource != SERVICES:
            continue
        stored = memory.get(write.key)
        had = set(addresses_of(stored.object())) if stored is not None else set()
        has = set(addresses_of(write.body)) if write.body is not None else set()
        for address in sorted(had - has):
            key = Key(CLAIMS, "", address)
            if address not in claims and owner(memory, key) == write.key[1:]:
                claims[address] = Write(key, None)
        for address in sorted(has - had):
            claims[address] = _claim(memory, write.key, address)
    return [claims[address] for address in sorted(claims)]


def _claim(memory: Objects, service: Key, address: str) -> Write:
    key = Key(CLAIMS, "", address)
    stored = memory.get(key)
    body = {"metadata": {"name": address}, "namespace": service.namespace, "name": service.name}
    # A claim that is there is its owner's, unless that is gone or has given the address up in this very commit.
    other = memory.get(Key(SERVICES, *owner(memory, key))) if stored is not None else None
    lapsed = stored is not None and (other is None or address not in addresses_of(other.object()))
    return Write(key, body, expect=stored.version if stored is not None and lapsed else 0)


def owner(memory: Objects, key: Key) -> tuple[str, str]:
    """(namespace, name) of the Service that claims this address."""
    stored = memory.get(key)
    body = stored.object() if stored is not None else {}
    return str(body.get("namespace", "")), str(body.get("name", ""))


def missing_claims(memory: Objects) -> list[Write]:
    """For Services that were stored before control planes shared the store."""
    return [
        _claim(memory, stored.key, address)
        for stored in memory.all(SERVICES)
        for address in addresses_of(stored.object())
        if memory.get(Key(CLAIMS, "", address)) is None
    ]
